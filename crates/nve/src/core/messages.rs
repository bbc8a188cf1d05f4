//! LISP messages as the NVE means them: what it sends of its tenant systems and questions, and
//! what it reads from answers. The one place where model and wire types meet.

use ::core::{
    cmp::Reverse,
    net::{IpAddr, SocketAddr},
};
use std::collections::BTreeSet;
use weft_lisp::{
    Action, Address, AuthData, Ecm, EcmHeader, Eid as WireEid, EidAddr, EidRecord, EncodeError,
    EncodeOptions, Inner, List, Locator, MapRegister, MapReply, MapRequest, MapVersion, Record, Xtr,
};
use weft_model::{Eid, Grant, MacAddr, Rloc, TenantIp, TunnelPolicy, Vni, XtrId, digest::Digest};

/// Registrations on a session live with it, and so does what is pushed: the receiver decides when they end.
pub const TTL_SESSION: u32 = u32::MAX;
/// Withdraws a record (requirement N2).
pub const TTL_WITHDRAW: u32 = 0;
/// A locator nobody encapsulates to: of the IP -> MAC record, whose locator is no RLOC, and of an
/// Associated tenant system (RFC 9301 section 5.4).
const UNUSABLE: u8 = Locator::UNUSABLE;

/// What one record of an answer or notification says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Said {
    /// `<VNID, *, MAC>` is behind this RLOC, of whose flows `other` of 2^32 go to the NVE's of the other family.
    Located { vni: Vni, mac: MacAddr, rloc: Rloc, other: u32, version: u16, ttl: u32 },
    /// `<VNID, IP, *>` belongs to this MAC.
    Bound { vni: Vni, ip: TenantIp, mac: MacAddr, version: u16, ttl: u32 },
    /// No such address, for so many minutes.
    Absent { vni: Vni, eid: Eid, ttl: u32 },
    /// What was known of it no longer holds (TTL 0).
    Withdrawn { vni: Vni, eid: Eid },
}

impl Said {
    /// The VN and the address it is about.
    #[must_use]
    pub const fn about(&self) -> (Vni, Eid) {
        match *self {
            Self::Located { vni, mac, .. } => (vni, Eid::Mac(mac)),
            Self::Bound { vni, ip, .. } => (vni, Eid::Ip(ip)),
            Self::Absent { vni, eid, .. } | Self::Withdrawn { vni, eid } => (vni, eid),
        }
    }
}

/// What a Map-Request asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Question {
    /// In this VN,
    pub vni: Vni,
    /// where is, or whose is, this?
    pub wanted: Eid,
    /// Who wants to know.
    pub source: Option<Eid>,
    /// Its MAC and the version of that one's record, to go along (M bit, requirement M5).
    pub along: Option<(MacAddr, MapVersion)>,
    /// What the answer repeats.
    pub nonce: u64,
    /// Another NVE solicits it (s bit, RFC 9301 section 5.2).
    pub invoked: bool,
}

/// Whether a registration is made or taken back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Registering {
    /// The tenant system is Activated here.
    Activated,
    /// It is Associated: known, not reachable.
    Associated,
    /// It is gone.
    Withdrawn,
}

/// The Map-Version that orders what `me` says of a grant against what others do (RFC 9302).
pub fn version_of(grant: &Grant, me: XtrId) -> MapVersion {
    let epoch = grant.epoch_of(me);
    epoch.map_or(MapVersion::NONE, |epoch| MapVersion::new(epoch.map_version()).unwrap_or(MapVersion::NONE))
}

fn wire_eid(vni: Vni, eid: Eid) -> WireEid {
    match eid {
        Eid::Mac(mac) => WireEid::host(vni.get(), mac.octets()),
        Eid::Ip(ip) => match ip.get() {
            IpAddr::V4(v4) => WireEid::host(vni.get(), v4),
            IpAddr::V6(v6) => WireEid::host(vni.get(), v6),
        },
    }
}

