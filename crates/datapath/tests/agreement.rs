//! The programs and the software model decide alike: random tables, random frames, both ingresses,
//! the same verdict and reason, and every octet that leaves.
#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stdout, reason = "a test fails by panicking")]

mod common;
#[path = "agreement/policies.rs"]
mod policies;
#[path = "agreement/tunnels.rs"]
mod tunnels;

use common::{Ns, frames::*, options, rloc, vni};
use policies::{again, answer_to, any_tcp, policies};
use proptest::{
    prelude::*,
    test_runner::{RngAlgorithm, TestError, TestRng, TestRunner},
};
use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    num::NonZeroU32,
};
use tunnels::{arrivals, same_levels, tunnels};
use weft_datapath::{
    Action, Away, Config, Connection, Datapath as _, DatapathError, Did, IfIndex, Ingress, Kernel, Learned,
    Lesson, Location, Neighbour, Path, Peer, Punt, PuntReason, Punts, Reason, Receivers, Tables, Vap,
    VapKind, Verdict, Vn, decide, echo,
};
use weft_model::{
    Bum, Epoch, GroupIp, Learning, MacAddr, Miss, Rloc, Storm, TenantIp, Time, TsMac, Vni, Wanted,
};

/// Draws choices from octets; zeros once they are used up, so that shrinking simplifies.
struct Dice<'a>(std::slice::Iter<'a, u8>);

impl Dice<'_> {
    fn octet(&mut self) -> u8 {
        self.0.next().copied().unwrap_or(0)
    }

    fn below(&mut self, n: usize) -> usize {
        usize::from(self.octet()) % n
    }

    /// One time in `n`, and never for a zero.
    fn rarely(&mut self, n: usize) -> bool {
        self.below(n) == n - 1
    }

    fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        from[self.below(from.len())]
    }

    fn number(&mut self) -> u16 {
        u16::from_be_bytes([self.octet(), self.octet()])
    }
}

const VNIS: [u32; 3] = [7001, 7002, 0xff_ffff];

fn mac(n: u8) -> Mac {
    [2, 0, 0, 0, 0, n]
}

/// Owners of small numbers are VAPs, of larger ones somebody else.
fn any_mac(d: &mut Dice) -> Mac {
    match d.below(14) {
        12 => MacAddr::of_node(d.octet() as u32 % 3).octets(),
        9 => MacAddr::anycast(vni(VNIS[d.below(2)])).octets(),
        10 => BROADCAST,
        11 => [0x33, 0x33, 0, 0, 0, 1],
        n => mac(u8::try_from(n).unwrap()),
    }
}

fn any_v4(d: &mut Dice) -> Ipv4Addr {
    match d.below(13) {
        9 => Ipv4Addr::UNSPECIFIED,
        n @ 10..=11 => Ipv4Addr::new(239, 1, 0, u8::try_from(n).unwrap()),
        12 => Ipv4Addr::new(224, 0, 0, 251),
        n => Ipv4Addr::new(10, 0, 0, u8::try_from(n).unwrap()),
    }
}

fn any_v6(d: &mut Dice) -> Ipv6Addr {
    match d.below(19) {
        n @ 16..=17 => Ipv6Addr::new(0xff15, 0, 0, 0, 0, 0, 0, u16::try_from(n).unwrap()),
        18 => Ipv6Addr::new(0xff0e, 0, 0, 0, 0, 0, 0, 1),
        n @ 9..=12 => Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, u16::try_from(n).unwrap() - 9),
        13 => Ipv6Addr::UNSPECIFIED,
        14 => Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1),
        n => Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, u16::try_from(n).unwrap()),
    }
}

fn any_ip(d: &mut Dice) -> Option<TenantIp> {
    let ip: IpAddr = if d.rarely(2) { any_v6(d).into() } else { any_v4(d).into() };
    TenantIp::new(ip).ok()
}

fn any_group(d: &mut Dice) -> Option<GroupIp> {
    let ip: IpAddr = match d.below(4) {
        0 => Ipv4Addr::new(239, 1, 0, 10 + d.octet() % 2).into(),
        1 => Ipv6Addr::new(0xff15, 0, 0, 0, 0, 0, 0, 16 + u16::from(d.octet() % 2)).into(),
        2 => any_v4(d).into(),
        _ => any_v6(d).into(),
    };
    GroupIp::new(ip).ok()
}

/// On the uplink's subnet, so that the kernel has a route.
fn any_rloc(d: &mut Dice) -> Rloc {
    let v6 = d.rarely(2);
    rloc(1 + d.below(3), v6)
}

