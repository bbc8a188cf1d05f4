//! The model as the checker walks it.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use stateright::{Model, Property};
use weft_datapath::Tables;
use weft_nve::core::{self as nve, CallId, Core, TsiState};
use weft_sim::Store;

use crate::act::Action;
use crate::host::{Host, Input};
use crate::known::Known;
use crate::names::{self, BEGIN, Family, NVES, db, spy, web};
use crate::oracle::shard;
use crate::part::Part;
use crate::script::{Script, attachment};
use crate::state::{Granted, State};

/// How often what may happen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Bounds {
    /// Moves that are begun.
    pub moves: usize,
    /// Deaths of agents, by NVE.
    pub agents: [usize; NVES],
    /// Deaths of the Oracle.
    pub oracles: usize,
    /// Agents that die before what they have written last is on their disks.
    pub unsaved: usize,
    /// Sessions that are lost.
    pub cuts: usize,
    /// Datagrams and answers of /v1 that are lost.
    pub lost: usize,
    /// Datagrams that come twice.
    pub doubled: usize,
    /// Deadlines that pass.
    pub ticks: usize,
    /// Questions of db for web.
    pub asks: usize,
    /// Moves that are called off.
    pub calls_off: usize,
    /// Owners that let go before who is next has Activated it.
    pub early: usize,
    /// Tenant systems that end where they have come to.
    pub ends: usize,
    /// What a core says on a session in one turn arrives at once, as it is written at once, and the first with its session;
    /// else each frame of it may come alone. It leaves orders out: for bounds that are too wide otherwise.
    pub turns: bool,
}

impl Bounds {
    /// Nothing happens but what is under way.
    pub const NONE: Self = Self {
        moves: 0,
        agents: [0; NVES],
        oracles: 0,
        unsaved: 0,
        cuts: 0,
        lost: 0,
        doubled: 0,
        ticks: 0,
        asks: 0,
        calls_off: 0,
        early: 0,
        ends: 0,
        turns: false,
    };
}

/// Moves of web between two NVEs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Moves {
    first: State,
}

impl Moves {
    /// Within these bounds.
    #[must_use]
    pub fn new(family: Family, bounds: Bounds) -> Self {
        Self { first: Self::begin(family, bounds) }
    }

    /// All are attached, registered and known; nothing is under way.
    fn begin(family: Family, bounds: Bounds) -> State {
        let mut store = Store::default();
        for nve in 0..NVES {
            store.enrol(names::nve_fact(family, nve));
        }
        for spec in names::vns(family) {
            store.create(spec);
        }
        let host = |nve| {
            let mut core = Core::new(names::config(family, nve, 1));
            names::know_nves(&mut core, family);
            for spec in names::vns(family) {
                core.handle_fact(nve::Fact::Vn(spec));
            }
            let mut kernel = Tables::default();
            while let Some(output) = core.poll_output() {
                if let nve::Output::Apply(op, _) = output {
                    kernel.apply(&op);
                }
            }
            Part::new(Host {
                core: Some(Part::new(core)),
                boots: 1,
                disk: Part::new((Vec::new(), Vec::new())),
                before: Part::new((Vec::new(), Vec::new())),
                kernel: Part::new(kernel),
                session: None,
                to_oracle: VecDeque::new(),
                to_nve: VecDeque::new(),
                watch: VecDeque::new(),
                calls: BTreeMap::new(),
                answers: BTreeMap::new(),
                late: VecDeque::new(),
            })
        };
        let mut state = State {
            family,
            now: BEGIN,
            store: Part::new(store.image()),
            grants: Part::new(Granted::of(&store)),
            oracle: Some(Part::new(shard(&store, 1, BEGIN))),
            boots: 1,
            sessions: [0; NVES],
            hosts: [host(0), host(1)],
            net: Part::new(BTreeMap::new()),
            orders: BTreeSet::new(),
            script: Script::at(0),
            left: Bounds::NONE,
            given: BTreeMap::new(),
            broken: None,
            known: Known::default(),
        };
        for (call, (tsi, nve)) in (1..).zip([(web(), 0), (db(), 0), (spy(), 1)]) {
            let attach = attachment(tsi, nve, TsiState::Activated, family);
            state.nve(nve, &Input::Attach(CallId(call), attach));
        }
        // What does not come to rest is found by the properties.
        state.broken = state.settle().and_then(|()| state.true_at_rest()).err();
        state.left = bounds;
        state
    }
}