/// An address as it stands in a message.
fn address(ip: IpAddr) -> Address<'static> {
    match ip {
        IpAddr::V4(v4) => Address::Ipv4(v4),
        IpAddr::V6(v6) => Address::Ipv6(v6),
    }
}

/// This NVE's RLOCs with the priorities and weights that a tunnel policy gives them. One that would leave none to be used has none
/// of its priorities.
pub fn locators(rlocs: &BTreeSet<Rloc>, tunnel: &TunnelPolicy) -> Vec<Locator<'static>> {
    let of = |rloc: &Rloc| tunnel.priority(rloc.get().is_ipv4());
    let none_left = rlocs.iter().all(|rloc| of(rloc) == UNUSABLE);
    let priority = |rloc: &Rloc| if none_left { 1 } else { of(rloc) };
    let beside = rlocs.iter().any(|rloc| rloc.get().is_ipv4());
    let locator = |rloc: &Rloc| Locator {
        weight: tunnel.weight(rloc.get().is_ipv4(), beside),
        ..Locator::new(address(rloc.get()), priority(rloc))
    };
    rlocs.iter().map(locator).collect()
}

/// A Map-Register for the tenant system of `grant` (requirements N1, N2): its MAC behind `locators`,
/// each IP bound to its MAC. With `proxy_reply` the Oracle is to answer for it.
///
/// # Errors
/// When a tenant system has more addresses than a message holds.
///
/// Gives the digest of the records.
pub fn map_register(
    grant: &Grant,
    proxy_reply: bool,
    (me, locators): (XtrId, &[Locator<'static>]),
    nonce: u64,
    what: Registering,
    out: &mut Vec<u8>,
) -> Result<Digest, EncodeError> {
    let ttl = if what == Registering::Withdrawn { TTL_WITHDRAW } else { TTL_SESSION };
    // Of what is not in service no RLOC is to be used.
    let used = |l: &Locator<'static>| if what == Registering::Activated { l.priority } else { UNUSABLE };
    let version = version_of(grant, me);
    let mac = grant.mac.octets();
    let rlocs: Vec<_> = locators.iter().map(|l| Locator { priority: used(l), ..*l }).collect();
    let owner = [Locator::new(Address::Mac(mac), UNUSABLE)];
    let record = |eid: Eid, locators| {
        let eid = wire_eid(grant.tsi.vni, eid);
        Record {
            ttl,
            mask_len: eid.mask_len(),
            authoritative: true,
            map_version: version,
            eid: eid.address(),
            locators,
            ..Record::default()
        }
    };
    let mut records = vec![record(Eid::Mac(grant.mac.get()), List::new(&rlocs))];
    if what != Registering::Associated {
        records.extend(grant.ips.iter().map(|ip| record(Eid::Ip(*ip), List::new(&owner))));
    }
    let mut digest = Digest::default();
    let mut octets = Vec::with_capacity(64);
    for record in &records {
        octets.clear();
        record.encode(&mut octets, EncodeOptions::default())?;
        digest.add_record(&octets);
    }
    MapRegister {
        proxy_reply,
        want_notify: true,
        nonce,
        auth: AuthData::default(),
        records: List::new(&records),
        xtr: Some(Xtr { xtr_id: me.0, site_id: 0 }),
        ..MapRegister::default()
    }
    .encode(out, EncodeOptions::default())?;
    Ok(digest)
}

/// A Map-Request for `wanted`, asked on behalf of `source`, inside an ECM from this NVE's `from` to the
/// Oracle's `to` (RFC 9301 sections 5.2 and 5.8; requirement N3).
///
/// # Errors
/// When the two addresses are of different families.
pub fn map_request(
    question: &Question,
    rlocs: &BTreeSet<Rloc>,
    (from, to): (SocketAddr, SocketAddr),
    out: &mut Vec<u8>,
) -> Result<(), EncodeError> {
    let Question { vni, wanted, source, along, nonce, invoked } = *question;
    // The answer comes to the family the question went by, whatever else this NVE has.
    let mut itr_rlocs: Vec<_> = rlocs.iter().map(|r| r.get()).filter(|ip| *ip == from.ip()).collect();
    itr_rlocs.extend(rlocs.iter().map(|r| r.get()).filter(|ip| *ip != from.ip()));
    let itr_rlocs: Vec<_> = itr_rlocs.into_iter().map(address).collect();
    let eid = wire_eid(vni, wanted);
    let records = [EidRecord { notify: false, mask_len: eid.mask_len(), eid: eid.address() }];
    let own: Vec<_> = rlocs.iter().map(|r| Locator::new(address(r.get()), 1)).collect();
    let piggyback = along.map(|(mac, map_version)| {
        let eid = wire_eid(vni, Eid::Mac(mac));
        Record {
            ttl: TTL_SESSION,
            mask_len: eid.mask_len(),
            authoritative: true,
            map_version,
            eid: eid.address(),
            locators: List::new(&own),
            ..Record::default()
        }
    });
    let request = MapRequest {
        piggyback,
        nonce,
        smr_invoked: invoked,
        source_eid: source.map_or(Address::NoAddress, |s| wire_eid(vni, s).address()),
        itr_rlocs: List::new(&itr_rlocs),
        records: List::new(&records),
        ..MapRequest::default()
    };
    Ecm::encode_with(out, false, EcmHeader::Ip { source: from, destination: to }, |out| {
        request.encode(out, EncodeOptions::default())
    })
}

/// What an NVE says of an address it is asked about.
#[derive(Clone, Debug)]
pub struct Answer<'a> {
    /// In this VN,
    pub vni: Vni,
    /// the address
    pub eid: Eid,
    /// is of this grant's tenant system, Activated here, behind these locators; or of none.
    pub grant: Option<(&'a Grant, Vec<Locator<'static>>)>,
}

/// The Map-Reply of NVE `me` to a question that was passed on to it: authoritative (A bit), for an IP address
/// with the record of the MAC that it belongs to (requirement N5).
///
/// # Errors
/// When it is longer than a message.
pub fn own_reply(
    nonce: u64,
    answers: &[Answer<'_>],
    me: XtrId,
    minutes: u32,
    out: &mut Vec<u8>,
) -> Result<(), EncodeError> {
    let owner = |a: &Answer<'_>| a.grant.as_ref().map(|(grant, _)| [Locator::mac(grant.mac.octets())]);
    let owners: Vec<_> = answers.iter().map(owner).collect();
    let mut records = Vec::with_capacity(2 * answers.len());
    for (Answer { vni, eid, grant }, owner) in answers.iter().zip(&owners) {
        let record = |eid: Eid, ttl, locators| {
            let eid = wire_eid(*vni, eid);
            Record {
                ttl,
                mask_len: eid.mask_len(),
                authoritative: true,
                map_version: grant.as_ref().map_or(MapVersion::NONE, |(grant, _)| version_of(grant, me)),
                eid: eid.address(),
                locators,
                ..Record::default()
            }
        };
        match (grant, owner) {
            (Some((grant, rlocs)), Some(owner)) => {
                if matches!(eid, Eid::Ip(_)) {
                    records.push(record(*eid, minutes, List::new(owner)));
                }
                records.push(record(Eid::Mac(grant.mac.get()), minutes, List::new(rlocs)));
            }
            // RFC 9301 section 5.4, with ACT 3 as the Oracle's own negatives.
            _ => records.push(Record { action: Action::Drop, ..record(*eid, 1, List::new(&[])) }),
        }
    }
    MapReply { nonce, records: List::new(&records), ..MapReply::default() }
        .encode(out, EncodeOptions::default())
}

/// Who is about to talk, when a question carries the asker's own mapping (M bit).
pub fn introduced(request: &MapRequest<'_>) -> Option<(Vni, Eid)> {
    request.piggyback.as_ref()?;
    WireEid::host_from_wire(request.source_eid).ok().and_then(model_eid)
}

/// The address a record asks for, if it is a single one of a VN.
pub fn wanted(record: &EidRecord<'_>) -> Option<(Vni, Eid)> {
    WireEid::from_wire(record.eid, record.mask_len).ok().filter(WireEid::is_host).and_then(model_eid)
}

/// What `record` says to an NVE with the RLOCs `own`; nothing when it is about no VN or address of ours (counted by the
/// caller).
#[must_use]
pub fn said(record: &Record<'_>, own: &BTreeSet<Rloc>) -> Vec<Said> {
    if let Some((vni, ip, mac)) = literal(record.eid) {
        // Both halves of <VNID, IP, MAC> at once.
        let whole = [
            located(record, vni, mac, own),
            match record.ttl {
                TTL_WITHDRAW => Said::Withdrawn { vni, eid: Eid::Ip(ip) },
                ttl => Said::Bound { vni, ip, mac, version: record.map_version.get(), ttl },
            },
        ];
        return whole.to_vec();
    }
    let wire = WireEid::from_wire(record.eid, record.mask_len).ok().filter(WireEid::is_host);
    let Some((vni, eid)) = wire.and_then(model_eid) else { return Vec::new() };
    let (ttl, version) = (record.ttl, record.map_version.get());
    let said = match eid {
        _ if ttl == TTL_WITHDRAW => Said::Withdrawn { vni, eid },
        _ if record.locators.is_empty() => Said::Absent { vni, eid, ttl },
        Eid::Mac(mac) => located(record, vni, mac, own),
        Eid::Ip(ip) => match record.locators.iter().find_map(|l| owner_of(l.rloc)) {
            Some(mac) => Said::Bound { vni, ip, mac, version, ttl },
            None => return Vec::new(),
        },
    };
    vec![said]
}

/// Where a record says that a MAC is: nowhere, if no locator is to be used.
fn located(record: &Record<'_>, vni: Vni, mac: MacAddr, own: &BTreeSet<Rloc>) -> Said {
    let (ttl, version) = (record.ttl, record.map_version.get());
    let usable = record.locators.iter().filter(|l| l.priority != UNUSABLE && l.reachable);
    // Of a family that this NVE has, if there is one, and then the lowest priority value (RFC 9301 section 5.4).
    let foreign = |rloc: &Rloc| !own.iter().any(|own| own.get().is_ipv4() == rloc.get().is_ipv4());
    let rlocs = usable.filter_map(|l| Some((l.priority, Rloc::new(l.rloc.as_ip()?).ok()?, l.weight)));
    let rlocs: Vec<_> =
        rlocs.map(|(priority, rloc, weight)| ((foreign(&rloc), priority), rloc, weight)).collect();
    let lowest = rlocs.iter().map(|(rank, ..)| *rank).min();
    let best =
        rlocs.iter().filter(|(rank, ..)| Some(*rank) == lowest).map(|(_, rloc, weight)| (*rloc, *weight));
    match shared(best) {
        Some((rloc, other)) if ttl != TTL_WITHDRAW => Said::Located { vni, mac, rloc, other, version, ttl },
        _ => Said::Withdrawn { vni, eid: Eid::Mac(mac) },
    }
}

/// Where flows go of these RLOCs with their weights, and how many of 2^32 to the one of the other family (RFC 9301
/// section 5.4). Of those of one family the one with the highest weight counts, and of two such the lower address: an NVE
/// has one of each at most.
fn shared(rlocs: impl Iterator<Item = (Rloc, u8)>) -> Option<(Rloc, u32)> {
    let heavier = |a: &(Rloc, u8), b: &(Rloc, u8)| (a.1, Reverse(a.0)).cmp(&(b.1, Reverse(b.0)));
    let (four, six): (Vec<_>, Vec<_>) = rlocs.partition(|(rloc, _)| rloc.get().is_ipv4());
    match (four.into_iter().max_by(heavier), six.into_iter().max_by(heavier)) {
        (Some((rloc, 0)), Some((_, 0))) => Some((rloc, 1 << 31)),
        (Some((_, 0)), Some((rloc, _))) => Some((rloc, 0)),
        (Some((rloc, four)), Some((_, six))) => {
            let (four, six) = (u64::from(four), u64::from(six));
            Some((rloc, u32::try_from((six << 32) / (four + six)).unwrap_or(u32::MAX)))
        }
        (four, six) => four.or(six).map(|(rloc, _)| (rloc, 0)),
    }
}

/// The EID `<VNID, IP, MAC>` written as one: an AFI-List in an Instance ID.
fn literal(eid: Address<'_>) -> Option<(Vni, TenantIp, MacAddr)> {
    let Address::InstanceId { iid, inner: Inner::AfiList(list), .. } = eid else { return None };
    let ip = list.iter().find_map(|a| a.as_ip())?;
    let mac = list.iter().find_map(|a| a.as_mac())?;
    Some((Vni::new(iid).ok()?, TenantIp::new(ip).ok()?, MacAddr(mac)))
}

/// A host EID in a VN in the vocabulary of the model.
pub fn model_eid(wire: WireEid) -> Option<(Vni, Eid)> {
    let eid = match wire.addr() {
        EidAddr::Mac(mac) => Eid::Mac(MacAddr(mac)),
        EidAddr::Ipv4(ip) => Eid::Ip(TenantIp::new(ip.into()).ok()?),
        EidAddr::Ipv6(ip) => Eid::Ip(TenantIp::new(ip.into()).ok()?),
    };
    Some((Vni::new(wire.iid()).ok()?, eid))
}

/// The MAC in the locator of an IP record: alone, or in an AFI-List behind an RLOC.
fn owner_of(locator: Address<'_>) -> Option<MacAddr> {
    match locator {
        Address::AfiList(list) => list.iter().find_map(|a| a.as_mac()),
        other => other.as_mac(),
    }
    .map(MacAddr)
}

/// Reads a Map-Reply to an NVE with the RLOCs `own`.
///
/// # Errors
/// When it is malformed.
pub fn map_reply(octets: &[u8], own: &BTreeSet<Rloc>) -> Result<(u64, Vec<Said>), weft_lisp::DecodeError> {
    let reply = MapReply::decode(octets)?;
    Ok((reply.nonce, reply.records.iter().flat_map(|r| said(&r, own)).collect()))
}

/// A Solicit-Map-Request for `eid`, from this NVE's RLOC of the family of `to` (RFC 9301 section 6.1).
///
/// # Errors
/// When it is longer than a message.
pub fn solicitation(
    (vni, eid): (Vni, Eid),
    nonce: u64,
    rlocs: &BTreeSet<Rloc>,
    to: IpAddr,
    out: &mut Vec<u8>,
) -> Result<(), EncodeError> {
    let own = rlocs.iter().map(|rloc| rloc.get()).filter(|own| own.is_ipv4() == to.is_ipv4());
    let itr_rlocs: Vec<_> = own.map(address).collect();
    let eid = wire_eid(vni, eid);
    let records = [EidRecord { notify: false, mask_len: eid.mask_len(), eid: eid.address() }];
    MapRequest {
        smr: true,
        nonce,
        source_eid: eid.address(),
        itr_rlocs: List::new(&itr_rlocs),
        records: List::new(&records),
        ..MapRequest::default()
    }
    .encode(out, EncodeOptions::default())
}

/// The EIDs a Solicit-Map-Request may mean: RFC 9301 section 6.1 leaves open whether the mapping that
/// changed is named as source or as what is asked for.
#[must_use]
pub fn solicited(request: &MapRequest<'_>) -> Vec<(Vni, Eid)> {
    if !request.smr {
        return Vec::new();
    }
    let source = WireEid::host_from_wire(request.source_eid).ok();
    let asked = request.records.iter().filter_map(|r| WireEid::from_wire(r.eid, r.mask_len).ok());
    source.into_iter().chain(asked).filter(WireEid::is_host).filter_map(model_eid).collect()
}
