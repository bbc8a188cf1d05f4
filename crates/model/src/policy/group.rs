//! A security group.

use super::{GroupName, Peer, Rule};
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;

/// The rules of a group, as they were written; none of them twice.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "Vec<Rule>", into = "Vec<Rule>")]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema), schema(value_type = Vec<crate::Rule>))]
pub struct SecurityGroup(Vec<Rule>);

/// A rule that stands twice.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the rule '{}' stands twice, whatever is logged or written beside; leave one out", .0.bare())]
pub struct RuleTwice(pub Rule);

/// Bounds of access policy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GroupLimits {
    /// Rules of one group.
    pub rules: usize,
    /// Groups of one tenant system.
    pub per_tsi: usize,
    /// Groups of one VN.
    pub per_vn: usize,
}

impl Default for GroupLimits {
    fn default() -> Self {
        Self { rules: 10_000, per_tsi: 8, per_vn: 1_024 }
    }
}

impl SecurityGroup {
    /// Checks `rules`.
    ///
    /// # Errors
    /// [`RuleTwice`]: two allow the same.
    pub fn new(rules: Vec<Rule>) -> Result<Self, RuleTwice> {
        let mut seen = BTreeSet::new();
        match rules.iter().find(|rule| !seen.insert(rule.bare())) {
            Some(rule) => Err(RuleTwice(rule.clone())),
            None => Ok(Self(rules)),
        }
    }

    /// The rules.
    #[must_use]
    pub fn rules(&self) -> &[Rule] {
        &self.0
    }

    /// The groups that rules name.
    pub fn peers(&self) -> impl Iterator<Item = &GroupName> {
        self.0.iter().filter_map(|rule| match rule.peer() {
            Peer::Group(name) => Some(name),
            Peer::Anybody | Peer::Prefix(_) => None,
        })
    }
}

impl TryFrom<Vec<Rule>> for SecurityGroup {
    type Error = RuleTwice;
    fn try_from(rules: Vec<Rule>) -> Result<Self, RuleTwice> {
        Self::new(rules)
    }
}

impl From<SecurityGroup> for Vec<Rule> {
    fn from(group: SecurityGroup) -> Self {
        group.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_twice_is_refused_whatever_else_it_says() {
        let rules = |texts: &[&str]| texts.iter().map(|t| t.parse().unwrap()).collect::<Vec<Rule>>();
        let twice = SecurityGroup::new(rules(&["in tcp/80", "in tcp", "in tcp/80 log # again"])).unwrap_err();
        assert_eq!(twice.0.to_string(), "in tcp/80 from anybody log # again");
        let group = SecurityGroup::new(rules(&["in tcp/80", "in any from group:web"])).unwrap();
        assert_eq!(group.peers().map(crate::Name::as_str).collect::<Vec<_>>(), ["web"]);
        let json = serde_json::to_string(&group).unwrap();
        assert_eq!(serde_json::from_str::<SecurityGroup>(&json).unwrap(), group);
    }
}
