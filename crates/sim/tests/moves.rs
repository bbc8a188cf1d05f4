//! Moves of tenant systems in all their steps, each of which may be lost, late or broken off: Oracles and agents that
//! die and come back, ways that are cut, a store that fails, a move that is called off (requirements H5, V1 to V10).
//! When all is quiet each runs where its hypervisor wants it and nowhere else, and everybody knows. Each failure names
//! its seed.
//!
//! `WEFT_SIM_SEEDS` says how many seeds, `WEFT_SIM_FIRST_SEED` where they begin.

#![allow(clippy::unwrap_used, clippy::panic, reason = "helpers of tests")]

use std::collections::BTreeSet;
use std::time::Duration;

use weft_model::{Learning, TsiId};
use weft_nve::core::{CallId, Refused};
use weft_sim::{Link, Plan, Rng, World};

const S: fn(u64) -> Duration = Duration::from_secs;
const MS: fn(u64) -> Duration = Duration::from_millis;

const NVES: usize = 5;
const ORACLES: usize = 2;
const ROUNDS: usize = 4;
/// After all that was broken is whole: longer than a device that stays away is waited for.
const BOUND: Duration = Duration::from_secs(120);

fn knob(name: &str, default: u64) -> u64 {
    std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(default)
}

struct Run {
    seed: u64,
    world: World,
    rng: Rng,
    dead: BTreeSet<usize>,
    cut: BTreeSet<(usize, usize)>,
    /// What has happened, for the failure's text.
    log: Vec<String>,
}

impl Run {
    fn new(seed: u64, learning: Learning) -> Self {
        let mut rng = Rng::new(seed);
        let bad = Link { loss: 50, duplicate: 50, jitter: MS(10), ..Link::default() };
        let succeed_delay = MS([0, 1, 500, 3_000][usize::try_from(rng.below(4)).unwrap()]);
        let (nves, tsis, vns) = (NVES, 2, 2);
        let plan =
            Plan { seed, nves, tsis, vns, learning, succeed_delay, succeed_fails: 300, ..Plan::default() };
        let mut world = World::new(plan);
        world.attach_all();
        while world.stats().calls < u64::try_from(nves * tsis).unwrap() {
            world.run(MS(500));
            assert!(world.now() < weft_model::Time::from_secs(60), "seed {seed}: {:?}", world.problems());
        }
        world.net().link = bad;
        Self { seed, world, rng, dead: BTreeSet::new(), cut: BTreeSet::new(), log: Vec::new() }
    }

    fn draw(&mut self, below: usize) -> usize {
        usize::try_from(self.rng.below(u64::try_from(below).unwrap())).unwrap()
    }

    fn one_in(&mut self, n: usize) -> bool {
        self.draw(n) == 0
    }

    fn note(&mut self, what: String) {
        let tsi = self.world.tsi(0, 0);
        let grant = self.world.store().grant(&tsi).map(|grant| {
            let next = grant.next.map(|next| (next.nve.0[15] - 1, next.epoch.get()));
            (grant.owner.0[15] - 1, grant.epoch.get(), next)
        });
        let there = self.world.in_service(&tsi);
        self.log.push(format!("{} {what}; granted to {grant:?}, in service at {there:?}", self.world.now()));
    }

    /// A while in which something may break, and something that is broken may be whole again.
    fn pass(&mut self, parties: [usize; 2], tsi: &TsiId) {
        let nve = parties[self.draw(2)];
        let oracle = self.draw(ORACLES);
        match self.draw(12) {
            0 => {
                self.note(format!("Oracle {oracle} dies"));
                self.world.crash_oracle(oracle);
                let after = MS(self.rng.below(3_000));
                self.world.restart_oracle(oracle, after);
            }
            1 if self.dead.insert(nve) => {
                self.note(format!("agent {nve} dies"));
                self.world.kill_agent(nve);
            }
            2 if self.cut.insert((nve, oracle)) => {
                self.note(format!("{nve} is cut off from Oracle {oracle}"));
                self.world.cut(nve, oracle, true);
            }
            3 => {
                self.note(format!("{nve} is cut off from all"));
                for oracle in 0..ORACLES {
                    self.cut.insert((nve, oracle));
                    self.world.cut(nve, oracle, true);
                }
            }
            4 => self.world.lose_session(nve, oracle),
            5 => self.mend(false),
            _ => {}
        }
        let span = [1, 5, 100, 1_000, 6_000][self.draw(5)];
        let after = MS(self.rng.below(span) + 1);
        self.world.run(after);
        self.look(tsi);
        if self.one_in(2) {
            self.mend(true);
        }
    }

