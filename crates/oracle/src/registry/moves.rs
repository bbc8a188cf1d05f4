//! Moves of tenant systems between NVEs, as far as they are durable: who is next, and who has become the owner.

use super::{Caller, Presence, Registry, RegistryError, grants, keys, nves, read, vns, write};
use crate::store::{Revision, StoreError, Transaction};
use weft_api::GrantView;
use weft_model::{Epoch, NveName, Successor, TsiId, TsiName, VnName, VnSpec, XtrId};

impl Registry {
    /// Names the NVE that a tenant system moves to: it may Associate it from now on, and holds it once it has
    /// Activated it. To name the same one again changes nothing; another one takes its place.
    ///
    /// This is the owner's or an operator's to say: an NVE takes nothing that is another's by itself.
    ///
    /// # Errors
    /// [`RegistryError::NoTsi`], [`RegistryError::GrantedElsewhere`], [`RegistryError::NoNve`],
    /// [`RegistryError::OutOfScope`] or [`RegistryError::MovesNowhere`].
    pub async fn name_next(
        &self,
        vn: VnName,
        tsi: TsiName,
        to: NveName,
        caller: Caller,
    ) -> Result<(GrantView, Revision), RegistryError> {
        self.run(move |tx| {
            let vn = vns::find(tx, &vn)?;
            let mut view = grants::held_by(tx, &vn, &tsi, &caller)?;
            let nve = holder_in(tx, &to, &vn)?;
            let grant = &view.grant;
            if grant.owner == nve {
                return Err(RegistryError::MovesNowhere { vn: vn.name, tsi: tsi.clone(), nve: to.clone() });
            }
            if grant.next.is_some_and(|next| next.nve == nve) {
                return Ok(view);
            }
            let epoch = grant.highest_epoch().next();
            if let Some(other) = grant.next {
                tx.delete(keys::held_one(other.nve, vn.vni, &tsi));
            }
            tx.put(keys::held_one(nve, vn.vni, &tsi), Vec::new());
            view.grant.next = Some(Successor { nve, epoch });
            write(tx, keys::grant(vn.vni, &tsi), &view)?;
            Ok(view)
        })
        .await
    }

    /// Calls a move off: by the owner, by the NVE it was to go to, or by an operator. Nothing happens when there is
    /// none.
    ///
    /// # Errors
    /// [`RegistryError::NoTsi`] or [`RegistryError::GrantedElsewhere`].
    pub async fn call_off(
        &self,
        vn: VnName,
        tsi: TsiName,
        caller: Caller,
    ) -> Result<(GrantView, Revision), RegistryError> {
        self.run(move |tx| {
            let vn = vns::find(tx, &vn)?;
            let mut view = grants::named_by(tx, &vn, &tsi, &caller)?;
            end_move(tx, &mut view)?;
            Ok(view)
        })
        .await
    }

    /// Has `to` hold a tenant system from now on, whoever held it or was to be next, unless one of those is
    /// there by its `presence`: its host is gone, or an operator knows better. What the former holder still says of it is outdated by the epoch.
    ///
    /// # Errors
    /// [`RegistryError::Forbidden`] unless an operator says so, [`RegistryError::NoTsi`], [`RegistryError::NoNve`],
    /// [`RegistryError::OutOfScope`], [`RegistryError::MovesNowhere`] or [`RegistryError::HolderConnected`].
    pub async fn take_over(
        &self,
        vn: VnName,
        tsi: TsiName,
        to: NveName,
        caller: Caller,
        presence: impl Fn(XtrId) -> Presence + Send + 'static,
    ) -> Result<(GrantView, Revision), RegistryError> {
        self.run(move |tx| {
            if caller != Caller::Operator {
                return Err(RegistryError::Forbidden(format!(
                    "'{tsi}' in VN '{vn}' is an operator's to have taken over; an owner says where it moves to"
                )));
            }
            let vn = vns::find(tx, &vn)?;
            let mut view = grants::held_by(tx, &vn, &tsi, &caller)?;
            let nve = holder_in(tx, &to, &vn)?;
            if view.grant.owner == nve {
                return Err(RegistryError::MovesNowhere { vn: vn.name, tsi: tsi.clone(), nve: to.clone() });
            }
            let next = view.grant.next.map(|next| next.nve).filter(|next| *next != nve);
            grants::not_connected(tx, &view, [Some(view.grant.owner), next].into_iter().flatten(), &presence)?;
            if let Some(other) = view.grant.next.filter(|next| next.nve != nve) {
                tx.delete(keys::held_one(other.nve, vn.vni, &tsi));
            }
            tx.put(keys::held_one(nve, vn.vni, &tsi), Vec::new());
            view.grant.next = Some(Successor { nve, epoch: view.grant.highest_epoch().next() });
            hand_over(tx, &mut view)?;
            Ok(view)
        })
        .await
    }

    /// Writes down that the grant's successor has become its holder. Nothing happens if the grant
    /// has changed meanwhile.
    ///
    /// # Errors
    /// [`RegistryError::Store`].
    pub async fn succeed(&self, tsi: TsiId, nve: XtrId, epoch: Epoch) -> Result<(), RegistryError> {
        self.run(move |tx| {
            let key = keys::grant(tsi.vni, &tsi.name);
            let Some(mut view) = read::<GrantView>(tx, &key)? else { return Ok(()) };
            if view.grant.next == Some(Successor { nve, epoch }) {
                hand_over(tx, &mut view)?;
            }
            Ok(())
        })
        .await
        .map(|_| ())
    }
}

/// The NVE of that name, if it may hold tenant systems of the VN.
fn holder_in(tx: &dyn Transaction, to: &NveName, vn: &VnSpec) -> Result<XtrId, RegistryError> {
    let nve: XtrId = read(tx, &keys::nve_name(to))?.ok_or_else(|| RegistryError::NoNve(to.clone()))?;
    let (_, scope) = nves::holder(tx, nve)?.ok_or_else(|| RegistryError::NoNve(to.clone()))?;
    if scope.is_some_and(|scope| !scope.contains(&vn.name)) {
        return Err(RegistryError::OutOfScope { nve: to.clone(), vn: vn.name.clone() });
    }
    Ok(nve)
}

/// The successor, if there is one, becomes the owner.
pub(super) fn hand_over(tx: &mut dyn Transaction, view: &mut GrantView) -> Result<bool, StoreError> {
    let Some(next) = view.grant.next else { return Ok(false) };
    let Some((name, _)) = nves::holder(tx, next.nve)? else { return Ok(false) };
    let tsi = view.grant.tsi.clone();
    tx.delete(keys::held_one(view.grant.owner, tsi.vni, &tsi.name));
    view.nve = name;
    view.grant.owner = next.nve;
    view.grant.epoch = next.epoch;
    view.grant.next = None;
    write(tx, keys::grant(tsi.vni, &tsi.name), view)?;
    Ok(true)
}

/// Nobody is next any more. The owner's epoch becomes higher than that of who was: what that one may yet say
/// of itself is outdated.
pub(super) fn end_move(tx: &mut dyn Transaction, view: &mut GrantView) -> Result<(), StoreError> {
    let Some(next) = view.grant.next.take() else { return Ok(()) };
    let tsi = &view.grant.tsi;
    tx.delete(keys::held_one(next.nve, tsi.vni, &tsi.name));
    view.grant.epoch = view.grant.epoch.max(next.epoch).next();
    write(tx, keys::grant(tsi.vni, &tsi.name), view)
}
