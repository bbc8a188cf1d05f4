//! The store all Oracles share: grants, given in transactions.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{Ipv4Addr, Ipv6Addr};

use weft_model::{
    Epoch, Grant, Name, Successor, TenantIp, TsMac, TsiId, TsiName, VnName, VnSpec, Vni, XtrId,
};
use weft_nve::core::{Granted, Refused};

/// A committed change.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Change {
    /// A grant is new or changed.
    Grant(Grant),
    /// A grant is released.
    Gone(TsiId),
}

/// VNs and grants.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Store {
    vns: BTreeMap<VnName, VnSpec>,
    grants: BTreeMap<TsiId, Grant>,
    by_nve: BTreeSet<(XtrId, TsiId)>,
    floors: BTreeMap<TsiId, Epoch>,
    /// Addresses given out per VN.
    given: BTreeMap<Vni, u32>,
    revision: u64,
}

impl Store {
    /// Creates a VN.
    pub fn create(&mut self, spec: VnSpec) {
        self.vns.insert(spec.name.clone(), spec);
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

    /// The grants that name an NVE as owner, and the revision that is true at.
    #[must_use]
    pub fn grants_of(&self, nve: XtrId) -> (u64, Vec<Grant>) {
        let first = TsiId { vni: Vni::try_from(1).unwrap_or_else(|_| unreachable!()), name: lowest() };
        let mine = self.by_nve.range((nve, first)..).take_while(|(n, _)| *n == nve);
        (self.revision, mine.filter_map(|(_, tsi)| self.grants.get(tsi)).cloned().collect())
    }

    /// Attach: a new grant, or the same again for its owner.
    ///
    /// # Errors
    /// When another NVE holds it, or an address is taken.
    pub fn attach(
        &mut self,
        vn: &VnName,
        name: &TsiName,
        owner: XtrId,
        mac: Option<TsMac>,
        ips: &BTreeSet<TenantIp>,
    ) -> Result<(Granted, Option<Change>), Refused> {
        let refuse = |code: &str, message: String| Refused::Oracle { code: code.to_owned(), message };
        let Some(spec) = self.vns.get(vn).cloned() else {
            return Err(refuse("not_found", format!("no VN {vn}")));
        };
        let tsi = TsiId { vni: spec.vni, name: name.clone() };
        if let Some(grant) = self.grants.get(&tsi) {
            if grant.owner != owner {
                return Err(refuse("conflict", format!("{tsi} is granted to {}", grant.owner)));
            }
            let granted = Granted { grant: grant.clone(), vn: spec, revision: self.revision, created: false };
            return Ok((granted, None));
        }
        let taken = |g: &&Grant| Some(g.mac) == mac || g.ips.intersection(ips).next().is_some();
        if (mac.is_some() || !ips.is_empty())
            && self.grants.values().filter(|g| g.tsi.vni == spec.vni).any(|g| taken(&g))
        {
            return Err(refuse("conflict", format!("an address of {tsi} is taken")));
        }
        let given = self.given.entry(spec.vni).or_default();
        *given += 1;
        let n = *given;
        let mut ips = ips.clone();
        if ips.is_empty() {
            let v4 = Ipv4Addr::from(u32::from(Ipv4Addr::new(10, 0, 0, 0)) + n);
            let v6 = Ipv6Addr::from(u128::from(Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, 0)) + u128::from(n));
            ips.extend([TenantIp::new(v4.into()), TenantIp::new(v6.into())].into_iter().flatten());
        }
        let epoch = self.floors.get(&tsi).copied().unwrap_or(Epoch::FIRST);
        let mac = mac.unwrap_or_else(|| TsMac::local(n.into()));
        let grant = Grant { tsi, mac, ips, groups: Default::default(), owner, epoch, next: None };
        let change = self.put(grant.clone());
        Ok((Granted { grant, vn: spec, revision: self.revision, created: true }, Some(change)))
    }

    fn put(&mut self, grant: Grant) -> Change {
        self.revision += 1;
        if let Some(old) = self.grants.get(&grant.tsi) {
            self.by_nve.remove(&(old.owner, old.tsi.clone()));
        }
        self.by_nve.insert((grant.owner, grant.tsi.clone()));
        self.grants.insert(grant.tsi.clone(), grant.clone());
        Change::Grant(grant)
    }

    /// Release: the epoch's floor rises, so that the next grant is told from this one.
    pub fn release(&mut self, tsi: &TsiId) -> Option<Change> {
        let grant = self.grants.remove(tsi)?;
        self.revision += 1;
        self.by_nve.remove(&(grant.owner, tsi.clone()));
        let above = grant.next.map_or(grant.epoch, |next| next.epoch);
        self.floors.insert(tsi.clone(), above.next());
        Some(Change::Gone(tsi.clone()))
    }

    /// Associate elsewhere: names the successor.
    pub fn set_next(&mut self, tsi: &TsiId, nve: XtrId) -> Option<Change> {
        let mut grant = self.grants.get(tsi)?.clone();
        grant.next = Some(Successor { nve, epoch: grant.epoch.next() });
        Some(self.put(grant))
    }

    /// The successor is active: it becomes the owner, unless the grant has changed since.
    pub fn succeed(&mut self, tsi: &TsiId, nve: XtrId, epoch: Epoch) -> Option<Change> {
        let mut grant = self.grants.get(tsi)?.clone();
        if grant.next != Some(Successor { nve, epoch }) {
            return None;
        }
        (grant.owner, grant.epoch, grant.next) = (nve, epoch, None);
        Some(self.put(grant))
    }

    /// Take-over of a dead host's TSI.
    pub fn take_over(&mut self, tsi: &TsiId, nve: XtrId) -> Option<Change> {
        let mut grant = self.grants.get(tsi)?.clone();
        let above = grant.next.map_or(grant.epoch, |next| next.epoch);
        (grant.owner, grant.epoch, grant.next) = (nve, above.next(), None);
        Some(self.put(grant))
    }
}

/// The lowest of all names.
fn lowest() -> TsiName {
    Name::new("0").unwrap_or_else(|_| unreachable!())
}
