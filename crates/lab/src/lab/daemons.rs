//! Daemons of a lab: starting, waiting for readiness, killing, starting again.

use super::{Lab, excerpt};
use crate::{
    clock::{self, CEILING},
    commands,
    error::LabError,
    http,
    process::{self, ProcessId, Signal},
    record::DaemonRecord,
    spec::NodeName,
};
use std::{
    ffi::{OsStr, OsString},
    net::{Ipv4Addr, SocketAddr},
    path::PathBuf,
};

impl Lab {
    pub(super) fn start_weft(
        &mut self,
        name: &str,
        node: &NodeName,
        line: Vec<OsString>,
    ) -> Result<(), LabError> {
        let Some(weft) = self.record.weft.clone() else { return Ok(()) };
        self.start(name, node, std::iter::once(weft.into_os_string()).chain(line).collect())
    }

    pub(super) fn start(&mut self, name: &str, node: &NodeName, line: Vec<OsString>) -> Result<(), LabError> {
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

    /// Starts a program of somebody else's in `node` as a daemon of this lab: it goes down with it.
    ///
    /// # Errors
    /// When it cannot be started or ends at once.
    pub fn start_daemon(&mut self, name: &str, node: &str, line: Vec<OsString>) -> Result<(), LabError> {
        self.start(name, &node.parse()?, line)
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
            let answered = if oracle {
                let addr = SocketAddr::from((Ipv4Addr::LOCALHOST, commands::HTTP_PORT));
                namespace.run(|| http::get_tcp(addr, commands::ORACLE_READY)).map_err(|e| e.to_string())?
            } else {
                http::get_unix(&socket, commands::NVE_STATUS)
            };
            match answered {
                Ok((200, body)) if oracle || commands::nve_ready(&body) => return Ok(Some(())),
                Ok((code, body)) => {
                    answer = format!("it answers {code} {}", excerpt(&String::from_utf8_lossy(&body)));
                }
                Err(error) => answer = error.to_string(),
            }
            Ok(None)
        });
        match ready {
            Ok(Some(())) => Ok(()),
            Ok(None) => Err(self.daemon_error(name, format!("is not ready after {CEILING:?}: {answer}"))),
            Err(what) => Err(self.daemon_error(name, what)),
        }
    }

    pub(super) fn daemon_error(&self, name: &str, what: String) -> LabError {
        let log = self.files.log(name);
        LabError::Daemon { what: format!("{name} {what}"), last: process::last_line(&log), log }
    }

    /// Moves the logs of a lab that did not come up out of the way of `down`.
    pub(super) fn keep_logs(&self) -> Option<PathBuf> {
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
}
