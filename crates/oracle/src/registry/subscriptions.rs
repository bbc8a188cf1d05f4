//! The nonces of plain xTRs' subscriptions (RFC 9437 section 5). Who is subscribed is not kept: that is soft.

use super::{Registry, RegistryError, decode, keys, read, write, xtrs};
use crate::store::{StoreError, Transaction};
use serde::{Deserialize, Serialize};
use std::{collections::BTreeMap, net::IpAddr};
use weft_lisp::{Eid, EidAddr};
use weft_model::{MacAddr, XtrId};

/// The last nonce that was acknowledged of one EID-Prefix.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct SubscriptionNonce {
    iid: u32,
    address: String,
    mask_len: u8,
    nonce: u64,
}

impl SubscriptionNonce {
    fn new(eid: Eid, nonce: u64) -> Self {
        Self { iid: eid.iid(), address: address(eid), mask_len: eid.mask_len(), nonce }
    }

    /// None when it was not written by us.
    fn eid(&self) -> Option<Eid> {
        let mac = self.address.parse::<MacAddr>().ok().map(|mac| EidAddr::Mac(mac.octets()));
        let ip = || self.address.parse::<IpAddr>().ok().map(EidAddr::from);
        Eid::prefix(self.iid, mac.or_else(ip)?, self.mask_len).ok()
    }
}

fn address(eid: Eid) -> String {
    match eid.addr() {
        EidAddr::Ipv4(ip) => ip.to_string(),
        EidAddr::Ipv6(ip) => ip.to_string(),
        EidAddr::Mac(mac) => MacAddr(mac).to_string(),
    }
}

/// The last nonces of a plain xTR, by EID-Prefix.
pub(crate) fn subscription_nonces(tx: &dyn Transaction, id: XtrId) -> Result<BTreeMap<Eid, u64>, StoreError> {
    let (mut found, mut damaged) = (BTreeMap::new(), None);
    tx.scan(&keys::subscription_nonces(id), &mut |key, value| {
        match decode::<SubscriptionNonce>(key, value) {
            Ok(one) => match one.eid() {
                Some(eid) => drop(found.insert(eid, one.nonce)),
                None => {
                    let (key, reason) =
                        (String::from_utf8_lossy(key).into_owned(), "no EID-Prefix".to_owned());
                    damaged = Some(StoreError::Damaged { key, reason });
                }
            },
            Err(e) => damaged = Some(e),
        }
        damaged.is_none()
    })?;
    damaged.map_or(Ok(found), Err)
}

/// Forgets them with their xTR.
pub(super) fn forget(tx: &mut dyn Transaction, id: XtrId) -> Result<(), StoreError> {
    for eid in subscription_nonces(tx, id)?.into_keys() {
        tx.delete(key(id, eid));
    }
    Ok(())
}

fn key(id: XtrId, eid: Eid) -> Vec<u8> {
    keys::subscription_nonce(id, eid.iid(), &address(eid), eid.mask_len())
}

impl Registry {
    /// Writes down the nonces that plain xTRs have acknowledged of subscriptions, or forgets them, in one commit.
    ///
    /// # Errors
    /// [`RegistryError::Store`].
    pub async fn save_subscription_nonces(
        &self,
        nonces: Vec<(XtrId, Eid, Option<u64>)>,
    ) -> Result<(), RegistryError> {
        self.run(move |tx| {
            for (id, eid, nonce) in &nonces {
                let key = key(*id, *eid);
                let Some(nonce) = *nonce else {
                    tx.delete(key);
                    continue;
                };
                let saved: Option<SubscriptionNonce> = read(tx, &key)?;
                if saved.is_none_or(|saved| saved.nonce < nonce) && xtrs::find(tx, *id)?.is_some() {
                    write(tx, key, &SubscriptionNonce::new(*eid, nonce))?;
                }
            }
            Ok(())
        })
        .await
        .map(|_| ())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn n7_prefixes_of_every_family_are_read_as_they_were_written() {
        let all = [
            Eid::prefix(7, std::net::Ipv4Addr::UNSPECIFIED, 0),
            Eid::prefix(7, std::net::Ipv6Addr::UNSPECIFIED, 0),
            Eid::prefix(7, [0; 6], 0),
            Eid::prefix(7, [2, 0, 0, 0, 0, 9], 48),
            Eid::prefix(0x00ff_ffff, "fd00::1".parse::<std::net::Ipv6Addr>().unwrap(), 128),
        ];
        for eid in all.map(Result::unwrap) {
            let text = serde_json::to_string(&SubscriptionNonce::new(eid, u64::MAX)).unwrap();
            let read: SubscriptionNonce = serde_json::from_str(&text).unwrap();
            assert_eq!((read.eid(), read.nonce), (Some(eid), u64::MAX), "{text}");
        }
    }
}
