//! The flat form of the EIDs that overlays use.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::{Address, Inner};

/// The address of an [`Eid`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum EidAddr {
    /// An IPv4 address.
    Ipv4(Ipv4Addr),
    /// An IPv6 address.
    Ipv6(Ipv6Addr),
    /// A 48-bit MAC address.
    Mac([u8; 6]),
}

impl EidAddr {
    /// Bits of such an address: 32, 128 or 48.
    pub const fn bits(&self) -> u8 {
        match self {
            Self::Ipv4(_) => 32,
            Self::Ipv6(_) => 128,
            Self::Mac(_) => 48,
        }
    }

    /// The address with all but its first `len` bits cleared.
    fn masked(self, len: u8) -> Self {
        fn mask<const N: usize>(mut octets: [u8; N], len: u8) -> [u8; N] {
            let mut left = u32::from(len);
            for octet in &mut octets {
                *octet &= !(0xff_u8.checked_shr(left).unwrap_or(0));
                left = left.saturating_sub(8);
            }
            octets
        }
        match self {
            Self::Ipv4(a) => Self::Ipv4(mask(a.octets(), len).into()),
            Self::Ipv6(a) => Self::Ipv6(mask(a.octets(), len).into()),
            Self::Mac(a) => Self::Mac(mask(a, len)),
        }
    }
}

impl From<IpAddr> for EidAddr {
    fn from(a: IpAddr) -> Self {
        match a {
            IpAddr::V4(a) => Self::Ipv4(a),
            IpAddr::V6(a) => Self::Ipv6(a),
        }
    }
}

impl From<Ipv4Addr> for EidAddr {
    fn from(a: Ipv4Addr) -> Self {
        Self::Ipv4(a)
    }
}

impl From<Ipv6Addr> for EidAddr {
    fn from(a: Ipv6Addr) -> Self {
        Self::Ipv6(a)
    }
}

impl From<[u8; 6]> for EidAddr {
    fn from(mac: [u8; 6]) -> Self {
        Self::Mac(mac)
    }
}

/// An IPv4, IPv6 or MAC prefix in an instance: what nearly every EID is.
///
/// Always canonical: the mask fits the address and the bits behind it are 0, so equal prefixes are equal
/// values. Instance 0 is the default instance, written without an LCAF; all 32 bits of an Instance ID are
/// legal here (RFC 8060 section 4.1), whoever needs a 24-bit VNI checks that.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Eid {
    iid: u32,
    addr: EidAddr,
    mask_len: u8,
}

impl Eid {
    /// The first in order: `0.0.0.0/0` of instance 0.
    pub const FIRST: Self = Self { iid: 0, addr: EidAddr::Ipv4(Ipv4Addr::UNSPECIFIED), mask_len: 0 };

    /// One address: /32, /128 or /48.
    pub fn host(iid: u32, addr: impl Into<EidAddr>) -> Self {
        let addr = addr.into();
        Self { iid, addr, mask_len: addr.bits() }
    }

    /// A prefix; bits of `addr` behind the mask are cleared.
    ///
    /// # Errors
    /// When the mask is longer than the address.
    pub fn prefix(iid: u32, addr: impl Into<EidAddr>, mask_len: u8) -> Result<Self, EidError> {
        let addr = addr.into();
        let max = addr.bits();
        if mask_len > max {
            return Err(EidError::MaskLen { mask_len, max });
        }
        Ok(Self { iid, addr: addr.masked(mask_len), mask_len })
    }

