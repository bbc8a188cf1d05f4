//! RLOC-Records (RFC 9301 section 5.4).

use super::list::{Item, sealed::Read};
use super::{Address, EncodeOptions, Reader, bit};
use crate::error::{DecodeError, EncodeError};

/// One locator of an EID-Record, with its priorities and flags.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Locator<'a> {
    /// Unicast priority, lower is better; [`Locator::UNUSABLE`] forbids unicast forwarding.
    pub priority: u8,
    /// Share of unicast traffic among locators of one priority.
    pub weight: u8,
    /// Multicast priority; 255 forbids joining a distribution tree here.
    pub m_priority: u8,
    /// Share of multicast trees among locators of one multicast priority.
    pub m_weight: u8,
    /// L bit: the locator is the sender's own. 0 in every proxied Map-Reply.
    pub local: bool,
    /// p bit: the locator that is being RLOC-probed; never in Map-Requests and Map-Registers.
    pub probed: bool,
    /// R bit: the sender has a route to the locator.
    pub reachable: bool,
    /// The RLOC; in an IP-to-MAC record, the MAC address.
    pub rloc: Address<'a>,
}

impl<'a> Locator<'a> {
    /// Priority of a locator that must not be used for unicast.
    pub const UNUSABLE: u8 = 255;

    /// A reachable locator of this priority, weight 100, not used for multicast.
    pub fn new(rloc: impl Into<Address<'a>>, priority: u8) -> Self {
        Self {
            priority,
            weight: 100,
            m_priority: Self::UNUSABLE,
            m_weight: 0,
            local: false,
            probed: false,
            reachable: true,
            rloc: rloc.into(),
        }
    }

    /// The locator of an IP-to-MAC record: `mac` at priority 255, so that an xTR that does not know
    /// such records never tries to encapsulate to it.
    pub const fn mac(mac: [u8; 6]) -> Self {
        Self {
            priority: Self::UNUSABLE,
            weight: 0,
            m_priority: Self::UNUSABLE,
            m_weight: 0,
            local: false,
            probed: false,
            reachable: true,
            rloc: Address::Mac(mac),
        }
    }

    pub(crate) fn write(&self, out: &mut Vec<u8>, options: EncodeOptions) -> Result<(), EncodeError> {
        let flags = bit(self.local, 4) | bit(self.probed, 2) | bit(self.reachable, 1);
        out.extend_from_slice(&[self.priority, self.weight, self.m_priority, self.m_weight, 0, flags]);
        self.rloc.write(out, options, 0)
    }
}

impl<'a> Read<'a> for Locator<'a> {
    fn read(reader: &mut Reader<'a>) -> Result<Self, DecodeError> {
        let [priority, weight, m_priority, m_weight] = reader.array("Priority")?;
        let [_, flags] = reader.array("Locator flags")?;
        Ok(Self {
            priority,
            weight,
            m_priority,
            m_weight,
            local: flags & 4 != 0,
            probed: flags & 2 != 0,
            reachable: flags & 1 != 0,
            rloc: Address::read(reader)?,
        })
    }
}

impl<'a> Item<'a> for Locator<'a> {}
