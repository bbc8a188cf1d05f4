//! Authentication of Map-Register, Map-Notify and Map-Notify-Ack (RFC 9301 sections 5.6, 9.3, 12.5).
//!
//! [`sign`] fills in the MAC of an encoded message, [`verify`] checks that of a received one; both work on
//! the octets as they are on the wire.
//!
//! Three points where deployed code and the RFC's text differ, and what is done here:
//!
//! * Algorithms 1 and 2 name truncated MACs (12 and 16 octets), yet implementations send whole ones (20 and
//!   32). [`verify`] takes either, by the Authentication Data Length; [`MacLength`] says what is sent.
//! * Step 5 of section 5.6 authenticates "through the end of the last RLOC-Record", which leaves out xTR-ID
//!   and Site-ID, while the same section says that the entire message is authenticated and trusts the xTR-ID.
//!   By default everything is covered; [`Coverage::ThroughRecords`] is the literal reading.
//! * The length of the HKDF output is not stated; 32 octets, the length of the hash, are taken.

use hkdf::HkdfExtract;
use hmac::{Hmac, KeyInit, Mac};
use sha1::Sha1;
use sha2::Sha256;
use subtle::ConstantTimeEq;

use crate::error::DecodeError;
use crate::wire::{AuthData, MapNotify, MapRegister, MessageType, Reader, XTR_TRAILER_LEN};

/// Where the Authentication Data stands: behind first word, nonce, Key ID, Algorithm ID and length.
const MAC_AT: usize = 16;
/// The longest MAC of any algorithm.
const MAX_MAC: usize = 32;
const ZEROS: &[u8; MAX_MAC] = &[0; MAX_MAC];

/// Algorithm IDs (RFC 9301 section 12.5).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u8)]
pub enum Algorithm {
    /// 0: not authenticated.
    None = 0,
    /// 1: HMAC-SHA-1-96. Legacy.
    HmacSha1 = 1,
    /// 2: HMAC-SHA-256-128.
    HmacSha256 = 2,
    /// 3: HMAC-SHA-256-128 with a key per message, derived by HKDF-SHA256.
    HmacSha256Hkdf = 3,
}

/// How much of a MAC is sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum MacLength {
    /// As the algorithm's name says: 12 or 16 octets.
    #[default]
    Truncated,
    /// The whole MAC, 20 or 32 octets, as much deployed code sends it.
    Full,
}

impl Algorithm {
    /// The algorithm with this ID, if there is one.
    pub const fn from_id(id: u8) -> Option<Self> {
        Some(match id {
            0 => Self::None,
            1 => Self::HmacSha1,
            2 => Self::HmacSha256,
            3 => Self::HmacSha256Hkdf,
            _ => return None,
        })
    }

    /// Octets of a MAC.
    pub const fn mac_len(self, length: MacLength) -> usize {
        match (self, length) {
            (Self::None, _) => 0,
            (Self::HmacSha1, MacLength::Truncated) => 12,
            (Self::HmacSha1, MacLength::Full) => 20,
            (_, MacLength::Truncated) => 16,
            (_, MacLength::Full) => 32,
        }
    }

    /// Authentication fields to encode a message with that [`sign`] is then called on.
    pub fn placeholder(self, key_id: u8, length: MacLength) -> AuthData<'static> {
        let mac = ZEROS.get(..self.mac_len(length)).unwrap_or_default();
        AuthData { key_id, algorithm: self as u8, mac }
    }
}

/// What of a message a MAC covers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Coverage {
    /// Everything, trailing xTR-ID and Site-ID included.
    #[default]
    WholePayload,
    /// Up to the end of the last record, as step 5 of RFC 9301 section 5.6 says literally. An attacker
    /// can then change the xTR-ID.
    ThroughRecords,
}

/// What a receiver accepts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
#[non_exhaustive]
pub struct Policy {
    /// Accept algorithm 1, HMAC-SHA-1-96.
    pub allow_sha1: bool,
    /// Accept algorithm 0: messages that anybody could have written.
    pub allow_unauthenticated: bool,
    /// What the sender's MACs cover.
    pub coverage: Coverage,
}

impl Policy {
    /// Algorithms 2 and 3 over the whole payload.
    pub const fn strict() -> Self {
        Self { allow_sha1: false, allow_unauthenticated: false, coverage: Coverage::WholePayload }
    }

    /// This policy with algorithm 1 accepted as well.
    #[must_use]
    pub const fn with_sha1(mut self) -> Self {
        self.allow_sha1 = true;
        self
    }

    /// This policy with unauthenticated messages accepted as well: for a transport that authenticates
    /// both ends itself.
    #[must_use]
    pub const fn with_unauthenticated(mut self) -> Self {
        self.allow_unauthenticated = true;
        self
    }

