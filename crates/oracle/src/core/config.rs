//! What a shard is told at its start: who it is, its limits and its intervals.

use std::time::Duration;
use weft_model::BootId;

/// Configuration of one [`Shard`](super::Shard).
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ShardConfig {
    /// Which of the `shards` this one is, counted from 0. Shard 0 alone says hello on sessions.
    pub index: usize,
    /// How many shards share the VNs.
    pub shards: usize,
    /// Drawn anew at each start of the Oracle; told to NVEs in the hello.
    pub boot_id: BootId,
    /// Nonces are drawn from a generator with this seed: the same inputs give the same outputs.
    pub seed: u64,
    /// Bounds on what others can make this shard remember or do.
    pub limits: Limits,
    /// Intervals.
    pub timing: Timing,
    /// Record TTLs that answers carry.
    pub ttl: RecordTtl,
}

/// Bounds on memory and work. Every one works down to 1.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Limits {
    /// Askers remembered per VN; beyond, the one longest silent is told to forget and forgotten.
    pub asks_per_vn: usize,
    /// What one NVE may be remembered for having asked.
    pub asks_per_nve: usize,
    /// Source EIDs kept of one (asker, destination EID), for the table of conversations.
    pub sources_per_ask: usize,
    /// EIDs of one Map-Request that are answered; senders send one (RFC 9301 section 5.3).
    pub records_per_request: usize,
    /// Records of one Map-Register.
    pub records_per_register: usize,
    /// Registrations of one NVE that wait for their grant's fact.
    pub parked_per_nve: usize,
    /// Locators of one record, at most [`MAX_LOCATORS`](super::MAX_LOCATORS).
    pub locators_per_record: usize,
    /// Map-Requests per second that one requester gets answered.
    pub requests_per_second: u32,
    /// Map-Requests answered at once after silence.
    pub request_burst: u32,
    /// Map-Replies per second to one requester about one EID. A changed answer is never delayed.
    pub reply_rate: u32,
    /// Such Map-Replies at once after silence: room for the retries of a requester whose answer was lost.
    pub reply_burst: u32,
    /// Octets of UDP messages waiting to be taken by `poll_transmit`.
    pub udp_queue_octets: usize,
    /// Acknowledgements waiting on one session.
    pub controls_per_session: usize,
    /// Echoes waiting to be taken by `poll_transmit`.
    pub echoes: usize,
    /// NVEs with a session that are asked whether the fault is on this side before another's host is given up.
    pub witnesses: usize,
    /// Events waiting to be taken by `poll_event` that may be lost (refusals, state changes).
    pub events: usize,
    /// Octets that one `poll_transmit` puts into a session's transmission before it ends it.
    pub session_batch_octets: usize,
    /// Changes noted for one subscription; beyond, all of it is sent anew.
    pub changes_per_session: usize,
    /// Multicast groups that one NVE may have receivers of in one VN; with one more it counts as wanting all.
    pub groups_per_member: usize,
    /// Octets of snapshots sent in one [`Timing::push_interval`], to all sessions.
    pub push_octets: usize,
    /// Subscriptions of one plain xTR (RFC 9437).
    pub subscriptions_per_xtr: usize,
    /// Subscriptions of all plain xTRs.
    pub subscriptions: usize,
    /// EID-Prefixes of one plain xTR whose last nonce is kept, subscribed to or not.
    pub subscription_nonces_per_xtr: usize,
    /// Changes noted for one such subscription while a Map-Notify waits for its Ack; beyond, a prefix's snapshot
    /// begins anew and withdrawals alone are noted, and beyond that it ends.
    pub changes_per_subscription: usize,
    /// Octets of a Map-Notify to a subscriber: more than one EID's records are put into the next.
    pub notify_octets: usize,
    /// Publications sent in one [`Timing::push_interval`], to all subscribers.
    pub notifies_per_turn: usize,
}

