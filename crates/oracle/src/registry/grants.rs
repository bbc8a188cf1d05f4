//! Grants and the addresses they take.

use super::{
    Caller, Kind, Registry, RegistryError, decode, groups, keys, moves, nves,
    pool::{self, Pools, VnPools},
    read, starts, vns, write,
};
use crate::store::{Revision, StoreError, Transaction};
use core::net::IpAddr;
use sha2::{Digest, Sha256};
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Mutex,
};
use weft_api::GrantView;
use weft_model::{
    Epoch, Grant, GroupLimits, GroupName, IpNet, NveName, Subnets, TenantIp, TsMac, TsiId, TsiName,
    TunnelPolicy, VnName, VnSpec, Vni, XtrId,
};

/// IP addresses of one tenant system: what one registration can carry with room to spare.
pub const MAX_IPS: usize = 32;
/// Link-local IPv6 addresses of one tenant system.
pub const MAX_LINK_LOCALS: usize = 2;

/// Epochs passed over by a restore.
const RESTORE_GAP: u32 = 1 << 16;

/// Whether an NVE is there, as far as an Oracle knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Presence {
    /// It has no session.
    Gone,
    /// The Oracle has just started, and it has not said yet what it has.
    Unheard,
    /// It has one.
    Connected,
}

/// A wish for a grant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wish {
    /// The VN.
    pub vn: VnName,
    /// The tenant system.
    pub tsi: TsiName,
    /// Its MAC address, or any.
    pub mac: Option<TsMac>,
    /// Its IP addresses; of a family without one here, any one.
    pub ips: BTreeSet<TenantIp>,
    /// Its security groups; the VN's default ones when it names none.
    pub groups: BTreeSet<GroupName>,
    /// Who is to hold it.
    pub owner: XtrId,
    /// Which start of its agent asks, if it does and says so.
    pub start: Option<u64>,
}

/// Finds a grant that a caller may change.
type Find = fn(&dyn Transaction, &VnSpec, &TsiName, &Caller) -> Result<GrantView, RegistryError>;

/// What became of a grant that was given back, as it was or is now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Released {
    /// Its addresses are free.
    Freed(GrantView),
    /// It was moving: who was next is its owner.
    HandedOver(GrantView),
    /// Who was next gave it back: it does not move.
    CalledOff(GrantView),
}

/// A grant that was made or found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Granted {
    /// The grant with its names.
    pub view: GrantView,
    /// Its VN.
    pub vn: VnSpec,
    /// Whether it was made just now.
    pub created: bool,
}

impl Registry {
    /// Grants a tenant system and its addresses, or finds the grant its owner has already.
    ///
    /// # Errors
    /// Whatever stands in the way, by name: see [`RegistryError`].
    pub async fn grant(&self, wish: Wish) -> Result<(Granted, Revision), RegistryError> {
        let (pools, limits) = (self.pools.clone(), self.limits);
        self.run(move |tx| grant(tx, &pools, &wish, &limits)).await
    }

    /// Takes one more address for a tenant system.
    ///
    /// # Errors
    /// Whatever stands in the way, by name: see [`RegistryError`].
    pub async fn take_address(
        &self,
        vn: VnName,
        tsi: TsiName,
        ip: TenantIp,
        caller: Caller,
    ) -> Result<(Granted, Revision), RegistryError> {
        let pools = self.pools.clone();
        self.run(move |tx| {
            let vn = vns::find(tx, &vn)?;
            let mut view = held_by(tx, &vn, &tsi, &caller)?;
            if view.grant.ips.contains(&ip) {
                return Ok(Granted { view, vn: vn.clone(), created: false });
            }
            free_ip(tx, &vn, ip)?;
            view.grant.ips.insert(ip);
            count_ips(&tsi, &view.grant.ips)?;
            write(tx, keys::ip(vn.vni, ip.get()), &tsi)?;
            write(tx, keys::grant(vn.vni, &tsi), &view)?;
            with_pools(tx, &pools, &vn, |p| p.mark(ip.get()))?;
            Ok(Granted { view, vn: vn.clone(), created: true })
        })
        .await
    }

