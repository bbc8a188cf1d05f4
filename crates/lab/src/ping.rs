//! `ping` in a namespace, read into numbers.

use crate::{Lab, error::LabError};

/// What `ping` reported.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Ping {
    /// Requests sent.
    pub sent: u32,
    /// Replies received.
    pub received: u32,
    /// Average round trip in milliseconds, when any came back.
    pub average_ms: Option<f64>,
    /// The first round trip in milliseconds, address resolution included.
    pub first_ms: Option<f64>,
}

impl Ping {
    /// Whether every request was answered.
    #[must_use]
    pub fn complete(self) -> bool {
        self.sent > 0 && self.sent == self.received
    }

    /// Whether none was.
    #[must_use]
    pub fn nothing(self) -> bool {
        self.sent > 0 && self.received == 0
    }
}

/// Sends `count` echo requests from `node` to `target`, 50 ms apart, each waited for 1 s.
///
/// # Errors
/// When `ping` cannot be run or reports nothing.
pub fn ping(lab: &Lab, node: &str, target: &str, count: u32) -> Result<Ping, LabError> {
    run(lab, node, &["ping", "-n", "-i", "0.05", "-W", "1", "-c", &count.to_string(), target])
}

/// [`ping`] with a source address.
///
/// # Errors
/// When `ping` cannot be run or reports nothing.
pub fn ping_from(lab: &Lab, node: &str, source: &str, target: &str, count: u32) -> Result<Ping, LabError> {
    let count = count.to_string();
    run(lab, node, &["ping", "-n", "-i", "0.05", "-W", "1", "-I", source, "-c", &count, target])
}

fn run(lab: &Lab, node: &str, line: &[&str]) -> Result<Ping, LabError> {
    let output = lab.exec(node, line)?;
    let text = String::from_utf8_lossy(&output.stdout);
    parse(&text).ok_or_else(|| LabError::Answer {
        command: line.join(" "),
        reason: "there is no summary".to_owned(),
        answer: format!("{}{}", text.trim(), String::from_utf8_lossy(&output.stderr).trim()),
    })
}

fn parse(text: &str) -> Option<Ping> {
    let summary = text.lines().find(|line| line.contains("packets transmitted"))?;
    let mut numbers = summary.split_ascii_whitespace();
    let sent = numbers.next()?.parse().ok()?;
    let received = numbers.nth(2)?.parse().ok()?;
    let average_ms = text
        .lines()
        .find_map(|line| line.strip_prefix("rtt min/avg/max/mdev = "))
        .and_then(|line| line.split('/').nth(1)?.parse().ok());
    let first_ms = text.split_once("time=").and_then(|(_, rest)| rest.split(' ').next()?.parse().ok());
    Some(Ping { sent, received, average_ms, first_ms })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn summaries() {
        let text = "PING 10.0.0.2 (10.0.0.2) 56(84) bytes of data.
64 bytes from 10.0.0.2: icmp_seq=1 ttl=64 time=0.412 ms

--- 10.0.0.2 ping statistics ---
2 packets transmitted, 1 received, 50% packet loss, time 51ms
rtt min/avg/max/mdev = 0.412/0.412/0.412/0.000 ms
";
        let want = Ping { sent: 2, received: 1, average_ms: Some(0.412), first_ms: Some(0.412) };
        assert_eq!(parse(text), Some(want));
        let text = "1 packets transmitted, 0 received, +1 errors, 100% packet loss, time 0ms";
        assert!(parse(text).unwrap().nothing());
        assert_eq!(parse("ping: connect: Network is unreachable"), None);
    }
}
