//! Who is asked, who answers, what crosses the underlay and what stands in the tables when tenants talk.

use crate::lab::{
    HOSTS, Mode, TENANTS, asked_of_everybody, ips, learned, lisp, of_vn, rows, tables, until_known,
};
use anyhow::{Context as _, Result, ensure};
use std::collections::{BTreeMap, BTreeSet};
use weft_e2e::{TestLab, ping};
use weft_lab::{Links, capture::Capture};

/// Before anybody talks: where all is pushed all is known, elsewhere nothing.
pub fn untouched(lab: &TestLab, mode: Mode) -> Result<()> {
    for host in HOSTS {
        let mut wanted = BTreeSet::new();
        if mode == Mode::Push {
            for (_, octet, _) in TENANTS.into_iter().filter(|(_, _, at)| *at != host) {
                wanted.append(&mut rows(lab, mode, octet, "push", true)?);
            }
        }
        until_known(lab, host, mode, &wanted)?;
    }
    Ok(())
}

/// `a`, which has talked to nobody, talks to `b` over both families.
pub fn first(lab: &TestLab, mode: Mode) -> Result<()> {
    let (h1, h2) = (lab.rloc("h1")?, lab.rloc("h2")?);
    let (asker, owner) = (mode.tenant('a'), mode.mac(2));
    let links = Links::open(&lab.node(&asker)?)?;
    for target in ips(2) {
        let capture = Capture::underlay(lab, "first")?;
        ensure!(ping(lab, &asker, &target.to_string(), 2)?.complete(), "{mode:?}: {target}");
        let captured = capture.stop()?;
        let (asked, lisp) = (asked_of_everybody(&captured, mode), lisp(&captured));
        // As many as there are other members, or none; where addresses are translated none either of whom the second
        // announcement has told of.
        let members = if mode.asks_members() { 2 } else { 0 };
        let heard = mode == Mode::Translate && asked == 0;
        ensure!(asked == members || heard, "{mode:?}, {target}: {asked} to all, {:?}", captured.counts());
        match mode {
            Mode::Proxy => {
                let oracle = lisp.first().context("nobody was asked")?.1;
                ensure!(lisp.starts_with(&[(h1, oracle), (oracle, h1)]), "{target}: {lisp:?}");
                // The owner is about to answer: its NVE is told of the asker, or asks before word of it is there.
                let back = [(h2, oracle), (oracle, h2)];
                ensure!(lisp.len() == 2 || lisp[2..] == back, "{target}: {lisp:?}");
            }
            Mode::Forward => {
                let oracle = lisp.first().context("nobody was asked")?.1;
                let there = [(h1, oracle), (oracle, h2), (h2, h1)];
                ensure!(oracle != h2 && lisp.starts_with(&there), "{target}: {lisp:?}");
                // The destination's NVE asks who it is that its tenant system is about to talk to (M5).
                let back = [(h2, oracle), (oracle, h1), (h1, h2)];
                ensure!(lisp.len() == 6 && back.iter().all(|one| lisp.contains(one)), "{target}: {lisp:?}");
            }
            _ => ensure!(lisp.is_empty(), "{mode:?}, {target}: nobody asks the Oracle: {lisp:?}"),
        }
        let told = links.neighbour("eth0", target)?.with_context(|| format!("{mode:?}: {target}"))?;
        if mode == Mode::Translate {
            ensure!(told.is_reserved() && told != owner, "the NVE's, not {owner}: {told}");
            let own = TENANTS.map(|(_, octet, _)| mode.mac(octet));
            let mut crossed = of_vn(&captured, mode).filter_map(|frame| frame.inner);
            ensure!(!crossed.any(|(from, _)| own.contains(&from)), "a tenant's own MAC crosses the underlay");
        } else {
            ensure!(told == owner, "{mode:?}, {target}: {told} is not {owner}");
        }
        let again = Capture::underlay(lab, "again")?;
        ensure!(ping(lab, &asker, &target.to_string(), 2)?.complete(), "{mode:?}: {target}");
        let again = again.stop()?;
        let asked = asked_of_everybody(&again, mode) + crate::lab::lisp(&again).len();
        ensure!(asked == 0, "{mode:?}, {target}: nobody asks again: {:?}", again.counts());
    }
    // Who talks is known where it is talked to, and nowhere else.
    if !matches!(mode, Mode::Proxy | Mode::Forward) {
        return untouched(lab, mode);
    }
    until_known(lab, "h1", mode, &rows(lab, mode, 2, "answer", false)?)?;
    until_known(lab, "h2", mode, &rows(lab, mode, 1, "answer", false)?)?;
    until_known(lab, "h3", mode, &BTreeSet::new())
}

