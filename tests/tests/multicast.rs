//! Multicast in a VN that replicates: to the hosts where somebody asked for the group, and to nobody else.

use anyhow::{Context as _, Result, ensure};
use std::{
    io::ErrorKind,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket},
};
use weft_e2e::{THREE_HOSTS, TestLab};
use weft_lab::{
    Signal,
    capture::{Capture, Captured},
    clock,
};

const GROUP4: Ipv4Addr = Ipv4Addr::new(239, 1, 2, 3);
const GROUP6: Ipv6Addr = Ipv6Addr::new(0xff15, 0, 0, 0, 0, 0, 0, 0x123);
const GROUPS: [IpAddr; 2] = [IpAddr::V4(GROUP4), IpAddr::V6(GROUP6)];
const PORT: u16 = 7117;
/// Datagrams sent to each group at a time.
const SENT: usize = 20;

/// A tenant system that has joined both groups, until it is dropped.
struct Receiver([UdpSocket; 2]);

impl Receiver {
    fn join(lab: &TestLab, tenant: &str) -> Result<Self> {
        let ips = &lab.tenant(tenant)?.ips;
        let own = ips.iter().find_map(|net| if let IpAddr::V4(ip) = net.addr() { Some(ip) } else { None });
        let own = own.context("an IPv4 address")?;
        let sockets = lab.node(tenant)?.run(|| -> std::io::Result<_> {
            let (v4, v6) = (UdpSocket::bind(("0.0.0.0", PORT))?, UdpSocket::bind(("::", PORT + 1))?);
            v4.join_multicast_v4(&GROUP4, &own)?;
            v6.join_multicast_v6(&GROUP6, 0)?;
            v4.set_nonblocking(true)?;
            v6.set_nonblocking(true)?;
            Ok([v4, v6])
        })??;
        Ok(Self(sockets))
    }

    /// How many datagrams of each group are there that have this word in them.
    fn take(&self, word: &str) -> Result<[usize; 2]> {
        let mut counts = [0; 2];
        for (count, socket) in counts.iter_mut().zip(&self.0) {
            let mut buffer = [0; 64];
            loop {
                match socket.recv(&mut buffer) {
                    Ok(length) => *count += usize::from(&buffer[..length] == word.as_bytes()),
                    Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                    Err(error) => return Err(error.into()),
                }
            }
        }
        Ok(counts)
    }

    /// Waits until all datagrams of a round are there: not one more, not one twice.
    fn expect(&self, word: &str) -> Result<()> {
        let mut got = [0; 2];
        let all = clock::until(clock::CEILING, || {
            let more = self.take(word)?;
            got = [got[0] + more[0], got[1] + more[1]];
            Ok::<_, anyhow::Error>((got >= [SENT; 2] && got.iter().all(|n| *n >= SENT)).then_some(()))
        })?;
        ensure!(all.is_some() && got == [SENT; 2], "{word}: {got:?} of {SENT} each");
        Ok(())
    }
}

/// red-a, on h1, sends to both groups; what crossed the underlay meanwhile.
fn send(lab: &TestLab, word: &str, receivers: &[&Receiver]) -> Result<Captured> {
    let capture = Capture::underlay(lab, &word.replace(' ', "-"))?;
    let own = &lab.tenant("red-a")?.ips;
    for (group, port) in GROUPS.into_iter().zip([PORT, PORT + 1]) {
        let from = own.iter().find(|net| net.addr().is_ipv4() == group.is_ipv4());
        let from = from.context("an address of each family")?.addr();
        let socket = lab.node("red-a")?.run(|| UdpSocket::bind((from, 0)))??;
        for _ in 0..SENT {
            socket.send_to(word.as_bytes(), SocketAddr::new(group, port))?;
        }
    }
    for receiver in receivers {
        receiver.expect(word)?;
    }
    Ok(capture.stop()?)
}

/// How many datagrams for each group went to `host`.
fn to_host(lab: &TestLab, captured: &Captured, host: &str) -> Result<[usize; 2]> {
    let rloc = lab.rloc(host)?;
    Ok(GROUPS.map(|group| {
        let its = captured.frames.iter().filter(|frame| frame.to == Some(rloc));
        its.filter(|frame| frame.inner_ips.is_some_and(|(_, to)| to == group)).count()
    }))
}

/// Waits until `host`'s data plane knows receivers of so many groups.
fn until_groups(lab: &TestLab, host: &str, wanted: u64) -> Result<()> {
    let socket = lab.files().socket(host);
    let socket = socket.to_str().context("a path that is text")?;
    let mut found = None;
    let seen = clock::until(clock::CEILING, || {
        let text = lab.weft_at(host, ["get", "tables", "--socket", socket, "-o", "json"])?;
        let all: Vec<serde_json::Value> = serde_json::from_str(&text)?;
        let groups = all.iter().find(|one| one["table"] == "groups").context("no groups")?;
        found = groups["entries"].as_u64();
        Ok::<_, anyhow::Error>((found == Some(wanted)).then_some(()))
    })?;
    seen.with_context(|| format!("{host} knows receivers of {found:?} groups, not {wanted}"))
}

