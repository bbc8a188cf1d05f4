//! One step.

use weft_lisp::tcp::FrameDecoder;
use weft_nve::core as nve;
use weft_nve::core::{ApiCall, CallId, Core, Refused};
use weft_sim::frames;

use crate::act::{Action, Datagram, Side};
use crate::host::{Answer, Down, Up};
use crate::names::{self, db, devices, source, xtr};
use crate::part::Part;
use crate::state::State;

impl State {
    /// Does it.
    pub(crate) fn step(&mut self, action: Action) {
        match action {
            Action::OracleReads(nve) => self.oracle_reads(nve),
            Action::NveReads(nve) => self.nve_reads(nve),
            Action::Watch(nve) => {
                let next = self.hosts.get_mut(nve).and_then(|host| host.watch.pop_front());
                if let Some((revision, grants)) = next {
                    self.nve(nve, |core| core.handle_fact(nve::Fact::Grants(revision, grants)));
                    self.persist(nve);
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
                self.transact(|store| ((), store.succeed(&tsi, nve, epoch)));
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
                self.left.faults -= 1;
                self.lose_session(nve);
            }
            Action::Connect(nve) => self.connect(nve),
            Action::KillAgent(nve) => {
                self.left.faults -= 1;
                self.kill_agent(nve);
            }
            Action::KillUnsaved(nve) => {
                self.left.faults -= 1;
                if let Some(host) = self.hosts.get_mut(nve) {
                    host.disk = host.before.clone();
                }
                self.kill_agent(nve);
            }
            Action::StartAgent(nve) => self.start_agent(nve),
            Action::KillOracle => {
                self.left.faults -= 1;
                self.kill_oracle();
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
        let now = self.now;
        match next {
            Down::End => {
                host.session = None;
                host.watch.clear();
                self.nve(nve, |core| core.handle_session(now, 0, nve::Session::Down));
            }
            Down::Frames(octets) => self.nve(nve, |core| {
                let mut decoder = FrameDecoder::default();
                decoder.push(&octets);
                while let Ok(Some(frame)) = decoder.next_frame() {
                    core.handle_session(now, 0, nve::Session::Frame(frame));
                }
            }),
        }
    }

    fn serve(&mut self, nve: usize, call: CallId) {
        let Some(host) = self.hosts.get_mut(nve) else { return };
        let by = (xtr(nve), host.boots);
        let answer = match host.calls.remove(&call) {
            Some(ApiCall::Grant { vn, name, mac, ips, .. }) => {
                Answer::Granted(Box::new(self.transact(|store| store.attach(vn, name, by, mac, ips))))
            }
            Some(ApiCall::Release { vn, name, held, .. }) => {
                Answer::Released(self.transact(|store| store.release(vn, name, by, held)))
            }
            _ => return,
        };
        if let Some(host) = self.hosts.get_mut(nve) {
            host.answers.insert(call, answer);
        }
    }

    /// Nobody hears the answer.
    fn serve_late(&mut self, nve: usize) {
        let late = self.hosts.get_mut(nve).and_then(|host| host.late.pop_front());
        if let Some((start, ApiCall::Release { vn, name, held, .. })) = late {
            drop(self.transact(|store| store.release(vn, name, (xtr(nve), start), held)));
        }
    }

    fn answer(&mut self, nve: usize, call: CallId, lost: bool) {
        let answer = self.hosts.get_mut(nve).and_then(|host| host.answers.remove(&call));
        let now = self.now;
        let unanswered = || Refused::Unanswered { message: "lost".to_owned() };
        match answer {
            Some(Answer::Granted(answer)) => {
                let answer = if lost { Err(unanswered()) } else { *answer };
                self.nve(nve, |core| core.handle_granted(now, call, answer));
            }
            Some(Answer::Released(answer)) => {
                let answer = if lost { Err(unanswered()) } else { answer };
                self.nve(nve, |core| core.handle_released(call, answer));
            }
            None => {}
        }
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
        let (now, family) = (self.now, self.family);
        match (to, from) {
            (Side::Oracle, Side::Nve(from)) => {
                self.oracle(|shard, now, to| shard.handle_datagram(now, source(family, from), to, &octets));
            }
            (Side::Nve(to), from) => {
                let from = match from {
                    Side::Nve(from) => source(family, from).ip(),
                    Side::Oracle => names::oracle(family).ip(),
                };
                self.nve(to, |core| core.handle_datagram(now, from, &octets));
            }
            (Side::Oracle, Side::Oracle) => {}
        }
    }

    pub(crate) fn lose_session(&mut self, nve: usize) {
        let now = self.now;
        let Some(host) = self.hosts.get_mut(nve) else { return };
        // What it had said is lost with it.
        let session = host.session;
        host.to_oracle.retain(|(id, up)| Some(*id) != session || *up == Up::Begin);
        host.hang_up();
        self.nve(nve, |core| core.handle_session(now, 0, nve::Session::Down));
    }

    pub(crate) fn connect(&mut self, nve: usize) {
        let now = self.now;
        self.sessions += 1;
        let session = self.sessions;
        let list = self.grants.get().naming(xtr(nve));
        let Some(host) = self.hosts.get_mut(nve) else { return };
        host.session = Some(session);
        host.to_oracle.push_back((session, Up::Begin));
        host.watch.push_back(list);
        self.nve(nve, |core| core.handle_session(now, 0, nve::Session::Up));
    }

    fn kill_agent(&mut self, nve: usize) {
        let Some(host) = self.hosts.get_mut(nve) else { return };
        host.core = None;
        host.hang_up();
        let given_back = std::mem::take(&mut host.calls).into_values();
        let given_back = given_back.filter(|call| matches!(call, ApiCall::Release { .. }));
        host.late.extend(given_back.map(|call| (host.boots, call)));
        host.before = host.disk.clone();
        host.answers.clear();
        if self.script.activating.is_some_and(|(at, _)| at == nve) {
            self.script.activating = None;
        }
    }

    /// With what it had on its disk, and what its kernel holds.
    pub(crate) fn start_agent(&mut self, nve: usize) {
        let (family, now) = (self.family, self.now);
        let Some(host) = self.hosts.get_mut(nve) else { return };
        host.boots += 1;
        let mut core = Core::new(names::config(family, nve, host.boots));
        names::know_nves(&mut core, family);
        let (attachments, vns) = host.disk.get().clone();
        let devices = devices(nve);
        core.remember(vns.clone(), Default::default(), host.kernel.get());
        core.restore(now, attachments, &devices);
        core.adopt(now, vns, host.kernel.get());
        core.keep_orphans(&devices, host.kernel.get());
        // Its outputs so far are this.
        while core.poll_output().is_some() {}
        host.kernel = Part::new(core.tables().clone());
        host.core = Some(Part::new(core));
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
                self.nve(nve, |core| core.handle_timeout(now));
            }
        }
        if due(self.oracle.as_ref().and_then(|oracle| oracle.get().poll_timeout())) {
            self.oracle(|shard, now, _| shard.handle_timeout(now));
        }
    }

    /// db asks for web, if no table at its host knows it.
    pub(crate) fn ask(&mut self) {
        let (family, now) = (self.family, self.now);
        let grant = self.grants.get().get(&db());
        let vap = names::device(&db().name, 0).index;
        if let Some(punt) = grant.and_then(|grant| frames::question(grant, vap, names::ip(family))) {
            self.nve(0, |core| core.handle_punt(now, &punt));
        }
    }

    /// Whether it does.
    pub(crate) fn may_ask(&self) -> bool {
        let key = (db().vni, names::ip(self.family));
        let host = self.hosts.first();
        host.is_some_and(|host| host.core.is_some() && !host.kernel.get().neighbours.contains_key(&key))
    }
}
