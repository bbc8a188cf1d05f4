//! One frame to many.

use super::bytes::{ARP, ETH, ICMPV6, IPV6, ethertype, take};
use super::vap::skip_extensions;
use super::{Action, Verdict};
use crate::{IfIndex, Path, Reason, Tables};
use weft_model::{Bum, Learning, MacAddr, Vni};

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

fn to_vaps(tables: &Tables, vni: Vni, except: Option<IfIndex>) -> usize {
    let mut vaps = tables.vaps.iter();
    vaps.by_ref().filter(|(at, vap)| vap.vni == vni && vap.activated && Some(**at) != except).count()
}

fn to_members(tables: &Tables, vni: Vni) -> usize {
    let reached = |v4| tables.config.rlocs.iter().any(|own| own.get().is_ipv4() == v4);
    let members = tables.vns.get(&vni).into_iter().flat_map(|vn| &vn.members);
    members.filter(|rloc| reached(rloc.get().is_ipv4())).count()
}

fn verdict(copies: usize, reason: Reason, vni: Vni, frame: &[u8]) -> Verdict {
    let copies = u32::try_from(copies).unwrap_or(u32::MAX);
    let frames = vec![frame.to_vec()];
    let action = Action::Replicate { copies };
    Verdict { reason: Some(reason), vni: Some(vni), path: Path::Device, frames, ..Verdict::new(action) }
}

/// Out of a VAP: to the others here if `vaps`, and to the members.
pub(super) fn replicate(tables: &Tables, vni: Vni, from: IfIndex, vaps: bool, frame: &[u8]) -> Verdict {
    let here = if vaps { to_vaps(tables, vni, Some(from)) } else { 0 };
    let mut frame = frame.to_vec();
    if translates(tables, vni) {
        frame[6..12].copy_from_slice(&MacAddr::of_node(tables.config.node).0);
    }
    verdict(here + to_members(tables, vni), Reason::Replicated, vni, &frame)
}

/// From a member: to the VAPs here.
pub(super) fn spread(tables: &Tables, vni: Vni, frame: &[u8]) -> Result<Verdict, Reason> {
    match to_vaps(tables, vni, None) {
        0 => Err(Reason::NoSuchTs),
        copies => Ok(verdict(copies, Reason::Delivered, vni, frame)),
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
            Some(Some(135)) if asks => Lets::Owner,
            Some(_) => Lets::Nobody,
        },
        _ => by_bum,
    }
}
