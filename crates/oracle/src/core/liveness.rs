//! Losing a session is not losing a host: stale, echoed, and only then withdrawn.

use std::time::Duration;

use weft_model::{Rloc, Time, XtrId};

use super::output::Event;
use super::{Shard, Timer};

/// What is known of an NVE whose session is lost.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Lost {
    pub(crate) since: Time,
    /// The echo that is not answered yet. Sent again it is the same one: an answer to any copy counts, however long
    /// its way is.
    outstanding: Option<u64>,
    /// It was sent last time: there was room for it.
    sent: bool,
    /// Echoes in a row without an answer.
    misses: u32,
    /// When it is looked at next: one that is looked at by two timers would miss twice as fast.
    next: Option<Time>,
    /// One was, and it has not been silent since: the host lives, only the agent does not.
    answered: bool,
    /// What it had registered is withdrawn; when.
    pub(crate) withdrawn: Option<Time>,
}

impl Lost {
    pub(crate) const fn new(since: Time) -> Self {
        Self {
            since,
            outstanding: None,
            sent: false,
            misses: 0,
            next: None,
            answered: false,
            withdrawn: None,
        }
    }
}

impl Shard {
    /// An NVE's session is lost: asks its host from the first moment on, or gives it up.
    pub(crate) fn review_lost(&mut self, now: Time, nve: XtrId) {
        let timing = self.config.timing.clone();
        let Some(node) = self.nodes.get_mut(nve) else { return };
        let due = |lost: &&mut Lost| lost.withdrawn.is_none() && lost.next.is_none_or(|at| at <= now);
        let Some(lost) = node.lost.as_mut().filter(due) else { return };
        let since = lost.since;
        let down = now.since(since);
        if lost.outstanding.is_some() && lost.sent {
            lost.misses = lost.misses.saturating_add(1);
        }
        let silent = lost.misses >= timing.echo_misses.max(1);
        lost.answered &= !silent;
        let heard = lost.answered && lost.misses == 0;
        let dead = (silent && down >= timing.grace) || down >= timing.give_up;
        if dead && self.db.registered_by(nve).next().is_none() {
            return self.forget_lost(now, nve, silent);
        }
        if dead && !self.too_many_lost(now, since) {
            return self.withdraw_node(now, nve, down);
        }
        self.echo(nve);
        if !heard || self.alarmed.is_some() {
            self.ask_witnesses(now);
        }
        // One that is silent is asked more often, so that many may be lost on the way before it is given up; not where
        // the fault is on this side.
        let hurry = !heard && self.alarmed.is_none();
        let next = if hurry { timing.echo_again } else { timing.echo_interval };
        self.review_at(now + next, nve);
    }

    fn review_at(&mut self, at: Time, nve: XtrId) {
        if let Some(lost) = self.nodes.get_mut(nve).and_then(|node| node.lost.as_mut()) {
            lost.next = Some(at);
        }
        self.arm(at, Timer::Liveness(nve));
    }

    /// An NVE that has nothing registered here has nothing that could be withdrawn, so its loss needs no
    /// decision. When its host is `silent` too, that says for a while that many may be lost at once, and
    /// nothing after that: it may be gone for good.
    fn forget_lost(&mut self, now: Time, nve: XtrId, silent: bool) {
        self.forget_all_groups(now, nve);
        if !silent {
            self.nodes.lost.remove(&nve);
        } else if let Some(lost) = self.nodes.get_mut(nve).and_then(|node| node.lost.as_mut()) {
            lost.withdrawn = Some(now);
        }
    }

    fn echo(&mut self, nve: XtrId) {
        let before = self.nodes.get(nve).and_then(|node| node.lost.as_ref()?.outstanding);
        let sent = self.send_echo(nve, before);
        if let Some(lost) = self.nodes.get_mut(nve).and_then(|node| node.lost.as_mut()) {
            lost.sent = sent.is_some();
            lost.outstanding = sent.or(before);
        }
    }

    /// Sends an echo to each RLOC of an NVE, or one that was sent `before` again; its nonce. None that there is no
    /// room for: that proves nothing by going unanswered.
    pub(crate) fn send_echo(&mut self, nve: XtrId, before: Option<u64>) -> Option<u64> {
        let room = self.out.echoes.len() < self.config.limits.echoes;
        let node = self.nodes.get(nve).filter(|node| room && !node.rlocs.is_empty())?;
        let nonce = before.unwrap_or_else(|| self.nonces.draw());
        for rloc in &node.rlocs {
            self.out.echoes.push_back((*rloc, nonce));
            self.counters.echoes += 1;
        }
        Some(nonce)
    }

