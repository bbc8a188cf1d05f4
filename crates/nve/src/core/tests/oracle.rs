//! The wire side of the scripted Oracle.

use super::world::{VNI, vni};
use ::core::net::{IpAddr, SocketAddr};
use weft_lisp::tcp::{Body, EidPrefix, FrameDecoder, GroupEvent, MembershipEvent, RejectReason, Signal};
use weft_lisp::{
    Action, Address, Ecm, EcmHeader, Eid as WireEid, EncodeOptions, Inner, List, Locator, MapReply,
    MapRequest, MapVersion, Record, Xtr,
};
use weft_model::{Eid, MacAddr, Rloc, TenantIp, Vni, digest::Digest};

/// A Map-Request as the Oracle sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Asked {
    pub to: SocketAddr,
    pub inner_from: SocketAddr,
    pub inner_to: SocketAddr,
    pub itr_rlocs: Vec<IpAddr>,
    pub vni: Vni,
    pub eid: Eid,
    pub source: Option<(Vni, Eid)>,
    /// What goes along (M bit).
    pub along: Option<Eid>,
    pub nonce: u64,
    /// Somebody solicited it (s bit).
    pub invoked: bool,
}

/// A frame of the session as the Oracle sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Heard {
    Hello(u16, u64),
    NamesGroups,
    /// Frame id, TTL of every record, the records' EIDs, the RLOCs of the first.
    Registered {
        id: u32,
        ttl: u32,
        version: u16,
        eids: Vec<Eid>,
        rlocs: Vec<(IpAddr, u8)>,
        weights: Vec<u8>,
        digest: Digest,
    },
    End(Digest),
    Digest(Vni, Digest),
    /// Frame id, VN, event.
    Membership(u32, Vni, MembershipEvent),
    /// VN, event.
    Group(Vni, GroupEvent),
    /// Frame id, signal.
    Mappings(u32, Signal),
}

/// A record of an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rec {
    /// A MAC behind RLOCs with priorities and weights, at a version.
    Behind(MacAddr, [(Rloc, u8, u8); 2], u16),
    /// R1: MAC, RLOC, Map-Version.
    At(MacAddr, Rloc, u16),
    /// R2: IP, MAC, Map-Version.
    Owner(TenantIp, MacAddr, u16),
    /// Negative, so many minutes.
    No(Eid, u32),
    /// TTL 0.
    Gone(Eid),
    /// `<VNID, IP, MAC>` in one.
    Whole(TenantIp, MacAddr, Rloc, u16),
}

pub fn eid_of(address: Address<'_>, mask_len: u8) -> (Vni, Eid) {
    super::super::messages::model_eid(WireEid::from_wire(address, mask_len).unwrap()).unwrap()
}

pub fn asked(to: SocketAddr, octets: &[u8]) -> Asked {
    let ecm = Ecm::decode(octets).unwrap();
    let EcmHeader::Ip { source, destination } = ecm.header else { panic!("no inner IP header") };
    let request = MapRequest::decode(ecm.message).unwrap();
    assert!(!request.smr && !request.probe && request.xtr.is_none());
    assert_eq!(request.records.len(), 1, "RFC 9301 section 5.2: senders send one");
    let record = request.records.first().unwrap();
    assert!(!record.notify);
    let (vni, eid) = eid_of(record.eid, record.mask_len);
    let source_eid = request.source_eid;
    let mut again = Vec::new();
    request.encode(&mut again, EncodeOptions::default()).unwrap();
    assert_eq!(again, ecm.message, "the request is what its fields say, octet by octet");
    Asked {
        to,
        inner_from: source,
        inner_to: destination,
        itr_rlocs: request.itr_rlocs.iter().map(|a| a.as_ip().unwrap()).collect(),
        vni,
        eid,
        source: WireEid::host_from_wire(source_eid)
            .ok()
            .map(|e| super::super::messages::model_eid(e).unwrap()),
        along: request.piggyback.map(|r| eid_of(r.eid, r.mask_len).1),
        nonce: request.nonce,
        invoked: request.smr_invoked,
    }
}

pub fn heard(octets: &[u8]) -> Heard {
    let mut decoder = FrameDecoder::default();
    decoder.push(octets);
    let frame = decoder.next_frame().unwrap().unwrap();
    match frame.body().unwrap() {
        Body::Signal(Signal::Hello { version, boot_id }) => Heard::Hello(version, boot_id),
        Body::Signal(Signal::EndOfRegistration { count, digest }) => {
            Heard::End(Digest { count, sum: digest })
        }
        Body::Signal(Signal::VnDigest { vni, count, digest }) => {
            Heard::Digest(Vni::new(vni).unwrap(), Digest { count, sum: digest })
        }
        Body::Registration(registration) => {
            let register = registration.register();
            assert!(register.proxy_reply && register.want_notify && register.xtr.is_some());
            let mut digest = Digest::default();
            for record in register.records {
                let mut octets = Vec::new();
                record.encode(&mut octets, EncodeOptions::default()).unwrap();
                digest.add_record(&octets);
            }
            let first = register.records.first().unwrap();
            assert!(
                register.records.iter().all(|r| r.ttl == first.ttl && r.map_version == first.map_version)
            );
            Heard::Registered {
                id: frame.id,
                ttl: first.ttl,
                version: first.map_version.get(),
                eids: register.records.iter().map(|r| eid_of(r.eid, r.mask_len).1).collect(),
                rlocs: first.locators.iter().map(|l| (l.rloc.as_ip().unwrap(), l.priority)).collect(),
                weights: first.locators.iter().map(|l| l.weight).collect(),
                digest,
            }
        }
        Body::Signal(Signal::NamesGroups) => Heard::NamesGroups,
        Body::Signal(signal) => Heard::Mappings(frame.id, signal),
        Body::Membership(m) => Heard::Membership(frame.id, Vni::new(m.iid).unwrap(), m.event),
        Body::Group(group) => Heard::Group(Vni::new(group.vni).unwrap(), group.event),
        other => panic!("an NVE does not send {other:?}"),
    }
}