/// Frames that `host` counted as being for a group that nobody asked for.
fn no_receiver(lab: &TestLab, host: &str) -> Result<u64> {
    let socket = lab.files().socket(host);
    let socket = socket.to_str().context("a path that is text")?;
    let text = lab.weft_at(host, ["get", "drops", "--socket", socket, "-o", "json"])?;
    let all: Vec<serde_json::Value> = serde_json::from_str(&text)?;
    Ok(all
        .iter()
        .filter(|one| one["reason"] == "no-receiver")
        .filter_map(|one| one["packets"].as_u64())
        .sum())
}

/// Waits until the NVE of `host` has a session.
fn until_connected(lab: &TestLab, host: &str) -> Result<()> {
    let seen = clock::until(clock::CEILING, || {
        let nves = lab.json(&["get", "nves"])?;
        let its = nves.as_array().context("a list")?.iter().find(|nve| nve["name"] == host);
        Ok::<_, anyhow::Error>(its.is_some_and(|nve| nve["connected"] == true).then_some(()))
    })?;
    seen.with_context(|| format!("{host} has no session"))
}

fn narrowed(underlay: &str) -> Result<()> {
    let yaml = THREE_HOSTS.replace("ipv4: 192.0.2.0/24", underlay);
    let yaml = yaml.replacen("    learning: oracle\n", "    learning: oracle\n    bum: replicate\n", 1);
    let mut lab = TestLab::up(&yaml)?;
    lab.settle()?;
    let h2 = lab.rloc("h2")?;
    let nobody = |lab: &TestLab, word: &str| -> Result<()> {
        let captured = send(lab, word, &[])?;
        for host in ["h2", "h3"] {
            ensure!(to_host(lab, &captured, host)? == [0; 2], "{word}: {host} got some");
        }
        Ok(())
    };
    nobody(&lab, "nobody asked")?;
    ensure!(no_receiver(&lab, "h1")? == 2 * SENT as u64, "{} counted", no_receiver(&lab, "h1")?);

    let b = Receiver::join(&lab, "red-b")?;
    until_groups(&lab, "h1", 2)?;
    let only_h2 = |lab: &TestLab, word: &str, receivers: &[&Receiver]| -> Result<()> {
        let captured = send(lab, word, receivers)?;
        let (h2, h3) = (to_host(lab, &captured, "h2")?, to_host(lab, &captured, "h3")?);
        ensure!((h2, h3) == ([SENT; 2], [0; 2]), "{word}: {h2:?} to h2, {h3:?} to h3");
        Ok(())
    };
    only_h2(&lab, "for red-b", &[&b])?;
    until_shown(&lab, "h1", &["239.1.2.3", "ff15::123"], 0, &[h2])?;
    // Who is on the sender's own host gets it there.
    let d = Receiver::join(&lab, "red-d")?;
    until_groups(&lab, "h2", 2)?;
    let h1_is_a_receiver = clock::until(clock::CEILING, || {
        send(&lab, "for red-d", &[&b])?;
        Ok::<_, anyhow::Error>((d.take("for red-d")?.iter().all(|n| *n > 0)).then_some(()))
    })?;
    h1_is_a_receiver.context("red-d on the same host")?;
    only_h2(&lab, "for both", &[&b, &d])?;

    // Without the agents, and after they were started again.
    for host in ["h1", "h2"] {
        lab.signal(host, Signal::SIGKILL)?;
        only_h2(&lab, &format!("without {host}"), &[&b, &d])?;
        lab.restart(host)?;
        until_connected(&lab, host)?;
        only_h2(&lab, &format!("with {host} again"), &[&b, &d])?;
    }
    until_groups(&lab, "h1", 2)?;

    drop(b);
    drop(d);
    until_groups(&lab, "h1", 0)?;
    until_groups(&lab, "h2", 0)?;
    nobody(&lab, "all left")?;
    lab.down()
}

/// What `host` shows of groups.
fn shown(lab: &TestLab, host: &str) -> Result<serde_json::Value> {
    let socket = lab.files().socket(host);
    let socket = socket.to_str().context("a path that is text")?;
    Ok(serde_json::from_str(&lab.weft_at(host, ["get", "multicast", "--socket", socket, "-o", "json"])?)?)
}

