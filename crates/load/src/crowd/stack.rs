//! The network stack of one small tenant system: ARP, Neighbor Discovery, echo. It asks as hosts do, answers
//! for its own addresses, and believes what it is told about others.

use etherparse::{
    ArpEthIpv4Packet, ArpOperation, IcmpEchoHeader, Icmpv4Type, Icmpv6Type, NetSlice, PacketBuilder,
    SlicedPacket, TransportSlice,
    icmpv6::{Icmpv6PayloadSlice, NeighborAdvertisementHeader},
};
use std::{
    collections::BTreeMap,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    time::Duration,
};
use weft_model::MacAddr;

/// Between two tries of a question, and how many there are: as Linux asks (RFC 4861 section 10).
const RETRY: Duration = Duration::from_secs(1);
const TRIES: u32 = 3;
/// Source and Target Link-Layer Address options (RFC 4861 section 4.6.1).
const SLLA: [u8; 2] = [1, 1];
const TLLA: [u8; 2] = [2, 1];

/// What a tenant system sent first to a destination, and when its answer came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Contact {
    /// Who is asked.
    pub to: IpAddr,
    /// When the first packet wanted to go, since the start.
    pub asked: Duration,
    /// When the first answer came.
    pub answered: Option<Duration>,
}

#[derive(Debug)]
struct Wait {
    next: Duration,
    tries: u32,
    /// ICMP sequence numbers of requests, or of replies, that wait for the neighbour.
    requests: Vec<u16>,
    replies: Vec<(u16, u16)>,
}

/// One tenant system.
#[derive(Debug)]
pub(crate) struct Stack {
    mac: MacAddr,
    ips: Vec<IpAddr>,
    id: u16,
    neighbours: BTreeMap<IpAddr, MacAddr>,
    waiting: BTreeMap<IpAddr, Wait>,
    pub(crate) contacts: Vec<Contact>,
    pub(crate) out: Vec<Vec<u8>>,
    /// Questions asked of everybody, retries included.
    pub(crate) questions: usize,
    /// Contacts that are answered.
    pub(crate) answers: usize,
}

impl Stack {
    pub(crate) fn new(mac: MacAddr, ips: Vec<IpAddr>, id: u16) -> Self {
        let (neighbours, waiting) = (BTreeMap::new(), BTreeMap::new());
        Self {
            mac,
            ips,
            id,
            neighbours,
            waiting,
            contacts: Vec::new(),
            out: Vec::new(),
            questions: 0,
            answers: 0,
        }
    }

    /// Sends an echo request to `to`.
    pub(crate) fn contact(&mut self, now: Duration, to: IpAddr) {
        let Ok(sequence) = u16::try_from(self.contacts.len()) else { return };
        self.contacts.push(Contact { to, asked: now, answered: None });
        match self.neighbours.get(&to).copied() {
            Some(mac) => self.echo(to, mac, true, (self.id, sequence)),
            None => self.ask(now, to).requests.push(sequence),
        }
    }

    /// Does what is due; gives when the next thing is.
    pub(crate) fn due(&mut self, now: Duration) -> Option<Duration> {
        let due: Vec<IpAddr> =
            self.waiting.iter().filter(|(_, w)| w.next <= now).map(|(ip, _)| *ip).collect();
        for ip in due {
            let Some(wait) = self.waiting.get_mut(&ip) else { continue };
            if wait.tries >= TRIES {
                self.waiting.remove(&ip);
                continue;
            }
            wait.tries += 1;
            wait.next = now + RETRY;
            self.question(ip);
        }
        self.waiting.values().map(|wait| wait.next).min()
    }

    fn ask(&mut self, now: Duration, ip: IpAddr) -> &mut Wait {
        if !self.waiting.contains_key(&ip) {
            self.question(ip);
        }
        let new = || Wait { next: now + RETRY, tries: 1, requests: Vec::new(), replies: Vec::new() };
        self.waiting.entry(ip).or_insert_with(new)
    }

