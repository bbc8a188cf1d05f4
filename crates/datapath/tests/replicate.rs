//! Broadcast and multicast where a VN replicates them: everybody once, nobody twice, no more than the
//! storm limit.
#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stdout, reason = "a test fails by panicking")]

mod common;

use common::{How, Lab, frames::*, options, rloc, ts_mac, vni, wait_for};
use std::net::{Ipv4Addr, Ipv6Addr};
use weft_datapath::{Op, OpenOptions, Path, Reason, VapKind, Vn};
use weft_model::{Bum, Learning, Storm};

const A: Mac = [2, 0, 0, 0, 0, 1];
const ALL_NODES: Mac = [0x33, 0x33, 0, 0, 0, 1];

fn a4() -> Ipv4Addr {
    "10.0.0.1".parse().unwrap()
}

fn a6() -> Ipv6Addr {
    "fd00::1".parse().unwrap()
}

/// A broadcast over IPv4, a multicast over IPv6, with this in it.
fn group_frames(word: &str) -> [Vec<u8>; 2] {
    let data = udp(5, 5, word.as_bytes());
    [
        eth(BROADCAST, A, 0x0800, &ipv4(a4(), "10.0.0.255".parse().unwrap(), 17, 0, 0, &data)),
        eth(ALL_NODES, A, 0x86dd, &ipv6(a6(), "ff02::1".parse().unwrap(), 17, 1, 0, &data)),
    ]
}

fn holds(frame: &[u8], word: &str) -> bool {
    frame.windows(word.len()).any(|w| w == word.as_bytes())
}

/// What a VN never carries for a tenant system unless it floods: frame and what it is counted as.
fn confined() -> Vec<(Reason, Vec<u8>)> {
    let all: Ipv6Addr = "ff02::1".parse().unwrap();
    let (group, node) = solicited_node("fd00::9".parse().unwrap());
    let dhcp = ipv4(Ipv4Addr::UNSPECIFIED, Ipv4Addr::BROADCAST, 17, 0, 0, &udp(68, 67, &[0; 20]));
    let dhcp6 = ipv6(a6(), "ff02::1:2".parse().unwrap(), 17, 1, 0, &udp(546, 547, &[0; 20]));
    let solicitation = nd(135, a6(), node, "fd00::9".parse().unwrap(), &lla(1, A));
    vec![
        (Reason::Punted, arp(BROADCAST, A, 1, A, a4(), "10.0.0.9".parse().unwrap())),
        (Reason::Announcement, arp(BROADCAST, A, 1, A, a4(), a4())),
        (Reason::Punted, eth(group, A, 0x86dd, &solicitation)),
        (Reason::Announcement, eth(ALL_NODES, A, 0x86dd, &nd(136, a6(), all, a6(), &lla(2, A)))),
        (Reason::BumOff, eth(ALL_NODES, A, 0x86dd, &icmpv6(a6(), all, &[133, 0, 0, 0, 0, 0, 0, 0]))),
        (Reason::BumOff, eth(BROADCAST, A, 0x0800, &dhcp)),
        (Reason::BumOff, eth(BROADCAST, A, 0x86dd, &dhcp6)),
    ]
}

/// Tenant systems 1 and 2 at NVE 0, 3 at NVE 1, 4 at NVE 2; their own stacks are silent.
fn lab(how: How, options: &dyn Fn() -> OpenOptions) -> Lab {
    let mut lab = Lab::of(3, options);
    for (nve, n) in [(0, 1), (0, 2), (1, 3), (2, 4)] {
        lab.attach(nve, n, how);
    }
    for ts in &lab.tss {
        ts.silence();
    }
    lab
}

