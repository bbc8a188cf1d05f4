//! All orders of events of moves within bounds. `WEFT_CHECK_STEPS` says how many steps at most are looked at of each.

#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stdout, reason = "helpers of tests")]

use stateright::{Checker, Model as _, UniformChooser};
use weft_check::{Bounds, Family, Moves, check_rest};

fn knob(name: &str, default: usize) -> usize {
    std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(default)
}

#[track_caller]
fn check(what: &str, family: Family, bounds: Bounds, least: usize) {
    let steps = knob("WEFT_CHECK_STEPS", 3_000);
    let model = Moves::new(family, bounds);
    let checker = model.checker().threads(2).target_state_count(steps).spawn_bfs().join();
    let (unique, all, depth) = (checker.unique_state_count(), checker.state_count(), checker.max_depth());
    let whole = if all < steps { "all there are" } else { "not all" };
    println!("{what}, {family:?}: {unique} states by {all} steps, {depth} deep, {whole}");
    holds(what, &checker);
    assert!(unique >= least.min(steps / 8), "{what}, {family:?}: {unique} states are fewer than {least}");
}

/// To where all orders are too many, some go.
#[track_caller]
fn walk(what: &str, family: Family, bounds: Bounds, seed: u64) {
    let steps = knob("WEFT_CHECK_STEPS", 3_000);
    let model = Moves::new(family, bounds);
    let walks = model.checker().threads(2).target_state_count(steps);
    let checker = walks.spawn_simulation(seed, UniformChooser).join();
    println!("{what}, {family:?}: {} steps at random, {} deep", checker.state_count(), checker.max_depth());
    holds(what, &checker);
}

#[track_caller]
fn holds(what: &str, checker: &impl Checker<Moves>) {
    if let Some((property, path)) = checker.discoveries().into_iter().next() {
        let state = path.last_state().clone();
        let why = (state.true_to_addresses().err(), check_rest(&state).err());
        panic!("{what}: not so: {property}\n{:#?}\n{why:?}", path.into_actions());
    }
}

const MOVE: Bounds = Bounds { moves: 1, ..Bounds::NONE };

#[test]
fn v5_a_move_in_every_order() {
    check("a move", Family::V4, MOVE, 5_000);
    check("a move", Family::V6, MOVE, 5_000);
}

#[test]
fn h5_what_has_moved_ends() {
    check("an end", Family::V4, Bounds { ends: 1, ..MOVE }, 5_000);
}

#[test]
fn v5_an_owner_lets_go_early() {
    check("an early end", Family::V4, Bounds { early: 1, ..MOVE }, 5_000);
}

#[test]
fn v5_a_move_is_called_off() {
    check("called off", Family::V6, Bounds { calls_off: 1, ..MOVE }, 5_000);
}

#[test]
fn v5_to_and_fro() {
    check("to and fro", Family::V4, Bounds { moves: 2, ..MOVE }, 5_000);
}

#[test]
fn v5_something_dies() {
    check("a death", Family::V6, Bounds { agents: [1, 1], oracles: 1, ..MOVE }, 5_000);
    check("what was written last is lost", Family::V4, Bounds { unsaved: 1, ..MOVE }, 5_000);
    check("a session is lost", Family::V6, Bounds { cuts: 1, ..MOVE }, 5_000);
}

/// An Oracle that dies between its acknowledgement and the store's commit knows nothing of it when it is back.
#[test]
fn v5_a_move_is_called_off_after_the_oracle_died() {
    check("called off", Family::V4, Bounds { calls_off: 1, oracles: 1, turns: true, ..MOVE }, 5_000);
}

#[test]
fn v5_something_is_lost_or_doubled() {
    check("lost", Family::V6, Bounds { lost: 1, asks: 1, ..MOVE }, 5_000);
    check("doubled", Family::V4, Bounds { doubled: 1, asks: 1, ..MOVE }, 5_000);
    let all = Bounds { lost: 1, asks: 1, agents: [1, 1], oracles: 1, turns: true, ..MOVE };
    check("lost, and a death", Family::V4, all, 5_000);
}

/// Twice, each with all that may go wrong.
#[test]
fn v5_everything_at_random() {
    let bounds = Bounds {
        moves: 2,
        agents: [1, 1],
        oracles: 1,
        unsaved: 1,
        cuts: 1,
        lost: 1,
        doubled: 1,
        ticks: 3,
        asks: 2,
        calls_off: 1,
        early: 1,
        ends: 1,
        turns: false,
    };
    for (seed, family) in [(1, Family::V4), (2, Family::V6)] {
        walk("everything", family, bounds, seed);
        // Ends that nothing disturbs.
        walk("an end", family, Bounds { ends: 1, ..MOVE }, seed);
    }
}

#[test]
fn v10_deadlines_pass() {
    check("deadlines", Family::V4, Bounds { ticks: 2, ..MOVE }, 5_000);
}
