//! The hypervisors and the operator: where web runs, and what has been asked for.

use weft_model::Grant;
use weft_nve::core::{Attach, CallId, Refused, TsiState};
use weft_oracle::core::Ending;

use crate::act::Action;
use crate::host::Input;
use crate::names::{db, device, ip, mac, red, web, xtr};
use crate::oracle::Told;
use crate::state::{State, Transaction};

/// A move under way.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Move {
    pub(crate) from: usize,
    pub(crate) to: usize,
    associated: bool,
    deactivated: bool,
    activated: bool,
    let_go: bool,
    called_off: bool,
}

/// What has been asked for and answered.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) struct Script {
    /// Where web is in service, as its hypervisor was told; nowhere or unknown.
    pub(crate) runs: Option<usize>,
    /// Where it was last.
    pub(crate) at: usize,
    pub(crate) moving: Option<Move>,
    /// It has ended.
    pub(crate) ended: bool,
    /// Moves so far: what is asked for in each has numbers of its own, in whichever order it is.
    moves: u64,
    /// The Activate that is not answered.
    pub(crate) activating: Option<(usize, CallId)>,
    /// The call that ends it.
    ending: Option<(usize, CallId)>,
    /// That was answered: nothing is left of it.
    pub(crate) gone: bool,
}

impl Script {
    /// It runs there.
    pub(crate) fn at(nve: usize) -> Self {
        Self { runs: Some(nve), at: nve, ..Self::default() }
    }
}

/// What a hypervisor attaches.
pub(crate) fn attachment(
    tsi: weft_model::TsiId,
    nve: usize,
    state: TsiState,
    family: crate::Family,
) -> Attach {
    let named = tsi != db();
    let vn = if tsi.vni == web().vni { red() } else { crate::names::blue() };
    Attach {
        vn,
        device: device(&tsi.name, nve),
        name: tsi.name,
        mac: named.then(mac),
        ips: named.then(|| ip(family)).into_iter().collect(),
        groups: Default::default(),
        state,
        lease: None,
        explicit: false,
    }
}

impl State {
    /// The number of a local call.
    fn call(&self, action: &Action) -> CallId {
        let n = match action {
            Action::Associate => 0,
            Action::Deactivate => 1,
            Action::Activate => 2,
            Action::LetGo => 3,
            _ => 4,
        };
        CallId(8 * (1 + self.script.moves) + n)
    }

    pub(crate) fn answered(&mut self, nve: usize, call: CallId, answer: Result<(), Refused>) {
        if self.script.ending == Some((nve, call)) {
            self.script.gone = answer.is_ok();
        }
        if self.script.activating != Some((nve, call)) {
            return;
        }
        self.script.activating = None;
        let called_off = self.script.moving.is_some_and(|m| m.called_off && m.to == nve);
        let anothers = |grant: &Grant| grant.epoch_of(xtr(nve)).is_err();
        if answer.is_ok() && called_off && self.grants.get().get(&web()).is_some_and(anothers) {
            self.broken = Some("what was called off is in service".to_owned());
        }
        // After it was called off nobody counts on it.
        if answer.is_ok() && self.script.moving.is_some_and(|m| !m.called_off && m.to == nve) {
            self.script.runs = Some(nve);
        }
    }

    /// What hypervisors and the operator may do now.
    pub(crate) fn may(&self, actions: &mut Vec<Action>) {
        let script = &self.script;
        if script.ended {
            return;
        }
        let Some(m) = script.moving else {
            if self.left.moves > 0 && self.oracle.is_some() {
                actions.push(Action::Name);
            }
            return;
        };
        let lives = |nve: usize| self.hosts[nve].core.is_some();
        if !m.associated && lives(m.to) {
            actions.push(Action::Associate);
        }
        if m.associated && !m.deactivated && lives(m.from) {
            actions.push(Action::Deactivate);
        }
        if m.associated && !m.activated && lives(m.to) && self.is_attached(m.to) {
            actions.push(Action::Activate);
        }
        // The hypervisor it came to has said so, or the operator lets go without waiting for that.
        let came = script.runs == Some(m.to);
        if !m.let_go && lives(m.from) && (came || self.left.early > 0) && m.associated {
            actions.push(Action::LetGo);
        }
        if came && self.left.ends > 0 && lives(m.to) {
            actions.push(Action::End);
        }
        if !m.called_off && self.left.calls_off > 0 && self.oracle.is_some() {
            actions.push(Action::CallOff);
        }
        if (came || m.called_off) && self.left.moves > 0 && self.oracle.is_some() {
            actions.push(Action::Name);
        }
    }

