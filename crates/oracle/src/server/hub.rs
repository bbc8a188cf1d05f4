//! Who waits for which changes, so that a commit wakes those it concerns and nobody else.

use crate::{
    registry::{Kind, decode, keys},
    store::{Change, Revision, StoreError},
};
use std::{
    collections::BTreeMap,
    sync::{Mutex, PoisonError},
};
use tokio::sync::watch::{Receiver, Sender};
use weft_api::{GrantView, VnConnection};
use weft_model::{Vni, XtrId};

/// What changes are about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Topic {
    Vns,
    Nves,
    Grants,
    /// Grants that name, or named, this NVE, and its connections to VNs.
    GrantsOf(XtrId),
    /// Grants of this VN.
    GrantsIn(Vni),
    /// Security groups.
    Groups,
}

/// The last revision that touched each topic somebody waits for.
#[derive(Default)]
pub(super) struct Hub {
    topics: Mutex<BTreeMap<Topic, Sender<Revision>>>,
}

impl Hub {
    /// News about `topic` from now on. What happened before is for the history to say.
    pub(super) fn subscribe(&self, topic: Topic) -> Receiver<Revision> {
        let mut topics = self.topics.lock().unwrap_or_else(PoisonError::into_inner);
        // Topics of NVEs that are gone for good would pile up otherwise.
        topics.retain(|_, sender| sender.receiver_count() > 0);
        topics.entry(topic).or_insert_with(|| Sender::new(0)).subscribe()
    }

    /// Wakes those whom a change concerns.
    pub(super) fn announce(&self, change: &Change) -> Result<(), StoreError> {
        let topics = self.topics.lock().unwrap_or_else(PoisonError::into_inner);
        if topics.is_empty() {
            return Ok(());
        }
        let wake = |topic| {
            if let Some(sender) = topics.get(&topic) {
                sender.send_replace(change.revision);
            }
        };
        match Kind::of(&change.key) {
            None => {}
            Some(Kind::Vn) => wake(Topic::Vns),
            Some(Kind::Nve | Kind::Xtr) => wake(Topic::Nves),
            Some(Kind::Group) => wake(Topic::Groups),
            Some(Kind::Connection) => {
                let value = change.after.as_ref().or(change.before.as_ref());
                let nve = value.map(|value| decode::<VnConnection>(&change.key, value)).transpose()?;
                nve.into_iter().for_each(|one| wake(Topic::GrantsOf(one.xtr_id)));
            }
            Some(Kind::Grant) => {
                wake(Topic::Grants);
                if let Some((vni, _)) = keys::in_vn(&change.key) {
                    wake(Topic::GrantsIn(vni));
                }
                let mut named = Vec::new();
                for value in [&change.before, &change.after].into_iter().flatten() {
                    let grant = decode::<GrantView>(&change.key, value)?.grant;
                    named.extend([Some(grant.owner), grant.next.map(|next| next.nve)].into_iter().flatten());
                }
                named.sort_unstable();
                named.dedup();
                named.into_iter().for_each(|nve| wake(Topic::GrantsOf(nve)));
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use weft_model::{Epoch, Grant, TsMac, TsiId};

    #[test]
    fn only_those_concerned_are_woken() {
        let hub = Hub::default();
        let id = |n| XtrId([n; 16]);
        let grant = |owner: u8| {
            let name: weft_model::Name = "a".parse().unwrap();
            let tsi = TsiId { vni: Vni::new(1).unwrap(), name: name.clone() };
            let grant = Grant {
                tsi,
                mac: TsMac::local(1),
                ips: Default::default(),
                groups: Default::default(),
                tunnel: Default::default(),
                owner: id(owner),
                epoch: Epoch::FIRST,
                next: None,
            };
            Some(serde_json::to_vec(&GrantView { vn: name.clone(), nve: name, grant }).unwrap())
        };
        let all = [Topic::Vns, Topic::Nves, Topic::Grants]
            .into_iter()
            .chain((1..4).map(|n| Topic::GrantsOf(id(n))))
            .map(|t| hub.subscribe(t))
            .collect::<Vec<_>>();
        let change = |key: &[u8], before, after| Change { revision: 9, key: key.to_vec(), before, after };
        hub.announce(&change(b"grant/1/a", grant(1), grant(2))).unwrap();
        let woken: Vec<bool> = all.iter().map(|r| r.has_changed().unwrap()).collect();
        assert_eq!(woken, [false, false, true, true, true, false]);
        hub.announce(&change(b"vn/a", None, None)).unwrap();
        assert!(all[0].has_changed().unwrap() && !all[1].has_changed().unwrap());
        drop(all);
        hub.subscribe(Topic::Vns);
        assert_eq!(hub.topics.lock().unwrap().len(), 1);
    }
}
