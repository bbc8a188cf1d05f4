//! The contract between the NVE's agent and whatever forwards its frames.

use crate::{
    Connection, Counter, DatapathError, Heard, Idle, IfIndex, Levels, Op, Reason, Seen, Tables, Tracked,
};
use core::time::Duration;
use std::collections::BTreeSet;
use weft_model::{MacAddr, Rloc, TenantIp, Vni};

/// A data plane: the kernel's ([`crate::Kernel`]) or the software [`crate::Model`].
///
/// Methods block, attaching to a device up to some 25 ms: call them on a thread that may.
pub trait Datapath {
    /// Makes one change. Idempotent.
    ///
    /// # Errors
    /// [`DatapathError`]; the change may then be made in part, and making it again is safe.
    fn apply(&mut self, op: &Op) -> Result<(), DatapathError>;

    /// What the data plane holds, read from it, not remembered: a restarted agent subtracts this
    /// from what it wants ([`Tables::diff`]). VAPs and uplinks count only if their program is
    /// attached.
    ///
    /// # Errors
    /// When a map cannot be read.
    fn observed(&self) -> Result<Tables, DatapathError>;

    /// Every counter that is not zero, in order.
    ///
    /// # Errors
    /// When the map cannot be read.
    fn counters(&self) -> Result<Vec<Counter>, DatapathError>;

    /// How long no frame was sent to this location; none if it is not there or never was used.
    ///
    /// # Errors
    /// When the map cannot be read.
    fn last_used(&self, vni: Vni, mac: MacAddr) -> Result<Option<Idle>, DatapathError>;

    /// What was learned from frames and counts still, in order.
    ///
    /// # Errors
    /// When the map cannot be read.
    fn learned(&self) -> Result<Vec<Seen>, DatapathError>;

    /// Which IP addresses were heard to be behind which NVE, as far as that counts still, in order.
    ///
    /// # Errors
    /// When the map cannot be read.
    fn heard(&self) -> Result<Vec<Heard>, DatapathError>;

    /// Says that for as long as `lasts` the locations of remote tenant systems are an Oracle's latest word
    /// (zero: they are not). Frames from other NVEs than they name are then dropped as fenced, if this is said 2 s or more
    /// after the first such frame. An agent that has lost every Oracle, or died, or stands still, vouches no more: its
    /// tables may be the ones that are wrong.
    ///
    /// # Errors
    /// When the map cannot be written.
    fn vouch(&mut self, lasts: Duration) -> Result<(), DatapathError>;

    /// Sends a frame on its way that was held, as if its VAP had sent it again: every check is made, every table
    /// looked at, the frame counted. It goes by the VXLAN device; what would be answered (a frame that is too big)
    /// is dropped. A checksum that its tenant system left to the device to make is made. What became of it: it may be
    /// punted again.
    ///
    /// # Errors
    /// [`DatapathError::FrameLength`] (some 3,500 octets at most), [`DatapathError::NoDevice`], or what the kernel
    /// says.
    fn resend(&mut self, vap: IfIndex, frame: &[u8]) -> Result<Reason, DatapathError>;

    /// Carries on a frame that another NVE has handed to this one, a gateway, and that was punted as
    /// [`PuntReason::Carried`](crate::PuntReason::Carried), as if it came now; but where its destination is still not
    /// known it is dropped and not punted again. A checksum is made as in [`Self::resend`]. What became of it.
    ///
    /// # Errors
    /// [`DatapathError::FrameLength`], or what the kernel says.
    fn carry(&mut self, vni: Vni, from: Rloc, frame: &[u8]) -> Result<Reason, DatapathError>;

    /// Sends a frame to the tenant system at a VAP, past every check.
    ///
    /// # Errors
    /// [`DatapathError::NoDevice`], [`DatapathError::FrameLength`], or what the kernel says.
    fn inject(&mut self, vap: IfIndex, frame: &[u8]) -> Result<(), DatapathError>;

    /// Packets and octets that each rule's counter says it let through, of those that let any, in order.
    ///
    /// # Errors
    /// When the map cannot be read.
    fn rule_counters(&self) -> Result<Vec<(u32, u64, u64)>, DatapathError>;

    /// Begins to count a rule anew: its number may be another rule's from now on.
    ///
    /// # Errors
    /// [`DatapathError::NoRuleCounter`], or when the map cannot be written.
    fn clear_rule(&mut self, rule: u32) -> Result<(), DatapathError>;

    /// How full the table of connections is.
    ///
    /// # Errors
    /// When the map cannot be read.
    fn tracked(&self) -> Result<Tracked, DatapathError>;

    /// The connections of a VN that policies have let through and that have not ended, in order: of these addresses of
    /// tenant systems here, or of all.
    ///
    /// # Errors
    /// When the map cannot be read.
    fn connections(
        &self,
        vni: Vni,
        of: Option<&BTreeSet<TenantIp>>,
    ) -> Result<Vec<Connection>, DatapathError>;

    /// Takes over connections that another NVE has let through. What is tracked here already stays. Each is looked
    /// up again by its next packet, under the policy that its VAP has here.
    ///
    /// # Errors
    /// When the map cannot be written.
    fn set_connections(&mut self, connections: &[Connection]) -> Result<(), DatapathError>;

    /// Forgets every connection of these addresses: their tenant system has gone.
    ///
    /// # Errors
    /// When the map cannot be read or written.
    fn remove_connections(&mut self, vni: Vni, of: &BTreeSet<TenantIp>) -> Result<(), DatapathError>;

    /// What is left in a VAP's token buckets now; nothing of a device that is no VAP.
    ///
    /// # Errors
    /// When the map cannot be read.
    fn levels(&self, vap: IfIndex) -> Result<Levels, DatapathError>;

    /// Takes over what was left in a tenant system's buckets so long `ago` at another NVE: those here hold no more than
    /// that and what has come in since. They hold less if less is in them already, and never more than their bursts.
    ///
    /// # Errors
    /// When the map cannot be read or written.
    fn lower(&mut self, vap: IfIndex, levels: Levels, ago: Duration) -> Result<(), DatapathError>;
}
