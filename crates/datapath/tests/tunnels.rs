//! Tunnel policy: what the outer headers say, and how much may pass.
#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stdout, reason = "a test fails by panicking")]

mod common;

use common::{
    How, Lab,
    frames::*,
    pair::{MACS, Pair, ip},
    rloc, tcp_with, vni, wait_for,
};
use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, TcpStream},
    num::NonZeroU64,
    os::fd::AsRawFd as _,
    time::Duration,
};
use weft_datapath::{
    Counter, Datapath as _, Direction, IfIndex, Levels, Location, Meter, Op, Path, Peer, Reason, Tunnel, Vap,
    VapKind, Vn,
};
use weft_model::{Bum, Burst, Codepoint, Dscp, Epoch, Learning, MacAddr, Miss, SourcePorts, Ttl};

const HOWS: [How; 3] = [
    How { kind: VapKind::Veth, path: Path::Direct, v6: false },
    How { kind: VapKind::Veth, path: Path::Direct, v6: true },
    How { kind: VapKind::Tap, path: Path::Device, v6: true },
];

/// From tenant system 1 to `dst`, with this DS field and a word at its end, as many octets as that makes with the
/// padding.
fn data(dst: Mac, inner6: bool, tos: u8, port: u16, padding: usize, word: &[u8]) -> Vec<u8> {
    let udp = udp(port, 9, &[&vec![0; padding][..], word].concat());
    match (ip(0, inner6), ip(1, inner6)) {
        (IpAddr::V4(from), IpAddr::V4(to)) => eth(dst, MACS[0], 0x0800, &ipv4(from, to, 17, tos, 0, &udp)),
        (IpAddr::V6(from), IpAddr::V6(to)) => eth(dst, MACS[0], 0x86dd, &ipv6(from, to, 17, 64, tos, &udp)),
        _ => panic!("two families"),
    }
}

/// The TTL, the DS field with ECN and the source port of the tunnel that a frame on the underlay has.
fn outer(frame: &[u8]) -> (u8, u8, u16) {
    let port = |at: usize| u16::from_be_bytes([frame[at], frame[at + 1]]);
    match frame[12..14] {
        [8, 0] => (frame[22], frame[15], port(34)),
        _ => (frame[21], frame[14] << 4 | frame[15] >> 4, port(54)),
    }
}

fn set(pair: &mut Pair, i: usize, tunnel: Tunnel) {
    let vap = Vap { tunnel, ..Lab::vap(pair.lab.tss[i].n, pair.how) };
    let op = Op::SetVap(pair.lab.tss[i].device, vap);
    pair.lab.nves[i].apply(&[op]);
}

