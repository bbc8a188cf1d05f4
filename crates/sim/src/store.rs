//! The store all Oracles share: the real registry, over a memory in which every transaction ends at once.

use std::collections::{BTreeMap, BTreeSet};
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use weft_api::{NewToken, NewVn, VnChange};
use weft_model::{
    Epoch, Grant, Learning, NveName, TenantIp, TsMac, TsiId, TsiName, VnName, VnSpec, Vni, XtrId,
};
use weft_nve::core::{Granted, Held, Refused};
use weft_oracle::core::{Fact, NveFact};
use weft_oracle::pki::Signed;
use weft_oracle::registry::{Caller, Enrolment, Presence, Registry, RegistryError, Wish, fact};
use weft_oracle::store::{Change, MemoryStore, Revision};

/// Changes kept: those of one transaction are taken before the next.
const HISTORY: usize = 1_024;

/// What a transaction has changed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Commit {
    /// For the Oracles.
    pub facts: Vec<Fact>,
    /// The NVEs whose grants these are, or were.
    pub named: BTreeSet<XtrId>,
}

/// All that a store holds.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Image {
    entries: BTreeMap<Vec<u8>, Vec<u8>>,
    revision: Revision,
}

/// NVEs, VNs and grants.
pub struct Store {
    registry: Registry,
    memory: Arc<MemoryStore>,
    revision: Revision,
    nves: BTreeMap<XtrId, NveFact>,
    vns: BTreeMap<VnName, VnSpec>,
    grants: BTreeMap<TsiId, Grant>,
    by_nve: BTreeMap<XtrId, BTreeSet<TsiId>>,
}

impl Default for Store {
    fn default() -> Self {
        Self::over(MemoryStore::new(HISTORY), 0)
    }
}

/// What became of a call, and what it has changed.
pub type Done<T> = (Result<T, Refused>, Commit);

impl Store {
    fn over(memory: MemoryStore, revision: Revision) -> Self {
        let memory = Arc::new(memory);
        Self {
            registry: Registry::new(memory.clone()),
            memory,
            revision,
            nves: BTreeMap::new(),
            vns: BTreeMap::new(),
            grants: BTreeMap::new(),
            by_nve: BTreeMap::new(),
        }
    }

    /// The store that held this.
    #[must_use]
    pub fn of(image: &Image) -> Self {
        let Image { entries, revision } = image;
        let mut store = Self::over(MemoryStore::of(entries.clone(), *revision, HISTORY), *revision);
        let mut commit = Commit::default();
        for (key, value) in entries {
            let after = Some(value.clone());
            store
                .take_in(&Change { revision: *revision, key: key.clone(), before: None, after }, &mut commit);
        }
        store
    }

    /// All that it holds.
    #[must_use]
    pub fn image(&self) -> Image {
        let (entries, revision) = self.memory.entries();
        Image { entries, revision }
    }

