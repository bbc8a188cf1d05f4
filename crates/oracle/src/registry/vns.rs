//! Virtual networks.

use super::{Registry, RegistryError, decode, groups, keys, keys::Kind, nves, pool, read, write};
use crate::store::{Revision, Transaction};
use std::{collections::BTreeSet, net::IpAddr};
use weft_api::{GrantView, NewVn, VnChange};
use weft_model::{Learning, Miss, NveName, Reply, Storm, TunnelPolicy, VnName, VnSpec, Vni, XtrId};

/// The first VNID that is chosen for a VN: past the VLAN IDs, with which small ones get confused.
const FIRST_CHOSEN: u32 = 4097;

impl Registry {
    /// Creates a VN.
    ///
    /// # Errors
    /// [`RegistryError::VnTaken`], [`RegistryError::VniTaken`], [`RegistryError::NoVniLeft`],
    /// [`RegistryError::PushForward`], [`RegistryError::NoGateway`], [`RegistryError::NothingToCarry`],
    /// [`RegistryError::NoNve`] and [`RegistryError::OutOfScope`].
    pub async fn create_vn(&self, new: NewVn) -> Result<(VnSpec, Revision), RegistryError> {
        self.run(move |tx| create(tx, &new)).await
    }

    /// Changes how a VN behaves, whoever is in it.
    ///
    /// # Errors
    /// [`RegistryError::NoVn`], [`RegistryError::Storm`], and those of what a VN may be, as for a new one.
    pub async fn change_vn(
        &self,
        name: VnName,
        change: VnChange,
    ) -> Result<(VnSpec, Revision), RegistryError> {
        let limits = self.limits;
        self.run(move |tx| {
            let old = find(tx, &name)?;
            let new = VnSpec {
                learning: change.learning.unwrap_or(old.learning),
                reply: change.reply.unwrap_or(old.reply),
                bum: change.bum.unwrap_or(old.bum),
                storm: Storm::new(
                    change.storm_rate.unwrap_or(old.storm.rate()),
                    change.storm_burst.unwrap_or(old.storm.burst()),
                )?,
                miss: change.miss.unwrap_or(old.miss),
                gateway: change.gateway.clone().unwrap_or_else(|| old.gateway.clone()),
                default_groups: change.default_groups.clone().unwrap_or_else(|| old.default_groups.clone()),
                log_refused: change.log_refused.unwrap_or(old.log_refused),
                tunnel: change.tunnel.map_or(old.tunnel, |change| change.of(&old.tunnel)),
                ..old.clone()
            };
            new.tunnel.check()?;
            if new.tunnel != old.tunnel {
                leaves_everybody_an_rloc(tx, &new)?;
            }
            if change.default_groups.is_some() {
                groups::check(tx, &new, &new.default_groups, &limits)?;
            }
            check(tx, &new, change.gateway.as_ref().is_some_and(Option::is_some))?;
            // The same again is no news to anybody.
            if new != old {
                write(tx, keys::vn(&name), &new)?;
            }
            Ok(new)
        })
        .await
    }

    /// Deletes a VN without tenant systems.
    ///
    /// # Errors
    /// [`RegistryError::NoVn`] or [`RegistryError::VnInUse`].
    pub async fn delete_vn(&self, name: VnName) -> Result<(VnSpec, Revision), RegistryError> {
        let pools = self.pools.clone();
        self.run(move |tx| {
            let vn = find(tx, &name)?;
            let mut first = Vec::new();
            let mut count = 0;
            let prefix = keys::grants(vn.vni);
            tx.scan(&prefix, &mut |key, _| {
                if count < 3 {
                    let tsi = key.get(prefix.len()..).unwrap_or_default();
                    first.push(String::from_utf8_lossy(tsi).into_owned());
                }
                count += 1;
                true
            })?;
            if count > 0 {
                return Err(RegistryError::VnInUse { vn: name.clone(), count, first });
            }
            super::xtrs::forget_vn(tx, vn.vni)?;
            groups::forget_vn(tx, vn.vni)?;
            super::connections::forget_vn(tx, vn.vni)?;
            tx.delete(keys::vn(&name));
            tx.delete(keys::vni(vn.vni));
            pool::lock(&pools).remove(&vn.vni);
            Ok(vn)
        })
        .await
    }
}

/// The VN called `name`.
pub(super) fn find(tx: &dyn Transaction, name: &VnName) -> Result<VnSpec, RegistryError> {
    read(tx, &keys::vn(name))?.ok_or_else(|| RegistryError::NoVn(name.clone()))
}

