//! What must hold when things go wrong, on the real cores. Each failure names its seed.

#![allow(clippy::unwrap_used, clippy::panic, reason = "helpers of tests")]

use std::time::Duration;

use weft_model::Learning;
use weft_oracle::core::Event;
use weft_sim::{Link, Plan, World};

const S: fn(u64) -> Duration = Duration::from_secs;

/// A knob for larger runs.
fn knob(name: &str, default: usize) -> usize {
    std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(default)
}

fn settled(world: &mut World, ceiling: Duration, when: &str) -> Duration {
    world.settle(ceiling).unwrap_or_else(|| {
        let problems = world.problems();
        panic!(
            "{when}: {} problems after {ceiling:?}, first {:#?}",
            problems.len(),
            &problems[..problems.len().min(8)]
        );
    })
}

fn started(plan: Plan) -> World {
    let plan_size = plan.nves * plan.tsis;
    let mut world = World::new(plan);
    let all = u64::try_from(plan_size).unwrap();
    world.attach_all();
    while world.stats().calls < all {
        world.run(Duration::from_millis(500));
        assert!(world.now() < weft_model::Time::from_secs(60), "{:?}", world.problems());
    }
    settled(&mut world, S(60), "start");
    world
}

#[test]
fn a_restarted_oracle_never_says_negative_for_a_living_ts() {
    let (nves, tsis) = (knob("WEFT_SIM_NVES", 100), knob("WEFT_SIM_TSIS", 20));
    let link = Link { loss: 10, duplicate: 10, ..Link::default() };
    let mut world = started(Plan { seed: 11, nves, tsis, vns: 4, link, ..Plan::default() });
    world.ask_all(3);
    world.run(S(2));
    for round in 0..2 {
        let oracle = round % 2;
        world.crash_oracle(oracle);
        world.ask_all(3);
        world.run(S(1));
        world.restart_oracle(oracle, Duration::ZERO);
        // The storm: everybody reconnects, registers and asks at once.
        world.ask_all(5);
        settled(&mut world, S(60), "after the restart");
    }
    let (tsis_known, _) = world.oracle(0).unwrap().sizes();
    assert_eq!(tsis_known, nves * tsis);
    assert_eq!(world.stats().negatives, 0, "nobody asked for what does not exist");
    for oracle in 0..2 {
        let withdrawn =
            world.take_events(oracle).iter().filter(|(_, e)| matches!(e, Event::Withdrawn { .. })).count();
        assert_eq!(withdrawn, 0);
    }
}

#[test]
fn both_oracles_restart_at_once() {
    let mut world = started(Plan { seed: 12, nves: 30, tsis: 6, ..Plan::default() });
    world.ask_all(4);
    world.run(S(2));
    world.crash_oracle(0);
    world.crash_oracle(1);
    world.run(S(2));
    world.restart_oracle(0, S(1));
    world.restart_oracle(1, S(2));
    world.ask_all(4);
    settled(&mut world, S(60), "after both restarted");
    assert_eq!(world.stats().negatives, 0);
}

#[test]
fn loss_of_30_percent_delays_and_changes_nothing() {
    for seed in 20..23 {
        let link = Link { loss: 300, duplicate: 100, jitter: Duration::from_millis(20), ..Link::default() };
        let mut world = World::new(Plan { seed, nves: 20, tsis: 5, link, ..Plan::default() });
        world.attach_all();
        world.run(S(10));
        world.ask_all(10);
        world.run(S(10));
        world.net().link.loss = 0;
        settled(&mut world, S(60), &format!("seed {seed}, after the loss stopped"));
        assert_eq!(world.stats().negatives, 0);
    }
}

#[test]
fn what_a_session_does_not_deliver_is_said_on_the_next() {
    for (seed, learning) in (90..).zip([Learning::Distribute, Learning::Flood, Learning::Translate]) {
        let mut world = started(Plan { seed, nves: 10, tsis: 1, vns: 1, learning, ..Plan::default() });
        let leaving = world.tsi(3, 0);
        world.detach(3, &leaving);
        while world.store().grant(&leaving).is_some() {
            world.run(Duration::from_micros(100));
        }
        // Before anybody is told.
        world.net().link.loss = 1_000;
        world.run(S(2));
        assert!(!world.problems().is_empty(), "seed {seed}, {learning}: the word of it is lost");
        world.net().link.loss = 0;
        settled(&mut world, S(10), &format!("seed {seed}, {learning}"));
    }
}

#[test]
fn asked_before_it_exists_then_attached_tells_the_asker() {
    for seed in 30..35 {
        let mut world = started(Plan { seed, nves: 4, tsis: 2, vns: 1, ..Plan::default() });
        // The next addresses of the VN: nobody has them yet.
        let from = world.tsi(1, 0);
        let targets: [weft_model::TenantIp; 2] = ["10.0.0.9".parse().unwrap(), "fd00::9".parse().unwrap()];
        for target in targets {
            world.ask(1, &from, target, 1);
            world.ask(2, &world.tsi(2, 0), target, 1);
        }
        world.run(S(2));
        assert_eq!(world.stats().negatives, 4);
        let new = world.tsi(3, 9);
        world.attach(3, &new, None);
        // Nobody asks again: they are told.
        let asked = world.stats().datagrams;
        world.run(S(2));
        assert_eq!(world.stats().datagrams, asked);
        assert_eq!(world.problems(), Vec::<String>::new(), "seed {seed}");
        for target in targets {
            assert!(world.way(1, from.vni, target).is_some(), "seed {seed}: told of {target}");
        }
    }
}