    /// Gives a tenant system back: by its owner, or by an operator, unless an NVE may have it in service that is there
    /// by its `presence`. An owner that gives back what moves gives it to where it moves; who was to be its next owner calls the
    /// move off by this.
    ///
    /// # Errors
    /// [`RegistryError::NoTsi`], [`RegistryError::GrantedElsewhere`] or [`RegistryError::HolderConnected`].
    pub async fn release(
        &self,
        vn: VnName,
        tsi: TsiName,
        caller: Caller,
        presence: impl Fn(XtrId) -> Presence + Send + 'static,
    ) -> Result<(Released, Revision), RegistryError> {
        self.give_back(vn, tsi, caller, None, named_by, presence).await
    }

    /// The same by its owner only: who is merely next calls no move off by it.
    ///
    /// # Errors
    /// As [`Self::release`].
    pub async fn release_owned(
        &self,
        vn: VnName,
        tsi: TsiName,
        caller: Caller,
    ) -> Result<(Released, Revision), RegistryError> {
        self.give_back(vn, tsi, caller, None, held_by, |_| Presence::Gone).await
    }

    /// The same by an NVE at which it is Activated, at `epoch`. Who is next may hold it as soon as an Oracle says so,
    /// which is written down a little later: what it gives back in between ends as an owner's does. Had it Activated
    /// it at another epoch, it is merely next by now.
    ///
    /// # Errors
    /// As [`Self::release`].
    pub async fn release_activated(
        &self,
        vn: VnName,
        tsi: TsiName,
        caller: Caller,
        epoch: Epoch,
    ) -> Result<(Released, Revision), RegistryError> {
        self.give_back(vn, tsi, caller, Some(epoch), named_by, |_| Presence::Gone).await
    }

    async fn give_back(
        &self,
        vn: VnName,
        tsi: TsiName,
        caller: Caller,
        activated: Option<Epoch>,
        find: Find,
        presence: impl Fn(XtrId) -> Presence + Send + 'static,
    ) -> Result<(Released, Revision), RegistryError> {
        let pools = self.pools.clone();
        self.run(move |tx| {
            if let Caller::Nve { xtr_id, start, .. } = &caller {
                starts::check(tx, *xtr_id, *start)?;
            }
            let vn = vns::find(tx, &vn)?;
            let mut view = find(tx, &vn, &tsi, &caller)?;
            if caller == Caller::Operator {
                let next = view.grant.next.map(|next| next.nve);
                not_connected(tx, &view, [Some(view.grant.owner), next].into_iter().flatten(), &presence)?;
            }
            let came = view.grant.next.filter(|next| activated == Some(next.epoch)).map(|next| next.nve);
            match caller.nve() {
                Some(nve) if came == Some(nve) => {
                    moves::hand_over(tx, &mut view)?;
                    remove(tx, &pools, &vn, &view)?;
                    Ok(Released::Freed(view))
                }
                Some(nve) if nve != view.grant.owner => {
                    moves::end_move(tx, &mut view)?;
                    Ok(Released::CalledOff(view))
                }
                Some(_) if moves::hand_over(tx, &mut view)? => Ok(Released::HandedOver(view)),
                _ => {
                    remove(tx, &pools, &vn, &view)?;
                    Ok(Released::Freed(view))
                }
            }
        })
        .await
    }
}

