//! A state of everything.

use std::collections::{BTreeMap, BTreeSet};

use weft_model::{Epoch, Grant, Time, TsiId, XtrId};
use weft_oracle::core::Shard;
use weft_sim::{Image, Store};

use crate::act::Datagram;
use crate::host::Host;
use crate::model::Bounds;
use crate::names::{Family, NVES};
use crate::part::Part;
use crate::script::Script;

/// A state of everything.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct State {
    pub(crate) family: Family,
    pub(crate) now: Time,
    pub(crate) store: Part<Image>,
    /// The grants in it.
    pub(crate) grants: Part<Granted>,
    /// While it runs.
    pub(crate) oracle: Option<Part<Shard>>,
    /// Starts of the Oracle so far.
    pub(crate) boots: u64,
    /// Sessions so far.
    pub(crate) sessions: u64,
    pub(crate) hosts: [Host; NVES],
    /// Datagrams under way, and how many of each.
    pub(crate) net: BTreeMap<Datagram, u8>,
    /// What the Oracle is to write down.
    pub(crate) orders: BTreeSet<(TsiId, XtrId, Epoch)>,
    pub(crate) script: Script,
    /// What may still go wrong.
    pub(crate) left: Bounds,
    /// Whom each epoch of web was given to.
    pub(crate) given: BTreeMap<Epoch, XtrId>,
    /// What must never be, and was.
    pub(crate) broken: Option<String>,
}

/// The grants, and since which revision.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Granted {
    pub(crate) revision: u64,
    pub(crate) by_tsi: BTreeMap<TsiId, Grant>,
}

impl Granted {
    pub(crate) fn of(store: &Store) -> Self {
        let revision = store.grants_of(crate::names::xtr(0)).0;
        Self { revision, by_tsi: store.grants().map(|grant| (grant.tsi.clone(), grant.clone())).collect() }
    }

    pub(crate) fn get(&self, tsi: &TsiId) -> Option<&Grant> {
        self.by_tsi.get(tsi)
    }

    pub(crate) fn all(&self) -> impl Iterator<Item = &Grant> + '_ {
        self.by_tsi.values()
    }

    /// Those that name an NVE.
    pub(crate) fn naming(&self, nve: XtrId) -> (u64, Vec<Grant>) {
        (self.revision, self.all().filter(|grant| grant.epoch_of(nve).is_ok()).cloned().collect())
    }
}

impl State {
    /// Runs a transaction; all are told what it has changed.
    pub(crate) fn transact<T>(&mut self, operation: impl FnOnce(&mut Store) -> (T, weft_sim::Commit)) -> T {
        let mut store = Store::of(self.store.get());
        let (answer, commit) = operation(&mut store);
        if !commit.facts.is_empty() {
            self.store = Part::new(store.image());
            self.grants = Part::new(Granted::of(&store));
            self.told(commit);
        }
        answer
    }

    /// Nothing is under way but what time brings, and what is to be written down.
    pub(crate) fn is_quiet(&self) -> bool {
        self.net.is_empty() && self.hosts.iter().all(Host::is_quiet)
    }
}
