//! Requirements M3, N7, N9 and Ld in a data centre: every table becomes the Oracle's, whatever goes wrong on the
//! way. Each failure names its seed.

#![allow(clippy::unwrap_used, clippy::panic, reason = "helpers of tests")]

use std::time::Duration;

use weft_model::{Bum, Learning, TenantIp, Vni};
use weft_sim::{Link, Plan, World};

const S: fn(u64) -> Duration = Duration::from_secs;
const MS: fn(u64) -> Duration = Duration::from_millis;

fn plan(seed: u64) -> Plan {
    let (learning, bum) = (Learning::Distribute, Bum::Replicate);
    Plan { seed, nves: 50, tsis: 4, vns: 2, learning, bum, ..Plan::default() }
}

#[track_caller]
fn settled(world: &mut World, when: &str) {
    assert!(
        world.settle(S(90)).is_some(),
        "{when}: {:#?}",
        &world.problems()[..3.min(world.problems().len())]
    );
}

fn started(plan: Plan) -> World {
    let (seed, all) = (plan.seed, u64::try_from(plan.nves * plan.tsis).unwrap());
    let mut world = World::new(plan);
    world.attach_all();
    while world.stats().calls < all {
        world.run(MS(500));
        assert!(world.now() < weft_model::Time::from_secs(60), "{:?}", world.problems());
    }
    settled(&mut world, &format!("seed {seed}, start"));
    world
}

#[test]
fn m3_every_nve_has_every_mapping_and_asks_for_none() {
    let mut world = started(plan(100));
    let asked = world.stats().datagrams;
    let gone = world.tsi(7, 0);
    let grant = world.store().grant(&gone).cloned().unwrap();
    world.detach(7, &gone);
    world.run(S(2));
    settled(&mut world, "after the detach");
    for nve in 0..50 {
        for ip in &grant.ips {
            assert_eq!(world.way(nve, gone.vni, *ip), None, "NVE {nve} was told");
        }
    }
    world.attach(9, &gone, Some(&grant));
    world.run(S(1));
    settled(&mut world, "after it is back elsewhere");
    assert_eq!(world.stats().datagrams, asked, "nothing was asked for");
}

#[test]
fn m3_lost_sessions_cost_a_frame_when_nothing_has_changed() {
    let mut world = started(plan(101));
    world.run(S(40));
    let before: Vec<u64> = (0..50).map(|nve| world.pushed(nve)).collect();
    for round in 0..4 {
        for nve in 0..50 {
            world.lose_session(nve, round % 2);
        }
        world.run(S(3));
        settled(&mut world, &format!("round {round}"));
    }
    assert_eq!((0..50).map(|nve| world.pushed(nve)).collect::<Vec<_>>(), before);
}

#[test]
fn m3_lost_sessions_amid_changes() {
    for seed in 110..114 {
        let link = Link { loss: 50, jitter: MS(20), ..Link::default() };
        let mut world = started(Plan { push_octets: 2_000, link, ..plan(seed) });
        for round in 0..6 {
            let nve = usize::try_from(seed).unwrap() % 40 + round;
            let moving = world.tsi(nve, round % 4);
            let grant = world.store().grant(&moving).cloned();
            world.detach(nve, &moving);
            for other in (0..50).step_by(3) {
                world.lose_session(other, round % 2);
            }
            world.run(MS(700));
            if let Some(grant) = grant.filter(|_| world.store().grant(&moving).is_none()) {
                world.attach(nve + 3, &moving, Some(&grant));
            }
            world.run(MS(300));
        }
        settled(&mut world, &format!("seed {seed}"));
    }
}

#[test]
fn m3_an_oracle_restarts_in_the_middle_of_a_push() {
    for seed in 120..124 {
        // A snapshot for all takes seconds.
        let mut world = World::new(Plan { push_octets: 200, ..plan(seed) });
        world.attach_all();
        for round in 0..3 {
            world.run(MS(1_000 + 300 * round));
            let oracle = usize::try_from(round).unwrap() % 2;
            world.crash_oracle(oracle);
            world.run(MS(200));
            world.restart_oracle(oracle, MS(500));
        }
        settled(&mut world, &format!("seed {seed}"));
        assert_eq!(world.stats().negatives, 0, "seed {seed}");
    }
}

#[test]
fn m3_both_oracles_away_is_no_loss() {
    let mut world = started(plan(130));
    world.crash_oracle(0);
    world.crash_oracle(1);
    world.run(S(300));
    let ways = |world: &World| {
        let ips: Vec<(Vni, TenantIp)> =
            world.store().grants().flat_map(|g| g.ips.iter().map(|ip| (g.tsi.vni, *ip))).collect();
        (0..50)
            .map(|nve| ips.iter().filter(|(vni, ip)| world.way(nve, *vni, *ip).is_some()).count())
            .sum::<usize>()
    };
    assert_eq!(ways(&world), 50 * 50 * 4 * 2, "fail-static");
    world.restart_oracle(0, S(1));
    world.restart_oracle(1, S(5));
    world.run(S(2));
    assert_eq!(ways(&world), 50 * 50 * 4 * 2, "no restart takes anything away");
    settled(&mut world, "after both are back");
}

#[test]
fn a_vn_changes_its_mode_and_back() {
    for seed in 140..143 {
        let mut world = started(Plan { nves: 20, learning: Learning::Oracle, ..plan(seed) });
        world.ask_all(4);
        world.run(S(3));
        let vni = Vni::new(1).unwrap();
        for learning in [Learning::Distribute, Learning::Oracle, Learning::Flood, Learning::Distribute] {
            world.set_learning(vni, learning);
            // Something changes while the word of it spreads.
            let moving = world.tsi(3, 0);
            let grant = world.store().grant(&moving).cloned();
            world.detach(if grant.as_ref().is_some_and(|g| g.owner.0[15] == 4) { 3 } else { 5 }, &moving);
            world.run(MS(400));
            if let Some(grant) = grant.filter(|_| world.store().grant(&moving).is_none()) {
                world.attach(if grant.owner.0[15] == 4 { 5 } else { 3 }, &moving, Some(&grant));
            }
            world.run(S(4));
            settled(&mut world, &format!("seed {seed}, {learning}"));
        }
    }
}

#[test]
fn n9_members_after_a_dead_host_and_restarts() {
    for seed in 150..153 {
        let mut world = started(Plan { nves: 12, learning: Learning::Flood, ..plan(seed) });
        world.crash_oracle(0);
        world.restart_oracle(0, S(1));
        world.run(S(5));
        for m in 0..4 {
            world.detach(2, &world.tsi(2, m));
        }
        world.run(S(1));
        settled(&mut world, &format!("seed {seed}, one has left"));
        world.kill_host(5);
        world.run(S(12));
        for m in 0..4 {
            let tsi = world.tsi(5, m);
            world.take_over(&tsi, 7);
        }
        settled(&mut world, &format!("seed {seed}, one has died"));
    }
}

#[test]
fn the_same_seed_is_the_same_run() {
    let run = || {
        let mut world = started(Plan { nves: 8, push_octets: 300, ..plan(160) });
        world.lose_session(3, 0);
        world.crash_oracle(1);
        world.restart_oracle(1, S(1));
        world.run(S(5));
        (world.stats().clone(), world.oracle(0).cloned(), world.oracle(1).cloned())
    };
    assert!(run() == run());
}
