//! Writes one sample of every message and a whole session as files: seeds for fuzzing, and something to show
//! to a protocol analyser.
//!
//! `cargo run -p weft-lisp --example samples -- FOLDER` makes `FOLDER/udp-*.bin`, one UDP payload each, and
//! `FOLDER/tcp-*.bin`, one frame each.

use std::error::Error;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::Path;

use weft_lisp::auth::{Algorithm, Coverage, MacLength, sign};
use weft_lisp::tcp::{
    Body, EidPrefix, ErrorNotification, Group, GroupEvent, Membership, MembershipEvent, RefreshScope,
    RejectReason, Signal, SubscribeError, View,
};
use weft_lisp::{
    Action, Address, Ecm, EcmHeader, Eid, EidRecord, EncodeError, EncodeOptions, Inner, Locator, MacAfi,
    MapNotify, MapRegister, MapReply, MapRequest, MapVersion, NotifyKind, Record, Xtr,
};

const VNI: u32 = 5000;
const MAC_B: [u8; 6] = [2, 0, 0, 0, 0, 0xb];
const NVE1: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1));
const NVE2: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 2));
const NVE2_V6: IpAddr = IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 2));
const ORACLE: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 100));
const XTR: Xtr = Xtr { xtr_id: [0x11; 16], site_id: 1 };

fn main() -> Result<(), Box<dyn Error>> {
    let folder = std::env::args_os().nth(1).ok_or("name the folder to write to")?;
    let folder = Path::new(&folder);
    std::fs::create_dir_all(folder)?;
    for (name, octets) in udp()?.into_iter().chain(tcp()?) {
        std::fs::write(folder.join(format!("{name}.bin")), octets)?;
    }
    Ok(())
}

/// Names and octets.
pub type Samples = Vec<(String, Vec<u8>)>;

