//! One frame to many.

use super::bytes::{ARP, ETH, ICMPV6, IPV4, IPV6, ethertype, ipv4, ipv6, take};
use super::vap::skip_extensions;
use super::{Action, Learned, Verdict, policy, translate};
use crate::{IfIndex, Path, Reason, Receivers, Tables, Toward};
use weft_model::{Bum, GroupIp, Learning, MacAddr, Rloc, Vni, Wanted};

pub(super) fn learning(tables: &Tables, vni: Vni) -> Learning {
    tables.vns.get(&vni).map_or_else(Learning::default, |vn| vn.learning)
}

pub(super) fn floods(tables: &Tables, vni: Vni) -> bool {
    learning(tables, vni) == Learning::Flood
}

pub(super) fn distributes(tables: &Tables, vni: Vni) -> bool {
    learning(tables, vni) == Learning::Distribute
}

pub(super) fn translates(tables: &Tables, vni: Vni) -> bool {
    learning(tables, vni) == Learning::Translate
}

pub(super) fn replicates(tables: &Tables, vni: Vni) -> bool {
    tables.vns.get(&vni).is_some_and(|vn| vn.bum == Bum::Replicate)
}

/// Whom a frame is for, if one has to ask for its group. None inside: nobody asked.
fn receivers<'a>(tables: &'a Tables, vni: Vni, frame: &[u8]) -> Option<Option<&'a Receivers>> {
    let to = match ethertype(frame)? {
        IPV4 => ipv4(frame, ETH + 16),
        IPV6 => ipv6(frame, ETH + 24),
        _ => None,
    };
    let group = GroupIp::new(to?).ok().filter(|_| replicates(tables, vni))?;
    let of = |wanted| tables.groups.get(&(vni, wanted));
    Some(of(Wanted::Group(group)).or_else(|| of(Wanted::All)))
}

/// How many get a copy; in `said` what policies say of that.
fn to_vaps(
    tables: &Tables,
    learned: &Learned,
    vni: Vni,
    except: Option<IfIndex>,
    whom: Option<&Receivers>,
    frame: &[u8],
    said: &mut Verdict,
) -> usize {
    let vaps = tables.vaps.iter().filter(|(at, vap)| vap.vni == vni && vap.activated && Some(**at) != except);
    let mut copies = 0;
    for (at, vap) in vaps.filter(|(at, _)| whom.is_none_or(|whom| whom.vaps.contains(at))) {
        if said.checked(policy::check_copy(tables, learned, vap, frame), frame.len()).is_some() {
            said.kept_out += 1;
            said.reason = Some(Reason::Denied);
            continue;
        }
        match learned.meters.take(*at, vap, Toward::In, frame.len()) {
            Some(lesson) => {
                said.lessons.extend(lesson);
                copies += 1;
            }
            None => {
                said.over_rate += 1;
                said.reason = Some(Reason::RateLimited);
            }
        }
    }
    copies
}

fn to_members(tables: &Tables, vni: Vni, whom: Option<&Receivers>) -> usize {
    let reached = |rloc: &&Rloc| {
        let v4 = rloc.get().is_ipv4();
        tables.config.rlocs.iter().any(|own| own.get().is_ipv4() == v4)
    };
    match whom {
        Some(whom) => whom.members.iter().filter(reached).count(),
        None => tables.vns.get(&vni).map_or(0, |vn| vn.members.iter().filter(reached).count()),
    }
}

fn verdict(copies: usize, reason: Reason, vni: Vni, frame: &[u8]) -> Verdict {
    let copies = u32::try_from(copies).unwrap_or(u32::MAX);
    let frames = vec![frame.to_vec()];
    let action = Action::Replicate { copies };
    Verdict { reason: Some(reason), vni: Some(vni), path: Path::Device, frames, ..Verdict::new(action) }
}

/// Out of a VAP: to the others here if `vaps`, and to the members.
pub(super) fn replicate(
    tables: &Tables,
    learned: &Learned,
    vni: Vni,
    from: IfIndex,
    vaps: bool,
    frame: &[u8],
) -> Verdict {
    replicate_to(tables, learned, vni, from, (vaps, false), None, frame)
}

/// Out of a VAP in a VN that translates, what it says of its own address: to all.
pub(super) fn announce(tables: &Tables, learned: &Learned, vni: Vni, from: IfIndex, frame: &[u8]) -> Verdict {
    replicate_to(tables, learned, vni, from, (true, true), None, frame)
}