    /// What tenant systems send at this moment reaches nobody else.
    fn look(&mut self, tsi: &TsiId) {
        for nve in 0..NVES {
            for m in 0..2 {
                let other = self.world.tsi(nve, m);
                if other != *tsi {
                    self.world.sends(&other, tsi);
                    self.world.sends(tsi, &other);
                }
            }
        }
    }

    /// Agents come back, and all of it if need be.
    fn mend(&mut self, agents_only: bool) {
        for nve in std::mem::take(&mut self.dead) {
            self.note(format!("agent {nve} is back"));
            self.world.restart_agent(nve);
        }
        if !agents_only {
            for (nve, oracle) in std::mem::take(&mut self.cut) {
                self.world.cut(nve, oracle, false);
            }
        }
    }

    /// The answer to a call, if there is one in time.
    fn wait(&mut self, call: CallId) -> Option<Result<(), Refused>> {
        for _ in 0..300 {
            if let Some(answer) = self.world.answer(call) {
                let answer = answer.clone();
                self.note(format!("{call:?} ends: {answer:?}"));
                return Some(answer);
            }
            self.world.run(MS(50));
        }
        self.note(format!("{call:?} is not answered"));
        None
    }

    /// Has the tenant system in service at an NVE in the end, whatever that takes.
    fn insist(&mut self, nve: usize, tsi: &TsiId) {
        for _ in 0..40 {
            let call = self.world.activate(nve, tsi);
            let mut answer = self.wait(call);
            if matches!(answer, Some(Err(Refused::NotAttached { .. }))) {
                let call = self.world.associate(nve, tsi);
                self.wait(call);
                let call = self.world.activate(nve, tsi);
                answer = self.wait(call);
            }
            if answer == Some(Ok(())) {
                return;
            }
            self.world.run(MS(500));
        }
        self.fail("it is not Activated");
    }

    /// Calls the move off, as often as it takes until an Oracle says how it ends. False when it has come to its end.
    fn call_off(&mut self, tsi: &TsiId, from: usize) -> bool {
        for _ in 0..80 {
            match self.world.call_off(tsi) {
                Ok(grant) => return grant.owner == self.world.xtr(from),
                Err(Refused::Unanswered { .. }) => self.world.run(MS(500)),
                Err(refused) => self.fail(&refused.to_string()),
            }
        }
        self.fail("no Oracle calls it off");
    }

    /// Has an NVE let go of what it may have of it.
    fn forget(&mut self, nve: usize, tsi: &TsiId) {
        for _ in 0..40 {
            let call = self.world.let_go(nve, tsi);
            if matches!(self.wait(call), Some(Ok(()) | Err(Refused::NotAttached { .. }))) {
                return;
            }
            self.world.run(MS(500));
        }
        self.fail("it is not let go");
    }

    fn fail(&self, what: &str) -> ! {
        let problems = self.world.problems();
        panic!(
            "seed {}: {what}\n{}\n{} problems, first {:#?}",
            self.seed,
            self.log.join("\n"),
            problems.len(),
            &problems[..problems.len().min(4)]
        );
    }

