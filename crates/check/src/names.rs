//! Who is who: two NVEs and an Oracle; red, in which web moves and db stays at the first; blue, in which spy has the
//! addresses of web.

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};

use weft_datapath::{IfIndex, Path, VapKind};
use weft_model::{
    BootId, Name, NveName, Rloc, Subnets, TenantIp, Time, TsMac, TsiId, TsiName, VnName, VnSpec, Vni, XtrId,
};
use weft_nve::core::{Config, Device, Limits, OracleAddr, Timing};
use weft_oracle::core::NveFact;

/// Of tenants and underlay.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Family {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

/// NVEs.
pub const NVES: usize = 2;
/// When the model begins.
pub const BEGIN: Time = Time::from_secs(1_000);
const PORT: u16 = 4342;

fn name(text: &str) -> Name {
    // Letters and digits.
    Name::new(text).unwrap_or_else(|_| unreachable!())
}

fn vni(n: u32) -> Vni {
    Vni::new(n).unwrap_or_else(|_| unreachable!())
}

pub fn red() -> VnName {
    name("red")
}

pub fn blue() -> VnName {
    name("blue")
}

pub fn web() -> TsiId {
    TsiId { vni: vni(1), name: name("web") }
}

pub fn db() -> TsiId {
    TsiId { vni: vni(1), name: name("db") }
}

pub fn spy() -> TsiId {
    TsiId { vni: vni(2), name: name("spy") }
}

/// The MAC address of web and of spy.
pub fn mac() -> TsMac {
    TsMac::local(7)
}

/// The IP address of web and of spy.
pub fn ip(family: Family) -> TenantIp {
    let ip = match family {
        Family::V4 => IpAddr::from([10, 0, 0, 7]),
        Family::V6 => IpAddr::from([0xfd00, 0, 0, 0, 0, 0, 0, 7]),
    };
    TenantIp::new(ip).unwrap_or_else(|_| unreachable!())
}

pub fn vns(family: Family) -> [VnSpec; 2] {
    let net = match family {
        Family::V4 => "10.0.0.0/24",
        Family::V6 => "fd00::/64",
    };
    [(red(), 1), (blue(), 2)].map(|(name, n)| VnSpec {
        name,
        vni: vni(n),
        subnets: Subnets::new(net.parse().into_iter().collect()).unwrap_or_else(|_| unreachable!()),
        learning: Default::default(),
        reply: Default::default(),
        bum: Default::default(),
        storm: Default::default(),
        miss: Default::default(),
        gateway: None,
        default_groups: Default::default(),
        log_refused: false,
        tunnel: Default::default(),
    })
}

pub fn xtr(nve: usize) -> XtrId {
    XtrId([u8::try_from(nve + 1).unwrap_or(u8::MAX); 16])
}

pub fn nve_of(id: XtrId) -> usize {
    usize::from(id.0[0]).saturating_sub(1)
}

pub fn nve_name(nve: usize) -> NveName {
    name(if nve == 0 { "h1" } else { "h2" })
}

fn underlay(family: Family, n: u16) -> IpAddr {
    match family {
        Family::V4 => IpAddr::from([192, 0, 2, u8::try_from(n).unwrap_or(u8::MAX)]),
        Family::V6 => IpAddr::from([0x2001, 0xdb8, 0, 0, 0, 0, 0, n]),
    }
}

pub fn rloc(family: Family, nve: usize) -> Rloc {
    Rloc::new(underlay(family, u16::try_from(nve).unwrap_or(0) + 1)).unwrap_or_else(|_| unreachable!())
}

pub fn oracle(family: Family) -> SocketAddr {
    SocketAddr::new(underlay(family, 250), PORT)
}

/// The NVE with this address.
pub fn at(family: Family, ip: IpAddr) -> Option<usize> {
    (0..NVES).find(|nve| rloc(family, *nve).get() == ip)
}

pub fn nve_fact(family: Family, nve: usize) -> NveFact {
    NveFact { xtr_id: xtr(nve), name: nve_name(nve), rlocs: vec![rloc(family, nve)] }
}

/// The device of a tenant system at an NVE.
pub fn device(tsi: &TsiName, nve: usize) -> Device {
    let n = match tsi.as_str() {
        "web" => 10,
        "db" => 20,
        _ => 30,
    };
    let index = IfIndex(n + u32::try_from(nve).unwrap_or(0));
    Device { name: format!("{tsi}{nve}"), index, kind: VapKind::Tap }
}

/// All devices of a host.
pub fn devices(nve: usize) -> Vec<Device> {
    let there = if nve == 0 { vec![web(), db()] } else { vec![web(), spy()] };
    there.iter().map(|tsi| device(&tsi.name, nve)).collect()
}

pub fn config(family: Family, nve: usize, boot: u64) -> Config {
    Config {
        xtr_id: xtr(nve),
        boot: BootId(boot),
        rlocs: BTreeSet::from([rloc(family, nve)]),
        uplinks: BTreeSet::from([IfIndex(1)]),
        oracles: vec![OracleAddr { resolver: oracle(family) }],
        lisp_port: PORT,
        tenant_mtu: 1450,
        veth_path: Path::Direct,
        tap_path: Path::Device,
        seed: 1 + u64::try_from(nve).unwrap_or(0),
        limits: Limits::default(),
        timing: Timing::default(),
    }
}

/// Where datagrams of an NVE come from.
pub fn source(family: Family, nve: usize) -> SocketAddr {
    SocketAddr::new(rloc(family, nve).get(), PORT)
}

/// As the watch of NVEs says.
pub fn know_nves(core: &mut weft_nve::core::Core, family: Family) {
    for nve in 0..NVES {
        core.handle_fact(weft_nve::core::Fact::Nve(xtr(nve), BTreeSet::from([rloc(family, nve)])));
    }
}