fn tables(d: &mut Dice, uplink: IfIndex, devices: &[IfIndex]) -> Tables {
    let config =
        Config { uplinks: [uplink].into(), node: u32::from(d.octet()) << 24 | 7, ..Config::default() };
    let mut t = Tables { config, ..Tables::default() };
    for v6 in [false, true] {
        if !d.rarely(6) {
            t.config.rlocs.insert(rloc(0, v6));
        }
    }
    for (i, device) in devices.iter().enumerate() {
        let mut vap = Vap {
            vni: vni(VNIS[d.below(2)]),
            mac: TsMac::new(MacAddr(mac(u8::try_from(i).unwrap()))).unwrap(),
            ips: (0..d.below(12)).filter_map(|_| any_ip(d)).collect(),
            kind: d.pick(&[VapKind::Veth, VapKind::Tap]),
            path: d.pick(&[Path::Direct, Path::Device]),
            mtu: d.pick(&[1450, 1280, 600]),
            activated: !d.rarely(12),
            waits: false,
            previous: None,
            policy: None,
            tunnel: Default::default(),
        };
        vap.waits = !vap.activated && i > 0;
        if !d.rarely(4) {
            t.fdb.insert((vap.vni, vap.mac.get()), Location::Local(*device));
        }
        if d.rarely(2) {
            let own = Neighbour::At(vap.mac.get());
            t.neighbours.extend(vap.ips.iter().map(|ip| ((vap.vni, *ip), own)));
        }
        t.vaps.insert(*device, vap);
    }
    for _ in 0..d.below(40) {
        let at = match d.below(8) {
            0 => Location::Nowhere,
            1..4 => Location::Local(d.pick(devices)),
            4 => Location::Local(uplink),
            _ => {
                let epoch = 1 + u32::from(d.octet());
                // All flows or none: of a part the model does not know which.
                let other = if epoch % 3 == 0 { u32::MAX } else { 0 };
                Location::Remote { rloc: any_rloc(d), epoch: Epoch::new(epoch).unwrap(), other }
            }
        };
        t.fdb.insert((vni(VNIS[d.below(2)]), MacAddr(any_mac(d))), at);
    }
    for _ in 0..d.below(24) {
        let neighbour = if d.rarely(4) { Neighbour::Nobody } else { Neighbour::At(MacAddr(any_mac(d))) };
        let key = vni(VNIS[d.below(2)]);
        t.neighbours.extend(any_ip(d).map(|ip| ((key, ip), neighbour)));
    }
    for n in 1..4 {
        for v6 in [false, true] {
            let other = (n != 3).then(|| rloc(n, !v6));
            let peer = Peer { nve: !d.rarely(4), oracle: d.rarely(2), node: d.octet() as u32 % 3, other };
            if !d.rarely(5) {
                t.peers.insert(rloc(n, v6).get(), peer);
            }
        }
    }
    // No limit: the model has none.
    let storm = Storm::new(u32::MAX, u32::MAX).unwrap();
    for n in VNIS {
        let learning =
            d.pick(&[Learning::Oracle, Learning::Flood, Learning::Translate, Learning::Distribute]);
        let bum = d.pick(&[Bum::Drop, Bum::Replicate]);
        let members = (0..d.below(4)).map(|_| any_rloc(d)).collect();
        if !d.rarely(3) {
            t.vns.insert(vni(n), Vn { learning, bum, members, storm, ..Vn::default() });
        }
    }
    for _ in 0..d.below(10) {
        let vaps = (0..d.below(3)).map(|_| d.pick(devices)).collect();
        let receivers = Receivers { vaps, members: (0..d.below(3)).map(|_| any_rloc(d)).collect() };
        let key = vni(VNIS[d.below(2)]);
        t.groups.extend(any_group(d).map(|group| ((key, Wanted::Group(group)), receivers)));
    }
    // Drawn last, so that what comes before depends on nothing of it.
    for vn in t.vns.values_mut() {
        vn.miss = d.pick(&[Miss::Queue, Miss::Queue, Miss::Drop, Miss::Gateway]);
        vn.gateway = (!d.rarely(3)).then(|| any_rloc(d));
        vn.carries = d.rarely(4);
    }
    for n in VNIS {
        if d.rarely(3) {
            let vaps = (0..d.below(3)).map(|_| d.pick(devices)).collect();
            let receivers = Receivers { vaps, members: (0..d.below(3)).map(|_| any_rloc(d)).collect() };
            t.groups.insert((vni(n), Wanted::All), receivers);
        }
    }
    for vap in t.vaps.values_mut() {
        vap.previous = NonZeroU32::new(d.octet() as u32 % 3);
    }
    for _ in 0..d.below(12) {
        let away = Away { rloc: any_rloc(d), epoch: Epoch::FIRST };
        t.away.insert((vni(VNIS[d.below(2)]), MacAddr(any_mac(d))), away);
    }
    t
}

fn any_options(d: &mut Dice) -> Vec<u8> {
    let mut all = Vec::new();
    for _ in 0..d.below(5) {
        all.extend(match d.below(5) {
            0 | 1 => lla(1, mac(d.octet() % 3)),
            2 => lla(2, mac(d.octet() % 3)),
            3 => [&[14, 1][..], &[d.octet(); 6]].concat(),
            _ => [&[d.octet(), d.octet() % 4][..], &[7; 14]].concat(),
        });
    }
    all
}

