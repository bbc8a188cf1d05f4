//! Policies and connections in the comparison of programs and model.

use super::{Bench, Dice, VNIS, any_v4, any_v6, mac, with_bench};
use crate::common::{frames::*, rloc, vni};
use proptest::{
    prelude::*,
    test_runner::{RngAlgorithm, TestError, TestRng, TestRunner},
};
use std::{
    collections::BTreeMap,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};
use weft_datapath::{
    Allow, ClassId, Config, Location, Path, Peer, Policy, PolicyId, Ports, Prefix, RuleKey, Tables, Toward,
    Vap, VapKind,
};
use weft_model::{Epoch, MacAddr, TenantIp, TsMac};

/// Policies for some VAPs, and what they allow. Nothing that was let through under another generation counts.
pub fn policies(d: &mut Dice, t: &mut Tables, generation: u32) {
    (t.rules, t.classes) = (BTreeMap::new(), BTreeMap::new());
    for vap in t.vaps.values_mut() {
        let id = PolicyId::new(1 + u32::from(d.octet() % 2)).unwrap();
        vap.policy = (!d.rarely(3)).then(|| Policy { id, generation, log_refused: d.rarely(2) });
    }
    for _ in 0..d.below(5) {
        let (addr, bits): (IpAddr, u8) = match d.below(5) {
            0 => (any_v4(d).into(), d.pick(&[0, 8, 29, 32])),
            1 => (any_v6(d).into(), d.pick(&[0, 16, 126, 128])),
            2 => (Ipv6Addr::UNSPECIFIED.into(), 0),
            3 => (Ipv4Addr::new(10, 0, 0, d.octet() % 9).into(), 31),
            _ => (any_v6(d).into(), 127),
        };
        let class = ClassId(u32::from(d.octet() % 4));
        t.classes.insert((vni(VNIS[d.below(2)]), Prefix::new(addr, bits).unwrap()), class);
    }
    for rule in 0..u32::try_from(d.below(12)).unwrap() {
        let all = d.rarely(3);
        let number = d.pick(&[9, 7, 0x0404, 0x0202, 8 << 8, 128 << 8, 3 << 8, 2 << 8, 0]);
        let ports = Ports::new(number, if all { 0 } else { d.pick(&[16, 16, 8, 0]) }).unwrap();
        let protocol = d.pick(&[Some(1), Some(6), Some(17), Some(58), Some(59), None]);
        let key = RuleKey {
            policy: PolicyId::new(1 + u32::from(d.octet() % 2)).unwrap(),
            toward: d.pick(&[Toward::In, Toward::Out]),
            class: ClassId(if all { 0 } else { u32::from(d.octet() % 4) }),
            protocol: protocol.filter(|_| !all),
            ports,
        };
        t.rules.insert(key, Allow { rule: rule + 100 * (generation % 2), log: d.rarely(3) });
    }
}

/// What the one that a frame is for might send back: its answer, or an ICMP error about it.
pub fn answer_to(d: &mut Dice, frame: &[u8]) -> Option<Vec<u8>> {
    let mut f = frame.to_vec();
    let (from, to) = (f.get(6..12)?.to_vec(), f.get(..6)?.to_vec());
    f[..6].copy_from_slice(&from);
    f[6..12].copy_from_slice(&to);
    let v4 = match f.get(12..14)? {
        [8, 0] => true,
        [0x86, 0xdd] => false,
        _ => return None,
    };
    let (len, at, off) = if v4 { (4, 26, 34) } else { (16, 22, 54) };
    f.get(..off + 8)?;
    let (src, dst) = (f[at..at + len].to_vec(), f[at + len..at + 2 * len].to_vec());
    if d.rarely(4) {
        let quote = frame[14..].iter().copied().take(off - 14 + d.pick(&[8, 8, 20, 6])).collect::<Vec<u8>>();
        let kind = if v4 { d.pick(&[3, 11]) } else { d.pick(&[1, 2]) };
        let message = [&[kind, 0, 0, 0, 0, 0, 0, 0][..], &quote].concat();
        let from = if d.rarely(3) { None } else { Some(()) };
        let packet = if v4 {
            let ip = |o: &[u8]| Ipv4Addr::from(*o.first_chunk::<4>().unwrap());
            ipv4(from.map_or_else(|| any_v4(d), |()| ip(&dst)), ip(&src), 1, 0, 0, &message)
        } else {
            let ip = |o: &[u8]| Ipv6Addr::from(*o.first_chunk::<16>().unwrap());
            ipv6(from.map_or_else(|| any_v6(d), |()| ip(&dst)), ip(&src), 58, 64, 0, &message)
        };
        return Some([&f[..14], &packet].concat());
    }
    f[at..at + len].copy_from_slice(&dst);
    f[at + len..at + 2 * len].copy_from_slice(&src);
    match f[if v4 { 23 } else { 20 }] {
        6 | 17 => {
            let ports = f[off..off + 4].to_vec();
            f[off..off + 2].copy_from_slice(&ports[2..]);
            f[off + 2..off + 4].copy_from_slice(&ports[..2]);
            if let Some(flags) = f.get_mut(off + 13).filter(|_| frame[if v4 { 23 } else { 20 }] == 6) {
                *flags = any_flags(d);
            }
        }
        1 if f[off] == 8 => f[off] = 0,
        58 if f[off] == 128 => f[off] = 129,
        _ => {}
    }
    Some(f)
}

