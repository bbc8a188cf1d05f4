//! What an NVE has seen of a traced packet.

use serde::{Deserialize, Serialize};
use weft_api::{TraceResult, TraceStep};
use weft_datapath::{Ended, Reason, Step, Traced};
use weft_model::{NveName, Rloc};

/// Its steps at one NVE, and how it ended there.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(in crate::agent) struct Seen {
    pub(in crate::agent) steps: Vec<TraceStep>,
    pub(in crate::agent) result: TraceResult,
    pub(in crate::agent) reason: Option<String>,
    /// It has left for another NVE.
    #[serde(skip)]
    pub(in crate::agent) left: bool,
    /// It has not left for this one only because that was not told.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(in crate::agent) stopped_before: Option<Rloc>,
}

/// Steps of another NVE that are shown, and characters of what it says.
const STEPS: usize = 64;
const LONGEST: usize = 400;

impl Seen {
    /// What another NVE says, whatever it calls itself: not more than makes sense, and nothing that a terminal would take
    /// for more than text.
    pub(super) fn of(mut self, nve: &NveName) -> Self {
        let clean = |text: &mut String| {
            *text = text.chars().filter(|c| !c.is_control()).take(LONGEST).collect();
        };
        self.steps.truncate(STEPS);
        for step in &mut self.steps {
            step.nve = Some(nve.clone());
            [&mut step.step, &mut step.text].into_iter().for_each(clean);
            [&mut step.device, &mut step.rule, &mut step.reason].into_iter().flatten().for_each(clean);
        }
        self.reason.iter_mut().for_each(clean);
        self
    }
}

/// How a packet of which these steps are known ended: delivered, arrived or dropped; left; stopped before an RLOC.
pub(super) fn outcome(steps: &[Traced], deliver: bool) -> (TraceResult, Option<Reason>, bool, Option<Rloc>) {
    let Some((ended, reason)) = steps.iter().rev().find_map(|traced| match traced.step {
        Step::End(ended, reason) => Some((ended, reason)),
        _ => None,
    }) else {
        return (TraceResult::Unknown, None, false, None);
    };
    let rloc = steps.iter().rev().find_map(|traced| match traced.step {
        Step::Location { rloc, .. } => rloc,
        _ => None,
    });
    match ended {
        Ended::Delivered(_) if deliver => (TraceResult::Delivered, None, false, None),
        Ended::Delivered(_) => (TraceResult::Arrived, None, false, None),
        Ended::Left => (TraceResult::Unknown, None, true, None),
        Ended::Stopped => (TraceResult::Unknown, None, false, rloc),
        // Rates, mostly: nothing has come after it.
        Ended::Dropped => (TraceResult::Dropped, reason, false, None),
        Ended::Punted(_) => (TraceResult::Dropped, reason, false, None),
        Ended::Passed | Ended::Answered | Ended::Replicated => (TraceResult::Unknown, None, false, None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use weft_datapath::{By, IfIndex, TraceId};

    fn steps(all: &[Step]) -> Vec<Traced> {
        let id = TraceId::new(1).unwrap();
        all.iter().map(|step| Traced { id, device: IfIndex(3), step: *step }).collect()
    }

    #[test]
    fn the_last_end_counts() {
        let rloc: Rloc = "192.0.2.2".parse().unwrap();
        let there = Step::Location { by: By::Table, vap: None, rloc: Some(rloc) };
        let stopped = Step::End(Ended::Stopped, Some(Reason::Encapsulated));
        let of = |all: &[Step], deliver| outcome(&steps(all), deliver);
        assert_eq!(of(&[], false), (TraceResult::Unknown, None, false, None));
        assert_eq!(
            of(&[Step::Checked, there, stopped], true),
            (TraceResult::Unknown, None, false, Some(rloc))
        );
        let left = Step::End(Ended::Left, Some(Reason::Encapsulated));
        assert_eq!(of(&[there, left], true), (TraceResult::Unknown, None, true, None));
        let handed = Step::End(Ended::Delivered(IfIndex(4)), Some(Reason::Delivered));
        let passed = Step::End(Ended::Passed, None);
        assert_eq!(of(&[passed, handed], false), (TraceResult::Arrived, None, false, None));
        assert_eq!(of(&[passed, handed], true), (TraceResult::Delivered, None, false, None));
        let told = Step::End(Ended::Punted(None), Some(Reason::Punted));
        let lost = Step::End(Ended::Dropped, Some(Reason::UnknownMac));
        assert_eq!(of(&[told, lost], true), (TraceResult::Dropped, Some(Reason::UnknownMac), false, None));
        let redirected = Step::End(Ended::Stopped, Some(Reason::Redirected));
        assert_eq!(of(&[there, redirected], false), (TraceResult::Unknown, None, false, Some(rloc)));
    }

    #[test]
    fn what_another_nve_says_is_text() {
        let bad = "ok\u{1b}[2J\r\nmore";
        let step = TraceStep {
            nve: Some("h1".parse().unwrap()),
            step: bad.to_owned(),
            text: "x".repeat(10_000),
            rule: Some(bad.to_owned()),
            ..TraceStep::default()
        };
        let (result, reason) = (TraceResult::Dropped, Some(bad.to_owned()));
        let seen = Seen { steps: vec![step; 1_000], result, reason, left: false, stopped_before: None };
        let seen = seen.of(&"h2".parse().unwrap());
        assert_eq!((seen.steps.len(), seen.reason.as_deref()), (STEPS, Some("ok[2Jmore")));
        for step in seen.steps {
            assert_eq!(step.nve.as_ref().map(ToString::to_string).as_deref(), Some("h2"));
            assert_eq!((step.text.len(), step.step.as_str()), (LONGEST, "ok[2Jmore"));
            assert_eq!(step.rule.as_deref(), Some("ok[2Jmore"));
        }
    }
}
