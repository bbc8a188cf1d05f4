//! What policies, and traces, cost. Not run with the others: `cargo nextest run -p weft-datapath --test policy_cost --run-ignored all
//! --no-capture`.
#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stdout, reason = "a test fails by panicking")]

mod common;

use common::{How, Lab, frames::*, options, ts_ips, vni};
use std::{net::IpAddr, time::Duration};
use weft_datapath::{
    Allow, ClassId, Connection, ConnectionState, Datapath as _, IfIndex, Limits, Op, OpenOptions, Path,
    Policy, PolicyId, Ports, RuleKey, Toward, Trace, TraceId, Vap, VapKind, Way,
};

const HOW: How = How { kind: VapKind::Veth, path: Path::Direct, v6: false };
const A: Mac = [2, 0, 0, 0, 0, 1];
const B: Mac = [2, 0, 0, 0, 0, 2];

fn policy() -> Policy {
    Policy { id: PolicyId::new(1).unwrap(), generation: 1, log_refused: false }
}

fn rule(toward: Toward, protocol: Option<u8>, ports: Ports, rule: u32) -> Op {
    let key = RuleKey { policy: policy().id, toward, class: ClassId::ANYBODY, protocol, ports };
    Op::SetRule(key, Allow { rule, log: false })
}

/// The `n`-th connection of tenant system `of`.
fn connection(n: u32, of: u8) -> Connection {
    Connection {
        vni: vni(7001),
        local: ts_ips(of)[0].get(),
        remote: IpAddr::from((0x0a01_0000 + n / 50_000).to_be_bytes()),
        protocol: 17,
        local_port: 1,
        remote_port: u16::try_from(n % 50_000).unwrap(),
        opened: Toward::Out,
        state: ConnectionState::Established,
        rule: 1,
        idle: Duration::ZERO,
    }
}

fn median(mut all: Vec<f64>) -> f64 {
    all.sort_by(f64::total_cmp);
    all[all.len() / 2]
}

/// ns a frame, from one VAP here to another that has no policy: without one, of a connection with 10,000 rules and 100,000
/// connections, and of what is refused by them.
#[test]
#[ignore = "measures"]
fn a_frame() {
    let mut lab = Lab::of(1, &|| OpenOptions {
        limits: Limits { connections: Limits::default().connections, ..options().limits },
        ..options()
    });
    for n in [1, 2] {
        lab.attach(0, n, HOW);
        lab.tss[usize::from(n) - 1].silence();
    }
    let device = lab.tss[0].device;
    let set =
        |lab: &mut Lab, policy| lab.nves[0].apply(&[Op::SetVap(device, Vap { policy, ..Lab::vap(1, HOW) })]);
    for port in 0..10_000_u16 {
        lab.nves[0].apply(&[rule(Toward::Out, Some(6), Ports::one(port), port.into())]);
    }
    let all: Vec<Connection> = (0..100_000).map(|n| connection(n, 1)).collect();
    lab.nves[0].with(|k| k.set_connections(&all).unwrap());
    let [a, b] = [1, 2].map(ts_ips);
    for v6 in [false, true] {
        let packet = |port: u16| {
            let ports = [7_u16.to_be_bytes(), port.to_be_bytes()].concat();
            let segment = [&ports[..], &[0, 0, 0, 1, 0, 0, 0, 1, 0x50, 16, 9, 9, 0, 0, 0, 0]].concat();
            match (a[usize::from(v6)].get(), b[usize::from(v6)].get()) {
                (IpAddr::V4(a), IpAddr::V4(b)) => eth(B, A, 0x0800, &ipv4(a, b, 6, 0, 0, &segment)),
                (IpAddr::V6(a), IpAddr::V6(b)) => eth(B, A, 0x86dd, &ipv6(a, b, 6, 64, 0, &segment)),
                _ => panic!(),
            }
        };
        let time = |lab: &mut Lab, frame: &[u8]| {
            let runs = |k: &mut weft_datapath::Kernel| k.time_of(device, frame, 200_000).unwrap();
            lab.nves[0].with(runs).as_secs_f64() * 1e9
        };
        let (mut without, mut with, mut refused) = (vec![], vec![], vec![]);
        for _ in 0..15 {
            set(&mut lab, None);
            without.push(time(&mut lab, &packet(9_999)));
            set(&mut lab, Some(policy()));
            with.push(time(&mut lab, &packet(9_999)));
            refused.push(time(&mut lab, &packet(10_001)));
        }
        let [without, with, refused] = [without, with, refused].map(median);
        println!("IPv6 {v6}: no policy {without} ns, of a connection {with} ns, refused {refused} ns");
    }
    println!("{:?}", lab.nves[0].with(|k| k.tracked().unwrap()));
}

