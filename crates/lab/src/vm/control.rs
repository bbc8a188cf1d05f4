//! Commands in a virtual machine, over its second serial line: one line asks, one line answers (see `init.sh`).

use super::ANSWER_WITHIN;
use crate::{clock, error::LabError};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use std::{
    ffi::OsStr,
    io::{self, BufRead as _, BufReader, Read as _, Write as _},
    os::unix::{ffi::OsStrExt as _, net::UnixStream, process::ExitStatusExt as _},
    path::Path,
    process::{ExitStatus, Output},
    sync::atomic::{AtomicU32, Ordering},
    time::Duration,
};

/// The longest command: what the machine's serial line surely holds while the agent reads it octet by octet.
const LONGEST: usize = 16 << 10;
/// The longest answer that is read, in base64.
const MOST: u64 = 64 << 20;
/// How long an agent that listens takes to answer a command that does nothing, on a busy machine.
const PATIENCE: Duration = Duration::from_secs(2);

/// Waits until the agent answers; gives whether it did within `ceiling`. `alive` says whether QEMU still runs.
pub(crate) fn wait_up(socket: &Path, ceiling: Duration, alive: impl Fn() -> bool) -> bool {
    // What was asked before the agent listened is lost: ask again, under another number.
    let asked = clock::until(ceiling, || {
        if !alive() {
            return Err(());
        }
        Ok(ask(socket, b"true", PATIENCE).ok().map(|_| ()))
    });
    asked.is_ok_and(|answered| answered.is_some())
}

/// Runs `line` in the machine to its end and gives all it wrote.
pub(crate) fn exec<S: AsRef<OsStr>>(vm: &str, socket: &Path, line: &[S]) -> Result<Output, LabError> {
    let command = line.iter().map(|word| quoted(word.as_ref())).collect::<Vec<_>>().join(&b' ');
    if command.len() > LONGEST {
        let what = format!("a command of {} octets is too long for it: {LONGEST} at most", command.len());
        return Err(LabError::Vm { vm: vm.to_owned(), what });
    }
    // The agent ends a command after ANSWER_WITHIN and then answers.
    ask(socket, &command, ANSWER_WITHIN + PATIENCE * 5).map_err(|error| LabError::Vm {
        vm: vm.to_owned(),
        what: format!("its agent does not answer ({error}): see its console's log in the run directory"),
    })
}

fn ask(socket: &Path, command: &[u8], patience: Duration) -> io::Result<Output> {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    let number = format!("{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
    let mut stream = UnixStream::connect(socket)?;
    stream.set_write_timeout(Some(patience))?;
    // A line of its own, also after half of one.
    stream.write_all(format!("\n{number} {}\n", STANDARD.encode(command)).as_bytes())?;
    let end = clock::now() + patience;
    let mut reader = BufReader::new(stream).take(MOST);
    let mut line = Vec::new();
    loop {
        let left = end.saturating_duration_since(clock::now()).max(Duration::from_millis(1));
        reader.get_ref().get_ref().set_read_timeout(Some(left))?;
        // A line that came in parts goes on where it ended.
        if reader.read_until(b'\n', &mut line)? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        match answer(&number, &line) {
            Some(output) => return Ok(output),
            None => line.clear(),
        }
    }
}

/// The answer to request `number`.
fn answer(number: &str, line: &[u8]) -> Option<Output> {
    let text = std::str::from_utf8(line).ok()?;
    let [of, status, output, errors] = text.split_ascii_whitespace().collect::<Vec<_>>().try_into().ok()?;
    let status: i32 = status.parse().ok()?;
    let decoded = |field: &str| STANDARD.decode(field.strip_suffix('.')?).ok();
    (of == number).then_some(Output {
        // As wait(2) gives it: the exit status is the second octet.
        status: ExitStatus::from_raw((status & 0xff) << 8),
        stdout: decoded(output)?,
        stderr: decoded(errors)?,
    })
}

/// `word` as the shell reads it.
fn quoted(word: &OsStr) -> Vec<u8> {
    let mut all = vec![b'\''];
    for octet in word.as_bytes() {
        match octet {
            b'\'' => all.extend(b"'\\''"),
            other => all.push(*other),
        }
    }
    all.push(b'\'');
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_that_of_its_request() {
        let output = answer("7-1", b"7-1 3 aGk=. .\n").unwrap();
        assert_eq!(output.status.code(), Some(3));
        assert_eq!((output.stdout, output.stderr), (b"hi".to_vec(), Vec::new()));
        for other in [&b"7-2 3 aGk=. .\n"[..], b"7-1 3 aGk= .\n", b"7-1 3 aGk=.", b"", b"7-1 x aGk=. ."] {
            assert_eq!(answer("7-1", other), None);
        }
    }

    #[test]
    fn words_stay_words() {
        assert_eq!(quoted(OsStr::new("it's $(a)")), b"'it'\\''s $(a)'");
    }
}
