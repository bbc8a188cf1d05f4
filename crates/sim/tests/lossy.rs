//! A network between NVEs and Oracles that loses, repeats and reorders 30 % of all: every table becomes the Oracle's
//! within bounded time of its end, in every way of learning, whatever the seed. Each failure names its seed.
//!
//! `WEFT_SIM_SEEDS` says how many seeds, `WEFT_SIM_FIRST_SEED` where they begin: the release build does a
//! thousand in minutes.

#![allow(clippy::unwrap_used, clippy::panic, reason = "helpers of tests")]

use std::{collections::BTreeSet, time::Duration};

use weft_model::{Bum, Learning, Reply};
use weft_sim::{Link, Plan, World};

const S: fn(u64) -> Duration = Duration::from_secs;
const MS: fn(u64) -> Duration = Duration::from_millis;

/// After the loss has stopped: what a tenant that still asks and a refresh take at most.
const BOUND: Duration = Duration::from_secs(30);

fn knob(name: &str, default: u64) -> u64 {
    std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(default)
}

/// Attachments, questions, moves and lost sessions amid the loss.
fn survives(seed: u64, learning: Learning, reply: Reply) {
    let bad = Link { loss: 300, duplicate: 300, jitter: MS(50), ..Link::default() };
    let plan =
        Plan { seed, nves: 50, tsis: 2, learning, reply, bum: Bum::Drop, link: bad, ..Plan::default() };
    let mut world = World::new(plan);
    world.attach_all();
    while world.stats().calls < 50 * 2 {
        world.run(MS(500));
        assert!(world.now() < weft_model::Time::from_secs(60), "seed {seed}: {:?}", world.problems());
    }
    let mut rng = weft_sim::Rng::new(seed);
    let mut moved = BTreeSet::new();
    let mut draw = |below: u64| usize::try_from(rng.below(below)).unwrap();
    // Elsewhere tenants ask each other.
    let asks = matches!(learning, Learning::Oracle | Learning::Distribute);
    for _ in 0..4 {
        if asks {
            world.ask_all(2);
        }
        let from = draw(50);
        let to = (from + 1 + draw(49)) % 50;
        // Each moves once: then it is known where from.
        let moving = (0..2).map(|m| world.tsi(from, m)).find(|tsi| moved.insert(tsi.clone()));
        let Some(moving) = moving else { continue };
        let grant = world.store().grant(&moving).cloned();
        world.detach(from, &moving);
        world.lose_session(draw(50), draw(2));
        world.run(S(3));
        if let Some(grant) = grant.filter(|_| world.store().grant(&moving).is_none()) {
            world.attach(to, &moving, Some(&grant));
        }
        world.run(S(1));
    }
    world.net().link = Link::default();
    world.ask_again();
    let took = world.settle(BOUND);
    let problems = world.problems();
    assert!(
        took.is_some(),
        "seed {seed}, {learning}, {reply}: {} problems, first {:#?}",
        problems.len(),
        &problems[..problems.len().min(4)]
    );
    if reply == Reply::Forward {
        assert!(world.stats().forwarded > 0, "seed {seed}: no NVE has answered");
    }
}

fn seeds(learning: Learning, reply: Reply) {
    let first = knob("WEFT_SIM_FIRST_SEED", 1_000);
    for seed in first..first + knob("WEFT_SIM_SEEDS", 2) {
        survives(seed, learning, reply);
    }
}

#[test]
fn lc_tables_become_the_oracles_after_30_percent_loss() {
    seeds(Learning::Oracle, Reply::Proxy);
}

#[test]
fn n5_tables_become_the_oracles_after_30_percent_loss() {
    seeds(Learning::Oracle, Reply::Forward);
}

#[test]
fn ld_tables_become_the_oracles_after_30_percent_loss() {
    seeds(Learning::Distribute, Reply::Proxy);
}

#[test]
fn lb_members_become_the_oracles_after_30_percent_loss() {
    seeds(Learning::Translate, Reply::Proxy);
}

#[test]
fn la_members_become_the_oracles_after_30_percent_loss() {
    seeds(Learning::Flood, Reply::Proxy);
}