fn any_v6_payload(d: &mut Dice, padding: usize) -> (u8, Vec<u8>) {
    let mut chain: Vec<(u8, Vec<u8>)> = Vec::new();
    let last = match d.below(6) {
        0 => (17, udp(d.pick(&[546, 547, 9]), 9, &vec![1; padding])),
        1 => (6, any_tcp(d, padding)),
        2 => (
            58,
            [&[d.pick(&[128, 128, 129, 133, 134, 137, 143, 130, 131, 132, 1, 2])][..], &vec![0; 7 + padding]]
                .concat(),
        ),
        3 => (58, vec![135, 0, 0, 0, 0, 0, 0, 0]),
        4 => (59, vec![]),
        _ => (58, vec![d.octet(); 8]),
    };
    let links = if d.rarely(2) { d.below(7) } else { 0 };
    for _ in 0..links {
        let next = d.pick(&[0, 43, 60, 44, 51]);
        chain.push((
            next,
            match next {
                44 => vec![0, 0, d.pick(&[0, 0, 1]), d.pick(&[0, 1]), 0, 0, 0, 1],
                51 => [&[0, 1][..], &[0; 10]].concat(),
                _ => vec![0, 0, 5, 2, 0, 0, 1, 0],
            },
        ));
    }
    let (mut next, mut payload) = last;
    for (kind, mut header) in chain.into_iter().rev() {
        header[0] = next;
        header.extend(payload);
        (next, payload) = (kind, header);
    }
    (next, payload)
}

/// Mostly one of a tenant system's own addresses.
fn source_v4(d: &mut Dice, own: &[IpAddr]) -> Ipv4Addr {
    let own: Vec<Ipv4Addr> =
        own.iter().filter_map(|ip| if let IpAddr::V4(v4) = ip { Some(*v4) } else { None }).collect();
    if own.is_empty() || d.rarely(4) { any_v4(d) } else { d.pick(&own) }
}

fn source_v6(d: &mut Dice, own: &[IpAddr]) -> Ipv6Addr {
    let own: Vec<Ipv6Addr> =
        own.iter().filter_map(|ip| if let IpAddr::V6(v6) = ip { Some(*v6) } else { None }).collect();
    if own.is_empty() || d.rarely(4) { any_v6(d) } else { d.pick(&own) }
}

/// What a tenant system with the MAC address `src` and the addresses `own` might send, from the
/// well-formed to the odd.
fn tenant_frame(d: &mut Dice, src: Mac, own: &[IpAddr]) -> Vec<u8> {
    let dst = any_mac(d);
    let padding = if d.rarely(4) { 1_300 + d.below(160) } else { d.below(40) };
    let mut frame = match d.below(12) {
        0..3 => {
            let sha = if d.rarely(8) { any_mac(d) } else { src };
            let (op, dst) = (d.pick(&[1, 1, 1, 2, 3]), if d.rarely(3) { dst } else { BROADCAST });
            [arp(dst, src, op, sha, source_v4(d, own), any_v4(d)), vec![0xaa; d.pick(&[0, 18])]].concat()
        }
        3..6 => {
            let target = any_v6(d);
            let (group, to) = solicited_node(target);
            let dst = if d.rarely(3) { dst } else { group };
            let kind = d.pick(&[135, 135, 135, 136]);
            let options = if d.rarely(2) { any_options(d) } else { lla(kind - 134, src) };
            let options = if d.rarely(3) { vec![] } else { options };
            let mut f = eth(dst, src, 0x86dd, &nd(kind, source_v6(d, own), to, target, &options));
            if d.rarely(8) {
                f[21] = 254;
            }
            f
        }
        6..9 => {
            let (proto, payload) = match d.below(6) {
                4 => (2, [&[d.pick(&[0x11, 0x12, 0x16, 0x17, 0x22, 0x14])][..], &[0; 7]].concat()),
                5 => (17, udp(7, 7, &vec![3; padding])),
                0 => (17, udp(d.pick(&[67, 68, 9]), d.pick(&[67, 68, 9]), &vec![3; padding])),
                1 => (1, [&[d.pick(&[8, 8, 0, 3, 11, 13, 9])][..], &vec![0; 7 + padding]].concat()),
                2 => (6, any_tcp(d, padding)),
                _ => (17, vec![0; d.below(6)]),
            };
            let frag = d.pick(&[0x4000, 0, 0, 0x2000, 0x2001, 1]);
            let to = if d.rarely(3) { dst } else { mac(d.octet() % 9) };
            eth(to, src, 0x0800, &ipv4(source_v4(d, own), any_v4(d), proto, d.octet(), frag, &payload))
        }
        9 | 10 => {
            let (next, payload) = any_v6_payload(d, padding);
            let to = if d.rarely(3) { dst } else { mac(d.octet() % 9) };
            eth(to, src, 0x86dd, &ipv6(source_v6(d, own), any_v6(d), next, 64, d.octet(), &payload))
        }
        _ => {
            let llc = [&d.pick(&[[0xaa, 0xaa, 3], [0x42, 0x42, 3]])[..], &vec![5; 30 + padding]].concat();
            eth(dst, src, d.pick(&[0x8100, 0x88a8, 0x9100, 0x9200, 0x88cc, 0x1234, 0x0100]), &llc)
        }
    };
    // Mostly with the MAC address of its group.
    if !d.rarely(3) {
        match frame.get(12..54).map(|f| (f[..2] == [8, 0], f[18], f[26])) {
            Some((true, 224..=239, _)) => frame[..6].copy_from_slice(&[1, 0, 0x5e, 1, 0, 7]),
            Some((false, _, 0xff)) if frame[12..14] == [0x86, 0xdd] => {
                frame[..6].copy_from_slice(&[0x33, 0x33, 0, 0, 0, 7]);
            }
            _ => {}
        }
    }
    spoil(d, &mut frame);
    frame
}

