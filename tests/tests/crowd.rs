//! Many tenant systems that talk: a crowd behind TAPs on real NVEs.

use anyhow::{Context as _, Result, ensure};
use std::time::Duration;
use weft_e2e::{THREE_HOSTS, TestLab};
use weft_lab::capture::Capture;
use weft_load::{Act, Crowd};

const HOSTS: [&str; 3] = ["h1", "h2", "h3"];
const EACH: usize = 10;

/// Everybody talks to everybody at once: all are answered, nothing is flooded, no question is asked of the
/// Oracle twice.
#[test]
fn lc_a_crowd_that_all_talks_at_once_is_answered() -> Result<()> {
    let lab = TestLab::up(THREE_HOSTS)?;
    let mut crowd = Crowd::attach(&lab, "red", &HOSTS, EACH)?;
    let members = crowd.members();
    ensure!(members.len() == HOSTS.len() * EACH);
    let mut acts = Vec::new();
    for v4 in [true, false] {
        for (who, one) in members.iter().enumerate() {
            for other in members.iter().filter(|other| other.mac != one.mac) {
                let to = other.ips.iter().find(|ip| ip.is_ipv4() == v4).context("an address")?;
                acts.push(Act { at: Duration::ZERO, who, to: *to });
            }
        }
    }
    let capture = Capture::underlay(&lab, "crowd")?;
    let played = crowd.play(&acts, Duration::from_secs(30))?;
    let counts = capture.stop()?.counts();
    ensure!(played.contacts.len() == acts.len());
    let unanswered: Vec<_> = played.contacts.iter().filter(|c| c.answered.is_none()).collect();
    ensure!(unanswered.is_empty(), "{} of {}: {unanswered:?}", unanswered.len(), acts.len());
    ensure!(counts.flooded() == 0, "{counts:?}");
    lab.down()
}
