//! What is counted. Counters are observations, not state: they take no part in equality and hash.

use std::hash::{Hash, Hasher};

use super::error::Refusal;

macro_rules! counters {
    ($($(#[doc = $doc:literal])+ $name:ident,)+) => {
        /// Counters since the start of the shard.
        #[derive(Clone, Debug, Default)]
        pub struct Counters {
            $($(#[doc = $doc])+ pub $name: u64,)+
            /// Registrations refused, by the index of the reason in [`Refusal::NAMES`].
            pub refused: [u64; Refusal::NAMES.len()],
        }

        impl Counters {
            /// Name, explanation and value of each counter but `refused`.
            pub fn iter(&self) -> impl Iterator<Item = (&'static str, &'static str, u64)> + '_ {
                [$((stringify!($name), concat!($($doc),+), self.$name)),+].into_iter()
            }

            /// Adds another shard's counters to these.
            pub fn add(&mut self, other: &Self) {
                $(self.$name += other.$name;)+
                for (mine, theirs) in self.refused.iter_mut().zip(other.refused) {
                    *mine += theirs;
                }
            }
        }
    };
}

counters! {
    /// Datagrams given to the shard.
    datagrams,
    /// Datagrams that are no whole LISP message.
    malformed,
    /// Messages of a kind the Oracle does not take.
    unsupported,
    /// EIDs asked for by Map-Requests that came from somebody who may ask.
    requests,
    /// Map-Requests from an address that is no known NVE's or xTR's.
    requests_from_strangers,
    /// Map-Requests with an ITR-RLOC that is not the asker's.
    requests_foreign_itr_rloc,
    /// Map-Requests about a VN in which the asker has no grant.
    requests_foreign_vn,
    /// Map-Requests beyond the rate of their sender.
    requests_rate_limited,
    /// EIDs asked for again too soon after the answer.
    requests_repeated,
    /// Map-Replies with a mapping from a registration.
    replies_registered,
    /// Map-Replies with a mapping from a grant whose NVE has not registered.
    replies_granted,
    /// Map-Requests passed on to the NVE that is to answer, or is solicited by them.
    requests_forwarded,
    /// Negative Map-Replies.
    replies_negative,
    /// EIDs asked for that could not be answered yet.
    unanswered,
    /// UDP messages dropped because the transmit queue was full.
    udp_dropped,
    /// Registrations accepted.
    registrations,
    /// Registrations that waited for their grant's fact.
    parked,
    /// Registrations withdrawn by their NVE.
    withdrawals,
    /// Registrations withdrawn because their NVE was gone.
    withdrawals_dead,
    /// Activations announced that no registration followed.
    activations_without_registration,
    /// Registrations removed because a snapshot did not name them.
    removed_by_snapshot,
    /// Registrations of plain xTRs that timed out.
    expired,
    /// Mapping Notifications sent on sessions.
    notifications,
    /// Mapping Notifications saved because a newer change took their place before they were sent.
    notifications_coalesced,
    /// Nodes for which more waited than is kept; they start over.
    overruns,
    /// SMRs sent to plain xTRs.
    smrs,
    /// Askers forgotten because too many were remembered.
    asks_evicted,
    /// Askers forgotten because their answer's TTL ended.
    asks_expired,
    /// Frames on sessions.
    frames,
    /// Frames whose data were not those of their type.
    frames_malformed,
    /// Frames on a session that is not, or no longer, an NVE's.
    frames_without_session,
    /// Subscriptions accepted, and snapshots asked for again.
    subscriptions,
    /// Groups that an NVE has receivers of and that were not taken: of a VN it has no part in, no groups of more
    /// than one link, or too many.
    groups_refused,
    /// Snapshots begun again because more had changed than is kept.
    snapshots_restarted,
    /// VN digests that did not match.
    digest_mismatches,
    /// VNs or everything asked to be registered again.
    refreshes,
    /// Map-Registers over UDP that failed authentication.
    register_bad_auth,
    /// Map-Registers over UDP with a nonce that was used before.
    register_replayed,
    /// Map-Registers over UDP that repeat the last one and were acknowledged again.
    register_repeated,
    /// Subscriptions of plain xTRs accepted over UDP, those asked for again included.
    pubsub_subscribed,
    /// Subscriptions of plain xTRs ended by their xTR.
    pubsub_unsubscribed,
    /// Subscriptions of plain xTRs refused, replays included.
    pubsub_refused,
    /// Subscriptions of plain xTRs dropped because their nonce was used before.
    pubsub_replayed,
    /// Subscriptions of plain xTRs ended by the Oracle.
    pubsub_ended,
    /// Map-Notifies to subscribers, each counted once.
    pubsub_notifies,
    /// Map-Notifies to subscribers sent again.
    pubsub_retransmitted,
    /// Changes that took the place of another that waited for a subscriber's Map-Notify-Ack.
    pubsub_coalesced,
    /// Snapshots for subscribers that began anew: more had changed than is noted.
    pubsub_restarted,
    /// Map-Notify-Acks of what was waiting for one.
    pubsub_acks,
    /// Authentic Map-Notify-Acks of nothing that was waiting for one.
    pubsub_acks_unmatched,
    /// Map-Notify-Acks that failed authentication, or came from strangers.
    pubsub_bad_auth,
    /// Echoes sent.
    echoes,
    /// Echoes answered.
    echo_replies,
    /// Events lost because nobody took them.
    events_dropped,
}

impl Counters {
    /// Registrations refused, by the name of the reason.
    pub fn refusals(&self) -> impl Iterator<Item = (&'static str, u64)> + '_ {
        Refusal::NAMES.into_iter().zip(self.refused)
    }

    pub(crate) fn refuse(&mut self, reason: &Refusal) {
        if let Some(count) = self.refused.get_mut(reason.index()) {
            *count += 1;
        }
    }
}

impl PartialEq for Counters {
    fn eq(&self, _: &Self) -> bool {
        true
    }
}

impl Eq for Counters {}

impl Hash for Counters {
    fn hash<H: Hasher>(&self, _: &mut H) {}
}
