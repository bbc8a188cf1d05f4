//! Who talks to whom: the same from the same seed.

use std::{collections::BTreeSet, time::Duration};
use weft_load::{Act, Member};

/// Of all pairs, how many ever talk.
const SHARE: f64 = 0.16;
/// From the beginning of one pair to that of the next: two minutes for a thousand tenant systems.
const EACH: Duration = Duration::from_micros(1_500);
/// In a storm everybody contacts so many within so long.
const STORM: usize = 50;
const STORM_SPAN: Duration = Duration::from_secs(1);

/// A generator of numbers that are the same on every machine.
pub(super) struct Seeded(fastrand::Rng);

impl Seeded {
    pub(super) fn new(seed: u64) -> Self {
        Self(fastrand::Rng::with_seed(seed))
    }

    fn below(&mut self, n: usize) -> usize {
        self.0.usize(..n.max(1))
    }
}

/// Destinations by popularity (Zipf with exponent 1): the `n`-th is wanted 1/n as often as the first.
struct Zipf(Vec<f64>);

impl Zipf {
    fn of(count: usize) -> Self {
        let mut sum = 0.0;
        Self(
            (1..=count)
                .map(|rank| {
                    sum += 1.0 / rank as f64;
                    sum
                })
                .collect(),
        )
    }

    fn draw(&self, random: &mut Seeded) -> usize {
        let at = random.0.f64() * self.0.last().copied().unwrap_or(0.0);
        self.0.partition_point(|sum| *sum < at).min(self.0.len().saturating_sub(1))
    }
}

/// Contacts between 16 % of all pairs, one each [`EACH`], half of them over IPv6.
pub(super) fn pairs(members: &[Member]) -> Vec<Act> {
    let (count, mut random) = (members.len(), Seeded::new(1));
    let zipf = Zipf::of(count);
    // Popularity has nothing to do with who comes first on which host.
    let mut ranked: Vec<usize> = (0..count).collect();
    random.0.shuffle(&mut ranked);
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a number of pairs")]
    let wanted = (SHARE * (count * count.saturating_sub(1) / 2) as f64) as usize;
    let (mut seen, mut order) = (BTreeSet::new(), Vec::with_capacity(wanted));
    while order.len() < wanted {
        let (who, to) = (random.below(count), ranked[zipf.draw(&mut random)]);
        if who != to && seen.insert((who.min(to), who.max(to))) {
            order.push((who, to));
        }
    }
    spread(members, &order, EACH)
}

/// Everybody contacts [`STORM`] others within a second; another `seed`, other ones.
pub(super) fn storm(members: &[Member], seed: u64) -> Vec<Act> {
    let (count, mut random) = (members.len(), Seeded::new(seed));
    let mut order = Vec::new();
    for who in 0..count {
        let mut others: Vec<usize> = (0..count).filter(|other| *other != who).collect();
        random.0.shuffle(&mut others);
        order.extend(others.into_iter().take(STORM).map(|to| (who, to)));
    }
    random.0.shuffle(&mut order);
    let each = STORM_SPAN / u32::try_from(order.len().max(1)).unwrap_or(u32::MAX);
    spread(members, &order, each)
}

fn spread(members: &[Member], order: &[(usize, usize)], each: Duration) -> Vec<Act> {
    let act = |(n, (who, to)): (usize, &(usize, usize))| {
        let ips = &members[*to].ips;
        let ip = ips.iter().find(|ip| ip.is_ipv4() == n.is_multiple_of(2)).or_else(|| ips.first())?;
        Some(Act { at: each * u32::try_from(n).ok()?, who: *who, to: *ip })
    };
    order.iter().enumerate().filter_map(act).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn members(count: u8) -> Vec<Member> {
        let member = |n| Member {
            host: "h1".to_owned(),
            mac: weft_model::MacAddr([2, 0, 0, 0, 0, n]),
            ips: vec![[10, 0, 0, n].into(), format!("fd00::{n:x}").parse().unwrap()],
        };
        (1..=count).map(member).collect()
    }

    #[test]
    fn pairs_are_the_same_each_time_and_as_many_as_said() {
        let members = members(100);
        let acts = pairs(&members);
        assert_eq!(acts.len(), 792);
        assert_eq!(acts, pairs(&members));
        assert!(acts.is_sorted_by_key(|act| act.at));
        assert_eq!(acts.iter().filter(|act| act.to.is_ipv4()).count(), 396);
        let mut wanted = std::collections::BTreeMap::<_, usize>::new();
        for act in &acts {
            *wanted.entry(act.to).or_default() += 1;
        }
        assert!(wanted.values().max() > Some(&20), "some are popular");
    }

    #[test]
    fn in_a_storm_everybody_asks_for_others() {
        let members = members(100);
        let acts = storm(&members, 3);
        assert_eq!(acts.len(), 5_000);
        assert!(acts.iter().all(|act| !members[act.who].ips.contains(&act.to)));
        assert_ne!(acts, storm(&members, 4));
    }
}
