//! A move in every order of events there is, to the end: the bounds are such that all states are looked at.

#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stdout, reason = "helpers of tests")]

use stateright::{Checker, Model as _};
use weft_check::{Bounds, Family, Moves, check_rest};

/// Looks at all states there are, of which there are at least so many.
#[track_caller]
fn whole(what: &str, family: Family, bounds: Bounds, least: usize) {
    let checker = Moves::new(family, bounds).checker().threads(2).spawn_bfs().join();
    let (unique, all, depth) = (checker.unique_state_count(), checker.state_count(), checker.max_depth());
    if let Some((property, path)) = checker.discoveries().into_iter().next() {
        let state = path.last_state().clone();
        let why = (state.true_to_addresses().err(), check_rest(&state).err());
        panic!("{what}, {family:?}: not so: {property}\n{:#?}\n{why:?}", path.into_actions());
    }
    // Not by a count or a depth: no step is left that was not taken.
    assert!(checker.is_done(), "{what}, {family:?}: {unique} states by {all} steps, and not all there are");
    println!("{what}, {family:?}: {unique} states by {all} steps, {depth} deep, all there are");
    assert!(
        unique >= least,
        "{what}, {family:?}: {unique} states are fewer than {least}: something does not happen"
    );
}

const MOVE: Bounds = Bounds { moves: 1, ..Bounds::NONE };

/// Frame by frame.
#[test]
fn v5_a_move() {
    whole("a move", Family::V4, MOVE, 6_000);
    whole("a move", Family::V6, MOVE, 6_000);
}

#[test]
fn v5_an_owner_lets_go_early() {
    whole("an early end", Family::V6, Bounds { early: 1, turns: true, ..MOVE }, 25_000);
}

/// Questions and answers are datagrams.
#[test]
fn v5_datagrams_are_lost() {
    whole("a question, a loss", Family::V6, Bounds { asks: 1, lost: 1, turns: true, ..MOVE }, 50_000);
}

#[test]
fn v5_the_nve_that_it_leaves_dies_and_an_answer_is_lost() {
    let bounds = Bounds { agents: [1, 0], lost: 1, turns: true, ..MOVE };
    whole("the old NVE dies", Family::V6, bounds, 100_000);
}

#[test]
fn v5_the_nve_that_it_moves_to_dies_and_an_answer_is_lost() {
    let bounds = Bounds { agents: [0, 1], lost: 1, turns: true, ..MOVE };
    whole("the new NVE dies", Family::V4, bounds, 50_000);
}

#[test]
fn v5_the_oracle_dies_and_an_answer_is_lost() {
    let bounds = Bounds { oracles: 1, lost: 1, turns: true, ..MOVE };
    whole("the Oracle dies", Family::V4, bounds, 100_000);
}
