//! VNs that flood: NVEs that are told nothing of each other's tenant systems learn from frames.
#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stdout, reason = "a test fails by panicking")]

mod common;

use common::{How, Lab, frames::*, options, rloc, tcp, ts_mac, vni, wait_for};
use std::{net::Ipv4Addr, time::Duration};
use weft_datapath::{Datapath as _, Location, Op, OpenOptions, Path, Reason, Seen, VapKind};
use weft_model::{Bum, Epoch, Learning};

const A: Mac = [2, 0, 0, 0, 0, 1];
const B: Mac = [2, 0, 0, 0, 0, 2];
const C: Mac = [2, 0, 0, 0, 0, 3];

/// Tenant systems 1 and 2 at NVE 0, 3 at NVE 1, 4 at NVE 2, each known where it is only.
fn lab(how: How, silent: bool, options: &dyn Fn() -> OpenOptions) -> Lab {
    let mut lab = Lab::of(3, options);
    for (nve, n) in [(0, 1), (0, 2), (1, 3), (2, 4)] {
        lab.attach_quietly(nve, n, how);
    }
    for ts in lab.tss.iter().filter(|_| silent) {
        ts.silence();
    }
    lab.set_vn(Learning::Flood, Bum::Drop, how.v6);
    lab
}

fn works(how: How) {
    let mut lab = lab(how, false, &options);
    for v6 in [false, true] {
        for (from, to) in [(0, 2), (2, 3), (3, 1), (0, 1)] {
            let ok = lab.tss[from].ping(lab.tss[to].ip(v6));
            assert!(ok, "ping {from} to {to}, IPv6 {v6}\n{}", lab.dump());
        }
        tcp(&lab.tss[0].ns, &lab.tss[2].ns, lab.tss[2].ip(v6), 5_000_000);
    }
    let text = lab.dump();
    for nve in &mut lab.nves {
        for c in nve.counters() {
            let expected = [
                Reason::Encapsulated,
                Reason::Delivered,
                Reason::Local,
                Reason::Replicated,
                Reason::BumOff, // before the VN floods
            ];
            assert!(expected.contains(&c.reason), "{text}");
        }
    }
}

#[test]
fn works_direct_v4() {
    works(How { kind: VapKind::Veth, path: Path::Direct, v6: false });
}

#[test]
fn works_direct_v6() {
    works(How { kind: VapKind::Veth, path: Path::Direct, v6: true });
}

#[test]
fn works_device() {
    works(How { kind: VapKind::Veth, path: Path::Device, v6: false });
}

#[test]
fn works_tap() {
    works(How { kind: VapKind::Tap, path: Path::Direct, v6: false });
}

fn v4(n: u8) -> Ipv4Addr {
    Ipv4Addr::new(10, 0, 0, n)
}

/// A datagram with this in it.
fn data(dst: Mac, src: Mac, word: &str) -> Vec<u8> {
    eth(dst, src, 0x0800, &ipv4(v4(src[5]), v4(dst[5]), 17, 0, 0, &udp(5, 5, word.as_bytes())))
}

fn holds(frame: &[u8], word: &[u8]) -> bool {
    frame.windows(word.len()).any(|w| w == word)
}

/// A silent lab and a wire into each tenant system.
fn silent(how: How, options: &dyn Fn() -> OpenOptions) -> (Lab, Vec<Wire>) {
    let lab = lab(how, true, options);
    let ends = lab.tss.iter().map(|ts| Wire::new(&ts.ns, "eth0")).collect();
    (lab, ends)
}

