//! Security groups end to end: what rules allow passes, what none allows does not, whatever restarts.

use anyhow::{Context as _, Result, ensure};
use std::{
    ffi::OsString,
    io::{ErrorKind, Read as _, Write as _},
    net::{IpAddr, SocketAddr, TcpListener, TcpStream},
    time::Duration,
};
use weft_e2e::{THREE_HOSTS, TestLab, frames, ping};
use weft_lab::{DeviceKind, Links, Signal, TenantSpec, clock};

/// What a tenant waits for what may come.
const PATIENCE: Duration = Duration::from_secs(10);
/// What it waits for what is not to come; a SYN is repeated after a second.
const LITTLE: Duration = Duration::from_millis(1_300);

const WEB: [&str; 5] = [
    "in tcp/8080-8081 from group:client",
    "in icmp/8 from group:client",
    "in icmpv6/128 from group:client",
    "in tcp/22 from 10.0.0.3",
    "out any to anybody ipv4",
];

/// `weft group set`, with these rules.
fn set(lab: &TestLab, group: &str, rules: &[&str]) -> Result<()> {
    let mut words = vec!["group", "set", group, "--vn", "red"];
    rules.iter().for_each(|rule| words.extend(["--rule", rule]));
    lab.weft(words).map(drop).map_err(Into::into)
}

fn put_in(lab: &TestLab, tsi: &str, groups: &str) -> Result<()> {
    lab.weft(["tsi", "set-groups", "--vn", "red", "--name", tsi, "--groups", groups])?;
    Ok(())
}

/// How many frames the NVE of a host refused because of access policy.
fn denied(lab: &TestLab, host: &str) -> Result<u64> {
    frames(lab, host, "denied")
}

/// What a rule of a group let through, on all hosts.
fn counted(lab: &TestLab, group: &str, rule: &str) -> Result<u64> {
    let rows = lab.json(&["get", "rules", "--vn", "red", "--group", group])?;
    let row = rows.as_array().context("a list")?.iter().find(|row| row["rule"] == rule);
    row.with_context(|| format!("{rule} is not in {rows}"))?["packets"].as_u64().context("a count")
}

/// Every change of policy reaches NVEs by their watch.
fn soon(what: &str, condition: impl FnMut() -> bool) -> Result<()> {
    ensure!(clock::until_true(clock::CEILING, condition), "{what}");
    Ok(())
}

fn reaches(lab: &TestLab, from: &str, to: &str) -> bool {
    ping(lab, from, to, 1).is_ok_and(weft_e2e::Ping::complete)
}

/// A connection from one tenant to another.
struct Stream {
    sender: TcpStream,
    receiver: TcpStream,
}

fn listen(lab: &TestLab, at: &str, port: u16, v4: bool) -> Result<TcpListener> {
    let any: IpAddr = if v4 { [0; 4].into() } else { [0_u16; 8].into() };
    Ok(lab.node(at)?.run(|| TcpListener::bind(SocketAddr::new(any, port)))??)
}

fn connect(
    lab: &TestLab,
    from: &str,
    to: SocketAddr,
    within: Duration,
) -> Result<std::io::Result<TcpStream>> {
    Ok(lab.node(from)?.run(|| TcpStream::connect_timeout(&to, within))?)
}

impl Stream {
    fn open(lab: &TestLab, from: &str, listener: &TcpListener, to: IpAddr) -> Result<Self> {
        let to = SocketAddr::new(to, listener.local_addr()?.port());
        let sender = connect(lab, from, to, PATIENCE)?.with_context(|| format!("{from} to {to}"))?;
        Ok(Self { sender, receiver: listener.accept()?.0 })
    }

    /// Whether what is sent gets across, and an answer back.
    fn carries(&mut self, within: Duration) -> Result<bool> {
        self.sender.write_all(&[7])?;
        if !hears(&mut self.receiver, 7, within)? {
            return Ok(false);
        }
        self.receiver.write_all(&[8])?;
        hears(&mut self.sender, 8, within)
    }
}

