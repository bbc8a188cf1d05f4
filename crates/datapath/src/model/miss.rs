//! What becomes of a frame whose destination no table holds.

use crate::Tables;
use weft_model::{Learning, Miss, Rloc, Vni};

/// What a VN's settings come to.
pub(super) enum Missed {
    /// The agent holds it.
    Held,
    /// The agent is told, and it is dropped.
    Dropped,
    /// The agent is told, and it goes to the gateway.
    Carried(Rloc),
}

pub(super) fn missed(tables: &Tables, vni: Vni) -> Missed {
    match tables.vns.get(&vni).map(|vn| (vn.miss, vn.gateway)) {
        Some((Miss::Drop, _)) => Missed::Dropped,
        Some((Miss::Gateway, Some(rloc))) => Missed::Carried(rloc),
        _ => Missed::Held,
    }
}

/// Whether this NVE is the VN's gateway. Not where frames for anybody come to everybody, or NVEs stand for their
/// tenant systems.
pub(super) fn carries(tables: &Tables, vni: Vni) -> bool {
    let asks = |learning| matches!(learning, Learning::Oracle | Learning::Distribute);
    tables.vns.get(&vni).is_some_and(|vn| vn.carries && asks(vn.learning))
}
