//! Any message. Slices are leaked: a test process does not live long.

use proptest::collection::vec;
use proptest::prelude::*;
use weft_lisp::tcp::{
    Body, EidPrefix, ErrorNotification, Group, GroupEvent, Membership, MembershipEvent, RefreshScope,
    Registration, RejectReason, Signal, SubscribeError, View,
};
use weft_lisp::{
    Action, Address, AuthData, Ecm, EcmHeader, EidRecord, EncodeOptions, Inner, Locator, MapNotify,
    MapRegister, MapReply, MapRequest, MapVersion, Message, NotifyKind, OpaqueLcaf, Record, Xtr,
};

fn leak<T>(items: Vec<T>) -> &'static [T] {
    items.leak()
}

fn octets(max: usize) -> impl Strategy<Value = &'static [u8]> {
    vec(any::<u8>(), 0..=max).prop_map(leak)
}

fn opaque() -> impl Strategy<Value = OpaqueLcaf<'static>> {
    (any::<(u8, u8, u8)>(), 3_u8.., octets(12)).prop_map(|((rsvd1, flags, rsvd2), lcaf_type, body)| {
        OpaqueLcaf { rsvd1, flags, lcaf_type, rsvd2, body }
    })
}

fn leaf() -> impl Strategy<Value = Address<'static>> {
    prop_oneof![
        Just(Address::NoAddress),
        any::<[u8; 4]>().prop_map(|a| Address::Ipv4(a.into())),
        any::<[u8; 16]>().prop_map(|a| Address::Ipv6(a.into())),
        any::<[u8; 6]>().prop_map(Address::Mac),
        opaque().prop_map(Address::Opaque),
    ]
}

fn inner(address: Address<'static>) -> Inner<'static> {
    match address {
        Address::Ipv4(a) => Inner::Ipv4(a),
        Address::Ipv6(a) => Inner::Ipv6(a),
        Address::Mac(a) => Inner::Mac(a),
        Address::AfiList(list) => Inner::AfiList(list),
        Address::Opaque(lcaf) => Inner::Opaque(lcaf),
        _ => Inner::NoAddress,
    }
}

pub fn address() -> impl Strategy<Value = Address<'static>> {
    leaf().prop_recursive(3, 12, 4, |address| {
        prop_oneof![
            vec(address.clone(), 0..4).prop_map(|list| Address::AfiList(leak(list).into())),
            (any::<u32>(), any::<u8>(), address).prop_map(|(iid, mask_len, address)| {
                Address::InstanceId { iid, mask_len, inner: inner(address) }
            }),
        ]
    })
}

fn locator() -> impl Strategy<Value = Locator<'static>> {
    (any::<[u8; 4]>(), any::<[bool; 3]>(), address()).prop_map(
        |([priority, weight, m_priority, m_weight], [local, probed, reachable], rloc)| Locator {
            priority,
            weight,
            m_priority,
            m_weight,
            local,
            probed,
            reachable,
            rloc,
        },
    )
}

fn action() -> impl Strategy<Value = Action> {
    prop::sample::select(vec![
        Action::NoAction,
        Action::NativelyForward,
        Action::SendMapRequest,
        Action::Drop,
        Action::DropPolicyDenied,
        Action::DropAuthFailure,
        Action::Unassigned6,
        Action::Unassigned7,
    ])
}

pub fn record() -> impl Strategy<Value = Record<'static>> {
    (any::<(u32, u8, bool)>(), 0..=MapVersion::MAX.get(), action(), address(), vec(locator(), 0..4)).prop_map(
        |((ttl, mask_len, authoritative), version, action, eid, locators)| Record {
            ttl,
            mask_len,
            action,
            authoritative,
            map_version: MapVersion::new(version).expect("in range"),
            eid,
            locators: leak(locators).into(),
        },
    )
}

fn records() -> impl Strategy<Value = &'static [Record<'static>]> {
    vec(record(), 0..4).prop_map(leak)
}

