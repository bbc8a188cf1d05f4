//! Lists and the events of a watch.

use serde::{Deserialize, Serialize};

/// All objects of one kind that the caller may see, at one moment of the store.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct List<T> {
    /// The moment: watch from here to see every later change.
    pub resource_version: u64,
    /// The objects.
    pub items: Vec<T>,
}

/// One line of a watch.
///
/// `added` and `modified` both mean "this is the object now": a watcher may see either for an
/// object it knows already and applies them alike.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(tag = "type", rename_all = "lowercase")]
pub enum Event<T> {
    /// The object is new, or new to the caller.
    Added {
        /// When.
        resource_version: u64,
        /// The object as it is now.
        object: T,
    },
    /// The object changed.
    Modified {
        /// When.
        resource_version: u64,
        /// The object as it is now.
        object: T,
    },
    /// The object is gone, or out of the caller's sight.
    Deleted {
        /// When.
        resource_version: u64,
        /// The object as it last was; of one out of sight as it is.
        object: T,
    },
    /// Everything up to here has been sent: comes once the history is replayed, then as heartbeat.
    Bookmark {
        /// When.
        resource_version: u64,
    },
}

impl<T> Event<T> {
    /// The moment in the store's history; watch again from here after a break.
    #[must_use]
    pub const fn resource_version(&self) -> u64 {
        match self {
            Self::Added { resource_version, .. }
            | Self::Modified { resource_version, .. }
            | Self::Deleted { resource_version, .. }
            | Self::Bookmark { resource_version } => *resource_version,
        }
    }
}
