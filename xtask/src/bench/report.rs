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
                let value = |peer| samples.quantile(metric.name(), peer, part).map(round);
                let weft = value(WEFT);
                let others = samples.peers(metric.name()).into_iter().filter(|peer| *peer != WEFT);
                let peers: BTreeMap<_, _> = others.filter_map(|peer| Some((peer, value(peer)?))).collect();
                let ratio = match weft {
                    Some(weft) => peers.iter().map(|(peer, value)| (*peer, round(weft / value))).collect(),
                    None => BTreeMap::new(),
                };
                if weft.is_some() || !peers.is_empty() {
                    rows.push(Row { metric: name, weft, peers, ratio });
                }
            }
        }
        Self { bench, machine: machine::describe(), rounds, rows }
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
        let mut text = serde_json::to_string_pretty(self)?;
        text.push('\n');
        std::fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))
    }
}

/// Three digits after the point: more than any of this is good for.
fn round(value: f64) -> f64 {
    (value * 1000.0).round() / 1000.0
}