    /// One move, or what becomes of it. Gives where the tenant system runs then.
    fn moves(&mut self, tsi: &TsiId, from: usize, to: usize) -> usize {
        self.note(format!("{tsi} moves from {from} to {to}"));
        let parties = [from, to];
        let ways = self.draw(8);
        if let Err(refused) = self.world.set_next(tsi, to) {
            self.fail(&refused.to_string());
        }
        self.pass(parties, tsi);
        let call = self.world.associate(to, tsi);
        self.note(format!("{call:?}: associate at {to}"));
        if !self.one_in(4) {
            self.wait(call);
        }
        self.pass(parties, tsi);
        match ways {
            // It lets go in the middle: who is next is the owner.
            0 => {
                let call = self.world.let_go(from, tsi);
                self.note(format!("{call:?}: let go at {from}"));
            }
            // Both at once: who is next wins.
            1 => {}
            _ => {
                let call = self.world.deactivate(from, tsi);
                self.note(format!("{call:?}: deactivate at {from}"));
            }
        }
        self.pass(parties, tsi);
        let mut called_off = ways == 2;
        if called_off {
            self.note("called off before".to_owned());
            called_off = self.call_off(tsi, from);
            self.pass(parties, tsi);
        }
        let call = self.world.activate(to, tsi);
        self.note(format!("{call:?}: activate at {to}"));
        if ways == 3 {
            self.pass(parties, tsi);
            self.note("called off after".to_owned());
            called_off |= self.call_off(tsi, from);
        }
        let activated = self.wait(call) == Some(Ok(()));
        if ways == 4 && activated {
            // It ends where it has just come to.
            self.world.run(MS(1));
            let call = self.world.let_go(to, tsi);
            self.note(format!("{call:?}: let go at {to}, where it has come to"));
        }
        self.pass(parties, tsi);
        self.mend(false);
        if ways == 4 && activated {
            self.forget(to, tsi);
            self.forget(from, tsi);
            self.settle(tsi, None);
            self.note(format!("attached anew at {from}"));
            self.insist(from, tsi);
            return from;
        }
        let (at, left) = if called_off { (from, to) } else { (to, from) };
        if called_off {
            self.forget(left, tsi);
            self.insist(at, tsi);
        } else {
            self.insist(at, tsi);
            if self.one_in(3) {
                self.note(format!("its device at {left} goes away"));
                self.world.unplug(left, tsi);
                self.world.run(S(70));
            }
            self.forget(left, tsi);
        }
        at
    }

    /// Everybody of its VN looks for it.
    fn ask_for(&mut self, tsi: &TsiId) {
        let ips = self.world.store().grant(tsi).map(|grant| grant.ips.clone());
        for nve in 1..NVES {
            let asker = self.world.tsi(nve, 0);
            for ip in ips.iter().flatten() {
                self.world.ask(nve, &asker, *ip, 60);
            }
        }
    }

    /// All is quiet.
    fn settle(&mut self, tsi: &TsiId, at: Option<usize>) {
        let bad = self.world.net().link;
        self.world.net().link = Link::default();
        self.world.runs_at(tsi, at);
        if at.is_some() {
            self.world.ask_again();
        }
        if self.world.settle(BOUND).is_none() {
            self.fail("it is not quiet");
        }
        self.world.net().link = bad;
    }
}

fn survives(seed: u64, learning: Learning) {
    let mut run = Run::new(seed, learning);
    let tsi = run.world.tsi(0, 0);
    let mut at = 0;
    run.ask_for(&tsi);
    for _ in 0..ROUNDS {
        let to = (at + 1 + run.draw(NVES - 1)) % NVES;
        at = run.moves(&tsi, at, to);
        // Its addresses may be others by now.
        run.ask_for(&tsi);
        run.settle(&tsi, Some(at));
        // Itself apart.
        for nve in 1..NVES {
            let other = run.world.tsi(nve, 0);
            let got: BTreeSet<usize> = run.world.sends(&other, &tsi).into_iter().map(|got| got.nve).collect();
            if got != BTreeSet::from([at]) {
                run.fail(&format!("a frame of {other} reaches it at {got:?}, not at {at}"));
            }
        }
    }
}

fn seeds(learning: Learning) {
    let first = knob("WEFT_SIM_FIRST_SEED", 1_000);
    for seed in first..first + knob("WEFT_SIM_SEEDS", 10) {
        survives(seed, learning);
    }
}

#[test]
fn v5_a_move_ends_at_one_place_whatever_breaks() {
    seeds(Learning::Oracle);
}

#[test]
fn v5_and_so_where_mappings_are_pushed() {
    seeds(Learning::Distribute);
}
