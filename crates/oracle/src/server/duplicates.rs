//! Who claims what another holds (requirement V10): both are named for as long as claims come and a while after.
//! Nothing is frozen by it: the grant decides, as ever.

use std::{
    collections::BTreeMap,
    sync::{Mutex, PoisonError},
    time::Duration,
};
use weft_model::{Eid, Time, TsiName, Vni, XtrId};

/// Claims kept. Of more the one that was last heard longest ago goes.
const CLAIMS: usize = 1_024;
/// How long a claim is told of after it was last heard.
const TOLD: Duration = Duration::from_secs(600);

/// What is claimed.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum What {
    /// A tenant system.
    Tsi(TsiName),
    /// An address, for this tenant system if it is known for which.
    Address(Eid, Option<TsiName>),
}

/// A claim.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Claim {
    pub(super) vni: Vni,
    pub(super) what: What,
    /// Who has it.
    pub(super) holder: XtrId,
    /// Who claims it: the same NVE, where two tenant systems there do.
    pub(super) claimant: XtrId,
}

/// How often a claim was heard.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Heard {
    pub(super) times: u64,
    pub(super) first: Time,
    pub(super) last: Time,
}

/// All claims of late.
#[derive(Debug, Default)]
pub(super) struct Duplicates(Mutex<BTreeMap<Claim, Heard>>);

impl Duplicates {
    /// Notes a claim.
    pub(super) fn note(&self, now: Time, claim: Claim) {
        note(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner), now, claim);
    }

    /// The same, without ever waiting: what is heard while somebody looks is heard again.
    pub(super) fn try_note(&self, now: Time, claim: Claim) {
        if let Ok(mut claims) = self.0.try_lock() {
            note(&mut claims, now, claim);
        }
    }

    /// Those told of at `now`, in order.
    pub(super) fn all(&self, now: Time) -> Vec<(Claim, Heard)> {
        let mut claims = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        claims.retain(|_, heard| now.since(heard.last) < TOLD);
        claims.iter().map(|(claim, heard)| (claim.clone(), *heard)).collect()
    }
}

fn note(claims: &mut BTreeMap<Claim, Heard>, now: Time, claim: Claim) {
    if let Some(heard) = claims.get_mut(&claim) {
        if now.since(heard.last) >= TOLD {
            *heard = Heard { times: 0, first: now, last: now };
        }
        heard.times += 1;
        heard.last = now;
        return;
    }
    if claims.len() >= CLAIMS {
        let oldest = claims.iter().min_by_key(|(_, heard)| heard.last).map(|(claim, _)| claim.clone());
        oldest.and_then(|oldest| claims.remove(&oldest));
    }
    claims.insert(claim, Heard { times: 1, first: now, last: now });
}

#[cfg(test)]
mod tests {
    use super::*;

    fn claim(n: u32) -> Claim {
        let what = What::Tsi(TsiName::new(format!("web{n}")).unwrap());
        Claim { vni: Vni::new(7).unwrap(), what, holder: XtrId([1; 16]), claimant: XtrId([2; 16]) }
    }

    #[test]
    fn v10_counted_told_for_a_while_and_bounded() {
        let claims = Duplicates::default();
        claims.note(Time::from_secs(1), claim(0));
        claims.try_note(Time::from_secs(5), claim(0));
        let heard = Heard { times: 2, first: Time::from_secs(1), last: Time::from_secs(5) };
        assert_eq!(claims.all(Time::from_secs(604)), [(claim(0), heard)]);
        assert_eq!(claims.all(Time::from_secs(605)), []);
        for n in 0..2_000 {
            claims.note(Time::from_secs(700 + u64::from(n)), claim(n));
        }
        let all = claims.all(Time::from_secs(2_700));
        assert!(all.len() <= CLAIMS && all.iter().any(|(c, _)| *c == claim(1_999)), "{}", all.len());
        // After a silence it begins anew.
        claims.note(Time::from_secs(9_000), claim(1_999));
        assert_eq!(claims.all(Time::from_secs(9_000)).len(), 1);
        assert_eq!(claims.all(Time::from_secs(9_000))[0].1.times, 1);
    }
}
