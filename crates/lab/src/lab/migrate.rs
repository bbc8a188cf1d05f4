//! Live migration of a virtual machine: QEMU moves it, and around that each NVE is told what RFC 8394 has a hypervisor
//! tell it (section 2.3; requirements V1, V3, V4, V8, H3, H5).
//!
//! ```text
//!   h2: TAP, QEMU that waits -> Oracle: it moves to h2 -> h2: Associate
//!     -> QEMU sends memory while the machine runs on h1
//!     -> it stops on h1 -> h1: Deactivate -> it goes on on h2 -> h2: Activate -> h1: De-Associate, QEMU ends
//! ```
//!
//! Whatever fails before the machine runs on h2 leaves it on h1, as it was.

use super::{
    Lab,
    back::{Machines, go_back},
};
use crate::{
    clock, commands,
    error::LabError,
    record::{Record, TenantState},
    spec::{NodeName, TenantSpec},
    tenant,
    vm::qmp::Qmp,
};
use serde::Serialize;
use serde_json::{Value, json};
use std::{
    net::IpAddr,
    time::{Duration, Instant},
};

/// How long QEMU may stop the machine to send the rest, ms: it stops it when it thinks that this suffices.
const DOWNTIME: u32 = 100;
/// Octets a second: a lab's wires have no other limit.
const BANDWIDTH: u64 = 1 << 30;
/// How long an event is waited for before QEMU is asked how far it is.
const STEP: Duration = Duration::from_millis(50);
/// How often people are told.
const TELL: Duration = Duration::from_secs(1);

/// When a migration is called off.
#[derive(Clone, Copy)]
pub struct MigrationLimits<'a> {
    /// The longest it may take until the machine stops where it was.
    pub within: Duration,
    /// Asked now and then: whether somebody has changed their mind.
    pub stop: &'a dyn Fn() -> bool,
}

impl Default for MigrationLimits<'_> {
    fn default() -> Self {
        Self { within: Duration::from_secs(120), stop: &|| false }
    }
}

/// What a migration took.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Migration {
    /// The machine.
    pub vm: String,
    /// Where it was.
    pub from: String,
    /// Where it is.
    pub to: String,
    /// From the first step to the last, ms.
    pub total_ms: f64,
    /// How long QEMU says that the machine was stopped, ms.
    pub downtime_ms: f64,
    /// From its stop where it was until it went on where it moved to, as both QEMUs said it, ms.
    pub stopped_ms: f64,
    /// From the answer to Deactivate to that to Activate, ms: nothing passes in between.
    pub closed_ms: f64,
    /// Octets of memory and state that were sent.
    pub transferred: u64,
    /// What could not be taken away where it was, for example because that host's agent is dead.
    pub left: Vec<String>,
}

/// For how long a machine that moved did not run, and its VAPs passed nothing.
struct Pause {
    stopped: Duration,
    closed: Duration,
}

/// What moves where.
struct Course {
    tenant: NodeName,
    from: TenantSpec,
    to: TenantSpec,
    state: TenantState,
}

/// The QEMUs of a machine on two hosts of a lab.
struct Ends<'a> {
    lab: &'a mut Lab,
    name: &'a str,
    from: &'a str,
    to: &'a str,
}

impl Machines for Ends<'_> {
    fn end_there(&mut self) -> Result<(), LabError> {
        self.lab.end_vm(self.name, self.to)
    }

    fn cancel_here(&mut self) -> Result<(), LabError> {
        self.lab.cancel(self.name, self.from)
    }

    fn go_on_here(&mut self) -> Result<(), LabError> {
        self.lab.go_on(self.name, self.from)
    }
}

/// How far it is: what is to be put back.
#[derive(Clone, Copy, Default)]
struct Done {
    named: bool,
    associated: bool,
    moving: bool,
    deactivated: bool,
    /// The machine runs where it moves to: there is no way back.
    moved: bool,
}

