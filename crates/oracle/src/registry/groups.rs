//! Security groups: their rules, and who is in them.

use super::{Caller, Registry, RegistryError, decode, grants, keys, read, vns, write};
use crate::store::{Revision, StoreError, Transaction};
use std::collections::BTreeSet;
use weft_api::{GrantView, GroupView, PutGroup};
use weft_model::{GroupLimits, GroupName, TsiName, VnName, VnSpec, Vni};

/// How many users of a group are named that is not to be deleted.
const NAMED: usize = 3;

impl Registry {
    /// Makes a security group, or gives it other rules. Whether it is new.
    ///
    /// # Errors
    /// [`RegistryError::NoVn`], [`RegistryError::NoGroup`] for one that a rule names,
    /// [`RegistryError::GroupOutdated`] and [`RegistryError::TooManyInPolicy`].
    pub async fn put_group(
        &self,
        vn: VnName,
        name: GroupName,
        group: PutGroup,
    ) -> Result<((GroupView, bool), Revision), RegistryError> {
        let limits = self.limits;
        self.run(move |tx| put(tx, &vn, &name, &group, &limits)).await
    }

    /// Deletes a security group that nobody uses.
    ///
    /// # Errors
    /// [`RegistryError::NoVn`], [`RegistryError::NoGroup`] or [`RegistryError::GroupInUse`].
    pub async fn delete_group(
        &self,
        vn: VnName,
        name: GroupName,
    ) -> Result<(GroupView, Revision), RegistryError> {
        self.run(move |tx| {
            let vn = vns::find(tx, &vn)?;
            let group = find(tx, &vn, &name)?;
            let users = users(tx, &vn, &name)?;
            if !users.is_empty() {
                let (count, first) = (users.len(), users.into_iter().take(NAMED).collect());
                return Err(RegistryError::GroupInUse { vn: vn.name, group: name.clone(), count, first });
            }
            tx.delete(keys::group(vn.vni, &name));
            Ok(group)
        })
        .await
    }

    /// Says which security groups a tenant system is in, wherever it is; none: its VN's default ones.
    ///
    /// # Errors
    /// [`RegistryError::NoVn`], [`RegistryError::NoTsi`], [`RegistryError::NoGroup`] or
    /// [`RegistryError::TooManyInPolicy`].
    pub async fn set_groups(
        &self,
        vn: VnName,
        tsi: TsiName,
        groups: BTreeSet<GroupName>,
    ) -> Result<(GrantView, Revision), RegistryError> {
        let limits = self.limits;
        self.run(move |tx| {
            let vn = vns::find(tx, &vn)?;
            let mut view = grants::held_by(tx, &vn, &tsi, &Caller::Operator)?;
            check(tx, &vn, &groups, &limits)?;
            view.grant.groups.clone_from(&groups);
            write(tx, keys::grant(vn.vni, &tsi), &view)?;
            Ok(view)
        })
        .await
    }
}

fn find(tx: &dyn Transaction, vn: &VnSpec, name: &GroupName) -> Result<GroupView, RegistryError> {
    let none = || RegistryError::NoGroup { vn: vn.name.clone(), group: name.clone() };
    read(tx, &keys::group(vn.vni, name))?.ok_or_else(none)
}

fn put(
    tx: &mut dyn Transaction,
    vn: &VnName,
    name: &GroupName,
    put: &PutGroup,
    limits: &GroupLimits,
) -> Result<(GroupView, bool), RegistryError> {
    if name.as_str() == "none" {
        return Err(RegistryError::NoGroupsName);
    }
    let vn = vns::find(tx, vn)?;
    let key = keys::group(vn.vni, name);
    let old: Option<GroupView> = read(tx, &key)?;
    let has = old.as_ref().map_or(0, |old| old.revision);
    if let Some(asked) = put.revision.filter(|asked| *asked != has) {
        return Err(RegistryError::GroupOutdated { vn: vn.name, group: name.clone(), has, asked });
    }
    let rules = put.rules.rules().len();
    within(rules, limits.rules, "rules", || format!("security group '{name}'"))?;
    if old.is_none() {
        let mut others = 0;
        tx.scan(&keys::groups(vn.vni), &mut |_, _| {
            others += 1;
            true
        })?;
        within(others + 1, limits.per_vn, "security groups", || format!("VN '{}'", vn.name))?;
    }
    // Its own name in its rules is the one it is about to have.
    for peer in put.rules.peers().filter(|peer| *peer != name).collect::<BTreeSet<_>>() {
        find(tx, &vn, peer)?;
    }
    // The same again is no news to anybody.
    if let Some(old) = old.filter(|old| old.rules == put.rules) {
        return Ok((old, false));
    }
    let rules = put.rules.clone();
    let group = GroupView { vn: vn.name, vni: vn.vni, name: name.clone(), revision: has + 1, rules };
    write(tx, key, &group)?;
    Ok((group, has == 0))
}

/// Whether a tenant system of the VN may be in these groups.
pub(super) fn check(
    tx: &dyn Transaction,
    vn: &VnSpec,
    groups: &BTreeSet<GroupName>,
    limits: &GroupLimits,
) -> Result<(), RegistryError> {
    within(groups.len(), limits.per_tsi, "security groups", || "a tenant system".to_owned())?;
    groups.iter().try_for_each(|name| find(tx, vn, name).map(drop))
}

fn within(
    got: usize,
    max: usize,
    of: &'static str,
    what: impl FnOnce() -> String,
) -> Result<(), RegistryError> {
    if got > max { Err(RegistryError::TooManyInPolicy { what: what(), max, of, got }) } else { Ok(()) }
}

/// Who needs a group, in words.
fn users(tx: &dyn Transaction, vn: &VnSpec, name: &GroupName) -> Result<Vec<String>, StoreError> {
    let mut users = Vec::new();
    if vn.default_groups.contains(name) {
        users.push(format!("VN '{}' by default", vn.name));
    }
    let mut damaged = None;
    tx.scan(&keys::groups(vn.vni), &mut |key, value| {
        match decode::<GroupView>(key, value) {
            Ok(other) if other.name != *name && other.rules.peers().any(|peer| peer == name) => {
                users.push(format!("rules of group '{}'", other.name));
            }
            Ok(_) => {}
            Err(e) => damaged = Some(e),
        }
        damaged.is_none()
    })?;
    tx.scan(&keys::grants(vn.vni), &mut |key, value| {
        match decode::<GrantView>(key, value) {
            Ok(view) if view.grant.groups.contains(name) => users.push(format!("'{}'", view.grant.tsi.name)),
            Ok(_) => {}
            Err(e) => damaged = Some(e),
        }
        damaged.is_none()
    })?;
    damaged.map_or(Ok(users), Err)
}

/// Forgets the groups of a VN, with it.
pub(super) fn forget_vn(tx: &mut dyn Transaction, vni: Vni) -> Result<(), StoreError> {
    let mut all = Vec::new();
    tx.scan(&keys::groups(vni), &mut |key, _| {
        all.push(key.to_vec());
        true
    })?;
    all.into_iter().for_each(|key| tx.delete(key));
    Ok(())
}