/// Sometimes a wrong octet or a lost tail.
fn spoil(d: &mut Dice, frame: &mut Vec<u8>) {
    if d.rarely(6) {
        let at = d.below(frame.len().min(90));
        frame[at] ^= d.octet();
    }
    if d.rarely(10) {
        frame.truncate(15 + d.below(frame.len() - 14));
    }
    // Octets beyond what the packet says its length is.
    if d.rarely(6) {
        frame.extend((0..d.below(24)).map(|_| d.octet()));
    }
}

fn underlay_frame(d: &mut Dice, tables: &Tables) -> Vec<u8> {
    let v6 = d.rarely(2);
    let from = rloc(1 + d.below(4), v6).get();
    let to = if d.rarely(10) { rloc(9, v6) } else { rloc(0, v6) }.get();
    let tos = if d.rarely(3) { d.pick(&[1, 3]) } else { d.octet() };
    let port = if d.rarely(12) { 4790 } else { 4789 };
    let payload = if d.rarely(5) {
        let mut e = echo::request(d.octet().into()).to_vec();
        if d.rarely(4) {
            let at = d.below(e.len());
            e[at] ^= 1;
        }
        e
    } else {
        let flags = if d.rarely(12) { d.octet() } else { 8 };
        let src = mac(d.octet() % 9);
        let mut inner = tenant_frame(d, src, &[]);
        let mut vni = d.pick(&[VNIS[0], VNIS[1], VNIS[2], 0]);
        // Mostly for somebody here, from somebody elsewhere.
        if !d.rarely(4) {
            let to = tables.vaps.values().nth(d.below(3)).unwrap();
            vni = to.vni.get();
            inner[..6].copy_from_slice(&to.mac.get().octets());
            inner[11] = 3 + d.octet() % 6;
            // Or from an NVE, for this one.
            let translates = tables.vns.get(&to.vni).is_some_and(|vn| vn.learning == Learning::Translate);
            if translates && !d.rarely(4) {
                inner[..6].copy_from_slice(&MacAddr::of_node(tables.config.node).octets());
                inner[6..12].copy_from_slice(&MacAddr::of_node(d.octet() as u32 % 3).octets());
            }
        }
        vxlan(flags, vni, &inner)
    };
    let mut udp = udp(50_000, port, &payload);
    if d.rarely(3) {
        let check = d.number();
        udp[6..8].copy_from_slice(&check.to_be_bytes());
    }
    let mut frame = datagram(mac(100), mac(101), from, to, tos, &udp);
    spoil(d, &mut frame);
    frame
}

struct Bench {
    kernel: Kernel,
    punts: Punts,
    uplink: IfIndex,
    vaps: Vec<IfIndex>,
    /// A device that is no VAP.
    bare: IfIndex,
    learned: Learned,
    asked: BTreeSet<(u32, Mac)>,
    /// How often each decision was made.
    seen: BTreeMap<String, u32>,
    /// What rules have let through.
    allowed: BTreeMap<u32, (u64, u64)>,
    generation: u32,
    /// The VN of the connection that the last frame was of.
    of_connection: Option<Vni>,
}

impl Bench {
    fn set(&mut self, wanted: &Tables) {
        let observed = self.kernel.observed().unwrap();
        for op in wanted.diff(&observed) {
            self.learned.apply(&op);
            self.kernel.apply(&op).unwrap_or_else(|e| panic!("{op:?}: {e}"));
        }
        assert_eq!(self.kernel.observed().unwrap(), *wanted);
    }

    /// No connection is known any more, here or there.
    fn forget(&mut self) {
        for n in VNIS {
            let all = self.kernel.connections(vni(n), None).unwrap();
            // Of all VAPs: fragments that were let through are forgotten with them.
            let vaps = self.kernel.observed().unwrap().vaps;
            let here = vaps.values().filter(|vap| vap.vni == vni(n)).flat_map(|vap| vap.ips.clone());
            let of = all.iter().map(|c| TenantIp::new(c.local).unwrap()).chain(here).collect();
            self.kernel.remove_connections(vni(n), &of).unwrap();
            assert_eq!(self.kernel.connections(vni(n), None).unwrap(), []);
        }
        self.learned.forget_connections();
        self.generation += 1;
        // Of a frame about which there was no agreement.
        while !self.punts.drain(16).is_empty() {}
    }

