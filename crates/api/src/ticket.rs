//! The ticket by which one NVE hands another what only it knows of a tenant system: an Oracle's word, signed, that the
//! tenant system moves from the one to the other (requirement V2).
//!
//! An Oracle signs with the key of its server certificate, so that whoever has pinned the CA can tell, and the CA's
//! own key signs certificates only. What is signed begins with [`Ticket::DOMAIN`], which nothing else that this key
//! signs begins with.

use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};
use core::{fmt, str::FromStr};
use serde::{Deserialize, Serialize};
use weft_model::{Epoch, TsiId, XtrId};

const PREFIX: &str = "weft-ticket1.";

/// What an Oracle says: `tsi` moves from `from` to `to`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Ticket {
    /// The tenant system interface.
    pub tsi: TsiId,
    /// Its owner when this was said, who is to hand it over.
    pub from: XtrId,
    /// Whom the grant names as next: nobody else may show this.
    pub to: XtrId,
    /// The epoch at which it is held there.
    pub epoch: Epoch,
    /// Until when it may be shown, seconds since 1970.
    pub expires_at: u64,
    /// Drawn at random: it counts once.
    pub id: [u64; 2],
}

/// What an Oracle says: a packet that seems to be this tenant system's, traced, comes from the NVE that has that to
/// another one, which is to say what becomes of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TraceTicket {
    /// The tenant system interface.
    pub tsi: TsiId,
    /// Its owner when this was said: who asks, and nobody else may show this.
    pub asks: XtrId,
    /// Who is to answer.
    pub told: XtrId,
    /// What the packet is known by on its way, 24 bits, not 0.
    pub trace: u32,
    /// Until when it may be shown, seconds since 1970.
    pub expires_at: u64,
    /// Drawn at random: it counts once.
    pub id: [u64; 2],
}

impl TraceTicket {
    /// What the signed octets begin with.
    pub const DOMAIN: &[u8] = b"weft NVE-NVE trace, version 1\0";

    /// The octets to be signed, with what stands before them.
    ///
    /// # Errors
    /// Never in practice: a ticket always serializes.
    pub fn payload(&self) -> Result<Vec<u8>, TicketError> {
        serde_json::to_vec(self).map_err(damaged)
    }
}

/// A ticket with its signature, as it came: what is signed are these octets, however they could be written otherwise.
///
/// Its text is `weft-ticket1.`, then ticket (JSON), certificate (DER) and signature (ECDSA, DER), each in base64url,
/// with dots between.
#[derive(Clone, PartialEq, Eq)]
pub struct SignedTicket {
    /// The ticket, JSON.
    pub payload: Vec<u8>,
    /// The Oracle's certificate.
    pub certificate: Vec<u8>,
    /// Its signature over [`SignedTicket::message`].
    pub signature: Vec<u8>,
}

/// Why a text is not a ticket.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TicketError {
    /// Another format, or none.
    #[error(
        "a ticket of this version begins with '{PREFIX}', this begins with '{0}'; update the older of the two NVEs"
    )]
    Version(String),
    /// Longer than any ticket is.
    #[error("a ticket has at most {max} octets, this has {octets}; ask the Oracle for another")]
    TooLong {
        /// Its length.
        octets: usize,
        /// The longest.
        max: usize,
    },
    /// Not the three parts, or not what they should be.
    #[error("the ticket is damaged ({0}); ask the Oracle for another")]
    Damaged(String),
}

impl Ticket {
    /// What the signed octets begin with.
    pub const DOMAIN: &[u8] = b"weft NVE-NVE ticket, version 1\0";
    /// How long a ticket is good for, seconds: from the answer of the Oracle to the question it is for.
    pub const TTL_S: u64 = 60;
    /// The longest text.
    pub const LONGEST: usize = 8 << 10;

    /// The octets to be signed, with what stands before them.
    ///
    /// # Errors
    /// Never in practice: a ticket always serializes.
    pub fn payload(&self) -> Result<Vec<u8>, TicketError> {
        serde_json::to_vec(self).map_err(damaged)
    }
}

impl SignedTicket {
    /// What the signature is over, of a ticket of this domain.
    #[must_use]
    pub fn message(domain: &[u8], payload: &[u8]) -> Vec<u8> {
        [domain, payload].concat()
    }