fn grant(
    tx: &mut dyn Transaction,
    pools: &Mutex<Pools>,
    wish: &Wish,
    limits: &GroupLimits,
) -> Result<Granted, RegistryError> {
    let Wish { tsi, owner, start, .. } = wish;
    starts::check(tx, *owner, *start)?;
    let vn = vns::find(tx, &wish.vn)?;
    let (nve, scope) = nves::holder(tx, *owner)?.ok_or(RegistryError::Revoked(*owner))?;
    if scope.is_some_and(|scope| !scope.contains(&vn.name)) {
        return Err(RegistryError::OutOfScope { nve, vn: vn.name });
    }
    let key = keys::grant(vn.vni, tsi);
    if let Some(view) = read::<GrantView>(tx, &key)? {
        return found(view, vn, wish);
    }
    groups::check(tx, &vn, &wish.groups, limits)?;
    for ip in &wish.ips {
        free_ip(tx, &vn, *ip)?;
    }
    let mac = match wish.mac {
        Some(mac) => free_mac(tx, &vn, mac)?,
        None => choose_mac(tx, &vn, tsi)?,
    };
    let mut ips = wish.ips.clone();
    let named = |v4: bool| wish.ips.iter().any(|ip| ip.get().is_ipv4() == v4 && !ip.is_link_local());
    for v4 in [true, false] {
        let has = vn.subnets.iter().any(|net| matches!(net, IpNet::V4(_)) == v4);
        if has && !named(v4) {
            ips.insert(choose_ip(tx, pools, &vn, v4)?);
        }
    }
    count_ips(tsi, &ips)?;
    let epoch = read(tx, &keys::floor(vn.vni))?.unwrap_or(Epoch::FIRST);
    for ip in &ips {
        write(tx, keys::ip(vn.vni, ip.get()), tsi)?;
    }
    write(tx, keys::mac(vn.vni, mac.get()), tsi)?;
    tx.put(keys::held_one(*owner, vn.vni, tsi), Vec::new());
    let id = TsiId { vni: vn.vni, name: tsi.clone() };
    let (groups, tunnel) = (wish.groups.clone(), TunnelPolicy::default());
    let grant = Grant { tsi: id, mac, ips, groups, tunnel, owner: *owner, epoch, next: None };
    let view = GrantView { vn: vn.name.clone(), nve, grant };
    write(tx, key, &view)?;
    // Last of all: nothing can fail from here on but the store itself.
    with_pools(tx, pools, &vn, |p| view.grant.ips.iter().for_each(|ip| p.mark(ip.get())))?;
    Ok(Granted { view, vn, created: true })
}

/// Whether none of these, who may have a tenant system in service, is connected.
pub(super) fn not_connected(
    tx: &dyn Transaction,
    view: &GrantView,
    holders: impl IntoIterator<Item = XtrId>,
    presence: &impl Fn(XtrId) -> Presence,
) -> Result<(), RegistryError> {
    for nve in holders {
        let (vn, tsi) = (view.vn.clone(), view.grant.tsi.name.clone());
        match presence(nve) {
            Presence::Gone => {}
            Presence::Unheard => return Err(RegistryError::HolderUnheard { vn, tsi, nve }),
            Presence::Connected => {
                let nve = nves::holder(tx, nve)?.map_or_else(|| view.nve.clone(), |(name, _)| name);
                return Err(RegistryError::HolderConnected { vn, tsi, nve });
            }
        }
    }
    Ok(())
}

/// The grant that is there already, if it is the caller's and has what is asked for.
fn found(view: GrantView, vn: VnSpec, wish: &Wish) -> Result<Granted, RegistryError> {
    let Grant { owner, epoch, next, mac, ref ips, .. } = view.grant;
    let (vn_name, tsi) = (vn.name.clone(), wish.tsi.clone());
    if owner != wish.owner && next.is_none_or(|next| next.nve != wish.owner) {
        return Err(RegistryError::GrantedElsewhere { vn: vn_name, tsi, owner: view.nve, epoch });
    }
    if let Some(asked) = wish.mac.filter(|asked| *asked != mac) {
        return Err(RegistryError::MacMismatch { vn: vn_name, tsi, has: mac, asked });
    }
    if let Some(asked) = wish.ips.difference(ips).next() {
        return Err(RegistryError::IpMismatch { vn: vn_name, tsi, asked: *asked });
    }
    let has = &view.grant.groups;
    if !wish.groups.is_empty() && wish.groups != *has {
        let (has, asked) = (has.clone(), wish.groups.clone());
        return Err(RegistryError::GroupsMismatch { vn: vn_name, tsi, has, asked });
    }
    Ok(Granted { view, vn, created: false })
}

/// The grant of `tsi`, if it names `caller`, as its owner or as who is next, or an operator asks.
pub(super) fn named_by(
    tx: &dyn Transaction,
    vn: &VnSpec,
    tsi: &TsiName,
    caller: &Caller,
) -> Result<GrantView, RegistryError> {
    match caller.nve() {
        Some(nve) => {
            let view: Option<GrantView> = read(tx, &keys::grant(vn.vni, tsi))?;
            match view.filter(|view| view.grant.next.is_some_and(|next| next.nve == nve)) {
                Some(view) => Ok(view),
                None => held_by(tx, vn, tsi, caller),
            }
        }
        None => held_by(tx, vn, tsi, caller),
    }
}

