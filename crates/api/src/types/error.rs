//! The body of every answer that is not a success (in the spirit of RFC 9457).

use serde::{Deserialize, Serialize};

/// Why a request was refused, for programs. New codes may appear: treat [`Code::Unknown`] by its status.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, utoipa::ToSchema,
)]
#[serde(rename_all = "snake_case")]
pub enum Code {
    /// The request itself is malformed: 400.
    BadRequest,
    /// Legal, but this version cannot do it: 400.
    NotSupported,
    /// No client certificate where one is needed: 401.
    Unauthenticated,
    /// The certificate's role may not do this: 403.
    Forbidden,
    /// The certificate was revoked by removing the NVE: 403.
    Revoked,
    /// The join secret is not one of ours: 403.
    TokenUnknown,
    /// The join token has been used as often as it may: 403.
    TokenUsed,
    /// The join token is too old: 403.
    TokenExpired,
    /// No such object: 404.
    NotFound,
    /// The method does not exist on this path: 405.
    MethodNotAllowed,
    /// A VN of that name exists: 409.
    VnTaken,
    /// A VN with that VNID exists: 409.
    VniTaken,
    /// Tenant systems are still in the VN: 409.
    VnInUse,
    /// An NVE of that name exists: 409.
    NveTaken,
    /// An enrolled NVE has that RLOC: 409.
    RlocTaken,
    /// The NVE still holds grants, or is the gateway of a VN, or is connected and may have in service what is to be freed:
    /// 409.
    NveInUse,
    /// Another tenant system of the VN holds the IP address: 409.
    AddressTaken,
    /// Another tenant system of the VN holds the MAC address: 409.
    MacTaken,
    /// Another NVE holds the tenant system: 409.
    GrantedElsewhere,
    /// The tenant system is granted to the caller with other addresses: 409.
    AddressMismatch,
    /// The tenant system is granted to the caller with other security groups: 409.
    GroupsMismatch,
    /// The security group is still used: 409.
    GroupInUse,
    /// Somebody else has written the object since it was read: 409.
    Outdated,
    /// The address is not a host address of the VN's subnets: 400.
    OutsideSubnets,
    /// The tenant system has as many addresses as it may: 409.
    TooManyAddresses,
    /// Every host address of the subnet is taken: 409.
    SubnetFull,
    /// The device is another tenant system's VAP: 409.
    DeviceTaken,
    /// The tenant system is attached at another device: 409.
    AlreadyAttached,
    /// The request id is that of another request: 409.
    RequestTaken,
    /// The watched history is no longer kept; list again: 410.
    Gone,
    /// The body is larger than the Oracle reads: 413.
    TooLarge,
    /// Ask again later: 429.
    TooManyRequests,
    /// The store could not commit; nothing was changed: 503.
    StoreFailed,
    /// The daemon is starting or stopping: 503.
    NotReady,
    /// A defect of Weft: 500.
    Internal,
    /// A code this version does not know.
    #[serde(other)]
    Unknown,
}

/// The body of a refusal.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct ErrorBody {
    /// For programs.
    pub error: Code,
    /// For people, one line: what was wrong, with which value, what to do.
    pub message: String,
}

/// The longest word that an error repeats, characters,
const WORD: usize = 160;
/// and how many of a longer one.
const BEGINNING: usize = 40;

impl ErrorBody {
    /// A refusal in these words, as one line: of a word that is far too long its beginning.
    #[must_use]
    pub fn new(error: Code, message: &str) -> Self {
        Self { error, message: one_line(message) }
    }
}

/// A message as one line in which no word is so long that nothing else can be read.
#[must_use]
pub fn one_line(text: &str) -> String {
    let mut line = String::with_capacity(text.len().min(1_024));
    for word in text.split_whitespace() {
        if !line.is_empty() {
            line.push(' ');
        }
        match word.char_indices().nth(WORD) {
            None => line.push_str(word),
            Some(_) => {
                line.extend(word.chars().take(BEGINNING));
                line.push_str("...[");
                line.push_str(&word.chars().count().to_string());
                line.push_str(" characters]");
                // What stands around a value is not lost with it.
                let last: Vec<char> = word.chars().rev().take_while(char::is_ascii_punctuation).collect();
                line.extend(last.iter().rev().take(BEGINNING));
            }
        }
    }
    line
}

impl Code {
    /// The HTTP status that goes with it.
    #[must_use]
    pub const fn status(self) -> u16 {
        match self {
            Self::BadRequest | Self::NotSupported | Self::OutsideSubnets => 400,
            Self::Unauthenticated => 401,
            Self::Forbidden | Self::Revoked | Self::TokenUnknown | Self::TokenUsed | Self::TokenExpired => {
                403
            }
            Self::NotFound => 404,
            Self::MethodNotAllowed => 405,
            Self::VnTaken
            | Self::VniTaken
            | Self::VnInUse
            | Self::NveTaken
            | Self::RlocTaken
            | Self::NveInUse
            | Self::AddressTaken
            | Self::MacTaken
            | Self::GrantedElsewhere
            | Self::AddressMismatch
            | Self::GroupsMismatch
            | Self::GroupInUse
            | Self::Outdated
            | Self::TooManyAddresses
            | Self::SubnetFull
            | Self::DeviceTaken
            | Self::AlreadyAttached
            | Self::RequestTaken => 409,
            Self::Gone => 410,
            Self::TooLarge => 413,
            Self::TooManyRequests => 429,
            Self::Internal | Self::Unknown => 500,
            Self::StoreFailed | Self::NotReady => 503,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_is_one_line_that_can_be_read() {
        let long = "x".repeat(5_000);
        let text = one_line(&format!("'{long}' is too long;\n  take '{}'", "y".repeat(100)));
        let wanted =
            format!("'{}...[5002 characters]' is too long; take '{}'", "x".repeat(39), "y".repeat(100));
        assert_eq!(text, wanted);
        assert_eq!(one_line(&"ü".repeat(161)), format!("{}...[161 characters]", "ü".repeat(40)));
        assert_eq!(one_line(" "), "");
    }

    #[test]
    fn unknown_codes_are_read() {
        let body: ErrorBody = serde_json::from_str(r#"{"error":"from_the_future","message":"x"}"#).unwrap();
        assert_eq!(body.error, Code::Unknown);
        assert_eq!(serde_json::to_string(&Code::VniTaken).unwrap(), r#""vni_taken""#);
    }
}