/// Waits until `host` shows just these groups, or `all`, as received at `rlocs`.
fn until_shown(lab: &TestLab, host: &str, groups: &[&str], here: usize, rlocs: &[IpAddr]) -> Result<()> {
    let row = |group: &&str| serde_json::json!({"vn": "red", "group": group, "here": here, "rlocs": rlocs});
    let wanted = serde_json::Value::from(groups.iter().map(row).collect::<Vec<_>>());
    let mut found = serde_json::Value::Null;
    let seen = clock::until(clock::CEILING, || {
        found = shown(lab, host)?;
        Ok::<_, anyhow::Error>((found == wanted).then_some(()))
    })?;
    seen.with_context(|| format!("{host} shows {found}, not {wanted}"))
}

/// Groups that are kept of one tenant system.
const KEPT: u16 = 64;

/// As many other groups as are kept, joined until the socket is dropped.
fn fill(lab: &TestLab, tenant: &str) -> Result<UdpSocket> {
    Ok(lab.node(tenant)?.run(|| -> std::io::Result<_> {
        let socket = UdpSocket::bind(("::", PORT + 2))?;
        for n in 0..KEPT {
            socket.join_multicast_v6(&Ipv6Addr::new(0xff15, 0, 0, 0, 0, 0, 1, n), 0)?;
        }
        Ok(socket)
    })??)
}

/// One tenant system wants more groups than are kept of it: it gets all, and nobody else does.
fn beyond_what_is_kept(underlay: &str) -> Result<()> {
    let yaml = THREE_HOSTS.replace("ipv4: 192.0.2.0/24", underlay);
    let yaml = yaml.replacen("    learning: oracle\n", "    learning: oracle\n    bum: replicate\n", 1);
    let mut lab = TestLab::up(&yaml)?;
    lab.settle()?;
    let h2 = lab.rloc("h2")?;
    let only_h2 = |lab: &TestLab, word: &str, receivers: &[&Receiver], sent: usize| -> Result<()> {
        let captured = send(lab, word, receivers)?;
        let (h2, h3) = (to_host(lab, &captured, "h2")?, to_host(lab, &captured, "h3")?);
        ensure!((h2, h3) == ([sent; 2], [0; 2]), "{word}: {h2:?} to h2, {h3:?} to h3");
        Ok(())
    };
    let filled = fill(&lab, "red-b")?;
    until_groups(&lab, "h1", KEPT.into())?;
    only_h2(&lab, "not asked for", &[], 0)?;

    let b = Receiver::join(&lab, "red-b")?;
    // An entry for those that have none.
    until_groups(&lab, "h1", u64::from(KEPT) + 1)?;
    let rest = |host: &str| -> Result<serde_json::Value> {
        let all = shown(&lab, host)?;
        let row = all.as_array().context("a list")?.iter().find(|row| row["group"] == "all");
        row.cloned().with_context(|| format!("{host} shows {all}"))
    };
    let (at_h1, at_h2) = (rest("h1")?, rest("h2")?);
    ensure!(at_h1 == serde_json::json!({"vn": "red", "group": "all", "here": 0, "rlocs": [h2]}), "{at_h1}");
    ensure!(at_h2 == serde_json::json!({"vn": "red", "group": "all", "here": 1, "rlocs": []}), "{at_h2}");
    only_h2(&lab, "one too many", &[&b], SENT)?;
    for host in ["h1", "h2"] {
        lab.signal(host, Signal::SIGKILL)?;
        only_h2(&lab, &format!("without {host}"), &[&b], SENT)?;
        lab.restart(host)?;
        until_connected(&lab, host)?;
        only_h2(&lab, &format!("with {host} again"), &[&b], SENT)?;
    }

    // There is room for what it wants.
    drop(filled);
    until_shown(&lab, "h1", &["239.1.2.3", "ff15::123"], 0, &[h2])?;
    until_shown(&lab, "h2", &["239.1.2.3", "ff15::123"], 1, &[])?;
    only_h2(&lab, "kept", &[&b], SENT)?;
    drop(b);
    until_groups(&lab, "h1", 0)?;
    only_h2(&lab, "all left", &[], 0)?;
    lab.down()
}

#[test]
fn n9_more_groups_than_are_kept_are_received_over_an_ipv4_underlay() -> Result<()> {
    beyond_what_is_kept("ipv4: 192.0.2.0/24")
}

#[test]
fn n9_more_groups_than_are_kept_are_received_over_an_ipv6_underlay() -> Result<()> {
    beyond_what_is_kept("ipv6: \"2001:db8::/64\"")
}

#[test]
fn n9_multicast_goes_to_who_asked_over_an_ipv4_underlay() -> Result<()> {
    narrowed("ipv4: 192.0.2.0/24")
}

#[test]
fn n9_multicast_goes_to_who_asked_over_an_ipv6_underlay() -> Result<()> {
    narrowed("ipv6: \"2001:db8::/64\"")
}
