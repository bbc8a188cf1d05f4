//! Access policy: security groups of a VN, and the rules that say who may talk to their tenant systems.
//!
//! A rule allows; what no rule of a tenant system's groups allows is refused. Of a connection only the first packet is
//! looked at: what answers it passes.

mod group;
mod peer;
mod protocol;
mod rule;
mod text;

pub use group::{GroupLimits, RuleTwice, SecurityGroup};
pub use peer::{Family, Peer, PeerError};
pub use protocol::{IcmpType, PortRange, Protocol, ProtocolError};
pub use rule::{Description, DescriptionError, Rule, RuleError, RuleFields, Toward};
pub use text::RuleTextError;

/// The name of a security group, unique in its VN.
pub type GroupName = crate::Name;