/// Whether a state is as it must be, or what is wrong.
///
/// # Errors
/// The first thing found.
pub fn check_rest(state: &State) -> Result<(), String> {
    let mut rest = state.clone();
    // How often what may still go wrong is no part of it.
    rest.left = Bounds::NONE;
    let known = state.known.clone();
    let found = known.rest.get(&rest.clone(), || {
        rest.settle()?;
        rest.true_at_rest()?;
        rest.finds()
    });
    Result::clone(&found)
}

impl Model for Moves {
    type State = State;
    type Action = Action;

    fn init_states(&self) -> Vec<State> {
        vec![self.first.clone()]
    }

    fn actions(&self, state: &State, actions: &mut Vec<Action>) {
        let up = state.oracle.is_some();
        let left = &state.left;
        for (nve, host) in state.hosts.iter().enumerate() {
            if up && !host.to_oracle.is_empty() {
                actions.push(Action::OracleReads(nve));
            }
            let lives = host.core.is_some();
            if lives && !host.to_nve.is_empty() {
                actions.push(Action::NveReads(nve));
            }
            if lives && !host.watch.is_empty() {
                actions.push(Action::Watch(nve));
            }
            if up {
                actions.extend(host.calls.keys().map(|call| Action::Serve(nve, *call)));
                actions.extend(host.late.front().map(|_| Action::ServeLate(nve)));
            }
            actions.extend(host.answers.keys().map(|call| Action::Answer(nve, *call)));
            if left.lost > 0 {
                actions.extend(host.answers.keys().map(|call| Action::LoseAnswer(nve, *call)));
            }
            if up && lives && host.session.is_none() {
                actions.push(Action::Connect(nve));
            }
            if !lives {
                actions.push(Action::StartAgent(nve));
            } else {
                if left.agents[nve] > 0 {
                    actions.push(Action::KillAgent(nve));
                }
                if left.unsaved > 0 && host.before != host.disk {
                    actions.push(Action::KillUnsaved(nve));
                }
                if left.cuts > 0 && up && host.session.is_some() {
                    actions.push(Action::LoseSession(nve));
                }
            }
        }
        for datagram in state.net.keys() {
            actions.push(Action::Datagram(datagram.clone()));
            if left.doubled > 0 {
                actions.push(Action::Double(datagram.clone()));
            }
            if left.lost > 0 {
                actions.push(Action::LoseDatagram(datagram.clone()));
            }
        }
        actions
            .extend(state.orders.iter().map(|(tsi, nve, epoch)| Action::Commit(tsi.clone(), *nve, *epoch)));
        match up {
            true if left.oracles > 0 => actions.push(Action::KillOracle),
            true => {}
            false => actions.push(Action::StartOracle),
        }
        if left.ticks > 0 {
            actions.push(Action::Tick);
        }
        if left.asks > 0 && state.may_ask() {
            actions.push(Action::Ask);
        }
        state.may(actions);
    }

    fn next_state(&self, state: &State, action: Action) -> Option<State> {
        let mut next = state.clone();
        next.step(action);
        Some(next)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        vec![
            Property::always("an epoch is one NVE's", |_, state: &State| state.broken.is_none()),
            Property::always("a frame reaches who has its address in its VN", |_, state: &State| {
                state.true_to_addresses().is_ok()
            }),
            Property::always("all comes to rest at one place that everybody knows", |_, state: &State| {
                !state.is_quiet() || check_rest(state).is_ok()
            }),
        ]
    }
}
