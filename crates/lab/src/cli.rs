//! `weft lab`: the commands.
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "this is the lab's output module")]

use crate::{
    down,
    error::LabError,
    lab::{Lab, Options, TapRelay},
    netns::NetNs,
    record::{self, RunRoot},
    spec::{LabName, LabSpec},
    tap,
};
use clap::{Args, Subcommand};
use std::{
    ffi::OsString,
    io::{self, IsTerminal as _, Write as _},
    os::unix::process::CommandExt as _,
    path::PathBuf,
    process::ExitCode,
};

/// A data centre of network namespaces on this machine.
#[derive(Clone, Debug, Subcommand)]
pub enum LabCommand {
    /// Bring up the lab that a YAML file describes.
    Up {
        /// The file, for example examples/three-hosts.yaml.
        file: PathBuf,
        /// A name other than the file's.
        #[arg(long)]
        name: Option<LabName>,
        /// Where labs are kept.
        #[command(flatten)]
        place: Place,
    },
    /// Run a command in a host (h1), tenant (red-a), Oracle or the fabric.
    Exec {
        /// The lab; may be left out while only one is up.
        #[arg(long)]
        lab: Option<String>,
        /// Where labs are kept.
        #[command(flatten)]
        place: Place,
        /// The node.
        node: String,
        /// The command and its arguments.
        #[arg(last = true, required = true)]
        command: Vec<OsString>,
    },
    /// Take a lab down: daemons, namespaces, BPF pins and run directory.
    Down {
        /// The lab; may be left out while only one is up.
        name: Option<String>,
        /// Where labs are kept.
        #[command(flatten)]
        place: Place,
    },
    /// List the labs.
    List {
        /// Where labs are kept.
        #[command(flatten)]
        place: Place,
    },
    /// Carry frames between a host's TAP and a tenant's (the lab starts this itself).
    #[command(hide = true)]
    TapRelay {
        /// The host's namespace.
        #[arg(long)]
        host_namespace: String,
        /// The TAP there.
        #[arg(long)]
        host_device: String,
        /// The tenant's namespace.
        #[arg(long)]
        tenant_namespace: String,
        /// The TAP there.
        #[arg(long)]
        tenant_device: String,
    },
}

/// Where labs keep their records and logs.
#[derive(Clone, Debug, Args)]
pub struct Place {
    /// The directory of run directories.
    #[arg(long = "run-dir", value_name = "DIR", default_value = "/run/weft-lab")]
    root: PathBuf,
}

impl Place {
    fn root(&self) -> RunRoot {
        RunRoot::from(self.root.clone())
    }
}

impl LabCommand {
    /// Runs the command; `weft` is the binary that the lab's daemons run, usually the caller.
    ///
    /// # Errors
    /// In one line, what failed. `exec` does not return when it succeeds.
    pub fn run(self, weft: PathBuf) -> Result<ExitCode, LabError> {
        match self {
            Self::Up { file, name, place } => up(&file, name, &place, weft),
            Self::Exec { lab, place, node, command } => exec(lab, &place, &node, &command),
            Self::Down { name, place } => {
                let root = place.root();
                let name = which(&root, name)?;
                let gone = down::down(&root, &name)?;
                say(&format!(
                    "lab {name} is down: {} processes, {} namespaces",
                    gone.processes, gone.namespaces
                ));
                Ok(ExitCode::SUCCESS)
            }
            Self::List { place } => list(&place.root()),
            Self::TapRelay { host_namespace, host_device, tenant_namespace, tenant_device } => {
                let host = tap::open(&NetNs::open(&host_namespace)?, &host_device)?;
                let tenant = tap::open(&NetNs::open(&tenant_namespace)?, &tenant_device)?;
                tap::relay(&host, &tenant).map_err(LabError::io("carry frames between two TAPs"))?;
                Ok(ExitCode::SUCCESS)
            }
        }
    }
}

fn up(
    file: &std::path::Path,
    name: Option<LabName>,
    place: &Place,
    weft: PathBuf,
) -> Result<ExitCode, LabError> {
    let spec = LabSpec::read(file)?;
    let relay = Some(TapRelay::of(weft.clone()));
    let options = Options { name, root: place.root(), weft: Some(weft), relay, ..Options::default() };
    let lab = Lab::up(&spec, &options, &mut say)?;
    let mut out = io::stdout().lock();
    // A reader that has gone away is no failure of the lab.
    let _ =
        writeln!(out, "lab {} is up: try 'weft lab exec {} -- ping -c1 ADDRESS'", lab.name(), first(&lab));
    Ok(ExitCode::SUCCESS)
}

fn first(lab: &Lab) -> String {
    lab.record().tenants.keys().next().map_or_else(|| "h1".to_owned(), ToString::to_string)
}

fn exec(lab: Option<String>, place: &Place, node: &str, command: &[OsString]) -> Result<ExitCode, LabError> {
    let root = place.root();
    let lab = Lab::open(&root, &which(&root, lab)?)?;
    let Some((program, words)) = command.split_first() else { return Ok(ExitCode::SUCCESS) };
    lab.node(node)?.enter()?;
    let source = lab.command(node, program).args(words).exec();
    Err(LabError::Start { program: program.to_string_lossy().into_owned(), source })
}

fn list(root: &RunRoot) -> Result<ExitCode, LabError> {
    let mut out = io::stdout().lock();
    let _ = writeln!(out, "{:<24} {:<9} {:>5} {:>7} {:>9}", "NAME", "STATE", "HOSTS", "TENANTS", "PROCESSES");
    for lab in record::list(root)? {
        let running = format!("{}/{}", lab.running, lab.daemons);
        let _ = writeln!(
            out,
            "{:<24} {:<9} {:>5} {:>7} {running:>9}",
            lab.name, lab.state, lab.hosts, lab.tenants
        );
    }
    Ok(ExitCode::SUCCESS)
}

/// `name`, or the only lab there is.
fn which(root: &RunRoot, name: Option<String>) -> Result<String, LabError> {
    if let Some(name) = name {
        return Ok(name);
    }
    let mut names: Vec<String> = record::list(root)?.into_iter().map(|lab| lab.name).collect();
    match (names.len(), names.pop()) {
        (1, Some(name)) => Ok(name),
        (found, last) => {
            names.extend(last);
            let names = if found == 0 { "none".to_owned() } else { names.join(", ") };
            Err(LabError::WhichLab { found, names })
        }
    }
}

/// One line of progress, for people only: nothing on a pipe.
fn say(line: &str) {
    let mut err = io::stderr().lock();
    if err.is_terminal() {
        let _ = writeln!(err, "lab: {line}");
    }
}
