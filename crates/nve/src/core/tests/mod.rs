//! The core against the tables it means and an Oracle that is scripted: what it sends is decoded, what
//! it hears is encoded.

mod answer;
mod anycast;
mod attach;
mod away;
mod claim;
mod context;
mod detach;
mod grants;
mod group_room;
mod groups;
mod hostile;
mod idle;
mod invariants;
mod late;
mod learn;
mod lease;
mod limits;
mod members;
mod misses;
mod oracle;
mod orphan;
mod policy;
mod policy_property;
mod property;
mod push;
mod resolve;
mod session;
mod silent;
mod solicit;
mod states;
mod told;
mod translate;
mod tunnel;
mod update;
mod world;
