//! What a tenant system sends.

use super::bytes::{
    ARP, ETH, ICMP, ICMPV6, IGMP, IPV4, IPV6, UDP, be16, ethertype, ipv4, ipv6, is_vlan, mac, take,
};
use super::members::{distributes, floods, multicast, replicate, replicates, translates};
use super::miss::{Missed, missed};
use super::route::inside;
use super::{Action, Learned, Verdict, answer, policy, translate, tunnel};
use crate::{IfIndex, Location, Neighbour, Path, PuntReason, Reason, Tables, Toward, Tunnel, Vap};
use core::net::IpAddr;
use weft_model::{Epoch, MacAddr, Rloc, TenantIp, Ttl};

/// Why a frame goes no further. `Ok` means that it goes on.
pub(super) enum Stop {
    Drop(Reason),
    Punt(PuntReason),
    Answer(Option<Vec<u8>>),
    /// To the members.
    Ask,
    /// To all.
    Announce,
}

/// What is behind the IP header.
pub(super) struct L4 {
    pub(super) off: usize,
    pub(super) proto: u8,
    pub(super) later: bool,
    pub(super) direct: bool,
    /// Its identification if it is a fragment, of IPv6 and where it was asked for.
    pub(super) fragment: Option<u32>,
    /// DHCP or RS: to others only where the VN floods.
    confined: bool,
    /// A link-local address that the agent is to take for the VAP.
    claim: bool,
}

const NOT_IP: L4 =
    L4 { off: ETH, proto: 0, later: false, direct: false, fragment: None, confined: false, claim: false };

pub(super) fn decide(tables: &Tables, learned: &Learned, device: IfIndex, frame: &[u8]) -> Verdict {
    let Some(vap) = tables.vaps.get(&device) else {
        return Verdict { reason: Some(Reason::NoVap), ..Verdict::new(Action::Drop) };
    };
    let verdict = |action, reason, frames| Verdict {
        reason: Some(reason),
        vni: Some(vap.vni),
        path: vap.path,
        frames,
        ..Verdict::new(action)
    };
    match examine(tables, learned, vap, frame) {
        Ok(l4) if mac(frame, 0).is_some_and(MacAddr::is_group) => {
            let also = l4.claim.then_some(PuntReason::LinkLocalClaim);
            match membership(tables, vap, frame, &l4) {
                Some(Err(reason)) => return Verdict { also, ..verdict(Action::Drop, reason, vec![]) },
                Some(Ok(why)) => {
                    return Verdict { also, ..verdict(Action::Punt(why), Reason::Punted, vec![]) };
                }
                None => {}
            }
            let mut out = Verdict::new(Action::Drop);
            let checked = policy::check(tables, learned, vap, Toward::Out, frame);
            let decided = if let Some(reason) = out.checked(checked, frame.len()) {
                verdict(Action::Drop, reason, vec![])
            } else if frame.len() - ETH > usize::from(vap.mtu) {
                verdict(Action::Drop, Reason::TooBig, vec![])
            } else {
                multicast(tables, learned, vap.vni, device, frame)
            };
            Verdict { also, ..decided.after(out) }
        }
        Ok(l4) => {
            let mut out = Verdict::new(Action::Drop);
            let checked = policy::check(tables, learned, vap, Toward::Out, frame);
            let decided = if let Some(reason) = out.checked(checked, frame.len()) {
                verdict(Action::Drop, reason, vec![])
            } else {
                forward(tables, learned, vap, device, frame, &l4, verdict)
            };
            decided.after(out)
        }
        Err(Stop::Drop(reason)) => verdict(Action::Drop, reason, vec![]),
        Err(Stop::Punt(why)) => verdict(Action::Punt(why), Reason::Punted, vec![]),
        Err(Stop::Ask) => match translate::outbound(frame, MacAddr::of_node(tables.config.node)) {
            Ok(frame) => replicate(tables, learned, vap.vni, device, false, &frame),
            Err(reason) => verdict(Action::Drop, reason, vec![]),
        },
        Err(Stop::Announce) if frame.len() - ETH > usize::from(vap.mtu) => {
            verdict(Action::Drop, Reason::TooBig, vec![])
        }
        Err(Stop::Announce) => super::members::announce(tables, learned, vap.vni, device, frame),
        Err(Stop::Answer(None)) => verdict(Action::Drop, Reason::Malformed, vec![]),
        Err(Stop::Answer(Some(f))) => verdict(Action::Reply, Reason::Answered, vec![f]),
    }
}