fn create(tx: &mut dyn Transaction, new: &NewVn) -> Result<VnSpec, RegistryError> {
    if let Some(net) = new.subnets.iter().find(|net| link_local(net.addr())) {
        return Err(RegistryError::LinkLocalSubnet(net));
    }
    if let Some(VnSpec { name, vni, .. }) = read(tx, &keys::vn(&new.name))? {
        return Err(RegistryError::VnTaken { name, vni });
    }
    let vni = match new.vni {
        Some(vni) => {
            if let Some(holder) = read(tx, &keys::vni(vni))? {
                return Err(RegistryError::VniTaken { vni, holder });
            }
            vni
        }
        None => choose(tx)?,
    };
    let NewVn { name, subnets, learning, reply, bum, storm, miss, gateway, .. } = new.clone();
    // Nobody is in a group of a VN that has none yet.
    let (default_groups, log_refused) = (BTreeSet::new(), false);
    let spec = VnSpec {
        name,
        vni,
        subnets,
        learning,
        reply,
        bum,
        storm,
        miss,
        gateway,
        default_groups,
        log_refused,
        tunnel: TunnelPolicy::default(),
    };
    check(tx, &spec, true)?;
    write(tx, keys::vn(&spec.name), &spec)?;
    write(tx, keys::vni(vni), &spec.name)?;
    Ok(spec)
}

/// Whether a VN may be so. Its gateway is looked at when it is `named`: one that was removed since is no reason to
/// refuse another change.
fn check(tx: &dyn Transaction, vn: &VnSpec, named: bool) -> Result<(), RegistryError> {
    // Who is told everything is told by whoever answers for it: RFC 9437 section 3 wants Map-Servers that reply.
    if (vn.learning, vn.reply) == (Learning::Distribute, Reply::Forward) {
        return Err(RegistryError::PushForward);
    }
    if vn.miss == Miss::Gateway && matches!(vn.learning, Learning::Flood | Learning::Translate) {
        return Err(RegistryError::NothingToCarry(vn.name.clone()));
    }
    let Some(name) = &vn.gateway else {
        return if vn.miss == Miss::Gateway {
            Err(RegistryError::NoGateway(vn.name.clone()))
        } else {
            Ok(())
        };
    };
    if !named {
        return Ok(());
    }
    let none = || RegistryError::NoNve(name.clone());
    let id: XtrId = read(tx, &keys::nve_name(name))?.ok_or_else(none)?;
    // A plain xTR has a name, too, but knows nothing of frames that are not its own.
    let nve = nves::find(tx, id)?.ok_or_else(none)?;
    if nve.vns.is_some_and(|vns| !vns.contains(&vn.name)) {
        return Err(RegistryError::OutOfScope { nve: name.clone(), vn: vn.name.clone() });
    }
    Ok(())
}

/// Ends what an NVE that goes away is the gateway of: with `force` its VNs have none any more, and let frames wait.
/// Without, that is refused.
pub(super) fn let_gateway_go(
    tx: &mut dyn Transaction,
    nve: &NveName,
    force: bool,
) -> Result<(), RegistryError> {
    let mut vns = Vec::new();
    let mut damaged = None;
    tx.scan(Kind::Vn.prefix(), &mut |key, value| {
        match decode::<VnSpec>(key, value) {
            Ok(vn) if vn.gateway.as_ref() == Some(nve) => vns.push(vn),
            Ok(_) => {}
            Err(e) => damaged = Some(e),
        }
        damaged.is_none()
    })?;
    if let Some(e) = damaged {
        return Err(e.into());
    }
    if !force && !vns.is_empty() {
        let vns = vns.into_iter().map(|vn| vn.name).collect();
        return Err(RegistryError::IsGateway { nve: nve.clone(), vns });
    }
    for vn in vns {
        let miss = if vn.miss == Miss::Gateway { Miss::Queue } else { vn.miss };
        write(tx, keys::vn(&vn.name), &VnSpec { gateway: None, miss, ..vn.clone() })?;
    }
    Ok(())
}

/// Link-local addresses are the tenants' own to choose in every VN (RFC 3927, RFC 4291 section 2.5.6).
fn link_local(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(ip) => ip.is_link_local(),
        IpAddr::V6(ip) => ip.is_unicast_link_local(),
    }
}

/// A free VNID after the one chosen last: one of a deleted VN rests as long as possible.
fn choose(tx: &mut dyn Transaction) -> Result<Vni, RegistryError> {
    let start: u32 = read(tx, keys::VNI_CURSOR)?.unwrap_or(FIRST_CHOSEN);
    for vni in (start..=Vni::MAX).chain(1..start) {
        let Ok(vni) = Vni::new(vni) else { continue };
        if tx.get(&keys::vni(vni))?.is_none() {
            let next = if vni.get() == Vni::MAX { 1 } else { vni.get() + 1 };
            write(tx, keys::VNI_CURSOR.to_vec(), &next)?;
            return Ok(vni);
        }
    }
    Err(RegistryError::NoVniLeft)
}

/// Whether each tenant system of a VN can be sent to, by its own tunnel policy over the VN's.
fn leaves_everybody_an_rloc(tx: &dyn Transaction, vn: &VnSpec) -> Result<(), RegistryError> {
    let mut result = Ok(());
    tx.scan(&keys::grants(vn.vni), &mut |key, value| {
        result = match decode::<GrantView>(key, value) {
            Ok(view) if view.grant.tunnel.over(&vn.tunnel).check().is_err() => {
                Err(RegistryError::NoFamilyLeftFor { vn: vn.name.clone(), tsi: view.grant.tsi.name })
            }
            Ok(_) => Ok(()),
            Err(e) => Err(e.into()),
        };
        result.is_ok()
    })?;
    result
}
