//! Access policy as the data plane knows it: what a set of security groups was compiled to. Rules allow; what none
//! allows is refused. A rule is looked up by the policy of the VAP, the class of the remote address, the protocol
//! and the port, so that the first packet of a connection costs five lookups however many rules there are.

use core::{fmt, net::IpAddr, num::NonZeroU32};

/// How many counters of rules there are; rules are numbered below that.
pub const RULE_COUNTERS: u32 = 16_384;

/// What a set of security groups was compiled to, at one NVE. VAPs of the same groups have the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PolicyId(pub NonZeroU32);

impl PolicyId {
    /// The policy of this number; none for 0.
    #[must_use]
    pub const fn new(number: u32) -> Option<Self> {
        match NonZeroU32::new(number) {
            Some(number) => Some(Self(number)),
            None => None,
        }
    }

    /// Its number.
    #[must_use]
    pub const fn get(self) -> u32 {
        self.0.get()
    }
}

/// A class of remote addresses of a VN that rules treat alike.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ClassId(pub u32);

impl ClassId {
    /// Every address, also those that have a class.
    pub const ANYBODY: Self = Self(0);
}

/// Which way a packet goes, or the first one of a connection went, seen from the tenant system.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Toward {
    /// From it.
    Out,
    /// To it.
    In,
}

/// Port numbers that begin with the same bits. For ICMP and ICMPv6 the number is `type << 8 | code`, for
/// protocols without ports it is 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Ports {
    first: u16,
    bits: u8,
}

/// Why ports are none.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PortsError {
    /// A port has 16 bits.
    #[error("a prefix of {0} bits is none of port numbers; give 0 to 16")]
    TooLong(u8),
}

impl Ports {
    /// Every number.
    pub const ALL: Self = Self { first: 0, bits: 0 };

    /// Those whose first `bits` bits are those of `first`.
    ///
    /// # Errors
    /// [`PortsError::TooLong`] for more than 16.
    pub const fn new(first: u16, bits: u8) -> Result<Self, PortsError> {
        if bits > 16 {
            return Err(PortsError::TooLong(bits));
        }
        Ok(Self { first: first & Self::mask(bits), bits })
    }

    /// This one.
    #[must_use]
    pub const fn one(port: u16) -> Self {
        Self { first: port, bits: 16 }
    }

    /// Those from `first` to `last`, as few prefixes as there are of them, in order: at most 30; none if `last` is
    /// less than `first`.
    #[must_use]
    pub fn of_range(first: u16, last: u16) -> Vec<Self> {
        let (mut next, end) = (u32::from(first), u32::from(last) + 1);
        let mut all = Vec::new();
        while next < end {
            // As many as it is a multiple of, and as there are left.
            let aligned = if next == 0 { 16 } else { next.trailing_zeros().min(16) };
            let size = aligned.min((end - next).ilog2());
            let (Ok(first), Ok(bits)) = (u16::try_from(next), u8::try_from(16 - size)) else { break };
            all.push(Self { first, bits });
            next += 1 << size;
        }
        all
    }

    /// The first of them.
    #[must_use]
    pub const fn first(self) -> u16 {
        self.first
    }

    /// How many bits they have in common.
    #[must_use]
    pub const fn bits(self) -> u8 {
        self.bits
    }

    /// Whether this is one of them.
    #[must_use]
    pub const fn contains(self, port: u16) -> bool {
        port & Self::mask(self.bits) == self.first
    }

    const fn mask(bits: u8) -> u16 {
        match 16 - bits {
            16 => 0,
            rest => u16::MAX << rest,
        }
    }
}

/// Addresses that begin with the same bits, unicast or not: [`weft_model::TenantIp`] has no `0.0.0.0/0`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Prefix {
    addr: IpAddr,
    len: u8,
}

/// Why a prefix is none.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PrefixError {
    /// Longer than the address.
    #[error("{0}/{1} is no prefix; an IPv4 prefix has 0 to 32 bits, an IPv6 prefix 0 to 128")]
    TooLong(IpAddr, u8),
    /// An IPv4 address in the dress of an IPv6 one.
    #[error("{0}/{1} is of IPv4-mapped addresses; give the IPv4 prefix")]
    Mapped(IpAddr, u8),
}

impl Prefix {
    /// The prefix of `len` bits that `addr` has; the bits behind are cleared.
    ///
    /// # Errors
    /// One [`PrefixError`] for each rule.
    pub fn new(addr: IpAddr, len: u8) -> Result<Self, PrefixError> {
        let most = if addr.is_ipv4() { 32 } else { 128 };
        if len > most {
            return Err(PrefixError::TooLong(addr, len));
        }
        if matches!(addr, IpAddr::V6(v6) if v6.to_ipv4_mapped().is_some()) && len >= 96 {
            return Err(PrefixError::Mapped(addr, len));
        }
        Ok(Self { addr: masked(addr, len), len })
    }

