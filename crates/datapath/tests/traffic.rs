//! Tenant traffic across two NVEs: every underlay, path and kind of device.
#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stdout, reason = "a test fails by panicking")]

mod common;

use common::{How, Lab, tcp};
use std::sync::atomic::Ordering;
use weft_datapath::{Path, Reason, VapKind};

/// Two tenant systems at NVE 0, one at NVE 1: ping and TCP, both families, remote and local.
fn works(how: How) {
    let mut lab = Lab::new();
    lab.attach(0, 1, how);
    lab.attach(0, 2, how);
    lab.attach(1, 3, how);
    for v6 in [false, true] {
        for (from, to) in [(0, 2), (2, 0), (0, 1)] {
            let ok = lab.tss[from].ping(lab.tss[to].ip(v6));
            assert!(ok, "ping {from} to {to}, IPv6 {v6}\n{}", lab.dump());
        }
        for (from, to) in [(0, 2), (2, 0), (0, 1)] {
            tcp(&lab.tss[from].ns, &lab.tss[to].ns, lab.tss[to].ip(v6), 20_000_000);
        }
    }
    for ts in &lab.tss {
        // A virtual machine is handed whole segmentation-offload frames.
        let largest = ts.relay.as_ref().map(|r| r.largest.load(Ordering::Relaxed));
        assert!(largest.is_none_or(|octets| octets > 20_000), "{largest:?}");
    }
    let text = lab.dump();
    for nve in &mut lab.nves {
        assert!(nve.count(Reason::Answered) >= 2, "ARP and ND were answered here\n{text}");
        for c in nve.counters() {
            match c.reason {
                Reason::Encapsulated => assert_eq!(c.path, how.path, "{text}"),
                // Segmentation offload for a TAP takes the device.
                Reason::Delivered if how.kind == VapKind::Veth => assert_eq!(c.path, how.path, "{text}"),
                Reason::Delivered | Reason::Answered | Reason::Local | Reason::BumOff => {}
                _ => panic!("unexpected {}\n{text}", c.reason),
            }
        }
    }
}

macro_rules! matrix {
    ($($name:ident: $kind:ident $path:ident $v6:literal;)*) => {
        $(
            #[test]
            fn $name() {
                works(How { kind: VapKind::$kind, path: Path::$path, v6: $v6 });
            }
        )*
    };
}

matrix! {
    veth_direct_v4: Veth Direct false;
    veth_direct_v6: Veth Direct true;
    veth_device_v4: Veth Device false;
    veth_device_v6: Veth Device true;
    tap_direct_v4: Tap Direct false;
    tap_direct_v6: Tap Direct true;
    tap_device_v4: Tap Device false;
    tap_device_v6: Tap Device true;
}
