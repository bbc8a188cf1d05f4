//! Overlay nodes: enrolled NVEs and configured xTRs, with what waits to be sent to them.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::IpAddr;

use weft_lisp as lisp;
use weft_lisp::tcp::SubscribeError;
use weft_model::{Eid, NveName, Rloc, Time, Vni, Wanted, XtrId};

use super::groups::Named;
use super::limits::TokenBucket;
use super::liveness::Lost;
use super::output::SessionId;
use super::subscribe::Feeds;
use super::xtr::PlainXtr;

/// An NVE or a plain xTR.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Node {
    pub(crate) name: Option<NveName>,
    pub(crate) rlocs: Vec<Rloc>,
    /// For a plain xTR: key, nonces.
    pub(crate) plain: Option<PlainXtr>,
    /// Its Map-Requests.
    pub(crate) bucket: TokenBucket,
    pub(crate) session: Option<Session>,
    /// The latest session there has been: sessions are numbered as they come.
    pub(crate) latest: Option<SessionId>,
    /// Set from the loss of the session to the next one.
    pub(crate) lost: Option<Lost>,
    /// What it must be told about: of each, what there is when it is sent. Kept while it has no session, for
    /// when it comes back.
    pub(crate) pending: BTreeSet<(Vni, Eid)>,
    /// The echo of its first moment of a session, and that one was ever answered: others are no witnesses.
    pub(crate) greeting: Option<u64>,
    pub(crate) echoes: bool,
    /// It stands in [`Outbox::ready`](super::output::Outbox::ready).
    pub(crate) queued: bool,
    /// Its snapshots wait for their turn.
    pub(crate) pushing: bool,
    /// Which of our addresses it asks: SMRs come from there.
    pub(crate) asked_at: Option<IpAddr>,
    /// The UDP port it takes LISP messages at.
    pub(crate) lisp_port: u16,
    /// It has said which multicast groups it receives, in its latest session or in one before.
    pub(crate) narrowed: bool,
}

impl Node {
    pub(crate) const fn new(bucket: TokenBucket) -> Self {
        Self {
            name: None,
            rlocs: Vec::new(),
            plain: None,
            bucket,
            session: None,
            latest: None,
            lost: None,
            pending: BTreeSet::new(),
            greeting: None,
            echoes: false,
            queued: false,
            pushing: false,
            asked_at: None,
            lisp_port: lisp::wire::CONTROL_PORT,
            narrowed: false,
        }
    }
}

/// A session of an NVE.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Session {
    pub(crate) id: SessionId,
    /// The other side has said hello, so it knows our own frames.
    pub(crate) hello: bool,
    /// It has said that it names its groups.
    pub(crate) names_groups: bool,
    /// Raised at each request to register again: what is registered belongs to a round.
    pub(crate) round: u64,
    /// The round since which everything must have been named by an end of registration.
    pub(crate) snapshot: u64,
    /// VNs being registered again: the round that counts, and when it was asked for.
    pub(crate) refreshing: BTreeMap<Vni, (u64, Time)>,
    /// Registrations that wait for their grant's fact, by the first EID in them; the latest each.
    pub(crate) parked: BTreeMap<(Vni, Eid), Parked>,
    /// When everything was last asked for again.
    pub(crate) refreshed: Option<Time>,
    pub(crate) controls: VecDeque<Control>,
    /// The I/O has said that it cannot take more.
    pub(crate) congested: bool,
    pub(crate) feeds: Feeds,
    /// What it has named of the groups that it has receivers of.
    pub(crate) groups: BTreeMap<Vni, Named>,
    /// VNs of which it is asked for groups that were not kept, and how often more.
    pub(crate) lost: BTreeMap<Vni, u8>,
}

impl Session {
    pub(crate) fn new(id: SessionId, round: u64) -> Self {
        Self {
            id,
            hello: false,
            names_groups: false,
            round,
            snapshot: round,
            refreshing: BTreeMap::new(),
            parked: BTreeMap::new(),
            refreshed: None,
            controls: VecDeque::new(),
            congested: false,
            feeds: Feeds::default(),
            groups: BTreeMap::new(),
            lost: BTreeMap::new(),
        }
    }