/// TTL, DSCP and source ports, of what goes to one NVE and to several, over either path; a change holds at once.
#[test]
fn outer_headers_are_as_the_policy_says() {
    for how in HOWS {
        let mut pair = Pair::new(how);
        pair.lab.set_vn(Learning::Oracle, Bum::Replicate, how.v6);
        let underlay = Wire::new(&pair.lab.nves[1].ns, "up0");
        let arrives = |frame: &[u8], word: &'static [u8]| {
            pair.wires[0].send(frame);
            outer(&underlay.receive("it", |f| f.ends_with(word)))
        };
        let group = |inner6| if inner6 { [0x33, 0x33, 0, 0, 0, 9] } else { BROADCAST };
        let usual = Tunnel::default();
        // Of ECN what the inner packet has (RFC 6040), whatever becomes of the DSCP.
        for inner6 in [false, true] {
            let (ttl, ds, port) = arrives(&data(MACS[1], inner6, 0xba, 7, 0, b"usual"), b"usual");
            assert_eq!((ttl, ds), (64, 2));
            assert!(port >= if how.path == Path::Direct { 49_152 } else { 1_024 });
        }
        let ports = SourcePorts::new(50_000, 50_003).unwrap();
        let fixed = |n| Dscp::Fixed(Codepoint::new(n).unwrap());
        let of = |ttl, dscp| Tunnel { ttl: Ttl::new(ttl).unwrap(), dscp, ports, ..usual };
        let vap = |tunnel| Op::SetVap(pair.lab.tss[0].device, Vap { tunnel, ..Lab::vap(1, how) });
        let cases =
            [(of(7, fixed(10)), 10 << 2 | 2), (of(255, Dscp::Copy), 0xba), (of(1, fixed(63)), 63 << 2 | 2)];
        for (tunnel, ds) in cases {
            pair.lab.nves[0].apply(&[vap(tunnel)]);
            for inner6 in [false, true] {
                for dst in [MACS[1], group(inner6)] {
                    let got = arrives(&data(dst, inner6, 0xba, 7, 0, b"otherwise"), b"otherwise");
                    assert_eq!((got.0, got.1), (tunnel.ttl.get(), ds), "{how:?} {inner6} {dst:?} {tunnel:?}");
                }
            }
        }
        if how.path == Path::Direct {
            let used: BTreeSet<u16> = (0..64)
                .map(|n| arrives(&data(MACS[1], n % 2 == 0, 0, n, 0, b"a flow"), b"a flow").2)
                .collect();
            assert_eq!(used, (50_000..=50_003).collect());
        }
        // A gateway tells by the TTL what another one has carried.
        let gateway = Vn { miss: Miss::Gateway, gateway: Some(rloc(1, how.v6)), ..Vn::default() };
        pair.lab.nves[0].apply(&[Op::SetVn(vni(7001), gateway)]);
        let unknown = data([2, 0, 0, 0, 0, 9], false, 0, 7, 0, b"whoever");
        assert_eq!(arrives(&unknown, b"whoever").0, 64);
        pair.lab.nves[0].apply(&[vap(usual)]);
        assert_eq!(arrives(&data(MACS[1], true, 1, 7, 0, b"as before"), b"as before").1, 1);
    }
}

/// RFC 9301 section 5.4: of two RLOCs of an NVE each gets its part of the flows, and each flow goes to one. There they all
/// arrive, as from one NVE.
#[test]
fn flows_are_shared_by_the_rlocs_of_an_nve() {
    const FLOWS: u16 = 100;
    for how in HOWS {
        let mut pair = Pair::new(how);
        let ports = SourcePorts::new(50_000, 50_003).unwrap();
        set(&mut pair, 0, Tunnel { ports, ..Tunnel::default() });
        let underlay = Wire::new(&pair.lab.nves[1].ns, "up0");
        // How many of the flows go to the other RLOC, and by how many source ports each gets its own.
        let shared = |pair: &mut Pair, other| {
            let at = Location::Remote { rloc: rloc(1, how.v6), epoch: Epoch::FIRST, other };
            pair.lab.nves[0].apply(&[Op::SetLocation(vni(7001), MacAddr(MACS[1]), at)]);
            let before = pair.lab.nves[1].count(Reason::Delivered);
            let mut used = [BTreeSet::new(), BTreeSet::new()];
            let mut went = BTreeMap::<u16, BTreeSet<bool>>::new();
            for _ in 0..2 {
                for n in 0..FLOWS {
                    pair.wires[0].send(&data(MACS[1], n % 2 == 0, 0, 1_000 + n, 0, b"a flow"));
                }
                for _ in 0..FLOWS {
                    let frame = underlay.receive("all frames", |f| f.ends_with(b"a flow"));
                    let v6 = frame[12..14] == [0x86, 0xdd];
                    let inner = if v6 { 70 } else { 50 };
                    let at = inner + if frame[inner + 12..inner + 14] == [8, 0] { 34 } else { 54 };
                    went.entry(u16::from_be_bytes([frame[at], frame[at + 1]])).or_default().insert(v6);
                    used[usize::from(v6)].insert(outer(&frame).2);
                }
            }
            assert_eq!(went.len(), usize::from(FLOWS));
            assert!(went.values().all(|over| over.len() == 1), "{how:?}: {went:?}");
            let beside = went.values().filter(|over| !over.contains(&how.v6)).count();
            let all = before + 2 * u64::from(FLOWS);
            wait_for("all of them", || (pair.lab.nves[1].count(Reason::Delivered) == all).then_some(()));
            (beside, used.map(|ports| ports.len()))
        };
        assert_eq!(shared(&mut pair, 0).0, 0);
        assert_eq!(shared(&mut pair, u32::MAX).0, usize::from(FLOWS));
        let (beside, ports) = shared(&mut pair, 1 << 30);
        assert!((5..=50).contains(&beside), "{how:?}: {beside} of {FLOWS}, not some quarter");
        if how.path == Path::Direct {
            assert_eq!(ports, [4, 4], "{how:?}");
        }
        assert_eq!(pair.lab.nves[1].count(Reason::SrcMoved), 0, "{}", pair.lab.dump());
        // One that is not known to have another RLOC is sent everything at the one that it has.
        let alone = Peer { nve: true, oracle: false, node: 1, other: None };
        pair.lab.nves[0].apply(&[Op::SetPeer(rloc(1, how.v6).get(), alone)]);
        assert_eq!(shared(&mut pair, u32::MAX).0, 0);
    }
}

