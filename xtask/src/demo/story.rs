//! What the demo shows: claims, each with what was seen.

use crate::say;
use serde::Serialize;

/// Everything claimed so far.
#[derive(Debug, Default, Serialize)]
pub(crate) struct Story {
    checks: Vec<Check>,
}

#[derive(Debug, Serialize)]
struct Check {
    claim: String,
    holds: bool,
    seen: String,
}

impl Story {
    /// Adds a claim with what was seen of it.
    pub(crate) fn check(&mut self, claim: &str, holds: bool, seen: impl Into<String>) {
        let seen = seen.into();
        say::line(&format!("  {} {claim}: {seen}", if holds { "ok  " } else { "FAIL" }));
        self.checks.push(Check { claim: claim.to_owned(), holds, seen });
    }

    /// Whether every claim holds.
    pub(crate) fn holds(&self) -> bool {
        self.checks.iter().all(|check| check.holds)
    }

    /// Prints the claims as a table and a closing line.
    pub(crate) fn table(&self) {
        say::heading("What was claimed, and what was seen");
        for check in &self.checks {
            say::line(&format!(
                "{:<5} {:<58} {}",
                if check.holds { "ok" } else { "FAIL" },
                check.claim,
                check.seen
            ));
        }
        let failed = self.checks.iter().filter(|check| !check.holds).count();
        say::line(&format!("\ndemo: {} passed, {failed} failed", self.checks.len() - failed));
    }
}