    /// Whether the other side knows our frames about this.
    pub(crate) fn understands(&self, wanted: Wanted) -> bool {
        self.hello && (self.names_groups || wanted != Wanted::All)
    }
}

/// A registration that no grant allows yet.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Parked {
    /// The frame's.
    pub(crate) id: u32,
    /// The Map-Register.
    pub(crate) octets: Vec<u8>,
    /// When it is refused.
    pub(crate) until: Time,
}

/// A frame to be sent on a session, other than a notification.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Control {
    Hello,
    Ack {
        id: u32,
        eid: Option<lisp::Eid>,
    },
    Reject {
        id: u32,
        reason: lisp::tcp::RejectReason,
        eid: Option<lisp::Eid>,
    },
    Refresh {
        vni: Option<Vni>,
    },
    Malformed {
        frame_type: u16,
        length: u16,
        id: u32,
    },
    Unknown {
        frame_type: u16,
        length: u16,
        id: u32,
    },
    Digest {
        vni: Vni,
    },
    Subscribed {
        id: u32,
        afi: u16,
        iid: u32,
    },
    NotSubscribed {
        id: u32,
        afi: u16,
        iid: u32,
        error: SubscribeError,
    },
    MappingsRefused {
        id: u32,
        vni: u32,
        error: SubscribeError,
    },
    /// Where an address is or would come back to, for who claims it.
    Holder {
        vni: Vni,
        eid: Eid,
    },
}

/// All nodes, found by xTR-ID and by RLOC.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) struct Nodes {
    nodes: BTreeMap<XtrId, Node>,
    by_rloc: BTreeSet<(Rloc, XtrId)>,
    /// Sessions that are their node's current one.
    pub(crate) sessions: BTreeMap<SessionId, XtrId>,
    /// Nodes whose session is lost.
    pub(crate) lost: BTreeSet<XtrId>,
}

impl Nodes {
    pub(crate) fn get(&self, id: XtrId) -> Option<&Node> {
        self.nodes.get(&id)
    }

    pub(crate) fn get_mut(&mut self, id: XtrId) -> Option<&mut Node> {
        self.nodes.get_mut(&id)
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (XtrId, &Node)> + '_ {
        self.nodes.iter().map(|(id, node)| (*id, node))
    }

    /// Who is at `rloc`: one, unless a host was enrolled twice.
    pub(crate) fn at(&self, rloc: Rloc) -> impl Iterator<Item = (XtrId, &Node)> + '_ {
        self.by_rloc
            .range((rloc, XtrId([0; 16]))..=(rloc, XtrId([0xff; 16])))
            .filter_map(|(_, id)| self.nodes.get(id).map(|node| (*id, node)))
    }

    /// Adds a node or changes its name and RLOCs.
    pub(crate) fn put(&mut self, id: XtrId, rlocs: Vec<Rloc>, new: impl FnOnce() -> Node) -> &mut Node {
        if let Some(node) = self.nodes.get(&id) {
            for rloc in &node.rlocs {
                self.by_rloc.remove(&(*rloc, id));
            }
        }
        for rloc in &rlocs {
            self.by_rloc.insert((*rloc, id));
        }
        let node = self.nodes.entry(id).or_insert_with(new);
        node.rlocs = rlocs;
        node
    }

    pub(crate) fn remove(&mut self, id: XtrId) -> Option<Node> {
        let node = self.nodes.remove(&id)?;
        for rloc in &node.rlocs {
            self.by_rloc.remove(&(*rloc, id));
        }
        if let Some(session) = &node.session {
            self.sessions.remove(&session.id);
        }
        self.lost.remove(&id);
        Some(node)
    }

    /// The node of a session that is still its current one.
    pub(crate) fn of_session(&mut self, session: SessionId) -> Option<(XtrId, &mut Node, SessionId)> {
        let id = *self.sessions.get(&session)?;
        self.nodes.get_mut(&id).map(|node| (id, node, session))
    }
}