fn xtr() -> impl Strategy<Value = Xtr> {
    any::<([u8; 16], u64)>().prop_map(|(xtr_id, site_id)| Xtr { xtr_id, site_id })
}

fn auth() -> impl Strategy<Value = AuthData<'static>> {
    (any::<u8>(), 0_u8..5, prop::sample::select(vec![0, 12, 16, 20, 32, 33]))
        .prop_map(|(key_id, algorithm, len)| AuthData { key_id, algorithm, mac: leak(vec![0x5a; len]) })
}

pub fn map_request() -> impl Strategy<Value = MapRequest<'static>> {
    let asked = (any::<(bool, u8)>(), address()).prop_map(|((notify, mask_len), eid)| EidRecord {
        notify,
        mask_len,
        eid,
    });
    (
        any::<[bool; 7]>(),
        any::<u64>(),
        address(),
        vec(address(), 1..=32),
        vec(asked, 1..4),
        prop::option::of(record()),
        prop::option::of(xtr()),
    )
        .prop_map(|(bits, nonce, source_eid, rlocs, asked, piggyback, xtr)| {
            let [authoritative, probe, smr, pitr, smr_invoked, local_xtr, dont_map_reply] = bits;
            MapRequest {
                authoritative,
                probe,
                smr,
                pitr,
                smr_invoked,
                local_xtr,
                dont_map_reply,
                nonce,
                source_eid,
                itr_rlocs: leak(rlocs).into(),
                records: leak(asked).into(),
                piggyback,
                xtr,
            }
        })
}

fn map_reply() -> impl Strategy<Value = MapReply<'static>> {
    (any::<(bool, bool, u64)>(), prop::option::of(octets(20)), records()).prop_map(
        |((probe, echo_nonce, nonce), security, records)| MapReply {
            probe,
            echo_nonce,
            security,
            nonce,
            records: records.into(),
        },
    )
}

fn map_register() -> impl Strategy<Value = MapRegister<'static>> {
    (any::<[bool; 6]>(), any::<u64>(), auth(), records(), prop::option::of(xtr())).prop_map(
        |(bits, nonce, auth, records, xtr)| {
            let [proxy_reply, security, eid_notify, use_ttl, merge, want_notify] = bits;
            MapRegister {
                proxy_reply,
                security,
                eid_notify,
                use_ttl,
                merge,
                want_notify,
                nonce,
                auth,
                records: records.into(),
                xtr,
            }
        },
    )
}

fn map_notify() -> impl Strategy<Value = MapNotify<'static>> {
    (any::<(bool, u64)>(), auth(), records(), prop::option::of(xtr())).prop_map(
        |((ack, nonce), auth, records, xtr)| MapNotify {
            kind: if ack { NotifyKind::Ack } else { NotifyKind::Notify },
            nonce,
            auth,
            records: records.into(),
            xtr,
        },
    )
}

fn ecm() -> impl Strategy<Value = Ecm<'static>> {
    let header = prop_oneof![
        any::<([u8; 4], u16, [u8; 4], u16)>().prop_map(|(a, from, b, to)| EcmHeader::Ip {
            source: (a, from).into(),
            destination: (b, to).into()
        }),
        any::<([u8; 16], u16, [u8; 16], u16)>().prop_map(|(a, from, b, to)| EcmHeader::Ip {
            source: (a, from).into(),
            destination: (b, to).into()
        }),
        any::<u16>().prop_map(|source_port| EcmHeader::Udp { source_port }),
        Just(EcmHeader::None),
    ];
    (any::<bool>(), header, map_request()).prop_map(|(ddt, header, request)| {
        let mut message = Vec::new();
        request.encode(&mut message, EncodeOptions::default()).expect("a legal request");
        Ecm { ddt, header, message: leak(message) }
    })
}

pub fn message() -> impl Strategy<Value = Message<'static>> {
    prop_oneof![
        map_request().prop_map(Message::MapRequest),
        map_reply().prop_map(Message::MapReply),
        map_register().prop_map(Message::MapRegister),
        map_notify().prop_map(Message::MapNotify),
        ecm().prop_map(Message::Ecm),
    ]
}

