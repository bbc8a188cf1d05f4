//! What must hold of any octets whatever. Shared by the property tests, the replay of the fuzz corpus and
//! the fuzz targets.

use weft_lisp::auth::{Algorithm, Coverage, Policy, sign, verify};
use weft_lisp::tcp::FrameDecoder;
use weft_lisp::{Address, Eid, EncodeOptions, MacAfi, Message, Record, RecordBuf};

/// Octets as a UDP payload.
pub fn udp(octets: &[u8]) {
    let _ = verify(octets, b"key", Policy::strict().with_sha1());
    let Ok(message) = Message::decode(octets) else { return };
    walk(&message);
    // What was decoded can be encoded, in either form, and means the same again.
    let mut again = Vec::new();
    for mac_afi in [MacAfi::Ieee802, MacAfi::Mac48] {
        again.clear();
        message.encode(&mut again, EncodeOptions::default().with_mac_afi(mac_afi)).expect("decoded");
        assert_eq!(Message::decode(&again), Ok(message));
    }
    let mut third = Vec::new();
    Message::decode(&again).expect("encoded").encode(&mut third, EncodeOptions::default()).expect("again");
    assert_eq!(again, third, "encoding is stable");
    if let Message::Ecm(ecm) = message {
        udp(ecm.message);
    }
    // What can be signed verifies, and not under another key.
    for coverage in [Coverage::WholePayload, Coverage::ThroughRecords] {
        let policy = Policy::strict().with_sha1().with_coverage(coverage);
        let mut signed = octets.to_vec();
        if sign(&mut signed, b"key", coverage).is_ok() && algorithm(&message) != Algorithm::None as u8 {
            assert_eq!(verify(&signed, b"key", policy), Ok(()));
            assert!(verify(&signed, b"another", policy).is_err());
        }
    }
}

fn algorithm(message: &Message<'_>) -> u8 {
    match message {
        Message::MapRegister(m) => m.auth.algorithm,
        Message::MapNotify(m) => m.auth.algorithm,
        _ => 0,
    }
}

/// Looks at everything that is in a message; no list may hold less than it says.
fn walk(message: &Message<'_>) {
    match message {
        Message::MapRequest(m) => {
            address(m.source_eid);
            assert_eq!(m.itr_rlocs.iter().map(address).count(), m.itr_rlocs.len());
            let records = m.records.iter().map(|r| {
                let _ = Eid::from_wire(r.eid, r.mask_len);
                address(r.eid);
            });
            assert_eq!(records.count(), m.records.len());
            m.piggyback.iter().for_each(record);
        }
        Message::MapReply(m) => m.records.iter().for_each(|r| record(&r)),
        Message::MapRegister(m) => m.records.iter().for_each(|r| record(&r)),
        Message::MapNotify(m) => m.records.iter().for_each(|r| record(&r)),
        Message::Ecm(_) => {}
    }
}

fn record(record: &Record<'_>) {
    address(record.eid);
    let locators = record.locators.iter().map(|locator| address(locator.rloc));
    assert_eq!(locators.count(), record.locators.len());
    assert_eq!(RecordBuf::new(record).expect("decoded").get(), *record);
    if let Ok(eid) = Eid::from_wire(record.eid, record.mask_len) {
        assert_eq!(Eid::from_wire(eid.address(), eid.mask_len()), Ok(eid));
        assert!(eid.covers(&eid));
    }
}

fn address(it: Address<'_>) {
    match it {
        Address::AfiList(list) => assert_eq!(list.iter().map(address).count(), list.len()),
        Address::InstanceId { inner, .. } => address(inner.into()),
        _ => {}
    }
}

/// Octets as a TCP stream that arrives in pieces; the first octet says in which.
pub fn tcp(octets: &[u8]) {
    let Some((&size, stream)) = octets.split_first() else { return };
    let mut whole = FrameDecoder::new(4096);
    whole.push(stream);
    let mut pieces = FrameDecoder::new(4096);
    let mut waiting = stream.chunks(usize::from(size).max(1));
    loop {
        let expected = whole.next_frame();
        let found = loop {
            // A second decoder per look, because a frame borrows the one it came from.
            if matches!(pieces.clone().next_frame(), Ok(None)) {
                match waiting.next() {
                    Some(piece) => pieces.push(piece),
                    None => break pieces.next_frame(),
                }
            } else {
                break pieces.next_frame();
            }
        };
        assert_eq!(found, expected, "the cuts do not matter");
        let Ok(Some(frame)) = expected else { return };
        let Ok(body) = frame.body() else { continue };
        let mut again = Vec::new();
        body.encode(frame.id, &mut again, EncodeOptions::default()).expect("decoded");
        let mut decoder = FrameDecoder::default();
        decoder.push(&again);
        let frame = decoder.next_frame().expect("encoded").expect("whole");
        let decoded = frame.body().expect("encoded");
        if let weft_lisp::tcp::Body::Registration(r) = decoded {
            udp(r.octets());
        }
        assert_eq!(decoded, body);
    }
}
