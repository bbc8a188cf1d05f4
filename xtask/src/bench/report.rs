//! What a bench found, for people and for programs.

use super::{measure::Metric, stats::Samples};
use crate::{machine, say};
use anyhow::{Context as _, Result};
use serde::Serialize;
use std::{collections::BTreeMap, path::Path};

/// The name under which Weft's own samples are kept.
pub(crate) const WEFT: &str = "weft";

/// One bench.
#[derive(Debug, Serialize)]
pub(crate) struct Report {
    bench: &'static str,
    machine: String,
    rounds: u32,
    rows: Vec<Row>,
}

#[derive(Debug, Serialize)]
struct Row {
    metric: String,
    unit: &'static str,
    weft: Option<f64>,
    peers: BTreeMap<&'static str, f64>,
    /// Weft divided by the peer.
    ratio: BTreeMap<&'static str, f64>,
}

impl Report {
    pub(crate) fn of(bench: &'static str, rounds: u32, metrics: &[Metric], samples: &Samples) -> Self {
        let mut rows = Vec::new();
        for metric in metrics {
            for (name, part) in metric.rows() {
                let value = |peer| samples.quantile(metric.name(), peer, part);
                let row = row(&name, metric.unit(), value, &samples.peers(metric.name()));
                if row.weft.is_some() || !row.peers.is_empty() {
                    rows.push(row);
                }
            }
        }
        Self { bench, machine: machine::describe(), rounds, rows }
    }

    /// Of rows given as name, unit, samples' name and quantile.
    pub(crate) fn of_rows(
        bench: &'static str,
        rounds: u32,
        metrics: &[(&'static str, &'static str, &'static str, f64)],
        samples: &Samples,
    ) -> Self {
        let row = |(name, unit, of, part): &(&'static str, &'static str, &'static str, f64)| {
            row(name, unit, |peer| samples.quantile(of, peer, *part), &samples.peers(of))
        };
        Self { bench, machine: machine::describe(), rounds, rows: metrics.iter().map(row).collect() }
    }

    pub(crate) fn print(&self) {
        say::heading(&format!("{}: medians of {} rounds, {}", self.bench, self.rounds, self.machine));
        let mut names: Vec<&str> = self.rows.iter().flat_map(|row| row.peers.keys().copied()).collect();
        names.sort_unstable();
        names.dedup();
        let header: Vec<&str> = ["metric", WEFT].into_iter().chain(names.iter().copied()).collect();
        let rows: Vec<Vec<String>> = self
            .rows
            .iter()
            .map(|row| {
                let show =
                    |value: Option<f64>| value.map_or_else(|| "-".to_owned(), |value| value.to_string());
                let with_ratio = |peer: &&str| match (row.peers.get(peer), row.ratio.get(peer)) {
                    (Some(value), Some(ratio)) => format!("{value} (weft x{ratio})"),
                    (value, _) => show(value.copied()),
                };
                [row.metric.clone(), show(row.weft)].into_iter().chain(names.iter().map(with_ratio)).collect()
            })
            .collect();
        say::table(&header, &rows);
    }

    pub(crate) fn write(&self, path: &Path) -> Result<()> {
        write(self, path)
    }
}

/// Writes a report for programs.
pub(crate) fn write(report: &impl Serialize, path: &Path) -> Result<()> {
    let mut text = serde_json::to_string_pretty(report)?;
    text.push('\n');
    std::fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))
}

fn row(
    name: &str,
    unit: &'static str,
    value: impl Fn(&'static str) -> Option<f64>,
    measured: &[&'static str],
) -> Row {
    let value = |peer| value(peer).map(round);
    let weft = value(WEFT);
    let others = measured.iter().copied().filter(|peer| *peer != WEFT);
    let peers: BTreeMap<_, _> = others.filter_map(|peer| Some((peer, value(peer)?))).collect();
    let ratio = match weft {
        // Nothing is no measure of anything.
        Some(weft) => peers.iter().filter(|(_, v)| **v != 0.0).map(|(p, v)| (*p, round(weft / v))).collect(),
        None => BTreeMap::new(),
    };
    Row { metric: name.to_owned(), unit, weft, peers, ratio }
}

/// Three digits after the point: more than any of this is good for.
fn round(value: f64) -> f64 {
    (value * 1000.0).round() / 1000.0
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::What;

    /// The form that this and every later bench writes.
    #[test]
    fn rows_have_the_form_that_programs_read() {
        let mut samples = Samples::default();
        for (peer, value) in [(WEFT, 8.0), ("kernel-bridge-vxlan", 16.0)] {
            samples.add("ping_rtt_us", peer, value);
        }
        let report = Report::of("datapath", 1, Metric::of(What::Datapath), &samples);
        let json = serde_json::to_value(&report).unwrap();
        let keys: Vec<&str> = json.as_object().unwrap().keys().map(String::as_str).collect();
        assert_eq!(keys, ["bench", "machine", "rounds", "rows"]);
        assert_eq!(
            json["rows"],
            serde_json::json!([{
                "metric": "ping_rtt_us",
                "unit": "us",
                "weft": 8.0,
                "peers": {"kernel-bridge-vxlan": 16.0},
                "ratio": {"kernel-bridge-vxlan": 0.5},
            }])
        );
    }

    /// Names of metrics say their unit already: both say the same.
    #[test]
    fn every_metric_has_the_unit_of_its_name() {
        for what in [What::Datapath, What::Resolve, What::Attach] {
            for metric in Metric::of(what) {
                let word = match metric.unit() {
                    "Gb/s" => "gbps",
                    "1/s" => "per_s",
                    other => other,
                };
                for (name, _) in metric.rows() {
                    assert!(name.contains(&format!("_{word}")), "{name} in {}", metric.unit());
                }
            }
        }
    }
}
