//! The real cores of one Oracle and two NVEs in every order of events that there is within bounds: while a tenant
//! system moves from one to the other messages wait, are lost, doubled or overtake each other, agents and the Oracle
//! die and come back, the store is slow, a move is called off.
//!
//! Nothing of the cores is abstracted: a [`State`] holds [`weft_nve::core::Core`], [`weft_oracle::core::Shard`] and all
//! that the registry's store holds, and each [`Action`] is one call of a core or one transaction. What is modelled is
//! what is around them: the network, the kernels' tables, the disks, the hypervisors. Time stands still but for
//! [`Action::Tick`], which goes on to the next deadline.
//!
//! Of each state these must hold (requirements V4, V5, V10; RFC 8014 section 3.2):
//!
//! * every epoch of the tenant system that moves was given to one NVE only;
//! * by what the kernels hold no frame is delivered to anybody but who has its address in its VN, also none that has been
//!   under way between the NVEs for any time;
//! * and when nothing is under way: were everything whole from now on, the tenant system would end in service at one NVE at
//!   most, its owner's, and there if its hypervisor was told so; the Oracle's, both NVEs' and both kernels' tables would say
//!   the same, and what is sent to it would arrive there.
//!
//! So that all states can be looked at, those that nothing tells apart are one:
//!
//! * what was counted is in no hash; sessions are numbered by NVE, calls of hypervisors by what they ask for, so that the
//!   order in which two of them came is in no number;
//! * who dies is back at once where nothing could be seen in between (see `State::start_if_same`);
//! * with [`Bounds::turns`] what a core says in one turn arrives as a whole. This one leaves orders out.
//!
//! And what a core does with what it is handed is worked out once, whatever the others are in (see `Known`).
//!
//! ```
//! use stateright::{Checker as _, Model as _};
//! use weft_check::{Bounds, Family, Moves};
//!
//! let model = Moves::new(Family::V4, Bounds::NONE);
//! let checker = model.checker().spawn_bfs().join();
//! checker.assert_properties();
//! assert_eq!(checker.unique_state_count(), 1);
//! ```
#![forbid(unsafe_code)]

mod act;
mod frames;
mod host;
mod known;
mod model;
mod names;
mod oracle;
mod part;
mod quiet;
mod script;
mod state;
mod step;

pub use act::Action;
pub use model::{Bounds, Moves, check_rest};
pub use names::Family;
pub use state::State;