fn with_record<T>(rec: Rec, then: impl FnOnce(Record<'_>) -> T) -> T {
    let wire = |eid| match eid {
        Eid::Mac(mac) => WireEid::host(VNI, mac.octets()),
        Eid::Ip(ip) => match ip.get() {
            IpAddr::V4(ip) => WireEid::host(VNI, ip),
            IpAddr::V6(ip) => WireEid::host(VNI, ip),
        },
    };
    let addr = |ip: IpAddr| match ip {
        IpAddr::V4(ip) => Address::Ipv4(ip),
        IpAddr::V6(ip) => Address::Ipv6(ip),
    };
    let (eid, ttl, version) = match rec {
        Rec::At(mac, _, version) | Rec::Behind(mac, _, version) => (Eid::Mac(mac), 15, version),
        Rec::Owner(ip, _, version) | Rec::Whole(ip, _, _, version) => (Eid::Ip(ip), 15, version),
        Rec::No(eid, ttl) => (eid, ttl, 0),
        Rec::Gone(eid) => (eid, 0, 0),
    };
    let locators: Vec<Locator<'_>> = match rec {
        Rec::At(_, rloc, _) | Rec::Whole(_, _, rloc, _) => vec![Locator::new(addr(rloc.get()), 1)],
        Rec::Behind(_, rlocs, _) => {
            let of = |(rloc, priority, weight): (Rloc, _, _)| Locator {
                weight,
                ..Locator::new(addr(rloc.get()), priority)
            };
            rlocs.map(of).to_vec()
        }
        Rec::Owner(_, mac, _) => vec![Locator::new(Address::Mac(mac.octets()), 255)],
        Rec::No(..) | Rec::Gone(_) => Vec::new(),
    };
    let list = match rec {
        Rec::Whole(ip, mac, ..) => vec![addr(ip.get()), Address::Mac(mac.octets())],
        _ => Vec::new(),
    };
    let whole = Address::InstanceId { iid: VNI, mask_len: 0, inner: Inner::AfiList(List::new(&list)) };
    then(Record {
        ttl,
        mask_len: wire(eid).mask_len(),
        action: Action::Drop,
        map_version: MapVersion::new(version).unwrap(),
        eid: if list.is_empty() { wire(eid).address() } else { whole },
        locators: List::new(&locators),
        ..Record::default()
    })
}

pub fn reply(nonce: u64, recs: &[Rec]) -> Vec<u8> {
    fn gather(nonce: u64, recs: &[Rec], records: &mut Vec<Record<'_>>) -> Vec<u8> {
        match recs.split_first() {
            Some((first, rest)) => with_record(*first, |record| {
                let mut records = records.clone();
                records.push(record);
                gather(nonce, rest, &mut records)
            }),
            None => {
                let mut out = Vec::new();
                let reply = MapReply { nonce, records: List::new(records), ..MapReply::default() };
                reply.encode(&mut out, EncodeOptions::default()).unwrap();
                out
            }
        }
    }
    gather(nonce, recs, &mut Vec::new())
}

pub fn frame(body: &Body<'_>, id: u32) -> Vec<u8> {
    let mut out = Vec::new();
    body.encode(id, &mut out, EncodeOptions::default()).unwrap();
    out
}

pub fn notification(rec: Rec) -> Vec<u8> {
    with_record(rec, |record| {
        frame(&Body::MappingNotification { xtr: Xtr { xtr_id: [9; 16], site_id: 0 }, record }, 1)
    })
}

/// The frame that pushes a record, as all mappings of a VN are: it lives with the subscription.
pub fn pushed(rec: Rec) -> Vec<u8> {
    with_pushed(rec, |record| {
        frame(&Body::MappingNotification { xtr: Xtr { xtr_id: [9; 16], site_id: 0 }, record }, 1)
    })
}

fn with_pushed<T>(rec: Rec, then: impl FnOnce(Record<'_>) -> T) -> T {
    with_record(rec, |record| {
        let ttl = if record.ttl == 0 { 0 } else { u32::MAX };
        then(Record { ttl, ..record })
    })
}

/// The digest of pushed records.
pub fn digest(recs: &[Rec]) -> Digest {
    let mut digest = Digest::default();
    for rec in recs {
        with_pushed(*rec, |record| {
            let mut octets = Vec::new();
            record.encode(&mut octets, EncodeOptions::default()).unwrap();
            digest.add_record(&octets);
        });
    }
    digest
}

fn prefix(mac: MacAddr) -> EidPrefix<'static> {
    assert_eq!(vni().get(), VNI);
    WireEid::host(VNI, mac.octets()).into()
}

pub fn ack(id: u32, mac: MacAddr) -> Vec<u8> {
    frame(&Body::RegistrationAck(prefix(mac)), id)
}

pub fn reject(id: u32, mac: MacAddr, reason: RejectReason) -> Vec<u8> {
    frame(&Body::RegistrationReject { reason, prefix: prefix(mac) }, id)
}