    /// Both know the same connections.
    fn same_connections(&mut self) -> Result<(), TestCaseError> {
        for n in VNIS {
            let still = |c: Connection| Connection { idle: std::time::Duration::ZERO, ..c };
            let got: Vec<_> = self.kernel.connections(vni(n), None).unwrap().into_iter().map(still).collect();
            let wanted: Vec<_> =
                self.learned.connections(Time::from_secs(0), vni(n)).into_iter().map(still).collect();
            for c in &got {
                self.saw(format!("{:?} {:?} of {}", c.opened, c.state, c.protocol));
            }
            prop_assert_eq!(got, wanted);
        }
        Ok(())
    }

    fn saw(&mut self, what: String) {
        *self.seen.entry(what).or_default() += 1;
    }

    /// The tenant systems' frame and its VN, if it is of a connection.
    fn compare(
        &mut self,
        tables: &Tables,
        ingress: Ingress,
        frame: &[u8],
    ) -> Result<Option<(Vni, Vec<u8>)>, TestCaseError> {
        self.of_connection = None;
        self.compare_quietly(tables, ingress, frame).map_err(|e| {
            let hex: String = frame.iter().map(|b| format!("{b:02x}")).collect();
            TestCaseError::fail(format!("{e}\n{ingress:?}\n{hex}\n{tables:?}"))
        })?;
        let inner = match (ingress, frame.get(12..14)) {
            (Ingress::Underlay(_), Some([8, 0])) => frame.get(50..),
            (Ingress::Underlay(_), _) => frame.get(70..),
            _ => Some(frame),
        };
        Ok(self.of_connection.zip(inner.map(<[u8]>::to_vec)))
    }

    /// The next frames of a connection, of both sides in turn.
    fn talk(
        &mut self,
        tables: &Tables,
        d: &mut Dice,
        first: Option<(Vni, Vec<u8>)>,
    ) -> Result<Option<(Vni, Vec<u8>)>, TestCaseError> {
        let Some((vni, frame)) = &first else { return Ok(None) };
        for n in 0..d.below(7) {
            let more = if n % 2 == 0 { answer_to(d, frame) } else { again(d, frame) };
            let Some(more) = more else { break };
            self.compare_more(tables, *vni, d, &more)?;
        }
        Ok(first)
    }

    /// A frame of a connection, out of a VAP here or else from another NVE.
    fn compare_more(
        &mut self,
        tables: &Tables,
        vni: Vni,
        d: &mut Dice,
        frame: &[u8],
    ) -> Result<(), TestCaseError> {
        let mut vaps = tables.vaps.iter();
        let here = vaps.find(|(_, vap)| vap.vni == vni && frame[6..12] == vap.mac.get().octets());
        let here = here.map(|(at, _)| *at);
        let ingress = here.map_or(Ingress::Underlay(self.uplink), Ingress::Vap);
        let frame = if here.is_some() {
            frame.to_vec()
        } else {
            let udp = udp(50_000, 4789, &vxlan(8, vni.get(), frame));
            let from = tables.peers.iter().filter(|(ip, peer)| ip.is_ipv4() && peer.nve).map(|(ip, _)| *ip);
            let from = from.max().unwrap_or_else(|| rloc(1 + d.below(3), false).get());
            datagram(mac(100), mac(101), from, rloc(0, false).get(), 0, &udp)
        };
        self.compare(tables, ingress, &frame).map(drop)
    }