impl Lab {
    /// Moves the virtual machine `name`, which goes on running, to `host`. What it had open stays open.
    ///
    /// # Errors
    /// Why it stays where it is; or that it runs on `host` and its NVE does not activate it.
    pub fn migrate(
        &mut self,
        name: &str,
        host: &str,
        limits: MigrationLimits<'_>,
        progress: super::Progress<'_>,
    ) -> Result<Migration, LabError> {
        let _lock = self.root.lock(&self.record.name)?;
        // What another command has changed since.
        if let Some(record) = Record::load(&self.root, &self.record.name)? {
            self.record = record;
        }
        let course = self.course(name, host)?;
        let begun = clock::now();
        let mut done = Done::default();
        // What an earlier one left that was killed.
        self.clear_vm(name, host)?;
        match self.carry(&course, limits, progress, &mut done) {
            Ok((pause, source)) => self.leave(&course, source, &pause, begun),
            Err(why) if done.moved => {
                self.settle_at(&course)?;
                Err(LabError::NotActivated {
                    vm: name.to_owned(),
                    host: host.to_owned(),
                    vn: course.to.vn,
                    why: Box::new(why),
                })
            }
            Err(why) => {
                progress("putting everything back");
                let left = self.put_back(&course, done);
                Err(LabError::NotMigrated {
                    vm: name.to_owned(),
                    host: course.from.host.to_string(),
                    why: Box::new(why),
                    left: left.iter().map(|error| format!("; {error}")).collect(),
                })
            }
        }
    }

    fn course(&self, name: &str, host: &str) -> Result<Course, LabError> {
        let (tenant, from) = self.spec_of(name)?;
        let state = self.tenant(name)?.clone();
        if !self.is_vm(name) {
            return Err(
                self.wrong(format!("{name} is no virtual machine: give it 'device: vm' to migrate it"))
            );
        }
        if self.record.weft.is_none() {
            return Err(self.wrong("it was brought up without Weft".to_owned()));
        }
        if from.host.as_str() == host {
            return Err(self.wrong(format!("{name} is on {host} already")));
        }
        let hosts = || self.record.spec.hosts.iter().filter(|(_, host)| host.nve).map(|(name, _)| name);
        let Some(to) = hosts().find(|name| name.as_str() == host).cloned() else {
            let all: Vec<&str> = hosts().map(NodeName::as_str).collect();
            return Err(self.wrong(format!("{host} is no host with an NVE: there are {}", all.join(", "))));
        };
        // It keeps what it was granted.
        let ips = state.ips.iter().map(ipnet::IpNet::addr).collect();
        let to = TenantSpec { host: to, mac: Some(state.mac), ips, ..from.clone() };
        Ok(Course { tenant, from, to, state })
    }

    /// Everything until the machine is activated where it moves to: for how long it was not, and its old QEMU.
    fn carry(
        &mut self,
        course: &Course,
        limits: MigrationLimits<'_>,
        progress: super::Progress<'_>,
        done: &mut Done,
    ) -> Result<(Pause, Qmp), LabError> {
        let Course { tenant: name, from, to, state } = course;
        let (vn, name) = (from.vn.as_str(), name.as_str());
        let mut source = self.qmp(name, from.host.as_str())?;
        let status = source.run("query-status", json!({}))?;
        if status["running"] != true {
            return Err(vm_error(name, format!("it does not run but is {}", status["status"])));
        }
        progress(&format!("a TAP and a QEMU for {name} on {}", to.host));
        tenant::plug(&self.node(to.host.as_str())?, None, name, to.device)?;
        self.start_vm(&course.tenant, &to.host, state, true)?;
        let mut target = self.qmp(name, to.host.as_str())?;
        let events = json!({"capabilities": [{"capability": "events", "state": true}]});
        for qemu in [&mut source, &mut target] {
            qemu.run("migrate-set-capabilities", events.clone())?;
        }
        let uri = listen(name, &mut target, self.rloc(to.host.as_str())?)?;
        progress(&format!("it moves to {}: Associate there", to.host));
        // The answers may be lost: what was asked for is put back as well.
        done.named = true;
        self.name_next(name, vn, Some(to.host.as_str()))?;
        done.associated = true;
        self.ask_associate(name, name, to)?;
        source
            .run("migrate-set-parameters", json!({"downtime-limit": DOWNTIME, "max-bandwidth": BANDWIDTH}))?;
        done.moving = true;
        source.run("migrate", json!({ "uri": uri }))?;
        let stopped = until_stopped(name, &mut source, limits, progress)?;
        done.deactivated = true;
        if let Err(error) = self.ask_deactivate(name, vn, from.host.as_str()) {
            // Its NVE may be what it moves away from: Activate by who is next wins (V10).
            progress(&format!("{} is not told that it stopped there: {error}", from.host));
        }
        let closed = clock::now();
        let resumed = until_resumed(name, &mut source, &mut target)?;
        done.moved = true;
        // No way back: an Oracle that is about to come back is waited for.
        let mut last = None;
        let activated = clock::until(clock::CEILING, || {
            let answer = self.ask_activate(name, vn, to.host.as_str());
            Ok::<_, LabError>(answer.map_err(|error| last = Some(error)).ok())
        })?;
        match (activated, last) {
            (None, Some(error)) => Err(error),
            _ => Ok((Pause { stopped: resumed.saturating_sub(stopped), closed: closed.elapsed() }, source)),
        }
    }