/// One more of the same connection.
pub fn again(d: &mut Dice, frame: &[u8]) -> Option<Vec<u8>> {
    let mut f = frame.to_vec();
    let (proto, flags) = if f.get(12..14)? == [8, 0] { (23, 47) } else { (20, 67) };
    if *f.get(proto)? == 6 {
        *f.get_mut(flags)? = any_flags(d);
    }
    Some(f)
}

fn any_flags(d: &mut Dice) -> u8 {
    d.pick(&[0x02, 0x12, 0x10, 0x10, 0x18, 0x11, 0x11, 0x04])
}

pub fn any_tcp(d: &mut Dice, padding: usize) -> Vec<u8> {
    let mut segment = vec![4; 20 + padding];
    segment[13] = any_flags(d);
    if d.rarely(20) {
        segment.truncate(d.below(16));
    }
    segment
}

/// Tenant systems 0 and 1 are here, 5 behind another NVE.
const HOSTS: [u8; 3] = [0, 1, 5];

fn hosts(d: &mut Dice, bench: &Bench) -> Tables {
    let config =
        Config { uplinks: [bench.uplink].into(), rlocs: [rloc(0, false), rloc(0, true)].into(), node: 7 };
    let mut t = Tables { config, ..Tables::default() };
    for (n, device) in (0..2).zip(&bench.vaps) {
        let vap = Vap {
            vni: vni(VNIS[0]),
            mac: TsMac::new(MacAddr(mac(n))).unwrap(),
            ips: [v4(n).into(), v6(n).into()].into_iter().map(|ip| TenantIp::new(ip).unwrap()).collect(),
            kind: d.pick(&[VapKind::Veth, VapKind::Tap]),
            path: Path::Direct,
            mtu: 1450,
            activated: true,
            waits: false,
            previous: None,
            policy: None,
            tunnel: Default::default(),
        };
        t.fdb.insert((vap.vni, vap.mac.get()), Location::Local(*device));
        t.vaps.insert(*device, vap);
    }
    let at = Location::Remote { rloc: rloc(1, false), epoch: Epoch::FIRST, other: 0 };
    t.fdb.insert((vni(VNIS[0]), MacAddr(mac(5))), at);
    t.peers.insert(rloc(1, false).get(), Peer { nve: true, oracle: false, node: 1, other: None });
    t
}

fn v4(n: u8) -> Ipv4Addr {
    Ipv4Addr::new(10, 0, 0, n)
}

fn v6(n: u8) -> Ipv6Addr {
    Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, n.into())
}