/// Everybody talks to everybody of the VN, once over each family.
pub fn all_pairs(lab: &TestLab, mode: Mode) -> Result<()> {
    let capture = Capture::underlay(lab, "pairs")?;
    for (one, _, _) in TENANTS {
        for (other, octet, _) in TENANTS.into_iter().filter(|(other, ..)| *other != one) {
            for ip in ips(octet) {
                let pinged = ping(lab, &mode.tenant(one), &ip.to_string(), 1)?;
                ensure!(pinged.complete(), "{mode:?}: {one} to {other} at {ip}: {pinged:?}");
            }
        }
    }
    let captured = capture.stop()?;
    // A tenant system asks those that have not asked it: a of c, b of c and d, c of d; and a of d, which is on its
    // host and answered for there, but where all is flooded. Of each to two hosts, over two families.
    let wanted = match mode {
        Mode::Flood => 5 * 2 * 2,
        Mode::Translate => 4 * 2 * 2,
        _ => 0,
    };
    // Where addresses are translated nobody is asked for who was announced there when it was attached.
    let least = if mode == Mode::Translate { 0 } else { wanted };
    let asked = asked_of_everybody(&captured, mode);
    let all = asked.is_multiple_of(2) && (least..=wanted).contains(&asked);
    ensure!(all, "{mode:?}: {asked} to all, not {wanted}: {:?}", captured.counts());
    let asks = matches!(mode, Mode::Proxy | Mode::Forward);
    ensure!(asks != lisp(&captured).is_empty(), "{mode:?}: {:?}", lisp(&captured));
    for host in HOSTS {
        let elsewhere = TENANTS.into_iter().filter(|(_, _, at)| *at != host);
        if asks {
            let mut wanted = BTreeSet::new();
            for (_, octet, _) in elsewhere {
                wanted.append(&mut rows(lab, mode, octet, "answer", false)?);
            }
            until_known(lab, host, mode, &wanted)?;
        } else {
            untouched(lab, mode)?;
            from_frames(lab, mode, host)?;
        }
    }
    Ok(())
}

/// What everybody's talk has taught the data plane of `host`: where tenant systems are, or, where addresses are
/// translated, which other NVE has which address, each NVE by one MAC address.
fn from_frames(lab: &TestLab, mode: Mode, host: &str) -> Result<()> {
    let seen = learned(lab, host, mode)?;
    let elsewhere = || TENANTS.into_iter().filter(|(_, _, at)| *at != host);
    match mode {
        Mode::Flood => {
            let mut wanted = BTreeSet::new();
            for (_, octet, at) in elsewhere() {
                let mac = mode.mac(octet);
                wanted.insert((mac.to_string(), Some(mac), Some(lab.rloc(at)?), "data".to_owned()));
            }
            ensure!(seen == wanted, "{host}, {mode:?}: {seen:?}, not {wanted:?}");
        }
        Mode::Translate => {
            let mut nodes = BTreeMap::new();
            let mut ips_seen = BTreeSet::new();
            for (eid, mac, rloc, _) in &seen {
                let (mac, rloc) = (mac.context("a MAC address")?, rloc.context("an RLOC")?);
                ensure!(mac.is_reserved(), "{host}: {mac} is no NVE's");
                ensure!(
                    *nodes.entry(rloc).or_insert(mac) == mac,
                    "{host}: two MAC addresses of {rloc}: {seen:?}"
                );
                // A link-local address that it had by then is in the second announcement.
                if *eid != mac.to_string() && !eid.starts_with("fe80::") {
                    ips_seen.insert((eid.clone(), rloc));
                }
            }
            let mut wanted = BTreeSet::new();
            for (_, octet, at) in elsewhere() {
                let rloc = lab.rloc(at)?;
                wanted.extend(ips(octet).map(|ip| (ip.to_string(), rloc)));
            }
            ensure!(ips_seen == wanted && nodes.len() == 2, "{host}, {mode:?}: {seen:?}, not {wanted:?}");
        }
        _ => ensure!(seen.is_empty(), "{host}, {mode:?}: {seen:?}"),
    }
    Ok(())
}

/// How many entries each table has after all of this: MAC addresses, IP addresses, what frames have said of MAC
/// addresses and, where addresses are translated, of IP addresses.
pub fn sizes(lab: &TestLab) -> Result<()> {
    for host in HOSTS {
        let here = TENANTS.iter().filter(|(_, _, at)| *at == host).count() as u64;
        let there = 4 - here;
        let now = tables(lab, host)?;
        let wanted = BTreeMap::from([
            // Those attached here in every VN, those elsewhere where the Oracle says where they are.
            ("fdb", 5 * here + 3 * there),
            // The same with three addresses each, but of others the link-local one only where all is pushed.
            ("neighbours", 5 * here * 3 + 2 * there * 2 + there * 3),
            // Tenant systems where all is flooded, the other NVEs where addresses are translated.
            ("learned", there + 2),
        ]);
        for (table, entries) in wanted {
            ensure!(now.get(table) == Some(&entries), "{host}: not {entries} in {table}: {now:?}");
        }
        // The link-local ones are among those that are announced the second time, if they were there by then.
        let heard = now.get("heard").is_some_and(|heard| (there * 2..=there * 3).contains(heard));
        ensure!(heard, "{host}: not {} to {} in heard: {now:?}", there * 2, there * 3);
    }
    Ok(())
}
