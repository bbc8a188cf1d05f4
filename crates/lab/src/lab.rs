//! A lab that is up: making one, and what can be done with it.

use crate::{
    clock::{self, CEILING},
    commands::{self, Attached, Files},
    down,
    error::LabError,
    http,
    netns::NetNs,
    process::{self, ProcessId, Signal},
    record::{DaemonRecord, Phase, Record, RunRoot, TenantState, boot_id},
    spec::{DeviceKind, LabName, LabSpec, NodeName, TenantSpec},
    tenant, underlay,
};
use nix::{
    mount::{MsFlags, mount},
    sys::statfs::{BPF_FS_MAGIC, statfs},
    unistd::geteuid,
};
use std::{
    collections::BTreeMap,
    ffi::{OsStr, OsString},
    net::{IpAddr, Ipv4Addr, SocketAddr},
    os::unix::fs::DirBuilderExt as _,
    path::{Path, PathBuf},
    process::{Child, Command, Output, Stdio},
};
use weft_model::TsMac;

/// Hears one line per step while a lab comes up or goes down.
pub type Progress<'a> = &'a mut dyn FnMut(&str);

/// The program that runs `tap-relay`: `weft lab tap-relay`, or any other that includes
/// [`crate::LabCommand`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TapRelay {
    /// The program.
    pub program: PathBuf,
    /// Its words before those of `tap-relay` itself.
    pub words: Vec<String>,
}

impl TapRelay {
    /// `PROGRAM lab tap-relay`.
    #[must_use]
    pub fn of(program: impl Into<PathBuf>) -> Self {
        Self { program: program.into(), words: vec!["lab".to_owned(), "tap-relay".to_owned()] }
    }
}

/// How to bring a lab up.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// A name other than the file's.
    pub name: Option<LabName>,
    /// Where run directories are.
    pub root: RunRoot,
    /// The `weft` binary. Without one there are namespaces and devices only, and every tenant
    /// system has the addresses of the file: for tests of the lab and for other overlays.
    pub weft: Option<PathBuf>,
    /// Runs TAP tenants' relays; `weft` itself when absent.
    pub relay: Option<TapRelay>,
    /// Whether the lab ends with the calling process: [`down::sweep`] then takes it away once that
    /// process is gone.
    pub bound: bool,
}

/// A lab that is up. Dropping it leaves it up: [`Lab::down`] or [`crate::down()`] takes it down.
#[derive(Debug)]
pub struct Lab {
    record: Record,
    root: RunRoot,
    files: Files,
    relay: Option<TapRelay>,
    /// The daemons that this process started, to be reaped.
    children: BTreeMap<String, Child>,
}

impl Lab {
    /// Brings up the lab that `spec` describes. When anything fails, everything is taken down
    /// again and the daemons' logs are kept in `failed/NAME` beside the run directory.
    ///
    /// # Errors
    /// The first thing that failed.
    pub fn up(spec: &LabSpec, options: &Options, progress: Progress<'_>) -> Result<Self, LabError> {
        if !geteuid().is_root() {
            return Err(LabError::NotRoot(geteuid().as_raw()));
        }
        let name = options.name.clone().unwrap_or_else(|| spec.name.clone());
        let root = options.root.clone();
        let _lock = root.lock(name.as_str())?;
        if let Some(record) = Record::load(&root, name.as_str())?.filter(|record| !record.orphaned()) {
            return Err(LabError::AlreadyUp(record.name.to_string()));
        }
        if down::remains(&root, name.as_str())? {
            progress(&format!("removing what an earlier lab {name} left"));
            down::locked(&root, name.as_str())?;
        }
        let relay = options.relay.clone().or_else(|| options.weft.clone().map(TapRelay::of));
        let record = Record {
            boot_id: boot_id(),
            phase: Phase::Building,
            maker: ProcessId::own()?,
            bound: options.bound,
            spec: spec.clone(),
            weft: options.weft.clone(),
            namespaces: underlay::namespaces(name.as_str(), spec),
            daemons: BTreeMap::new(),
            pins: spec.hosts.keys().map(|host| commands::pin_dir(name.as_str(), host.as_str())).collect(),
            tenants: BTreeMap::new(),
            name,
        };
        let files = Files { run: root.of(record.name.as_str()) };
        let mut lab = Self { record, root, files, relay, children: BTreeMap::new() };
        match lab.build(progress) {
            Ok(()) => Ok(lab),
            Err(error) => {
                let kept = lab.keep_logs();
                // What failed first is what the reader needs; leftovers show at the next `up`.
                let _ = down::locked(&lab.root, lab.record.name.as_str());
                lab.reap();
                Err(match (error, kept) {
                    (LabError::Daemon { what, log, last }, Some(kept)) => {
                        let log = log.file_name().map_or_else(|| kept.clone(), |name| kept.join(name));
                        LabError::Daemon { what, log, last }
                    }
                    (error, _) => error,
                })
            }
        }
    }

