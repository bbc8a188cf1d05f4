//! Virtual machines that QEMU moves between hosts while they run (requirements V1 to V5, V8, H2, H3, H5): whatever
//! they had open stays open, and a move that fails leaves them where they were.

use anyhow::{Context as _, Result, ensure};
use std::{
    net::{IpAddr, SocketAddr},
    time::Duration,
};
use weft_e2e::TestLab;
use weft_lab::{
    LabError, MigrationLimits, ProcessId, Signal, capture::Capture, clock, echo::Echoes, numbers::Numbers,
};

/// The machine echoes here.
const ECHO: u16 = 7;
/// Echo requests a second, and how many more are looked at after the first.
const RATE: u32 = 100;
const MORE: u64 = 20;
const HOSTS: [&str; 4] = ["h1", "h2", "h3", "h4"];
const TARGETS: [&str; 2] = ["10.0.0.9", "fd00::9"];
const LAB: &str = "
name: vms
underlay: { ipv4: 192.0.2.0/24 }
oracles: { oracle: {} }
hosts: { h1: {}, h2: {}, h3: {}, h4: {} }
vns: { red: { subnets: [10.0.0.0/24, 'fd00::/64'] } }
tenants:
  red-b: { host: h2, vn: red, ips: [10.0.0.2, 'fd00::2'] }
  red-d: { host: h4, vn: red, ips: [10.0.0.4, 'fd00::4'] }
  red-vm: { host: h1, vn: red, ips: [10.0.0.9, 'fd00::9'], device: vm }
";

/// What two tenant systems on other hosts have going on with the machine.
struct Talk {
    echoes: Vec<Echoes>,
    open: Vec<Numbers>,
}

impl Talk {
    fn start(lab: &TestLab) -> Result<Self> {
        let (mut echoes, mut open) = (Vec::new(), Vec::new());
        for from in ["red-b", "red-d"] {
            for target in TARGETS {
                let target: IpAddr = target.parse()?;
                echoes.push(Echoes::start(&lab.node(from)?, target, RATE)?);
                open.push(Numbers::open(&lab.node(from)?, SocketAddr::new(target, ECHO), Duration::ZERO)?);
            }
        }
        ensure!(clock::until_true(clock::CEILING, || echoes.iter().all(|echoes| echoes.answers() > 0)));
        Ok(Self { echoes, open })
    }

    /// An echo request from now on is answered, then every one is, and every connection goes on. Until the first answer has
    /// come the machine's new NVE may not know where the tenants are that it answers to; few of these frames wait.
    fn goes_on(&self, what: &str) -> Result<()> {
        for echoes in &self.echoes {
            echoes.first_answered(echoes.next(), 0)?;
        }
        let numbers: Vec<u64> = self.echoes.iter().map(Echoes::next).collect();
        for (echoes, number) in self.echoes.iter().zip(&numbers) {
            let first = echoes.first_answered(*number, MORE)?;
            ensure!(first == *number, "{what}: of requests from {number} on the first answered is {first}");
        }
        ensure!(self.open.iter().all(Numbers::goes_on), "{what}: a connection has stalled");
        Ok(())
    }

    fn end(self) -> Result<()> {
        for open in self.open {
            ensure!(open.end()? > 0, "nothing came back");
        }
        for echoes in self.echoes {
            let (sent, answers) = echoes.stop();
            ensure!(answers as u64 <= sent, "{answers} answers to {sent} requests");
            ensure!(answers as u64 > sent / 2, "{answers} answers to {sent} requests");
        }
        Ok(())
    }
}

/// The machine is `host`'s at every NVE and at the Oracle.
fn only_at(lab: &TestLab, host: &str) -> Result<()> {
    for other in HOSTS {
        let socket = lab.files().socket(other);
        let socket = socket.to_str().context("a path that is text")?;
        let all = lab.weft_at(other, ["tsi", "list", "--socket", socket, "-o", "json"])?;
        let all: serde_json::Value = serde_json::from_str(&all)?;
        let own = all.as_array().context("a list")?.iter().find(|tsi| tsi["tsi"] == "red-vm");
        let state = own.and_then(|tsi| tsi["state"].as_str());
        ensure!(state == (other == host).then_some("activated"), "{other}: {state:?}");
    }
    let at_oracle = clock::until(clock::CEILING, || {
        let tsis = lab.json(&["get", "tsis"])?;
        let own = tsis.as_array().into_iter().flatten().find(|tsi| tsi["name"] == "red-vm");
        Ok::<_, anyhow::Error>(own.filter(|own| own["nve"] == host).map(|_| ()))
    })?;
    ensure!(at_oracle.is_some(), "{:?}", lab.json(&["get", "tsis"])?);
    Ok(())
}