fn meter(rate: u64, burst: u32) -> Option<Meter> {
    Some(Meter { rate: NonZeroU64::new(rate).unwrap(), burst: Burst::new(burst).unwrap() })
}

/// What was dropped for its rate at an NVE, each way.
fn limited(pair: &mut Pair, nve: usize) -> [u64; 2] {
    let counters = pair.lab.nves[nve].counters();
    let of = |direction| {
        let of = |c: &&Counter| c.reason == Reason::RateLimited && c.direction == direction;
        counters.iter().filter(of).map(|c| c.packets).sum()
    };
    [of(Direction::Out), of(Direction::In)]
}

/// Whether a frame of so many octets from tenant system 1 arrives, and if not, where it was dropped.
fn passes(pair: &mut Pair, inner6: bool, octets: usize) -> Result<(), (usize, Direction)> {
    let counts = |pair: &mut Pair| [limited(pair, 0)[0], limited(pair, 0)[1], limited(pair, 1)[1]];
    let delivered = |pair: &mut Pair| pair.lab.nves[1].count(Reason::Delivered);
    let (before, arrived) = (counts(pair), delivered(pair));
    let headers = if inner6 { 62 } else { 42 };
    let frame = data(MACS[1], inner6, 0, 7, octets - headers, b"");
    assert_eq!(frame.len(), octets);
    pair.wires[0].send(&frame);
    wait_for("an end of the frame", || {
        let dropped = counts(pair);
        match dropped.iter().zip(before).position(|(now, before)| *now != before) {
            Some(0) => Some(Err((0, Direction::Out))),
            Some(1) => Some(Err((0, Direction::In))),
            Some(_) => Some(Err((1, Direction::In))),
            None => (delivered(pair) > arrived).then_some(Ok(())),
        }
    })
}

/// At a bit a second nothing is added while the test runs.
#[test]
fn no_more_passes_than_may_either_way() {
    for how in [HOWS[0], HOWS[2]] {
        let mut pair = Pair::new(how);
        for (i, dropped) in [(0, (0, Direction::Out)), (1, (1, Direction::In))] {
            let of = |meter| match i {
                0 => Tunnel { send: meter, ..Tunnel::default() },
                _ => Tunnel { receive: meter, ..Tunnel::default() },
            };
            for inner6 in [false, true] {
                set(&mut pair, i, of(meter(1, 1_000 + u32::from(inner6))));
                for octets in [300, 300, 300] {
                    assert_eq!(passes(&mut pair, inner6, octets), Ok(()), "{how:?}\n{}", pair.lab.dump());
                }
                assert_eq!(passes(&mut pair, inner6, 300), Err(dropped));
                // What there is is not lost by that; and the policy said once more is no other one.
                set(&mut pair, i, of(meter(1, 1_000 + u32::from(inner6))));
                assert_eq!(passes(&mut pair, inner6, 100), Ok(()), "{how:?}\n{}", pair.lab.dump());
                assert_eq!(passes(&mut pair, inner6, 100), Err(dropped));
            }
            // Another limit begins with a full bucket; what is larger than that passes, and owes the rest.
            set(&mut pair, i, of(meter(1, 100)));
            assert_eq!(passes(&mut pair, false, 1_000), Ok(()));
            assert_eq!(passes(&mut pair, false, 64), Err(dropped));
            set(&mut pair, i, of(None));
            assert_eq!(passes(&mut pair, false, 1_000), Ok(()));
            // Nothing waits for a rate that is never reached.
            set(&mut pair, i, of(meter(1_000_000_000_000, 1 << 30)));
            for _ in 0..20 {
                assert_eq!(passes(&mut pair, true, 1_000), Ok(()));
            }
            set(&mut pair, i, Tunnel::default());
        }
    }
}