/// What becomes of IGMP and MLD: reports are for the agent, queries for nobody.
fn membership(tables: &Tables, vap: &Vap, frame: &[u8], l4: &L4) -> Option<Result<PuntReason, Reason>> {
    let v4 = match ethertype(frame)? {
        IPV4 if l4.proto == IGMP => true,
        IPV6 if l4.proto == ICMPV6 => false,
        _ => return None,
    };
    if !replicates(tables, vap.vni) {
        return None;
    }
    if l4.later {
        return v4.then_some(Err(Reason::HiddenL4));
    }
    match (v4, frame.get(l4.off)) {
        (_, None) => Some(Err(Reason::Malformed)),
        (true, Some(0x11)) | (false, Some(130)) => Some(Err(Reason::RogueRouter)),
        (true, Some(0x12 | 0x16 | 0x17 | 0x22)) | (false, Some(131 | 132 | 143)) => {
            Some(Ok(PuntReason::Report))
        }
        _ => None,
    }
}

fn owns(vap: &Vap, ip: IpAddr) -> bool {
    vap.ips.iter().any(|own| own.get() == ip)
}

pub(super) fn neighbour(tables: &Tables, vap: &Vap, ip: IpAddr) -> Option<Neighbour> {
    tables.neighbours.get(&(vap.vni, TenantIp::new(ip).ok()?)).copied()
}

/// What is answered for an address, and by whose word it would be asked for.
fn answered(tables: &Tables, learned: &Learned, vap: &Vap, ip: IpAddr) -> Option<Neighbour> {
    let heard = || learned.neighbour(vap.vni, TenantIp::new(ip).ok()?);
    neighbour(tables, vap, ip).or_else(|| heard().filter(|_| translates(tables, vap.vni)))
}

fn examine(tables: &Tables, learned: &Learned, vap: &Vap, frame: &[u8]) -> Result<L4, Stop> {
    let stop = |reason| Err(Stop::Drop(reason));
    if !vap.activated {
        let own = mac(frame, 6) == Some(vap.mac.get()) && !ethertype(frame).is_none_or(is_vlan);
        return match vap.waits && own {
            true => Err(Stop::Punt(PuntReason::FirstFrame)),
            false => stop(Reason::NotActivated),
        };
    }
    let (Some(dst), Some(src), Some(proto)) = (mac(frame, 0), mac(frame, 6), ethertype(frame)) else {
        return stop(Reason::Malformed);
    };
    if is_vlan(proto) {
        return stop(Reason::VlanTagged);
    }
    if src != vap.mac.get() {
        return stop(Reason::SpoofedMac);
    }
    if u16::from_be_bytes(proto) < 0x600
        && take(frame, ETH).is_none_or(|[a, b, _]: [u8; 3]| [a, b] == [0xaa; 2])
    {
        return stop(Reason::HiddenL4);
    }
    let l4 = match proto {
        IPV4 => examine4(vap, frame)?,
        IPV6 => examine6(tables, learned, vap, frame)?,
        ARP => {
            examine_arp(tables, learned, vap, frame)?;
            NOT_IP
        }
        _ => NOT_IP,
    };
    if dst.is_group() && !floods(tables, vap.vni) && (l4.confined || !replicates(tables, vap.vni)) {
        return stop(Reason::BumOff);
    }
    Ok(l4)
}

fn examine4(vap: &Vap, frame: &[u8]) -> Result<L4, Stop> {
    let malformed = || Stop::Drop(Reason::Malformed);
    let header: [u8; 20] = take(frame, ETH).ok_or_else(malformed)?;
    if header[0] >> 4 != 4 || header[0] & 15 < 5 {
        return Err(malformed());
    }
    let l4 = L4 {
        off: ETH + usize::from(header[0] & 15) * 4,
        proto: header[9],
        later: u16::from_be_bytes([header[6], header[7]]) & 0x1fff != 0,
        direct: true,
        ..NOT_IP
    };
    let end = ETH + usize::from(u16::from_be_bytes([header[2], header[3]]));
    // Padding is none of the packet, whatever it looks like.
    let packet = frame.get(..end).filter(|_| end >= l4.off).ok_or_else(malformed)?;
    let mut ports = (0, 0);
    if l4.proto == UDP && !l4.later {
        let port = |at| be16(packet, at).ok_or_else(malformed);
        ports = (port(l4.off)?, port(l4.off + 2)?);
    }
    let src = ipv4(frame, ETH + 12).ok_or_else(malformed)?;
    // A DHCP client that has no address yet (RFC 2131 section 4.1).
    let discovering = src.is_unspecified() && ports == (68, 67);
    if !owns(vap, src) && !discovering {
        return Err(Stop::Drop(Reason::SpoofedIp));
    }
    if ports.0 == 67 || ports.1 == 68 {
        return Err(Stop::Drop(Reason::RogueDhcp));
    }
    Ok(L4 { confined: ports.1 == 67, ..l4 })
}