/// How many QEMUs of the machine there are: one, unless it moves.
fn machines(lab: &TestLab) -> usize {
    let daemons = &lab.record().daemons;
    daemons.iter().filter(|(name, what)| name.starts_with("red-vm.") && what.id.alive()).count()
}

fn around(text: &str) -> Result<()> {
    let mut lab = TestLab::up(text)?;
    lab.settle()?;
    // Its own programs, and what they say.
    let output = lab.exec("red-vm", &["sh", "-c", "hostname; echo $0 >&2; exit 7", "it's"])?;
    ensure!(output.status.code() == Some(7) && output.stdout == b"red-vm\n", "{output:?}");
    ensure!(output.stderr == b"it's\n", "{output:?}");
    lab.exec("red-vm", &["sh", "-c", "printf here >/tmp/mark"])?;
    let capture = Capture::underlay(&lab, "vms")?;
    let talk = Talk::start(&lab)?;
    for to in ["h2", "h3", "h1"] {
        let moved = lab.migrate("red-vm", to, MigrationLimits::default(), &mut |_| {})?;
        talk.goes_on(&format!("{moved:?}"))?;
        ensure!(moved.left.is_empty(), "{moved:?}");
        only_at(&lab, to)?;
        ensure!(machines(&lab) == 1, "{:?}", lab.record().daemons);
    }
    talk.end()?;
    let counts = capture.stop()?.counts();
    ensure!(counts.flooded() == 0, "{counts:?}");
    // It has been the same machine all along.
    let output = lab.exec("red-vm", &["cat", "/tmp/mark"])?;
    ensure!(output.stdout == b"here", "{output:?}");
    let output = lab.exec("red-vm", &["ping", "-c", "3", "10.0.0.4"])?;
    ensure!(output.status.success(), "{output:?}");
    lab.down()
}

#[test]
fn v8_a_virtual_machine_moves_from_host_to_host_and_nothing_breaks() -> Result<()> {
    around(LAB)
}

#[test]
fn v8_over_an_ipv6_underlay_too() -> Result<()> {
    around(&LAB.replace("ipv4: 192.0.2.0/24", "ipv6: '2001:db8::/64'"))
}

#[test]
fn v8_a_move_that_fails_leaves_the_machine_where_it_was() -> Result<()> {
    let mut lab = TestLab::up(LAB)?;
    lab.settle()?;
    let talk = Talk::start(&lab)?;
    // Whoever is asked whether to go on ends the QEMU that waits at h3: its record says which it is.
    let record = lab.files().run.join("lab.json");
    let end_target = || {
        let text = std::fs::read(&record).unwrap_or_default();
        let all: serde_json::Value = serde_json::from_slice(&text).unwrap_or_default();
        let id = serde_json::from_value::<ProcessId>(all["daemons"]["red-vm.h3"]["id"].clone());
        // The migration's own account of it is what is looked at.
        let _ = id.map(|id| id.signal(Signal::SIGKILL));
        false
    };
    let at_once = MigrationLimits { within: Duration::ZERO, ..MigrationLimits::default() };
    let called_off = MigrationLimits { stop: &|| true, ..MigrationLimits::default() };
    let ended = MigrationLimits { stop: &end_target, ..MigrationLimits::default() };
    lab.signal("h2", Signal::SIGKILL)?;
    for (to, limits, why) in [
        ("h3", at_once, "did not happen within"),
        ("h3", called_off, "called off"),
        ("h3", ended, "QEMU"),
        ("h2", MigrationLimits::default(), "/v1/tsis"),
    ] {
        let failed = lab.migrate("red-vm", to, limits, &mut |_| {});
        let error = failed.err().with_context(|| format!("{why}: it moved"))?;
        ensure!(matches!(error, LabError::NotMigrated { .. }), "{error}");
        let text = error.to_string();
        ensure!(text.starts_with("red-vm stays on h1: ") && text.contains(why), "{text}");
        ensure!(!text.contains('\n'), "{text}");
        talk.goes_on(why)?;
        ensure!(machines(&lab) == 1, "{:?}", lab.record().daemons);
        ensure!(lab.record().spec.tenants["red-vm"].host.as_str() == "h1", "{why}");
    }
    lab.restart("h2")?;
    only_at(&lab, "h1")?;
    // Nothing is in the way of the next one.
    lab.migrate("red-vm", "h2", MigrationLimits::default(), &mut |_| {})?;
    talk.goes_on("after all")?;
    only_at(&lab, "h2")?;
    talk.end()?;
    lab.down()
}
