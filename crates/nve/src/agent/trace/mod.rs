//! Traces: a packet that this NVE sends as if a tenant system had, and every step of it, here and at the NVE that it
//! goes to. That one is told before, in the hands of an Oracle's ticket, and says what it has seen; it believes only what
//! comes from the one that told it, within ten seconds. Where that one would send the packet on, it says to whom: the third
//! is told, too, then the one before of the third, and another packet is sent.
//!
//! ```text
//! weft trace          this NVE                      Oracle              the other NVE
//!   POST /v1/traces ---> where is it? (core, Oracle)
//!                        POST /v1/grants/VN/TSI/trace ----> signed: TSI, asks, told, id
//!                        POST https://other:4346/v1/trace, ticket ----------> from whom? by an Oracle? its maps know the id
//!                          "ready" <------------------------------------------
//!                        packet into the VAP's program ==== VXLAN, id in reserved bits ====> its programs
//!                        {"seen": steps} <------------------------------------
//!   steps <------------- all of it
//! ```

mod driver;
mod frame;
mod run;
mod seen;
mod text;

pub(super) use driver::{EXPECTED, Event, Expected, Traces};
pub(super) use run::run;
pub(super) use seen::Seen;