    /// From what a record says.
    ///
    /// # Errors
    /// When the address is none, an AFI-List or an opaque LCAF, or the mask is longer than the address.
    pub fn from_wire(address: Address<'_>, mask_len: u8) -> Result<Self, EidError> {
        let (iid, inner) = match address {
            Address::InstanceId { iid, inner, .. } => (iid, inner),
            Address::NoAddress => (0, Inner::NoAddress),
            Address::Ipv4(a) => (0, Inner::Ipv4(a)),
            Address::Ipv6(a) => (0, Inner::Ipv6(a)),
            Address::Mac(a) => (0, Inner::Mac(a)),
            Address::AfiList(_) | Address::Opaque(_) => return Err(EidError::NotFlat),
        };
        match inner {
            Inner::Ipv4(a) => Self::prefix(iid, a, mask_len),
            Inner::Ipv6(a) => Self::prefix(iid, a, mask_len),
            Inner::Mac(a) => Self::prefix(iid, a, mask_len),
            Inner::NoAddress | Inner::AfiList(_) | Inner::Opaque(_) => Err(EidError::NotFlat),
        }
    }

    /// From an address that stands without a mask, like a Source-EID.
    ///
    /// # Errors
    /// When the address is none, an AFI-List or an opaque LCAF.
    pub fn host_from_wire(address: Address<'_>) -> Result<Self, EidError> {
        let eid = Self::from_wire(address, 0)?;
        let addr = match address {
            Address::Ipv4(a) | Address::InstanceId { inner: Inner::Ipv4(a), .. } => EidAddr::Ipv4(a),
            Address::Ipv6(a) | Address::InstanceId { inner: Inner::Ipv6(a), .. } => EidAddr::Ipv6(a),
            Address::Mac(a) | Address::InstanceId { inner: Inner::Mac(a), .. } => EidAddr::Mac(a),
            _ => return Err(EidError::NotFlat),
        };
        Ok(Self::host(eid.iid, addr))
    }

    /// The Instance ID.
    pub const fn iid(&self) -> u32 {
        self.iid
    }

    /// The address, bits behind the mask cleared.
    pub const fn addr(&self) -> EidAddr {
        self.addr
    }

    /// The mask length in bits.
    pub const fn mask_len(&self) -> u8 {
        self.mask_len
    }

    /// Whether this is one address.
    pub const fn is_host(&self) -> bool {
        self.mask_len == self.addr.bits()
    }

    /// Whether `other` is this prefix or lies in it: same instance, same family, mask not shorter.
    pub fn covers(&self, other: &Self) -> bool {
        self.iid == other.iid
            && self.addr.bits() == other.addr.bits()
            && self.mask_len <= other.mask_len
            && other.addr.masked(self.mask_len) == self.addr
    }

    /// As it stands in a message: in an Instance ID LCAF unless the instance is 0.
    pub const fn address(&self) -> Address<'static> {
        match (self.iid, self.addr) {
            (0, EidAddr::Ipv4(a)) => Address::Ipv4(a),
            (0, EidAddr::Ipv6(a)) => Address::Ipv6(a),
            (0, EidAddr::Mac(a)) => Address::Mac(a),
            (iid, EidAddr::Ipv4(a)) => Address::InstanceId { iid, mask_len: 0, inner: Inner::Ipv4(a) },
            (iid, EidAddr::Ipv6(a)) => Address::InstanceId { iid, mask_len: 0, inner: Inner::Ipv6(a) },
            (iid, EidAddr::Mac(a)) => Address::InstanceId { iid, mask_len: 0, inner: Inner::Mac(a) },
        }
    }
}

/// `[5000] 10.0.0.0/24`.
impl fmt::Display for Eid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "[{}] ", self.iid)?;
        match self.addr {
            EidAddr::Ipv4(ip) => write!(f, "{ip}")?,
            EidAddr::Ipv6(ip) => write!(f, "{ip}")?,
            EidAddr::Mac([a, b, c, d, e, g]) => {
                write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")?;
            }
        }
        write!(f, "/{}", self.mask_len)
    }
}

impl TryFrom<(Address<'_>, u8)> for Eid {
    type Error = EidError;

    fn try_from((address, mask_len): (Address<'_>, u8)) -> Result<Self, EidError> {
        Self::from_wire(address, mask_len)
    }
}

impl TryFrom<Address<'_>> for Eid {
    type Error = EidError;

    fn try_from(address: Address<'_>) -> Result<Self, EidError> {
        Self::host_from_wire(address)
    }
}

