//! Security groups: access policy.

use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use weft_model::{GroupName, SecurityGroup, TenantIp, TsiName, VnName, Vni};

/// A security group.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct GroupView {
    /// Its VN's name.
    pub vn: VnName,
    /// That VN's VNID.
    pub vni: Vni,
    /// Its name in it.
    pub name: GroupName,
    /// How often it was written, from 1 on.
    pub revision: u64,
    /// What its tenant systems may do; everything else is refused.
    pub rules: SecurityGroup,
}

/// A security group as it is to be.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct PutGroup {
    /// All its rules.
    pub rules: SecurityGroup,
    /// The revision that was changed: refused when somebody else has written it since. 0: only if there is none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub revision: Option<u64>,
}

/// The security groups of one tenant system as they are to be.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct SetGroups {
    /// All of them; none: its VN's default ones.
    #[schema(value_type = Vec<String>)]
    pub groups: BTreeSet<GroupName>,
}

/// What an NVE is told of access policy, of VNs with security groups in which it has a grant or to which it is connected.
///
/// A `vn` says that what follows up to the next bookmark, or in the same list, is all there is of that VN; deleted, that
/// nothing applies there any more.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(tag = "kind", rename_all = "lowercase")]
pub enum PolicyItem {
    /// All of a VN's policy follows.
    Vn {
        /// The VN.
        vni: Vni,
        /// The groups of its tenant systems that name none, as of what follows.
        #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
        #[schema(value_type = Vec<String>)]
        default_groups: BTreeSet<GroupName>,
    },
    /// A group's rules.
    Group {
        /// The VN.
        vni: Vni,
        /// The group.
        name: GroupName,
        /// Its rules.
        rules: SecurityGroup,
    },
    /// A tenant system, wherever it is, that is in a group.
    Member {
        /// The VN.
        vni: Vni,
        /// The tenant system.
        name: TsiName,
        /// Its addresses.
        #[schema(value_type = Vec<String>)]
        ips: BTreeSet<TenantIp>,
        /// The groups it names; none: the VN's default ones.
        #[schema(value_type = Vec<String>)]
        groups: BTreeSet<GroupName>,
    },
}
