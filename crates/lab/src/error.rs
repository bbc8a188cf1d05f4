//! What can go wrong in a lab, each in one line that says what to do.

use crate::netns::NETNS_DIR;
use std::{io, path::PathBuf, time::Duration};

/// Why a lab could not be brought up, used or found.
#[derive(Debug, thiserror::Error)]
pub enum LabError {
    /// Not running as root.
    #[error("a lab makes network namespaces and needs root (effective uid is {0}): run it with sudo")]
    NotRoot(u32),
    /// The file cannot be read.
    #[error("cannot read {}: {source}", path.display())]
    ReadSpec {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The file is not a lab.
    #[error("{}: {reason}", path.display())]
    Spec {
        /// The file.
        path: PathBuf,
        /// What is wrong with it, and where.
        reason: String,
    },
    /// A lab, node, VN or tenant name that cannot be used.
    #[error("'{0}' is no name for a lab or node: use 1 to {1} of a-z, 0-9 and '-', beginning with a letter")]
    Name(String, usize),
    /// Something done to a namespace failed.
    #[error("namespace {name}: cannot {what}: {source} (namespaces live in {NETNS_DIR})")]
    Namespace {
        /// The namespace's name.
        name: String,
        /// What was tried.
        what: &'static str,
        /// Why it failed.
        source: io::Error,
    },
    /// A netlink request failed.
    #[error("namespace {namespace}: cannot {what}: {reason}")]
    Netlink {
        /// The namespace's name.
        namespace: String,
        /// What was tried, with the device.
        what: String,
        /// The kernel's answer.
        reason: String,
    },
    /// A file or directory could not be made, read or written.
    #[error("cannot {what} {}: {source}", path.display())]
    File {
        /// What was tried.
        what: &'static str,
        /// The file.
        path: PathBuf,
        /// Why it failed.
        source: io::Error,
    },
    /// A program could not be started.
    #[error("cannot start {program}: {source}")]
    Start {
        /// The program.
        program: String,
        /// Why.
        source: io::Error,
    },
    /// A command that should have succeeded did not.
    #[error("'{command}' failed with {status}: {stderr}")]
    Command {
        /// The whole command line.
        command: String,
        /// Exit status or signal.
        status: String,
        /// The last line it wrote on standard error.
        stderr: String,
    },
    /// A command answered something that cannot be read.
    #[error("'{command}' answered what the lab cannot read ({reason}): {answer}")]
    Answer {
        /// The whole command line.
        command: String,
        /// What is wrong with the answer.
        reason: String,
        /// The answer's beginning.
        answer: String,
    },
    /// A daemon ended or did not become ready.
    #[error("{what} (log: {}): {last}", log.display())]
    Daemon {
        /// Which daemon, and what happened.
        what: String,
        /// Its log file.
        log: PathBuf,
        /// The last line of the log.
        last: String,
    },
    /// Something did not happen in time.
    #[error("{what} did not happen within {ceiling:?}")]
    Timeout {
        /// What was awaited.
        what: String,
        /// How long.
        ceiling: Duration,
    },
    /// The lab is up already.
    #[error("lab {0} is already up: run 'weft lab down {0}' first, or give another name")]
    AlreadyUp(String),
    /// No such lab.
    #[error("no lab {name} is up (looked in {}): 'weft lab list' shows those that are", root.display())]
    NotUp {
        /// Its name.
        name: String,
        /// Where records are kept.
        root: PathBuf,
    },
    /// No name was given and there is not exactly one lab.
    #[error("{found} labs are up ({names}): say which one")]
    WhichLab {
        /// How many.
        found: usize,
        /// Their names.
        names: String,
    },
    /// No such node in this lab.
    #[error("lab {lab} has no node {node}: it has {nodes}")]
    NoNode {
        /// The lab.
        lab: String,
        /// The name asked for.
        node: String,
        /// Those it has.
        nodes: String,
    },
    /// The lab has no such thing to act on.
    #[error("lab {lab}: {what}")]
    Wrong {
        /// The lab.
        lab: String,
        /// What does not fit, and what to do.
        what: String,
    },
    /// A system call of a capture, probe or TAP failed.
    #[error("cannot {what}: {source}")]
    Io {
        /// What was tried.
        what: String,
        /// Why it failed.
        source: io::Error,
    },
    /// A virtual machine does not do what it should.
    #[error("{vm}: {what}")]
    Vm {
        /// Which.
        vm: String,
        /// What is wrong with it.
        what: String,
    },
    /// What virtual machines boot cannot be made.
    #[error("cannot make what virtual machines boot: {0}")]
    Guest(String),
    /// A live migration was called off.
    #[error("{vm} stays on {host}: {why}{left}")]
    NotMigrated {
        /// The machine.
        vm: String,
        /// Where it is.
        host: String,
        /// Why it did not move.
        why: Box<LabError>,
        /// What could not be put back, if anything, each with a semicolon before it.
        left: String,
    },
    /// A virtual machine runs where it moved to, but nothing passes.
    #[error(
        "{vm} runs on {host} but is not activated there: {why}; run 'weft tsi activate --vn {vn} --name {vm}' on {host}"
    )]
    NotActivated {
        /// The machine.
        vm: String,
        /// Where it runs.
        host: String,
        /// Its virtual network.
        vn: String,
        /// What the NVE says.
        why: Box<LabError>,
    },
    /// Taking down left something behind.
    #[error(transparent)]
    Cleanup(#[from] CleanupError),
}

impl LabError {
    /// An I/O error with the words for what was tried.
    pub(crate) fn io(what: impl Into<String>) -> impl FnOnce(io::Error) -> Self {
        let what = what.into();
        move |source| Self::Io { what, source }
    }

    /// A file error.
    pub(crate) fn file(what: &'static str, path: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> Self {
        let path = path.into();
        move |source| Self::File { what, path, source }
    }
}

/// Everything that could not be taken down; the rest was.
#[derive(Debug, thiserror::Error)]
#[error("lab {lab}: {} left behind: {}", errors.len(), errors.iter().map(ToString::to_string).collect::<Vec<_>>().join("; "))]
pub struct CleanupError {
    /// The lab.
    pub lab: String,
    /// One error per thing left behind.
    pub errors: Vec<LabError>,
}
