//! The keys of the store. Text, so that a backup can be read; numbers have a fixed width.

use core::net::IpAddr;
use weft_model::{GroupName, MacAddr, Name, TsiName, Vni, XtrId};

/// The kinds of objects that facts and watches are about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Vn,
    Grant,
    Nve,
    Xtr,
    Group,
    Connection,
}

impl Kind {
    /// What the keys of this kind begin with.
    pub(crate) const fn prefix(self) -> &'static [u8] {
        match self {
            Self::Vn => b"vn/",
            Self::Grant => b"grant/",
            Self::Nve => b"nve/",
            Self::Xtr => b"xtr/",
            Self::Group => b"group/",
            Self::Connection => b"connection/",
        }
    }

    /// The kind a key is of.
    pub(crate) fn of(key: &[u8]) -> Option<Self> {
        let all = [Self::Vn, Self::Grant, Self::Nve, Self::Xtr, Self::Group, Self::Connection];
        all.into_iter().find(|kind| key.starts_with(kind.prefix()))
    }
}

/// The VN and the name in a key of a grant or group.
pub(crate) fn in_vn(key: &[u8]) -> Option<(Vni, Name)> {
    let text = core::str::from_utf8(key).ok()?;
    let mut parts = text.splitn(3, '/').skip(1);
    let vni = u32::from_str_radix(parts.next()?, 16).ok()?;
    Some((Vni::new(vni).ok()?, Name::new(parts.next()?).ok()?))
}

pub(super) fn vn(name: &Name) -> Vec<u8> {
    format!("vn/{name}").into_bytes()
}

pub(super) fn vni(vni: Vni) -> Vec<u8> {
    format!("vni/{:06x}", vni.get()).into_bytes()
}

/// Where the search for a free VNID goes on.
pub(super) const VNI_CURSOR: &[u8] = b"cursor/vni";

pub(crate) fn grants(vni: Vni) -> Vec<u8> {
    format!("grant/{:06x}/", vni.get()).into_bytes()
}

pub(crate) fn grant(vni: Vni, tsi: &TsiName) -> Vec<u8> {
    format!("grant/{:06x}/{tsi}", vni.get()).into_bytes()
}

pub(crate) fn groups(vni: Vni) -> Vec<u8> {
    format!("group/{:06x}/", vni.get()).into_bytes()
}

pub(crate) fn group(vni: Vni, name: &GroupName) -> Vec<u8> {
    format!("group/{:06x}/{name}", vni.get()).into_bytes()
}

pub(super) fn connections(vni: Vni) -> Vec<u8> {
    format!("connection/{:06x}/", vni.get()).into_bytes()
}

pub(super) fn connection(vni: Vni, nve: XtrId) -> Vec<u8> {
    format!("connection/{:06x}/{nve}", vni.get()).into_bytes()
}

/// The lowest epoch a new grant of the VNID may have. Outlives the VN.
pub(super) fn floor(vni: Vni) -> Vec<u8> {
    format!("floor/{:06x}", vni.get()).into_bytes()
}

pub(super) fn ips(vni: Vni) -> Vec<u8> {
    format!("ip/{:06x}/", vni.get()).into_bytes()
}

pub(super) fn ip(vni: Vni, ip: IpAddr) -> Vec<u8> {
    format!("ip/{:06x}/{ip}", vni.get()).into_bytes()
}

pub(super) fn mac(vni: Vni, mac: MacAddr) -> Vec<u8> {
    format!("mac/{:06x}/{mac}", vni.get()).into_bytes()
}

pub(super) fn nve(id: XtrId) -> Vec<u8> {
    format!("nve/{id}").into_bytes()
}

pub(super) fn xtr(id: XtrId) -> Vec<u8> {
    format!("xtr/{id}").into_bytes()
}

/// The highest nonce of a plain xTR that was acknowledged.
pub(super) fn nonce(id: XtrId) -> Vec<u8> {
    format!("nonce/{id}").into_bytes()
}

/// The last nonces of a plain xTR's subscriptions.
pub(super) fn subscription_nonces(id: XtrId) -> Vec<u8> {
    format!("subscription-nonce/{id}/").into_bytes()
}

pub(super) fn subscription_nonce(id: XtrId, iid: u32, address: &str, mask_len: u8) -> Vec<u8> {
    format!("subscription-nonce/{id}/{iid:06x}/{address}/{mask_len}").into_bytes()
}

/// What plain xTRs with that key (its SHA-256) have left behind.
pub(super) fn nonce_floors(key: &str) -> Vec<u8> {
    format!("nonce-floor/{key}/").into_bytes()
}

pub(super) fn nonce_floor(key: &str, id: XtrId) -> Vec<u8> {
    format!("nonce-floor/{key}/{id}").into_bytes()
}

/// Names of NVEs and of plain xTRs: one space, for grants name either.
pub(super) fn nve_name(name: &Name) -> Vec<u8> {
    format!("nve-name/{name}").into_bytes()
}

pub(super) fn rloc(rloc: IpAddr) -> Vec<u8> {
    format!("rloc/{rloc}").into_bytes()
}

/// Every grant of an NVE, as owner or successor; and, with an empty name, each VN that it is connected to.
pub(crate) fn held(nve: XtrId) -> Vec<u8> {
    format!("held/{nve}/").into_bytes()
}

pub(super) fn held_in(nve: XtrId, vni: Vni) -> Vec<u8> {
    format!("held/{nve}/{:06x}/", vni.get()).into_bytes()
}

pub(super) fn held_one(nve: XtrId, vni: Vni, tsi: &TsiName) -> Vec<u8> {
    format!("held/{nve}/{:06x}/{tsi}", vni.get()).into_bytes()
}

/// That an NVE is connected to a VN, where its grants are looked for.
pub(super) fn held_connection(nve: XtrId, vni: Vni) -> Vec<u8> {
    held_in(nve, vni)
}

/// The latest start of an NVE's agent that has asked for something.
pub(super) fn start(nve: XtrId) -> Vec<u8> {
    format!("start/{nve}").into_bytes()
}

pub(super) const TOKENS: &[u8] = b"token/";

pub(super) fn token(hash: &str) -> Vec<u8> {
    format!("token/{hash}").into_bytes()
}

pub(super) fn joins(token: &str) -> Vec<u8> {
    format!("join/{token}/").into_bytes()
}

pub(super) fn join(token: &str, csr: &str) -> Vec<u8> {
    format!("join/{token}/{csr}").into_bytes()
}
