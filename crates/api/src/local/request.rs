//! Ids of requests.

use core::fmt;
use serde::{Deserialize, Serialize};

/// The id of a request: 1 to 128 ASCII letters, digits and `-._~:`, chosen by the caller, who uses it for
/// nothing else.
///
/// The same request again under its id is answered as it was, without a second effect; another one is refused.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(try_from = "String", into = "String")]
pub struct RequestId(String);

/// What cannot be the id of a request.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} cannot be a request id: that is 1 to 128 ASCII letters, digits and -._~:, a UUID for one")]
pub struct RequestIdError(pub String);

impl RequestId {
    /// The id that is written so.
    ///
    /// # Errors
    /// [`RequestIdError`].
    pub fn new(text: impl Into<String>) -> Result<Self, RequestIdError> {
        let text = text.into();
        let good = (1..=128).contains(&text.len())
            && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"-._~:".contains(&b));
        if good { Ok(Self(text)) } else { Err(RequestIdError(text.chars().take(128).collect())) }
    }

    /// As it is written.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl TryFrom<String> for RequestId {
    type Error = RequestIdError;

    fn try_from(text: String) -> Result<Self, RequestIdError> {
        Self::new(text)
    }
}

impl core::str::FromStr for RequestId {
    type Err = RequestIdError;

    fn from_str(text: &str) -> Result<Self, RequestIdError> {
        Self::new(text)
    }
}

impl From<RequestId> for String {
    fn from(id: RequestId) -> Self {
        id.0
    }
}

impl fmt::Display for RequestId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}
