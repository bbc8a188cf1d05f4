//! Scripts that run inside a lab, take commands as lines of JSON and say what they hear in the same way.

use anyhow::{Context as _, Result, bail, ensure};
use serde_json::Value;
use std::{
    io::{BufRead as _, BufReader, Write as _},
    path::{Path, PathBuf},
    process::{Child, ChildStdin, Command, Stdio},
    sync::mpsc::{Receiver, RecvTimeoutError, channel},
    time::Duration,
};
use weft_lab::{Lab, clock};

/// A script of `tests/peers`.
#[must_use]
pub fn script(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("peers").join(name)
}

/// A running script.
#[derive(Debug)]
pub struct Peer {
    child: Child,
    commands: ChildStdin,
    said: Receiver<Value>,
    /// Everything it has said so far, for who wants to know what came before.
    pub heard: Vec<Value>,
}

impl Peer {
    /// Runs `tests/peers/NAME WORDS` in the node `node` until it is dropped.
    ///
    /// # Errors
    /// When it cannot be started, or does not say `{"ready": true}` first.
    pub fn start(lab: &Lab, node: &str, name: &str, words: &[String]) -> Result<Self> {
        // The distribution's: its packages are not everybody's.
        let mut command = Command::new("/usr/bin/python3");
        command.arg(script(name)).args(words).env("PYTHONDONTWRITEBYTECODE", "1");
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::inherit());
        let mut child = lab.node(node)?.spawn(&mut command)?;
        let commands = child.stdin.take().context("its standard input")?;
        let output = BufReader::new(child.stdout.take().context("its standard output")?);
        let (sender, said) = channel();
        std::thread::spawn(move || {
            for line in output.lines().map_while(Result::ok) {
                let value = serde_json::from_str(&line).unwrap_or(Value::String(line));
                if sender.send(value).is_err() {
                    return;
                }
            }
        });
        let mut peer = Self { child, commands, said, heard: Vec::new() };
        peer.expect("it is ready", |line| line["ready"] == true)?;
        Ok(peer)
    }

    /// Gives it a command.
    ///
    /// # Errors
    /// When it has ended.
    #[allow(clippy::needless_pass_by_value, reason = "a command is made where it is given")]
    pub fn tell(&mut self, command: Value) -> Result<()> {
        writeln!(self.commands, "{command}").with_context(|| format!("the peer has ended; {command}"))?;
        Ok(())
    }

    /// The next line that `wanted` is true of, waited for; those before it are passed over.
    ///
    /// # Errors
    /// When it does not come within [`clock::CEILING`].
    pub fn expect(&mut self, what: &str, wanted: impl Fn(&Value) -> bool) -> Result<Value> {
        let end = clock::now() + clock::CEILING;
        loop {
            let left = end.saturating_duration_since(clock::now());
            match self.said.recv_timeout(left) {
                Ok(line) => {
                    self.heard.push(line.clone());
                    if wanted(&line) {
                        return Ok(line);
                    }
                }
                Err(RecvTimeoutError::Timeout) => bail!("not heard: {what}; heard was {:#?}", self.heard),
                Err(RecvTimeoutError::Disconnected) => bail!("the peer has ended before {what}"),
            }
        }
    }

    /// What it has said and nobody has waited for.
    pub fn unheard(&mut self) -> Vec<Value> {
        let lines: Vec<Value> = self.said.try_iter().collect();
        self.heard.extend(lines.iter().cloned());
        lines
    }

    /// Ends it.
    ///
    /// # Errors
    /// When it has failed.
    pub fn end(mut self) -> Result<Vec<Value>> {
        self.tell(serde_json::json!({ "do": "end" }))?;
        let status = self.child.wait()?;
        ensure!(status.success(), "the peer: {status}");
        while let Ok(line) = self.said.recv_timeout(Duration::from_secs(1)) {
            self.heard.push(line);
        }
        Ok(std::mem::take(&mut self.heard))
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        // Ended already, unless the test failed.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}