/// Past at most four extension headers.
pub(super) fn skip_extensions(packet: &[u8], mut next: u8) -> Option<L4> {
    let (mut off, mut fragment) = (ETH + 40, None);
    for i in 0..5 {
        if ![0, 43, 60, 44, 51].contains(&next) {
            return Some(L4 { off, proto: next, direct: i == 0, fragment, ..NOT_IP });
        }
        if i == 4 {
            return None;
        }
        let [a, b, c, d, id @ ..]: [u8; 8] = take(packet, off)?;
        let ext = [a, b, c, d];
        if next == 44 {
            let part = u16::from_be_bytes([c, d]) & 0xfff9 != 0;
            fragment = part.then_some(u32::from_be_bytes(id));
        }
        off += match next {
            44 if u16::from_be_bytes([ext[2], ext[3]]) & 0xfff8 != 0 => {
                return Some(L4 { off: off + 8, proto: ext[0], later: true, fragment, ..NOT_IP });
            }
            44 => 8,
            51 => (usize::from(ext[1]) + 2) * 4,
            _ => (usize::from(ext[1]) + 1) * 8,
        };
        next = ext[0];
    }
    None
}

fn examine6(tables: &Tables, learned: &Learned, vap: &Vap, frame: &[u8]) -> Result<L4, Stop> {
    let malformed = || Stop::Drop(Reason::Malformed);
    let header: [u8; 40] = take(frame, ETH).ok_or_else(malformed)?;
    if header[0] >> 4 != 6 {
        return Err(malformed());
    }
    let hidden = || Stop::Drop(Reason::HiddenL4);
    let end = ETH + 40 + usize::from(u16::from_be_bytes([header[4], header[5]]));
    let packet = frame.get(..end).ok_or_else(malformed)?;
    let l4 = skip_extensions(packet, header[6]).ok_or_else(hidden)?;
    let (mut kind, mut ports) = (0, (0, 0));
    if !l4.later && l4.proto == ICMPV6 {
        [kind, ..] = take::<4>(packet, l4.off).ok_or_else(hidden)?;
    }
    if !l4.later && l4.proto == UDP {
        let port = |at| be16(packet, at).ok_or_else(hidden);
        ports = (port(l4.off)?, port(l4.off + 2)?);
    }
    let src = ipv6(frame, ETH + 8).ok_or_else(malformed)?;
    if !owns(vap, src) {
        let mld = matches!(kind, 130..=132 | 143);
        if !src.is_unspecified() || !(mld || kind == 135 && l4.direct) {
            return Err(Stop::Drop(Reason::SpoofedIp));
        }
    }
    if matches!(kind, 133..=137) && !l4.direct {
        return Err(hidden());
    }
    if matches!(kind, 134 | 137) {
        return Err(Stop::Drop(Reason::RogueRouter));
    }
    if ports.0 == 547 || ports.1 == 546 {
        return Err(Stop::Drop(Reason::RogueDhcp));
    }
    let claim = matches!(kind, 135 | 136) && examine_nd(tables, learned, vap, frame, kind == 135)?;
    Ok(L4 { confined: kind == 133 || ports.1 == 547, claim, ..l4 })
}

