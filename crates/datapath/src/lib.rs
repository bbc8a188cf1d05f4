//! Weft's data plane: eBPF programs at every VAP and uplink, their loader and typed maps, and a
//! software model of the same decisions.
//!
//! [`Kernel`] is the real thing, [`Model`] the reference: a property test drives both with the same
//! tables and frames. Both are a [`Datapath`]. The tables are the agent's wish and the kernel's
//! state alike: `wanted.diff(&kernel.observed()?)` is what a restarted agent has to apply.
//!
//! # What is decided, in order
//!
//! Of a frame from a tenant system: is its device a VAP, is that Activated, no VLAN tag, its source
//! MAC; then ARP sender addresses, IP source, ND options and advertised targets; no router's or DHCP
//! server's messages and nothing that hides what it is; broadcast ARP and multicast solicitations are
//! answered, punted or dropped here, never sent on; other group destinations are dropped, or in a VN that
//! replicates them go to its other VAPs here and to its members; then where
//! the destination MAC is, whether the frame fits the tenant MTU, and how it gets there.
//!
//! Of a frame from the underlay: is the outer source an NVE, is it VXLAN, no inner VLAN tag or group
//! destination; is its sender not one that is here; is its destination a VAP of that VN, Activated. A VN that
//! replicates lets group destinations in, for its VAPs only, but not ARP and ND unless it floods.
//!
//! In a VN that floods, ARP and ND are frames like others, a destination nobody knows is everybody's, and
//! where a source was seen last is remembered for 300 s (an LRU map: the programs decide what is too old).
//!
//! In a VN whose table is pushed, frames to the MAC address that its NVEs answer with
//! ([`weft_model::MacAddr::anycast`]) are given their destination's by its IP address, or go to the agent whole,
//! which may send them on later. A held frame is sent on by a test run of a program that makes the same
//! decisions and then sends a clone: no socket, no second way of encapsulating.
//!
//! In a VN that translates (RFC 7586), a tenant system is its NVE ([`weft_model::MacAddr::of_node`]) to other
//! NVEs: the sender is rewritten on the way out, in ARP and Neighbor Discovery too, and what comes for this NVE
//! is given its owner's MAC address by IP address, from the answers and locations of those that are here. A
//! question that no table answers goes to the members; the one that has the owner hands it to him alone, and
//! both remember for 60 s who was heard.
//!
//! In a VN that replicates, a multicast group of more than one link goes to the VAPs and members that asked for it;
//! one that nobody
//! asked for by its name goes to those that want all, if there are such. What tenant systems say of groups (IGMP, MLD) goes to the agent whole, their
//! queries are dropped: the agent is the querier.
//!
//! Copies are made behind a limit of the VN, 1,000 a second and 200 at once unless said otherwise, and go by
//! the VXLAN device.
//!
//! Frames that are too large are answered ("fragmentation needed", "packet too big") whether or not
//! IPv4's DF is set: nothing is fragmented here, and hosts heed the message either way. Not answered
//! are ICMP errors and later IPv4 fragments, as RFC 1122 section 3.2.2 wants it, nor more than 1,000 a
//! second for each VAP.
//!
//! A VAP with a policy sends and receives what a rule allows, and what belongs to a connection that one has allowed:
//! after every other check of what it sends and before anything is looked up, and last of all of what is for it. A
//! frame from one VAP here to another passes the one's `out` and the other's `in`. A connection is tracked by VNI, both
//! addresses, protocol and ports as its VAP sees them, so it is the same wherever that is; it is looked up again, in the
//! direction it was opened in, when the VAP's policy has another generation. TCP may be picked up in the middle. ICMP
//! errors belong to the connection of what they quote, later fragments to a first one that came before them (for
//! 30 s). ARP, ND, IGMP, MLD and a DHCP client's messages have checks of their own; whatever else is no IP is refused,
//! and so is what says to come from where it goes. Copies of a frame for many are checked by the receivers' rules
//! alone, and of fragments of such only the first get to a receiver with a policy.
//!
//! What the tunnel policy of a VAP ([`Tunnel`]) says of outer headers is done last, and so is what it says of rates: of
//! a frame from one VAP here to another first the one's `send`, then the other's `receive`. Of copies each counts for
//! who gets it, and the frame once for who sent it.
//!
//! # Limits
//!
//! Uplinks are Ethernet devices. The peer of a veth has to be in another network namespace. An NVE
//! does not hear echoes sent from its own host: they do not cross an uplink.
mod connection;
mod datapath;
pub mod echo;
mod error;
mod event;
mod kernel;
mod model;
mod policy;
mod reason;
mod tables;
mod trace;
mod tunnel;

pub use connection::{Connection, ConnectionState, Tracked};
pub use datapath::Datapath;
pub use error::DatapathError;
pub use event::{Heard, Punt, PuntReason, Seen};
pub use kernel::{
    Attachment, ConnectionCounter, ConnectionReader, Did, DryRun, Kernel, Limits, OpenOptions, Part, Patrol,
    Progress, Punts, Steps, TableSize, run_promptly, table_sizes,
};
pub use model::{Action, Ingress, Learned, Lesson, Model, Packet, Verdict, decide};
pub use policy::{
    Allow, ClassId, Policy, PolicyId, Ports, PortsError, Prefix, PrefixError, RULE_COUNTERS, RuleKey, Toward,
};
pub use reason::{Counter, Direction, Idle, Reason};
pub use tables::{
    Away, Config, IfIndex, Location, Neighbour, Op, Path, Peer, Receivers, Tables, Vap, VapKind, Vn,
};
pub use trace::{By, Ended, Step, Trace, TraceId, Traced, Way};
pub use tunnel::{Levels, Meter, Tunnel};
