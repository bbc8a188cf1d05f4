//! Routing inside a subnet.

use super::bytes::{IPV4, IPV6, ethertype, ipv4, ipv6};
use super::vap::{Stop, neighbour};
use crate::{Neighbour, PuntReason, Reason, Tables, Vap};
use core::net::IpAddr;
use weft_model::MacAddr;

/// Whose a frame is that came to the MAC address of all NVEs, by its IP destination; [`Stop::Punt`] if nobody
/// knows.
pub(super) fn inside(tables: &Tables, vap: &Vap, frame: &[u8]) -> Result<MacAddr, Stop> {
    let dst = match ethertype(frame) {
        Some(IPV4) => ipv4(frame, 30),
        Some(IPV6) => ipv6(frame, 38),
        _ => return Err(Stop::Drop(Reason::UnknownMac)),
    };
    let dst = dst.ok_or(Stop::Drop(Reason::Malformed))?;
    let group = match dst {
        IpAddr::V4(v4) => v4.octets()[0] >= 224,
        IpAddr::V6(v6) => v6.is_multicast(),
    };
    if group || dst.is_unspecified() {
        return Err(Stop::Drop(Reason::UnknownMac));
    }
    match neighbour(tables, vap, dst) {
        Some(Neighbour::Nobody) => Err(Stop::Drop(Reason::Nobody)),
        Some(Neighbour::At(mac)) if tables.fdb.contains_key(&(vap.vni, mac)) => Ok(mac),
        _ => Err(Stop::Punt(PuntReason::Route)),
    }
}

#[cfg(test)]
mod tests {
    use crate::{Datapath as _, IfIndex, Location, Model, Neighbour, Op, Path, Reason, Vap, VapKind, Vn};
    use core::time::Duration;
    use weft_model::{Learning, MacAddr, TsMac, Vni};

    #[test]
    fn the_owners_location_is_what_is_used() {
        let vni = Vni::new(7001).unwrap();
        let ts = |n| TsMac::new(MacAddr([2, 0, 0, 0, 0, n])).unwrap();
        let mut model = Model::new();
        for n in 1..3 {
            let vap = Vap {
                vni,
                mac: ts(n),
                ips: [format!("10.0.0.{n}").parse().unwrap()].into(),
                kind: VapKind::Veth,
                path: Path::Direct,
                mtu: 1450,
                activated: true,
                waits: false,
                previous: None,
                policy: None,
                tunnel: Default::default(),
            };
            let at = IfIndex(n.into());
            model.apply(&Op::SetVap(at, vap)).unwrap();
            model.apply(&Op::SetLocation(vni, ts(n).get(), Location::Local(at))).unwrap();
        }
        model.apply(&Op::SetVn(vni, Vn { learning: Learning::Distribute, ..Vn::default() })).unwrap();
        let mut frame = [&MacAddr::anycast(vni).0[..], &ts(1).octets(), &[8, 0, 0x45, 0, 0, 20]].concat();
        frame.extend([0, 0, 0, 0, 64, 59, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2]);
        assert_eq!(model.resend(IfIndex(1), &frame).unwrap(), Reason::Punted);
        assert_eq!(model.last_used(vni, ts(2).get()).unwrap(), None);
        let owner = Op::SetNeighbour(vni, "10.0.0.2".parse().unwrap(), Neighbour::At(ts(2).get()));
        model.apply(&owner).unwrap();
        assert_eq!(model.resend(IfIndex(1), &frame).unwrap(), Reason::Local);
        assert_eq!(model.last_used(vni, ts(2).get()).unwrap(), Some(Duration::ZERO));
        assert_eq!(model.take_resent().len(), 2);
    }
}