fn examine_arp(tables: &Tables, learned: &Learned, vap: &Vap, frame: &[u8]) -> Result<(), Stop> {
    let stop = |reason| Err(Stop::Drop(reason));
    let malformed = || Stop::Drop(Reason::Malformed);
    let fixed: [u8; 8] = take(frame, ETH).ok_or_else(malformed)?;
    let (Some(sha), Some(spa), Some(tpa)) = (mac(frame, 22), ipv4(frame, 28), ipv4(frame, 38)) else {
        return stop(Reason::Malformed);
    };
    let request = match fixed {
        [0, 1, 8, 0, 6, 4, 0, 1] => true,
        [0, 1, 8, 0, 6, 4, 0, 2] => false,
        _ => return stop(Reason::Malformed),
    };
    let to_anycast = asks_anycast(tables, vap, frame);
    let probe = request && spa.is_unspecified();
    if sha != vap.mac.get() || !probe && !owns(vap, spa) {
        return stop(Reason::SpoofedArp);
    }
    let to_all = mac(frame, 0).is_some_and(MacAddr::is_group);
    if floods(tables, vap.vni) || !(to_all || request && to_anycast) {
        return Ok(());
    }
    if !request || spa == tpa {
        if request && !probe && translates(tables, vap.vni) {
            return Err(Stop::Announce);
        }
        return stop(Reason::Announcement);
    }
    if owns(vap, tpa) {
        return stop(Reason::OwnAddress);
    }
    match answered(tables, learned, vap, tpa) {
        None if translates(tables, vap.vni) && !probe => Err(Stop::Ask),
        None => Err(Stop::Punt(PuntReason::ArpMiss)),
        Some(Neighbour::Nobody) => stop(Reason::Nobody),
        Some(Neighbour::At(answer)) if answer == vap.mac.get() => stop(Reason::OwnAddress),
        Some(Neighbour::At(answer)) => Err(Stop::Answer(answer::arp(frame, answer))),
    }
}

/// To the MAC address that the VN's NVEs answer with.
fn asks_anycast(tables: &Tables, vap: &Vap, frame: &[u8]) -> bool {
    distributes(tables, vap.vni) && mac(frame, 0) == Some(MacAddr::anycast(vap.vni))
}

/// Link-layer address options of `kind`: RFC 4861 section 4.6.
fn check_options(frame: &[u8], end: usize, kind: u8, own: MacAddr, dad: bool) -> Result<(), Reason> {
    let mut off = ETH + 40 + 24;
    for _ in 0..8 {
        if off == end {
            return Ok(());
        }
        let option: [u8; 8] = take(frame, off).filter(|_| off + 8 <= end).ok_or(Reason::Malformed)?;
        let len = usize::from(option[1]) * 8;
        if len == 0 {
            return Err(Reason::Malformed);
        }
        if option[0] == kind {
            if dad || len != 8 {
                return Err(Reason::Malformed);
            }
            if option[2..] != own.0 {
                return Err(Reason::SpoofedNd);
            }
        }
        off += len;
    }
    if off == end { Ok(()) } else { Err(Reason::Malformed) }
}

/// Whether the agent is told of a claim beside what is done.
fn examine_nd(
    tables: &Tables,
    learned: &Learned,
    vap: &Vap,
    frame: &[u8],
    solicitation: bool,
) -> Result<bool, Stop> {
    let stop = |reason| Err(Stop::Drop(reason));
    let (Some(src), Some(IpAddr::V6(target)), Some(len), Some(dst)) =
        (ipv6(frame, 22), ipv6(frame, 62), be16(frame, 18), mac(frame, 0))
    else {
        return stop(Reason::Malformed);
    };
    let (dad, group, end) = (src.is_unspecified(), dst.is_group(), ETH + 40 + usize::from(len));
    if frame[21] != 255
        || frame[55] != 0
        || target.is_multicast()
        || end < ETH + 40 + 24
        || end > frame.len()
        || dad && !group
    {
        return stop(Reason::Malformed);
    }
    let kind = if solicitation { 1 } else { 2 };
    check_options(frame, end, kind, vap.mac.get(), dad).map_err(Stop::Drop)?;
    let own = owns(vap, IpAddr::V6(target));
    if !solicitation {
        return match (own, group) {
            (false, _) => stop(Reason::SpoofedNd),
            (true, true) if translates(tables, vap.vni) => Err(Stop::Announce),
            (true, true) if !floods(tables, vap.vni) => stop(Reason::Announcement),
            (true, _) => Ok(false),
        };
    }
    let claim = dad && target.is_unicast_link_local();
    if floods(tables, vap.vni) {
        return Ok(claim && !own);
    }
    if !group && !asks_anycast(tables, vap, frame) {
        return Ok(false);
    }
    if own {
        return stop(Reason::OwnAddress);
    }
    match answered(tables, learned, vap, IpAddr::V6(target)) {
        None if translates(tables, vap.vni) && !dad => Err(Stop::Ask),
        Some(Neighbour::At(answer)) if answer == vap.mac.get() => stop(Reason::OwnAddress),
        Some(Neighbour::At(answer)) => Err(Stop::Answer(answer::advertisement(frame, answer))),
        _ if claim => Err(Stop::Punt(PuntReason::LinkLocalClaim)),
        Some(Neighbour::Nobody) => stop(Reason::Nobody),
        None => Err(Stop::Punt(PuntReason::NdMiss)),
    }
}