/// Intervals.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Timing {
    /// A session must have been down this long before its NVE can be called dead.
    pub grace: Duration,
    /// From then on the NVE's RLOCs get an echo this often, while they answer.
    pub echo_interval: Duration,
    /// And this often while they do not.
    pub echo_again: Duration,
    /// Echoes in a row without an answer that mean the host is dead.
    pub echo_misses: u32,
    /// A session down this long means the same, whatever the echo says.
    pub give_up: Duration,
    /// NVEs lost within this time are lost "at once".
    pub vanish_window: Duration,
    /// Fewer lost NVEs than this are never the Oracle's own fault.
    pub vanish_min: usize,
    /// A registration that no grant allows waits this long for one: of a transaction's answer to the NVE
    /// and its fact to this Oracle, the answer may be the faster.
    pub patience: Duration,
    /// A TSI whose holder has said that it Activates it must be registered within this time: then who was
    /// told of it is told that it is gone.
    pub activation: Duration,
    /// Each VN's digest is sent this often.
    pub digest_interval: Duration,
    /// A VN is asked to be registered again at most this often.
    pub refresh_interval: Duration,
    /// Lifetime of a plain xTR's registration (RFC 9301 section 5.6).
    pub registration_timeout: Duration,
    /// The longest such lifetime that an xTR gets by asking for another (its T bit).
    pub registration_longest: Duration,
    /// Between two SMRs to one xTR about one EID (RFC 9301 section 6.1).
    pub smr_interval: Duration,
    /// SMRs about one change, unless the xTR asks before.
    pub smr_count: u8,
    /// Between two turns of snapshots, and of publications.
    pub push_interval: Duration,
    /// A Map-Notify to a subscriber waits this long for its Ack before it is sent again (RFC 9301 section 5.7).
    pub notify_interval: Duration,
    /// It is sent again so often, at this interval.
    pub notify_retries: u32,
    /// Then so often, each time after twice as long.
    pub notify_backoffs: u32,
    /// A subscription to an address that is nobody's ends after this time (RFC 9437 section 5).
    pub temporary_subscription: Duration,
    /// NVEs that hold grants have this long after the start to register what they have; until then no list
    /// of members is said to be complete.
    pub settle: Duration,
}

/// Record TTLs, in minutes.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct RecordTtl {
    /// Of mappings.
    pub positive: u32,
    /// Of Negative answers for a MAC address, and for an IP address inside a subnet of the VN.
    pub negative_inside: u32,
    /// Of Negative answers for any other IP address.
    pub negative_outside: u32,
}

impl Default for ShardConfig {
    fn default() -> Self {
        Self {
            index: 0,
            shards: 1,
            boot_id: BootId(0),
            seed: 0,
            limits: Limits::default(),
            timing: Timing::default(),
            ttl: RecordTtl::default(),
        }
    }
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            asks_per_vn: 1 << 20,
            asks_per_nve: 1 << 17,
            sources_per_ask: 16,
            records_per_request: 8,
            records_per_register: 64,
            parked_per_nve: 1_024,
            locators_per_record: super::MAX_LOCATORS,
            requests_per_second: 20_000,
            request_burst: 2_000,
            reply_rate: 1,
            reply_burst: 3,
            udp_queue_octets: 4 << 20,
            controls_per_session: 1 << 16,
            echoes: 1 << 16,
            witnesses: 8,
            events: 4_096,
            session_batch_octets: 16 << 10,
            changes_per_session: 1 << 14,
            groups_per_member: 256,
            push_octets: 128 << 10,
            subscriptions_per_xtr: 1_024,
            subscriptions: 16_384,
            subscription_nonces_per_xtr: 4_096,
            changes_per_subscription: 16_384,
            notify_octets: 1_400,
            notifies_per_turn: 64,
        }
    }
}

impl Default for Timing {
    fn default() -> Self {
        Self {
            grace: Duration::from_secs(3),
            echo_interval: Duration::from_millis(150),
            echo_again: Duration::from_millis(40),
            echo_misses: 20,
            give_up: Duration::from_secs(180),
            vanish_window: Duration::from_secs(60),
            vanish_min: 2,
            patience: Duration::from_secs(1),
            activation: Duration::from_secs(5),
            digest_interval: Duration::from_secs(30),
            refresh_interval: Duration::from_secs(10),
            registration_timeout: Duration::from_secs(180),
            registration_longest: Duration::from_secs(86_400),
            smr_interval: Duration::from_secs(3),
            smr_count: 3,
            push_interval: Duration::from_millis(1),
            notify_interval: Duration::from_secs(3),
            notify_retries: 3,
            notify_backoffs: 3,
            temporary_subscription: Duration::from_secs(900),
            settle: Duration::from_secs(30),
        }
    }
}

impl Default for RecordTtl {
    fn default() -> Self {
        Self { positive: 15, negative_inside: 1, negative_outside: 15 }
    }
}