    /// The machine is where it moved to; nothing stays where it was.
    fn leave(
        &mut self,
        course: &Course,
        mut source: Qmp,
        pause: &Pause,
        begun: Instant,
    ) -> Result<Migration, LabError> {
        let (name, host) = (course.tenant.as_str(), course.from.host.as_str());
        self.settle_at(course)?;
        let mut sent = Value::Null;
        let mut left = Vec::new();
        let counted = Self::soon("QEMU's account of the migration", || {
            sent = source.run("query-migrate", json!({}))?;
            Ok((sent["status"] == "completed").then_some(()))
        });
        left.extend(counted.err());
        drop(source);
        let detach = commands::tsi_detach(&self.files, name, &course.from);
        left.extend(self.weft_at(host, detach).err());
        left.extend(self.clear_vm(name, host).err());
        Ok(Migration {
            vm: name.to_owned(),
            from: host.to_owned(),
            to: course.to.host.to_string(),
            total_ms: milliseconds(begun.elapsed()),
            downtime_ms: sent["downtime"].as_f64().unwrap_or_default(),
            stopped_ms: milliseconds(pause.stopped),
            closed_ms: milliseconds(pause.closed),
            transferred: sent["ram"]["transferred"].as_u64().unwrap_or_default(),
            left: left.iter().map(ToString::to_string).collect(),
        })
    }

    /// Writes down where it is.
    fn settle_at(&mut self, course: &Course) -> Result<(), LabError> {
        self.record.spec.tenants.insert(course.tenant.clone(), course.to.clone());
        self.record.save(&self.root)
    }

    /// The machine goes on where it was. Gives what could not be put back.
    fn put_back(&mut self, course: &Course, done: Done) -> Vec<LabError> {
        let (name, vn) = (course.tenant.as_str(), course.from.vn.as_str());
        let (from, to) = (course.from.host.as_str(), course.to.host.as_str());
        let mut left = match go_back(&mut Ends { lab: self, name, from, to }, done.moving) {
            Ok(left) => left,
            // Nor is anything else put back: it is for people to look whether it runs there.
            Err(error) => {
                let what = format!(
                    "it may run on {to}, where it could not be ended, and is left stopped on {from}; end its QEMU on {to}, \
                     then have the one on {from} go on (QMP: cont)"
                );
                return vec![error, vm_error(name, what)];
            }
        };
        if done.named {
            left.extend(self.name_next(name, vn, None).err());
        }
        if done.deactivated {
            left.extend(self.ask_activate(name, vn, from).err());
        }
        if done.associated {
            let detach = commands::tsi_detach(&self.files, name, &course.to);
            // That it was never associated is what is wanted.
            let gone = self.weft_at(to, detach).err();
            left.extend(gone.filter(|error| !error.to_string().contains("not attached")));
        }
        left.extend(self.clear_vm(name, to).err());
        left
    }