    /// What it says, as [`SignedTicket::ticket`], of a trace's.
    ///
    /// # Errors
    /// [`TicketError::Damaged`].
    pub fn trace(&self) -> Result<TraceTicket, TicketError> {
        serde_json::from_slice(&self.payload).map_err(damaged)
    }

    /// What it says. Whether an Oracle says so, the signature tells.
    ///
    /// # Errors
    /// [`TicketError::Damaged`].
    pub fn ticket(&self) -> Result<Ticket, TicketError> {
        serde_json::from_slice(&self.payload).map_err(damaged)
    }
}

fn damaged(e: impl fmt::Display) -> TicketError {
    TicketError::Damaged(e.to_string())
}

impl FromStr for SignedTicket {
    type Err = TicketError;
    fn from_str(text: &str) -> Result<Self, TicketError> {
        if text.len() > Ticket::LONGEST {
            return Err(TicketError::TooLong { octets: text.len(), max: Ticket::LONGEST });
        }
        let body = text.strip_prefix(PREFIX).ok_or_else(|| {
            TicketError::Version(text.chars().take(PREFIX.len()).flat_map(char::escape_default).collect())
        })?;
        let parts: Vec<&str> = body.split('.').collect();
        let [payload, certificate, signature] = parts[..] else {
            return Err(damaged(format!("it has {} parts instead of 3", parts.len())));
        };
        let decode = |part: &str| BASE64_URL_SAFE_NO_PAD.decode(part).map_err(damaged);
        Ok(Self {
            payload: decode(payload)?,
            certificate: decode(certificate)?,
            signature: decode(signature)?,
        })
    }
}

impl fmt::Display for SignedTicket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let encode = |octets: &[u8]| BASE64_URL_SAFE_NO_PAD.encode(octets);
        let Self { payload, certificate, signature } = self;
        write!(f, "{PREFIX}{}.{}.{}", encode(payload), encode(certificate), encode(signature))
    }
}

impl fmt::Debug for SignedTicket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Good for a minute for whoever it names: what it says will do.
        f.debug_tuple("SignedTicket").field(&String::from_utf8_lossy(&self.payload)).finish()
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use weft_model::{TsiName, Vni};

    fn ticket() -> Ticket {
        Ticket {
            tsi: TsiId { vni: Vni::new(7).unwrap(), name: TsiName::new("web1").unwrap() },
            from: XtrId([1; 16]),
            to: XtrId([2; 16]),
            epoch: Epoch::FIRST,
            expires_at: 1_800_000_000,
            id: [1, u64::MAX],
        }
    }

    fn signed() -> SignedTicket {
        let payload = ticket().payload().unwrap();
        SignedTicket { payload, certificate: vec![0x30, 1], signature: vec![0xff, 0] }
    }

    #[test]
    fn round_trip_and_reasons() {
        let text = signed().to_string();
        let read: SignedTicket = text.parse().unwrap();
        assert_eq!((&read, read.ticket().unwrap()), (&signed(), ticket()));
        assert!(SignedTicket::message(Ticket::DOMAIN, &read.payload).starts_with(Ticket::DOMAIN));
        assert!(read.trace().is_err(), "one kind is not the other");
        let newer = text.replace("ticket1", "ticket2");
        assert!(
            matches!(newer.parse::<SignedTicket>(), Err(TicketError::Version(v)) if v == "weft-ticket2.")
        );
        assert!(matches!("a\nb".parse::<SignedTicket>(), Err(TicketError::Version(v)) if !v.contains('\n')));
        for bad in [format!("{text}."), format!("{text}!"), PREFIX.to_owned(), text.replace('.', "")] {
            assert!(bad.parse::<SignedTicket>().is_err(), "{bad}");
        }
        let long = format!("{text}{}", "A".repeat(Ticket::LONGEST));
        assert!(matches!(long.parse::<SignedTicket>(), Err(TicketError::TooLong { .. })));
        for payload in ["{}", r#"{"more":1}"#, "[]", ""] {
            let read = SignedTicket { payload: payload.into(), ..signed() };
            assert!(matches!(read.ticket(), Err(TicketError::Damaged(_))));
        }
    }

    proptest! {
        #[test]
        fn any_text_is_refused_or_read(text: String) {
            let _ = text.parse::<SignedTicket>();
            if let Ok(read) = format!("{PREFIX}{text}").parse::<SignedTicket>() {
                let _ = read.ticket();
            }
        }
    }
}