/// An address that has no flat form.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum EidError {
    /// A mask longer than the address.
    #[error("mask length {mask_len} on an address of {max} bits")]
    MaskLen {
        /// The mask length found.
        mask_len: u8,
        /// Bits of the address.
        max: u8,
    },
    /// Not an IPv4, IPv6 or MAC address, in an instance or not.
    #[error("the EID is not an IPv4, IPv6 or MAC address in an instance; look at the Address itself")]
    NotFlat,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prefixes_are_canonical() {
        let eid = Eid::prefix(7, Ipv4Addr::new(10, 1, 2, 255), 25).unwrap();
        assert_eq!(eid.addr(), EidAddr::Ipv4(Ipv4Addr::new(10, 1, 2, 128)));
        let all = Eid::prefix(7, [1, 2, 3, 4, 5, 6], 0).unwrap();
        assert_eq!(all.addr(), EidAddr::Mac([0; 6]));
        let six = Eid::prefix(7, "2001:db8:ffff::1".parse::<Ipv6Addr>().unwrap(), 36).unwrap();
        assert_eq!(six.addr(), EidAddr::Ipv6("2001:db8:f000::".parse().unwrap()));
        let error = Eid::prefix(7, [1, 2, 3, 4, 5, 6], 49);
        assert_eq!(error, Err(EidError::MaskLen { mask_len: 49, max: 48 }));
    }

    #[test]
    fn shown_with_instance_and_mask() {
        let shown = |eid: Eid| eid.to_string();
        assert_eq!(shown(Eid::prefix(7, Ipv4Addr::new(10, 1, 0, 0), 16).unwrap()), "[7] 10.1.0.0/16");
        assert_eq!(shown(Eid::host(0, Ipv6Addr::LOCALHOST)), "[0] ::1/128");
        assert_eq!(shown(Eid::host(7, [2, 0, 0, 0, 0, 0xb])), "[7] 02:00:00:00:00:0b/48");
    }

    #[test]
    fn covers_within_one_instance_and_family() {
        let net = Eid::prefix(7, Ipv4Addr::new(10, 0, 0, 0), 24).unwrap();
        assert!(net.covers(&net));
        assert!(net.covers(&Eid::host(7, Ipv4Addr::new(10, 0, 0, 9))));
        assert!(!net.covers(&Eid::host(8, Ipv4Addr::new(10, 0, 0, 9))));
        assert!(!net.covers(&Eid::host(7, Ipv4Addr::new(10, 0, 1, 9))));
        assert!(!net.covers(&Eid::prefix(7, Ipv4Addr::new(10, 0, 0, 0), 23).unwrap()));
        assert!(
            !Eid::prefix(7, Ipv4Addr::UNSPECIFIED, 0).unwrap().covers(&Eid::host(7, Ipv6Addr::LOCALHOST))
        );
    }

    #[test]
    fn wire_form_and_back() {
        for iid in [0, 5000, u32::MAX] {
            for eid in [
                Eid::host(iid, Ipv4Addr::new(10, 0, 0, 1)),
                Eid::host(iid, "2001:db8::1".parse::<Ipv6Addr>().unwrap()),
                Eid::host(iid, [2, 0, 0, 0, 0, 0xb]),
            ] {
                assert_eq!(Eid::from_wire(eid.address(), eid.mask_len()), Ok(eid));
                assert_eq!(Eid::try_from(eid.address()), Ok(eid));
                assert_eq!(matches!(eid.address(), Address::InstanceId { .. }), iid != 0);
            }
        }
        assert_eq!(Eid::from_wire(Address::NoAddress, 0), Err(EidError::NotFlat));
        let list = Address::in_instance(1, [0; 6]);
        assert_eq!(Eid::from_wire(Address::AfiList((&[list]).into()), 0), Err(EidError::NotFlat));
    }
}
