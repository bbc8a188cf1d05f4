//! Names people give to VNs, tenant system interfaces and NVEs.

use core::{fmt, str::FromStr};
use serde::{Deserialize, Serialize};

/// A name: 1 to 63 of `a-z 0-9 . _ -`, beginning and ending with a letter or digit.
///
/// The set is one that fits file names, URLs, metric labels and certificates without quoting.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema), schema(value_type = String, example = "red"))]
pub struct Name(String);

/// The name of a virtual network, unique at the Oracle.
pub type VnName = Name;
/// The name of a tenant system interface, unique in its VN.
pub type TsiName = Name;
/// The name of an NVE, unique at the Oracle.
pub type NveName = Name;

/// Why a text is not a name.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// Empty.
    #[error("a name cannot be empty; use 1 to 63 of a-z 0-9 . _ -")]
    Empty,
    /// Longer than 63.
    #[error("'{0}' is {len} characters long; a name has at most 63", len = .0.chars().count())]
    TooLong(String),
    /// A character outside the set.
    #[error("'{name}' has '{character}' in it; use a-z 0-9 . _ - only")]
    Character {
        /// The refused text.
        name: String,
        /// The first character outside the set.
        character: char,
    },
    /// Begins or ends with a mark.
    #[error("'{0}' must begin and end with a letter or a digit")]
    Ends(String),
}

impl Name {
    /// The longest name, in characters.
    pub const MAX: usize = 63;

    /// Checks `text`.
    ///
    /// # Errors
    /// One [`NameError`] for each rule.
    pub fn new(text: impl Into<String>) -> Result<Self, NameError> {
        let text = text.into();
        let (Some(first), Some(last)) = (text.chars().next(), text.chars().next_back()) else {
            return Err(NameError::Empty);
        };
        if text.chars().count() > Self::MAX {
            return Err(NameError::TooLong(text));
        }
        let legal = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, '.' | '_' | '-');
        if let Some(character) = text.chars().find(|c| !legal(*c)) {
            return Err(NameError::Character { name: text, character });
        }
        if !first.is_ascii_alphanumeric() || !last.is_ascii_alphanumeric() {
            return Err(NameError::Ends(text));
        }
        Ok(Self(text))
    }

    /// The text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for Name {
    type Err = NameError;
    fn from_str(text: &str) -> Result<Self, NameError> {
        Self::new(text)
    }
}

impl TryFrom<String> for Name {
    type Error = NameError;
    fn try_from(text: String) -> Result<Self, NameError> {
        Self::new(text)
    }
}

impl From<Name> for String {
    fn from(name: Name) -> Self {
        name.0
    }
}

impl AsRef<str> for Name {
    fn as_ref(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

impl fmt::Debug for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reasons() {
        for good in ["a", "red", "web-1", "10.0", "a_b", &"x".repeat(63)] {
            assert!(Name::new(good).is_ok(), "{good}");
        }
        assert_eq!(Name::new(""), Err(NameError::Empty));
        assert!(matches!(Name::new("x".repeat(64)), Err(NameError::TooLong(_))));
        for (bad, character) in [("Red", 'R'), ("a b", ' '), ("a/b", '/'), ("ä", 'ä'), ("a\n", '\n')] {
            assert_eq!(Name::new(bad), Err(NameError::Character { name: bad.into(), character }));
        }
        for bad in ["-a", "a-", ".", "..", "_"] {
            assert_eq!(Name::new(bad), Err(NameError::Ends(bad.into())));
        }
    }
}