    /// This policy with another coverage.
    #[must_use]
    pub const fn with_coverage(mut self, coverage: Coverage) -> Self {
        self.coverage = coverage;
        self
    }
}

/// Why a message is not believed, or cannot be signed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum AuthError {
    /// Not a message at all.
    #[error(transparent)]
    Malformed(#[from] DecodeError),
    /// A message type that has no Authentication Data.
    #[error("messages of type {found} carry no Authentication Data")]
    NotAuthenticated {
        /// The type found.
        found: u8,
    },
    /// An Algorithm ID without a meaning.
    #[error("unknown authentication algorithm {id}; known are 0 to 3")]
    UnknownAlgorithm {
        /// The ID found.
        id: u8,
    },
    /// Algorithm 1 while the policy does not allow it.
    #[error("HMAC-SHA-1-96 is not allowed here: configure the peer for HMAC-SHA-256-128 or allow it")]
    Sha1Refused,
    /// Algorithm 0 while the policy does not allow it.
    #[error("the message is not authenticated")]
    UnauthenticatedRefused,
    /// An Authentication Data Length that the algorithm does not produce.
    #[error("Authentication Data of {found} octets; the algorithm makes {truncated} or {full}")]
    MacLength {
        /// The length found.
        found: usize,
        /// Octets of the truncated MAC.
        truncated: usize,
        /// Octets of the whole MAC.
        full: usize,
    },
    /// The MAC is not that of this message under this key.
    #[error("the MAC does not match: another key, or the message was changed")]
    Mismatch,
}

/// Where the parts that authentication needs are in a message.
struct Layout {
    algorithm: Algorithm,
    salt: &'static [u8],
    nonce: [u8; 8],
    mac_len: usize,
    /// End of what is covered.
    end: usize,
}

impl Layout {
    fn of(message: &[u8], coverage: Coverage) -> Result<Self, AuthError> {
        let (salt, auth, nonce, has_trailer): (&'static [u8], _, _, _) = match MessageType::of(message)? {
            MessageType::MapRegister => {
                let m = MapRegister::decode(message)?;
                (b"Map-Register Authentication", m.auth, m.nonce, m.xtr.is_some())
            }
            MessageType::MapNotify => {
                let m = MapNotify::decode(message)?;
                (b"Map-Notify Authentication", m.auth, m.nonce, m.xtr.is_some())
            }
            MessageType::MapNotifyAck => {
                let m = MapNotify::decode(message)?;
                (b"Map-Notify-Ack Authentication", m.auth, m.nonce, m.xtr.is_some())
            }
            other => return Err(AuthError::NotAuthenticated { found: other as u8 }),
        };
        let id = auth.algorithm;
        let algorithm = Algorithm::from_id(id).ok_or(AuthError::UnknownAlgorithm { id })?;
        let (found, truncated, full) =
            (auth.mac.len(), algorithm.mac_len(MacLength::Truncated), algorithm.mac_len(MacLength::Full));
        if found != truncated && found != full {
            return Err(AuthError::MacLength { found, truncated, full });
        }
        let end = match coverage {
            Coverage::ThroughRecords if has_trailer => message.len() - XTR_TRAILER_LEN,
            _ => message.len(),
        };
        Ok(Self { algorithm, salt, nonce: nonce.to_be_bytes(), mac_len: found, end })
    }

    /// The whole MAC in the first octets of the result; nothing is allocated.
    ///
    /// # Errors
    /// Never, as far as HMAC and HKDF promise: they take keys of any length and give one hash.
    fn mac(&self, message: &[u8], psk: &[u8]) -> Result<[u8; MAX_MAC], AuthError> {
        let parts = [
            message.get(..MAC_AT).unwrap_or_default(),
            ZEROS.get(..self.mac_len).unwrap_or_default(),
            message.get(MAC_AT + self.mac_len..self.end).unwrap_or_default(),
        ];
        let mut out = [0; MAX_MAC];
        match self.algorithm {
            Algorithm::None => {}
            Algorithm::HmacSha1 => out[..20].copy_from_slice(&hmac::<Hmac<Sha1>>(psk, parts)?),
            Algorithm::HmacSha256 => out.copy_from_slice(&hmac::<Hmac<Sha256>>(psk, parts)?),
            Algorithm::HmacSha256Hkdf => {
                let key = self.message_key(psk)?;
                out.copy_from_slice(&hmac::<Hmac<Sha256>>(&key, parts)?);
            }
        }
        Ok(out)
    }

