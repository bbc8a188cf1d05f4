//! Virtual networks.

use super::TunnelChange;
use serde::{Deserialize, Deserializer, Serialize};
use std::collections::BTreeSet;
use weft_model::{
    Bum, GroupName, Learning, Miss, NveName, Reply, Storm, Subnets, TunnelPolicy, VnName, VnSpec, Vni, XtrId,
};

/// That an NVE is connected to a virtual network (RFC 8394 section 3.1), with tenant systems in it or without.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct VnConnection {
    /// The virtual network.
    pub vn: VnName,
    /// Its VNID.
    pub vni: Vni,
    /// The NVE.
    pub nve: NveName,
    /// Its xTR-ID.
    pub xtr_id: XtrId,
}

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
    /// How much of that one VAP may send.
    #[serde(default)]
    pub storm: Storm,
    /// What becomes of a frame whose destination is being asked for.
    #[serde(default)]
    pub miss: Miss,
    /// The NVE that carries such frames where they are not to wait.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gateway: Option<NveName>,
}

/// What is to change of a virtual network; what is absent stays. Tenant systems in it keep their connections.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
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
    /// Frames a second of that, of one VAP; at least 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub storm_rate: Option<u32>,
    /// How many of them at once; at least 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub storm_burst: Option<u32>,
    /// What becomes of a frame whose destination is being asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub miss: Option<Miss>,
    /// The NVE that carries such frames where they are not to wait; `null`: none any more.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "given")]
    #[schema(value_type = Option<NveName>)]
    pub gateway: Option<Option<NveName>>,
    /// The security groups of tenant systems that name none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Vec<String>>)]
    pub default_groups: Option<BTreeSet<GroupName>>,
    /// Whether what access policy refuses is logged.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub log_refused: Option<bool>,
    /// How its tenant systems' frames cross the underlay, where they say nothing themselves.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tunnel: Option<TunnelChange>,
}

/// What is there, `null` too.
pub(super) fn given<'de, D: Deserializer<'de>, T: Deserialize<'de>>(
    value: D,
) -> Result<Option<Option<T>>, D::Error> {
    Option::deserialize(value).map(Some)
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
    /// How much of that one VAP may send.
    #[serde(default)]
    pub storm: Storm,
    /// What becomes of a frame whose destination is being asked for.
    #[serde(default)]
    pub miss: Miss,
    /// The NVE that carries such frames where they are not to wait.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gateway: Option<NveName>,
    /// The security groups of tenant systems that name none. Who has none at all may do everything.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    #[schema(value_type = Vec<String>)]
    pub default_groups: BTreeSet<GroupName>,
    /// Whether what access policy refuses is logged.
    #[serde(default, skip_serializing_if = "core::ops::Not::not")]
    pub log_refused: bool,
    /// How its tenant systems' frames cross the underlay, where they say nothing themselves.
    #[serde(default, skip_serializing_if = "TunnelPolicy::is_empty")]
    pub tunnel: TunnelPolicy,
}

impl From<VnSpec> for Vn {
    fn from(spec: VnSpec) -> Self {
        let VnSpec { name, vni, subnets, learning, reply, bum, storm, miss, gateway, .. } = spec;
        let (default_groups, log_refused, tunnel) = (spec.default_groups, spec.log_refused, spec.tunnel);
        Self {
            name,
            vni,
            subnets,
            learning,
            reply,
            bum,
            storm,
            miss,
            gateway,
            default_groups,
            log_refused,
            tunnel,
        }
    }
}

impl From<Vn> for VnSpec {
    fn from(vn: Vn) -> Self {
        let Vn { name, vni, subnets, learning, reply, bum, storm, miss, gateway, .. } = vn;
        let (default_groups, log_refused, tunnel) = (vn.default_groups, vn.log_refused, vn.tunnel);
        Self {
            name,
            vni,
            subnets,
            learning,
            reply,
            bum,
            storm,
            miss,
            gateway,
            default_groups,
            log_refused,
            tunnel,
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::*;

    #[test]
    fn no_gateway_is_another_change_than_none() {
        let cases = [
            ("{}", None),
            (r#"{"gateway":null}"#, Some(None)),
            (r#"{"gateway":"h2"}"#, Some(Some("h2".parse().unwrap()))),
        ];
        for (text, gateway) in cases {
            let change = VnChange { gateway, ..VnChange::default() };
            assert_eq!(serde_json::from_str::<VnChange>(text).unwrap(), change);
            assert_eq!(serde_json::to_string(&change).unwrap(), text);
        }
        assert!(serde_json::from_str::<VnChange>(r#"{"gateway":""}"#).is_err());
    }
}
