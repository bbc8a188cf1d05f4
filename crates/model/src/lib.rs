//! The vocabulary every part of Weft shares: identifiers that are legal by construction, and
//! the objects operators and protocols talk about.
//!
//! Nothing here does I/O or reads a clock. A value that exists is valid: constructors check, and
//! serde goes through the same constructors, so a bad file or request cannot become a value.
#![forbid(unsafe_code)]

mod addr;
pub mod digest;
mod grant;
mod ids;
mod mac;
mod mapping;
mod miss;
mod name;
pub mod policy;
mod time;
mod tunnel;
mod vn;
mod vni;
mod wanted;

pub use addr::{AddrError, GroupIp, Rloc, TenantIp};
pub use grant::{Grant, GrantError, Successor, TsiId};
pub use ids::{BootId, Epoch, IdError, SiteId, XtrId};
pub use ipnet::{IpNet, Ipv4Net, Ipv6Net};
pub use mac::{MacAddr, MacError, TsMac};
pub use mapping::{Eid, Origin};
pub use miss::{Miss, Storm, StormError};
pub use name::{Name, NameError, NveName, TsiName, VnName};
pub use policy::{GroupLimits, GroupName, Rule, SecurityGroup};
pub use time::Time;
pub use tunnel::{
    Burst, BurstError, Codepoint, Dscp, DscpError, NoFamilyLeft, PortsError, Rate, RateError, SourcePorts,
    Ttl, TtlError, TunnelPolicy,
};
pub use vn::{Bum, Learning, Reply, Subnets, SubnetsError, VnSpec};
pub use vni::{Vni, VniError};
pub use wanted::Wanted;