    /// The lab `name` that another process brought up.
    ///
    /// # Errors
    /// When there is none.
    pub fn open(root: &RunRoot, name: &str) -> Result<Self, LabError> {
        let missing = || LabError::NotUp { name: name.to_owned(), root: root.path().to_owned() };
        let record = Record::load(root, name)?.ok_or_else(missing)?;
        let relay = record.weft.clone().map(TapRelay::of);
        let files = Files { run: root.of(name) };
        Ok(Self { record, root: root.clone(), files, relay, children: BTreeMap::new() })
    }

    /// Takes the lab down.
    ///
    /// # Errors
    /// Everything that was left behind.
    pub fn down(mut self) -> Result<(), LabError> {
        let done = down::down(&self.root, self.record.name.as_str());
        self.reap();
        done.map(|_| ())
    }

    fn reap(&mut self) {
        for child in self.children.values_mut() {
            // Ended by now; a child that is not would show among the leftovers.
            let _ = process::reap(child, CEILING);
        }
    }

    fn build(&mut self, progress: Progress<'_>) -> Result<(), LabError> {
        let name = self.record.name.to_string();
        let spec = self.record.spec.clone();
        std::fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(self.files.run.join("data"))
            .map_err(LabError::file("make the directory", &self.files.run))?;
        self.record.save(&self.root)?;
        progress(&format!("{} namespaces and their wires", self.record.namespaces.len()));
        for namespace in &self.record.namespaces {
            NetNs::create(namespace)?;
        }
        underlay::wire(&name, &spec)?;
        if self.record.weft.is_some() {
            mount_bpf_fs()?;
            self.start_oracles(progress)?;
            self.start_nves(progress)?;
            for (vn, what) in &spec.vns {
                progress(&format!("VN {vn}"));
                self.weft(commands::vn_create(&self.context()?, vn, what))?;
            }
        }
        for (tenant, what) in &spec.tenants {
            let state = self.attach_in_place(tenant, what)?;
            let ips: Vec<_> = state.ips.iter().map(ToString::to_string).collect();
            progress(&format!(
                "{tenant} on {} in VN {}: {} {}",
                what.host,
                what.vn,
                state.mac,
                ips.join(" ")
            ));
        }
        self.record.phase = Phase::Up;
        self.record.save(&self.root)
    }

    fn start_oracles(&mut self, progress: Progress<'_>) -> Result<(), LabError> {
        let spec = self.record.spec.clone();
        for (oracle, what) in &spec.oracles {
            let addrs: Vec<IpAddr> =
                underlay::addresses(&spec, oracle).iter().map(ipnet::IpNet::addr).collect();
            progress(&format!(
                "Oracle {oracle} at {}",
                addrs.iter().map(ToString::to_string).collect::<Vec<_>>().join(" and ")
            ));
            let node = what.on.as_ref().unwrap_or(oracle);
            let line = commands::oracle(&self.files, oracle.as_str(), &addrs);
            self.start_weft(oracle.as_str(), node, line)?;
            self.wait_ready(oracle.as_str())?;
        }
        Ok(())
    }

    fn start_nves(&mut self, progress: Progress<'_>) -> Result<(), LabError> {
        let spec = self.record.spec.clone();
        let hosts: Vec<&NodeName> =
            spec.hosts.iter().filter(|(_, host)| host.nve).map(|(name, _)| name).collect();
        if hosts.is_empty() || spec.oracles.is_empty() {
            return Ok(());
        }
        let token = self.token(hosts.len())?;
        for host in &hosts {
            let Some(rloc) = underlay::rloc(&spec, host) else { continue };
            progress(&format!("NVE {host} at {rloc}"));
            let line = commands::nve(&self.files, self.record.name.as_str(), host.as_str(), &token, rloc);
            self.start_weft(host.as_str(), host, line)?;
        }
        hosts.iter().try_for_each(|host| self.wait_ready(host.as_str()))
    }

