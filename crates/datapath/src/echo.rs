//! The liveness echo: a datagram to an RLOC's VXLAN port that the data path there answers without
//! its agent, so that a dead agent is not taken for a dead host.
//!
//! An Oracle sends [`request`] from any UDP port to port [`PORT`] and expects [`parse_reply`] to
//! know the nonce of what comes back to that port. It is answered only if the tables name the
//! sender's address as an Oracle's ([`crate::Peer::oracle`]). Answer and request are of one size.
//!
//! Layout: eight zero octets (a VXLAN header with its I flag clear, which no NVE takes for data),
//! the magic, the nonce, the kind.

/// The UDP port: VXLAN's (RFC 7348 section 5).
pub const PORT: u16 = 4789;
/// What makes it an echo.
pub const MAGIC: [u8; 8] = *b"WEFTECHO";
/// Octets of a datagram's payload.
pub const LEN: usize = 25;
/// The kind of a request.
pub const REQUEST: u8 = 1;
/// The kind of a reply.
pub const REPLY: u8 = 2;

const NONCE: usize = 16;
const KIND: usize = 24;

/// The payload of a request; draw `nonce` at random.
#[must_use]
pub fn request(nonce: u64) -> [u8; LEN] {
    let mut payload = [0; LEN];
    payload[8..NONCE].copy_from_slice(&MAGIC);
    payload[NONCE..KIND].copy_from_slice(&nonce.to_be_bytes());
    payload[KIND] = REQUEST;
    payload
}

/// The nonce of a reply; none if `payload` is no reply.
#[must_use]
pub fn parse_reply(payload: &[u8]) -> Option<u64> {
    let (header, rest) = payload.split_first_chunk::<8>()?;
    let (magic, rest) = rest.split_first_chunk::<8>()?;
    let (nonce, kind) = rest.split_first_chunk::<8>()?;
    (*header == [0; 8] && *magic == MAGIC && kind == [REPLY]).then(|| u64::from_be_bytes(*nonce))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_reply_is_a_reply() {
        let mut datagram = request(0x0102_0304_0506_0708);
        assert_eq!(parse_reply(&datagram), None);
        datagram[KIND] = REPLY;
        assert_eq!(parse_reply(&datagram), Some(0x0102_0304_0506_0708));
        assert_eq!(parse_reply(&datagram[..LEN - 1]), None);
        for i in (0..NONCE).chain([KIND]) {
            let mut bad = datagram;
            bad[i] ^= 1;
            assert_eq!(parse_reply(&bad), None, "octet {i}");
        }
    }
}
