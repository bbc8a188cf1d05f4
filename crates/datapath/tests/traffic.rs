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
    // A frame counts as the packets it becomes, however it was counted on its way.
    for (from, to) in [(0, 1), (1, 0)] {
        let out = lab.nves[from].count(Reason::Encapsulated);
        let arrived = lab.nves[to].count(Reason::Delivered);
        assert!(arrived.abs_diff(out) <= out / 20, "{out} sent, {arrived} arrived\n{text}");
    }
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

/// A tenant's own tunnel inside the overlay: the kernel lets no program encapsulate it once more, so the
/// VXLAN device does.
#[test]
fn a_tunnel_in_the_tunnel() {
    for v6 in [false, true] {
        let how = How { kind: VapKind::Veth, path: Path::Direct, v6 };
        let mut lab = Lab::new();
        lab.attach(0, 1, how);
        lab.attach(1, 2, how);
        for (here, there) in [(0, 1), (1, 0)] {
            let (from, to) = (lab.tss[here].ip(false), lab.tss[there].ip(false));
            lab.tss[here].ns.ip(&format!(
                "link add vx0 type vxlan id 5 dev eth0 local {from} remote {to} dstport 4790
                 addr add 172.16.0.{}/24 dev vx0
                 link set vx0 mtu 1300 up",
                here + 1
            ));
        }
        tcp(&lab.tss[0].ns, &lab.tss[1].ns, "172.16.0.2".parse().unwrap(), 5_000_000);
        assert_eq!(lab.nves[0].count(Reason::Kernel), 0, "{}", lab.dump());
    }
}