/// Out of a VAP, for a group: of all these to those that asked, if one has to ask for it.
pub(super) fn multicast(
    tables: &Tables,
    learned: &Learned,
    vni: Vni,
    from: IfIndex,
    frame: &[u8],
) -> Verdict {
    let whom = receivers(tables, vni, frame);
    let alone = |whom: &Receivers| whom.members.is_empty() && whom.vaps.iter().eq([&from]);
    match whom {
        Some(whom) if whom.is_none_or(alone) => {
            let (reason, vni) = (Some(Reason::NoReceiver), Some(vni));
            Verdict { reason, vni, path: Path::Device, ..Verdict::new(Action::Drop) }
        }
        whom => replicate_to(tables, learned, vni, from, (true, false), whom.flatten(), frame),
    }
}

fn replicate_to(
    tables: &Tables,
    learned: &Learned,
    vni: Vni,
    from: IfIndex,
    (vaps, says): (bool, bool),
    whom: Option<&Receivers>,
    frame: &[u8],
) -> Verdict {
    let mut said = Verdict::new(Action::Drop);
    match tables.vaps.get(&from).map(|vap| learned.meters.take(from, vap, Toward::Out, frame.len())) {
        Some(None) => {
            let (reason, vni) = (Some(Reason::RateLimited), Some(vni));
            return Verdict { reason, vni, path: Path::Device, ..said };
        }
        taken => said.lessons.extend(taken.flatten().flatten()),
    }
    let here = if vaps { to_vaps(tables, learned, vni, Some(from), whom, frame, &mut said) } else { 0 };
    let mut frame = frame.to_vec();
    if translates(tables, vni) {
        let node = MacAddr::of_node(tables.config.node);
        frame[6..12].copy_from_slice(&node.0);
        if says {
            frame = translate::outbound(&frame, node).unwrap_or(frame);
        }
    }
    let (kept_out, over_rate) = (said.kept_out, said.over_rate);
    let copies = here + to_members(tables, vni, whom);
    Verdict { kept_out, over_rate, ..verdict(copies, Reason::Replicated, vni, &frame).after(said) }
}

/// From a member: to the VAPs here.
pub(super) fn spread(tables: &Tables, learned: &Learned, vni: Vni, frame: &[u8]) -> Result<Verdict, Reason> {
    let whom = receivers(tables, vni, frame);
    let mut said = Verdict::new(Action::Drop);
    let none = whom == Some(None);
    let copies = if none { 0 } else { to_vaps(tables, learned, vni, None, whom.flatten(), frame, &mut said) };
    let (kept_out, over_rate) = (said.kept_out, said.over_rate);
    match copies {
        // Counted each; the last of them is what it is said to be.
        0 if said.reason.is_some() => {
            let (reason, vni, path) = (said.reason, Some(vni), Path::Device);
            Ok(Verdict { reason, vni, path, kept_out, over_rate, ..Verdict::new(Action::Drop).after(said) })
        }
        0 if whom.is_some() => Err(Reason::NoReceiver),
        0 => Err(Reason::NoSuchTs),
        copies => {
            Ok(Verdict { kept_out, over_rate, ..verdict(copies, Reason::Delivered, vni, frame).after(said) })
        }
    }
}

/// Which message of Router or Neighbor Discovery it is, if one; none inside: so hidden that it may be one.
fn nd_type(frame: &[u8]) -> Option<Option<u8>> {
    let read = || {
        let header: [u8; 40] = take(frame, ETH)?;
        let packet = frame.get(..ETH + 40 + usize::from(u16::from_be_bytes([header[4], header[5]])))?;
        let l4 = skip_extensions(packet, header[6])?;
        if l4.later || l4.proto != ICMPV6 {
            return Some(None);
        }
        let [kind, ..] = take::<4>(packet, l4.off)?;
        Some(matches!(kind, 133..=137).then_some(Some(kind).filter(|_| l4.direct)))
    };
    read().unwrap_or(Some(None))
}

/// To whom a member's frame for a group may come in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Lets {
    Nobody,
    All,
    /// Whoever is asked.
    Owner,
}

/// Once more when it is `stripped`.
pub(super) fn lets_in(tables: &Tables, vni: Vni, frame: &[u8], stripped: bool) -> Lets {
    if floods(tables, vni) {
        return Lets::All;
    }
    let asks = translates(tables, vni);
    let by_bum = if replicates(tables, vni) { Lets::All } else { Lets::Nobody };
    match ethertype(frame) {
        Some(ARP) if asks => Lets::Owner,
        Some(ARP) => Lets::Nobody,
        Some(IPV6) if !stripped && asks => Lets::All,
        Some(IPV6) if stripped => match nd_type(frame) {
            None => by_bum,
            Some(Some(135 | 136)) if asks => Lets::Owner,
            Some(_) => Lets::Nobody,
        },
        _ => by_bum,
    }
}
