//! Whether a frame that an NVE sent may come in, and to whom.

use super::bytes::{ethertype, is_vlan, mac};
use super::members::{Lets, floods, lets_in};
use super::miss::carries;
use super::{Lesson, translate};
use crate::{Away, IfIndex, Location, Path, Reason, Tables};
use core::{net::IpAddr, num::NonZeroU32};
use weft_model::{MacAddr, Rloc, Vni};

/// To whom.
pub(super) enum To {
    /// The tenant system at this VAP, which takes that path; its MAC address is put back if it is given.
    Vap(IfIndex, Path, Option<MacAddr>),
    /// All VAPs of the VN.
    All,
    /// Whoever is asked.
    Owner,
    /// That is seen when it is stripped.
    Later,
    /// Not for here any more: to the NVE that it went to.
    Away(Away),
    /// Not for here, but this NVE is the VN's gateway.
    Carry,
}

/// What is decided of a frame before it is stripped, or once more after.
pub(super) struct Admitted {
    pub(super) to: Result<To, Reason>,
    pub(super) moved: bool,
    /// What it says about IP addresses.
    pub(super) heard: Option<Lesson>,
    /// Where its source is, if that is learned.
    pub(super) source: Option<Lesson>,
}

impl Admitted {
    pub(super) fn lessons(&self) -> Vec<Lesson> {
        self.heard.into_iter().chain(self.source).collect()
    }
}

pub(super) fn admit(tables: &Tables, vni: Vni, from: IpAddr, frame: &[u8], stripped: bool) -> Admitted {
    let (mut moved, mut heard, mut learns) = (false, None, false);
    let to = decide(tables, vni, from, frame, stripped, (&mut moved, &mut heard, &mut learns));
    let source = mac(frame, 6).zip(Rloc::new(from).ok()).filter(|_| learns);
    let source = source.map(|(mac, rloc)| Lesson::Mac { vni, mac, rloc });
    Admitted { to, moved, heard, source }
}

fn decide(
    tables: &Tables,
    vni: Vni,
    from: IpAddr,
    frame: &[u8],
    stripped: bool,
    (moved, heard, learns): (&mut bool, &mut Option<Lesson>, &mut bool),
) -> Result<To, Reason> {
    let (Some(dst), Some(src), Some(proto)) = (mac(frame, 0), mac(frame, 6), ethertype(frame)) else {
        return Err(Reason::Malformed);
    };
    if is_vlan(proto) {
        return Err(Reason::VlanTagged);
    }
    let lets = if dst.is_group() { lets_in(tables, vni, frame, stripped) } else { Lets::All };
    if lets == Lets::Nobody {
        return Err(Reason::InnerGroup);
    }
    if src.is_group() {
        return Err(Reason::Malformed);
    }
    let node = |ip: IpAddr| tables.peers.get(&ip).map(|peer| peer.node);
    if translate::is_node(src) && Some(src) != node(from).map(MacAddr::of_node) {
        return Err(Reason::SpoofedMac);
    }
    let at = tables.fdb.get(&(vni, dst)).filter(|_| !dst.is_group());
    let vap = match at {
        Some(Location::Local(device)) => tables.vaps.get(device).map(|vap| (*device, vap)),
        _ => None,
    };
    let moved_here = vap.and_then(|(_, vap)| vap.previous).map(NonZeroU32::get);
    let redirected = moved_here.is_some() && moved_here == node(from);
    match tables.fdb.get(&(vni, src)) {
        Some(Location::Local(_)) => return Err(Reason::Fenced),
        Some(Location::Remote { rloc, .. }) => {
            *moved = rloc.get() != from
                && node(rloc.get()) != node(from)
                && !by_gateway(tables, vni, from)
                && !redirected;
        }
        _ => {}
    }
    let floods = floods(tables, vni);
    if dst.is_group() {
        *learns = stripped && (floods || lets == Lets::Owner && translate::is_node(src));
        return Ok(if lets == Lets::Owner { To::Owner } else { To::All });
    }
    if at.is_none() && dst == MacAddr::of_node(tables.config.node) {
        let restored = translate::inbound(tables, vni, frame, stripped);
        *heard = restored.lesson;
        let Some(to) = restored.to else { return Ok(To::Later) };
        *learns = floods || super::members::translates(tables, vni) && translate::is_node(src);
        let (device, owner) = to?;
        let path = tables.vaps.get(&device).map_or(Path::Device, |vap| vap.path);
        return Ok(To::Vap(device, path, Some(owner)));
    }
    match vap.filter(|(_, vap)| vap.vni == vni) {
        None if !matches!(at, Some(Location::Local(_))) && tables.away.contains_key(&(vni, dst)) => {
            *learns = floods;
            tables.away.get(&(vni, dst)).map_or(Err(Reason::NoSuchTs), |away| Ok(To::Away(*away)))
        }
        None if carries(tables, vni) => Ok(To::Carry),
        None => {
            *learns = floods;
            Err(Reason::NoSuchTs)
        }
        Some((_, vap)) if !vap.activated => Err(Reason::NotActivated),
        Some((device, vap)) => {
            *learns = floods && !redirected;
            Ok(To::Vap(device, vap.path, None))
        }
    }
}

/// Whether a frame came from the VN's gateway, which sends for others.
fn by_gateway(tables: &Tables, vni: Vni, from: IpAddr) -> bool {
    let gateway = tables.vns.get(&vni).and_then(|vn| vn.gateway).map(Rloc::get);
    let node = |ip: IpAddr| tables.peers.get(&ip).map(|peer| peer.node);
    gateway.and_then(node).is_some_and(|gateway| node(from) == Some(gateway))
}
