//! Weft's Oracle: who may hold which tenant system, and where each one is.
//!
//! Layers, each ignorant of the one above: [`store`] keeps durable bytes with a history,
//! [`registry`] keeps VNs, grants, NVEs and tokens in it, one transaction an operation, and
//! [`core`](crate::core) (sans-IO) holds the mapping database that the LISP protocol is answered
//! from; [`pki`] is the certificate authority. The server joins them to sockets, threads and `/v1`:
//!
//! ```no_run
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! use weft_oracle::{Oracle, OracleOptions};
//!
//! let options = OracleOptions::new("/var/lib/weft", "oracle-1".parse()?);
//! let oracle = Oracle::start(options).await?;
//! println!("/v1 is at {:?}", oracle.addresses().api);
//! oracle.run(std::future::pending()).await?;
//! # Ok(())
//! # }
//! ```
#![forbid(unsafe_code)]

pub mod core;
pub mod pki;
pub mod registry;
mod server;
pub mod store;

pub use server::{Addresses, Oracle, OracleError, OracleOptions, backup, credentials, openapi, restore, run};
