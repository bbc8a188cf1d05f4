//! `ping` in a namespace, read into numbers.

use anyhow::Context as _;
use weft_lab::Lab;

/// What `ping` reported.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Ping {
    /// Requests sent.
    pub sent: u32,
    /// Replies received.
    pub received: u32,
    /// Average round trip in milliseconds, when any came back.
    pub average_ms: Option<f64>,
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
pub fn ping(lab: &Lab, node: &str, target: &str, count: u32) -> anyhow::Result<Ping> {
    run(lab, node, &["ping", "-n", "-i", "0.05", "-W", "1", "-c", &count.to_string(), target])
}

/// [`ping`] with a source address.
///
/// # Errors
/// When `ping` cannot be run or reports nothing.
pub fn ping_from(lab: &Lab, node: &str, source: &str, target: &str, count: u32) -> anyhow::Result<Ping> {
    let count = count.to_string();
    run(lab, node, &["ping", "-n", "-i", "0.05", "-W", "1", "-I", source, "-c", &count, target])
}

fn run(lab: &Lab, node: &str, line: &[&str]) -> anyhow::Result<Ping> {
    let output = lab.exec(node, line)?;
    let text = String::from_utf8_lossy(&output.stdout);
    parse(&text)
        .with_context(|| format!("{}: {}{}", line.join(" "), text, String::from_utf8_lossy(&output.stderr)))
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
    Some(Ping { sent, received, average_ms })
}