    /// KDF(nonce + PSK, salt): HKDF-SHA256 with an empty info and an output of one hash.
    fn message_key(&self, psk: &[u8]) -> Result<[u8; 32], AuthError> {
        let mut extract = HkdfExtract::<Sha256>::new(Some(self.salt));
        extract.input_ikm(&self.nonce);
        extract.input_ikm(psk);
        let (_, hkdf) = extract.finalize();
        let mut key = [0; 32];
        hkdf.expand(&[], &mut key).map_err(|_| AuthError::Mismatch)?;
        Ok(key)
    }
}

fn hmac<M: Mac + KeyInit>(key: &[u8], parts: [&[u8]; 3]) -> Result<hmac::digest::Output<M>, AuthError> {
    let mut mac = <M as KeyInit>::new_from_slice(key).map_err(|_| AuthError::Mismatch)?;
    for part in parts {
        mac.update(part);
    }
    Ok(mac.finalize().into_bytes())
}

/// Fills in the Authentication Data of an encoded message.
///
/// The message must have been encoded with [`Algorithm::placeholder`] (or any MAC of the right length).
/// `psk` is the pre-shared secret of the message's Key ID. Nothing is done for algorithm 0.
///
/// # Errors
/// When `message` is not a whole message with Authentication Data of a known algorithm and right length.
pub fn sign(message: &mut [u8], psk: &[u8], coverage: Coverage) -> Result<(), AuthError> {
    let layout = Layout::of(message, coverage)?;
    let mac = layout.mac(message, psk)?;
    if let (Some(field), Some(mac)) =
        (message.get_mut(MAC_AT..MAC_AT + layout.mac_len), mac.get(..layout.mac_len))
    {
        field.copy_from_slice(mac);
    }
    Ok(())
}

/// Checks the Authentication Data of a received message, in constant time.
///
/// `psk` is the pre-shared secret of the message's Key ID. Nonces are the caller's to compare.
///
/// # Errors
/// [`AuthError`] says why the message must be dropped (RFC 9301 section 5.7).
pub fn verify(message: &[u8], psk: &[u8], policy: Policy) -> Result<(), AuthError> {
    let layout = Layout::of(message, policy.coverage)?;
    match layout.algorithm {
        Algorithm::None if policy.allow_unauthenticated => return Ok(()),
        Algorithm::None => return Err(AuthError::UnauthenticatedRefused),
        Algorithm::HmacSha1 if !policy.allow_sha1 => return Err(AuthError::Sha1Refused),
        _ => {}
    }
    let mac = layout.mac(message, psk)?;
    let found = message.get(MAC_AT..MAC_AT + layout.mac_len).unwrap_or_default();
    let expected = mac.get(..layout.mac_len).unwrap_or_default();
    if bool::from(found.ct_eq(expected)) { Ok(()) } else { Err(AuthError::Mismatch) }
}

