//! Codec of the LISP control plane: the UDP messages of RFC 9301 with RFC 9437's subscriptions and
//! RFC 8060's addresses ([`wire`]), their authentication ([`auth`]), and the framing of LISP's reliable
//! transport ([`tcp`]).
//!
//! Nothing here does I/O, keeps time or draws random numbers. Decoding allocates nothing and panics on no
//! input; encoding appends to a buffer of the caller's. Not here: LISP-SEC (RFC 9303; its data in a Map-Reply
//! are carried along, an ECM that has them is refused) and Map-Referral (RFC 8111).
//!
//! # Asking: a Map-Request in an ECM
//!
//! `<VNID, IP_B, *>`, asked by an NVE for a tenant system of its own:
//!
//! ```
//! use std::net::Ipv4Addr;
//! use weft_lisp::{Address, Ecm, EcmHeader, Eid, EidRecord, EncodeOptions, MapRequest, Message};
//!
//! let wanted = Eid::host(5000, Ipv4Addr::new(10, 0, 0, 2));
//! let asked = [EidRecord { notify: false, mask_len: wanted.mask_len(), eid: wanted.address() }];
//! let rlocs = [Address::from(Ipv4Addr::new(192, 0, 2, 1))];
//! let request = MapRequest {
//!     nonce: 0x1122_3344_5566_7788,
//!     source_eid: Eid::host(5000, Ipv4Addr::new(10, 0, 0, 1)).address(),
//!     itr_rlocs: (&rlocs).into(),
//!     records: (&asked).into(),
//!     ..MapRequest::default()
//! };
//! let header = EcmHeader::Ip {
//!     source: "192.0.2.1:50000".parse()?,
//!     destination: "192.0.2.100:4342".parse()?,
//! };
//! let mut datagram = Vec::with_capacity(128); // kept and cleared by whoever sends
//! Ecm::encode_with(&mut datagram, false, header, |out| request.encode(out, EncodeOptions::default()))?;
//!
//! // The other side.
//! let Message::Ecm(ecm) = Message::decode(&datagram)? else { panic!("an ECM") };
//! assert_eq!(ecm.header.source_port(), Some(50000)); // where the answer goes
//! assert_eq!(Message::decode(ecm.message)?, Message::MapRequest(request));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # Answering: IP to MAC and MAC to RLOC in one Map-Reply
//!
//! The record asked for has the MAC as its locator, with a priority that keeps an xTR unaware of such records
//! from encapsulating to it; the MAC's own record follows, so one round trip tells both.
//!
//! ```
//! use std::net::Ipv4Addr;
//! use weft_lisp::{Eid, EncodeOptions, Locator, MapReply, Record};
//!
//! let mac = [2, 0, 0, 0, 0, 0xb];
//! let (ip_eid, mac_eid) = (Eid::host(5000, Ipv4Addr::new(10, 0, 0, 2)), Eid::host(5000, mac));
//! let ip_to_mac = [Locator::mac(mac)];
//! let mac_to_rloc = [Locator::new(Ipv4Addr::new(192, 0, 2, 2), 1)];
//! let record = |eid: Eid| Record {
//!     ttl: 1440,
//!     mask_len: eid.mask_len(),
//!     eid: eid.address(),
//!     ..Record::default()
//! };
//! let records = [
//!     Record { locators: (&ip_to_mac).into(), ..record(ip_eid) },
//!     Record { locators: (&mac_to_rloc).into(), ..record(mac_eid) },
//! ];
//! let reply = MapReply { nonce: 0x1122_3344_5566_7788, records: (&records).into(), ..MapReply::default() };
//! let mut datagram = Vec::new();
//! reply.encode(&mut datagram, EncodeOptions::default())?;
//!
//! // The other side.
//! let reply = MapReply::decode(&datagram)?;
//! for record in reply.records {
//!     match Eid::from_wire(record.eid, record.mask_len)? {
//!         eid if eid == ip_eid => assert_eq!(record.locators.first().and_then(|l| l.rloc.as_mac()), Some(mac)),
//!         eid => assert_eq!(eid, mac_eid),
//!     }
//! }
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # Registering: sign, then verify
//!
//! ```
//! use weft_lisp::auth::{Algorithm, Coverage, MacLength, Policy, key_id, sign, verify};
//! use weft_lisp::{EncodeOptions, MapRegister, Xtr};
//!
//! let register = MapRegister {
//!     want_notify: true,
//!     nonce: 1,
//!     auth: Algorithm::HmacSha256Hkdf.placeholder(7, MacLength::Truncated),
//!     xtr: Some(Xtr { xtr_id: [1; 16], site_id: 1 }),
//!     ..MapRegister::default()
//! };
//! let mut datagram = Vec::new();
//! register.encode(&mut datagram, EncodeOptions::default())?;
//! sign(&mut datagram, b"secret", Coverage::WholePayload)?;
//!
//! assert_eq!(key_id(&datagram)?, 7);
//! verify(&datagram, b"secret", Policy::strict())?;
//! assert!(verify(&datagram, b"guess", Policy::strict()).is_err());
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
#![forbid(unsafe_code)]

pub mod auth;
pub mod error;
pub mod tcp;
#[cfg(test)]
mod testing;
pub mod wire;

pub use auth::{Algorithm, AuthError, Coverage, MacLength, Policy};
pub use error::{DecodeError, DecodeErrorKind, EncodeError, Part};
pub use wire::{
    Action, Address, AddressBuf, AuthData, CONTROL_PORT, Ecm, EcmHeader, Eid, EidAddr, EidError, EidRecord,
    EncodeOptions, Inner, List, Locator, MacAfi, MapNotify, MapRegister, MapReply, MapRequest, MapVersion,
    Message, MessageType, NotifyKind, OpaqueLcaf, Record, RecordBuf, Xtr,
};
