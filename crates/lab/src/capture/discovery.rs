//! What ARP and Neighbor Discovery say: who asks for which address, who has it.

use super::frame::{ip, mac_at, u16_at};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use weft_model::MacAddr;

/// An ARP request or reply, a Neighbor Solicitation or Advertisement.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Discovery {
    /// Whether it says who has an address; else it asks.
    pub answer: bool,
    /// Who says or asks it: the ARP sender's address or the IPv6 source. Unspecified in a probe.
    pub from: IpAddr,
    /// The address it is about: the target of a question, the sender of an ARP reply.
    pub about: IpAddr,
    /// The MAC address it names: the ARP sender's, or that of the option.
    pub mac: Option<MacAddr>,
}

impl Discovery {
    /// Reads an Ethernet frame; none for all others.
    #[must_use]
    pub fn of(bytes: &[u8]) -> Option<Self> {
        if u16_at(bytes, 12)? == 0x0806 {
            let v4 = |at: usize| -> Option<IpAddr> {
                let octets: [u8; 4] = bytes.get(at..at + 4)?.try_into().ok()?;
                Some(Ipv4Addr::from(octets).into())
            };
            let answer = u16_at(bytes, 20)? == 2;
            let about = v4(if answer { 28 } else { 38 })?;
            return Some(Self { answer, from: v4(28)?, about, mac: mac_at(bytes, 22) });
        }
        let ip = ip(bytes).filter(|ip| ip.protocol == 58)?;
        let kind = *bytes.get(ip.at)?;
        if !matches!(kind, 135 | 136) {
            return None;
        }
        let target: [u8; 16] = bytes.get(ip.at + 8..ip.at + 24)?.try_into().ok()?;
        let option = bytes.get(ip.at + 24..ip.at + 26) == Some(&[kind - 134, 1]);
        Some(Self {
            answer: kind == 136,
            from: ip.from,
            about: Ipv6Addr::from(target).into(),
            mac: option.then(|| mac_at(bytes, ip.at + 26)).flatten(),
        })
    }

    /// Whether it asks if an address is free (RFC 5227 section 2.1.1, RFC 4862 section 5.4).
    #[must_use]
    pub fn is_probe(&self) -> bool {
        !self.answer && self.from.is_unspecified()
    }
}