/// From one of them to another.
fn any_packet(d: &mut Dice, src: u8, dst: u8) -> Vec<u8> {
    let six = d.rarely(2);
    let (from, to) = (d.pick(&[7, 9]), d.pick(&[7, 9]));
    let id = d.octet() % 2;
    let (proto, mut payload) = match d.below(8) {
        0..4 => {
            let segment = any_tcp(d, 0);
            let ports = [u16::to_be_bytes(from), u16::to_be_bytes(to)].concat();
            (6, [&ports[..], segment.get(4..).unwrap_or_default()].concat())
        }
        4 | 5 => (17, udp(from, to, b"x")),
        6 => {
            let kind = if six { d.pick(&[128, 129, 140]) } else { d.pick(&[8, 8, 8, 0, 13, 14, 9]) };
            (if six { 58 } else { 1 }, vec![kind, 0, 0, 0, d.pick(&[0, kind]), id, 0, 0])
        }
        _ => (d.pick(&[47, 132]), vec![0; 8]),
    };
    let part = d.pick(&[0, 0, 0, 0, 1, 2]); // whole, the first part, a later one
    let packet = if six {
        let mut next = proto;
        if part != 0 {
            let word: u16 = if part == 1 { 1 } else { 64 };
            let header = [&[proto, 0][..], &word.to_be_bytes(), &[0, 0, 0, id]].concat();
            (next, payload) = (44, [header, payload].concat());
        }
        ipv6(v6(src), v6(dst), next, 64, 0, &payload)
    } else {
        let word = [0, 0x2000, 8][part];
        let mut packet = ipv4(v4(src), v4(dst), proto, 0, word, &payload);
        packet[5] = id;
        packet
    };
    eth(mac(dst), mac(src), if six { 0x86dd } else { 0x0800 }, &packet)
}

/// Long conversations of few, between which policies change. What is let through, why, and what becomes of every
/// connection is the same in the programs and the model.
#[test]
fn conversations_agree() {
    with_bench("talk", |bench| {
        let bench = std::cell::RefCell::new(bench);
        let entropy = |n| proptest::collection::vec(any::<u8>(), n);
        let input = (entropy(300), proptest::collection::vec(entropy(60), 10..60));
        let config = ProptestConfig { cases: 600, failure_persistence: None, ..ProptestConfig::default() };
        let rng = TestRng::from_seed(RngAlgorithm::ChaCha, &[7; 32]);
        let result = TestRunner::new_with_rng(config, rng).run(&input, |(table, frames)| {
            let bench = &mut *bench.borrow_mut();
            let mut dice = Dice(table.iter());
            let mut tables = hosts(&mut dice, bench);
            bench.forget();
            policies(&mut dice, &mut tables, bench.generation);
            bench.set(&tables);
            let mut sent: Vec<Vec<u8>> = Vec::new();
            for octets in frames {
                let mut d = Dice(octets.iter());
                if d.rarely(12) {
                    bench.generation += 1;
                    policies(&mut dice, &mut tables, bench.generation);
                    bench.set(&tables);
                }
                let src = d.pick(&HOSTS);
                let dst = d.pick(&HOSTS);
                let old =
                    (!sent.is_empty() && !d.rarely(3)).then(|| d.pick(&(0..sent.len()).collect::<Vec<_>>()));
                let frame = match old.and_then(|i| sent.get(i)).cloned() {
                    Some(old) if d.rarely(2) => answer_to(&mut d, &old),
                    Some(old) => again(&mut d, &old),
                    None => (src != dst).then(|| any_packet(&mut d, src, dst)),
                };
                let Some(frame) = frame.filter(|f| f[5] != f[11]) else { continue };
                bench.compare_more(&tables, vni(VNIS[0]), &mut d, &frame)?;
                sent.push(frame);
            }
            Ok(())
        });
        let bench = bench.into_inner();
        bench.kernel.uninstall().unwrap();
        match result {
            Err(TestError::Fail(why, _)) => panic!("{why}"),
            other => other.unwrap(),
        }
        let states = ["Opening", "Answered", "Established", "EndedHere", "EndedThere", "Closing"];
        let tcp = ["In", "Out"].iter().flat_map(|way| states.map(|state| format!("{way} {state} of 6")));
        let others = ["1", "17", "47", "58", "132"]
            .iter()
            .flat_map(|proto| ["In", "Out"].map(|way| format!("{way} Established of {proto}")));
        let more = ["ended by another policy", "a first fragment", "Allowed", "Refused"].map(str::to_owned);
        let missing: Vec<_> =
            tcp.chain(others).chain(more).filter(|what| !bench.seen.contains_key(what)).collect();
        assert!(missing.is_empty(), "never: {missing:?}\nseen: {:#?}", bench.seen);
    });
}