    pub(crate) fn echo_replied(&mut self, now: Time, rloc: Rloc, nonce: u64) {
        let mut nves = self
            .nodes
            .at(rloc)
            .filter(|(_, node)| node.lost.as_ref().is_some_and(|lost| lost.outstanding == Some(nonce)));
        let found = nves.next().map(|(nve, _)| nve);
        drop(nves);
        if let Some(node) = found.and_then(|nve| self.nodes.get_mut(nve)) {
            node.echoes = true;
        }
        match found.and_then(|nve| self.nodes.get_mut(nve)).and_then(|node| node.lost.as_mut()) {
            Some(lost) => {
                self.counters.echo_replies += 1;
                lost.outstanding = None;
                lost.misses = 0;
                lost.answered = true;
            }
            None => self.witness_replied(now, rloc, nonce),
        }
        self.review_alarm(now);
    }

    fn withdraw_node(&mut self, now: Time, nve: XtrId, after: Duration) {
        let all: Vec<_> = self.db.registered_by(nve).collect();
        if let Some(lost) = self.nodes.get_mut(nve).and_then(|node| node.lost.as_mut()) {
            lost.withdrawn = Some(now);
        }
        for (_, ix) in &all {
            self.drop_registration(now, *ix, nve);
            self.counters.withdrawals_dead += 1;
        }
        self.forget_all_groups(now, nve);
        self.event(Event::Withdrawn { nve, tsis: all.len(), after });
        self.end_wait(now, nve);
    }

    /// Whether so many NVEs are lost at once that the fault must be on this side.
    ///
    /// Lost are those without a session that the echo has not found alive, those withdrawn within the
    /// window, so that a loss that is noticed NVE by NVE is seen as one, and those that witnesses who say nothing
    /// stand for: they answered nothing since `since`, or since the alarm.
    fn too_many_lost(&mut self, now: Time, since: Time) -> bool {
        let (mut lost, of) = self.count_lost(now);
        if self.under_review() {
            lost += self.unnoticed(now, self.alarmed.unwrap_or(since));
        }
        let many = lost >= self.config.timing.vanish_min.max(1) && lost * 3 > of;
        if many && self.alarmed.is_none() {
            self.alarmed = Some(now);
            self.event(Event::ManyNvesLost { lost, of });
        } else if !many && self.alarmed.is_some() {
            self.alarmed = None;
            self.event(Event::NvesBack);
            self.begin_again(now);
            return true;
        }
        many
    }

    /// The fault was on this side and has ended: what was missed meanwhile proves nothing. Those still lost
    /// have their grace time and their echoes before them again.
    fn begin_again(&mut self, now: Time) {
        let still: Vec<XtrId> = self.nodes.lost.iter().copied().collect();
        for nve in still {
            let lost = self.nodes.get_mut(nve).and_then(|node| node.lost.as_mut());
            if let Some(lost) = lost.filter(|lost| lost.withdrawn.is_none()) {
                *lost = Lost::new(now);
                self.review_at(now, nve);
            }
        }
    }

    /// Ends the alarm when enough NVEs are back.
    pub(crate) fn review_alarm(&mut self, now: Time) {
        if self.alarmed.is_some() {
            self.too_many_lost(now, now);
        }
    }

    /// Whether any host may be given up yet: else the witnesses are not asked.
    fn under_review(&self) -> bool {
        let mut lost = self.nodes.lost.iter().filter_map(|nve| self.nodes.get(*nve)?.lost.as_ref());
        lost.any(|lost| lost.withdrawn.is_none())
    }

    fn count_lost(&mut self, now: Time) -> (usize, usize) {
        let window = self.config.timing.vanish_window;
        // Those half-way to being silent count as lost, so that many are seen to be before the first of them is given up.
        let few = self.config.timing.echo_misses.max(1).div_ceil(2);
        let (mut lost, mut alive, mut long_gone) = (0, 0, Vec::new());
        for nve in &self.nodes.lost {
            match self.nodes.get(*nve).and_then(|node| node.lost.as_ref()) {
                Some(Lost { withdrawn: Some(at), .. }) if now.since(*at) > window => long_gone.push(*nve),
                Some(Lost { withdrawn: None, answered: true, misses, .. }) if *misses < few => alive += 1,
                Some(_) => lost += 1,
                None => long_gone.push(*nve),
            }
        }
        for nve in long_gone {
            self.nodes.lost.remove(&nve);
        }
        (lost, lost + alive + self.nodes.sessions.len())
    }
}
