//! The join token: one line that carries all an NVE needs to trust an Oracle and be trusted.

use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};
use core::{fmt, str::FromStr};
use serde::{Deserialize, Serialize};

const PREFIX: &str = "weft1.";

/// A join token. Its text is `weft1.` and base64url of this as JSON.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct JoinToken {
    /// SHA-256 of the CA's certificate (DER), 64 hexadecimal digits: pinned before the secret is sent.
    pub ca: String,
    /// Where `/v1` is, `host:port`.
    pub oracles: Vec<String>,
    /// Proves the right to join.
    pub secret: String,
}

/// Why a text is not a join token.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TokenError {
    /// It does not begin with `weft1.`.
    #[error(
        "a join token begins with '{PREFIX}', this begins with '{0}'; copy the whole line `weft oracle token` printed"
    )]
    Prefix(String),
    /// What follows is not base64url of the expected JSON.
    #[error("the join token is damaged ({0}); copy the whole line `weft oracle token` printed")]
    Damaged(String),
}

impl JoinToken {
    /// The CA's fingerprint.
    ///
    /// # Errors
    /// [`TokenError::Damaged`] when it is not 64 hexadecimal digits.
    pub fn fingerprint(&self) -> Result<[u8; 32], TokenError> {
        let bad = || TokenError::Damaged("its CA fingerprint is not 64 hexadecimal digits".to_owned());
        let digits = self.ca.as_bytes();
        if digits.len() != 64 {
            return Err(bad());
        }
        let mut fingerprint = [0; 32];
        for (octet, pair) in fingerprint.iter_mut().zip(digits.chunks_exact(2)) {
            let text = core::str::from_utf8(pair).map_err(|_| bad())?;
            if text.starts_with('+') {
                return Err(bad());
            }
            *octet = u8::from_str_radix(text, 16).map_err(|_| bad())?;
        }
        Ok(fingerprint)
    }
}

impl FromStr for JoinToken {
    type Err = TokenError;
    fn from_str(text: &str) -> Result<Self, TokenError> {
        let text = text.trim();
        let body = text
            .strip_prefix(PREFIX)
            .ok_or_else(|| TokenError::Prefix(text.chars().take(PREFIX.len()).collect()))?;
        let json = BASE64_URL_SAFE_NO_PAD.decode(body).map_err(|e| TokenError::Damaged(e.to_string()))?;
        let token: Self = serde_json::from_slice(&json).map_err(|e| TokenError::Damaged(e.to_string()))?;
        token.fingerprint()?;
        if token.oracles.is_empty() {
            return Err(TokenError::Damaged("it names no Oracle".to_owned()));
        }
        Ok(token)
    }
}

impl fmt::Display for JoinToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let json = serde_json::to_vec(self).map_err(|_| fmt::Error)?;
        write!(f, "{PREFIX}{}", BASE64_URL_SAFE_NO_PAD.encode(json))
    }
}

impl fmt::Debug for JoinToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The secret stays out of logs.
        f.debug_struct("JoinToken")
            .field("ca", &self.ca)
            .field("oracles", &self.oracles)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn token() -> JoinToken {
        JoinToken { ca: "0a".repeat(32), oracles: vec!["192.0.2.1:4343".into()], secret: "s".into() }
    }

    #[test]
    fn round_trip_and_reasons() {
        let text = token().to_string();
        assert_eq!(text.parse::<JoinToken>().unwrap(), token());
        assert_eq!(format!(" {text}\n").parse::<JoinToken>().unwrap(), token());
        assert!(matches!("hello world".parse::<JoinToken>(), Err(TokenError::Prefix(p)) if p == "hello "));
        assert!(matches!(text[..text.len() - 4].parse::<JoinToken>(), Err(TokenError::Damaged(_))));
        for broken in [
            JoinToken { ca: "+a".repeat(32), ..token() },
            JoinToken { ca: "0a".into(), ..token() },
            JoinToken { oracles: vec![], ..token() },
        ] {
            assert!(matches!(broken.to_string().parse::<JoinToken>(), Err(TokenError::Damaged(_))));
        }
        assert!(!format!("{:?}", JoinToken { secret: "geheim".into(), ..token() }).contains("geheim"));
    }

    proptest! {
        #[test]
        fn any_text_is_refused_or_read(text: String) {
            let _ = text.parse::<JoinToken>();
            let _ = format!("weft1.{text}").parse::<JoinToken>();
        }
    }
}
