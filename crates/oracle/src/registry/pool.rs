//! Free addresses, found without looking at the used ones.

use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::{
    collections::BTreeMap,
    sync::{Mutex, MutexGuard, PoisonError},
};
use weft_model::{IpNet, Subnets, Vni};

/// The pools of every VN that has been asked for an address since the start.
pub(super) type Pools = BTreeMap<Vni, VnPools>;

pub(super) fn lock(pools: &Mutex<Pools>) -> MutexGuard<'_, Pools> {
    pools.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The pools of one VN, one a subnet.
#[derive(Debug)]
pub(super) struct VnPools {
    pub(super) subnets: Subnets,
    pools: Vec<Pool>,
}

/// One subnet: its used addresses as runs without a gap, and where the search goes on. An address
/// is handed out again as late as possible, for somebody may remember its last holder.
#[derive(Debug)]
struct Pool {
    net: IpNet,
    first: u128,
    last: u128,
    cursor: u128,
    /// Start and end of each run, both used.
    runs: BTreeMap<u128, u128>,
}

fn number(ip: IpAddr) -> u128 {
    match ip {
        IpAddr::V4(v4) => u32::from(v4).into(),
        IpAddr::V6(v6) => v6.into(),
    }
}

impl VnPools {
    pub(super) fn new(subnets: &Subnets, used: impl Iterator<Item = IpAddr>) -> Self {
        let pools = subnets.iter().map(Pool::new).collect();
        let mut all = Self { subnets: subnets.clone(), pools };
        for ip in used {
            all.mark(ip);
        }
        all
    }

    /// A free address of `family`'s subnets, the same until it is marked; none when all are used.
    pub(super) fn next(&mut self, v4: bool) -> Option<IpAddr> {
        self.pools.iter().filter(|p| matches!(p.net, IpNet::V4(_)) == v4).find_map(Pool::next)
    }

    pub(super) fn mark(&mut self, ip: IpAddr) {
        if let Some(pool) = self.pools.iter_mut().find(|p| p.net.contains(&ip)) {
            pool.mark(number(ip));
        }
    }

    pub(super) fn unmark(&mut self, ip: IpAddr) {
        if let Some(pool) = self.pools.iter_mut().find(|p| p.net.contains(&ip)) {
            pool.unmark(number(ip));
        }
    }
}

impl Pool {
    fn new(net: IpNet) -> Self {
        // The network address of IPv4, the subnet-router anycast address of IPv6 (RFC 4291
        // section 2.6.1) and IPv4's broadcast address belong to nobody.
        let first = number(net.network()).saturating_add(1);
        let last = number(net.broadcast()) - u128::from(matches!(net, IpNet::V4(_)));
        Self { net, first, last, cursor: first, runs: BTreeMap::new() }
    }

    fn next(&self) -> Option<IpAddr> {
        let free = self.free_from(self.cursor).or_else(|| self.free_from(self.first))?;
        Some(match self.net {
            IpNet::V4(_) => IpAddr::V4(Ipv4Addr::from(u32::try_from(free).ok()?)),
            IpNet::V6(_) => IpAddr::V6(Ipv6Addr::from(free)),
        })
    }

    fn free_from(&self, from: u128) -> Option<u128> {
        let free = match self.runs.range(..=from).next_back() {
            Some((_, end)) if *end >= from => end.checked_add(1)?,
            _ => from,
        };
        (free >= self.first && free <= self.last).then_some(free)
    }

    fn mark(&mut self, n: u128) {
        let before = self.runs.range(..=n).next_back().map(|(s, e)| (*s, *e));
        if before.is_some_and(|(_, end)| end >= n) {
            return;
        }
        let start = before.filter(|(_, end)| end.checked_add(1) == Some(n)).map_or(n, |(start, _)| start);
        let end = n.checked_add(1).and_then(|after| self.runs.remove(&after)).unwrap_or(n);
        self.runs.insert(start, end);
        self.cursor = n.checked_add(1).unwrap_or(self.first);
    }

    fn unmark(&mut self, n: u128) {
        let Some((start, end)) = self.runs.range(..=n).next_back().map(|(s, e)| (*s, *e)) else { return };
        if end < n {
            return;
        }
        self.runs.remove(&start);
        if start < n {
            self.runs.insert(start, n - 1);
        }
        if n < end {
            self.runs.insert(n + 1, end);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    fn pools(net: &str) -> VnPools {
        VnPools::new(&Subnets::new(vec![net.parse().unwrap()]).unwrap(), std::iter::empty())
    }

    #[test]
    fn edges() {
        for (net, v4, hosts) in
            [("255.255.254.0/24", true, 254), ("10.0.0.0/30", true, 2), ("fd00::fffc/126", false, 3)]
        {
            let Ok(subnets) = Subnets::new(vec![net.parse().unwrap()]) else { continue };
            let mut p = VnPools::new(&subnets, std::iter::empty());
            let mut seen = BTreeSet::new();
            while let Some(ip) = p.next(v4) {
                assert!(subnets.host_subnet(ip).is_some(), "{ip}");
                assert!(seen.insert(ip));
                p.mark(ip);
            }
            assert_eq!(seen.len(), hosts, "{net}");
        }
        let mut top =
            pools("ffff:ffff:ffff:ffff:ffff:ffff:ffff:0/112".replace("ffff:ffff", "fdff:ffff").as_str());
        top.mark("fdff:ffff:ffff:ffff:ffff:ffff:ffff:ffff".parse().unwrap());
        assert!(top.next(false).is_some());
    }

    #[test]
    fn a_released_address_rests() {
        let mut p = pools("10.0.0.0/29");
        let mut take = || {
            let ip = p.next(true).unwrap();
            p.mark(ip);
            ip.to_string()
        };
        assert_eq!([take(), take()], ["10.0.0.1", "10.0.0.2"]);
        p.unmark("10.0.0.1".parse().unwrap());
        assert_eq!(p.next(true).unwrap().to_string(), "10.0.0.3");
    }

    proptest! {
        #[test]
        fn like_a_set(ops in prop::collection::vec((any::<bool>(), 0u8..16), 0..80)) {
            let mut p = pools("10.0.0.0/28");
            let mut model = BTreeSet::new();
            for (take, n) in ops {
                if take {
                    let ip = p.next(true);
                    prop_assert_eq!(ip.is_none(), model.len() == 14);
                    if let Some(ip) = ip {
                        prop_assert!(model.insert(ip));
                        p.mark(ip);
                    }
                } else {
                    let ip = IpAddr::V4(Ipv4Addr::new(10, 0, 0, n));
                    model.remove(&ip);
                    p.unmark(ip);
                }
            }
        }
    }
}