fn membership() -> impl Strategy<Value = Membership> {
    let event = (0..9, any::<u32>(), any::<u64>(), any::<std::net::IpAddr>()).prop_map(
        |(event, id, site_id, rloc)| match event {
            0 => MembershipEvent::Subscribe,
            1 => MembershipEvent::SubscribeAck { subscribe_id: id },
            2 => MembershipEvent::SubscribeNack { subscribe_id: id, error: SubscribeError::NotAuthorized },
            3 => MembershipEvent::Unsubscribe,
            4 => MembershipEvent::Add { site_id, rloc },
            5 => MembershipEvent::Remove { site_id, rloc },
            6 => MembershipEvent::RefreshRequest,
            7 => MembershipEvent::RefreshBegin { request_id: id },
            _ => MembershipEvent::RefreshEnd { request_id: id },
        },
    );
    (any::<(u16, u32)>(), event).prop_map(|((eid_afi, iid), event)| Membership { eid_afi, iid, event })
}

fn group() -> impl Strategy<Value = Group> {
    (0..6, any::<u32>(), any::<u64>(), any::<std::net::IpAddr>()).prop_map(|(event, vni, site_id, group)| {
        let event = match event {
            0 => GroupEvent::Begin,
            1 => GroupEvent::End,
            2 => GroupEvent::Add { site_id, group },
            3 => GroupEvent::AddAll { site_id },
            4 => GroupEvent::RemoveAll { site_id },
            _ => GroupEvent::Remove { site_id, group },
        };
        Group { vni, event }
    })
}

pub fn body() -> impl Strategy<Value = Body<'static>> {
    let prefix = || (any::<u8>(), address()).prop_map(|(mask_len, eid)| EidPrefix { mask_len, eid });
    let scope = prop_oneof![
        Just(RefreshScope::All),
        prefix().prop_map(RefreshScope::Instance),
        prefix().prop_map(RefreshScope::Family),
        prefix().prop_map(RefreshScope::Covered),
        prefix().prop_map(RefreshScope::Prefix),
    ];
    prop_oneof![
        (any::<(u8, u16, u16, u32)>(), octets(12)).prop_map(|((code, frame_type, length, id), data)| {
            Body::ErrorNotification(ErrorNotification { code, frame_type, length, id, data })
        }),
        map_register().prop_map(|register| {
            let mut octets = Vec::new();
            register.encode(&mut octets, EncodeOptions::default()).expect("a legal register");
            Body::Registration(Registration::new(leak(octets)).expect("encoded"))
        }),
        prefix().prop_map(Body::RegistrationAck),
        prefix().prop_map(|prefix| Body::RegistrationReject {
            reason: RejectReason::LocatorSetNotAllowed,
            prefix
        }),
        (scope, any::<bool>())
            .prop_map(|(scope, rejected_only)| Body::RegistrationRefresh { scope, rejected_only }),
        (xtr(), record()).prop_map(|(xtr, record)| Body::MappingNotification { xtr, record }),
        membership().prop_map(Body::Membership),
        any::<(u16, u64)>().prop_map(|(version, boot_id)| Body::Signal(Signal::Hello { version, boot_id })),
        any::<(u32, u64)>()
            .prop_map(|(count, digest)| Body::Signal(Signal::EndOfRegistration { count, digest })),
        any::<(u32, u32, u64)>().prop_map(|(vni, count, digest)| Body::Signal(Signal::VnDigest {
            vni,
            count,
            digest
        })),
        any::<u16>().prop_map(|port| Body::Signal(Signal::LispPort { port })),
        Just(Body::Signal(Signal::NamesGroups)),
        octets(12).prop_map(|what| Body::View(View::Request { what })),
        (any::<[bool; 2]>(), octets(12)).prop_map(|([last, refused], octets)| Body::View(View::Part {
            last,
            refused,
            octets
        })),
        group().prop_map(Body::Group),
        (31_u16..0xff00, octets(12)).prop_map(|(frame_type, data)| Body::Unknown { frame_type, data }),
    ]
}
