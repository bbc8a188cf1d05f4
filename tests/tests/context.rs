//! What only the old host knows of a guest goes along when it moves (requirements V2, V3, V7).

use anyhow::{Context as _, Result, ensure};
use std::{
    io::{Read as _, Write as _},
    net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream, UdpSocket},
    time::Duration,
};
use weft_e2e::{GUEST_IPS, Guest, Ping, THREE_HOSTS, TestLab, eid, frames, ping};
use weft_lab::{Signal, clock};

/// red-a's, on h1.
const OTHERS: [&str; 2] = ["10.0.0.1", "fd00::1"];
/// What is waited for what is to come.
const PATIENCE: Duration = Duration::from_secs(10);
const GROUP4: Ipv4Addr = Ipv4Addr::new(239, 1, 2, 3);
const GROUP6: Ipv6Addr = Ipv6Addr::new(0xff15, 0, 0, 0, 0, 0, 0, 0x123);

/// What a host's NVE shows.
fn shown(lab: &TestLab, host: &str, what: &str) -> Result<Vec<serde_json::Value>> {
    let socket = lab.files().socket(host);
    let socket = socket.to_str().context("a path that is text")?;
    let text = lab.weft_at(host, ["get", what, "--socket", socket, "-o", "json"])?;
    Ok(serde_json::from_str(&text)?)
}

fn count(lab: &TestLab, host: &str, counter: &str) -> Result<u64> {
    let all = shown(lab, host, "counters")?;
    let own = all.iter().find(|row| row["counter"] == counter);
    own.and_then(|row| row["count"].as_u64()).with_context(|| format!("{host} has no counter {counter}"))
}

/// Waits until a host has counted so many.
fn until_counted(lab: &TestLab, host: &str, counter: &str, wanted: u64) -> Result<()> {
    let seen = clock::until(clock::CEILING, || {
        Ok::<_, anyhow::Error>((count(lab, host, counter)? >= wanted).then_some(()))
    })?;
    seen.with_context(|| format!("{host}: {counter} is {:?}, not {wanted}", count(lab, host, counter)))
}

fn knows(lab: &TestLab, host: &str) -> Result<usize> {
    let all = shown(lab, host, "mappings")?;
    Ok(all.iter().filter(|row| eid(row).is_some_and(|eid| OTHERS.contains(&eid))).count())
}

/// The guest's link is moved from one host to the other.
fn plug(guest: &mut Guest<'_>, to: &'static str) -> Result<()> {
    let from = std::mem::replace(&mut guest.at, to);
    guest.links.down(from)?;
    guest.links.up(to)?;
    Ok(guest.links.wait_running(to)?)
}

/// The guest's rate: 20 echo requests are less than there may be at once, and more than comes in while it moves.
fn limit(lab: &TestLab, rate: &str) -> Result<()> {
    let words = ["tsi", "set", "--vn", "red", "--name", "guest", "--tunnel-send-rate", rate];
    lab.weft([&words[..], &["--tunnel-send-burst", "2500"]].concat())?;
    Ok(())
}

/// Whether some of 20 echo requests of the guest's are too many at this host.
fn is_over_its_rate(lab: &TestLab, host: &str) -> bool {
    let lost = !ping(lab, "guest", OTHERS[0], 20).is_ok_and(Ping::complete);
    lost && frames(lab, host, "rate-limited").is_ok_and(|frames| frames > 0)
}

fn in_use(yaml: &str) -> Result<()> {
    let mut lab = TestLab::up(yaml)?;
    lab.settle()?;
    let mut guest = Guest::boot(&mut lab, "h2")?;
    for other in OTHERS {
        ensure!(ping(guest.lab, "guest", other, 2)?.complete(), "the guest does not reach {other} from h2");
    }
    ensure!(knows(guest.lab, "h2")? == 2);
    ensure!(knows(guest.lab, "h3")? == 0, "nobody there has asked");
    guest.lab.json(&["tsi", "move", "--vn", "red", "--name", "guest", "--to", "h3"])?;
    guest.tsi("h3", "associate", &["--device", "guest", "--explicit"])?;
    until_counted(guest.lab, "h3", "contexts_taken", 1)?;
    let known = clock::until(clock::CEILING, || {
        Ok::<_, anyhow::Error>((knows(guest.lab, "h3")? == 2).then_some(()))
    })?;
    ensure!(known.is_some(), "{:?}", shown(guest.lab, "h3", "mappings")?);
    // Nothing has gone out yet.
    let before = count(guest.lab, "h3", "map_requests")?;
    limit(guest.lab, "1kbit")?;
    ensure!(clock::until_true(clock::CEILING, || is_over_its_rate(guest.lab, "h2")), "what it may send");
    plug(&mut guest, "h3")?;
    guest.links.flush_neighbours("eth0")?;
    guest.tsi("h2", "deactivate", &[])?;
    guest.tsi("h3", "activate", &[])?;
    ensure!(is_over_its_rate(guest.lab, "h3"), "what it had sent from h2 it may send from h3 once more");
    limit(guest.lab, "unlimited")?;
    for other in OTHERS {
        let all = || ping(guest.lab, "guest", other, 2).is_ok_and(Ping::complete);
        ensure!(clock::until_true(clock::CEILING, all), "the guest does not reach {other} from h3");
    }
    let after = count(guest.lab, "h3", "map_requests")?;
    ensure!(after == before, "{} questions were asked from Activate on", after - before);
    // It has gone from h2, which has nothing more to say.
    until_counted(guest.lab, "h2", "contexts_handed", 1)?;
    ensure!(count(guest.lab, "h3", "contexts_failed")? == 0);
    drop(guest);
    lab.down()
}