    /// A join token that may be used `uses` times.
    ///
    /// # Errors
    /// When the Oracle gives none.
    pub fn token(&self, uses: usize) -> Result<String, LabError> {
        let line = commands::token(&self.context()?, uses);
        let text = self.weft(&line)?;
        text.split_whitespace().find(|word| word.starts_with("weft1.")).map(str::to_owned).ok_or_else(|| {
            LabError::Answer {
                command: shown(&line),
                reason: "there is no word that begins with weft1.".to_owned(),
                answer: excerpt(&text),
            }
        })
    }

    // ---- what it is made of ----

    /// Its name.
    #[must_use]
    pub fn name(&self) -> &str {
        self.record.name.as_str()
    }

    /// Everything known of it.
    #[must_use]
    pub fn record(&self) -> &Record {
        &self.record
    }

    /// Its files.
    #[must_use]
    pub fn files(&self) -> &Files {
        &self.files
    }

    /// The namespace of a host, tenant or Oracle, or of the fabric.
    ///
    /// # Errors
    /// When it has no such node.
    pub fn node(&self, node: &str) -> Result<NetNs, LabError> {
        let oracle = self.record.spec.oracles.get(node).and_then(|oracle| oracle.on.as_ref());
        let name = underlay::namespace(self.name(), oracle.map_or(node, NodeName::as_str));
        if !self.record.namespaces.contains(&name) {
            let prefix = underlay::namespace(self.name(), "");
            let nodes: Vec<&str> =
                self.record.namespaces.iter().filter_map(|name| name.strip_prefix(&prefix)).collect();
            return Err(LabError::NoNode {
                lab: self.name().to_owned(),
                node: node.to_owned(),
                nodes: nodes.join(", "),
            });
        }
        NetNs::open(&name)
    }

    /// What tenant system `name` was given.
    ///
    /// # Errors
    /// When it is not attached.
    pub fn tenant(&self, name: &str) -> Result<&TenantState, LabError> {
        self.record.tenants.get(name).ok_or_else(|| self.wrong(format!("tenant {name} is not attached")))
    }

    /// The RLOC of `host`.
    ///
    /// # Errors
    /// When it is no host.
    pub fn rloc(&self, host: &str) -> Result<IpAddr, LabError> {
        host.parse()
            .ok()
            .and_then(|host| underlay::rloc(&self.record.spec, &host))
            .ok_or_else(|| self.wrong(format!("{host} is no host")))
    }

    fn wrong(&self, what: String) -> LabError {
        LabError::Wrong { lab: self.name().to_owned(), what }
    }

    fn oracle(&self) -> Result<&NodeName, LabError> {
        self.record.spec.oracles.keys().next().ok_or_else(|| self.wrong("it has no Oracle".to_owned()))
    }

    fn context(&self) -> Result<PathBuf, LabError> {
        Ok(self.files.context(self.oracle()?.as_str()))
    }

    // ---- running things in it ----

    /// `program`, to be started in a node with [`NetNs::spawn`], with the environment that makes
    /// operator commands work there.
    #[must_use]
    pub fn command(&self, node: &str, program: impl AsRef<OsStr>) -> Command {
        let mut command = Command::new(program);
        let oracle = self.record.spec.oracles.keys().next().map(NodeName::as_str);
        let host = self.record.spec.hosts.contains_key(node).then_some(node);
        command.envs(commands::environment(&self.files, oracle, host)).env("WEFT_LAB", self.name());
        command
    }

    /// Runs a program in `node` to its end and gives all it wrote.
    ///
    /// # Errors
    /// When it cannot be started; that it fails is no error.
    pub fn exec<S: AsRef<OsStr>>(&self, node: &str, line: &[S]) -> Result<Output, LabError> {
        let (program, words) = line.split_first().ok_or_else(|| self.wrong("nothing to run".to_owned()))?;
        let mut command = self.command(node, program);
        command.args(words).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let child = self.node(node)?.spawn(&mut command)?;
        child.wait_with_output().map_err(LabError::io(format!("wait for {}", shown(line))))
    }

    /// Runs `weft WORDS` beside the Oracle and gives what it wrote on standard output.
    ///
    /// # Errors
    /// When it fails.
    pub fn weft<S: AsRef<OsStr>>(&self, words: impl AsRef<[S]>) -> Result<String, LabError> {
        let oracle = self.oracle()?.to_string();
        self.weft_at(&oracle, words)
    }

