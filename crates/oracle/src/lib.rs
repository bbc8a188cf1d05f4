//! Weft's Oracle: who may hold which tenant system, and where each one is.
//!
//! Three layers, each ignorant of the one above: [`store`] keeps durable bytes with a history,
//! [`registry`] keeps VNs, grants, NVEs and tokens in it, one transaction an operation, and
//! [`core`](crate::core) (sans-IO) holds the mapping database that the LISP protocol is answered
//! from. The server joins them to sockets, threads and `/v1`.
#![forbid(unsafe_code)]

pub mod core;
pub mod registry;
pub mod store;