    fn compare_quietly(
        &mut self,
        tables: &Tables,
        ingress: Ingress,
        frame: &[u8],
    ) -> Result<(), TestCaseError> {
        let expected = decide(tables, &self.learned, ingress, frame);
        self.saw(format!("{} lessons", expected.lessons.len()));
        let got = match self.kernel.dry_run(ingress, frame) {
            Err(DatapathError::FrameLength(_)) => return Ok(()), // the kernel runs no such test
            got => got.map_err(|e| TestCaseError::fail(e.to_string()))?,
        };
        self.learned.note(Time::from_secs(0), &expected.lessons);
        for (rule, octets) in &expected.allowed {
            let (packets, bytes) = self.allowed.entry(*rule).or_default();
            *packets += 1;
            *bytes += octets;
        }
        if expected.reason == Some(Reason::Denied) {
            let way = if expected.kept_out > 0 { "in" } else { "out" };
            self.saw(format!("denied {way} at {:?}", expected.path));
        } else if expected.kept_out > 0 {
            self.saw("kept out of copies".into());
        }
        if expected.reason == Some(Reason::RateLimited) {
            let way = if expected.over_rate > 0 { "in" } else { "out" };
            self.saw(format!("too much {way} at {:?}", expected.path));
        } else if expected.over_rate > 0 {
            self.saw("too much for some".into());
        }
        for lesson in &expected.lessons {
            match lesson {
                Lesson::Let { connection, .. } => self.of_connection = Some(connection.vni),
                Lesson::Fragment { .. } => self.saw("a first fragment".into()),
                Lesson::Ended(_) => self.saw("ended by another policy".into()),
                _ => {}
            }
        }
        self.saw(format!("{:?}", expected.reason));
        if let (Action::Tunnel { .. }, Some(vni)) = (expected.action, expected.vni) {
            let key = (vni, MacAddr(frame[..6].try_into().unwrap()));
            if tables.away.contains_key(&key) && !tables.fdb.contains_key(&key) {
                self.saw("to who has gone".into());
            }
        }
        if expected.action == Action::Reply {
            let family = if frame[12..14] == [0x86, 0xdd] { 6 } else { 4 };
            self.saw(format!("{:?} answer to {family}", expected.reason));
        }
        let wanted = match expected.action {
            Action::Drop => Did::Drop,
            Action::Pass => Did::Pass,
            Action::Deliver(to) => Did::Deliver(to),
            Action::Reply => Did::Reply,
            Action::Tunnel { path: Path::Direct, .. } => Did::Direct(self.uplink),
            Action::Tunnel { path: Path::Device, .. } => Did::Device,
            Action::Replicate { copies } => Did::Replicate(copies),
            Action::Punt(why) => Did::Punt(why),
        };
        if expected.action == Action::Punt(PuntReason::UnknownMac)
            && !self.asked.insert((expected.vni.unwrap().get(), frame[..6].try_into().unwrap()))
            && got.did == Did::Drop
            && got.reason == Some(Reason::UnknownMac)
        {
            self.punts.drain(16);
            return Ok(()); // the model knows no time
        }
        if expected.action == Action::Punt(PuntReason::FirstFrame)
            && got.did == Did::Drop
            && got.reason == Some(Reason::NotActivated)
            && self.seen.contains_key("FirstFrame")
        {
            return Ok(()); // nor seconds
        }
        // Whatever mode it was asked in before.
        if expected.action == Action::Punt(PuntReason::UnknownMacHeld)
            || expected.also == Some(PuntReason::UnknownMac)
        {
            self.asked.insert((expected.vni.unwrap().get(), frame[..6].try_into().unwrap()));
        }
        let held = [PuntReason::Route, PuntReason::UnknownMacHeld].map(Action::Punt);
        if held.contains(&expected.action) && got.reason == Some(Reason::PuntLimited) {
            self.punts.drain(16);
            return Ok(()); // nor limits
        }
        if let Action::Punt(why) = expected.action {
            self.saw(format!("{why:?}"));
        }
        if let Some(why) = expected.also {
            self.saw(format!("also {why:?}, carried: {}", expected.carried));
        }
        prop_assert_eq!(got.did, wanted, "{:?} {:?}", got.reason, expected);
        prop_assert_eq!(got.reason, expected.reason);
        self.same_connections()?;
        if expected.reason == Some(Reason::SpoofedMac) && !matches!(ingress, Ingress::Vap(_)) {
            self.saw("another NVE's".into());
        }
        self.punted(&expected, frame)?;
        if expected.lessons.iter().any(|lesson| matches!(lesson, Lesson::Ip { .. })) {
            self.saw("heard".into());
        }
        let Some(out) = expected.frames.first() else { return Ok(()) };
        let node = MacAddr::of_node(tables.config.node).octets();
        let (inner4, inner6) = (out.get(56..62), out.get(76..82));
        match (ingress, expected.action) {
            (Ingress::Vap(_), Action::Replicate { copies }) if out[0] != 0xff && copies > 0 => {
                let to: Option<IpAddr> = match out[12..14] {
                    [8, 0] => out[30..].first_chunk::<4>().map(|ip| IpAddr::from(*ip)),
                    [0x86, 0xdd] => out[38..].first_chunk::<16>().map(|ip| IpAddr::from(*ip)),
                    _ => None,
                };
                let group = to.and_then(|to| GroupIp::new(to).ok());
                let of = |wanted| tables.groups.get(&(expected.vni?, wanted));
                let whom = group.and_then(|group| of(Wanted::Group(group)));
                let vn = expected.vni.and_then(|vni| tables.vns.get(&vni));
                let narrowed = vn.is_some_and(|vn| vn.bum == Bum::Replicate);
                if let Some(whom) = whom {
                    self.saw(format!(
                        "narrowed to {}",
                        if whom.members.is_empty() { "VAPs" } else { "members" }
                    ));
                } else if narrowed && group.is_some() && of(Wanted::All).is_some() {
                    self.saw("to those that want all".into());
                }
            }
            (Ingress::Vap(_), Action::Tunnel { .. }) if [inner4, inner6].contains(&Some(&node[..])) => {
                self.saw("translated".into());
            }
            (Ingress::Vap(_), Action::Replicate { .. }) if out[6..12] == node && out[12..14] == [8, 6] => {
                self.saw("asked".into());
            }
            (Ingress::Vap(_), Action::Replicate { .. })
                if out[6..12] == node && out.get(80..86) == Some(&node[..]) =>
            {
                self.saw("asked by ND".into());
            }
            (Ingress::Underlay(_), Action::Deliver(_))
                if [frame.get(50..56), frame.get(70..76)].contains(&Some(&node[..])) =>
            {
                self.saw("restored".into());
            }
            _ => {}
        }
        if matches!(expected.action, Action::Deliver(_)) && matches!(ingress, Ingress::Vap(_)) {
            let rewritten = out[..6] != frame[..6];
            self.saw(format!("rewritten: {rewritten}"));
        }
        let mut left = got.frame;
        if let Did::Direct(_) = got.did {
            let port = if left[12..14] == [8, 0] { 34 } else { 54 };
            let source = u16::from_be_bytes([left[port], left[port + 1]]);
            let Ingress::Vap(from) = ingress else { panic!("{ingress:?} sent by the direct path") };
            let ports = tables.vaps[&from].tunnel.ports;
            prop_assert!((ports.first()..=ports.last()).contains(&source), "{source} of {ports}");
            left[port..port + 2].fill(0);
            left[..12].fill(0);
        }
        prop_assert_eq!(&left, out);
        Ok(())
    }

