//! What may happen next.

use weft_model::{Epoch, TsiId, XtrId};
use weft_nve::core::CallId;

/// Who sends or receives a datagram.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Side {
    /// An NVE.
    Nve(usize),
    /// The Oracle.
    Oracle,
}

/// A datagram under way.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Datagram {
    /// From.
    pub from: Side,
    /// To.
    pub to: Side,
    /// The LISP message.
    pub octets: Vec<u8>,
}

impl std::fmt::Debug for Datagram {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:?} to {:?}, {} octets", self.from, self.to, self.octets.len())
    }
}

/// What may happen next.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Action {
    /// The Oracle reads what is next on an NVE's session.
    OracleReads(usize),
    /// An NVE reads what is next on its session.
    NveReads(usize),
    /// An NVE is told of its grants, as they were when that was written.
    Watch(usize),
    /// A call of /v1 is carried out.
    Serve(usize, CallId),
    /// A grant that an agent which is dead has given back: its call arrives.
    ServeLate(usize),
    /// Its answer arrives.
    Answer(usize, CallId),
    /// The answer does not: whether it was carried out the NVE does not know.
    LoseAnswer(usize, CallId),
    /// Who has become the owner is written down.
    Commit(TsiId, XtrId, Epoch),
    /// A datagram arrives.
    Datagram(Datagram),
    /// It does, and will once more.
    Double(Datagram),
    /// It does not.
    LoseDatagram(Datagram),
    /// An NVE's session ends with all that is under way on it; its watch with it.
    LoseSession(usize),
    /// An NVE connects to the Oracle.
    Connect(usize),
    /// An agent dies.
    KillAgent(usize),
    /// It dies before what it has written last is on its disk.
    KillUnsaved(usize),
    /// It starts again.
    StartAgent(usize),
    /// The Oracle dies.
    KillOracle,
    /// It starts again.
    StartOracle,
    /// Nothing happens until the next deadline.
    Tick,
    /// An operator says that web moves to the other NVE.
    Name,
    /// The hypervisor there prepares that.
    Associate,
    /// Where it runs it is taken out of service.
    Deactivate,
    /// Where it moves to it is put in service.
    Activate,
    /// The NVE that it left, or is about to leave, lets go of it.
    LetGo,
    /// Where it has come to it ends.
    End,
    /// An operator calls the move off.
    CallOff,
    /// db looks for web.
    Ask,
}
