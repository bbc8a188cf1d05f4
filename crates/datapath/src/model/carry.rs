//! The gateway of a VN: what another NVE did not know the way of is carried on. That it is carried once only is
//! no function of tables and frame: the outer TTL says so. What it does not know either waits with the agent.

use super::bytes::{IPV4, IPV6, ethertype, ipv4, ipv6, mac};
use super::members::distributes;
use super::{Action, Verdict};
use crate::{Location, Neighbour, Path, PuntReason, Reason, Tables};
use core::net::IpAddr;
use weft_model::{MacAddr, TenantIp, Vni};

/// Decides about a stripped frame that the NVE at `from` sent for somebody who is not here; a drop's reason, and
/// why the agent is told.
pub(super) fn decide(
    tables: &Tables,
    vni: Vni,
    from: IpAddr,
    frame: &[u8],
) -> Result<Verdict, (Reason, Option<PuntReason>)> {
    let unknown = || Verdict {
        reason: Some(Reason::Punted),
        vni: tables.vaps.values().any(|vap| vap.vni == vni).then_some(vni),
        path: Path::Device,
        ..Verdict::new(Action::Punt(PuntReason::Carried))
    };
    let mut frame = frame.to_vec();
    if mac(&frame, 0) == Some(MacAddr::anycast(vni)) && distributes(tables, vni) {
        let Some(owner) = owner(tables, vni, &frame)? else { return Ok(unknown()) };
        frame[..6].copy_from_slice(&owner.0);
    }
    let at = mac(&frame, 0).and_then(|dst| tables.fdb.get(&(vni, dst)));
    let node = |ip: IpAddr| tables.peers.get(&ip).map(|peer| peer.node);
    match at {
        Some(Location::Local(device)) => match tables.vaps.get(device).filter(|vap| vap.vni == vni) {
            Some(vap) if vap.activated => Ok(Verdict {
                reason: Some(Reason::Delivered),
                vni: Some(vni),
                path: Path::Device,
                frames: vec![frame],
                ..Verdict::new(Action::Deliver(*device))
            }),
            Some(_) => Err((Reason::NotActivated, None)),
            None => Err((Reason::NoSuchTs, None)),
        },
        None => Ok(unknown()),
        Some(Location::Nowhere) => Err((Reason::Nowhere, None)),
        Some(Location::Remote { rloc, .. })
            if rloc.get() != from && node(rloc.get()).is_none_or(|other| node(from) != Some(other)) =>
        {
            let reached = tables.config.rlocs.iter().any(|own| own.get().is_ipv4() == rloc.get().is_ipv4());
            if !reached {
                return Err((Reason::NoRloc, None));
            }
            Ok(Verdict {
                reason: Some(Reason::ByGateway),
                vni: Some(vni),
                path: Path::Device,
                used: mac(&frame, 0),
                frames: vec![frame],
                ..Verdict::new(Action::Tunnel { rloc: *rloc, path: Path::Device })
            })
        }
        Some(Location::Remote { .. }) => Err((Reason::NoSuchTs, Some(PuntReason::NoSuchTs))),
    }
}

/// Whose a frame is that was to be routed; none if nobody knows.
fn owner(tables: &Tables, vni: Vni, frame: &[u8]) -> Result<Option<MacAddr>, (Reason, Option<PuntReason>)> {
    let dst = match ethertype(frame) {
        Some(IPV4) => ipv4(frame, 30),
        Some(IPV6) => ipv6(frame, 38),
        _ => return Err((Reason::UnknownMac, None)),
    };
    let dst = dst.ok_or((Reason::Malformed, None))?;
    match TenantIp::new(dst).ok().and_then(|ip| tables.neighbours.get(&(vni, ip))) {
        Some(Neighbour::At(mac)) => Ok(Some(*mac)),
        Some(Neighbour::Nobody) => Err((Reason::Nobody, None)),
        None => Ok(None),
    }
}