    fn punted(&mut self, expected: &Verdict, frame: &[u8]) -> Result<(), TestCaseError> {
        let (logged, records): (Vec<_>, Vec<_>) = self
            .punts
            .drain(16)
            .into_iter()
            .partition(|one| matches!(one.reason, PuntReason::Allowed(..) | PuntReason::Refused(_)));
        // At a limited rate.
        let mut told = expected.logged.iter();
        for one in logged {
            prop_assert!(told.any(|reason| *reason == one.reason), "{:?} {:?}", one.reason, expected.logged);
            self.saw(format!("{:?}", one.reason).split('(').next().unwrap().to_owned());
        }
        let ((Action::Punt(reason), _) | (_, Some(reason))) = (expected.action, expected.also) else {
            prop_assert_eq!(records, vec![]);
            return Ok(());
        };
        let limited = [PuntReason::UnknownMac, PuntReason::RouteSeen, PuntReason::NoSuchTs];
        if expected.also.is_some_and(|also| limited.contains(&also)) {
            // Once a second; and routed, it is asked for the owner.
            prop_assert!(records.len() <= 1 && records.iter().all(|one| one.reason == reason));
            self.asked.extend(records.iter().map(|one| (one.vni.get(), one.dst.octets())));
            return Ok(());
        }
        prop_assert_eq!(records.len(), 1);
        prop_assert_eq!(records[0].reason, reason);
        prop_assert_eq!(Some(records[0].vni), expected.vni);
        prop_assert_eq!(records[0].from, None);
        prop_assert_eq!(records[0].dst.octets(), &frame[..6]);
        let whole = [PuntReason::Route, PuntReason::UnknownMacHeld, PuntReason::Report].contains(&reason);
        let most = if whole { Punt::WHOLE } else { 128 };
        prop_assert_eq!(&records[0].frame, &frame[..frame.len().min(most)]);
        Ok(())
    }
}

/// Random tables and frames until `cases` tables agreed.
fn agree(bench: Bench, cases: u32, rng: TestRng) -> BTreeMap<String, u32> {
    let bench = std::cell::RefCell::new(bench);
    let entropy = |n| proptest::collection::vec(any::<u8>(), n);
    let frames = proptest::collection::vec((any::<bool>(), 0..40_u8, entropy(120)), 1..40);
    let input = (entropy(800), frames, entropy(40));
    let config = ProptestConfig { cases, failure_persistence: None, ..ProptestConfig::default() };
    let result = TestRunner::new_with_rng(config, rng).run(&input, |(table, frames, ways)| {
        let bench = &mut *bench.borrow_mut();
        let mut dice = Dice(table.iter());
        let mut tables = tables(&mut dice, bench.uplink, &bench.vaps.clone());
        bench.forget();
        policies(&mut dice, &mut tables, bench.generation);
        tunnels(&mut Dice(ways.iter()), &mut tables, bench.generation);
        bench.set(&tables);
        arrivals(&mut Dice(ways[20..].iter()), bench, &tables)?;
        let mut let_in: Vec<(Vni, Vec<u8>)> = Vec::new();
        let halfway = frames.len() / 2;
        for (i, (inward, from, octets)) in frames.into_iter().enumerate() {
            let mut d = Dice(octets.iter());
            if i == halfway && dice.rarely(2) {
                bench.generation += 1;
                policies(&mut dice, &mut tables, bench.generation);
                bench.set(&tables);
            }
            // More of what was let through before, either way.
            if from % 2 == 0 && !let_in.is_empty() {
                let (vni, first) = &let_in[usize::from(from) % let_in.len()];
                let frame = if d.rarely(3) { again(&mut d, first) } else { answer_to(&mut d, first) };
                let Some(frame) = frame else { continue };
                bench.compare_more(&tables, *vni, &mut d, &frame)?;
                continue;
            }
            if inward {
                let frame = underlay_frame(&mut d, &tables);
                let first = bench.compare(&tables, Ingress::Underlay(bench.uplink), &frame)?;
                let_in.extend(bench.talk(&tables, &mut d, first)?);
            } else {
                let device = if from == 33 { bench.bare } else { bench.vaps[usize::from(from % 3)] };
                let own: Vec<IpAddr> =
                    tables.vaps.get(&device).iter().flat_map(|v| &v.ips).map(|ip| ip.get()).collect();
                let src = if from < 36 { mac(from % 3) } else { any_mac(&mut d) };
                let mut frame = tenant_frame(&mut d, src, &own);
                let vn = tables.vaps.get(&device).map(|vap| vap.vni);
                let learning = vn.and_then(|vn| tables.vns.get(&vn)).map(|vn| vn.learning);
                if learning == Some(Learning::Distribute) && from % 4 != 0 && frame[0] & 1 == 0 {
                    frame[..6].copy_from_slice(&MacAddr::anycast(vn.unwrap()).octets());
                }
                if learning == Some(Learning::Translate) && from % 4 == 0 && frame[0] & 1 == 0 {
                    frame[..6].copy_from_slice(&MacAddr::of_node(u32::from(from) % 3).octets());
                }
                let first = bench.compare(&tables, Ingress::Vap(device), &frame)?;
                let_in.extend(bench.talk(&tables, &mut d, first)?);
            }
        }
        same_levels(bench, &tables)
    });
    let bench = bench.into_inner();
    let hits = bench.kernel.rule_counters().unwrap().into_iter().map(|(r, p, b)| (r, (p, b))).collect();
    bench.kernel.uninstall().unwrap();
    match result {
        Err(TestError::Fail(why, _)) => panic!("{why}"),
        other => other.unwrap(),
    }
    assert_eq!(bench.allowed, hits);
    bench.seen
}

