//! One step.

use weft_model::VnSpec;
use weft_nve::core::{ApiCall, CallId, Core, Refused};
use weft_sim::frames;

use crate::act::{Action, Datagram, Side};
use crate::host::{Answer, Down, Input, Start, Up};
use crate::names::{self, NVES, db, devices, source, xtr};
use crate::oracle::Told;
use crate::part::Part;
use crate::state::{State, Transaction};

impl State {
    /// Does it.
    pub(crate) fn step(&mut self, action: Action) {
        match action {
            Action::OracleReads(nve) => self.oracle_reads(nve),
            Action::NveReads(nve) => self.nve_reads(nve),
            Action::Watch(nve) => {
                let next = self.hosts.get_mut(nve).and_then(|host| host.watch.pop_front());
                if let Some((revision, grants)) = next {
                    let named = |spec: &VnSpec| grants.iter().any(|grant| grant.tsi.vni == spec.vni);
                    let vns = names::vns(self.family).into_iter().filter(named).collect();
                    self.nve(nve, &Input::Grants(revision, grants, vns));
                }
            }
            Action::Serve(nve, call) => self.serve(nve, call),
            Action::ServeLate(nve) => self.serve_late(nve),
            Action::Answer(nve, call) => self.answer(nve, call, false),
            Action::LoseAnswer(nve, call) => {
                self.left.lost -= 1;
                self.answer(nve, call, true);
            }
            Action::Commit(tsi, nve, epoch) => {
                self.orders.remove(&(tsi.clone(), nve, epoch));
                self.transact(&Transaction::Succeed(tsi, nve, epoch));
            }
            Action::Datagram(datagram) => {
                self.take(&datagram);
                self.arrives(datagram);
            }
            Action::Double(datagram) => {
                self.left.doubled -= 1;
                self.arrives(datagram);
            }
            Action::LoseDatagram(datagram) => {
                self.left.lost -= 1;
                self.take(&datagram);
            }
            Action::LoseSession(nve) => {
                self.left.cuts -= 1;
                self.lose_session(nve);
            }
            Action::Connect(nve) => self.connect(nve),
            Action::KillAgent(nve) => {
                self.left.agents[nve] -= 1;
                self.kill_agent(nve);
                self.start_if_same(nve);
            }
            Action::KillUnsaved(nve) => {
                self.left.unsaved -= 1;
                if let Some(host) = self.hosts.get_mut(nve) {
                    host.disk = host.before.clone();
                }
                self.kill_agent(nve);
                self.start_if_same(nve);
            }
            Action::StartAgent(nve) => self.start_agent(nve),
            Action::KillOracle => {
                self.left.oracles -= 1;
                self.kill_oracle();
                self.start_oracle_at_once();
            }
            Action::StartOracle => self.start_oracle(),
            Action::Tick => {
                self.left.ticks -= 1;
                self.tick();
            }
            Action::Ask => {
                self.left.asks -= 1;
                self.ask();
            }
            action => self.acts(&action),
        }
    }

    fn nve_reads(&mut self, nve: usize) {
        let Some(host) = self.hosts.get_mut(nve) else { return };
        let Some(next) = host.to_nve.pop_front() else { return };
        match next {
            Down::End => {
                host.session = None;
                host.watch.clear();
                self.nve(nve, &Input::Down);
            }
            Down::Frames(octets) => self.nve(nve, &Input::Frames(octets)),
        }
    }

    fn serve(&mut self, nve: usize, call: CallId) {
        let Some(host) = self.hosts.get_mut(nve) else { return };
        let by = (xtr(nve), host.boots);
        let transaction = match host.calls.remove(&call) {
            Some(ApiCall::Grant { vn, name, mac, ips, .. }) => Transaction::Attach { vn, name, by, mac, ips },
            Some(ApiCall::Release { vn, name, held, .. }) => Transaction::Release { vn, name, by, held },
            _ => return,
        };
        let answer = self.transact(&transaction);
        if let (Some(answer), Some(host)) = (answer, self.hosts.get_mut(nve)) {
            host.answers.insert(call, answer);
        }
    }