    /// Its first address.
    #[must_use]
    pub const fn addr(self) -> IpAddr {
        self.addr
    }

    /// How many bits.
    #[must_use]
    pub const fn bits(self) -> u8 {
        self.len
    }

    /// Whether an address has it.
    #[must_use]
    pub fn contains(self, addr: IpAddr) -> bool {
        addr.is_ipv4() == self.addr.is_ipv4() && masked(addr, self.len) == self.addr
    }
}

fn masked(addr: IpAddr, len: u8) -> IpAddr {
    match addr {
        IpAddr::V4(v4) => {
            let mask = u32::MAX.checked_shl(32 - u32::from(len)).unwrap_or(0);
            IpAddr::V4((u32::from(v4) & mask).into())
        }
        IpAddr::V6(v6) => {
            let mask = u128::MAX.checked_shl(128 - u32::from(len)).unwrap_or(0);
            IpAddr::V6((u128::from(v6) & mask).into())
        }
    }
}

impl From<IpAddr> for Prefix {
    /// This one address.
    fn from(addr: IpAddr) -> Self {
        let addr = addr.to_canonical();
        Self { addr, len: if addr.is_ipv4() { 32 } else { 128 } }
    }
}

impl fmt::Display for Prefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.addr, self.len)
    }
}

impl fmt::Debug for Prefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Which packets a rule allows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RuleKey {
    /// In which policy.
    pub policy: PolicyId,
    /// Which way the first packet goes.
    pub toward: Toward,
    /// From or to whom.
    pub class: ClassId,
    /// Of which IP protocol; none: of every one.
    pub protocol: Option<u8>,
    /// To which port, or of which ICMP type and code.
    pub ports: Ports,
}

/// What becomes of those packets beside being let through.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Allow {
    /// What they are counted by, below [`RULE_COUNTERS`].
    pub rule: u32,
    /// Whether the agent is told of the first one of a connection.
    pub log: bool,
}

/// The policy of a VAP. A VAP without one lets everything through and tracks nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Policy {
    /// Which rules.
    pub id: PolicyId,
    /// Connections that were let through under another generation are looked up again by their next packet. To be
    /// given last, when rules and classes are as they are to be: what is let through by it is not looked at again.
    pub generation: u32,
    /// Whether the agent is told of what is refused.
    pub log_refused: bool,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_range_is_its_prefixes() {
        let of = |first, last| -> Vec<(u16, u8)> {
            Ports::of_range(first, last).into_iter().map(|p| (p.first(), p.bits())).collect()
        };
        assert_eq!(of(0, u16::MAX), [(0, 0)]);
        assert_eq!(of(80, 80), [(80, 16)]);
        assert_eq!(of(8000, 8009), [(8000, 13), (8008, 15)]);
        assert_eq!(of(9, 8), []);
        assert_eq!(of(u16::MAX, u16::MAX), [(u16::MAX, 16)]);
        assert_eq!(of(1, u16::MAX - 1).len(), 30);
        for (first, last) in [(1, 65_534), (0, 1023), (1, 1), (137, 4_242), (32_768, 65_535)] {
            let all = Ports::of_range(first, last);
            assert!(all.len() <= 30);
            for port in 0..=u16::MAX {
                let times = all.iter().filter(|p| p.contains(port)).count();
                assert_eq!(times, usize::from((first..=last).contains(&port)), "{port} in {first}-{last}");
            }
        }
        assert_eq!(Ports::new(80, 17), Err(PortsError::TooLong(17)));
        assert_eq!(Ports::new(0xffff, 8).unwrap().first(), 0xff00);
    }

    #[test]
    fn a_prefix_has_no_bits_behind() {
        let prefix = |addr: &str, len| Prefix::new(addr.parse().unwrap(), len);
        let text = |addr, len| prefix(addr, len).unwrap().to_string();
        assert_eq!(text("10.1.2.3", 8), "10.0.0.0/8");
        assert_eq!(text("10.1.2.3", 0), "0.0.0.0/0");
        assert_eq!(text("10.1.2.3", 32), "10.1.2.3/32");
        assert_eq!(text("fd00::1", 8), "fd00::/8");
        assert_eq!(text("fd00::1", 0), "::/0");
        assert!(prefix("10.0.0.0", 33).is_err());
        assert!(prefix("::", 129).is_err());
        assert!(prefix("::ffff:10.0.0.0", 104).is_err());
        assert!(!prefix("::", 0).unwrap().contains("10.0.0.1".parse().unwrap()));
        assert!(prefix("fd00::", 8).unwrap().contains("fd12::1".parse().unwrap()));
        assert_eq!(Prefix::from("fd00::1".parse::<IpAddr>().unwrap()).to_string(), "fd00::1/128");
    }
}