/// One UDP payload of each kind.
pub fn udp() -> Result<Samples, Box<dyn Error>> {
    let mut samples = Samples::new();
    let options = EncodeOptions::default();
    let mut add = |name: &str, octets: Vec<u8>| samples.push((format!("udp-{name}"), octets));

    let ip_b = Eid::host(VNI, Ipv4Addr::new(10, 0, 0, 2));
    let ip6_b = Eid::host(VNI, Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, 2));
    let mac_b = Eid::host(VNI, MAC_B);
    let mac_locators = [Locator::mac(MAC_B)];
    let rlocs = [Locator { local: true, ..Locator::new(NVE2, 1) }, Locator::new(NVE2_V6, 2)];
    let record = |eid: Eid| Record {
        ttl: 1440,
        mask_len: eid.mask_len(),
        map_version: MapVersion::new(1).unwrap_or_default(),
        eid: eid.address(),
        ..Record::default()
    };
    let records = [
        Record { locators: (&mac_locators).into(), ..record(ip_b) },
        Record { locators: (&mac_locators).into(), ..record(ip6_b) },
        Record { locators: (&rlocs).into(), ..record(mac_b) },
    ];

    let itr_rlocs = [Address::from(NVE1), Address::from(NVE2_V6)];
    let request = |notify, eid: Eid| EidRecord { notify, mask_len: eid.mask_len(), eid: eid.address() };
    for (name, eid) in [("v4", ip_b), ("v6", ip6_b), ("mac", mac_b)] {
        let asked = [request(false, eid)];
        let plain = MapRequest {
            nonce: 0x0102_0304_0506_0708,
            source_eid: Address::in_instance(VNI, Ipv4Addr::new(10, 0, 0, 1)),
            itr_rlocs: (&itr_rlocs).into(),
            records: (&asked).into(),
            ..MapRequest::default()
        };
        let mut octets = Vec::new();
        plain.encode(&mut octets, options)?;
        for (family, source, destination) in
            [("ipv4", NVE1, ORACLE), ("ipv6", NVE2_V6, "2001:db8::100".parse()?)]
        {
            let header = EcmHeader::Ip {
                source: SocketAddr::new(source, 50_000),
                destination: SocketAddr::new(destination, 4342),
            };
            let mut ecm = Vec::new();
            Ecm { ddt: false, header, message: &octets }.encode(&mut ecm)?;
            add(&format!("ecm-{family}-request-{name}"), ecm);
        }
        let mut bare = Vec::new();
        Ecm { ddt: false, header: EcmHeader::Udp { source_port: 50_000 }, message: &octets }
            .encode(&mut bare)?;
        if name == "mac" {
            add("ecm-bare-request-mac", bare);
        }
        add(&format!("request-{name}"), octets);

        let asked = [request(true, eid)];
        let mut octets = Vec::new();
        MapRequest { records: (&asked).into(), xtr: Some(XTR), ..plain }.encode(&mut octets, options)?;
        add(&format!("request-subscribe-{name}"), octets);

        // All of the VN of that family, and the end of it: no ITR-RLOC (RFC 9437 section 5).
        let all = Eid::prefix(VNI, eid.addr(), 0)?;
        let (asked, nobody) = ([request(true, all)], [Address::NoAddress]);
        let mut octets = Vec::new();
        let leave =
            MapRequest { records: (&asked).into(), itr_rlocs: (&nobody).into(), xtr: Some(XTR), ..plain };
        MapRequest { itr_rlocs: (&itr_rlocs).into(), ..leave }.encode(&mut octets, options)?;
        add(&format!("request-subscribe-all-{name}"), octets);
        let mut octets = Vec::new();
        leave.encode(&mut octets, options)?;
        add(&format!("request-unsubscribe-{name}"), octets);
    }
    let asked = [request(false, ip_b)];
    let mut octets = Vec::new();
    let smr = MapRequest {
        smr: true,
        dont_map_reply: true,
        nonce: 9,
        source_eid: ip_b.address(),
        itr_rlocs: (&itr_rlocs).into(),
        records: (&asked).into(),
        piggyback: Some(records[0]),
        ..MapRequest::default()
    };
    smr.encode(&mut octets, options)?;
    add("request-smr-piggyback", octets);
    let mut octets = Vec::new();
    MapRequest { smr: false, probe: true, piggyback: None, ..smr }.encode(&mut octets, options)?;
    add("request-probe", octets);

    let reply = MapReply { nonce: 0x0102_0304_0506_0708, records: (&records).into(), ..MapReply::default() };
    let mut octets = Vec::new();
    reply.encode(&mut octets, options)?;
    add("reply", octets);
    let mut octets = Vec::new();
    reply.encode(&mut octets, options.with_mac_afi(MacAfi::Ieee802))?;
    add("reply-afi6", octets);
    let negative = [Record { action: Action::Drop, ttl: 1, ..record(ip_b) }];
    let mut octets = Vec::new();
    MapReply { records: (&negative).into(), ..reply }.encode(&mut octets, options)?;
    add("reply-negative", octets);
    let pair = [Address::from(Ipv4Addr::new(10, 0, 0, 2)), Address::Mac(MAC_B)];
    let both = [Record {
        eid: Address::InstanceId { iid: VNI, mask_len: 0, inner: Inner::AfiList((&pair).into()) },
        mask_len: 0,
        ..records[2]
    }];
    let mut octets = Vec::new();
    MapReply { records: (&both).into(), ..reply }.encode(&mut octets, options)?;
    add("reply-afi-list", octets);

    for (algorithm, length) in [
        (Algorithm::None, MacLength::Truncated),
        (Algorithm::HmacSha1, MacLength::Truncated),
        (Algorithm::HmacSha1, MacLength::Full),
        (Algorithm::HmacSha256, MacLength::Truncated),
        (Algorithm::HmacSha256, MacLength::Full),
        (Algorithm::HmacSha256Hkdf, MacLength::Truncated),
        (Algorithm::HmacSha256Hkdf, MacLength::Full),
    ] {
        let auth = algorithm.placeholder(1, length);
        let name = format!("{}-{length:?}", algorithm as u8).to_lowercase();
        let register = MapRegister {
            proxy_reply: true,
            want_notify: true,
            use_ttl: true,
            merge: true,
            nonce: 1,
            auth,
            records: (&records).into(),
            xtr: Some(XTR),
            ..MapRegister::default()
        };
        add(&format!("register-{name}"), signed(|out| register.encode(out, options))?);
        let notify = MapNotify { nonce: 1, auth, records: (&records).into(), ..MapNotify::default() };
        add(&format!("notify-{name}"), signed(|out| notify.encode(out, options))?);
        let ack = MapNotify { kind: NotifyKind::Ack, ..notify };
        add(&format!("notify-ack-{name}"), signed(|out| ack.encode(out, options))?);
    }
    // What subscribers are told besides mappings: that nobody has an address yet, that a prefix is subscribed to,
    // that an address is gone, and that a subscription is over.
    let all = Eid::prefix(VNI, Ipv4Addr::UNSPECIFIED, 0)?;
    for (name, record) in [
        ("nobody", negative[0]),
        ("all", Record { ttl: 15, action: Action::SendMapRequest, ..record(all) }),
        ("gone", Record { ttl: 0, ..record(ip_b) }),
        ("over", Record { ttl: 0, action: Action::DropAuthFailure, ..record(ip_b) }),
    ] {
        let auth = Algorithm::HmacSha256.placeholder(1, MacLength::Truncated);
        let records = [record];
        let notify = MapNotify { nonce: 2, auth, records: (&records).into(), ..MapNotify::default() };
        add(&format!("notify-{name}"), signed(|out| notify.encode(out, options))?);
    }
    Ok(samples)
}

fn signed(encode: impl Fn(&mut Vec<u8>) -> Result<(), EncodeError>) -> Result<Vec<u8>, Box<dyn Error>> {
    let mut octets = Vec::new();
    encode(&mut octets)?;
    sign(&mut octets, b"secret", Coverage::WholePayload)?;
    Ok(octets)
}