    /// Nobody hears the answer.
    fn serve_late(&mut self, nve: usize) {
        let late = self.hosts.get_mut(nve).and_then(|host| host.late.pop_front());
        if let Some((start, ApiCall::Release { vn, name, held, .. })) = late {
            self.transact(&Transaction::Release { vn, name, by: (xtr(nve), start), held });
        }
    }

    fn answer(&mut self, nve: usize, call: CallId, lost: bool) {
        let answer = self.hosts.get_mut(nve).and_then(|host| host.answers.remove(&call));
        let unanswered = || Refused::Unanswered { message: "lost".to_owned() };
        let answer = match answer {
            Some(Answer::Granted(_)) if lost => Answer::Granted(Box::new(Err(unanswered()))),
            Some(Answer::Released(_)) if lost => Answer::Released(Err(unanswered())),
            Some(answer) => answer,
            None => return,
        };
        self.nve(nve, &Input::Answer(call, answer));
    }

    /// One of these datagrams is under way no more.
    fn take(&mut self, datagram: &Datagram) {
        if let Some(count) = self.net.get_mut(datagram) {
            *count -= 1;
            if *count == 0 {
                self.net.remove(datagram);
            }
        }
    }

    fn arrives(&mut self, Datagram { from, to, octets }: Datagram) {
        let family = self.family;
        match (to, from) {
            (Side::Oracle, Side::Nve(from)) => {
                self.oracle(&Told::Datagram(source(family, from), octets));
            }
            (Side::Nve(to), from) => {
                let from = match from {
                    Side::Nve(from) => source(family, from).ip(),
                    Side::Oracle => names::oracle(family).ip(),
                };
                self.nve(to, &Input::Datagram(from, octets));
            }
            (Side::Oracle, Side::Oracle) => {}
        }
    }

    pub(crate) fn lose_session(&mut self, nve: usize) {
        let Some(host) = self.hosts.get_mut(nve) else { return };
        // What it had said is lost with it.
        let session = host.session;
        host.to_oracle.retain_mut(|(id, up)| match up {
            Up::Begin(said) if Some(*id) == session => {
                said.clear();
                true
            }
            _ => Some(*id) != session,
        });
        host.hang_up();
        self.nve(nve, &Input::Down);
    }

    pub(crate) fn connect(&mut self, nve: usize) {
        // Those of one NVE are numbered as they come; in which order two NVEs connect is in no number.
        self.sessions[nve] += 1;
        let session = self.sessions[nve] * NVES as u64 + nve as u64;
        let list = self.grants.get().naming(xtr(nve));
        let Some(host) = self.hosts.get_mut(nve) else { return };
        host.session = Some(session);
        let before = host.to_oracle.len();
        host.to_oracle.push_back((session, Up::Begin(Vec::new())));
        host.watch.push_back(list);
        self.nve(nve, &Input::Up);
        self.end_turn(nve, before);
    }

    fn kill_agent(&mut self, nve: usize) {
        let Some(host) = self.hosts.get_mut(nve) else { return };
        host.core = None;
        host.hang_up();
        let given_back = std::mem::take(&mut host.calls).into_values();
        let given_back = given_back.filter(|call| matches!(call, ApiCall::Release { .. }));
        let boots = host.boots;
        host.late.extend(given_back.map(|call| (boots, call)));
        host.before = host.disk.clone();
        host.answers.clear();
        if self.script.activating.is_some_and(|(at, _)| at == nve) {
            self.script.activating = None;
        }
    }