    /// Runs `weft WORDS` in `node` and gives what it wrote on standard output.
    ///
    /// # Errors
    /// When it fails.
    pub fn weft_at<S: AsRef<OsStr>>(&self, node: &str, words: impl AsRef<[S]>) -> Result<String, LabError> {
        let Some(weft) = &self.record.weft else {
            return Err(self.wrong("it was brought up without Weft".to_owned()));
        };
        let mut line: Vec<&OsStr> = vec![weft.as_os_str()];
        line.extend(words.as_ref().iter().map(AsRef::as_ref));
        let output = self.exec(node, &line)?;
        if output.status.success() {
            return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
        }
        let stderr = String::from_utf8_lossy(&output.stderr);
        Err(LabError::Command {
            command: shown(words.as_ref()),
            status: output.status.to_string(),
            stderr: stderr.lines().last().unwrap_or("no message").trim().to_owned(),
        })
    }

    // ---- daemons ----

    fn start_weft(&mut self, name: &str, node: &NodeName, line: Vec<OsString>) -> Result<(), LabError> {
        let Some(weft) = self.record.weft.clone() else { return Ok(()) };
        self.start(name, node, std::iter::once(weft.into_os_string()).chain(line).collect())
    }

    fn start(&mut self, name: &str, node: &NodeName, line: Vec<OsString>) -> Result<(), LabError> {
        let (program, words) =
            line.split_first().ok_or_else(|| self.wrong(format!("no command line for {name}")))?;
        let mut command = self.command(node.as_str(), program);
        command.args(words);
        let log = self.files.log(name);
        let child = process::spawn_daemon(&self.node(node.as_str())?, &mut command, &log)?;
        let pid = i32::try_from(child.id()).unwrap_or_default();
        let id = ProcessId::of(pid);
        self.children.insert(name.to_owned(), child);
        let Some(id) = id else { return Err(self.daemon_error(name, "ended at once".to_owned())) };
        let command = line.iter().map(|word| word.to_string_lossy().into_owned()).collect();
        self.record.daemons.insert(name.to_owned(), DaemonRecord { id, node: node.clone(), command });
        self.record.save(&self.root)
    }

    /// Which process daemon `name` (`oracle`, a host, or `relay-TENANT`) is.
    ///
    /// # Errors
    /// When there is no such daemon.
    pub fn daemon(&self, name: &str) -> Result<&DaemonRecord, LabError> {
        self.record.daemons.get(name).ok_or_else(|| self.wrong(format!("it has no daemon {name}")))
    }

    /// Sends `signal` to daemon `name` and, when that ends it, waits for its end.
    ///
    /// # Errors
    /// When there is no such daemon or a killed one does not end.
    pub fn signal(&mut self, name: &str, signal: Signal) -> Result<(), LabError> {
        let id = self.daemon(name)?.id;
        id.signal(signal)?;
        if matches!(signal, Signal::SIGKILL | Signal::SIGTERM) {
            if !id.wait_gone(CEILING) {
                return Err(LabError::Timeout { what: format!("the end of {name}"), ceiling: CEILING });
            }
            if let Some(child) = self.children.get_mut(name) {
                let _ = process::reap(child, CEILING);
            }
        }
        Ok(())
    }

    /// Starts daemon `name` again with the command line it had, and waits until it is ready.
    ///
    /// # Errors
    /// When it still runs, or does not become ready.
    pub fn restart(&mut self, name: &str) -> Result<(), LabError> {
        let daemon = self.daemon(name)?.clone();
        if daemon.id.alive() {
            return Err(self.wrong(format!("daemon {name} still runs")));
        }
        let line = daemon.command.iter().map(OsString::from).collect();
        self.start(name, &daemon.node, line)?;
        self.wait_ready(name)
    }