/// The answer to a frame larger than the tenant MTU, where RFC 1122 and RFC 4443 allow one.
fn too_big(vap: &Vap, frame: &[u8], l4: &L4) -> Option<Vec<u8>> {
    let first = |forbidden: &dyn Fn(u8) -> bool, proto| {
        l4.later || l4.proto != proto || frame.get(l4.off).is_some_and(|kind| !forbidden(*kind))
    };
    match ethertype(frame)? {
        IPV4 if !l4.later && first(&|kind| matches!(kind, 3 | 4 | 5 | 11 | 12), ICMP) => {
            answer::frag_needed(frame, vap.mtu)
        }
        IPV6 if first(&|kind| kind < 128 || kind == 137, ICMPV6) => answer::packet_too_big(frame, vap.mtu),
        _ => None,
    }
}

fn source(tables: &Tables, to: Rloc) -> Option<IpAddr> {
    tables.config.rlocs.iter().map(|r| r.get()).find(|r| r.is_ipv4() == to.get().is_ipv4())
}

/// The RLOC that flows go to. There is no hash of them here: all go where more of them do.
fn rloc_of(tables: &Tables, rloc: Rloc, other: u32) -> Rloc {
    let beside = tables.peers.get(&rloc.get()).and_then(|peer| peer.other);
    beside.filter(|_| other > 1 << 31).unwrap_or(rloc)
}