fn everybody_once(how: How) {
    let mut lab = lab(how, &options);
    lab.set_vn(Learning::Oracle, Bum::Replicate, how.v6);
    let ends: Vec<Wire> = lab.tss.iter().map(|ts| Wire::new(&ts.ns, "eth0")).collect();
    let ports: Vec<Wire> = (0..3).map(|n| Wire::new(&lab.fabric, &format!("p{n}"))).collect();
    for frame in group_frames("first").iter().chain(&group_frames("last!")) {
        ends[0].send(frame);
    }
    let last = |frame: &[u8]| holds(frame, "last!") && !holds(frame, "first") && frame[0] != 0xff;
    for (n, end) in ends.iter().enumerate().skip(1) {
        let got = end.until("copies", |f| f == group_frames("last!")[1]);
        let ours: Vec<_> = got.into_iter().filter(|f| f[6..12] == A).collect();
        let sent: Vec<_> = group_frames("first").into_iter().chain(group_frames("last!")).collect();
        assert_eq!(ours, sent, "tenant system {}\n{}", n + 1, lab.dump());
    }
    // On the fabric as many copies as there are members, each to one of them.
    let mut to = Vec::new();
    while to.len() < 8 {
        let frame = ports[0].receive("a copy on the fabric", |f| holds(f, "first") || holds(f, "last!"));
        let destination = if how.v6 { frame[53] } else { frame[33] };
        to.push((destination, holds(&frame, "last!")));
    }
    to.sort_unstable();
    let once = [(2, false), (2, true), (3, false), (3, true)];
    assert_eq!(to, once.map(|one| [one, one]).concat(), "{}", lab.dump());
    assert_eq!(lab.nves[0].count(Reason::Replicated), 4, "{}", lab.dump());
    for nve in 1..3 {
        assert_eq!(lab.nves[nve].count(Reason::Delivered), 4, "{}", lab.dump());
        assert_eq!(lab.nves[nve].count(Reason::Replicated), 0, "{}", lab.dump());
    }
    // Split horizon: what a member sent goes to no other. The next frame of each is its own.
    for (nve, ts) in [(1, 3_u8), (2, 4)] {
        let own = eth(BROADCAST, ts_mac(ts).octets(), 0x1234, b"an end, and long enough for a frame");
        ends[usize::from(ts) - 1].send(&own);
        let out = ports[nve].until("its own", |f| holds(f, "an end"));
        assert!(!out.iter().any(|f| holds(f, "first") || last(f)), "{out:02x?}");
    }
    // Nothing comes back to who sent it.
    let frames = ends[0].until("the other members' own", |f| f[11] == 4 && holds(f, "an end"));
    assert!(!frames.iter().any(|f| f[6..12] == A), "{frames:02x?}");

    // What is answered or confined stays here.
    let before = lab.nves[0].count(Reason::Replicated);
    for (reason, frame) in confined() {
        let counted = lab.nves[0].count(reason);
        ends[0].send(&frame);
        wait_for(reason.as_str(), || (lab.nves[0].count(reason) == counted + 1).then_some(()));
    }
    assert_eq!(lab.nves[0].count(Reason::Replicated), before, "{}", lab.dump());
}

#[test]
fn everybody_once_veth() {
    for (path, v6) in [(Path::Direct, false), (Path::Direct, true), (Path::Device, false)] {
        everybody_once(How { kind: VapKind::Veth, path, v6 });
    }
}

#[test]
fn everybody_once_tap() {
    everybody_once(How { kind: VapKind::Tap, path: Path::Direct, v6: false });
    everybody_once(How { kind: VapKind::Tap, path: Path::Device, v6: true });
}

/// Frames for groups out of the fabric: by mode.
#[test]
fn what_is_let_in() {
    for (path, v6) in [(Path::Direct, false), (Path::Device, true)] {
        let how = How { kind: VapKind::Veth, path, v6 };
        let mut lab = lab(how, &options);
        let (there, here) = (rloc(1, v6).get(), rloc(0, v6).get());
        let socket = lab.nves[1].ns.run(|| std::net::UdpSocket::bind((there, 0)).unwrap());
        let send = |lab: &mut Lab, frame: &[u8], reason: Reason| {
            let mut inner = frame.to_vec();
            inner[6..12].copy_from_slice(&ts_mac(3).octets());
            let before = lab.nves[0].count(reason);
            socket.send_to(&vxlan(8, 7001, &inner), (here, 4789)).unwrap();
            wait_for(reason.as_str(), || (lab.nves[0].count(reason) == before + 1).then_some(()));
        };
        let group = group_frames("word");
        let nd: Vec<_> = confined().into_iter().map(|(_, frame)| frame).take(5).collect();
        let ra = eth(
            ALL_NODES,
            A,
            0x86dd,
            &icmpv6(a6(), "ff02::1".parse().unwrap(), &[&[134, 0, 0, 0][..], &[0; 12]].concat()),
        );
        // A destination options header before the solicitation hides nothing.
        let options = [&[58, 0, 1, 4, 0, 0, 0, 0][..], &nd[2][54..]].concat();
        let hidden = eth(ALL_NODES, A, 0x86dd, &ipv6(a6(), "ff02::1".parse().unwrap(), 60, 255, 0, &options));
        let nd: Vec<_> = nd.into_iter().chain([ra, hidden]).collect();
        for frame in group.iter().chain(&nd) {
            send(&mut lab, frame, Reason::InnerGroup);
        }
        lab.set_vn(Learning::Distribute, Bum::Drop, v6);
        for frame in group.iter().chain(&nd) {
            send(&mut lab, frame, Reason::InnerGroup);
        }
        for learning in [Learning::Oracle, Learning::Distribute] {
            lab.set_vn(learning, Bum::Replicate, v6);
            for frame in &group {
                send(&mut lab, frame, Reason::Delivered);
            }
            for frame in &nd {
                send(&mut lab, frame, Reason::InnerGroup);
            }
        }
        lab.set_vn(Learning::Flood, Bum::Drop, v6);
        for frame in group.iter().chain(&nd) {
            send(&mut lab, frame, Reason::Delivered);
        }
        // Of a VN that is not here nothing is.
        lab.nves[0].apply(&[Op::SetVn(vni(7002), Vn { bum: Bum::Replicate, ..Vn::default() })]);
        let before = lab.nves[0].count(Reason::UnknownVni);
        socket.send_to(&vxlan(8, 7002, &group[0]), (here, 4789)).unwrap();
        wait_for("unknown", || (lab.nves[0].count(Reason::UnknownVni) == before + 1).then_some(()));
    }
}

