//! Random tunnel policies.

use super::{Bench, Dice};
use proptest::test_runner::TestCaseError;
use std::{num::NonZeroU64, time::Duration};
use weft_datapath::{Datapath as _, Levels, Meter, Tables, Tunnel};
use weft_model::{Burst, Codepoint, Dscp, SourcePorts, Ttl};

/// At a bit a second, so that nothing is added while frames are compared; another bucket each time, so that it is full.
fn any_meter(d: &mut Dice, generation: u32) -> Option<Meter> {
    let burst = d.pick(&[2, 200, 2_000]) + generation % 97;
    let meter = Meter { rate: NonZeroU64::MIN, burst: Burst::new(burst).unwrap() };
    d.rarely(4).then_some(meter)
}

pub fn tunnels(d: &mut Dice, tables: &mut Tables, generation: u32) {
    for vap in tables.vaps.values_mut() {
        let first = 1 + d.number() % 60_000;
        vap.tunnel = Tunnel {
            ttl: Ttl::new(d.octet().max(1)).unwrap(),
            dscp: Codepoint::new(d.octet() % 128).map_or(Dscp::Copy, Dscp::Fixed),
            ports: SourcePorts::new(first, first + d.number() % 5_000).unwrap(),
            send: any_meter(d, generation),
            receive: any_meter(d, generation),
        };
    }
}

/// Some tenant systems come from elsewhere, where not everything was left of what they may send and be sent.
pub fn arrivals(d: &mut Dice, bench: &mut Bench, tables: &Tables) -> Result<(), TestCaseError> {
    for (device, vap) in &tables.vaps {
        let level = |d: &mut Dice| d.rarely(3).then(|| d.pick(&[0, 100, 1_900, u32::MAX]));
        let levels = Levels { send: level(d), receive: level(d) };
        bench.kernel.lower(*device, levels, Duration::ZERO).unwrap();
        bench.learned.lower(*device, &vap.tunnel, levels, Duration::ZERO);
    }
    same_levels(bench, tables)
}

/// What is left is the same in the kernel and in the model.
pub fn same_levels(bench: &Bench, tables: &Tables) -> Result<(), TestCaseError> {
    for (device, vap) in &tables.vaps {
        let left = bench.kernel.levels(*device).unwrap();
        proptest::prop_assert_eq!(left, bench.learned.levels(*device, &vap.tunnel));
    }
    Ok(())
}
