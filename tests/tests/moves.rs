//! Echo requests at 100 a second run while their target moves or comes into being. The order is
//! what counts: the first request that leaves after the attach call has returned is answered.

use anyhow::{Result, ensure};
use std::net::IpAddr;
use weft_e2e::{THREE_HOSTS, TestLab};
use weft_lab::{DeviceKind, TenantSpec, capture::Capture, echo::Echoes};

/// Echo requests a second.
const RATE: u32 = 100;
/// How many more are looked at after the first.
const MORE: u64 = 20;

/// Echo requests for `targets` from `from`.
fn echoes(lab: &TestLab, from: &str, targets: &[IpAddr]) -> Result<Vec<Echoes>> {
    targets.iter().map(|target| Ok(Echoes::start(&lab.node(from)?, *target, RATE)?)).collect()
}

/// The numbers of the requests that come next.
fn next(streams: &[Echoes]) -> Vec<u64> {
    streams.iter().map(Echoes::next).collect()
}

/// Every request sent from these numbers on is answered, the first one included.
fn answered_from(streams: &[Echoes], numbers: &[u64], what: &str) -> Result<()> {
    for (stream, number) in streams.iter().zip(numbers) {
        let first = stream.first_answered(*number, MORE)?;
        ensure!(first == *number, "{what}: of requests from {number} on the first answered is {first}");
    }
    Ok(())
}

#[test]
fn the_first_ping_after_a_cold_move_is_answered() -> Result<()> {
    let mut lab = TestLab::up(THREE_HOSTS)?;
    lab.settle()?;
    let targets: [IpAddr; 2] = ["10.0.0.3".parse()?, "fd00::3".parse()?];
    let capture = Capture::underlay(&lab, "moves")?;
    let streams = echoes(&lab, "red-a", &targets)?;
    answered_from(&streams, &[MORE; 2], "before")?;
    let was = lab.tenant("red-c")?.clone();
    for host in ["h2", "h1", "h3", "h2"] {
        lab.detach("red-c")?;
        let before = next(&streams);
        let what = TenantSpec {
            host: host.parse()?,
            vn: "red".to_owned(),
            ips: targets.to_vec(),
            mac: Some(was.mac),
            device: DeviceKind::Veth,
        };
        lab.make_ready("red-c", &what)?;
        lab.attach_ready("red-c")?;
        let numbers = next(&streams);
        answered_from(&streams, &numbers, host)?;
        let through = before.iter().zip(&numbers).all(|(before, number)| number > before);
        ensure!(through, "no request left during the move to {host}: {before:?}, {numbers:?}");
    }
    let counts = capture.stop()?.counts();
    ensure!(counts.flooded() == 0, "{counts:?}");
    lab.down()
}

/// The tenant that asks goes on asking, every 10 ms, so that a packet waits no longer than that for an
/// answer; with the kernel's usual second the order would be the same and the test slower.
#[test]
fn the_first_ping_after_an_address_came_into_being_is_answered() -> Result<()> {
    let mut lab = TestLab::up(THREE_HOSTS)?;
    lab.settle()?;
    let asking = lab.node("red-a")?;
    for family in ["ipv4", "ipv6"] {
        asking.sysctl(&format!("net/{family}/neigh/eth0/retrans_time_ms"), "10")?;
        asking.sysctl(&format!("net/{family}/neigh/eth0/mcast_solicit"), "10000")?;
    }
    let capture = Capture::underlay(&lab, "new")?;
    for (round, host) in ["h3", "h2", "h1"].into_iter().enumerate() {
        let targets: [IpAddr; 2] = [format!("10.0.0.4{round}").parse()?, format!("fd00::4{round}").parse()?];
        let streams = echoes(&lab, "red-a", &targets)?;
        // Asked for and known to be nobody's, for as long as this takes.
        let asked = |streams: &[Echoes]| streams.iter().all(|stream| stream.next() > MORE);
        ensure!(weft_lab::clock::until_true(weft_lab::clock::CEILING, || asked(&streams)));
        ensure!(streams.iter().all(|stream| stream.answers() == 0), "nobody has {targets:?}");
        let name = format!("red-new{round}");
        let what = TenantSpec {
            host: host.parse()?,
            vn: "red".to_owned(),
            ips: targets.to_vec(),
            mac: Some(format!("02:00:00:00:09:0{round}").parse()?),
            device: DeviceKind::Veth,
        };
        lab.make_ready(&name, &what)?;
        ensure!(streams.iter().all(|stream| stream.answers() == 0), "{name} is not attached yet");
        lab.attach_ready(&name)?;
        let numbers = next(&streams);
        answered_from(&streams, &numbers, &name)?;
    }
    let counts = capture.stop()?.counts();
    ensure!(counts.flooded() == 0, "{counts:?}");
    lab.down()
}