    /// With what it had on its disk, and what its kernel holds.
    pub(crate) fn start_agent(&mut self, nve: usize) {
        let (family, now, known) = (self.family, self.now, self.known.clone());
        let Some(host) = self.hosts.get_mut(nve) else { return };
        host.boots += 1;
        let boots = host.boots;
        let key = (nve, boots, now, &host.disk, &host.kernel);
        let start = known.starts.get(&key, || {
            let mut core = Core::new(names::config(family, nve, boots));
            names::know_nves(&mut core, family);
            let (attachments, vns) = host.disk.get().clone();
            let devices = devices(nve);
            core.remember(vns.clone(), Default::default(), host.kernel.get());
            core.restore(now, attachments, &devices);
            core.adopt(now, vns, host.kernel.get());
            core.keep_orphans(&devices, host.kernel.get());
            // Its outputs so far are this.
            while core.poll_output().is_some() {}
            Start { kernel: Part::new(core.tables().clone()).hashed(), core: Part::new(core).hashed() }
        });
        host.kernel = start.kernel.clone();
        host.core = Some(start.core.clone());
    }

    /// An agent that is dead for a while is one that is back at once, and neither reads nor does anything for that while:
    /// what it begins from, its disk and its kernel, is nobody else's to change, and what comes meanwhile on a session that
    /// has ended is lost in both cases. Nothing that is checked tells the two apart, so only the second is looked at.
    ///
    /// Not so if its kernel leads elsewhere until it is back, if datagrams of its own may reach it (another NVE sends it
    /// none), or if time passes.
    fn start_if_same(&mut self, nve: usize) {
        let of = |datagram: &Datagram| [datagram.from, datagram.to].contains(&Side::Nve(nve));
        if self.left.ticks > 0 || self.net.keys().any(of) {
            return;
        }
        let kernel = self.hosts[nve].kernel.clone();
        let mut started = self.clone();
        started.start_agent(nve);
        if started.hosts[nve].kernel == kernel {
            *self = started;
        }
    }

    /// So it is with the Oracle: without one the store changes no more, and who has noticed its end may take long to come
    /// back to one that is there.
    fn start_oracle_at_once(&mut self) {
        if self.left.ticks == 0 {
            self.start_oracle();
        }
    }

    fn kill_oracle(&mut self) {
        self.oracle = None;
        self.orders.clear();
        for host in &mut self.hosts {
            host.to_oracle.clear();
            if host.session.is_some() {
                host.to_nve.push_back(Down::End);
            }
        }
    }

    /// Nothing happens until the next deadline.
    pub(crate) fn tick(&mut self) {
        let cores = self.hosts.iter().filter_map(|host| host.core.as_ref()?.get().poll_timeout());
        let oracle = self.oracle.as_ref().and_then(|oracle| oracle.get().poll_timeout());
        let Some(at) = cores.chain(oracle).min() else { return };
        self.now = at.max(self.now);
        let now = self.now;
        let due = |at: Option<weft_model::Time>| at.is_some_and(|at| at <= now);
        for nve in 0..self.hosts.len() {
            if due(self.hosts[nve].core.as_ref().and_then(|core| core.get().poll_timeout())) {
                self.nve(nve, &Input::Timeout);
            }
        }
        if due(self.oracle.as_ref().and_then(|oracle| oracle.get().poll_timeout())) {
            self.oracle(&Told::Timeout);
        }
    }

    /// db asks for web, if no table at its host knows it.
    pub(crate) fn ask(&mut self) {
        let family = self.family;
        let grant = self.grants.get().get(&db());
        let vap = names::device(&db().name, 0).index;
        if let Some(punt) = grant.and_then(|grant| frames::question(grant, vap, names::ip(family))) {
            self.nve(0, &Input::Punt(punt));
        }
    }

    /// Whether it does.
    pub(crate) fn may_ask(&self) -> bool {
        let key = (db().vni, names::ip(self.family));
        let host = self.hosts.first();
        host.is_some_and(|host| host.core.is_some() && !host.kernel.get().neighbours.contains_key(&key))
    }
}