#[test]
fn v2_what_a_guest_talks_to_is_known_where_it_goes_on() -> Result<()> {
    in_use(THREE_HOSTS)
}

#[test]
fn v2_over_an_ipv6_underlay_too() -> Result<()> {
    in_use(&THREE_HOSTS.replace("ipv4: 192.0.2.0/24", "ipv6: \"2001:db8::/64\""))
}

/// How many of the guest's groups somebody at a host wants.
fn wanted(lab: &TestLab, host: &str) -> Result<usize> {
    let groups = [GROUP4.to_string(), GROUP6.to_string()];
    let all = shown(lab, host, "multicast")?;
    let its =
        |row: &&serde_json::Value| groups.iter().any(|group| row["group"] == **group) && row["here"] == 1;
    Ok(all.iter().filter(its).count())
}

/// It cannot say anew what it wants: its link is not plugged in yet.
#[test]
fn v7_the_groups_of_a_guest_go_along() -> Result<()> {
    let yaml =
        THREE_HOSTS.replacen("    learning: oracle\n", "    learning: oracle\n    bum: replicate\n", 1);
    let mut lab = TestLab::up(&yaml)?;
    lab.settle()?;
    let guest = Guest::boot(&mut lab, "h2")?;
    // A switch that listens hands reports to those only that it has heard ask.
    let deaf = ["ip", "link", "set", "switch", "type", "bridge", "mcast_snooping", "0"];
    let done = guest.lab.exec("guest", &deaf)?;
    ensure!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    let inside = guest.links.namespace();
    let _joined = inside.run(|| -> Result<_> {
        let (v4, v6) = (UdpSocket::bind(("0.0.0.0", 7117))?, UdpSocket::bind(("::", 7118))?);
        v4.join_multicast_v4(&GROUP4, &GUEST_IPS[0].parse()?)?;
        v6.join_multicast_v6(&GROUP6, 0)?;
        Ok((v4, v6))
    })??;
    let joined = clock::until(clock::CEILING, || {
        Ok::<_, anyhow::Error>((wanted(guest.lab, "h2")? == 2).then_some(()))
    })?;
    ensure!(joined.is_some(), "{:?}", shown(guest.lab, "h2", "multicast")?);
    guest.lab.json(&["tsi", "move", "--vn", "red", "--name", "guest", "--to", "h3"])?;
    guest.tsi("h3", "associate", &["--device", "guest"])?;
    until_counted(guest.lab, "h3", "contexts_taken", 1)?;
    guest.links.down("h2")?;
    guest.tsi("h2", "deactivate", &[])?;
    guest.tsi("h3", "activate", &[])?;
    let moved = clock::until(clock::CEILING, || {
        Ok::<_, anyhow::Error>((wanted(guest.lab, "h3")? == 2).then_some(()))
    })?;
    ensure!(moved.is_some(), "{:?}", shown(guest.lab, "h3", "multicast")?);
    drop(guest);
    lab.down()
}

/// A connection of the guest's, whose policy lets nothing in that it has not asked for.
struct Connection {
    guest: TcpStream,
    other: TcpStream,
}

impl Connection {
    fn open(lab: &TestLab, other: &str) -> Result<Self> {
        let at = SocketAddr::new(other.parse()?, 8080);
        let listener = lab.node("red-a")?.run(|| TcpListener::bind(at))??;
        let guest = lab.node("guest")?.run(|| TcpStream::connect_timeout(&at, PATIENCE))??;
        Ok(Self { guest, other: listener.accept()?.0 })
    }

