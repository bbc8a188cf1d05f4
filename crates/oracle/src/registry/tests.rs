//! Operations one by one, by concern, and any sequence of them.

mod addresses;
mod connections;
mod grants;
mod groups;
mod history;
mod joins;
mod moves;
mod tunnels;
mod vns;
mod xtrs;

use super::*;
use crate::pki::{NVE_TTL_S, PkiError, Signed};
use crate::store::MemoryStore;
use std::collections::BTreeSet;
use weft_api::{NewToken, NewVn, NewXtr, VnChange};
use weft_model::{Epoch, Learning, Miss, NveName, Subnets, TenantIp, VnName, XtrId};

fn block<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(future)
}

fn memory() -> Registry {
    Registry::new(Arc::new(MemoryStore::new(64)))
}

fn n(name: &str) -> VnName {
    VnName::new(name).unwrap()
}

fn new_vn(name: &str, vni: Option<u32>, subnets: &[&str]) -> NewVn {
    let nets = subnets.iter().map(|s| s.parse().unwrap()).collect();
    NewVn {
        name: n(name),
        vni: vni.map(|v| v.try_into().unwrap()),
        subnets: Subnets::new(nets).unwrap(),
        learning: Default::default(),
        reply: Default::default(),
        bum: Default::default(),
        storm: Default::default(),
        miss: Default::default(),
        gateway: None,
    }
}

fn enrol(r: &Registry, id: u8) -> XtrId {
    let secret = format!("secret{id}");
    block(r.create_token(NewToken::default(), &secret, 0)).unwrap();
    let wish = enrolment(&secret, id);
    block(r.join(wish, 1, sign(1))).unwrap().xtr_id
}

/// A certificate that says whose it is and when it was made.
fn sign(now: u64) -> impl Fn(XtrId) -> Result<Signed, PkiError> + Send + 'static {
    move |id| Ok(Signed { certificate: format!("{id} at {now}"), expires_at: now + NVE_TTL_S })
}

fn enrolment(secret: &str, id: u8) -> Enrolment {
    Enrolment {
        secret: secret.into(),
        csr: format!("csr{id}"),
        name: NveName::new(format!("nve{id}")).unwrap(),
        rlocs: BTreeSet::from([format!("192.0.2.{id}").parse().unwrap()]),
        xtr_id: XtrId([id; 16]),
    }
}

fn wish(vn: &str, tsi: &str, owner: XtrId, ips: &[&str]) -> Wish {
    Wish {
        vn: n(vn),
        tsi: n(tsi),
        mac: None,
        ips: ips.iter().map(|i| i.parse().unwrap()).collect(),
        groups: BTreeSet::new(),
        owner,
        start: None,
    }
}

fn nve(id: u8) -> Caller {
    Caller::Nve { xtr_id: XtrId([id; 16]), name: NveName::new(format!("nve{id}")).unwrap(), start: None }
}

fn texts(ips: &BTreeSet<TenantIp>) -> Vec<String> {
    ips.iter().map(ToString::to_string).collect()
}

fn new_xtr(name: &str, id: u8, key: &str, rloc: &str) -> NewXtr {
    NewXtr {
        name: n(name),
        rlocs: BTreeSet::from([rloc.parse().unwrap()]),
        xtr_id: Some(XtrId([id; 16])),
        site_id: Default::default(),
        key_id: 1,
        algorithm: weft_api::KeyAlgorithm::HmacSha256,
        key: key.into(),
        pubsub_key: None,
        vns: BTreeSet::from([n("red")]),
    }
}
