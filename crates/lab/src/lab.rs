//! A lab that is up: making one, and what can be done with it.

use crate::{
    clock::CEILING,
    commands::{self, Files},
    down,
    error::LabError,
    netns::NetNs,
    process::{self, ProcessId},
    record::{Phase, Record, RunRoot, TenantState, boot_id},
    spec::{DeviceKind, LabName, LabSpec, NodeName},
    underlay, vm,
};
use nix::{
    mount::{MsFlags, mount},
    sys::statfs::{BPF_FS_MAGIC, statfs},
    unistd::geteuid,
};
use std::{
    collections::BTreeMap,
    ffi::OsStr,
    net::IpAddr,
    os::unix::fs::DirBuilderExt as _,
    path::{Path, PathBuf},
    process::{Child, Command, Output, Stdio},
};

mod back;
mod daemons;
mod migrate;
mod states;
mod tenants;
mod vms;

pub use migrate::{Migration, MigrationLimits};

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
    /// More words for every `weft nve`, for example `--veth-tunnel device`.
    pub nve_words: Vec<String>,
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
        let _lock = root.lock(&name)?;
        if let Some(record) = Record::load(&root, &name)?.filter(|record| !record.orphaned()) {
            return Err(LabError::AlreadyUp(record.name.to_string()));
        }
        if down::remains(&root, &name)? {
            progress(&format!("removing what an earlier lab {name} left"));
            down::locked(&root, &name)?;
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
            pins: vec![commands::pins(name.as_str())],
            tenants: BTreeMap::new(),
            name,
        };
        let files = Files { run: root.of(&record.name) };
        let mut lab = Self { record, root, files, relay, children: BTreeMap::new() };
        match lab.build(&options.nve_words, progress) {
            Ok(()) => Ok(lab),
            Err(error) => {
                let kept = lab.keep_logs();
                // What failed first is what the reader needs; leftovers show at the next `up`.
                let _ = down::locked(&lab.root, &lab.record.name);
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
    pub fn open(root: &RunRoot, name: &LabName) -> Result<Self, LabError> {
        let missing = || LabError::NotUp { name: name.to_string(), root: root.path().to_owned() };
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
        let done = down::down(&self.root, &self.record.name);
        self.reap();
        done.map(|_| ())
    }

    fn reap(&mut self) {
        for child in self.children.values_mut() {
            // Ended by now; a child that is not would show among the leftovers.
            let _ = process::reap(child, CEILING);
        }
    }

    fn build(&mut self, nve_words: &[String], progress: Progress<'_>) -> Result<(), LabError> {
        let name = self.record.name.to_string();
        let spec = self.record.spec.clone();
        // Programs of other users, like routing daemons, may pass through the run directory; what
        // is Weft's own is below `data`.
        for (dir, mode) in [(self.files.run.clone(), 0o711), (self.files.run.join("data"), 0o700)] {
            let mut builder = std::fs::DirBuilder::new();
            builder
                .recursive(true)
                .mode(mode)
                .create(&dir)
                .map_err(LabError::file("make the directory", &dir))?;
        }
        self.record.save(&self.root)?;
        progress(&format!("{} namespaces and their wires", self.record.namespaces.len()));
        for namespace in &self.record.namespaces {
            NetNs::create(namespace)?;
        }
        underlay::wire(&name, &spec)?;
        if self.record.weft.is_some() {
            mount_bpf_fs()?;
            self.start_oracles(progress)?;
            self.start_nves(nve_words, progress)?;
            for (vn, what) in &spec.vns {
                progress(&format!("VN {vn}"));
                self.weft(commands::vn_create(&self.context()?, vn, what))?;
            }
        }
        if spec.tenants.values().any(|what| what.device == DeviceKind::Vm) {
            vm::image::prepare(&mut *progress)?;
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

    fn start_nves(&mut self, more: &[String], progress: Progress<'_>) -> Result<(), LabError> {
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
            let mut line = commands::nve(&self.files, self.record.name.as_str(), host.as_str(), &token, rloc);
            if let Some(other) = underlay::second_rloc(&spec, host) {
                line.extend(["--rloc".into(), other.to_string().into()]);
            }
            line.extend(more.iter().map(Into::into));
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
        if self.is_vm(node) {
            let what = format!(
                "{node} is a virtual machine and has no namespace: 'weft lab exec' runs commands in it"
            );
            return Err(self.wrong(what));
        }
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
    /// operator commands work there; `weft` is the lab's own.
    #[must_use]
    pub fn command(&self, node: &str, program: impl AsRef<OsStr>) -> Command {
        let mut command = Command::new(program);
        let oracle = self.record.spec.oracles.keys().next().map(NodeName::as_str);
        let host = self.record.spec.hosts.contains_key(node).then_some(node);
        command.envs(commands::environment(&self.files, oracle, host)).env("WEFT_LAB", self.name());
        if let Some(dir) = self.record.weft.as_deref().and_then(Path::parent) {
            command.env("PATH", commands::path_with(dir));
        }
        command
    }

    /// Runs a program in `node` to its end and gives all it wrote. In a virtual machine, whose programs are
    /// busybox's, it is ended after a minute.
    ///
    /// # Errors
    /// When it cannot be started; that it fails is no error.
    pub fn exec<S: AsRef<OsStr>>(&self, node: &str, line: &[S]) -> Result<Output, LabError> {
        let (program, words) = line.split_first().ok_or_else(|| self.wrong("nothing to run".to_owned()))?;
        if self.is_vm(node) {
            return self.exec_in_vm(node, line);
        }
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
