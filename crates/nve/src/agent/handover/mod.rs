//! What one NVE hands another of a tenant system that moves (requirements V2, V3): HTTPS between NVEs, both with their
//! certificates, one question and one answer in lines, honoured for an Oracle's ticket only.
//!
//! ```text
//! new NVE                                   Oracle                 old NVE
//!   Associate: core: Fetch
//!   POST /v1/grants/VN/TSI/ticket ----------> signed: TSI, from, to, epoch
//!   POST https://old:4346/v1/context, ticket --------------------> whose? for whom? by an Oracle? core: is it here?
//!     {"context": ...} <------------------------------------------ intent, connections, groups, addresses in use
//!   core: checked, installed behind a closed VAP
//!     "stopping", {"delta": ...} <-------------------------------- Deactivate, or it hears of the loss
//!   Activate                                                       ...
//!     "end" <----------------------------------------------------- it is gone from there
//! ```

mod door;
mod driver;
mod error;
mod fetch;
mod listen;
mod serve;
#[cfg(test)]
pub(super) mod tests;
mod ticket;
mod tls;
mod trace;
mod wire;

pub(super) use door::{Bounds, Door};
#[cfg(test)]
pub(super) use driver::{Came, Said};
pub(super) use driver::{Event, Handovers};
pub(super) use error::{FetchError, Refusal};
pub(super) use listen::{Listeners, bind};
pub(super) use serve::serve;
pub(super) use tls::Credentials;
pub(super) use trace::{Announce, Followed};