/// Runs `test` with the programs attached in a namespace of its own.
fn with_bench(name: &str, test: impl FnOnce(Bench) + Send) {
    let ns = Ns::new(name);
    ns.ip("link add up0 type veth peer name up1
           addr add 192.0.2.1/24 dev up0
           addr add 2001:db8::1/64 dev up0 nodad
           link set up1 up
           link set up0 up");
    for n in 0..4 {
        ns.ip(&format!("link add v{n} type veth peer name w{n}"));
    }
    let vaps: Vec<IfIndex> = (0..3).map(|n| ns.index(&format!("v{n}"))).collect();
    let (uplink, bare) = (ns.index("up0"), ns.index("v3"));
    ns.run(|| {
        let mut options = options();
        options.punt_rate = u32::MAX; // no limit: the model has none
        let mut kernel = Kernel::open(&options).unwrap();
        let punts = kernel.punts().unwrap();
        let (learned, asked, seen) = (Learned::default(), BTreeSet::new(), BTreeMap::new());
        let (allowed, generation) = (BTreeMap::new(), 0);
        test(Bench {
            kernel,
            punts,
            uplink,
            vaps,
            bare,
            learned,
            asked,
            seen,
            allowed,
            generation,
            of_connection: None,
        });
    });
}

#[test]
fn programs_and_model_agree() {
    with_bench("agree", |bench| {
        agree(bench, 700, TestRunner::default().new_rng());
    });
}

/// The frames reach every decision that one frame can: the same ones in every run.
#[test]
fn every_decision_is_compared() {
    with_bench("decide", |bench| {
        let seen = agree(bench, 4_000, TestRng::from_seed(RngAlgorithm::ChaCha, &[8; 32]));
        println!("{seen:#?}");
        let answers = ["Answered", "TooBig", "Echoed"]
            .into_iter()
            .flat_map(|reason| [4, 6].map(|family| format!("Some({reason}) answer to {family}")));
        let elsewhere = [
            Reason::SrcMoved,
            Reason::UnknownMac,
            Reason::PuntLimited,
            Reason::PuntRingFull,
            Reason::Kernel,
            Reason::OtherLink,
            Reason::Storm,
            Reason::ByGateway,
            Reason::Redirected,
            Reason::RedirectLoop,
        ];
        let reasons = Reason::ALL.iter().filter(|r| !elsewhere.contains(r)).map(|r| format!("{:?}", Some(r)));
        let punts = [
            "Report",
            "narrowed to VAPs",
            "narrowed to members",
            "to those that want all",
            "Route",
            "UnknownMacHeld",
            "also UnknownMac, carried: false",
            "also UnknownMac, carried: true",
            "also RouteSeen, carried: false",
            "also RouteSeen, carried: true",
            "also NoSuchTs, carried: false",
            "ArpMiss",
            "NdMiss",
            "LinkLocalClaim",
            "FirstFrame",
            "rewritten: true",
            "heard",
            "translated",
            "asked",
            "asked by ND",
            "restored",
            "another NVE's",
            "to who has gone",
            "denied out at Direct",
            "denied out at Device",
            "denied in at Direct",
            "denied in at Device",
            "kept out of copies",
            "too much out at Direct",
            "too much out at Device",
            "too much in at Direct",
            "too much in at Device",
            "too much for some",
            "a first fragment",
            "ended by another policy",
            "Allowed",
            "Refused",
            "Out Established of 1",
            "Out Established of 58",
            "Out Established of 17",
        ]
        .into_iter()
        .map(str::to_owned);
        let missing: Vec<_> =
            answers.chain(reasons).chain(punts).filter(|what| !seen.contains_key(what)).collect();
        assert!(missing.is_empty(), "never: {missing:?}\nseen: {seen:#?}");
    });
}