/// Whether an octet comes, whatever came before it.
fn hears(stream: &mut TcpStream, octet: u8, within: Duration) -> Result<bool> {
    stream.set_read_timeout(Some(within))?;
    let mut one = [0];
    loop {
        match stream.read(&mut one) {
            Ok(1) if one == [octet] => return Ok(true),
            Ok(1) => {}
            Ok(_) => return Ok(false),
            Err(e) if matches!(e.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => return Ok(false),
            Err(e) => return Err(e.into()),
        }
    }
}

/// Allowed passes and is answered, everything else goes nowhere, both families.
fn what_is_allowed_passes(lab: &TestLab) -> Result<()> {
    for to in ["10.0.0.2", "fd00::2"] {
        ensure!(ping(lab, "red-a", to, 3)?.complete(), "a client asks {to}");
        let before = denied(lab, "h2")?;
        let heard = Links::open(&lab.node("red-b")?)?.stats("eth0")?.rx_packets;
        ensure!(ping(lab, "red-c", to, 3)?.nothing(), "no client asks {to}");
        ensure!(denied(lab, "h2")? >= before + 3, "{to} was asked and refused");
        // Neighbour Discovery is no matter of groups; requests are.
        let more = Links::open(&lab.node("red-b")?)?.stats("eth0")?.rx_packets - heard;
        ensure!(more < 3, "{more} frames came through to {to}");
    }
    // Web may open connections over IPv4; client takes none.
    ensure!(ping(lab, "red-b", "10.0.0.1", 2)?.nothing() && ping(lab, "red-b", "10.0.0.3", 2)?.complete());
    ensure!(ping(lab, "red-b", "fd00::3", 2)?.nothing(), "out is for ipv4 only");
    for (v4, to) in [(true, "10.0.0.2"), (false, "fd00::2")] {
        let (open, shut) = (listen(lab, "red-b", 8080, v4)?, listen(lab, "red-b", 9000, v4)?);
        let to: IpAddr = to.parse()?;
        ensure!(Stream::open(lab, "red-a", &open, to)?.carries(PATIENCE)?, "tcp to {to}");
        for (from, port) in [("red-a", 9000), ("red-c", 8080)] {
            let to = SocketAddr::new(to, port);
            ensure!(connect(lab, from, to, LITTLE)?.is_err(), "{from} reached {to}");
        }
        drop(shut);
    }
    let web = counted(lab, "web", "in icmp/8 from group:client")?;
    ensure!(web >= 3 && counted(lab, "web", "in tcp/8080-8081 from group:client")? > 0, "{web}");
    ensure!(counted(lab, "client", "out any to anybody")? > 0);
    Ok(())
}

/// A rule that goes cuts what only it allowed, and nothing else.
fn a_change_cuts_and_keeps(lab: &TestLab) -> Result<()> {
    for (v4, to) in [(true, "10.0.0.2"), (false, "fd00::2")] {
        set(lab, "web", &WEB)?;
        let (kept, cut) = (listen(lab, "red-b", 8080, v4)?, listen(lab, "red-b", 8081, v4)?);
        let to: IpAddr = to.parse()?;
        soon("the rules are back", || {
            connect(lab, "red-a", SocketAddr::new(to, 8081), LITTLE).is_ok_and(|c| c.is_ok())
        })?;
        cut.accept()?;
        let (mut kept, mut cut) =
            (Stream::open(lab, "red-a", &kept, to)?, Stream::open(lab, "red-a", &cut, to)?);
        ensure!(kept.carries(PATIENCE)? && cut.carries(PATIENCE)?, "before, {to}");
        let before = denied(lab, "h2")?;
        let mut rules = WEB.to_vec();
        rules[0] = "in tcp/8080 from group:client";
        set(lab, "web", &rules)?;
        soon("what is not allowed any more is refused", || {
            cut.sender.write_all(&[1]).is_ok() && denied(lab, "h2").is_ok_and(|now| now > before)
        })?;
        // What was under way is through; what is sent now is not.
        ensure!(!cut.carries(LITTLE)?, "the connection to {to} lives");
        ensure!(kept.carries(PATIENCE)?, "the other connection, {to}");
    }
    set(lab, "web", &WEB)
}

/// Who is attached, or put into a group, is in it everywhere at once; who leaves it is out.
fn members_come_and_go(lab: &mut TestLab) -> Result<()> {
    lab.weft(["vn", "set", "red", "--default-groups", "client", "--log-refused", "true"])?;
    let what = TenantSpec {
        host: "h3".parse()?,
        vn: "red".to_owned(),
        ips: vec!["10.0.0.9".parse()?, "fd00::9".parse()?],
        mac: None,
        device: DeviceKind::Veth,
    };
    lab.attach("red-e", &what)?;
    lab.settle()?;
    for to in ["10.0.0.2", "fd00::2"] {
        soon("one that is attached is a client", || reaches(lab, "red-e", to))?;
        // So is everybody who names no group.
        soon("one that was there is a client", || reaches(lab, "red-c", to))?;
    }
    put_in(lab, "red-e", "web")?;
    for to in ["10.0.0.2", "fd00::2"] {
        soon("one that left is no client", || !reaches(lab, "red-e", to))?;
    }
    // The web's own rule lets out; at the other end nothing lets it in.
    put_in(lab, "red-e", "client")?;
    soon("and one again", || reaches(lab, "red-e", "10.0.0.2"))?;
    let refused = lab.weft(["group", "delete", "client", "--vn", "red"]).err().map(|e| e.to_string());
    let words = refused.context("a group in use was deleted")?;
    ensure!(words.contains("VN 'red' by default") && words.contains("rules of group 'web'"), "{words}");
    lab.weft(["vn", "set", "red", "--default-groups", "none"])?;
    soon("red-c is no client", || !reaches(lab, "red-c", "10.0.0.2"))?;
    let log = std::fs::read_to_string(lab.files().log("h2"))?;
    ensure!(log.contains("refused") && log.contains("destination=10.0.0.2"), "refusals are logged");
    Ok(())
}

/// Neither an agent nor the Oracle takes policy along when it ends.
fn restarts_keep_it(lab: &mut TestLab) -> Result<()> {
    let holds = |lab: &TestLab| -> Result<()> {
        for to in ["10.0.0.2", "fd00::2"] {
            ensure!(ping(lab, "red-a", to, 2)?.complete(), "allowed to {to}");
            ensure!(ping(lab, "red-c", to, 2)?.nothing(), "refused to {to}");
        }
        Ok(())
    };
    holds(lab).context("before")?;
    let listener = listen(lab, "red-b", 8080, true)?;
    let mut stream = Stream::open(lab, "red-a", &listener, "10.0.0.2".parse()?)?;
    lab.signal("oracle", Signal::SIGKILL)?;
    lab.signal("h2", Signal::SIGKILL)?;
    holds(lab).context("with neither Oracle nor agent")?;
    ensure!(stream.carries(PATIENCE)?, "a connection");
    let agent = lab.daemon("h2")?.clone();
    lab.start_daemon("h2", "h2", agent.command.iter().map(OsString::from).collect())?;
    soon("the agent is back", || lab.weft_at("h2", ["get", "tables"]).is_ok())?;
    holds(lab).context("with an agent that has found no Oracle")?;
    ensure!(stream.carries(PATIENCE)?, "a connection");
    lab.restart("oracle")?;
    for daemon in ["oracle", "h1", "h2", "h3"] {
        lab.wait_ready(daemon)?;
    }
    holds(lab).context("with both again")?;
    ensure!(stream.carries(PATIENCE)?, "a connection");
    let groups = lab.json(&["get", "groups", "--vn", "red"])?;
    ensure!(groups.as_array().is_some_and(|all| all.len() == 2), "{groups}");
    // And it goes on: a rule added now is in force soon.
    lab.weft(["group", "add-rule", "web", "--vn", "red", "--rule", "in icmp/8 from 10.0.0.3"])?;
    soon("a rule that was added", || reaches(lab, "red-c", "10.0.0.2"))
}

fn policy(yaml: &str) -> Result<()> {
    let mut lab = TestLab::up(yaml)?;
    lab.settle()?;
    ensure!(ping(&lab, "red-c", "10.0.0.2", 1)?.complete(), "without groups everybody may");
    set(&lab, "client", &["out any to anybody"])?;
    set(&lab, "web", &WEB)?;
    put_in(&lab, "red-a", "client")?;
    put_in(&lab, "red-b", "web")?;
    for (to, from) in [("10.0.0.2", "red-c"), ("fd00::2", "red-c"), ("10.0.0.1", "red-c")] {
        soon("policy takes hold", || !reaches(&lab, from, to))?;
    }
    what_is_allowed_passes(&lab).context("what is allowed")?;
    a_change_cuts_and_keeps(&lab).context("a change")?;
    members_come_and_go(&mut lab).context("members")?;
    restarts_keep_it(&mut lab).context("restarts")?;
    lab.down()
}

#[test]
fn v9_groups_over_an_ipv4_underlay() -> Result<()> {
    policy(THREE_HOSTS)
}

#[test]
fn v9_groups_over_an_ipv6_underlay() -> Result<()> {
    policy(&THREE_HOSTS.replace("ipv4: 192.0.2.0/24", "ipv6: \"2001:db8::/64\""))
}
