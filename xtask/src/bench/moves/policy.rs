//! What the one that moves may do, and what others send it all the while that its policy refuses.

use super::{
    guest::{ADDRESSES, NAME, TENANTS},
    held,
};
use anyhow::Result;
use std::net::SocketAddr;
use weft_lab::{Lab, probe::Stream};

/// Datagrams a second of each that are refused, and the first of the ports that they go to.
const RATE: u32 = 1_000;
const PORT: u16 = 7_100;

/// Has the one that moves be asked for echoes, connected to at one port, and answered; nothing else.
pub(super) fn set(lab: &Lab, vn: &str) -> Result<()> {
    let tcp = format!("in tcp/{}", held::PORT);
    let mut words = vec!["group", "set", NAME, "--vn", vn];
    for rule in ["in icmp/8", "in icmpv6/128", &tcp, "out any to anybody"] {
        words.extend(["--rule", rule]);
    }
    lab.weft(words)?;
    lab.weft(["tsi", "set-groups", "--vn", vn, "--name", NAME, "--groups", NAME])?;
    Ok(())
}

/// Datagrams that its policy refuses, from both other tenants, each over another version of IP.
pub(super) struct Refused(Vec<Stream>);

impl Refused {
    pub(super) fn start(lab: &Lab) -> Result<Self> {
        let to = lab.node(NAME)?;
        let stream = |((port, from), at)| -> Result<Stream> {
            Ok(Stream::start_at(&lab.node(from)?, &to, SocketAddr::new(at, port), RATE)?)
        };
        let all = (PORT..).zip(TENANTS).zip(ADDRESSES);
        Ok(Self(all.map(stream).collect::<Result<_>>()?))
    }

    /// Ends it: how many were sent, and how many came through.
    pub(super) fn end(self) -> [u64; 2] {
        let counts = self
            .0
            .iter()
            .fold([0, 0], |[sent, through], stream| [sent + stream.sent(), through + stream.received()]);
        self.0.into_iter().for_each(Stream::cancel);
        counts
    }
}
