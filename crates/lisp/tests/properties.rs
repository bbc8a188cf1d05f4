//! What holds of every message, of every message with a few octets changed, and of any octets.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

#[allow(dead_code, reason = "shared with the fuzz targets")]
mod harness;
mod strategies;

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::Index;
use weft_lisp::auth::{Algorithm, Coverage, MacLength, Policy, sign, verify};
use weft_lisp::tcp::FrameDecoder;
use weft_lisp::{Address, AddressBuf, EncodeOptions, MacAfi, Message, Record, RecordBuf};

fn encode(message: &Message<'_>) -> Vec<u8> {
    let mut out = Vec::new();
    message.encode(&mut out, EncodeOptions::default()).expect("a legal message");
    out
}

fn mutate(mut octets: Vec<u8>, changes: &[(Index, u8)], cut: Option<Index>) -> Vec<u8> {
    for (at, value) in changes {
        let at = at.index(octets.len());
        octets[at] = *value;
    }
    if let Some(cut) = cut {
        octets.truncate(cut.index(octets.len() + 1));
    }
    octets
}

fn changes() -> impl Strategy<Value = Vec<(Index, u8)>> {
    vec(any::<(Index, u8)>(), 1..6)
}

proptest! {
    #[test]
    fn messages_survive_the_wire(message in strategies::message()) {
        let octets = encode(&message);
        prop_assert_eq!(Message::decode(&octets), Ok(message));
        harness::udp(&octets);
    }

    #[test]
    fn either_mac_family_means_the_same(message in strategies::message()) {
        let mut octets = Vec::new();
        message.encode(&mut octets, EncodeOptions::default().with_mac_afi(MacAfi::Ieee802)).expect("legal");
        prop_assert_eq!(Message::decode(&octets), Ok(message));
    }

    #[test]
    fn cut_messages_do_not_decode(message in strategies::message(), cut: Index) {
        // A cut ECM without lengths of its own, or cut LISP-SEC data, is another message, not a broken one.
        let octets = encode(&message);
        let cut = &octets[..cut.index(octets.len())];
        match Message::decode(cut) {
            Err(error) => prop_assert!(error.offset <= cut.len()),
            Ok(Message::Ecm(_)) => {}
            Ok(Message::MapReply(reply)) => prop_assert!(reply.security.is_some()),
            Ok(Message::MapNotify(notify)) => prop_assert!(notify.xtr.is_none()),
            Ok(other) => prop_assert!(false, "{other:?}"),
        }
    }

    #[test]
    fn mutated_messages(message in strategies::message(), changes in changes(), cut: Option<Index>) {
        harness::udp(&mutate(encode(&message), &changes, cut));
    }

    #[test]
    fn any_octets(first: u8, mut octets in vec(any::<u8>(), 0..200)) {
        harness::udp(&octets);
        harness::tcp(&octets);
        if let Some(octet) = octets.first_mut() {
            *octet = (first % 9) << 4 | *octet & 0xf;
        }
        harness::udp(&octets);
    }

    #[test]
    fn owned_forms(record in strategies::record(), address in strategies::address()) {
        let (owned_record, owned_address) = (RecordBuf::new(&record), AddressBuf::new(&address));
        prop_assert_eq!(owned_record.as_ref().map(RecordBuf::get), Ok(record));
        prop_assert_eq!(owned_address.as_ref().map(AddressBuf::get), Ok(address));
        let mut octets = Vec::new();
        record.encode(&mut octets, EncodeOptions::default()).expect("legal");
        prop_assert_eq!(Record::decode(&octets), Ok(record));
    }

    #[test]
    fn frames_survive_the_stream(bodies in vec((any::<u32>(), strategies::body()), 0..5), size in 1..200_u8) {
        let mut stream = vec![size];
        for (id, body) in &bodies {
            body.encode(*id, &mut stream, EncodeOptions::default()).expect("legal");
        }
        harness::tcp(&stream);
        let mut decoder = FrameDecoder::default();
        decoder.push(&stream[1..]);
        for (id, body) in bodies {
            let frame = decoder.next_frame().expect("in step").expect("a frame");
            prop_assert_eq!(frame.id, id);
            prop_assert_eq!(frame.body(), Ok(body));
        }
        prop_assert_eq!(decoder.next_frame(), Ok(None));
    }

    #[test]
    fn mutated_frames(bodies in vec(strategies::body(), 1..4), changes in changes(), cut: Option<Index>) {
        let mut stream = vec![0];
        for body in &bodies {
            body.encode(0, &mut stream, EncodeOptions::default()).expect("legal");
        }
        harness::tcp(&mutate(stream, &changes, cut));
    }

    #[test]
    fn signed_messages_verify_until_they_change(
        message in strategies::message(),
        id in 1_u8..4,
        full: bool,
        key in vec(any::<u8>(), 0..100),
        at: Index,
        flip in 1_u8..,
    ) {
        let algorithm = Algorithm::from_id(id).expect("1 to 3");
        let length = if full { MacLength::Full } else { MacLength::Truncated };
        let auth = algorithm.placeholder(9, length);
        let message = match message {
            Message::MapRegister(mut m) => { m.auth = auth; Message::MapRegister(m) }
            Message::MapNotify(mut m) => { m.auth = auth; Message::MapNotify(m) }
            _ => return Ok(()),
        };
        let mut octets = encode(&message);
        sign(&mut octets, &key, Coverage::WholePayload).expect("well-formed");
        let policy = Policy::strict().with_sha1();
        prop_assert_eq!(verify(&octets, &key, policy), Ok(()));
        let at = at.index(octets.len());
        octets[at] ^= flip;
        prop_assert!(verify(&octets, &key, policy).is_err());
    }
}

/// The deepest address that decoders take is one that encoders write.
#[test]
fn deep_addresses() {
    let mut address = Address::NoAddress;
    for depth in 0..8 {
        let fits = AddressBuf::new(&address).is_ok();
        assert_eq!(fits, depth <= weft_lisp::wire::MAX_NESTING, "depth {depth}");
        address = Address::AfiList((&*vec![address].leak()).into());
    }
}