    /// Whether what the other end says is heard, though the guest has said nothing since.
    fn is_heard(&mut self, octet: u8) -> Result<bool> {
        self.other.write_all(&[octet])?;
        self.guest.set_read_timeout(Some(PATIENCE))?;
        let mut one = [0];
        Ok(self.guest.read_exact(&mut one).is_ok() && one == [octet])
    }
}

fn goes_on(yaml: &str) -> Result<()> {
    let mut lab = TestLab::up(yaml)?;
    lab.settle()?;
    lab.weft(["group", "set", "client", "--vn", "red", "--rule", "out any to anybody"])?;
    let mut guest = Guest::boot(&mut lab, "h2")?;
    guest.lab.weft(["tsi", "set-groups", "--vn", "red", "--name", "guest", "--groups", "client"])?;
    let refused = |guest: &Guest<'_>, ip: &str| ping(guest.lab, "red-a", ip, 1).is_ok_and(Ping::nothing);
    for ip in GUEST_IPS {
        ensure!(clock::until_true(clock::CEILING, || refused(&guest, ip)), "policy takes hold");
    }
    let opened = OTHERS.iter().map(|other| Connection::open(guest.lab, other));
    let mut connections = opened.collect::<Result<Vec<_>>>()?;
    for connection in &mut connections {
        ensure!(connection.is_heard(1)?, "before");
    }
    guest.migrate("h3", true)?;
    for connection in &mut connections {
        ensure!(connection.is_heard(2)?, "it is no connection any more where the guest has gone");
    }
    for ip in GUEST_IPS {
        ensure!(refused(&guest, ip), "nobody may ask it there either");
    }
    ensure!(count(guest.lab, "h3", "contexts_taken")? == 1);
    // In another order: it is stopped, its device goes along, and only then is said where it moves to.
    guest.tsi("h3", "deactivate", &[])?;
    let gone = guest.lab.exec("h3", &["ip", "link", "delete", "guest"])?;
    ensure!(gone.status.success(), "{}", String::from_utf8_lossy(&gone.stderr));
    let noticed =
        || shown(guest.lab, "h3", "tsis").is_ok_and(|all| all.iter().any(|tsi| tsi["device"] == ""));
    ensure!(clock::until_true(clock::CEILING, noticed), "{:?}", shown(guest.lab, "h3", "tsis")?);
    guest.lab.json(&["tsi", "move", "--vn", "red", "--name", "guest", "--to", "h2"])?;
    guest.tsi("h2", "associate", &["--device", "guest"])?;
    guest.links.up("h2")?;
    guest.links.wait_running("h2")?;
    guest.tsi("h2", "activate", &[])?;
    guest.at = "h2";
    for connection in &mut connections {
        ensure!(connection.is_heard(3)?, "its connections have not come along");
    }
    for ip in GUEST_IPS {
        ensure!(refused(&guest, ip), "nobody may ask it there");
    }
    drop(guest);
    lab.down()
}

#[test]
fn v3_connections_go_on_under_a_policy_that_only_lets_answers_in() -> Result<()> {
    goes_on(THREE_HOSTS)
}

#[test]
fn v3_connections_go_on_over_an_ipv6_underlay() -> Result<()> {
    goes_on(&THREE_HOSTS.replace("ipv4: 192.0.2.0/24", "ipv6: \"2001:db8::/64\""))
}

/// Nor does a host that is gone hold up a move.
#[test]
fn v9_a_guest_moves_from_a_host_whose_agent_is_gone() -> Result<()> {
    let mut lab = TestLab::up(THREE_HOSTS)?;
    lab.settle()?;
    {
        let guest = Guest::boot(&mut lab, "h2")?;
        ensure!(ping(guest.lab, "guest", OTHERS[0], 2)?.complete());
    }
    lab.signal("h2", Signal::SIGKILL)?;
    lab.json(&["tsi", "move", "--vn", "red", "--name", "guest", "--to", "h3"])?;
    let socket = lab.files().socket("h3");
    let socket = socket.to_str().context("a path that is text")?;
    let words = ["--vn", "red", "--name", "guest", "--socket", socket, "-o", "json"];
    lab.weft_at("h3", [&["tsi", "associate", "--device", "guest"][..], &words].concat())?;
    until_counted(&lab, "h3", "contexts_failed", 1)?;
    lab.weft_at("h3", [&["tsi", "activate"][..], &words].concat())?;
    ensure!(count(&lab, "h3", "contexts_taken")? == 0);
    lab.down()
}