    /// Waits until daemon `name` says that it is ready.
    ///
    /// # Errors
    /// When it ends or is not ready within 30 s.
    pub fn wait_ready(&mut self, name: &str) -> Result<(), LabError> {
        let node = self.daemon(name)?.node.clone();
        let namespace = self.node(node.as_str())?;
        let oracle = self.record.spec.oracles.contains_key(name);
        let socket = self.files.socket(name);
        let mut answer = "it does not listen yet".to_owned();
        let ready = clock::until(CEILING, || {
            if let Some(status) =
                self.children.get_mut(name).and_then(|child| child.try_wait().ok().flatten())
            {
                return Err(format!("ended with {status}"));
            }
            let code = if oracle {
                let addr = SocketAddr::from((Ipv4Addr::LOCALHOST, commands::HTTP_PORT));
                namespace.run(|| http::get_tcp(addr, commands::READY_PATH))
            } else {
                Ok(http::get_unix(&socket, commands::READY_PATH))
            };
            match code {
                Ok(Ok(200)) => return Ok(Some(())),
                Ok(Ok(code)) => answer = format!("{} answers {code}", commands::READY_PATH),
                Ok(Err(error)) => answer = error.to_string(),
                Err(error) => return Err(error.to_string()),
            }
            Ok(None)
        });
        match ready {
            Ok(Some(())) => Ok(()),
            Ok(None) => Err(self.daemon_error(name, format!("is not ready after {CEILING:?}: {answer}"))),
            Err(what) => Err(self.daemon_error(name, what)),
        }
    }

    fn daemon_error(&self, name: &str, what: String) -> LabError {
        let log = self.files.log(name);
        LabError::Daemon { what: format!("{name} {what}"), last: process::last_line(&log), log }
    }

    /// Moves the logs of a lab that did not come up out of the way of `down`.
    fn keep_logs(&self) -> Option<PathBuf> {
        let kept = self.root.path().join("failed").join(self.name());
        let _ = std::fs::remove_dir_all(&kept);
        std::fs::create_dir_all(&kept).ok()?;
        for entry in std::fs::read_dir(&self.files.run).ok()?.filter_map(Result::ok) {
            let path = entry.path();
            if path.extension() == Some(OsStr::new("log")) {
                std::fs::copy(&path, kept.join(entry.file_name())).ok()?;
            }
        }
        Some(kept)
    }

    // ---- tenant systems ----

    /// Makes a tenant system's namespace, connects and attaches it.
    ///
    /// # Errors
    /// When the name is taken, the host is unknown, or Weft refuses.
    pub fn attach(&mut self, name: &str, what: &TenantSpec) -> Result<TenantState, LabError> {
        let tenant: NodeName = name.parse()?;
        let namespace = underlay::namespace(self.name(), name);
        if self.record.namespaces.contains(&namespace) {
            return Err(self.wrong(format!("it has a node {name} already")));
        }
        self.record.namespaces.push(namespace.clone());
        self.record.spec.tenants.insert(tenant.clone(), what.clone());
        self.record.save(&self.root)?;
        NetNs::create(&namespace)?;
        self.attach_in_place(&tenant, what)
    }

    /// Detaches a tenant system, and attaches it again on `host`, with the addresses it had. The
    /// namespace, and whatever runs in it, stays: what moves is where it is plugged in.
    ///
    /// # Errors
    /// When it is not attached or Weft refuses.
    pub fn move_cold(&mut self, name: &str, host: &str) -> Result<TenantState, LabError> {
        let (tenant, mut what) = self.spec_of(name)?;
        let had = self.tenant(name)?.clone();
        self.detach(name)?;
        what.host = host.parse()?;
        what.mac = Some(had.mac);
        what.ips = had.ips.iter().map(ipnet::IpNet::addr).collect();
        self.record.spec.tenants.insert(tenant.clone(), what.clone());
        self.attach_in_place(&tenant, &what)
    }

    /// Detaches a tenant system and takes its interface away; its namespace stays.
    ///
    /// # Errors
    /// When it is not attached or Weft refuses.
    pub fn detach(&mut self, name: &str) -> Result<(), LabError> {
        let (tenant, what) = self.spec_of(name)?;
        self.tenant(name)?;
        if self.record.weft.is_some() {
            self.weft_at(what.host.as_str(), commands::tsi_detach(&self.files, name, &what))?;
        }
        let relay = format!("relay-{name}");
        if self.record.daemons.contains_key(&relay) {
            self.signal(&relay, Signal::SIGTERM)?;
            self.record.daemons.remove(&relay);
        }
        tenant::unplug(&self.node(what.host.as_str())?, &self.node(name)?, name, what.device)?;
        self.record.tenants.remove(&tenant);
        self.record.save(&self.root)
    }

    fn spec_of(&self, name: &str) -> Result<(NodeName, TenantSpec), LabError> {
        self.record
            .spec
            .tenants
            .get_key_value(name)
            .map(|(name, what)| (name.clone(), what.clone()))
            .ok_or_else(|| self.wrong(format!("it has no tenant {name}")))
    }

