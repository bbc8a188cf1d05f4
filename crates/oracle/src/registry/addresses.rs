//! Addresses of tenant systems that are there: taken and given back in one transaction.

use super::{
    Caller, Granted, Registry, RegistryError,
    grants::{count_ips, free_ip, held_by, with_pools},
    keys, vns, write,
};
use crate::store::Revision;
use weft_api::ChangeAddresses;
use weft_model::{TsiName, VnName};

impl Registry {
    /// Takes addresses for a tenant system and gives others of it back; those that it has, or has not, already are no
    /// error. Its owner's to do, or an operator's.
    ///
    /// # Errors
    /// Whatever stands in the way, by name: see [`RegistryError`]. Nothing was changed then.
    pub async fn change_addresses(
        &self,
        vn: VnName,
        tsi: TsiName,
        change: ChangeAddresses,
        caller: Caller,
    ) -> Result<(Granted, Revision), RegistryError> {
        let pools = self.pools.clone();
        self.run(move |tx| {
            let vn = vns::find(tx, &vn)?;
            let mut view = held_by(tx, &vn, &tsi, &caller)?;
            let has = view.grant.ips.clone();
            let gone: Vec<_> = change.remove.intersection(&has).copied().collect();
            let new: Vec<_> = change.add.difference(&has).copied().collect();
            for ip in &gone {
                view.grant.ips.remove(ip);
            }
            for ip in &new {
                free_ip(tx, &vn, *ip)?;
                view.grant.ips.insert(*ip);
            }
            count_ips(&tsi, &view.grant.ips)?;
            if gone.is_empty() && new.is_empty() {
                return Ok(Granted { view, vn: vn.clone(), created: false });
            }
            for ip in &gone {
                tx.delete(keys::ip(vn.vni, ip.get()));
            }
            for ip in &new {
                write(tx, keys::ip(vn.vni, ip.get()), &tsi)?;
            }
            write(tx, keys::grant(vn.vni, &tsi), &view)?;
            with_pools(tx, &pools, &vn, |p| {
                gone.iter().for_each(|ip| p.unmark(ip.get()));
                new.iter().for_each(|ip| p.mark(ip.get()));
            })?;
            Ok(Granted { view, vn: vn.clone(), created: false })
        })
        .await
    }
}