/// The grant of `tsi`, if `caller` may change it.
pub(super) fn held_by(
    tx: &dyn Transaction,
    vn: &VnSpec,
    tsi: &TsiName,
    caller: &Caller,
) -> Result<GrantView, RegistryError> {
    let view: GrantView = read(tx, &keys::grant(vn.vni, tsi))?
        .ok_or_else(|| RegistryError::NoTsi { vn: vn.name.clone(), tsi: tsi.clone() })?;
    match caller {
        Caller::Nve { xtr_id, .. } if view.grant.owner != *xtr_id => Err(RegistryError::GrantedElsewhere {
            vn: vn.name.clone(),
            tsi: tsi.clone(),
            owner: view.nve,
            epoch: view.grant.epoch,
        }),
        _ => Ok(view),
    }
}

/// Removes a grant with all that points to it, and raises the VN's epoch floor above it.
pub(super) fn remove(
    tx: &mut dyn Transaction,
    pools: &Mutex<Pools>,
    vn: &VnSpec,
    view: &GrantView,
) -> Result<(), StoreError> {
    let Grant { tsi, mac, ips, owner, next, .. } = &view.grant;
    for ip in ips {
        tx.delete(keys::ip(tsi.vni, ip.get()));
    }
    tx.delete(keys::mac(tsi.vni, mac.get()));
    tx.delete(keys::held_one(*owner, tsi.vni, &tsi.name));
    if let Some(next) = next {
        tx.delete(keys::held_one(next.nve, tsi.vni, &tsi.name));
    }
    tx.delete(keys::grant(tsi.vni, &tsi.name));
    let highest = view.grant.highest_epoch();
    let floor = read(tx, &keys::floor(tsi.vni))?.unwrap_or(Epoch::FIRST);
    write(tx, keys::floor(tsi.vni), &floor.max(highest.next()))?;
    with_pools(tx, pools, vn, |p| ips.iter().for_each(|ip| p.unmark(ip.get())))
}

/// Raises the epoch floor of every VN among `entries`, as they are restored, far above any epoch
/// that may have been given after they were saved.
pub(crate) fn raise_floors(
    mut entries: BTreeMap<Vec<u8>, Vec<u8>>,
) -> Result<BTreeMap<Vec<u8>, Vec<u8>>, StoreError> {
    let mut highest: BTreeMap<Vni, Epoch> = BTreeMap::new();
    for (key, value) in &entries {
        match Kind::of(key) {
            Some(Kind::Vn) => {
                highest.entry(decode::<VnSpec>(key, value)?.vni).or_insert(Epoch::FIRST);
            }
            Some(Kind::Grant) => {
                let grant = decode::<GrantView>(key, value)?.grant;
                let floor = highest.entry(grant.tsi.vni).or_insert(Epoch::FIRST);
                *floor = grant.highest_epoch().max(*floor);
            }
            _ => {}
        }
    }
    for (vni, highest) in highest {
        let key = keys::floor(vni);
        let floor = entries.get(&key).map(|value| decode::<Epoch>(&key, value)).transpose()?;
        let high = floor.map_or(highest, |floor| floor.max(highest));
        let raised = Epoch::new(high.get().saturating_add(RESTORE_GAP)).unwrap_or(high);
        let value = serde_json::to_vec(&raised).map_err(|e| StoreError::Failed(e.to_string()))?;
        entries.insert(key, value);
    }
    Ok(entries)
}

pub(super) fn count_ips(tsi: &TsiName, ips: &BTreeSet<TenantIp>) -> Result<(), RegistryError> {
    let too_many = |max, what| RegistryError::TooManyAddresses { tsi: tsi.clone(), max, what };
    if ips.iter().filter(|ip| ip.is_link_local()).count() > MAX_LINK_LOCALS {
        return Err(too_many(MAX_LINK_LOCALS, "link-local addresses"));
    }
    if ips.len() > MAX_IPS {
        return Err(too_many(MAX_IPS, "IP addresses"));
    }
    Ok(())
}

