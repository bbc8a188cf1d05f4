//! A guest moves from host to host while agents and the Oracle are killed, two hosts do not reach each other, or both
//! claim it: in the end one has it, everybody says so, and nothing has come through to it that its policy refuses
//! (requirements V3 to V5, V9, V10).

use anyhow::{Context as _, Result, ensure};
use std::{
    io::{Read as _, Write as _},
    net::{SocketAddr, TcpListener, TcpStream},
    time::Duration,
};
use weft_e2e::{
    GUEST_IPS, Guest, HOSTS, Ping, THREE_HOSTS, TestLab, frames, guest_states, guest_tsi, part, ping,
};
use weft_lab::{Links, Signal, clock, probe::Stream};

/// red-a's, on h1.
const OTHERS: [&str; 2] = ["10.0.0.1", "fd00::1"];
/// Who is refused, on which host, what it sends to, and how often a second.
const REFUSED: [(&str, &str, u16); 2] = [("red-b", GUEST_IPS[0], 7010), ("red-c", GUEST_IPS[1], 7011)];
const RATE: u32 = 1_000;
/// What is waited for what is to come.
const PATIENCE: Duration = Duration::from_secs(20);

/// A connection that the guest has opened, as its policy allows; what comes in is let in as its answer.
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

    /// Whether what one end says is heard at the other.
    fn carries(&mut self, octet: u8, to_guest: bool) -> Result<bool> {
        let (from, to) =
            if to_guest { (&mut self.other, &mut self.guest) } else { (&mut self.guest, &mut self.other) };
        from.write_all(&[octet])?;
        to.set_read_timeout(Some(PATIENCE))?;
        let mut one = [0];
        Ok(to.read_exact(&mut one).is_ok() && one == [octet])
    }
}

struct Scene {
    lab: TestLab,
    links: Links,
    at: &'static str,
    open: Vec<Connection>,
    refused: Vec<Stream>,
    /// Moves that have ended.
    moves: u8,
}

impl Scene {
    fn begin(yaml: &str) -> Result<Self> {
        let mut lab = TestLab::up(yaml)?;
        lab.settle()?;
        lab.weft(["group", "set", "client", "--vn", "red", "--rule", "out any to anybody"])?;
        let links = Guest::boot(&mut lab, "h2")?.links;
        lab.weft(["tsi", "set-groups", "--vn", "red", "--name", "guest", "--groups", "client"])?;
        let guest = lab.node("guest")?;
        for ip in GUEST_IPS {
            let refused = || ping(&lab, "red-a", ip, 1).is_ok_and(Ping::nothing);
            ensure!(clock::until_true(clock::CEILING, refused), "policy takes hold");
        }
        let open = OTHERS.iter().map(|other| Connection::open(&lab, other)).collect::<Result<_>>()?;
        let refuse = |(from, to, port): &(&str, &str, u16)| {
            Ok(Stream::start_at(&lab.node(from)?, &guest, SocketAddr::new(to.parse()?, *port), RATE)?)
        };
        let refused = REFUSED.iter().map(refuse).collect::<Result<_>>()?;
        let scene = Self { lab, links, at: "h2", open, refused, moves: 0 };
        Ok(scene)
    }

    fn kill(&mut self, daemon: &str) -> Result<()> {
        Ok(self.lab.signal(daemon, Signal::SIGKILL)?)
    }

    /// An operator says where it moves to, and the hypervisor there prepares that; what is known of it has come, too, if
    /// the hosts reach each other.
    fn prepare(&self, to: &str, reached: bool) -> Result<()> {
        let before = self.contexts(to)?;
        self.lab.json(&["tsi", "move", "--vn", "red", "--name", "guest", "--to", to])?;
        guest_tsi(&self.lab, to, "associate", &["--device", "guest", "--explicit"])?;
        let came = || self.contexts(to).is_ok_and(|now| now > before);
        ensure!(!reached || clock::until_true(clock::CEILING, came), "{to} is told nothing");
        Ok(())
    }

    /// How many contexts a host has taken in.
    fn contexts(&self, host: &str) -> Result<u64> {
        let socket = self.lab.files().socket(host);
        let socket = socket.to_str().context("a path that is text")?;
        let all = self.lab.weft_at(host, ["get", "counters", "--socket", socket, "-o", "json"])?;
        let all: serde_json::Value = serde_json::from_str(&all)?;
        let own = all.as_array().context("a list")?.iter().find(|row| row["counter"] == "contexts_taken");
        own.and_then(|row| row["count"].as_u64()).with_context(|| format!("{host} does not count contexts"))
    }

