//! Which shard has what: VNs, and the messages about them.

use std::collections::BTreeSet;

use weft_lisp::tcp::{Body, Frame, RefreshScope, Signal};
use weft_lisp::{Address, Ecm, MapNotify, MapRegister, MapRequest, MessageType};

use super::limits;

/// Which shard a VN belongs to.
#[must_use]
pub fn shard_of(vni: u32, shards: usize) -> usize {
    // Neighbouring VNIs spread evenly, and so do strided ones.
    let shards = u64::try_from(shards.max(1)).unwrap_or(1);
    usize::try_from(limits::mix(u64::from(vni)) % shards).unwrap_or(0)
}

/// The VNI that a frame is about, to find its shard by; `None` when it concerns all shards.
#[must_use]
pub fn peek_frame_vni(frame: &Frame<'_>) -> Option<u32> {
    match frame.body().ok()? {
        Body::Registration(registration) => iid(registration.register().records.first()?.eid),
        Body::Signal(
            Signal::VnDigest { vni, .. }
            | Signal::SubscribeMappings { vni, .. }
            | Signal::UnsubscribeMappings { vni },
        ) => Some(vni),
        Body::Membership(membership) => Some(membership.iid),
        Body::Group(group) => Some(group.vni),
        Body::RegistrationRefresh { scope: RefreshScope::Instance(prefix), .. } => iid(prefix.eid),
        _ => None,
    }
}

/// Whose a datagram is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Owner {
    /// It is about no VN, or is nothing: any shard may have it, to count it.
    Any,
    /// One shard's.
    One(usize),
    /// It is about VNs of all these, the lowest first. Each answers its own part of a Map-Request. A
    /// Map-Register counts as a whole: each must be asked by
    /// [`would_register`](super::Shard::would_register) before any is given it; the one that has the first
    /// record acknowledges it.
    Several(BTreeSet<usize>),
}

/// Whose of `shards` shards a datagram is. Allocates only for [`Owner::Several`].
#[must_use]
pub fn owner(datagram: &[u8], shards: usize) -> Owner {
    let owners = |eids: &mut dyn Iterator<Item = Address<'_>>| {
        let mut all = eids.filter_map(iid).map(|vni| shard_of(vni, shards));
        let Some(first) = all.next() else { return Owner::Any };
        let Some(other) = all.find(|shard| *shard != first) else { return Owner::One(first) };
        Owner::Several([first, other].into_iter().chain(all).collect())
    };
    let found = match MessageType::of(datagram) {
        Ok(MessageType::Ecm) => Ecm::decode(datagram)
            .and_then(|ecm| MapRequest::decode(ecm.message))
            .map(|request| owners(&mut request.records.iter().map(|record| record.eid))),
        Ok(MessageType::MapRegister) => MapRegister::decode(datagram)
            .map(|register| owners(&mut register.records.iter().map(|record| record.eid))),
        // What is acknowledged is about one VN, so that one shard has sent it.
        Ok(MessageType::MapNotifyAck) => {
            MapNotify::decode(datagram).map(|ack| owners(&mut ack.records.iter().take(1).map(|r| r.eid)))
        }
        Ok(_) => return Owner::Any,
        Err(e) => Err(e),
    };
    found.unwrap_or(Owner::Any)
}

/// The VN that an EID on the wire is in.
pub(crate) fn iid(eid: Address<'_>) -> Option<u32> {
    match eid {
        Address::InstanceId { iid, .. } => Some(iid),
        _ => None,
    }
}