    fn attach_in_place(&mut self, name: &NodeName, what: &TenantSpec) -> Result<TenantState, LabError> {
        let (host, namespace) = (self.node(what.host.as_str())?, self.node(name.as_str())?);
        tenant::plug(&host, &namespace, name.as_str(), what.device)?;
        if what.device == DeviceKind::Tap {
            self.start_relay(name, what, &host, &namespace)?;
        }
        let state =
            if self.record.weft.is_some() { self.ask_attach(name, what)? } else { self.made_up(name, what)? };
        tenant::dress(&namespace, &state)?;
        self.record.tenants.insert(name.clone(), state.clone());
        self.record.save(&self.root)?;
        Ok(state)
    }

    fn start_relay(
        &mut self,
        name: &NodeName,
        what: &TenantSpec,
        host: &NetNs,
        namespace: &NetNs,
    ) -> Result<(), LabError> {
        let Some(relay) = self.relay.clone() else {
            return Err(self.wrong(format!("tenant {name} has a TAP and there is no program for its relay")));
        };
        let mut line: Vec<OsString> = vec![relay.program.into_os_string()];
        line.extend(relay.words.iter().map(OsString::from));
        for (option, value) in [
            ("--host-namespace", host.name()),
            ("--host-device", name.as_str()),
            ("--tenant-namespace", namespace.name()),
            ("--tenant-device", tenant::DEVICE),
        ] {
            line.extend([OsString::from(option), OsString::from(value)]);
        }
        self.start(&format!("relay-{name}"), &what.host, line)
    }

    fn ask_attach(&self, name: &NodeName, what: &TenantSpec) -> Result<TenantState, LabError> {
        let line = commands::tsi_attach(&self.files, name.as_str(), name.as_str(), what);
        let text = self.weft_at(what.host.as_str(), &line)?;
        let wrong =
            |reason: String| LabError::Answer { command: shown(&line), reason, answer: excerpt(&text) };
        let answer: Attached = serde_json::from_str(&text).map_err(|error| wrong(error.to_string()))?;
        let ips = match self.record.spec.vns.get(&what.vn) {
            Some(vn) => answer.addresses(vn).map_err(wrong)?,
            None => Vec::new(),
        };
        Ok(TenantState { mac: answer.mac, ips, mtu: answer.mtu })
    }

    /// Without Weft: the file's addresses, and a MAC address from the tenant's place in the file.
    fn made_up(&self, name: &NodeName, what: &TenantSpec) -> Result<TenantState, LabError> {
        let place = self.record.spec.tenants.keys().position(|tenant| tenant == name).unwrap_or_default();
        let subnets = self.record.spec.vns.get(&what.vn).map_or(&[][..], |vn| &vn.subnets);
        let ips = what
            .ips
            .iter()
            .map(|ip| commands::with_prefix(&ip.to_string(), subnets))
            .collect::<Result<_, _>>()
            .map_err(|reason| self.wrong(reason))?;
        let mac = what.mac.unwrap_or_else(|| TsMac::local(place as u64 + 1).get());
        let outer = if self.rloc(what.host.as_str())?.is_ipv4() { 50 } else { 70 };
        Ok(TenantState { mac, ips, mtu: self.record.spec.underlay.mtu.saturating_sub(outer) })
    }
}

/// Mounts the BPF file system where it should be, once per machine.
fn mount_bpf_fs() -> Result<(), LabError> {
    let path = Path::new(commands::BPF_FS);
    let kind = statfs(path).map_err(std::io::Error::from).map_err(LabError::file("look at", path))?;
    if kind.filesystem_type() == BPF_FS_MAGIC {
        return Ok(());
    }
    mount(Some("bpf"), path, Some("bpf"), MsFlags::empty(), Some("mode=0700"))
        .map_err(std::io::Error::from)
        .map_err(LabError::file("mount the BPF file system at", path))
}

fn shown<S: AsRef<OsStr>>(line: &[S]) -> String {
    line.iter().map(|word| word.as_ref().to_string_lossy()).collect::<Vec<_>>().join(" ")
}

fn excerpt(text: &str) -> String {
    let mut line: String = text.trim().chars().take(200).collect();
    line = line.replace('\n', " ");
    if line.is_empty() { "nothing".to_owned() } else { line }
}
