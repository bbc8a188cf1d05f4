//! A data centre in one process: the real cores of Oracles and NVEs on a network that loses, repeats and
//! reorders, whose hosts die and come back, in virtual time.
//!
//! Everything is drawn from one seed: a run with the same seed and the same script is the same run, and a
//! failure is a seed away from being seen again. What is real: [`weft_oracle::core::Shard`] and
//! [`weft_nve::core::Core`], every octet they exchange, and the registry with its transactions ([`Store`]). What is
//! simulated: the network ([`Net`]), the hosts' data paths (an echo is answered while the host lives, and the tables
//! stay when the agent dies), hypervisors and operators (attach, detach, moves) and tenants (ARP and NS for an address).
//!
//! ```
//! use std::time::Duration;
//! use weft_sim::{Plan, World};
//!
//! let mut world = World::new(Plan { nves: 3, tsis: 2, ..Plan::default() });
//! world.attach_all();
//! world.run(Duration::from_secs(2));
//! world.ask_all(1);
//! world.run(Duration::from_secs(2));
//! assert_eq!(world.problems(), Vec::<String>::new());
//! ```
#![forbid(unsafe_code)]

#[cfg(test)]
mod bulk;
mod calls;
mod check;
mod deliver;
pub mod frames;
mod names;
mod net;
mod run;
mod session;
mod store;
mod world;

pub use calls::eids;
pub use deliver::{Delivered, deliver, vap_of};
pub use net::{Host, Link, Net, Rng};
pub use store::{Commit, Done, Image, Store};
pub use world::{Plan, Stats, World};
