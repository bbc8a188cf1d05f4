//! How many Map-Requests one core answers, and how many registrations it takes: `--release` for numbers
//! that mean something. Arguments: NVEs, TSIs, requests.
#![allow(clippy::print_stdout, reason = "it is what this program is for")]
#![allow(clippy::disallowed_methods, reason = "it measures time")]
#![allow(missing_docs, reason = "a program, not a library")]

#[path = "../tests/common/mod.rs"]
mod common;

use std::time::Instant;

use weft_model::Time;
use weft_sim::Rng;

fn main() {
    let mut arguments = std::env::args().skip(1).map_while(|text| text.parse::<u32>().ok());
    let nves = arguments.next().unwrap_or(1_000);
    let tsis = arguments.next().unwrap_or(100_000);
    let count = arguments.next().unwrap_or(200_000);

    let start = Instant::now();
    let mut shard = common::shard(nves, tsis);
    let seconds = start.elapsed().as_secs_f64();
    println!("{nves} NVEs, {tsis} TSIs ({} EIDs) granted and registered in {seconds:.2} s", 3 * tsis);

    let mut rng = Rng::new(1);
    let mut below = |bound: u32| u32::try_from(rng.below(bound.into())).unwrap_or(0);
    let requests: Vec<_> = (0..count)
        .map(|n| {
            // One of twenty asks for what does not exist.
            let unknown = below(20) == 0;
            let wanted = common::eid(below(tsis) + if unknown { tsis } else { 0 }, below(3));
            common::request(below(nves), wanted, n.into())
        })
        .collect();
    let mut octets = Vec::with_capacity(4096);
    let mut now = Time::from_secs(10);
    for pass in 0..5 {
        let start = Instant::now();
        let mut answered = 0_u64;
        for (from, request) in &requests {
            shard.handle_datagram(now, *from, common::ORACLE, request);
            while shard.poll_transmit(&mut octets).is_some() {
                answered += 1;
            }
        }
        let seconds = start.elapsed().as_secs_f64();
        let what = if pass == 0 { "new askers" } else { "known askers" };
        println!("{:9.0} requests/s, {answered} answers ({what})", f64::from(count) / seconds);
        now = now + std::time::Duration::from_secs(5);
    }

    let start = Instant::now();
    for n in 0..tsis {
        common::register(&mut shard, now, n % nves, n);
        while shard.poll_transmit(&mut octets).is_some() {}
    }
    let seconds = start.elapsed().as_secs_f64();
    println!(
        "{:9.0} registrations/s, unchanged ({} records/s)",
        f64::from(tsis) / seconds,
        f64::from(3 * tsis) / seconds
    );
    let (tsis, asks) = shard.sizes();
    println!("{tsis} TSIs, {asks} askers remembered");
}
