//! The liveness echo: a datagram to an RLOC's VXLAN port that the data path there answers without
//! its agent, so that a dead agent is not taken for a dead host.
//!
//! Layout, 25 octets: eight zero octets (a VXLAN header with its I flag clear, which no NVE takes
//! for data), the magic, the nonce, the kind. The data path has the other half.

/// The UDP port: VXLAN's (RFC 7348 section 5).
pub(super) const PORT: u16 = 4789;
const MAGIC: [u8; 8] = *b"WEFTECHO";
/// Octets of a datagram's payload.
pub(super) const LEN: usize = 25;
const REQUEST: u8 = 1;
const REPLY: u8 = 2;

/// The payload of a request.
pub(super) fn request(nonce: u64) -> [u8; LEN] {
    let mut payload = [0; LEN];
    let (_, rest) = payload.split_at_mut(8);
    let (magic, rest) = rest.split_at_mut(8);
    magic.copy_from_slice(&MAGIC);
    let (number, kind) = rest.split_at_mut(8);
    number.copy_from_slice(&nonce.to_be_bytes());
    kind.fill(REQUEST);
    payload
}

/// The nonce of a reply; none if `payload` is no reply.
pub(super) fn parse_reply(payload: &[u8]) -> Option<u64> {
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
        assert_eq!(datagram[8..16], *b"WEFTECHO");
        assert_eq!(parse_reply(&datagram), None);
        datagram[LEN - 1] = REPLY;
        assert_eq!(parse_reply(&datagram), Some(0x0102_0304_0506_0708));
        assert_eq!(parse_reply(&datagram[..LEN - 1]), None);
        for i in (0..16).chain([LEN - 1]) {
            let mut bad = datagram;
            bad[i] ^= 1;
            assert_eq!(parse_reply(&bad), None, "octet {i}");
        }
    }
}
