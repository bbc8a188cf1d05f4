//! QEMU's machine protocol (docs/interop/qmp-spec.txt): JSON objects, one a line, on a unix socket. Commands are
//! answered in turn; events come in between.

use crate::{clock, error::LabError};
use serde_json::{Value, json};
use std::{
    collections::VecDeque,
    io::{self, BufRead as _, BufReader, Write as _},
    os::unix::net::UnixStream,
    path::Path,
    time::{Duration, Instant},
};

/// How long QEMU may take to answer a command.
const PATIENCE: Duration = clock::CEILING;

/// A session.
#[derive(Debug)]
pub(crate) struct Qmp {
    /// Whose, for errors.
    vm: String,
    stream: BufReader<UnixStream>,
    /// What has come of a line.
    part: Vec<u8>,
    events: VecDeque<Event>,
}

/// Something that QEMU says of itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Event {
    pub(crate) name: String,
    /// When it happened, by the machine's clock.
    pub(crate) at: Duration,
}

impl Event {
    fn of(line: &Value) -> Option<Self> {
        let name = line["event"].as_str()?.to_owned();
        let number = |unit: &str| line["timestamp"][unit].as_u64().unwrap_or_default();
        Some(Self {
            name,
            at: Duration::from_secs(number("seconds")) + Duration::from_micros(number("microseconds")),
        })
    }
}

impl Qmp {
    /// Connects to QEMU's socket, which may be about to appear.
    ///
    /// # Errors
    /// When it does not listen, or says something else than QEMU does.
    pub(crate) fn connect(vm: &str, socket: &Path) -> Result<Self, LabError> {
        let refused = LabError::io(format!("reach QEMU of {vm} at {}", socket.display()));
        let opened = clock::until(PATIENCE, || match UnixStream::connect(socket) {
            Err(error)
                if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused) =>
            {
                Ok(None)
            }
            other => other.map(Some),
        });
        let stream = opened.and_then(|stream| stream.ok_or_else(|| io::ErrorKind::NotFound.into()));
        let stream = BufReader::new(stream.map_err(refused)?);
        let mut qmp = Self { vm: vm.to_owned(), stream, part: Vec::new(), events: VecDeque::new() };
        let end = clock::now() + PATIENCE;
        match qmp.line(end)? {
            Some(greeting) if greeting.get("QMP").is_some() => {}
            other => return Err(qmp.error("its greeting", &other.unwrap_or_default().to_string())),
        }
        qmp.run("qmp_capabilities", json!({}))?;
        Ok(qmp)
    }

    /// Runs a command and gives what it returns.
    ///
    /// # Errors
    /// QEMU's reason when it refuses.
    #[allow(clippy::needless_pass_by_value, reason = "arguments are made where they are given")]
    pub(crate) fn run(&mut self, command: &str, arguments: Value) -> Result<Value, LabError> {
        let request = format!("{}\n", json!({"execute": command, "arguments": arguments}));
        let sent = self.stream.get_mut().write_all(request.as_bytes());
        sent.map_err(LabError::io(format!("tell QEMU of {} to {command}", self.vm)))?;
        let end = clock::now() + PATIENCE;
        loop {
            let Some(mut line) = self.line(end)? else { return Err(self.error(command, "no answer")) };
            if let Some(event) = Event::of(&line) {
                self.events.push_back(event);
            } else if let Some(value) = line.get_mut("return") {
                return Ok(value.take());
            } else {
                let reason = line["error"]["desc"].as_str().map_or_else(|| line.to_string(), str::to_owned);
                return Err(self.error(command, &reason));
            }
        }
    }

    /// The next event; none when there is none until `end`.
    ///
    /// # Errors
    /// When QEMU has ended.
    pub(crate) fn event(&mut self, end: Instant) -> Result<Option<Event>, LabError> {
        loop {
            if let Some(event) = self.events.pop_front() {
                return Ok(Some(event));
            }
            let Some(line) = self.line(end)? else { return Ok(None) };
            self.events.extend(Event::of(&line));
        }
    }

    fn line(&mut self, end: Instant) -> Result<Option<Value>, LabError> {
        let failed = |vm: &str| LabError::io(format!("hear from QEMU of {vm}"));
        let left = end.saturating_duration_since(clock::now()).max(Duration::from_millis(1));
        self.stream.get_ref().set_read_timeout(Some(left)).map_err(failed(&self.vm))?;
        match self.stream.read_until(b'\n', &mut self.part) {
            Ok(_) if self.part.ends_with(b"\n") => {}
            Ok(_) => return Err(failed(&self.vm)(io::ErrorKind::UnexpectedEof.into())),
            Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut) => {
                return Ok(None);
            }
            Err(error) => return Err(failed(&self.vm)(error)),
        }
        let line = std::mem::take(&mut self.part);
        serde_json::from_slice(&line).map(Some).map_err(|error| failed(&self.vm)(error.into()))
    }

    fn error(&self, command: &str, reason: &str) -> LabError {
        LabError::Vm { vm: self.vm.clone(), what: format!("QEMU does not {command}: {reason}") }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::net::UnixListener;

    #[test]
    fn events_between_answers_are_kept() {
        let path = std::env::temp_dir().join(format!("weft-qmp-{}", std::process::id()));
        let listener = UnixListener::bind(&path).unwrap();
        let qemu = std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut requests = BufReader::new(stream.try_clone().unwrap()).lines();
            stream.write_all(b"{\"QMP\": {}}\r\n").unwrap();
            for answers in [
                "{\"return\": {}}\r\n",
                "{\"timestamp\": {\"seconds\": 7, \"microseconds\": 5}, \"event\": \"STOP\"}\r\n{\"return\": {\"status\": \"active\"}}\r\n",
                "{\"error\": {\"class\": \"GenericError\", \"desc\": \"no such thing\"}}\r\n{\"event\":",
            ] {
                requests.next().unwrap().unwrap();
                stream.write_all(answers.as_bytes()).unwrap();
            }
            (stream, requests)
        });
        let mut qmp = Qmp::connect("vm", &path).unwrap();
        std::fs::remove_file(&path).unwrap();
        assert_eq!(qmp.run("query-migrate", json!({})).unwrap()["status"], "active");
        let refused = qmp.run("cont", json!({})).unwrap_err().to_string();
        assert_eq!(refused, "vm: QEMU does not cont: no such thing");
        let (mut stream, _requests) = qemu.join().unwrap();
        let stop = Event { name: "STOP".to_owned(), at: Duration::from_micros(7_000_005) };
        assert_eq!(qmp.event(clock::now()).unwrap(), Some(stop));
        assert_eq!(qmp.event(clock::now()).unwrap(), None, "half a line is none");
        stream.write_all(b" \"RESUME\"}\r\n").unwrap();
        assert_eq!(
            qmp.event(clock::now() + PATIENCE).unwrap().map(|event| event.name).as_deref(),
            Some("RESUME")
        );
        drop((stream, _requests));
        assert!(qmp.event(clock::now() + PATIENCE).is_err(), "QEMU has ended");
    }
}
