//! What NVEs say to each other: a question in JSON, an answer in lines of JSON. Reading ignores what it does not know.

use super::error::{FetchError, Refusal};
use crate::core::{Context, Delta, Ends, Live};
use serde::{Deserialize, Serialize};
use std::{collections::BTreeSet, time::Duration};
use weft_api::Vn;
use weft_datapath::{Connection, ConnectionState, Levels, Toward};
use weft_model::{Eid, Epoch, Grant, Vni, Wanted};

/// The version of question and answer. Another one is refused: what it means is not known.
pub(super) const VERSION: u32 = 1;
/// The longest question, octets.
pub(super) const QUESTION: usize = 16 << 10;
/// The longest line of an answer, octets: some 20,000 connections.
pub(super) const LINE: usize = 4 << 20;

/// The question.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Question {
    pub(super) version: u32,
    /// An Oracle's word that the tenant system moves to who asks.
    pub(super) ticket: String,
}

/// A line of the answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Line {
    /// The first.
    Context(Box<ContextLine>),
    /// It stops, and a delta follows.
    Stopping,
    Delta(DeltaLine),
    /// It goes on there after that: it may stop again.
    Resumed,
    /// It is gone from there. The last.
    End,
    /// Nothing new, but somebody is there.
    Alive,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct ContextLine {
    version: u32,
    /// The store's revision up to which the NVE has heard.
    revision: u64,
    grant: Grant,
    /// At which the NVE holds it.
    epoch: Epoch,
    vn: Vn,
    activated: bool,
    live: LiveLine,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct DeltaLine {
    live: LiveLine,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    ended: Vec<Ends>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct LiveLine {
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    connections: Vec<Flow>,
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    groups: BTreeSet<Wanted>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    addresses: Vec<Eid>,
    /// Octets that were left of what it may send and be sent. Never an error: more than there is room for is as much as that.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    send_left: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    receive_left: Option<u64>,
}

/// A connection. Which rule let it through is its NVE's to say: another counts its own.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Flow {
    ends: Ends,
    opened: Opened,
    /// As in the data plane: 0 opening, 1 answered, 2 established, 3 ended here, 4 ended there, 5 closing.
    state: u8,
    idle_ms: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Opened {
    In,
    Out,
}

impl Flow {
    fn of(c: &Connection) -> Self {
        Self {
            ends: crate::core::ends(c),
            opened: if c.opened == Toward::In { Opened::In } else { Opened::Out },
            state: c.state.code(),
            idle_ms: u64::try_from(c.idle.as_millis()).unwrap_or(u64::MAX),
        }
    }

    fn read(self, vni: Vni) -> Result<Connection, FetchError> {
        let (local, remote, protocol, local_port, remote_port) = self.ends;
        let state = ConnectionState::from_code(self.state)
            .ok_or_else(|| FetchError::Malformed(format!("{} is no state of a connection", self.state)))?;
        if local.is_ipv4() != remote.is_ipv4() {
            return Err(FetchError::Malformed(format!("a connection of {local} and {remote}")));
        }
        let opened = if self.opened == Opened::In { Toward::In } else { Toward::Out };
        let idle = Duration::from_millis(self.idle_ms);
        let (rule, vni) = (0, vni);
        Ok(Connection { vni, local, remote, protocol, local_port, remote_port, opened, state, rule, idle })
    }
}

impl LiveLine {
    fn of(live: Live) -> Self {
        let connections = live.connections.iter().map(Flow::of).collect();
        let Live { groups, addresses, levels: Levels { send, receive }, .. } = live;
        let [send_left, receive_left] = [send, receive].map(|left| left.map(u64::from));
        Self { connections, groups, addresses, send_left, receive_left }
    }

    fn read(self, vni: Vni) -> Result<Live, FetchError> {
        let connections =
            self.connections.into_iter().map(|flow| flow.read(vni)).collect::<Result<_, _>>()?;
        let left = |left: Option<u64>| left.map(|left| u32::try_from(left).unwrap_or(u32::MAX));
        let levels = Levels { send: left(self.send_left), receive: left(self.receive_left) };
        Ok(Live { connections, groups: self.groups, addresses: self.addresses, levels })
    }
}

impl Line {
    /// A context as it is sent.
    pub(super) fn context(context: Context) -> Self {
        let Context { revision, grant, epoch, vn, activated, live } = context;
        let (vn, live) = (vn.into(), LiveLine::of(live));
        Self::Context(Box::new(ContextLine { version: VERSION, revision, grant, epoch, vn, activated, live }))
    }

    /// A delta as it is sent.
    pub(super) fn delta(delta: Delta) -> Self {
        Self::Delta(DeltaLine { live: LiveLine::of(delta.live), ended: delta.ended })
    }

    /// Its octets, with the end of the line.
    pub(super) fn octets(&self) -> Vec<u8> {
        let mut octets = serde_json::to_vec(self).unwrap_or_default();
        octets.push(b'\n');
        octets
    }

    /// Reads a line.
    pub(super) fn read(octets: &[u8]) -> Result<Self, FetchError> {
        #[derive(Deserialize)]
        struct OfVersion {
            context: Version,
        }
        #[derive(Deserialize)]
        struct Version {
            version: u32,
        }
        // First: what else another version says need not be readable.
        if let Ok(OfVersion { context: Version { version } }) = serde_json::from_slice(octets)
            && version != VERSION
        {
            return Err(FetchError::Version { theirs: version, ours: VERSION });
        }
        serde_json::from_slice(octets).map_err(|e| FetchError::Malformed(e.to_string().replace('\n', " ")))
    }
}

impl ContextLine {
    /// What it means.
    pub(super) fn read(self) -> Result<Context, FetchError> {
        let live = self.live.read(self.grant.tsi.vni)?;
        let Self { revision, grant, epoch, vn, activated, .. } = self;
        Ok(Context { revision, grant, epoch, vn: vn.into(), activated, live })
    }
}

impl DeltaLine {
    /// What it means, in this VN.
    pub(super) fn read(self, vni: Vni) -> Result<Delta, FetchError> {
        Ok(Delta { live: self.live.read(vni)?, ended: self.ended })
    }
}

impl Question {
    /// Reads a question.
    pub(super) fn read(octets: &[u8]) -> Result<Self, Refusal> {
        #[derive(Deserialize)]
        struct Version {
            version: u32,
        }
        if let Ok(Version { version }) = serde_json::from_slice(octets)
            && version != VERSION
        {
            return Err(Refusal::Version { theirs: version, ours: VERSION });
        }
        serde_json::from_slice(octets).map_err(|e| Refusal::Body(e.to_string()))
    }
}
