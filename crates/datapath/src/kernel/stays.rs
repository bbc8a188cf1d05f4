//! Since when who is at a VAP has had its addresses. What was let through for somebody else who had them before is not
//! theirs: every connection is born at a time, and counts for its VAP if that is later than the VAP's `since`. So
//! connections end with a stay at once, however many there are, and are left to be overwritten.
//!
//! A device that goes away ends no stay: who was behind it may be asked for its connections by the NVE that it moves to, and
//! is at its addresses still when it comes back. Somebody else, with another MAC address, is not.

use super::{Kernel, abi::VapValue, sys};
use crate::{DatapathError, IfIndex, Vap};
use std::collections::{BTreeMap, BTreeSet};
use weft_model::{TenantIp, Vni};

/// Stays that have ended.
#[derive(Clone, Debug)]
pub(super) struct Stays {
    /// Of what was before this nothing is known: it counts for nobody who is new.
    opened: u64,
    /// When whoever had an address last ceased to have it.
    ended: BTreeMap<(Vni, TenantIp), u64>,
    /// Who has an address without a VAP, by the MAC address, and since when.
    left: BTreeMap<(Vni, TenantIp), ([u8; 6], u64)>,
    most: usize,
}

impl Stays {
    pub(super) fn new(now: u64, most: u32) -> Self {
        let most = usize::try_from(most).unwrap_or(usize::MAX);
        Self { opened: now, ended: BTreeMap::new(), left: BTreeMap::new(), most }
    }

    /// Until when an address without a VAP was somebody's.
    fn until(&self, vni: Vni, ip: TenantIp) -> u64 {
        self.ended.get(&(vni, ip)).copied().unwrap_or(0).max(self.opened)
    }

    /// Whoever had these ceases to, at `now`, and later than what was born up to `since`.
    fn end<'a>(&mut self, now: u64, since: u64, vni: Vni, ips: impl IntoIterator<Item = &'a TenantIp>) {
        for ip in ips {
            self.left.remove(&(vni, *ip));
            let at = now.max(since + 1).max(self.until(vni, *ip) + 1);
            if self.ended.len() >= self.most.max(1) {
                // Too many to be told apart: as if all had ended now.
                let last = self.ended.values().copied().max().unwrap_or(0);
                self.opened = at.max(last);
                self.ended.clear();
            }
            self.ended.insert((vni, *ip), at);
        }
    }

    /// Whoever has these has no VAP any more.
    fn leave<'a>(
        &mut self,
        now: u64,
        (mac, since): ([u8; 6], u64),
        vni: Vni,
        ips: impl IntoIterator<Item = &'a TenantIp>,
    ) {
        for ip in ips {
            if self.left.len() >= self.most.max(1) {
                self.end(now, since, vni, [ip]);
            } else {
                self.left.insert((vni, *ip), (mac, since));
            }
        }
    }

    /// Since when who comes to an address with this MAC address has had it, as far as that is known.
    fn come(&mut self, now: u64, mac: [u8; 6], vni: Vni, ip: TenantIp) -> Option<u64> {
        match self.left.remove(&(vni, ip)) {
            Some((had, since)) if had == mac => return Some(since),
            Some((_, since)) => self.end(now, since, vni, [&ip]),
            None => {}
        }
        self.ended.get(&(vni, ip)).copied()
    }
}

impl Kernel {
    /// The `since` of a VAP that is to be as `vap`, at whose device was `old` with these addresses.
    pub(super) fn stay(
        &mut self,
        vap: &Vap,
        old: Option<&VapValue>,
        (vni, had): (Vni, &BTreeSet<TenantIp>),
    ) -> u64 {
        let now = sys::monotonic_exact();
        let mac = vap.mac.octets();
        match old {
            // It may get what another one here has ceased to have.
            Some(old) if vni == vap.vni && old.mac == mac => {
                self.stays.end(now, old.since, vni, had.difference(&vap.ips));
                let gained = vap.ips.difference(had);
                gained.filter_map(|ip| self.stays.come(now, mac, vni, *ip)).fold(old.since, u64::max)
            }
            Some(old) => {
                self.stays.end(now, old.since, vni, had);
                now.max(old.since + 1)
            }
            None => {
                let opened = self.stays.opened;
                let since = vap.ips.iter().map(|ip| self.stays.come(now, mac, vap.vni, *ip));
                since.map(|since| since.unwrap_or(opened)).max().unwrap_or(opened)
            }
        }
    }

    /// Nobody is at a device any more; who was may be elsewhere, or be back.
    pub(super) fn leave_stay(&mut self, device: IfIndex) -> Result<(), DatapathError> {
        if let Some((vni, ips)) = self.vaps.get(&device)
            && let Some(old) = self.maps.vaps.get(&device.0)?
        {
            self.stays.leave(sys::monotonic_exact(), (old.mac, old.since), *vni, ips);
        }
        Ok(())
    }

