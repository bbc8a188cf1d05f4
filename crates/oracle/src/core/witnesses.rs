//! Who says that the fault is not on this side: NVEs whose sessions are up, asked whenever a host is to be given up.
//!
//! An Oracle that is cut off notices it NVE by NVE, as one session after the other runs out of patience. The first of
//! them alone looks like a host that died, unless somebody else is asked.

use std::collections::BTreeMap;

use weft_model::{Rloc, Time, XtrId};

use super::Shard;
use super::output::SessionId;

/// A sample of the NVEs with a session.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) struct Witnesses {
    all: BTreeMap<XtrId, Witness>,
    /// When they were last asked.
    asked: Option<Time>,
    /// The next sample begins behind this one: each NVE has its turn.
    last: Option<SessionId>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Witness {
    /// First asked then: an echo that there was no room for does not count.
    since: Option<Time>,
    /// The echo that is not answered yet.
    outstanding: Option<u64>,
    /// Answered then.
    heard: Option<Time>,
}

impl Shard {
    /// Sends the witnesses an echo, if none is on its way; draws them first, if nobody was asked for long.
    pub(crate) fn ask_witnesses(&mut self, now: Time) {
        let interval = self.config.timing.echo_interval;
        let (nodes, witnesses) = (&self.nodes, &mut self.witnesses);
        witnesses.all.retain(|nve, _| nodes.get(*nve).is_some_and(|node| node.session.is_some()));
        if witnesses.asked.is_some_and(|asked| now.since(asked) < interval) {
            return;
        }
        if witnesses.asked.is_some_and(|asked| now.since(asked) > interval * 2) {
            witnesses.all.clear();
        }
        witnesses.asked = Some(now);
        self.draw_witnesses();
        let all: Vec<XtrId> = self.witnesses.all.keys().copied().collect();
        for nve in all {
            let before = self.witnesses.all.get(&nve).and_then(|witness| witness.outstanding);
            let Some(nonce) = self.send_echo(nve, before) else { continue };
            if let Some(witness) = self.witnesses.all.get_mut(&nve) {
                witness.outstanding = Some(nonce);
                witness.since.get_or_insert(now);
            }
        }
    }

    /// Sends the first echo of a session. Who answers it may be a witness: where echoes do not get through (a filter
    /// between Oracle and RLOCs) their want says nothing.
    pub(crate) fn greet(&mut self, nve: XtrId) {
        if self.nodes.get(nve).is_none_or(|node| node.echoes) {
            return;
        }
        let nonce = self.send_echo(nve, None);
        if let Some(node) = self.nodes.get_mut(nve) {
            node.greeting = nonce;
        }
    }

    /// Takes the answer to it.
    fn greeted(&mut self, rloc: Rloc, nonce: u64) -> bool {
        let found = self.nodes.at(rloc).find(|(_, node)| node.greeting == Some(nonce)).map(|(nve, _)| nve);
        let Some(node) = found.and_then(|nve| self.nodes.get_mut(nve)) else { return false };
        node.greeting = None;
        node.echoes = true;
        self.counters.echo_replies += 1;
        true
    }

    fn draw_witnesses(&mut self) {
        let (nodes, witnesses) = (&self.nodes, &mut self.witnesses);
        let most = self.config.limits.witnesses.max(1);
        let behind = witnesses.last.map_or(SessionId(0), |last| SessionId(last.0.saturating_add(1)));
        let turn = nodes.sessions.range(behind..).chain(nodes.sessions.range(..behind));
        // Few are passed over: those that no echo was ever heard of, and those drawn already.
        for (session, nve) in turn.take(most * 2) {
            if witnesses.all.len() >= most {
                break;
            }
            witnesses.last = Some(*session);
            if nodes.get(*nve).is_some_and(|node| node.echoes) {
                let new = Witness { since: None, outstanding: None, heard: None };
                witnesses.all.entry(*nve).or_insert(new);
            }
        }
    }

    /// Takes the answer to an echo, if it is a witness's.
    pub(crate) fn witness_replied(&mut self, now: Time, rloc: Rloc, nonce: u64) {
        if self.greeted(rloc, nonce) {
            return;
        }
        for (nve, _) in self.nodes.at(rloc) {
            let witness = self.witnesses.all.get_mut(&nve);
            if let Some(witness) = witness.filter(|witness| witness.outstanding == Some(nonce)) {
                witness.outstanding = None;
                witness.heard = Some(now);
                self.counters.echo_replies += 1;
            }
        }
    }

    /// How many of the NVEs with a session are lost as well without that it is noticed yet: as large a part of them
    /// as of the witnesses that had time to answer and have not done so since `since`.
    pub(crate) fn unnoticed(&self, now: Time, since: Time) -> usize {
        let interval = self.config.timing.echo_interval;
        let has_session = |nve: &XtrId| self.nodes.get(*nve).is_some_and(|node| node.session.is_some());
        let all = self.witnesses.all.iter().filter(|(nve, _)| has_session(nve));
        let had_time = |since: Time| now.since(since) >= interval;
        let asked: Vec<_> = all.filter(|(_, witness)| witness.since.is_some_and(had_time)).collect();
        let silent =
            asked.iter().filter(|(_, witness)| witness.heard.is_none_or(|heard| heard < since)).count();
        (self.nodes.sessions.len() * silent).checked_div(asked.len()).unwrap_or(0)
    }
}