#[test]
fn a_cold_move_is_told_to_askers_and_leaves_one_owner() {
    for seed in 40..45 {
        let link = Link { loss: 50, duplicate: 50, jitter: Duration::from_millis(5), ..Link::default() };
        let mut world = started(Plan { seed, nves: 6, tsis: 3, vns: 1, link, ..Plan::default() });
        let moving = world.tsi(0, 0);
        let mut grant = world.store().grant(&moving).cloned().unwrap();
        for nve in 1..6 {
            for ip in grant.ips.clone() {
                world.ask(nve, &world.tsi(nve, 1), ip, 5);
            }
        }
        world.run(S(6));
        for (from, to) in [(0, 3), (3, 5), (5, 0)] {
            world.detach(from, &moving);
            world.run(S(3));
            assert!(world.store().grant(&moving).is_none());
            world.attach(to, &moving, Some(&grant));
            world.run(S(1));
            settled(&mut world, S(30), &format!("seed {seed}, move to {to}"));
            let now = world.store().grant(&moving).cloned().unwrap();
            assert!(now.epoch > grant.epoch, "an epoch never falls");
            grant = now;
        }
    }
}

#[test]
fn a_dead_host_is_withdrawn_and_a_dead_agent_is_not() {
    let mut world = started(Plan { seed: 50, nves: 9, tsis: 2, vns: 1, ..Plan::default() });
    let (dead, agentless) = (world.tsi(0, 0), world.tsi(1, 0));
    let ips = |world: &World, tsi| world.store().grant(tsi).unwrap().ips.clone();
    for tsi in [&dead, &agentless] {
        for ip in ips(&world, tsi) {
            world.ask(5, &world.tsi(5, 1), ip, 3);
        }
    }
    world.run(S(3));
    world.kill_host(0);
    world.kill_agent(1);
    world.run(S(12));
    for oracle in 0..2 {
        let gone: Vec<_> = world
            .take_events(oracle)
            .into_iter()
            .filter_map(|(_, event)| match event {
                Event::Withdrawn { nve, tsis, .. } => Some((nve.0[15], tsis)),
                _ => None,
            })
            .collect();
        assert_eq!(gone, [(1, 2)], "Oracle {oracle} withdrew the dead host's two and nothing else");
    }
    for ip in ips(&world, &dead) {
        assert_eq!(world.way(5, dead.vni, ip), None);
    }
    for ip in ips(&world, &agentless) {
        assert!(world.way(5, agentless.vni, ip).is_some());
    }
    // An operator gives the dead host's to another.
    for m in 0..2 {
        let tsi = world.tsi(0, m);
        world.take_over(&tsi, 7);
    }
    world.ask_all(3);
    settled(&mut world, S(30), "after the take-over");
}

#[test]
fn more_than_a_third_lost_at_once_withdraws_nothing() {
    let mut world = started(Plan { seed: 60, nves: 9, tsis: 2, vns: 1, oracles: 2, ..Plan::default() });
    world.ask_all(5);
    world.run(S(3));
    // Oracle 0 is cut off from four of nine; Oracle 1 sees them all.
    for nve in 0..4 {
        world.cut(nve, 0, true);
    }
    world.run(S(120));
    let events = world.take_events(0);
    assert!(events.iter().any(|(_, e)| matches!(e, Event::ManyNvesLost { lost: 4, of: 9 })), "{events:?}");
    assert!(!events.iter().any(|(_, e)| matches!(e, Event::Withdrawn { .. })), "{events:?}");
    assert!(world.oracle(0).unwrap().alarmed());
    for nve in 0..4 {
        world.cut(nve, 0, false);
    }
    world.ask_all(5);
    settled(&mut world, S(30), "after the cut was healed");
    assert!(!world.oracle(0).unwrap().alarmed());
}

#[test]
fn an_oracle_cut_off_for_long_catches_up() {
    for seed in 70..73 {
        let mut world = started(Plan { seed, nves: 8, tsis: 3, vns: 1, ..Plan::default() });
        world.ask_all(5);
        world.run(S(3));
        for nve in 0..2 {
            world.cut(nve, 0, true);
        }
        let moving = world.tsi(4, 0);
        let grant = world.store().grant(&moving).cloned().unwrap();
        world.run(S(5));
        world.detach(4, &moving);
        world.run(S(1));
        world.attach(0, &moving, Some(&grant));
        world.run(S(10));
        for nve in 0..2 {
            world.cut(nve, 0, false);
        }
        // Who had it on the same host asked nobody before.
        world.ask_again();
        settled(&mut world, S(60), &format!("seed {seed}"));
    }
}

#[test]
fn the_same_seed_is_the_same_run() {
    let run = || {
        let link = Link { loss: 100, duplicate: 100, ..Link::default() };
        let mut world = World::new(Plan { seed: 80, nves: 6, tsis: 3, link, ..Plan::default() });
        world.attach_all();
        world.ask_all(4);
        world.run(S(5));
        world.crash_oracle(0);
        world.restart_oracle(0, S(1));
        world.run(S(10));
        (world.stats().clone(), world.oracle(0).cloned(), world.oracle(1).cloned())
    };
    assert!(run() == run());
}
