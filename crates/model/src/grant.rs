//! Grants: who may hold a tenant system. Durable, unlike locations.

use crate::{Epoch, GroupName, TenantIp, TsMac, TsiName, TunnelPolicy, Vni, XtrId};
use core::fmt;
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;

/// The identity of a tenant system interface: unique in the whole fabric.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct TsiId {
    /// The virtual network.
    pub vni: Vni,
    /// The name in it.
    pub name: TsiName,
}

/// The NVE a tenant system is moving to: named before the gap, owner after it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Successor {
    /// The NVE.
    pub nve: XtrId,
    /// Higher than the owner's epoch.
    pub epoch: Epoch,
}

/// The durable right of one NVE to hold one tenant system interface with these addresses.
///
/// A registration counts only from `owner` or from `next`; of two, the higher epoch wins.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Grant {
    /// The interface.
    pub tsi: TsiId,
    /// Its MAC address, unique in the VN.
    pub mac: TsMac,
    /// Its IP addresses, each unique in the VN.
    pub ips: BTreeSet<TenantIp>,
    /// Its security groups; its VN's default ones when it names none.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub groups: BTreeSet<GroupName>,
    /// How its frames cross the underlay; where it says nothing, as its VN's.
    #[serde(default, skip_serializing_if = "TunnelPolicy::is_empty")]
    pub tunnel: TunnelPolicy,
    /// The NVE that may register it.
    pub owner: XtrId,
    /// The owner's epoch.
    pub epoch: Epoch,
    /// The NVE it is moving to, if it is moving.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<Successor>,
}

/// Why an NVE's claim does not count.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum GrantError {
    /// Another NVE holds it.
    #[error("{tsi} is granted to NVE {owner} (epoch {epoch}), not to {claimant}")]
    HeldBy {
        /// The interface.
        tsi: TsiId,
        /// Who holds it.
        owner: XtrId,
        /// At which epoch.
        epoch: Epoch,
        /// Who claimed it.
        claimant: XtrId,
    },
}

impl Grant {
    /// The highest epoch that it names.
    #[must_use]
    pub fn highest_epoch(&self) -> Epoch {
        self.next.map_or(self.epoch, |next| next.epoch.max(self.epoch))
    }

    /// The epoch at which `claimant` may register, the higher one if it is owner and successor.
    ///
    /// # Errors
    /// [`GrantError::HeldBy`] when it is neither.
    pub fn epoch_of(&self, claimant: XtrId) -> Result<Epoch, GrantError> {
        match self.next {
            Some(next) if next.nve == claimant => Ok(next.epoch),
            _ if self.owner == claimant => Ok(self.epoch),
            _ => Err(GrantError::HeldBy {
                tsi: self.tsi.clone(),
                owner: self.owner,
                epoch: self.epoch,
                claimant,
            }),
        }
    }
}

impl fmt::Display for TsiId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.vni, self.name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn grant() -> Grant {
        Grant {
            tsi: TsiId { vni: Vni::new(7).unwrap(), name: TsiName::new("web1").unwrap() },
            mac: TsMac::local(1),
            ips: BTreeSet::from(["10.0.0.1".parse().unwrap(), "fd00::1".parse().unwrap()]),
            groups: BTreeSet::new(),
            tunnel: TunnelPolicy::default(),
            owner: XtrId([1; 16]),
            epoch: Epoch::FIRST,
            next: None,
        }
    }

    #[test]
    fn owner_and_successor_count_and_nobody_else() {
        let mut g = grant();
        assert_eq!(g.epoch_of(XtrId([1; 16])), Ok(Epoch::FIRST));
        assert!(
            matches!(g.epoch_of(XtrId([2; 16])), Err(GrantError::HeldBy { owner, .. }) if owner == XtrId([1; 16]))
        );
        g.next = Some(Successor { nve: XtrId([2; 16]), epoch: g.epoch.next() });
        assert_eq!(g.epoch_of(XtrId([2; 16])).unwrap().get(), 2);
        assert_eq!(g.epoch_of(XtrId([1; 16])), Ok(Epoch::FIRST));
    }

    #[test]
    fn json_round_trip() {
        let text = serde_json::to_string(&grant()).unwrap();
        assert_eq!(serde_json::from_str::<Grant>(&text).unwrap(), grant());
    }
}