/// A tenant system that comes from another NVE finds no more in its buckets than it left there and what has come in since;
/// and never more than there is room for.
#[test]
fn what_was_left_elsewhere_is_left_here() {
    let mut pair = Pair::new(HOWS[0]);
    let of = |left| Levels { send: left, receive: left };
    for (i, dropped) in [(0, (0, Direction::Out)), (1, (1, Direction::In))] {
        let device = pair.lab.tss[i].device;
        let lower = |pair: &mut Pair, left, ago| {
            pair.lab.nves[i].with(|kernel| kernel.lower(device, of(Some(left)), ago).unwrap());
        };
        let left = |pair: &mut Pair| {
            let left = pair.lab.nves[i].with(|kernel| kernel.levels(device).unwrap());
            if i == 0 { left.send } else { left.receive }
        };
        let with = |meter| match i {
            0 => Tunnel { send: meter, ..Tunnel::default() },
            _ => Tunnel { receive: meter, ..Tunnel::default() },
        };
        assert_eq!(left(&mut pair), None, "no limit");
        lower(&mut pair, 0, Duration::ZERO);
        assert_eq!(passes(&mut pair, false, 1_000), Ok(()));
        for inner6 in [false, true] {
            set(&mut pair, i, with(meter(1, 1_000 + u32::from(inner6))));
            for forged in [2_000, u32::MAX] {
                lower(&mut pair, forged, Duration::ZERO);
                assert_eq!(left(&mut pair), Some(1_000 + u32::from(inner6)));
            }
            lower(&mut pair, 450, Duration::ZERO);
            assert_eq!(passes(&mut pair, inner6, 300), Ok(()), "{}", pair.lab.dump());
            assert_eq!(left(&mut pair), Some(150));
            assert_eq!(passes(&mut pair, inner6, 300), Err(dropped));
            // Nothing is given back.
            lower(&mut pair, 900, Duration::ZERO);
            assert_eq!(left(&mut pair), Some(150));
            lower(&mut pair, 0, Duration::ZERO);
            assert_eq!(passes(&mut pair, inner6, 100), Err(dropped));
        }
        // 100 octets a second for 8 s, or for ever.
        for (ago, there) in [(8, 850..1_000), (3_600, 1_000..1_001)] {
            set(&mut pair, i, with(None));
            set(&mut pair, i, with(meter(800, 1_000)));
            lower(&mut pair, 50, Duration::from_secs(ago));
            assert!(there.contains(&left(&mut pair).unwrap()), "{ago}: {:?}", left(&mut pair));
        }
        set(&mut pair, i, Tunnel::default());
    }
    let nobody = pair.lab.nves[0].with(|kernel| {
        kernel.lower(IfIndex(u32::MAX), of(Some(1)), Duration::ZERO).unwrap();
        kernel.levels(IfIndex(u32::MAX)).unwrap()
    });
    assert_eq!(nobody, Levels::default());
}

