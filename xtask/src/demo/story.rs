//! What the demo shows: claims, each with what was seen.

use crate::say;
use serde::Serialize;
use std::net::IpAddr;
use weft_lab::ping::Ping;

/// Everything claimed so far.
#[derive(Debug, Default, Serialize)]
pub(crate) struct Story {
    checks: Vec<Check>,
    round_trips: Vec<RoundTrip>,
}

/// How long one tenant system waited for another, at one of its addresses.
#[derive(Debug, Serialize)]
struct RoundTrip {
    from: String,
    to: String,
    address: IpAddr,
    /// Address resolution included.
    first_ms: Option<f64>,
    /// On average, once everything is known.
    warm_ms: Option<f64>,
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

    /// Remembers the first echo requests from one to the other; only those that came first count.
    pub(crate) fn first(&mut self, from: &str, to: &str, address: IpAddr, ping: Ping) {
        if self.round_trip(from, address).is_none() {
            let (from, to) = (from.to_owned(), to.to_owned());
            self.round_trips.push(RoundTrip { from, to, address, first_ms: ping.first_ms, warm_ms: None });
        }
    }

    /// Remembers later ones.
    pub(crate) fn warm(&mut self, from: &str, address: IpAddr, ping: Ping) {
        if let Some(pair) = self.round_trip(from, address) {
            pair.warm_ms = ping.average_ms;
        }
    }

    fn round_trip(&mut self, from: &str, address: IpAddr) -> Option<&mut RoundTrip> {
        // Names of tenants are unique, and in its VN the address is.
        self.round_trips.iter_mut().find(|pair| pair.from == from && pair.address == address)
    }

    /// Whether every claim holds.
    pub(crate) fn holds(&self) -> bool {
        self.checks.iter().all(|check| check.holds)
    }

    /// Prints the round trips and the claims as tables, and a closing line.
    pub(crate) fn table(&self) {
        say::heading("Round trips, in milliseconds");
        let ms = |time: Option<f64>| time.map_or_else(|| "none".to_owned(), |ms| format!("{ms:.3}"));
        let mut rows: Vec<Vec<String>> = self
            .round_trips
            .iter()
            .map(|p| vec![format!("{} to {} at {}", p.from, p.to, p.address), ms(p.first_ms), ms(p.warm_ms)])
            .collect();
        rows.sort();
        say::table(&["pair", "first", "warm"], &rows);
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
