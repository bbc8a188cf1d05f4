//! Every way of learning where a MAC address is, on one lab: a VN of each beside the others, all of the same
//! subnets and addresses, over both families. Who is asked, who answers, what crosses the underlay, what exactly
//! stands in the tables, and that no VN hears another.

mod contacts;
mod lab;
mod newcomers;
mod probes;

use anyhow::{Context as _, Result, ensure};
use lab::{Mode, TENANTS, UNDERLAYS};
use weft_e2e::TestLab;
use weft_lab::capture::Capture;

/// Nobody hears a frame of another VN: each has other MAC addresses, and those of NVEs are of one VN each.
fn apart(captures: Vec<(Mode, char, Capture)>) -> Result<()> {
    for (mode, letter, capture) in captures {
        let captured = capture.stop()?;
        let own = TENANTS.map(|(_, octet, _)| mode.mac(octet));
        let mut strangers = captured.frames.iter().filter_map(|frame| frame.macs).filter(|(from, _)| {
            let stands_for = match mode {
                Mode::Translate => from.0[0] == 0x0a,
                Mode::Push => mode.anycast().is_ok_and(|anycast| anycast == *from),
                _ => false,
            };
            !own.contains(from) && !stands_for
        });
        ensure!(captured.frames.len() > 10, "{mode:?}, {letter}: too few frames for this to mean anything");
        let stranger = strangers.next();
        ensure!(stranger.is_none(), "{mode:?}, {letter} heard {stranger:?}");
    }
    Ok(())
}

fn every_mode(underlay: &str) -> Result<()> {
    let mut lab = TestLab::up(&lab::yaml(underlay))?;
    lab.settle()?;
    let mut heard = Vec::new();
    for mode in Mode::ALL {
        for (letter, ..) in TENANTS {
            let tenant = mode.tenant(letter);
            let node = lab.node(&tenant)?;
            // Neighbours are not made sure of while frames are counted: the kernel's 5 s could be over.
            for family in ["ipv4", "ipv6"] {
                node.sysctl(&format!("net/{family}/neigh/eth0/delay_first_probe_time"), "600")?;
            }
            let file = lab.files().run.join(format!("heard-{tenant}.pcap"));
            heard.push((mode, letter, Capture::start(&node, "eth0", &file)?));
        }
    }
    for mode in Mode::ALL {
        contacts::untouched(&lab, mode).with_context(|| format!("{mode:?}, before anybody talks"))?;
        contacts::first(&lab, mode).with_context(|| format!("{mode:?}, first contacts"))?;
    }
    for mode in Mode::ALL {
        contacts::all_pairs(&lab, mode).with_context(|| format!("{mode:?}, all pairs"))?;
    }
    contacts::sizes(&lab)?;
    probes::all(&lab).context("probes")?;
    apart(heard)?;
    newcomers::pushed(&mut lab).context("a newcomer where all is pushed")?;
    newcomers::translated(&mut lab).context("a newcomer where addresses are translated")?;
    lab.down()
}

#[test]
fn l_every_mode_over_an_ipv4_underlay() -> Result<()> {
    every_mode(UNDERLAYS[0])
}

#[test]
fn l_every_mode_over_an_ipv6_underlay() -> Result<()> {
    every_mode(UNDERLAYS[1])
}
