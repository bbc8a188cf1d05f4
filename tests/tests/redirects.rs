//! A tenant system moves and a host hears nothing of it: what it still sends to the old place is redirected
//! (requirements V6, M4).

use anyhow::{Context as _, Result, ensure};
use weft_e2e::{Guest, THREE_HOSTS, TestLab, frames};
use weft_lab::{Signal, clock};

/// Echo requests a second, and how many more are looked at after the first.
const RATE: u32 = 100;
const MORE: u64 = 20;

/// Frames that h2 has redirected, and those that h2 and h3 lost for a loop or a fence.
fn counts(lab: &TestLab) -> Result<Vec<u64>> {
    let lost =
        ["h2", "h3"].into_iter().flat_map(|host| ["redirect-loop", "fenced"].map(|reason| (host, reason)));
    [("h2", "redirected")].into_iter().chain(lost).map(|(host, reason)| frames(lab, host, reason)).collect()
}

/// The agent of h1 stands still, so that its host sends on to where the guest was at first, h2. It goes to h3, back
/// to h2 and to h3 again: every request that is sent after an Activate is answered, and none goes round.
fn around(yaml: &str) -> Result<()> {
    let mut lab = TestLab::up(yaml)?;
    lab.settle()?;
    let asking = lab.node("red-a")?;
    // The guest is the only one of its VN on h2.
    lab.detach("red-b")?;
    let mut guest = Guest::boot(&mut lab, "h2")?;
    let streams = guest.asked_from(&asking, RATE)?;
    let agent = guest.lab.daemon("h1")?.id;
    agent.signal(Signal::SIGSTOP)?;
    let result = (|| {
        for to in ["h3", "h2", "h3"] {
            let from = guest.at;
            guest.migrate(to, true)?;
            // What came while it was nowhere may have gone back and forth.
            let before = counts(guest.lab)?;
            for stream in &streams {
                let number = stream.next();
                let first = stream.first_answered(number, MORE)?;
                ensure!(
                    first == number,
                    "{from} to {to}: of requests from {number} on the first answered is {first}"
                );
            }
            let now = counts(guest.lab)?;
            let redirected = now.first().context("h2's")? - before.first().context("h2's")?;
            let expected = if to == "h3" { 2 * MORE..u64::MAX } else { 0..1 };
            ensure!(expected.contains(&redirected), "{from} to {to}: {redirected} redirected");
            ensure!(now.get(1..) == before.get(1..), "{from} to {to}: {before:?}, then {now:?}");
            guest.tsi(from, "de-associate", &[])?;
        }
        // h2 has no part in the VN any more, and still knows.
        for stream in &streams {
            let number = stream.next();
            let first = stream.first_answered(number, MORE)?;
            ensure!(first == number, "of requests from {number} on the first answered is {first}");
        }
        Ok(())
    })();
    agent.signal(Signal::SIGCONT)?;
    result?;
    // It hears of it now: nothing is redirected any more.
    let quiet = || {
        let before = frames(guest.lab, "h2", "redirected")?;
        let number = streams.first().context("a stream")?.next();
        for stream in &streams {
            stream.first_answered(number, MORE)?;
        }
        Ok::<_, anyhow::Error>((frames(guest.lab, "h2", "redirected")? == before).then_some(()))
    };
    ensure!(clock::until(clock::CEILING, quiet)?.is_some(), "h1 still sends to h2");
    drop(guest);
    lab.down()
}

#[test]
fn m4_who_hears_nothing_of_a_move_still_reaches_it() -> Result<()> {
    around(THREE_HOSTS)
}

#[test]
fn m4_over_an_ipv6_underlay_too() -> Result<()> {
    around(&THREE_HOSTS.replace("ipv4: 192.0.2.0/24", "ipv6: \"2001:db8::/64\""))
}