pub(super) fn free_ip(tx: &dyn Transaction, vn: &VnSpec, ip: TenantIp) -> Result<(), RegistryError> {
    if !ip.is_link_local() && vn.subnets.host_subnet(ip.get()).is_none() {
        let subnets = vn.subnets.iter().collect();
        return Err(RegistryError::OutsideSubnets { vn: vn.name.clone(), ip: ip.get(), subnets });
    }
    match read::<TsiName>(tx, &keys::ip(vn.vni, ip.get()))? {
        None => Ok(()),
        Some(holder) => {
            let nve = holder_nve(tx, vn.vni, &holder)?;
            Err(RegistryError::AddressTaken { vn: vn.name.clone(), ip, holder, nve })
        }
    }
}

fn free_mac(tx: &dyn Transaction, vn: &VnSpec, mac: TsMac) -> Result<TsMac, RegistryError> {
    match read::<TsiName>(tx, &keys::mac(vn.vni, mac.get()))? {
        None => Ok(mac),
        Some(holder) => {
            let nve = holder_nve(tx, vn.vni, &holder)?;
            Err(RegistryError::MacTaken { vn: vn.name.clone(), mac: mac.get(), holder, nve })
        }
    }
}

fn holder_nve(tx: &dyn Transaction, vni: Vni, tsi: &TsiName) -> Result<NveName, RegistryError> {
    let key = keys::grant(vni, tsi);
    let view = read::<GrantView>(tx, &key)?.ok_or_else(|| StoreError::Damaged {
        key: String::from_utf8_lossy(&key).into_owned(),
        reason: "an address points to it, but it is not there".to_owned(),
    })?;
    Ok(view.nve)
}

/// A MAC address made from the tenant system's name: the same one whenever it is attached again,
/// so that its peers' neighbour caches stay right.
fn choose_mac(tx: &dyn Transaction, vn: &VnSpec, tsi: &TsiName) -> Result<TsMac, RegistryError> {
    for attempt in 0..64u8 {
        let digest = Sha256::new()
            .chain_update(vn.vni.get().to_be_bytes())
            .chain_update([attempt])
            .chain_update(tsi.as_str())
            .finalize();
        let seed = digest.iter().take(8).fold(0, |seed, b| seed << 8 | u64::from(*b));
        let mac = TsMac::local(seed);
        if tx.get(&keys::mac(vn.vni, mac.get()))?.is_none() {
            return Ok(mac);
        }
    }
    Err(RegistryError::NoMac(tsi.clone()))
}

fn choose_ip(
    tx: &dyn Transaction,
    pools: &Mutex<Pools>,
    vn: &VnSpec,
    v4: bool,
) -> Result<TenantIp, RegistryError> {
    loop {
        let next = with_pools(tx, pools, vn, |p| p.next(v4))?;
        let Some(ip) = next else {
            let subnets = vn.subnets.iter().filter(|net| matches!(net, IpNet::V4(_)) == v4).collect();
            return Err(RegistryError::SubnetFull { vn: vn.name.clone(), subnets });
        };
        match TenantIp::new(ip) {
            // The pool is only a hint: another Oracle may have taken it.
            Ok(tenant) if tx.get(&keys::ip(vn.vni, ip))?.is_none() => return Ok(tenant),
            _ => with_pools(tx, pools, vn, |p| p.mark(ip))?,
        }
    }
}

/// Runs `f` on the VN's pools, which are read from the store at first.
pub(super) fn with_pools<R>(
    tx: &dyn Transaction,
    pools: &Mutex<Pools>,
    vn: &VnSpec,
    f: impl FnOnce(&mut VnPools) -> R,
) -> Result<R, StoreError> {
    let mut pools = pool::lock(pools);
    if pools.get(&vn.vni).is_none_or(|p| p.subnets != vn.subnets) {
        pools.insert(vn.vni, load(tx, vn.vni, &vn.subnets)?);
    }
    let fresh = || VnPools::new(&vn.subnets, std::iter::empty());
    Ok(f(pools.entry(vn.vni).or_insert_with(fresh)))
}

fn load(tx: &dyn Transaction, vni: Vni, subnets: &Subnets) -> Result<VnPools, StoreError> {
    let prefix = keys::ips(vni);
    let mut used: Vec<IpAddr> = Vec::new();
    tx.scan(&prefix, &mut |key, _| {
        let text = key.get(prefix.len()..).and_then(|t| core::str::from_utf8(t).ok());
        used.extend(text.and_then(|t| t.parse::<IpAddr>().ok()));
        true
    })?;
    Ok(VnPools::new(subnets, used.into_iter()))
}