/// Between two VAPs of one NVE, and of what is for many.
#[test]
fn frames_that_cross_no_underlay_count_too() {
    let how = HOWS[0];
    let mut lab = Lab::new();
    lab.attach(0, 1, how);
    lab.attach(0, 2, how);
    lab.set_vn(Learning::Oracle, Bum::Replicate, false);
    lab.tss.iter().for_each(common::Ts::silence);
    let wire = Wire::new(&lab.tss[0].ns, "eth0");
    let counts = |lab: &mut Lab| {
        let counters = lab.nves[0].counters();
        let of = |reason, direction| {
            let of = |c: &&Counter| c.reason == reason && c.direction == direction;
            counters.iter().filter(of).map(|c| c.packets).sum::<u64>()
        };
        let out = |reason| of(reason, Direction::Out);
        let over = Reason::RateLimited;
        [out(Reason::Local), out(Reason::Replicated), out(over), of(over, Direction::In)]
    };
    // What becomes of two frames for the other one and two for all.
    let mut four = |inner6, send: Option<Meter>, receive: Option<Meter>| {
        for (i, tunnel) in
            [(0, Tunnel { send, ..Tunnel::default() }), (1, Tunnel { receive, ..Tunnel::default() })]
        {
            let vap = Vap { tunnel, ..Lab::vap(lab.tss[i].n, how) };
            let op = Op::SetVap(lab.tss[i].device, vap);
            lab.nves[0].apply(&[op]);
        }
        let before = counts(&mut lab);
        let group = if inner6 { [0x33, 0x33, 0, 0, 0, 9] } else { BROADCAST };
        for dst in [MACS[1], MACS[1], group, group] {
            wire.send(&data(dst, inner6, 0, 7, 100, b""));
        }
        // Each frame once; a copy that one does not get beside what became of the frame.
        let all = if receive.is_none() { 4 } else { 6 };
        wait_for("all frames", || {
            let now = counts(&mut lab);
            let grown = [0, 1, 2, 3].map(|i| now[i] - before[i]);
            (grown.iter().sum::<u64>() >= all).then_some(grown)
        })
    };
    for inner6 in [false, true] {
        assert_eq!(four(inner6, None, None), [2, 2, 0, 0]);
        // The first one uses everything up.
        assert_eq!(four(inner6, meter(1, 10), None), [1, 0, 3, 0]);
        assert_eq!(four(inner6, None, meter(1, 11)), [1, 2, 0, 3]);
    }
}

/// Has what a socket sends carry so many octets of options for the destination, which say nothing.
fn destination_options(stream: &TcpStream, octets: usize) {
    if octets == 0 {
        return;
    }
    // Of a type for experiments that who does not know it passes over (RFC 4727 section 3.6): padding is bounded.
    let mut header = vec![0, u8::try_from(octets / 8 - 1).unwrap()];
    while header.len() < octets {
        let rest = (octets - header.len() - 2).min(255);
        header.extend([0x1e, u8::try_from(rest).unwrap()]);
        header.resize(header.len() + rest, 0);
    }
    let length = libc::socklen_t::try_from(header.len()).unwrap();
    // SAFETY: a live descriptor, and as many live octets as are named.
    let set = unsafe {
        libc::setsockopt(
            stream.as_raw_fd(),
            libc::IPPROTO_IPV6,
            libc::IPV6_DSTOPTS,
            header.as_ptr().cast(),
            length,
        )
    };
    assert_eq!(set, 0, "{}", std::io::Error::last_os_error());
}

/// Segmentation-offload frames count with headers for each packet that they become: what would be enough without does
/// not let all of a stream through.
#[test]
fn offloaded_segments_count_with_their_headers() {
    const OCTETS: usize = 1_000_000;
    let how = HOWS[0];
    let mut lab = Lab::new();
    lab.attach(0, 1, how);
    lab.attach(1, 2, how);
    let (tss, nves) = (&lab.tss, &mut lab.nves);
    // Some 700 packets with 54 octets of headers at least; or some 1,700 with 800 octets of IPv6 options each.
    let plain = [(0, false, 0), (0, true, 0), (1, false, 0), (1, true, 0)];
    for (i, inner6, options) in plain.into_iter().chain([(0, true, 800), (1, true, 800)]) {
        let few = meter(1, if options == 0 { 1_015_000 } else { 1_800_000 });
        let tunnel = match i {
            0 => Tunnel { send: few, ..Tunnel::default() },
            _ => Tunnel { receive: few, ..Tunnel::default() },
        };
        let usual = Lab::vap(tss[i].n, how);
        nves[i].apply(&[Op::SetVap(tss[i].device, Vap { tunnel, ..usual.clone() })]);
        let before = nves[i].count(Reason::RateLimited);
        std::thread::scope(|scope| {
            let stream = scope.spawn(|| {
                let with = |stream: &TcpStream| destination_options(stream, options);
                tcp_with(&tss[0].ns, &tss[1].ns, tss[1].ip(inner6), OCTETS, with)
            });
            let limited = wait_for("an end of the stream", || {
                let limited = nves[i].count(Reason::RateLimited) > before;
                (limited || stream.is_finished()).then_some(limited)
            });
            assert!(limited, "NVE {i}, IPv6 {inner6}");
            nves[i].apply(&[Op::SetVap(tss[i].device, usual)]);
            stream.join().unwrap();
        });
    }
}