/// One frame of each kind.
pub fn tcp() -> Result<Samples, EncodeError> {
    let options = EncodeOptions::default();
    let eid = Eid::host(VNI, MAC_B);
    let prefix = EidPrefix::from(eid);
    let group4 = IpAddr::V4(Ipv4Addr::new(239, 1, 1, 1));
    let group6 = IpAddr::V6(Ipv6Addr::new(0xff15, 0, 0, 0, 0, 0, 0, 1));
    let locators = [Locator::new(NVE2, 1)];
    let record = Record {
        ttl: 1440,
        mask_len: 48,
        eid: eid.address(),
        locators: (&locators).into(),
        ..Record::default()
    };
    let records = [record];
    let member = |event| Body::Membership(Membership { eid_afi: 16_389, iid: VNI, event });
    let bodies = [
        ("hello", Body::Signal(Signal::Hello { version: 1, boot_id: 0x1234_5678_9abc_def0 })),
        ("ack", Body::RegistrationAck(prefix)),
        ("reject", Body::RegistrationReject { reason: RejectReason::NotASitePrefix, prefix }),
        ("refresh-all", Body::RegistrationRefresh { scope: RefreshScope::All, rejected_only: true }),
        (
            "refresh-instance",
            Body::RegistrationRefresh {
                scope: RefreshScope::Instance(EidPrefix {
                    mask_len: 0,
                    eid: Address::InstanceId { iid: VNI, mask_len: 32, inner: Inner::NoAddress },
                }),
                rejected_only: false,
            },
        ),
        (
            "refresh-prefix",
            Body::RegistrationRefresh { scope: RefreshScope::Prefix(prefix), rejected_only: false },
        ),
        ("notification", Body::MappingNotification { xtr: XTR, record }),
        (
            "error",
            Body::ErrorNotification(ErrorNotification {
                code: ErrorNotification::UNKNOWN_TYPE,
                frame_type: 99,
                length: 14,
                id: 7,
                data: &[1, 2],
            }),
        ),
        ("subscribe", member(MembershipEvent::Subscribe)),
        ("subscribe-ack", member(MembershipEvent::SubscribeAck { subscribe_id: 1 })),
        (
            "subscribe-nack",
            member(MembershipEvent::SubscribeNack { subscribe_id: 1, error: SubscribeError::NotAuthorized }),
        ),
        ("unsubscribe", member(MembershipEvent::Unsubscribe)),
        ("add", member(MembershipEvent::Add { site_id: 1, rloc: NVE2 })),
        ("remove", member(MembershipEvent::Remove { site_id: 1, rloc: NVE2_V6 })),
        ("refresh-request", member(MembershipEvent::RefreshRequest)),
        ("refresh-begin", member(MembershipEvent::RefreshBegin { request_id: 2 })),
        ("refresh-end", member(MembershipEvent::RefreshEnd { request_id: 2 })),
        ("end-of-registration", Body::Signal(Signal::EndOfRegistration { count: 1, digest: 42 })),
        ("view-request", Body::View(View::Request { what: b"mappings" })),
        ("view-part", Body::View(View::Part { last: true, refused: false, octets: b"{\"items\":[]}" })),
        ("vn-digest", Body::Signal(Signal::VnDigest { vni: VNI, count: 1, digest: 42 })),
        ("subscribe-mappings", Body::Signal(Signal::SubscribeMappings { vni: VNI, count: 1, digest: 42 })),
        ("unsubscribe-mappings", Body::Signal(Signal::UnsubscribeMappings { vni: VNI })),
        (
            "mappings-refused",
            Body::Signal(Signal::MappingsRefused { vni: VNI, error: SubscribeError::NotEnabled }),
        ),
        ("mappings-begin", Body::Signal(Signal::MappingsBegin { vni: VNI })),
        ("mappings-marker", Body::Signal(Signal::MappingsMarker { vni: VNI, count: 1, digest: 42 })),
        ("group-begin", Body::Group(Group { vni: VNI, event: GroupEvent::Begin })),
        ("group-end", Body::Group(Group { vni: VNI, event: GroupEvent::End })),
        (
            "group-add-v4",
            Body::Group(Group { vni: VNI, event: GroupEvent::Add { site_id: 7, group: group4 } }),
        ),
        (
            "group-remove-v6",
            Body::Group(Group { vni: VNI, event: GroupEvent::Remove { site_id: 7, group: group6 } }),
        ),
        ("group-add-all", Body::Group(Group { vni: VNI, event: GroupEvent::AddAll { site_id: 7 } })),
        ("group-remove-all", Body::Group(Group { vni: VNI, event: GroupEvent::RemoveAll { site_id: 7 } })),
        ("names-groups", Body::Signal(Signal::NamesGroups)),
        ("lisp-port", Body::Signal(Signal::LispPort { port: 4343 })),
    ];
    let mut octets = Vec::new();
    let register = MapRegister {
        proxy_reply: true,
        nonce: 1,
        records: (&records).into(),
        xtr: Some(XTR),
        ..MapRegister::default()
    };
    Body::encode_registration(&register, 1, &mut octets, options)?;
    let mut samples = vec![("tcp-registration".to_owned(), octets)];
    for (id, (name, body)) in (2..).zip(&bodies) {
        let mut octets = Vec::new();
        body.encode(id, &mut octets, options)?;
        samples.push((format!("tcp-{name}"), octets));
    }
    Ok(samples)
}