    /// Whether web is attached at an NVE, Associated or Activated.
    pub(crate) fn is_attached(&self, nve: usize) -> bool {
        let core = self.hosts.get(nve).and_then(|host| host.core.as_ref());
        core.is_some_and(|core| core.get().tsis().any(|tsi| tsi.grant.tsi == web()))
    }

    /// One of them.
    pub(crate) fn acts(&mut self, action: &Action) {
        let call = self.call(action);
        if *action == Action::Name {
            let at = self.script.runs.unwrap_or(self.script.at);
            let (from, to) = (at, 1 - at);
            self.left.moves -= 1;
            self.script.moves += 1;
            self.transact(&Transaction::Name(to));
            // Refused, as a move to where it is: nothing begins.
            let named = self.grants.get().get(&web()).and_then(|grant| grant.next);
            if named.is_some_and(|next| next.nve == xtr(to)) {
                self.script.moving = Some(Move { from, to, ..Move::default() });
            }
            return;
        }
        let Some(mut m) = self.script.moving else { return };
        match action {
            Action::Associate => {
                m.associated = true;
                let attach = attachment(web(), m.to, TsiState::Associated, self.family);
                self.script.moving = Some(m);
                self.nve(m.to, &Input::Attach(call, attach));
            }
            Action::Deactivate => {
                m.deactivated = true;
                self.leave(m.from);
                self.script.moving = Some(m);
                self.nve(m.from, &Input::Deactivate(call));
            }
            Action::Activate => {
                m.activated = true;
                // Until it is answered nobody knows. What was called off changes nothing.
                if !m.called_off {
                    (self.script.runs, self.script.at) = (None, m.to);
                }
                self.script.activating = Some((m.to, call));
                self.script.moving = Some(m);
                self.nve(m.to, &Input::Activate(call));
            }
            Action::LetGo => {
                if self.script.runs != Some(m.to) {
                    self.left.early -= 1;
                }
                m.let_go = true;
                self.leave(m.from);
                self.script.moving = Some(m);
                self.nve(m.from, &Input::Detach(call));
            }
            Action::End => {
                self.left.ends -= 1;
                (self.script.runs, self.script.ended) = (None, true);
                self.script.ending = Some((m.to, call));
                self.nve(m.to, &Input::Detach(call));
            }
            Action::CallOff => {
                self.left.calls_off -= 1;
                let told = self.script.runs == Some(m.to);
                if !self.call_off() {
                    return;
                }
                // What has come to where it moves to is there: nothing is called off.
                let holds = |nve: usize| self.grants.get().get(&web()).is_some_and(|g| g.owner == xtr(nve));
                if holds(m.to) {
                    return;
                }
                if told && holds(m.from) {
                    self.broken = Some("what is in service was called off".to_owned());
                }
                m.called_off = true;
                self.leave(m.to);
                self.script.moving = Some(m);
                self.script.at = m.from;
            }
            _ => {}
        }
    }

    /// Nobody counts on its being in service there any more.
    fn leave(&mut self, nve: usize) {
        if self.script.runs == Some(nve) {
            self.script.runs = None;
        }
    }

    /// An operator calls the move off: by way of the shard, which may know that it has come to its end. False if he is
    /// refused.
    fn call_off(&mut self) -> bool {
        let ending = self.oracle(&Told::Ending);
        // Refused: who is next may have been told so by an Oracle that has died since.
        if let Ending::Unheard(_) = ending {
            return false;
        }
        if let Ending::Moved(next) = ending {
            self.transact(&Transaction::Succeed(web(), next.nve, next.epoch));
        }
        self.transact(&Transaction::CallOff);
        if let Ending::Kept(next) = ending {
            self.oracle(&Told::NotEnded(next));
        }
        true
    }
}
