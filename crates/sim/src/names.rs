//! Who is who: the addresses and names of everything in the data centre.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use weft_model::{
    Bum, Eid, Learning, MacAddr, Name, NveName, Reply, Rloc, Subnets, TenantIp, VnName, VnSpec, Vni, XtrId,
};
use weft_oracle::core::NveFact;

/// UDP port of the LISP control plane.
pub(crate) const PORT: u16 = 4342;

pub(crate) fn flat(eid: weft_lisp::Eid) -> Option<(Vni, Eid)> {
    let vni = Vni::new(eid.iid()).ok()?;
    Some(match eid.addr() {
        weft_lisp::EidAddr::Mac(mac) => (vni, Eid::Mac(MacAddr(mac))),
        weft_lisp::EidAddr::Ipv4(ip) => (vni, Eid::Ip(TenantIp::new(ip.into()).ok()?)),
        weft_lisp::EidAddr::Ipv6(ip) => (vni, Eid::Ip(TenantIp::new(ip.into()).ok()?)),
    })
}

pub(crate) fn name(text: String) -> VnName {
    // Letters, digits and a dash.
    Name::new(text).unwrap_or_else(|_| unreachable!())
}

pub(crate) fn vn_name(n: u32) -> VnName {
    name(format!("vn{n}"))
}

pub(crate) fn vn_spec(n: u32, learning: Learning, reply: Reply, bum: Bum) -> Option<VnSpec> {
    let nets = ["10.0.0.0/8", "fd00::/64"].iter().filter_map(|net| net.parse().ok()).collect();
    let (vni, subnets) = (Vni::new(n).ok()?, Subnets::new(nets).ok()?);
    let (storm, miss) = Default::default();
    let name = vn_name(n);
    Some(VnSpec {
        name,
        vni,
        subnets,
        learning,
        reply,
        bum,
        storm,
        miss,
        gateway: None,
        default_groups: Default::default(),
        log_refused: false,
        tunnel: Default::default(),
    })
}

pub(crate) fn xtr_id(n: usize) -> XtrId {
    XtrId((u128::try_from(n).unwrap_or(0) + 1).to_be_bytes())
}

pub(crate) fn nve_of(id: XtrId) -> usize {
    usize::try_from(u128::from_be_bytes(id.0)).unwrap_or(0).saturating_sub(1)
}

pub(crate) fn rlocs(n: usize) -> (Ipv4Addr, Ipv6Addr) {
    let n = u32::try_from(n).unwrap_or(0) + 1;
    let v4 = Ipv4Addr::from(u32::from(Ipv4Addr::new(172, 16, 0, 0)) + n);
    (v4, Ipv6Addr::from(u128::from(Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 0)) + u128::from(n)))
}

pub(crate) fn nve_fact(n: usize) -> NveFact {
    let (v4, v6) = rlocs(n);
    let name: NveName = name(format!("host{n}"));
    let rlocs = [IpAddr::V4(v4), IpAddr::V6(v6)].into_iter().flat_map(Rloc::new).collect();
    NveFact { xtr_id: xtr_id(n), name, rlocs }
}

/// Oracles are asked over IPv4 and IPv6 in turn.
pub(crate) fn oracle_addr(o: usize) -> SocketAddr {
    let o16 = u16::try_from(o).unwrap_or(0);
    let ip = if o.is_multiple_of(2) {
        IpAddr::V4(Ipv4Addr::from(u32::from(Ipv4Addr::new(192, 0, 2, 1)) + u32::from(o16)))
    } else {
        IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0xffff, 0, 0, 0, 0, o16 + 1))
    };
    SocketAddr::new(ip, PORT)
}
