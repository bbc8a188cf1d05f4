//! What somebody wants of a VN's multicast.

use crate::{AddrError, GroupIp};
use core::{fmt, str::FromStr};
use serde::{Deserialize, Serialize};

/// One multicast group, or all of them: who wants more groups than may be kept of him gets every one, as at a switch
/// whose table is full (RFC 4541 section 2.1.2). Written as the group's address, or as `all`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum Wanted {
    /// Every group.
    All,
    /// This one.
    Group(GroupIp),
}

impl Wanted {
    /// The group, if it is one.
    #[must_use]
    pub const fn group(self) -> Option<GroupIp> {
        match self {
            Self::All => None,
            Self::Group(group) => Some(group),
        }
    }
}

impl From<GroupIp> for Wanted {
    fn from(group: GroupIp) -> Self {
        Self::Group(group)
    }
}

impl FromStr for Wanted {
    type Err = AddrError;
    fn from_str(text: &str) -> Result<Self, AddrError> {
        if text == "all" { Ok(Self::All) } else { text.parse().map(Self::Group) }
    }
}

impl TryFrom<String> for Wanted {
    type Error = AddrError;
    fn try_from(text: String) -> Result<Self, AddrError> {
        text.parse()
    }
}

impl From<Wanted> for String {
    fn from(wanted: Wanted) -> Self {
        wanted.to_string()
    }
}

impl fmt::Display for Wanted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::All => f.write_str("all"),
            Self::Group(group) => group.fmt(f),
        }
    }
}

impl fmt::Debug for Wanted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_and_back() {
        for text in ["all", "239.1.2.3", "ff15::1"] {
            let wanted: Wanted = text.parse().unwrap();
            assert_eq!((wanted.to_string(), wanted.group().is_none()), (text.to_owned(), text == "all"));
            let json = serde_json::to_string(&wanted).unwrap();
            assert_eq!(json, format!("\"{text}\""));
            assert_eq!(serde_json::from_str::<Wanted>(&json).unwrap(), wanted);
        }
        assert!(matches!("224.0.0.1".parse::<Wanted>(), Err(AddrError::LinkGroup(_))));
        assert!(serde_json::from_str::<Wanted>("\"some\"").is_err());
        assert!(Wanted::All < Wanted::Group("224.0.1.1".parse().unwrap()));
    }
}
