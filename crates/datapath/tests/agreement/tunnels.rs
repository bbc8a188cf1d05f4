//! Random tunnel policies.

use super::Dice;
use std::num::NonZeroU64;
use weft_datapath::{Meter, Tables, Tunnel};
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