/// The round trip between two hosts, of both families, without and with policies at both: the quickest rounds.
#[test]
#[ignore = "measures"]
fn a_round_trip() {
    let mut lab = Lab::new();
    lab.attach(0, 1, HOW);
    lab.attach(1, 2, HOW);
    for nve in &mut lab.nves {
        for toward in [Toward::Out, Toward::In] {
            nve.apply(&[rule(toward, None, Ports::ALL, 1)]);
        }
    }
    let set = |lab: &mut Lab, policy| {
        for (i, n) in [(0, 1), (1, 2)] {
            let device: IfIndex = lab.tss[i].device;
            lab.nves[i].apply(&[Op::SetVap(device, Vap { policy, ..Lab::vap(n, HOW) })]);
        }
    };
    for v6 in [false, true] {
        let (mut without, mut with) = (vec![], vec![]);
        for _ in 0..25 {
            for (policy, all) in [(None, &mut without), (Some(policy()), &mut with)] {
                set(&mut lab, policy);
                let out = lab.tss[0].ns.exec(&format!("ping -f -q -c 5000 {}", lab.tss[1].ip(v6)));
                let text = String::from_utf8_lossy(&out.stdout).into_owned();
                // One after the other: the time of all says more than the microseconds of each.
                let time = text.split(" time ").nth(1).and_then(|rest| rest.split("ms").next());
                let time: f64 = time.unwrap_or_else(|| panic!("{text}")).parse().unwrap();
                all.push(time * 1_000.0 / 5_000.0);
            }
        }
        // Of which nothing else took away from.
        let least = |all: Vec<f64>| all.into_iter().fold(f64::INFINITY, f64::min);
        let (without, with) = (least(without), least(with));
        println!("IPv6 {v6}: no policy {without:.2} us, with {with:.2} us, {:.3}", with / without);
    }
}

/// ns a frame that is not traced, while no trace is known and while as many are as may be: what traces cost everybody else.
#[test]
#[ignore = "measures"]
fn traces_of_others() {
    let mut lab = Lab::of(1, &options);
    for n in [1, 2] {
        lab.attach(0, n, HOW);
        lab.tss[usize::from(n) - 1].silence();
    }
    let device = lab.tss[0].device;
    let ids: Vec<TraceId> = (1..=32).filter_map(TraceId::new).collect();
    let [a, b] = [1, 2].map(ts_ips);
    for v6 in [false, true] {
        let data = udp(7, 9, &[0; 32]);
        let frame = match (a[usize::from(v6)].get(), b[usize::from(v6)].get()) {
            (IpAddr::V4(a), IpAddr::V4(b)) => eth(B, A, 0x0800, &ipv4(a, b, 17, 0, 0, &data)),
            (IpAddr::V6(a), IpAddr::V6(b)) => eth(B, A, 0x86dd, &ipv6(a, b, 17, 64, 0, &data)),
            _ => panic!(),
        };
        let time = |lab: &mut Lab| {
            lab.nves[0].with(|k| k.time_of(device, &frame, 200_000).unwrap()).as_secs_f64() * 1e9
        };
        let (mut without, mut with) = (vec![], vec![]);
        for _ in 0..15 {
            without.push(time(&mut lab));
            for id in &ids {
                let trace = Trace { vni: vni(7001), way: Way::To(None), deliver: false };
                lab.nves[0].with(|k| k.set_trace(*id, &trace).unwrap());
            }
            with.push(time(&mut lab));
            for id in &ids {
                lab.nves[0].with(|k| k.end_trace(*id).unwrap());
            }
        }
        let [without, with] = [without, with].map(median);
        println!("IPv6 {v6}: no trace {without} ns, {} known {with} ns", ids.len());
    }
}

/// ms that it takes to find the connections of one tenant system, which has 100, among those of a whole host.
#[test]
#[ignore = "measures"]
#[allow(clippy::disallowed_methods, reason = "it is timed")]
fn those_of_one() {
    let mut lab = Lab::of(1, &|| OpenOptions {
        limits: Limits { connections: Limits::default().connections, ..options().limits },
        ..options()
    });
    for (others, ours) in [(0, 0), (0, 100), (100_000, 100)] {
        let all: Vec<Connection> =
            (0..ours).map(|n| connection(n, 1)).chain((0..others).map(|n| connection(n, 2))).collect();
        lab.nves[0].with(|k| k.set_connections(&all).unwrap());
        let of = [ts_ips(1)[0]].into();
        let took = (0..21).map(|_| {
            let reader = lab.nves[0].with(|k| k.connection_reader(vni(7001), Some(&of)).unwrap());
            let begin = std::time::Instant::now();
            let found = reader.read().unwrap();
            assert_eq!(found.len(), usize::try_from(ours).unwrap());
            begin.elapsed().as_secs_f64() * 1e3
        });
        println!("{others} of others, {ours} its own: {:.2} ms", median(took.collect()));
    }
}