fn forward(
    tables: &Tables,
    learned: &Learned,
    vap: &Vap,
    device: IfIndex,
    frame: &[u8],
    l4: &L4,
    verdict: impl Fn(Action, Reason, Vec<Vec<u8>>) -> Verdict,
) -> Verdict {
    let drop = |reason| verdict(Action::Drop, reason, vec![]);
    let (routed, translated);
    let mut copies = None;
    let mut frame = frame;
    let mut gateway = None;
    if asks_anycast(tables, vap, frame) {
        match (inside(tables, vap, frame), missed(tables, vap.vni)) {
            (Ok(owner), _) => {
                routed = [&owner.0[..], &frame[6..]].concat();
                frame = &routed;
            }
            (Err(Stop::Drop(reason)), _) => return drop(reason),
            (Err(_), Missed::Held) => {
                return verdict(Action::Punt(PuntReason::Route), Reason::Punted, vec![]);
            }
            (Err(_), Missed::Dropped) => {
                return Verdict { also: Some(PuntReason::RouteSeen), ..drop(Reason::UnknownMac) };
            }
            (Err(_), Missed::Carried(rloc)) => gateway = Some((rloc, PuntReason::RouteSeen)),
        }
    }
    let dst = mac(frame, 0);
    let told = dst.and_then(|dst| tables.fdb.get(&(vap.vni, dst)).copied());
    let learns = floods(tables, vap.vni) || translates(tables, vap.vni);
    // A VN that learned from frames until its mode changed: what was learned is used while it is asked for.
    let seen = dst.filter(|_| told.is_none() || (learns && !matches!(told, Some(Location::Local(_)))));
    let seen = seen.and_then(|dst| learned.location(vap.vni, dst));
    let gone = dst.filter(|_| seen.or(told).is_none() && gateway.is_none());
    let gone = gone.and_then(|dst| tables.away.get(&(vap.vni, dst)));
    let gone = gone.map(|away| Location::Remote { rloc: away.rloc, epoch: away.epoch, other: 0 });
    let also = (seen.or(gone).is_some() && !learns).then_some(PuntReason::UnknownMac);
    if seen.or(told).or(gone).is_none() && !learns && gateway.is_none() {
        match missed(tables, vap.vni) {
            Missed::Held => {
                return verdict(Action::Punt(PuntReason::UnknownMacHeld), Reason::Punted, vec![]);
            }
            Missed::Dropped => {
                return Verdict { also: Some(PuntReason::UnknownMac), ..drop(Reason::UnknownMac) };
            }
            Missed::Carried(rloc) => gateway = Some((rloc, PuntReason::UnknownMac)),
        }
    }
    let carried = gateway.is_some();
    let also = gateway.map_or(also, |(_, reason)| Some(reason));
    let used = dst.filter(|_| seen.is_none() && told.is_some() && !carried);
    let gateway = gateway.map(|(rloc, _)| Location::Remote { rloc, epoch: Epoch::FIRST, other: 0 });
    let location = gateway.or(seen).or(told).or(gone);
    let ip = matches!(ethertype(frame), Some(IPV4 | IPV6));
    let path = if ip { vap.path } else { Path::Device };
    // A gateway takes what has few hops left for what another one has carried.
    let how = if carried { Tunnel { ttl: Ttl::default(), ..vap.tunnel } } else { vap.tunnel };
    let drop = |reason| Verdict { also, carried, ..drop(reason) };
    let (action, reason, out) = match location {
        None if floods(tables, vap.vni) => {
            let everywhere = replicate(tables, learned, vap.vni, device, true, frame);
            let action = everywhere.action;
            copies = Some(everywhere);
            (action, Reason::Replicated, Some(frame.to_vec()))
        }
        None => return verdict(Action::Punt(PuntReason::UnknownMac), Reason::Punted, vec![]),
        Some(Location::Nowhere) => return drop(Reason::Nowhere),
        Some(Location::Local(at)) if at == device => return drop(Reason::ToSelf),
        Some(Location::Local(at)) => match tables.vaps.get(&at) {
            Some(to) if to.vni == vap.vni && to.activated => {
                (Action::Deliver(at), Reason::Local, Some(frame.to_vec()))
            }
            Some(to) if to.vni == vap.vni => return drop(Reason::NotActivated),
            _ => return drop(Reason::NoSuchTs),
        },
        Some(Location::Remote { rloc, other, .. }) => {
            let rloc = rloc_of(tables, rloc, other);
            let Some(from) = source(tables, rloc) else { return drop(Reason::NoRloc) };
            if translates(tables, vap.vni) && frame.len() - ETH <= usize::from(vap.mtu) {
                match translate::outbound(frame, MacAddr::of_node(tables.config.node)) {
                    Ok(f) => translated = f,
                    Err(reason) => return drop(reason),
                }
                frame = &translated;
            }
            let out = match path {
                Path::Direct => tunnel::encapsulate(frame, vap.vni, from, rloc.get(), &how),
                Path::Device => Some(frame.to_vec()),
            };
            (Action::Tunnel { rloc, path }, Reason::Encapsulated, out)
        }
    };
    if frame.len() - ETH > usize::from(vap.mtu) {
        return match too_big(vap, frame, l4) {
            Some(answer) => Verdict { also, carried, ..verdict(Action::Reply, Reason::TooBig, vec![answer]) },
            None => drop(Reason::TooBig),
        };
    }
    let mut v = Verdict { used, also, carried, ..verdict(action, reason, out.into_iter().collect()) };
    if let (Action::Deliver(at), Reason::Local) = (action, reason)
        && let Some(to) = tables.vaps.get(&at)
    {
        v = v.unless_kept_out(policy::check(tables, learned, to, Toward::In, frame), frame.len());
    }
    if let Some(limited) = copies.take_if(|copies| copies.reason == Some(Reason::RateLimited)) {
        return Verdict { used, also, carried, ..limited };
    }
    if copies.is_none() && v.action != Action::Drop {
        let Some(lesson) = learned.meters.take(device, vap, Toward::Out, frame.len()) else {
            return Verdict { used, ..drop(Reason::RateLimited).after(v) };
        };
        v.lessons.extend(lesson);
        if let Action::Deliver(at) = v.action
            && let Some(to) = tables.vaps.get(&at)
        {
            v = v.unless_over_rate(learned, at, to, frame.len());
        }
    }
    match reason {
        Reason::Encapsulated => v.path = path,
        Reason::Replicated => v.path = Path::Device,
        _ => {}
    }
    if let Some(copies) = copies {
        v.kept_out = copies.kept_out;
        v.over_rate = copies.over_rate;
        v = v.after(copies);
    }
    v
}
