//! Since when who is at a VAP has had its addresses. What was let through for somebody else who had them before is not
//! theirs: every connection is born at a time, and counts for its VAP if that is later than the VAP's `since`. So
//! connections end with a stay at once, however many there are, and are left to be overwritten.

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
    most: usize,
}

impl Stays {
    pub(super) fn new(now: u64, most: u32) -> Self {
        Self { opened: now, ended: BTreeMap::new(), most: usize::try_from(most).unwrap_or(usize::MAX) }
    }

    /// Until when an address without a VAP was somebody's.
    fn until(&self, vni: Vni, ip: TenantIp) -> u64 {
        self.ended.get(&(vni, ip)).copied().unwrap_or(0).max(self.opened)
    }

    /// Whoever had these ceases to, at `now`, and later than what was born up to `since`.
    fn end<'a>(&mut self, now: u64, since: u64, vni: Vni, ips: impl IntoIterator<Item = &'a TenantIp>) {
        for ip in ips {
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
        let of_others = |stays: &Stays, ip: &TenantIp| stays.ended.get(&(vap.vni, *ip)).copied();
        match old {
            // It may get what another one here has ceased to have.
            Some(old) if vni == vap.vni && old.mac == vap.mac.octets() => {
                self.stays.end(now, old.since, vni, had.difference(&vap.ips));
                let gained = vap.ips.difference(had).filter_map(|ip| of_others(&self.stays, ip));
                gained.fold(old.since, u64::max)
            }
            Some(old) => {
                self.stays.end(now, old.since, vni, had);
                now.max(old.since + 1)
            }
            None => {
                let ended = vap.ips.iter().filter_map(|ip| of_others(&self.stays, ip));
                ended.fold(self.stays.opened, u64::max)
            }
        }
    }

    /// Nobody is at a device any more.
    pub(super) fn end_stay(&mut self, device: IfIndex) -> Result<(), DatapathError> {
        if let Some((vni, ips)) = self.vaps.get(&device) {
            let since = self.maps.vaps.get(&device.0)?.map_or(0, |old| old.since);
            self.stays.end(sys::monotonic_exact(), since, *vni, ips);
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
        Ok(value.map_or_else(|| self.stays.until(vni, ip), |value| value.since))
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
    }
}
