//! Virtual networks.

use serde::{Deserialize, Serialize};
use weft_model::{Bum, Learning, Reply, Subnets, VnName, VnSpec, Vni};

/// A request for a virtual network.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NewVn {
    /// Its name, unique at the Oracle.
    pub name: VnName,
    /// Its VNID; the Oracle chooses one when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub vni: Option<Vni>,
    /// Where its tenant systems' addresses come from.
    #[serde(default)]
    pub subnets: Subnets,
    /// How its NVEs learn.
    #[serde(default)]
    pub learning: Learning,
    /// Who answers Map-Requests.
    #[serde(default)]
    pub reply: Reply,
    /// What becomes of broadcast and multicast.
    #[serde(default)]
    pub bum: Bum,
}

/// What is to change of a virtual network; what is absent stays. Tenant systems in it keep their connections.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct VnChange {
    /// How its NVEs learn.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub learning: Option<Learning>,
    /// Who answers Map-Requests.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reply: Option<Reply>,
    /// What becomes of broadcast and multicast.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bum: Option<Bum>,
}

/// A virtual network.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Vn {
    /// Its name.
    pub name: VnName,
    /// Its VNID.
    pub vni: Vni,
    /// Where its tenant systems' addresses come from.
    #[serde(default)]
    pub subnets: Subnets,
    /// How its NVEs learn.
    #[serde(default)]
    pub learning: Learning,
    /// Who answers Map-Requests.
    #[serde(default)]
    pub reply: Reply,
    /// What becomes of broadcast and multicast.
    #[serde(default)]
    pub bum: Bum,
}

impl From<VnSpec> for Vn {
    fn from(spec: VnSpec) -> Self {
        let VnSpec { name, vni, subnets, learning, reply, bum } = spec;
        Self { name, vni, subnets, learning, reply, bum }
    }
}

impl From<Vn> for VnSpec {
    fn from(vn: Vn) -> Self {
        let Vn { name, vni, subnets, learning, reply, bum } = vn;
        Self { name, vni, subnets, learning, reply, bum }
    }
}