    /// The guest stops here and goes on there.
    fn plug(&mut self, to: &'static str) -> Result<()> {
        let from = std::mem::replace(&mut self.at, to);
        self.links.down(from)?;
        self.links.up(to)?;
        Ok(self.links.wait_running(to)?)
    }

    fn stop(&self, host: &str) -> Result<()> {
        guest_tsi(&self.lab, host, "deactivate", &[]).map(drop)
    }

    fn go_on(&self, host: &str) -> Result<()> {
        guest_tsi(&self.lab, host, "activate", &[]).map(drop)
    }

    /// One has it: all say so. What it had open goes on, and nobody else reaches it. The guest speaks first if what was
    /// known of its connections did not come along.
    fn ends(&mut self, what: &str, host: &str, speaks_first: bool) -> Result<()> {
        self.ended(host, speaks_first).with_context(|| what.to_owned())
    }

    fn ended(&mut self, host: &str, speaks_first: bool) -> Result<()> {
        let owner = || {
            let tsis = self.lab.json(&["get", "tsis"])?;
            let own = tsis
                .as_array()
                .into_iter()
                .flatten()
                .find(|tsi| tsi["tsi"] == "guest" || tsi["name"] == "guest");
            let own = own.with_context(|| format!("no guest in {tsis}"))?;
            let ips = GUEST_IPS.iter().all(|ip| own["ips"].to_string().contains(ip));
            ensure!(ips && own["groups"].to_string().contains("client"), "{own}");
            Ok((own["nve"] == host && own["next"].is_null()).then_some(()))
        };
        ensure!(clock::until(clock::CEILING, owner)?.is_some(), "{}", self.lab.json(&["get", "tsis"])?);
        let wanted: Vec<bool> = HOSTS.iter().map(|other| *other == host).collect();
        let activated = || {
            let states = guest_states(&self.lab)?;
            let there: Vec<bool> = states.iter().map(|state| state.as_deref() == Some("activated")).collect();
            Ok::<_, anyhow::Error>((there == wanted).then_some(()))
        };
        ensure!(clock::until(clock::CEILING, activated)?.is_some(), "{:?}", guest_states(&self.lab)?);
        for (other, state) in HOSTS.iter().zip(guest_states(&self.lab)?) {
            if *other != host && state.is_some() {
                guest_tsi(&self.lab, other, "de-associate", &[])?;
            }
        }
        let wanted: Vec<Option<String>> =
            HOSTS.iter().map(|other| (*other == host).then(|| "activated".to_owned())).collect();
        ensure!(guest_states(&self.lab)? == wanted, "{:?}", guest_states(&self.lab)?);
        self.holds(host, speaks_first)
    }

    /// What is open goes on, and what is refused is.
    fn holds(&mut self, host: &str, speaks_first: bool) -> Result<()> {
        self.moves += 1;
        for (connection, other) in self.open.iter_mut().zip(OTHERS) {
            if speaks_first {
                ensure!(connection.carries(self.moves, false)?, "{other} does not hear the guest at {host}");
            }
            ensure!(connection.carries(self.moves, true)?, "the guest does not hear {other} at {host}");
        }
        // Nobody counts while the agent is dead.
        let denied = || frames(&self.lab, host, "denied").ok();
        let (before, sent) = (denied(), self.sent());
        let more = || {
            let all = self.sent().iter().zip(&sent).all(|(now, before)| *now > before + 20);
            all && before.is_none_or(|before| denied().is_some_and(|now| now > before + 20))
        };
        ensure!(clock::until_true(clock::CEILING, more), "nothing is refused at {host}");
        let through: Vec<u64> = self.refused.iter().map(Stream::received).collect();
        ensure!(through == [0; REFUSED.len()], "{through:?} that its policy refuses came through");
        Ok(())
    }

    fn sent(&self) -> Vec<u64> {
        self.refused.iter().map(Stream::sent).collect()
    }
}

/// Its agent is killed before, or after, the guest has stopped there.
fn the_old_host_dies(scene: &mut Scene, to: &'static str, stopped: bool) -> Result<()> {
    let from = scene.at;
    scene.prepare(to, true)?;
    if stopped {
        scene.plug(to)?;
        scene.stop(from)?;
        scene.kill(from)?;
    } else {
        scene.kill(from)?;
        scene.plug(to)?;
    }
    scene.go_on(to)?;
    scene.holds(to, false).context("while it is dead")?;
    scene.lab.restart(from)?;
    scene.ends("the old host died", to, false)
}