/// The limit is each VAP's own: who sends too much does not silence others.
#[test]
fn a_storm_is_limited() {
    let how = How { kind: VapKind::Veth, path: Path::Direct, v6: false };
    let mut lab = lab(how, &options);
    let members = [rloc(1, false)].into();
    let storm = Storm::new(1, 4).unwrap();
    let vn = Vn { bum: Bum::Replicate, members, storm, ..Vn::default() };
    lab.nves[0].apply(&[Op::SetVn(vni(7001), vn)]);
    lab.nves[1].apply(&[Op::SetVn(vni(7001), Vn { bum: Bum::Replicate, ..Vn::default() })]);
    let wires: Vec<Wire> = lab.tss[..2].iter().map(|ts| Wire::new(&ts.ns, "eth0")).collect();
    for _ in 0..40 {
        wires[0].send(&eth(BROADCAST, ts_mac(1).octets(), 0x1234, &[7; 50]));
    }
    let [sent, refused] = wait_for("all", || {
        let counts = [Reason::Replicated, Reason::Storm].map(|r| lab.nves[0].count(r));
        (counts.iter().sum::<u64>() == 40).then_some(counts)
    });
    assert!((4..20).contains(&sent) && refused > 20, "{}", lab.dump());
    for _ in 0..4 {
        wires[1].send(&eth(BROADCAST, ts_mac(2).octets(), 0x1234, &[7; 50]));
    }
    wait_for("the other's", || (lab.nves[0].count(Reason::Replicated) == sent + 4).then_some(()));
    let sent = sent + 4;
    wait_for("the copies", || (lab.nves[1].count(Reason::Delivered) == sent).then_some(()));
}

/// A burst under the old limit does not count at the old price under the new one.
#[test]
fn a_limit_that_is_raised_holds_at_once() {
    let how = How { kind: VapKind::Veth, path: Path::Direct, v6: false };
    let mut lab = lab(how, &options);
    let set = |lab: &mut Lab, rate, burst| {
        let storm = Storm::new(rate, burst).unwrap();
        let vn = Vn { bum: Bum::Replicate, storm, ..Vn::default() };
        lab.nves[0].apply(&[Op::SetVn(vni(7001), vn)]);
    };
    let wire = Wire::new(&lab.tss[0].ns, "eth0");
    let send = || wire.send(&eth(BROADCAST, ts_mac(1).octets(), 0x1234, &[7; 50]));
    set(&mut lab, 1, 200);
    for _ in 0..200 {
        send();
    }
    wait_for("a burst", || (lab.nves[0].count(Reason::Replicated) == 200).then_some(()));
    // As if it had been used up: the next one is one too many.
    set(&mut lab, 1000, 4);
    wait_for("frames under the new limit", || {
        send();
        (lab.nves[0].count(Reason::Replicated) >= 240).then_some(())
    });
    assert!(lab.nves[0].count(Reason::Storm) < 1000, "{}", lab.dump());
}