    /// Runs a transaction.
    fn run<T>(&mut self, operation: impl Future<Output = Result<T, RegistryError>>) -> Done<T> {
        let answer = match pin!(operation).poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(answer) => answer,
            // Memory answers before it returns.
            Poll::Pending => unreachable!(),
        };
        let mut commit = Commit::default();
        if let Ok((changes, revision)) =
            weft_oracle::store::Store::history(&*self.memory).after(self.revision, usize::MAX)
        {
            self.revision = revision;
            changes.iter().for_each(|change| self.take_in(change, &mut commit));
        }
        (answer.map_err(|e| refused(&e)), commit)
    }

    fn take_in(&mut self, change: &Change, commit: &mut Commit) {
        let Ok(Some(fact)) = fact(change) else { return };
        match &fact {
            Fact::Nve(nve) => drop(self.nves.insert(nve.xtr_id, nve.clone())),
            Fact::Vn(spec) => drop(self.vns.insert(spec.name.clone(), spec.clone())),
            Fact::Grant(grant) => {
                self.unname(&grant.tsi, commit);
                for nve in std::iter::once(grant.owner).chain(grant.next.map(|next| next.nve)) {
                    self.by_nve.entry(nve).or_default().insert(grant.tsi.clone());
                    commit.named.insert(nve);
                }
                self.grants.insert(grant.tsi.clone(), grant.clone());
            }
            Fact::GrantGone(tsi) => {
                self.unname(tsi, commit);
                self.grants.remove(tsi);
            }
            _ => {}
        }
        commit.facts.push(fact);
    }

    /// Nobody is named by this grant any more.
    fn unname(&mut self, tsi: &TsiId, commit: &mut Commit) {
        let Some(old) = self.grants.get(tsi) else { return };
        for nve in std::iter::once(old.owner).chain(old.next.map(|next| next.nve)) {
            self.by_nve.entry(nve).or_default().remove(tsi);
            commit.named.insert(nve);
        }
    }

    // ===== what there is =====

    /// The NVEs.
    pub fn nves(&self) -> impl Iterator<Item = &NveFact> + '_ {
        self.nves.values()
    }

    /// The VNs.
    pub fn vns(&self) -> impl Iterator<Item = &VnSpec> + '_ {
        self.vns.values()
    }

    /// The grants.
    pub fn grants(&self) -> impl Iterator<Item = &Grant> + '_ {
        self.grants.values()
    }

    /// A grant.
    #[must_use]
    pub fn grant(&self, tsi: &TsiId) -> Option<&Grant> {
        self.grants.get(tsi)
    }

    /// The grants that name an NVE, and the revision that is true at.
    #[must_use]
    pub fn grants_of(&self, nve: XtrId) -> (Revision, Vec<Grant>) {
        let named = self.by_nve.get(&nve).into_iter().flatten();
        (self.revision, named.filter_map(|tsi| self.grants.get(tsi)).cloned().collect())
    }

    fn vn_of(&self, vni: Vni) -> Option<&VnSpec> {
        self.vns.values().find(|spec| spec.vni == vni)
    }

    fn vn_name(&self, tsi: &TsiId) -> VnName {
        // What is not there is refused by its name.
        self.vn_of(tsi.vni).map_or_else(|| crate::names::vn_name(tsi.vni.get()), |spec| spec.name.clone())
    }

    fn caller(&self, nve: XtrId, start: u64) -> Caller {
        let name = self.nves.get(&nve).map(|nve| nve.name.clone());
        name.map_or(Caller::Operator, |name| Caller::Nve { xtr_id: nve, name, start: Some(start) })
    }

    // ===== what changes it =====

    /// Enrols an NVE.
    pub fn enrol(&mut self, nve: NveFact) -> Commit {
        let NveFact { xtr_id, name, rlocs } = nve;
        let secret = name.to_string();
        let registry = self.registry.clone();
        let wish = Enrolment {
            secret: secret.clone(),
            csr: secret.clone(),
            name,
            rlocs: rlocs.into_iter().collect(),
            xtr_id,
        };
        let (_, commit) = self.run(async move {
            registry.create_token(NewToken::default(), &secret, 0).await?;
            // Nobody looks at certificates here.
            let sign = |_| Ok(Signed { certificate: String::new(), expires_at: u64::MAX });
            registry.join(wish, 0, sign).await
        });
        commit
    }

    /// Creates a VN.
    pub fn create(&mut self, spec: VnSpec) -> Commit {
        let registry = self.registry.clone();
        let VnSpec {
            name,
            vni,
            subnets,
            learning,
            reply,
            bum,
            storm,
            miss,
            gateway,
            default_groups: _,
            log_refused: _,
            tunnel: _,
        } = spec;
        let vni = Some(vni);
        let new = NewVn { name, vni, subnets, learning, reply, bum, storm, miss, gateway };
        self.run(async move { registry.create_vn(new).await }).1
    }

    /// Changes how a VN's NVEs learn.
    pub fn set_learning(&mut self, name: VnName, learning: Learning) -> Commit {
        let registry = self.registry.clone();
        let change = VnChange { learning: Some(learning), ..VnChange::default() };
        self.run(async move { registry.change_vn(name, change).await }).1
    }

    /// Attach: a new grant, or the same again for whom it names; by this start of its agent.
    pub fn attach(
        &mut self,
        vn: VnName,
        tsi: TsiName,
        (owner, start): (XtrId, u64),
        mac: Option<TsMac>,
        ips: BTreeSet<TenantIp>,
    ) -> Done<Granted> {
        let registry = self.registry.clone();
        let wish = Wish { vn, tsi, mac, ips, groups: BTreeSet::new(), owner, start: Some(start) };
        let (answer, commit) = self.run(async move { registry.grant(wish).await });
        let granted = answer.map(|(granted, revision)| Granted {
            grant: granted.view.grant,
            vn: granted.vn,
            revision,
            created: granted.created,
        });
        (granted, commit)
    }

    /// Gives a grant back, as an NVE does by this start of its agent.
    pub fn release(&mut self, vn: VnName, tsi: TsiName, (nve, start): (XtrId, u64), held: Held) -> Done<()> {
        let (registry, caller) = (self.registry.clone(), self.caller(nve, start));
        let (answer, commit) = self.run(async move {
            match held {
                Held::Granted => registry.release(vn, tsi, caller, |_| Presence::Gone).await,
                Held::Activated(epoch) => registry.release_activated(vn, tsi, caller, epoch).await,
                Held::Unknown => registry.release_owned(vn, tsi, caller).await,
            }
        });
        let answer = match answer {
            // As the agent does: it is gone already.
            Err(Refused::Oracle { code, .. }) if code == "not_found" => Ok(()),
            other => other.map(drop),
        };
        (answer, commit)
    }

    /// Names where a tenant system moves to.
    pub fn name_next(&mut self, tsi: &TsiId, to: NveName) -> Done<Grant> {
        let (registry, vn, tsi) = (self.registry.clone(), self.vn_name(tsi), tsi.name.clone());
        let (answer, commit) =
            self.run(async move { registry.name_next(vn, tsi, to, Caller::Operator).await });
        (answer.map(|(view, _)| view.grant), commit)
    }

    /// Calls a move off.
    pub fn call_off(&mut self, tsi: &TsiId) -> Done<Grant> {
        let (registry, vn, tsi) = (self.registry.clone(), self.vn_name(tsi), tsi.name.clone());
        let (answer, commit) = self.run(async move { registry.call_off(vn, tsi, Caller::Operator).await });
        (answer.map(|(view, _)| view.grant), commit)
    }

    /// The successor is active: it becomes the owner, unless the grant has changed since.
    pub fn succeed(&mut self, tsi: &TsiId, nve: XtrId, epoch: Epoch) -> Commit {
        let (registry, tsi) = (self.registry.clone(), tsi.clone());
        self.run(async move { registry.succeed(tsi, nve, epoch).await }).1
    }
}

/// As `/v1` says it.
fn refused(error: &RegistryError) -> Refused {
    let code = serde_json::to_value(error.code()).ok().and_then(|v| v.as_str().map(str::to_owned));
    Refused::Oracle { code: code.unwrap_or_default(), message: error.to_string() }
}
