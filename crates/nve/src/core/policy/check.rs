//! What holds of access policy whatever happened.

use crate::core::Core;
use std::collections::BTreeMap;
use weft_datapath::{ClassId, PolicyId};

impl Core {
    /// Every entry is somebody's, and every VAP in service has the policy that its groups are.
    pub(in crate::core) fn check_policies(&self) {
        let mut counts: BTreeMap<ClassId, usize> = BTreeMap::new();
        for ((vni, _), class) in &self.tables.classes {
            assert!(self.policies.vns[vni].classes.contains_key(class), "{class:?}");
            *counts.entry(*class).or_default() += 1;
        }
        let of = |(class, (_, count)): (&ClassId, &(_, usize))| (*class, *count);
        let kept = self.policies.vns.values().flat_map(|vn| vn.classes.iter().map(of));
        assert_eq!(counts, kept.collect::<BTreeMap<_, _>>());
        for key in self.tables.rules.keys() {
            let its = |id: u32| PolicyId::new(id) == Some(key.policy);
            let (vni, set) = self.policies.policies.iter().find(|(_, id)| its(*id)).unwrap().0;
            assert!(self.policies.vns[vni].compiled[set].too_many.is_none());
            assert!(key.class == ClassId::ANYBODY || counts.contains_key(&key.class), "{key:?}");
        }
        for (device, vap) in self.tables.vaps.iter().filter(|(_, vap)| vap.activated) {
            if let Some(policy) = self.policy_at(*device) {
                assert_eq!(vap.policy, policy);
            }
        }
        let limits = &self.config.limits;
        assert!(self.tables.rules.len() <= limits.policy_rules.max(1));
        assert!(self.tables.classes.len() <= limits.policy_classes.max(1));
    }
}
