//! Large and long runs of the simulator. Arguments: NVEs, TSIs at each, rounds, seed. Ends with status 1
//! and the seed when something does not hold.
#![allow(clippy::print_stdout, reason = "it is what this program is for")]
#![allow(missing_docs, reason = "a program, not a library")]

use std::process::ExitCode;
use std::time::Duration;

use weft_sim::{Link, Plan, World};

fn main() -> ExitCode {
    let mut arguments = std::env::args().skip(1).map_while(|text| text.parse::<u64>().ok());
    let size = |n: Option<u64>, default| n.and_then(|n| usize::try_from(n).ok()).unwrap_or(default);
    let nves = size(arguments.next(), 1_000);
    let tsis = size(arguments.next(), 100);
    let rounds = arguments.next().unwrap_or(2);
    let seed = arguments.next().unwrap_or(1);

    let link = Link { loss: 10, duplicate: 10, ..Link::default() };
    let mut world = World::new(Plan { seed, nves, tsis, vns: 8, link, ..Plan::default() });
    world.attach_all();
    if !settled(&mut world, "attached", seed) {
        return ExitCode::FAILURE;
    }
    for round in 0..rounds {
        let oracle = usize::try_from(round % 2).unwrap_or(0);
        world.ask_all(5);
        world.run(Duration::from_secs(2));
        world.crash_oracle(oracle);
        world.ask_all(5);
        world.run(Duration::from_secs(1));
        world.restart_oracle(oracle, Duration::ZERO);
        world.ask_all(5);
        if !settled(&mut world, "an Oracle restarted", seed) {
            return ExitCode::FAILURE;
        }
        // A wave of cold moves, one from each tenth NVE to its neighbour.
        for from in (0..nves).step_by(10) {
            let tsi = world.tsi(from, 0);
            let Some(grant) = world.store().grant(&tsi).filter(|_| round == 0).cloned() else { continue };
            world.detach(from, &tsi);
            // The hypervisor there starts when the detach here has ended.
            while world.store().grant(&tsi).is_some() {
                world.run(Duration::from_millis(20));
            }
            world.attach((from + 1) % nves, &tsi, Some(&grant));
        }
        if !settled(&mut world, "moved", seed) {
            return ExitCode::FAILURE;
        }
    }
    let stats = world.stats();
    if stats.negatives > 0 {
        println!("{} Negatives: each must be of a TS between detach and attach", stats.negatives);
    }
    println!("{stats:?}");
    ExitCode::SUCCESS
}

fn settled(world: &mut World, what: &str, seed: u64) -> bool {
    world.run(Duration::from_secs(3));
    match world.settle(Duration::from_secs(300)) {
        Some(took) => {
            println!("{}: {what}, all is true after {:.1} s", world.now(), took.as_secs_f64() + 3.0);
            true
        }
        None => {
            let problems = world.problems();
            println!("seed {seed}: {what}, and {} problems remain:", problems.len());
            for problem in problems.iter().take(20) {
                println!("  {problem}");
            }
            false
        }
    }
}