    /// Takes in a frame.
    pub(crate) fn receive(&mut self, now: Duration, frame: &[u8]) {
        let Ok(packet) = SlicedPacket::from_ethernet(frame) else { return };
        match (&packet.net, &packet.transport) {
            (Some(NetSlice::Arp(arp)), _) => {
                if let Ok(arp) = ArpEthIpv4Packet::try_from(arp.to_packet()) {
                    self.arp(&arp);
                }
            }
            (Some(NetSlice::Ipv4(ip)), Some(TransportSlice::Icmpv4(icmp))) => {
                let (from, to) = (ip.header().source_addr(), ip.header().destination_addr());
                match icmp.icmp_type() {
                    Icmpv4Type::EchoRequest(echo) => self.echoed(now, from.into(), to.into(), echo),
                    Icmpv4Type::EchoReply(echo) => self.answered(now, from.into(), echo),
                    _ => {}
                }
            }
            (Some(NetSlice::Ipv6(ip)), Some(TransportSlice::Icmpv6(icmp))) => {
                let (from, to) = (ip.header().source_addr(), ip.header().destination_addr());
                match icmp.icmp_type() {
                    Icmpv6Type::EchoRequest(echo) => self.echoed(now, from.into(), to.into(), echo),
                    Icmpv6Type::EchoReply(echo) => self.answered(now, from.into(), echo),
                    _ => self.discovery(from, icmp.payload_slice().ok(), icmp.icmp_type()),
                }
            }
            _ => {}
        }
    }

    fn arp(&mut self, arp: &ArpEthIpv4Packet) {
        let (from, target) = (arp.sender_ipv4_addr(), IpAddr::from(arp.target_ipv4_addr()));
        let mac = MacAddr(arp.sender_mac);
        let request = arp.operation == ArpOperation::REQUEST;
        let for_me = self.ips.contains(&target);
        // RFC 826: whoever asks me, or answers me, is known from then on; others only if they were already.
        if !from.is_unspecified() && (for_me || self.neighbours.contains_key(&from.into())) {
            self.known(from.into(), mac);
        }
        if let (true, true, IpAddr::V4(own)) = (request, for_me, target) {
            self.send_arp(ArpOperation::REPLY, own, mac, (mac, from));
        }
    }

