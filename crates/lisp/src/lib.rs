//! Codec of the LISP control plane: the UDP messages of RFC 9301 with RFC 9437's subscriptions and
//! RFC 8060's addresses ([`wire`]), their authentication ([`auth`]), and the framing of LISP's reliable
//! transport ([`tcp`]).
//!
//! Nothing here does I/O, keeps time or draws random numbers.
#![forbid(unsafe_code)]

pub mod auth;
pub mod error;
pub mod tcp;
pub mod wire;

pub use auth::{Algorithm, AuthError, Coverage, MacLength, Policy};
pub use error::{DecodeError, DecodeErrorKind, EncodeError, Part};
pub use wire::{
    Action, Address, AddressBuf, AuthData, CONTROL_PORT, Ecm, EcmHeader, Eid, EidAddr, EidError, EidRecord,
    EncodeOptions, Inner, List, Locator, MacAfi, MapNotify, MapRegister, MapReply, MapRequest, MapVersion,
    Message, MessageType, NotifyKind, OpaqueLcaf, Record, RecordBuf, Xtr,
};
