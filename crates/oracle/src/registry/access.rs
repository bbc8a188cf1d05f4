//! Who asks.

use weft_model::{NveName, XtrId};

/// On whose behalf an operation runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Caller {
    /// An operator.
    Operator,
    /// An NVE, by its certificate.
    Nve {
        /// Its xTR-ID.
        xtr_id: XtrId,
        /// Its name.
        name: NveName,
        /// Which start of its agent asks; later ones have higher numbers. None does not say.
        start: Option<u64>,
    },
}

impl Caller {
    /// The NVE, if it is one.
    #[must_use]
    pub const fn nve(&self) -> Option<XtrId> {
        match self {
            Self::Operator => None,
            Self::Nve { xtr_id, .. } => Some(*xtr_id),
        }
    }
}