/// The Key ID of a message, to find the pre-shared secret by.
///
/// # Errors
/// When `message` is too short or of a type without Authentication Data.
pub fn key_id(message: &[u8]) -> Result<u8, AuthError> {
    match MessageType::of(message)? {
        MessageType::MapRegister | MessageType::MapNotify | MessageType::MapNotifyAck => {
            let mut reader = Reader::new(message);
            reader.take(12, "Nonce")?;
            Ok(reader.u8("Key ID")?)
        }
        other => Err(AuthError::NotAuthenticated { found: other as u8 }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::hex;

    const PSK: &[u8] = b"secret";
    const RECORD: &str = "00000005 01 20 1000 0001 0001 0a000001 01 64 ff 00 0005 0001 c0000201";
    const XTR: &str = "000102030405060708090a0b0c0d0e0f 00000000000000aa";

    fn register(algorithm: u8, mac_len: usize) -> Vec<u8> {
        let zeros = "00".repeat(mac_len);
        hex(&format!("32000101 0000000000000007 03 {algorithm:02x} {mac_len:04x} {zeros} {RECORD} {XTR}"))
    }

    /// Algorithm, octets, and the MAC as computed by another implementation of HMAC and HKDF.
    const MACS: [(u8, usize, &str); 6] = [
        (1, 12, "1709eb60cae83cce8a4a2983"),
        (1, 20, "23a296bd161ca7112435d2c410e13ee1580b3f02"),
        (2, 16, "fa9d03fc50146a2d7e7ec5014814e2c2"),
        (2, 32, "14e3ac79f22ce74cd6c1bacbd22417c2289bb6c495e38ca7bc678749b41e7134"),
        (3, 16, "3841a408f1af70a1c13663b757298895"),
        (3, 32, "87a7813f6ddb49b7adebe62401e3cce4246461e6093f8dd50e1e8e5c0830426e"),
    ];

    fn policy() -> Policy {
        Policy::strict().with_sha1()
    }

    #[test]
    fn known_macs_whole_and_truncated() {
        for (algorithm, len, mac) in MACS {
            let mut message = register(algorithm, len);
            sign(&mut message, PSK, Coverage::WholePayload).unwrap();
            assert_eq!(message[MAC_AT..MAC_AT + len], hex(mac), "algorithm {algorithm}, {len} octets");
            assert_eq!(verify(&message, PSK, policy()), Ok(()));
            assert_eq!(key_id(&message), Ok(3));
        }
    }

    #[test]
    fn salts_of_notify_and_ack() {
        for (head, mac) in
            [("40", "0b50266ba41933b2d0ee726db75d827f"), ("50", "528d71da7d87899d3f2027b92971a4e2")]
        {
            let mut message =
                hex(&format!("{head}000001 0000000000000007 03 03 0010 {} {RECORD}", "00".repeat(16)));
            sign(&mut message, PSK, Coverage::WholePayload).unwrap();
            assert_eq!(message[MAC_AT..MAC_AT + 16], hex(mac));
            assert_eq!(verify(&message, PSK, Policy::strict()), Ok(()));
        }
    }

    #[test]
    fn every_flipped_bit_and_another_key_are_found() {
        for (algorithm, len, _) in MACS {
            let mut message = register(algorithm, len);
            sign(&mut message, PSK, Coverage::WholePayload).unwrap();
            assert_eq!(verify(&message, b"Secret", policy()), Err(AuthError::Mismatch));
            assert_eq!(verify(&message, b"", policy()), Err(AuthError::Mismatch));
            for bit in 0..message.len() * 8 {
                message[bit / 8] ^= 0x80 >> (bit % 8);
                assert!(verify(&message, PSK, policy()).is_err(), "algorithm {algorithm}, bit {bit}");
                message[bit / 8] ^= 0x80 >> (bit % 8);
            }
            assert_eq!(verify(&message, PSK, policy()), Ok(()));
        }
    }

    #[test]
    fn literal_coverage_leaves_the_xtr_id_open() {
        let literal = Policy::strict().with_coverage(Coverage::ThroughRecords);
        let mut message = register(2, 16);
        sign(&mut message, PSK, Coverage::ThroughRecords).unwrap();
        assert_eq!(message[MAC_AT..MAC_AT + 8], hex("7c58e40d28020375"));
        assert_eq!(verify(&message, PSK, Policy::strict()), Err(AuthError::Mismatch));
        let last = message.len() - 1;
        message[last] ^= 1;
        assert_eq!(verify(&message, PSK, literal), Ok(()));
        message[last - XTR_TRAILER_LEN] ^= 1;
        assert_eq!(verify(&message, PSK, literal), Err(AuthError::Mismatch));
    }

    #[test]
    fn what_the_policy_refuses() {
        let mut sha1 = register(1, 12);
        sign(&mut sha1, PSK, Coverage::WholePayload).unwrap();
        assert_eq!(verify(&sha1, PSK, Policy::strict()), Err(AuthError::Sha1Refused));
        let open = register(0, 0);
        assert_eq!(verify(&open, PSK, Policy::strict()), Err(AuthError::UnauthenticatedRefused));
        assert_eq!(verify(&open, PSK, Policy::strict().with_unauthenticated()), Ok(()));
    }

    #[test]
    fn what_has_no_meaning() {
        assert_eq!(verify(&register(4, 16), PSK, policy()), Err(AuthError::UnknownAlgorithm { id: 4 }));
        // A MAC of one octet would be guessed soon.
        for found in [0, 1, 12, 31] {
            let error = AuthError::MacLength { found, truncated: 16, full: 32 };
            assert_eq!(verify(&register(2, found), PSK, policy()), Err(error));
        }
        let error = AuthError::MacLength { found: 16, truncated: 0, full: 0 };
        assert_eq!(verify(&register(0, 16), PSK, policy().with_unauthenticated()), Err(error));
        let error = AuthError::NotAuthenticated { found: 2 };
        let reply = hex("20000000 0000000000000007");
        assert_eq!(verify(&reply, PSK, policy()), Err(error));
        assert_eq!(key_id(&reply), Err(error));
        assert!(matches!(sign(&mut hex("30"), PSK, Coverage::default()), Err(AuthError::Malformed(_))));
    }

    #[test]
    fn placeholders_have_the_right_length() {
        for (algorithm, len) in [
            (Algorithm::None, (0, 0)),
            (Algorithm::HmacSha1, (12, 20)),
            (Algorithm::HmacSha256Hkdf, (16, 32)),
        ] {
            let octets = |length| algorithm.placeholder(1, length).mac.len();
            assert_eq!((octets(MacLength::Truncated), octets(MacLength::Full)), len);
        }
    }
}