    /// Ends the connections of tenant systems with these addresses, at once: none of them lets a packet through any more, and
    /// [`crate::Datapath::connections`] knows none of them. They are in the table still, to make room for others first.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn end_connections(&mut self, vni: Vni, of: &BTreeSet<TenantIp>) -> Result<(), DatapathError> {
        let now = sys::monotonic_exact();
        self.stays.end(now, 0, vni, of);
        for (device, (at, ips)) in &self.vaps {
            if *at == vni
                && !ips.is_disjoint(of)
                && let Some(old) = self.maps.vaps.get(&device.0)?
            {
                let ended = ips.intersection(of).map(|ip| self.stays.until(vni, *ip));
                let since = ended.fold(now.max(old.since + 1), u64::max);
                self.maps.vaps.set(&device.0, &VapValue { since, ..old })?;
            }
        }
        Ok(())
    }

    /// Up to when what was born is not of who has an address now.
    pub(super) fn since_of(&self, vni: Vni, ip: TenantIp) -> Result<u64, DatapathError> {
        let vap = self.vaps.iter().find(|(_, (of, ips))| *of == vni && ips.contains(&ip));
        let value = vap.map(|(device, _)| self.maps.vaps.get(&device.0)).transpose()?.flatten();
        let left = || self.stays.left.get(&(vni, ip)).map(|(_, since)| *since);
        Ok(value.map(|value| value.since).or_else(left).unwrap_or_else(|| self.stays.until(vni, ip)))
    }

    /// Up to when what was born is not of who has these addresses now, of those of which that is known, and the same for
    /// all others.
    pub(super) fn sinces(
        &self,
        vni: Vni,
        of: Option<&BTreeSet<TenantIp>>,
    ) -> Result<(BTreeMap<TenantIp, u64>, u64), DatapathError> {
        let wanted = |ip: &TenantIp| of.is_none_or(|of| of.contains(ip));
        let ended = self.stays.ended.iter().filter(|((at, ip), _)| *at == vni && wanted(ip));
        let mut since: BTreeMap<TenantIp, u64> =
            ended.map(|((_, ip), at)| (*ip, (*at).max(self.stays.opened))).collect();
        let left = self.stays.left.iter().filter(|((at, ip), _)| *at == vni && wanted(ip));
        since.extend(left.map(|((_, ip), (_, since))| (*ip, *since)));
        for (device, (at, ips)) in &self.vaps {
            if *at == vni
                && ips.iter().any(wanted)
                && let Some(value) = self.maps.vaps.get(&device.0)?
            {
                since.extend(ips.iter().filter(|ip| wanted(ip)).map(|ip| (*ip, value.since)));
            }
        }
        Ok((since, self.stays.opened))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_ends_later_ends_later() {
        let (vni, ip) = (Vni::new(7).unwrap(), |n: u8| format!("10.0.0.{n}").parse::<TenantIp>().unwrap());
        let mut stays = Stays::new(100, 2);
        assert_eq!(stays.until(vni, ip(1)), 100);
        // However coarse the clock is.
        stays.end(100, 0, vni, &[ip(1)]);
        assert_eq!(stays.until(vni, ip(1)), 101);
        stays.end(100, 150, vni, &[ip(1)]);
        assert_eq!((stays.until(vni, ip(1)), stays.until(vni, ip(2))), (151, 100));
        // No more are remembered than may be, and nothing counts that ended.
        stays.end(160, 0, vni, &[ip(2), ip(3)]);
        assert!((1..4).all(|n| stays.until(vni, ip(n)) >= 160) && stays.ended.len() == 1);
        // Who is away comes back to what was its own, unless it has ended or another one comes.
        let (own, other) = ([1; 6], [2; 6]);
        stays.leave(170, (own, 165), vni, &[ip(4), ip(5)]);
        assert_eq!(stays.come(180, own, vni, ip(4)), Some(165));
        assert_eq!((stays.come(180, other, vni, ip(5)), stays.left.len()), (Some(180), 0));
        stays.leave(190, (own, 165), vni, &[ip(4)]);
        stays.end(200, 0, vni, &[ip(4)]);
        assert!(stays.come(210, own, vni, ip(4)) >= Some(200));
        // No more are remembered than may be.
        stays.leave(220, (own, 165), vni, &[ip(1), ip(2), ip(3)]);
        assert_eq!(stays.left.len(), 2);
        assert!(stays.come(230, own, vni, ip(3)) >= Some(220));
    }
}
