//! What becomes of a grant that is not this NVE's any more, for whoever asks for its interface.

use super::Core;
use ::core::fmt;
use weft_model::{Epoch, Grant, NveName, XtrId};

/// Where a grant went.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Went {
    /// To another NVE.
    To {
        /// Which.
        nve: XtrId,
        /// Its name, where that is known.
        name: Option<NveName>,
        /// The epoch at which that NVE holds it, likewise.
        epoch: Option<Epoch>,
    },
    /// It is nobody's.
    Released,
    /// It went with its VN.
    VnDeleted,
    /// It is not this NVE's: a list says no more.
    Unknown,
}

/// An interface's grant went elsewhere.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Lost {
    /// The highest epoch at which it was this NVE's.
    pub with: Epoch,
    /// Where it went.
    pub went: Went,
}

impl Went {
    /// What may be done about it.
    pub(super) const fn remedy(&self) -> &'static str {
        match self {
            Self::To { .. } => "use it there, or move it back by `weft tsi move`",
            Self::Released => "attach it anew, or detach it here",
            Self::VnDeleted => "detach it here",
            Self::Unknown => "`weft get tsis` shows who has it",
        }
    }
}

impl fmt::Display for Went {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::To { nve, name, epoch } => {
                match name {
                    Some(name) => write!(f, "granted to NVE '{name}'")?,
                    None => write!(f, "granted to NVE {nve}")?,
                }
                epoch.map_or(Ok(()), |epoch| write!(f, " (epoch {epoch})"))
            }
            Self::Released => f.write_str("released: nobody holds it"),
            Self::VnDeleted => f.write_str("its VN is deleted"),
            Self::Unknown => f.write_str("not granted to this NVE any more"),
        }
    }
}

impl Core {
    /// The store says where a grant went that was this NVE's, or was to be.
    pub(super) fn grant_went(&mut self, revision: u64, grant: Grant, holder: NveName) {
        let went = match grant.epoch_of(self.config.xtr_id) {
            // As it was.
            Ok(_) => Went::Released,
            Err(_) => Went::To { nve: grant.owner, name: Some(holder), epoch: Some(grant.epoch) },
        };
        let id = grant.tsi;
        let Some(tsi) = self.tsis.get_mut(&id).filter(|tsi| tsi.revision <= revision) else { return };
        tsi.revision = revision;
        match &mut tsi.lost {
            // An Oracle has said so before, or a list, and neither says all of it.
            Some(lost) => lost.went = went,
            None => self.lose_grant(&id, went),
        }
    }

    /// To another NVE, by whatever is known of it.
    pub(super) fn went_to(&self, nve: XtrId, epoch: Option<Epoch>) -> Went {
        Went::To { nve, name: self.nve_name(nve).cloned(), epoch }
    }

    /// What a newer version of a grant says that is not this NVE's.
    pub(super) fn went_with(&self, grant: &Grant) -> Went {
        self.went_to(grant.owner, Some(grant.epoch))
    }
}
