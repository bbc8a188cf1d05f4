//! A state of everything.

use std::collections::{BTreeMap, BTreeSet};

use weft_model::{Epoch, Grant, TenantIp, Time, TsMac, TsiId, TsiName, VnName, XtrId};
use weft_nve::core::Held;
use weft_oracle::core::Shard;
use weft_sim::{Commit, Image, Store};

use crate::act::Datagram;
use crate::host::{Answer, Host};
use crate::known::Known;
use crate::model::Bounds;
use crate::names::{Family, NVES, nve_name, web};
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
    /// Sessions so far of each NVE.
    pub(crate) sessions: [u64; NVES],
    pub(crate) hosts: [Part<Host>; NVES],
    /// Datagrams under way, and how many of each.
    pub(crate) net: Part<BTreeMap<Datagram, u8>>,
    /// What the Oracle is to write down.
    pub(crate) orders: BTreeSet<(TsiId, XtrId, Epoch)>,
    pub(crate) script: Script,
    /// What may still go wrong.
    pub(crate) left: Bounds,
    /// Whom each epoch of web was given to.
    pub(crate) given: BTreeMap<Epoch, XtrId>,
    /// What must never be, and was.
    pub(crate) broken: Option<String>,
    pub(crate) known: Known,
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

/// A transaction. Of NVEs' the start of the agent that asks is part.
#[derive(Clone, Debug, Hash)]
pub(crate) enum Transaction {
    Attach {
        vn: VnName,
        name: TsiName,
        by: (XtrId, u64),
        mac: Option<TsMac>,
        ips: BTreeSet<TenantIp>,
    },
    Release {
        vn: VnName,
        name: TsiName,
        by: (XtrId, u64),
        held: Held,
    },
    Succeed(TsiId, XtrId, Epoch),
    /// web moves to this NVE.
    Name(usize),
    CallOff,
}

/// What has come of one.
pub(crate) struct Ran {
    store: Part<Image>,
    grants: Part<Granted>,
    commit: Commit,
    answer: Option<Answer>,
}

impl Transaction {
    fn run(&self, image: &Image) -> Ran {
        let mut store = Store::of(image);
        let (answer, commit) = match self.clone() {
            Self::Attach { vn, name, by, mac, ips } => {
                let (answer, commit) = store.attach(vn, name, by, mac, ips);
                (Some(Answer::Granted(Box::new(answer))), commit)
            }
            Self::Release { vn, name, by, held } => {
                let (answer, commit) = store.release(vn, name, by, held);
                (Some(Answer::Released(answer)), commit)
            }
            Self::Succeed(tsi, nve, epoch) => (None, store.succeed(&tsi, nve, epoch)),
            // What an operator is refused he may ask again.
            Self::Name(to) => (None, store.name_next(&web(), nve_name(to)).1),
            Self::CallOff => (None, store.call_off(&web()).1),
        };
        Ran {
            store: Part::new(store.image()).hashed(),
            grants: Part::new(Granted::of(&store)).hashed(),
            commit,
            answer,
        }
    }
}

impl State {
    /// Runs a transaction; all are told what it has changed.
    pub(crate) fn transact(&mut self, transaction: &Transaction) -> Option<Answer> {
        let store = &self.store;
        let ran = self.known.store.get(&(store, transaction), || transaction.run(store.get()));
        if !ran.commit.facts.is_empty() {
            (self.store, self.grants) = (ran.store.clone(), ran.grants.clone());
            self.told(&ran.commit);
        }
        ran.answer.clone()
    }

    /// Nothing is under way but what time brings, and what is to be written down.
    pub(crate) fn is_quiet(&self) -> bool {
        self.net.is_empty() && self.hosts.iter().all(|host| host.is_quiet())
    }
}
