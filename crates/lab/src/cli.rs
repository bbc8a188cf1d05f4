//! `weft lab`: the commands.
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "this is the lab's output module")]

use crate::{
    down,
    error::LabError,
    interrupt,
    lab::{Lab, Migration, MigrationLimits, Options, TapRelay},
    netns::NetNs,
    record::{self, LabSummary, RunRoot},
    spec::{LabName, LabSpec},
    tap,
};
use clap::{Args, Subcommand, ValueEnum};
use serde::Serialize;
use std::{
    ffi::OsString,
    io::{self, IsTerminal as _, Write as _},
    os::unix::process::CommandExt as _,
    path::PathBuf,
    process::ExitCode,
    time::Duration,
};

/// A data centre of network namespaces on this machine.
#[derive(Clone, Debug, Subcommand)]
pub enum LabCommand {
    /// Bring up the lab that a YAML file describes.
    #[command(after_help = "Examples:
  weft lab up examples/three-hosts.yaml
  weft lab up examples/three-hosts.yaml --name second")]
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
    ///
    /// In a virtual machine it is one of busybox's, has no standard input, ends after a minute, and its output comes when
    /// it has ended.
    #[command(after_help = "Examples:
  weft lab exec red-a -- ping -c1 10.0.0.2
  weft lab exec h1 -- weft get drops                 what h1's data plane dropped
  weft lab exec oracle -- weft get mappings          where everybody is
  weft lab exec --lab second fabric -- tcpdump -ni br0")]
    Exec {
        /// The lab; may be left out while only one is up.
        #[arg(long)]
        lab: Option<LabName>,
        /// Where labs are kept.
        #[command(flatten)]
        place: Place,
        /// The node.
        node: String,
        /// The command and its arguments.
        #[arg(last = true, required = true)]
        command: Vec<OsString>,
    },
    /// Move a virtual machine, which goes on running, to another host.
    #[command(after_help = "Examples:
  weft lab migrate red-vm h2
  weft lab migrate red-vm h2 --within 10 -o json")]
    Migrate {
        /// The lab; may be left out while only one is up.
        #[arg(long)]
        lab: Option<LabName>,
        /// Where labs are kept.
        #[command(flatten)]
        place: Place,
        /// The tenant system, which has `device: vm`.
        vm: String,
        /// The host it moves to.
        host: String,
        /// Seconds after which it stays where it is when it still runs there.
        #[arg(long, value_name = "SECONDS", default_value_t = 120, value_parser = clap::value_parser!(u64).range(1..=86_400))]
        within: u64,
        /// How to show the answer.
        #[arg(short, long, value_enum, default_value_t)]
        output: Format,
    },
    /// Take a lab down: daemons, namespaces, BPF pins and run directory.
    #[command(after_help = "Examples:
  weft lab down                                      the only one that is up
  weft lab down three-hosts")]
    Down {
        /// The lab; may be left out while only one is up.
        name: Option<LabName>,
        /// Where labs are kept.
        #[command(flatten)]
        place: Place,
    },
    /// List the labs.
    #[command(after_help = "Example: weft lab list -o json")]
    List {
        /// Where labs are kept.
        #[command(flatten)]
        place: Place,
        /// How to show the answer.
        #[arg(short, long, value_enum, default_value_t)]
        output: Format,
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

/// How a list is shown.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// For people.
    #[default]
    Table,
    /// One JSON document.
    Json,
    /// The same as YAML.
    Yaml,
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
            Self::Migrate { lab, place, vm, host, within, output } => {
                let root = place.root();
                let mut lab = Lab::open(&root, &which(&root, lab)?)?;
                // Ctrl-C calls the migration off instead of ending its keeper in the middle.
                interrupt::hold()?;
                let limits =
                    MigrationLimits { within: Duration::from_secs(within), stop: &interrupt::pending };
                let done = lab.migrate(&vm, &host, limits, &mut say)?;
                let text = migrated(&done, output)?;
                // A reader that has gone away is no failure.
                let _ = io::stdout().lock().write_all(text.as_bytes());
                Ok(ExitCode::SUCCESS)
            }
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
            Self::List { place, output } => list(&place.root(), output),
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
    let _ = writeln!(
        out,
        "lab {0} is up: try 'weft lab exec --lab {0} {1} -- ping -c1 ADDRESS'",
        lab.name(),
        first(&lab)
    );
    Ok(ExitCode::SUCCESS)
}

fn first(lab: &Lab) -> String {
    lab.record().tenants.keys().next().map_or_else(|| "h1".to_owned(), ToString::to_string)
}

fn exec(lab: Option<LabName>, place: &Place, node: &str, command: &[OsString]) -> Result<ExitCode, LabError> {
    let root = place.root();
    let lab = Lab::open(&root, &which(&root, lab)?)?;
    let Some((program, words)) = command.split_first() else { return Ok(ExitCode::SUCCESS) };
    if lab.is_vm(node) {
        let output = lab.exec(node, command)?;
        // A reader that has gone away is no failure.
        let _ = io::stdout().lock().write_all(&output.stdout);
        let _ = io::stderr().lock().write_all(&output.stderr);
        let code = output.status.code().and_then(|code| u8::try_from(code).ok());
        return Ok(code.map_or(ExitCode::FAILURE, ExitCode::from));
    }
    lab.node(node)?.enter()?;
    let source = lab.command(node, program).args(words).exec();
    Err(LabError::Start { program: program.to_string_lossy().into_owned(), source })
}

fn list(root: &RunRoot, format: Format) -> Result<ExitCode, LabError> {
    let text = shown(&record::list(root)?, format)?;
    // A reader that has gone away is no failure.
    let _ = io::stdout().lock().write_all(text.as_bytes());
    Ok(ExitCode::SUCCESS)
}

fn shown(labs: &[LabSummary], format: Format) -> Result<String, LabError> {
    match format {
        Format::Json | Format::Yaml => document(&labs, format),
        Format::Table => {
            let mut text =
                format!("{:<24} {:<9} {:>5} {:>7} {:>9}\n", "NAME", "STATE", "HOSTS", "TENANTS", "PROCESSES");
            for lab in labs {
                let running = format!("{}/{}", lab.running, lab.daemons);
                text.push_str(&format!(
                    "{:<24} {:<9} {:>5} {:>7} {running:>9}\n",
                    lab.name, lab.state, lab.hosts, lab.tenants
                ));
            }
            Ok(text)
        }
    }
}

fn migrated(done: &Migration, format: Format) -> Result<String, LabError> {
    if format != Format::Table {
        return document(done, format);
    }
    let Migration { vm, to, total_ms, stopped_ms, closed_ms, .. } = done;
    let mut text = format!(
        "{vm} is on {to}: {:.1} s in all, stopped for {stopped_ms:.1} ms, closed from Deactivate to Activate for {closed_ms:.1} ms\n",
        total_ms / 1e3
    );
    for left in &done.left {
        text.push_str(&format!("left on {}: {left}\n", done.from));
    }
    Ok(text)
}

/// For programs; people get a table.
fn document<T: Serialize>(what: &T, format: Format) -> Result<String, LabError> {
    let failed =
        |error: &dyn std::fmt::Display| LabError::io("show the answer")(io::Error::other(error.to_string()));
    match format {
        Format::Yaml => serde_saphyr::to_string(what).map_err(|e| failed(&e)),
        _ => serde_json::to_string_pretty(what).map(|text| text + "\n").map_err(|e| failed(&e)),
    }
}

/// `name`, or the only lab there is.
fn which(root: &RunRoot, name: Option<LabName>) -> Result<LabName, LabError> {
    if let Some(name) = name {
        return Ok(name);
    }
    let mut names: Vec<LabName> = record::list(root)?.into_iter().map(|lab| lab.name).collect();
    match (names.len(), names.pop()) {
        (1, Some(name)) => Ok(name),
        (found, last) => {
            names.extend(last);
            let names: Vec<&str> = names.iter().map(LabName::as_str).collect();
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_format_shows_the_same() {
        let lab = LabSummary {
            name: "three-hosts".parse().unwrap(),
            state: "up",
            hosts: 3,
            tenants: 6,
            running: 3,
            daemons: 4,
        };
        let table = shown(std::slice::from_ref(&lab), Format::Table).unwrap();
        assert_eq!(table.lines().count(), 2);
        assert!(table.contains("three-hosts") && table.ends_with("3/4\n"), "{table}");
        let json = shown(std::slice::from_ref(&lab), Format::Json).unwrap();
        let json: serde_json::Value = serde_json::from_str(&json).unwrap();
        let yaml = shown(&[lab], Format::Yaml).unwrap();
        assert_eq!(json, serde_saphyr::from_str::<serde_json::Value>(&yaml).unwrap());
        assert_eq!((&json[0]["name"], &json[0]["running"]), (&"three-hosts".into(), &3.into()));
        assert_eq!(shown(&[], Format::Json).unwrap(), "[]\n");
    }
}