/// Frame by frame, with every copy on the fabric counted: a request and a frame for an unknown MAC address
/// are a copy for each member, what comes after is one frame.
#[test]
fn floods_once_and_learns() {
    for (path, v6) in [(Path::Direct, false), (Path::Device, true)] {
        let (mut lab, ends) = silent(How { kind: VapKind::Veth, path, v6 }, &options);
        let ports: Vec<Wire> = (0..3).map(|n| Wire::new(&lab.fabric, &format!("p{n}"))).collect();
        let request = arp(BROADCAST, A, 1, A, v4(1), v4(3));
        ends[0].send(&request);
        for end in &ends[1..] {
            end.receive("the request", |f| f == request);
        }
        let reply = arp(A, C, 2, C, v4(3), v4(1));
        ends[2].send(&reply);
        ends[0].receive("the reply", |f| f == reply);
        for word in ["one", "two", "three"] {
            ends[0].send(&data(C, A, word));
            ends[2].receive(word, |f| holds(f, word.as_bytes()));
            ends[2].send(&data(A, C, word));
            ends[0].receive(word, |f| holds(f, word.as_bytes()));
        }
        let unknown = data([2, 0, 0, 0, 0, 99], A, "unknown");
        ends[0].send(&unknown);
        // It reaches the VAPs here, and no other: NVEs without that MAC address drop it.
        ends[1].receive("the frame for nobody", |f| f == unknown);
        ends[0].send(&data(BROADCAST, A, "last"));
        for end in &ends[1..] {
            let seen = end.until("the last", |f| holds(f, b"last"));
            assert!(!seen.contains(&unknown));
        }
        let mut out: Vec<Vec<u8>> = Vec::new();
        while out.iter().filter(|f| holds(f, b"last")).count() < 2 {
            out.push(ports[0].receive("the last", |f| holds(f, &A)));
        }
        let count = |word: &[u8]| out.iter().filter(|f| holds(f, word)).count();
        let copies = [&request[..], b"one", b"two", b"three", b"unknown", b"last"].map(count);
        assert_eq!(copies, [2, 1, 1, 1, 2, 2], "{}", lab.dump());
        assert_eq!(lab.nves[0].count(Reason::Replicated), 3, "{}", lab.dump());
        for nve in 1..3 {
            assert_eq!(lab.nves[nve].count(Reason::Replicated), 0, "{}", lab.dump());
            assert_eq!(lab.nves[nve].count(Reason::NoSuchTs), 1, "{}", lab.dump());
        }
        let seen: Vec<Seen> = lab.nves[1].with(|k| k.learned().unwrap());
        assert_eq!(seen.len(), 1, "{seen:?}");
        assert_eq!((seen[0].vni, seen[0].mac.octets(), seen[0].rloc), (vni(7001), A, rloc(0, v6)));
    }
}

/// A MAC address is where its last frame came from; never elsewhere if it is here; and after a silence
/// nowhere, unless an Oracle said where.
#[test]
fn moves_and_ages() {
    for (path, v6) in [(Path::Direct, true), (Path::Device, false)] {
        let short = || OpenOptions { ageing: Duration::from_secs(1), ..options() };
        let (mut lab, ends) = silent(How { kind: VapKind::Veth, path, v6 }, &short);
        let sockets: Vec<_> = (1..3)
            .map(|n| lab.nves[n].ns.run(|| std::net::UdpSocket::bind((rloc(n, v6).get(), 0)).unwrap()))
            .collect();
        let here = (rloc(0, v6).get(), 4789);
        for (n, socket) in sockets.iter().enumerate() {
            // To a tenant system that is here, and to one that is nowhere.
            let dst = if n == 0 { A } else { [2, 0, 0, 0, 0, 99] };
            socket.send_to(&vxlan(8, 7001, &data(dst, C, "from")), here).unwrap();
            let at = rloc(n + 1, v6);
            wait_for("the move", || {
                let seen = lab.nves[0].with(|k| k.learned().unwrap());
                seen.iter().any(|s| s.mac.octets() == C && s.rloc == at).then_some(())
            });
        }
        // The other's own is refused, and goes where it is.
        sockets[0].send_to(&vxlan(8, 7001, &data(A, B, "from")), here).unwrap();
        wait_for("the fence", || (lab.nves[0].count(Reason::Fenced) == 1).then_some(()));
        ends[0].send(&data(B, A, "here"));
        ends[1].receive("the neighbour's", |f| holds(f, b"here"));
        assert_eq!(lab.nves[0].count(Reason::Local), 1, "{}", lab.dump());

        wait_for("ageing", || lab.nves[0].with(|k| k.learned().unwrap()).is_empty().then_some(()));
        let before = lab.nves[0].count(Reason::Encapsulated);
        ends[0].send(&data(C, A, "aged"));
        ends[2].receive("a copy", |f| holds(f, b"aged"));
        assert_eq!(lab.nves[0].count(Reason::Replicated), 1, "{}", lab.dump());
        let at = Location::Remote { rloc: rloc(1, v6), epoch: Epoch::FIRST, other: 0 };
        lab.nves[0].apply(&[Op::SetLocation(vni(7001), ts_mac(3).get(), at)]);
        ends[0].send(&data(C, A, "told"));
        ends[2].receive("by an Oracle's word", |f| holds(f, b"told"));
        assert_eq!(lab.nves[0].count(Reason::Replicated), 1, "{}", lab.dump());
        assert_eq!(lab.nves[0].count(Reason::Encapsulated), before + 1, "{}", lab.dump());
    }
}