/// What it has prepared it still has; and until it is activated there the guest is where it was.
fn the_new_host_dies(scene: &mut Scene, to: &'static str) -> Result<()> {
    let from = scene.at;
    scene.prepare(to, true)?;
    scene.kill(to)?;
    scene.holds(from, false).context("while it is dead")?;
    scene.lab.restart(to)?;
    let at = |host| HOSTS.iter().position(|h| *h == host).context("a host");
    let states = guest_states(&scene.lab)?;
    ensure!(states[at(from)?].as_deref() == Some("activated"), "{states:?}");
    ensure!(states[at(to)?].as_deref() == Some("associated"), "{states:?}");
    scene.plug(to)?;
    scene.stop(from)?;
    scene.go_on(to)?;
    // And at once again.
    scene.kill(to)?;
    scene.holds(to, false).context("while it is dead")?;
    scene.lab.restart(to)?;
    scene.ends("the new host died", to, false)
}

/// What is another's is not activated without it; when it is back it goes on.
fn the_oracle_dies(scene: &mut Scene, to: &'static str) -> Result<()> {
    let from = scene.at;
    scene.prepare(to, true)?;
    scene.plug(to)?;
    scene.stop(from)?;
    scene.kill("oracle")?;
    let refused = scene.go_on(to).err().context("it is activated without an Oracle")?;
    let text = refused.to_string();
    ensure!(text.contains("none answers") && text.contains("try again"), "{text}");
    scene.lab.restart("oracle")?;
    let activated = clock::until_true(clock::CEILING, || scene.go_on(to).is_ok());
    ensure!(activated, "{:?}", scene.go_on(to));
    scene.ends("the Oracle died", to, false)
}

/// Of what only the old host knows nothing comes along.
fn they_do_not_reach_each_other(scene: &mut Scene, to: &'static str) -> Result<()> {
    let from = scene.at;
    let before = scene.contexts(to)?;
    part(&scene.lab, [from, to], true)?;
    scene.prepare(to, false)?;
    scene.plug(to)?;
    scene.stop(from)?;
    scene.go_on(to)?;
    part(&scene.lab, [from, to], false)?;
    ensure!(scene.contexts(to)? == before, "{to} was told by {from}");
    scene.ends("they did not reach each other", to, true)
}

/// Two hypervisors run it; a third host would have it, too.
fn both_claim_it(scene: &mut Scene, to: &'static str) -> Result<()> {
    let from = scene.at;
    scene.prepare(to, true)?;
    scene.plug(to)?;
    let (one, other) = std::thread::scope(|both| {
        let one = both.spawn(|| scene.go_on(from));
        let other = both.spawn(|| scene.go_on(to));
        (one.join(), other.join())
    });
    for (host, done) in [(from, one), (to, other)] {
        done.map_err(|_| anyhow::anyhow!("the call at {host} ended early"))?.or_else(|refused| {
            // It may have heard of the other one before.
            if host == from { Ok(()) } else { Err(refused) }
        })?;
    }
    let third = HOSTS.into_iter().find(|host| *host != from && *host != to).context("a third host")?;
    let refused = guest_tsi(&scene.lab, third, "associate", &["--device", "guest"]);
    let text = format!("{:#}", refused.err().context("a third host takes it")?);
    ensure!(text.contains("is granted to NVE"), "{text}");
    let claims = scene.lab.json(&["get", "duplicates", "--vn", "red"])?;
    let named = |row: &serde_json::Value| row["tsi"] == "guest" && row["claimant_name"] == third;
    ensure!(claims.as_array().context("a list")?.iter().any(named), "{claims}");
    scene.ends("both claimed it", to, false)?;
    let refused = scene.go_on(from).err().context("it is activated where it is no more")?;
    ensure!(format!("{refused:#}").contains("not attached"), "{refused:#}");
    Ok(())
}

fn whatever_breaks(yaml: &str) -> Result<()> {
    let mut scene = Scene::begin(yaml)?;
    scene.holds("h2", false).context("before")?;
    the_old_host_dies(&mut scene, "h3", false)?;
    the_old_host_dies(&mut scene, "h1", true)?;
    the_new_host_dies(&mut scene, "h2")?;
    the_oracle_dies(&mut scene, "h3")?;
    they_do_not_reach_each_other(&mut scene, "h1")?;
    both_claim_it(&mut scene, "h2")?;
    let Scene { lab, refused, .. } = scene;
    refused.into_iter().for_each(Stream::cancel);
    lab.down()
}

#[test]
fn v4_a_move_ends_at_one_host_whatever_breaks() -> Result<()> {
    whatever_breaks(THREE_HOSTS)
}

#[test]
fn v4_over_an_ipv6_underlay_too() -> Result<()> {
    whatever_breaks(&THREE_HOSTS.replace("ipv4: 192.0.2.0/24", "ipv6: \"2001:db8::/64\""))
}