    fn discovery(&mut self, from: Ipv6Addr, payload: Option<Icmpv6PayloadSlice<'_>>, kind: Icmpv6Type) {
        match payload {
            Some(Icmpv6PayloadSlice::NeighborSolicitation(ns)) => {
                let target = ns.target_address();
                let Some(mac) = link_layer(ns.options(), SLLA) else { return };
                if self.ips.contains(&target.into()) && !from.is_unspecified() {
                    self.known(from.into(), mac);
                    self.advertise(target, from, mac);
                }
            }
            Some(Icmpv6PayloadSlice::NeighborAdvertisement(na)) => {
                let (target, mac) = (IpAddr::from(na.target_address()), link_layer(na.options(), TLLA));
                let overrides = matches!(kind, Icmpv6Type::NeighborAdvertisement(flags) if flags.r#override);
                // RFC 4861 section 7.2.5: without O only what is not known yet.
                let known = self.neighbours.contains_key(&target);
                let wanted = self.waiting.contains_key(&target) || (known && overrides);
                if let Some(mac) = mac.filter(|_| wanted) {
                    self.known(target, mac);
                }
            }
            _ => {}
        }
    }

    /// `ip` has `mac`: what waited for that goes out.
    fn known(&mut self, ip: IpAddr, mac: MacAddr) {
        self.neighbours.insert(ip, mac);
        let Some(wait) = self.waiting.remove(&ip) else { return };
        for sequence in wait.requests {
            self.echo(ip, mac, true, (self.id, sequence));
        }
        for echo in wait.replies {
            self.echo(ip, mac, false, echo);
        }
    }

    fn echoed(&mut self, now: Duration, from: IpAddr, to: IpAddr, echo: IcmpEchoHeader) {
        if !self.ips.contains(&to) {
            return;
        }
        match self.neighbours.get(&from).copied() {
            Some(mac) => self.echo(from, mac, false, (echo.id, echo.seq)),
            None => self.ask(now, from).replies.push((echo.id, echo.seq)),
        }
    }

    fn answered(&mut self, now: Duration, from: IpAddr, echo: IcmpEchoHeader) {
        if echo.id == self.id
            && let Some(contact) = self.contacts.get_mut(usize::from(echo.seq))
            && contact.to == from
        {
            self.answers += usize::from(contact.answered.is_none());
            contact.answered.get_or_insert(now);
        }
    }

    fn own(&self, like: IpAddr) -> Option<IpAddr> {
        self.ips.iter().copied().find(|ip| ip.is_ipv4() == like.is_ipv4())
    }

    fn question(&mut self, ip: IpAddr) {
        self.questions += 1;
        match (ip, self.own(ip)) {
            (IpAddr::V4(target), Some(IpAddr::V4(own))) => {
                self.send_arp(ArpOperation::REQUEST, own, MacAddr::BROADCAST, (MacAddr([0; 6]), target));
            }
            (IpAddr::V6(target), Some(IpAddr::V6(own))) => {
                let [.., a, b, c] = target.octets();
                let group =
                    Ipv6Addr::new(0xff02, 0, 0, 0, 0, 1, 0xff00 | u16::from(a), u16::from_be_bytes([b, c]));
                let payload = [&target.octets()[..], &SLLA, &self.mac.octets()].concat();
                let to = MacAddr([0x33, 0x33, 0xff, a, b, c]);
                self.icmp6(own, group, to, Icmpv6Type::NeighborSolicitation, 255, &payload);
            }
            _ => {}
        }
    }

    fn advertise(&mut self, own: Ipv6Addr, to: Ipv6Addr, mac: MacAddr) {
        let payload = [&own.octets()[..], &TLLA, &self.mac.octets()].concat();
        let flags = NeighborAdvertisementHeader { router: false, solicited: true, r#override: true };
        self.icmp6(own, to, mac, Icmpv6Type::NeighborAdvertisement(flags), 255, &payload);
    }

    fn echo(&mut self, to: IpAddr, mac: MacAddr, request: bool, (id, seq): (u16, u16)) {
        let echo = IcmpEchoHeader { id, seq };
        match (to, self.own(to)) {
            (IpAddr::V4(to), Some(IpAddr::V4(own))) => {
                let kind = if request { Icmpv4Type::EchoRequest(echo) } else { Icmpv4Type::EchoReply(echo) };
                let builder = PacketBuilder::ethernet2(self.mac.octets(), mac.octets())
                    .ipv4(own.octets(), to.octets(), 64)
                    .icmpv4(kind);
                let mut frame = Vec::with_capacity(64);
                if builder.write(&mut frame, b"weft").is_ok() {
                    self.out.push(frame);
                }
            }
            (IpAddr::V6(to), Some(IpAddr::V6(own))) => {
                let kind = if request { Icmpv6Type::EchoRequest(echo) } else { Icmpv6Type::EchoReply(echo) };
                self.icmp6(own, to, mac, kind, 64, b"weft");
            }
            _ => {}
        }
    }

    fn icmp6(&mut self, own: Ipv6Addr, to: Ipv6Addr, mac: MacAddr, kind: Icmpv6Type, hops: u8, rest: &[u8]) {
        let builder = PacketBuilder::ethernet2(self.mac.octets(), mac.octets())
            .ipv6(own.octets(), to.octets(), hops)
            .icmpv6(kind);
        let mut frame = Vec::with_capacity(96);
        if builder.write(&mut frame, rest).is_ok() {
            self.out.push(frame);
        }
    }

    fn send_arp(
        &mut self,
        operation: ArpOperation,
        own: Ipv4Addr,
        to: MacAddr,
        (mac, ip): (MacAddr, Ipv4Addr),
    ) {
        let arp = ArpEthIpv4Packet {
            operation,
            sender_mac: self.mac.octets(),
            sender_ipv4: own.octets(),
            target_mac: mac.octets(),
            target_ipv4: ip.octets(),
        };
        let builder = PacketBuilder::ethernet2(self.mac.octets(), to.octets()).arp(arp.into());
        let mut frame = Vec::with_capacity(64);
        if builder.write(&mut frame).is_ok() {
            self.out.push(frame);
        }
    }
}

/// The address of a link-layer address option that stands first, as everybody writes it.
fn link_layer(options: &[u8], kind: [u8; 2]) -> Option<MacAddr> {
    let mac = options.strip_prefix(&kind)?.get(..6)?;
    mac.try_into().ok().map(MacAddr)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn stack(n: u8) -> Stack {
        let ips = vec![format!("10.0.0.{n}").parse().unwrap(), format!("fd00::{n}").parse().unwrap()];
        Stack::new(MacAddr([2, 0, 0, 0, 0, n]), ips, n.into())
    }

    /// Everything either says reaches the other until both are silent; how many frames that were.
    fn talk(now: Duration, a: &mut Stack, b: &mut Stack) -> usize {
        let mut frames = 0;
        while !(a.out.is_empty() && b.out.is_empty()) {
            for frame in std::mem::take(&mut a.out) {
                b.receive(now, &frame);
                frames += 1;
            }
            for frame in std::mem::take(&mut b.out) {
                a.receive(now, &frame);
                frames += 1;
            }
        }
        frames
    }

    #[test]
    fn two_of_them_find_each_other_over_both_families() {
        for to in ["10.0.0.2", "fd00::2"] {
            let (mut a, mut b) = (stack(1), stack(2));
            a.contact(SECOND, to.parse().unwrap());
            // Question, answer, echo, echo: who was asked knows the asker.
            assert_eq!(talk(SECOND, &mut a, &mut b), 4, "{to}");
            assert_eq!(a.contacts[0].answered, Some(SECOND));
            assert_eq!((a.questions, b.questions), (1, 0));
            a.contact(SECOND, to.parse().unwrap());
            assert_eq!(talk(SECOND, &mut a, &mut b), 2, "{to}");
        }
    }

    #[test]
    fn nobody_is_asked_three_times() {
        let mut a = stack(1);
        a.contact(SECOND, "10.0.0.9".parse().unwrap());
        assert_eq!(a.due(SECOND), Some(2 * SECOND));
        assert_eq!(a.due(2 * SECOND), Some(3 * SECOND));
        assert_eq!(a.due(3 * SECOND), Some(4 * SECOND));
        assert_eq!(a.due(4 * SECOND), None);
        assert_eq!((a.out.len(), a.contacts[0].answered), (3, None));
    }

    #[test]
    fn an_advertisement_without_override_heals_nothing() {
        let (mut a, mut b) = (stack(1), stack(2));
        let to: IpAddr = "fd00::2".parse().unwrap();
        a.contact(SECOND, to);
        talk(SECOND, &mut a, &mut b);
        let mac = a.neighbours[&to];
        let mut other = Stack::new(MacAddr([2, 0, 0, 0, 0, 9]), vec![to], 9);
        for (r#override, wanted) in [(false, mac), (true, other.mac)] {
            let flags = NeighborAdvertisementHeader { router: false, solicited: false, r#override };
            let payload =
                [&"fd00::2".parse::<Ipv6Addr>().unwrap().octets()[..], &TLLA, &other.mac.octets()].concat();
            let all = "ff02::1".parse().unwrap();
            other.icmp6(
                "fd00::2".parse().unwrap(),
                all,
                MacAddr([0x33, 0x33, 0, 0, 0, 1]),
                Icmpv6Type::NeighborAdvertisement(flags),
                255,
                &payload,
            );
            a.receive(SECOND, &other.out.pop().unwrap());
            assert_eq!(a.neighbours[&to], wanted);
        }
    }
}
