//! 48-bit MAC addresses, and those a tenant system may own.

use crate::Vni;
use core::{fmt, str::FromStr};
use serde::{Deserialize, Serialize};

/// Any 48-bit MAC address.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema), schema(value_type = String, example = "02:00:00:00:00:01"))]
pub struct MacAddr(pub [u8; 6]);

/// A MAC address a tenant system may own: unicast and not all zero.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "MacAddr", into = "MacAddr")]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema), schema(value_type = String, example = "02:00:00:00:00:01"))]
pub struct TsMac(MacAddr);

/// Why a text or an address is not what was asked for.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MacError {
    /// Not six octets in hexadecimal.
    #[error("'{0}' is no MAC address; write six octets like 02:00:00:00:00:01")]
    Malformed(String),
    /// The group bit is set: frames cannot come from it (IEEE 802 section 8.2.2).
    #[error("{0} is a group address; a tenant system needs a unicast MAC")]
    Group(MacAddr),
    /// One that NVEs use themselves.
    #[error("{0} is kept for NVEs; choose a MAC that does not begin with 06:57 or 0a:57")]
    Reserved(MacAddr),
    /// All zero.
    #[error("00:00:00:00:00:00 is no tenant system's MAC address")]
    Zero,
}

impl MacAddr {
    /// ff:ff:ff:ff:ff:ff.
    pub const BROADCAST: Self = Self([0xff; 6]);

    /// The address that all NVEs of a VN answer with for a tenant system they do not know yet: frames to it
    /// are routed by their IP destination.
    #[must_use]
    pub const fn anycast(vni: Vni) -> Self {
        let [_, a, b, c] = vni.get().to_be_bytes();
        Self([0x06, 0x57, 0, a, b, c])
    }

    /// The address that stands for an NVE, by its number, where it translates (RFC 7586).
    #[must_use]
    pub const fn of_node(node: u32) -> Self {
        let [a, b, c, d] = node.to_be_bytes();
        Self([0x0a, 0x57, a, b, c, d])
    }

    /// Whether it is one of those two kinds.
    #[must_use]
    pub const fn is_reserved(self) -> bool {
        matches!(self.0, [0x06 | 0x0a, 0x57, ..])
    }

    /// Whether the group bit is set (broadcast included).
    #[must_use]
    pub const fn is_group(self) -> bool {
        self.0[0] & 1 == 1
    }

    /// The octets in transmission order.
    #[must_use]
    pub const fn octets(self) -> [u8; 6] {
        self.0
    }
}

impl TsMac {
    /// Checks `mac`.
    ///
    /// # Errors
    /// [`MacError::Group`], [`MacError::Reserved`] or [`MacError::Zero`].
    pub fn new(mac: MacAddr) -> Result<Self, MacError> {
        if mac.is_reserved() {
            return Err(MacError::Reserved(mac));
        }
        if mac.is_group() {
            return Err(MacError::Group(mac));
        }
        if mac.0 == [0; 6] {
            return Err(MacError::Zero);
        }
        Ok(Self(mac))
    }

    /// A locally administered unicast address made from 40 bits of `seed`: 02 and five octets.
    #[must_use]
    pub fn local(seed: u64) -> Self {
        let b = seed.to_be_bytes();
        Self(MacAddr([0x02, b[3], b[4], b[5], b[6], b[7]]))
    }

    /// The address.
    #[must_use]
    pub const fn get(self) -> MacAddr {
        self.0
    }

    /// The octets in transmission order.
    #[must_use]
    pub const fn octets(self) -> [u8; 6] {
        self.0.0
    }
}

impl FromStr for MacAddr {
    type Err = MacError;
    fn from_str(text: &str) -> Result<Self, MacError> {
        let malformed = || MacError::Malformed(text.to_owned());
        let mut octets = [0; 6];
        let mut parts = text.split([':', '-']);
        for octet in &mut octets {
            let part = parts.next().filter(|p| p.len() == 2).ok_or_else(malformed)?;
            *octet = u8::from_str_radix(part, 16).map_err(|_| malformed())?;
        }
        if parts.next().is_some() || text.contains('+') {
            return Err(malformed());
        }
        Ok(Self(octets))
    }
}

impl TryFrom<String> for MacAddr {
    type Error = MacError;
    fn try_from(text: String) -> Result<Self, MacError> {
        text.parse()
    }
}

impl From<MacAddr> for String {
    fn from(mac: MacAddr) -> Self {
        mac.to_string()
    }
}

impl FromStr for TsMac {
    type Err = MacError;
    fn from_str(text: &str) -> Result<Self, MacError> {
        text.parse().and_then(Self::new)
    }
}

impl TryFrom<MacAddr> for TsMac {
    type Error = MacError;
    fn try_from(mac: MacAddr) -> Result<Self, MacError> {
        Self::new(mac)
    }
}

impl From<TsMac> for MacAddr {
    fn from(mac: TsMac) -> Self {
        mac.0
    }
}

impl fmt::Display for MacAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

impl fmt::Debug for MacAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl fmt::Display for TsMac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

impl fmt::Debug for TsMac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn reasons() {
        assert_eq!(
            "01:00:5e:00:00:01".parse::<TsMac>(),
            Err(MacError::Group(MacAddr([1, 0, 0x5e, 0, 0, 1])))
        );
        assert_eq!("00:00:00:00:00:00".parse::<TsMac>(), Err(MacError::Zero));
        for bad in [
            "",
            "02",
            "02:00:00:00:00",
            "02:00:00:00:00:01:02",
            "2:0:0:0:0:1",
            "02:00:00:00:00:+1",
            "gg:00:00:00:00:01",
        ] {
            assert_eq!(bad.parse::<MacAddr>(), Err(MacError::Malformed(bad.into())));
        }
    }

    proptest! {
        #[test]
        fn text_round_trip(octets: [u8; 6]) {
            let mac = MacAddr(octets);
            prop_assert_eq!(mac.to_string().parse::<MacAddr>().unwrap(), mac);
        }

        #[test]
        fn local_is_a_ts_mac(seed: u64) {
            let mac = TsMac::local(seed).get();
            prop_assert!(TsMac::new(mac).is_ok());
            prop_assert_eq!(mac.0[0] & 2, 2);
        }
    }
}