    fn cancel(&self, name: &str, host: &str) -> Result<(), LabError> {
        let mut source = self.qmp(name, host)?;
        source.run("migrate_cancel", json!({}))?;
        Self::soon("the end of a migration that was called off", || {
            let status = source.run("query-migrate", json!({}))?;
            Ok(ended(&status).then_some(()))
        })
    }

    /// QEMU goes on by itself when a migration fails; not when only the other end did.
    fn go_on(&self, name: &str, host: &str) -> Result<(), LabError> {
        let mut source = self.qmp(name, host)?;
        if source.run("query-status", json!({}))?["running"] != true {
            source.run("cont", json!({}))?;
        }
        Ok(())
    }
}

/// Has QEMU listen on `host` for the machine; gives where.
fn listen(name: &str, target: &mut Qmp, host: IpAddr) -> Result<String, LabError> {
    let host = match host {
        IpAddr::V4(host) => host.to_string(),
        IpAddr::V6(host) => format!("[{host}]"),
    };
    target.run("migrate-incoming", json!({"uri": format!("tcp:{host}:0")}))?;
    let answer = target.run("query-migrate", json!({}))?;
    let port = answer["socket-address"][0]["port"].as_str();
    let port = port.ok_or_else(|| vm_error(name, format!("QEMU does not say where it listens: {answer}")))?;
    Ok(format!("tcp:{host}:{port}"))
}

fn until_stopped(
    name: &str,
    source: &mut Qmp,
    limits: MigrationLimits<'_>,
    progress: super::Progress<'_>,
) -> Result<Duration, LabError> {
    let begun = clock::now();
    let mut told = begun;
    loop {
        let now = clock::now();
        if (limits.stop)() {
            return Err(vm_error(name, "the migration was called off".to_owned()));
        }
        if now - begun >= limits.within {
            let ceiling = limits.within;
            return Err(LabError::Timeout { what: format!("the migration of {name}"), ceiling });
        }
        if let Some(event) = source.event(now + STEP)?.filter(|event| event.name == "STOP") {
            return Ok(event.at);
        }
        let status = source.run("query-migrate", json!({}))?;
        failed(name, &status)?;
        if now - told >= TELL {
            told = now;
            let ram = &status["ram"];
            progress(&format!("{} of {} octets to go", ram["remaining"], ram["total"]));
        }
    }
}

fn until_resumed(name: &str, source: &mut Qmp, target: &mut Qmp) -> Result<Duration, LabError> {
    let end = clock::now() + clock::CEILING;
    while clock::now() < end {
        if let Some(event) = target.event(clock::now() + STEP)?.filter(|event| event.name == "RESUME") {
            return Ok(event.at);
        }
        failed(name, &source.run("query-migrate", json!({}))?)?;
    }
    Err(LabError::Timeout { what: format!("{name} going on where it moves to"), ceiling: clock::CEILING })
}

/// Whether QEMU has given it up.
fn failed(name: &str, status: &Value) -> Result<(), LabError> {
    let now = status["status"].as_str().unwrap_or("none");
    if !ended(status) || now == "completed" {
        return Ok(());
    }
    let reason = status["error-desc"].as_str().unwrap_or("no reason given");
    Err(vm_error(name, format!("QEMU's migration is {now}: {reason}")))
}

fn ended(status: &Value) -> bool {
    matches!(status["status"].as_str(), None | Some("none" | "completed" | "failed" | "cancelled"))
}

fn vm_error(name: &str, what: String) -> LabError {
    LabError::Vm { vm: name.to_owned(), what }
}

fn milliseconds(time: Duration) -> f64 {
    (time.as_secs_f64() * 1e6).round() / 1e3
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_qemu_gave_up_is_an_error() {
        for (status, bad) in [("active", false), ("device", false), ("completed", false), ("failed", true)] {
            let told = failed("red-vm", &json!({"status": status}));
            assert_eq!(told.is_err(), bad, "{status}: {told:?}");
        }
        let error = failed("red-vm", &json!({"status": "failed", "error-desc": "no route"})).unwrap_err();
        assert_eq!(error.to_string(), "red-vm: QEMU's migration is failed: no route");
    }
}
