//! Rows of the learning bench: one value per metric and way.

use super::Way;
use crate::{bench::report, machine, say};
use anyhow::Result;
use serde::Serialize;
use std::path::Path;

#[derive(Debug, Serialize)]
pub(super) struct Report {
    bench: &'static str,
    machine: String,
    rounds: u32,
    rows: Vec<Row>,
}

#[derive(Debug, Serialize)]
struct Row {
    metric: &'static str,
    unit: &'static str,
    mode: &'static str,
    reply: &'static str,
    weft: f64,
}

impl Report {
    pub(super) fn new() -> Self {
        Self { bench: "learning", machine: machine::describe(), rounds: 1, rows: Vec::new() }
    }

    pub(super) fn add(&mut self, way: Way, metric: &'static str, unit: &'static str, value: f64) {
        let weft = (value * 10.0).round() / 10.0;
        say::step(&format!("{metric} {weft} {unit}"));
        self.rows.push(Row { metric, unit, mode: way.mode, reply: way.reply, weft });
    }

    /// The values of one metric, by way.
    pub(super) fn of(&self, metric: &str) -> impl Iterator<Item = (String, f64)> {
        let rows = self.rows.iter().filter(move |row| row.metric == metric);
        rows.map(|row| (format!("{}/{}", row.mode, row.reply), row.weft))
    }

    pub(super) fn print(&self) {
        say::heading(&format!("{}: {}", self.bench, self.machine));
        let mut ways: Vec<(&str, &str)> = Vec::new();
        let mut metrics: Vec<(&str, &str)> = Vec::new();
        for row in &self.rows {
            if !ways.contains(&(row.mode, row.reply)) {
                ways.push((row.mode, row.reply));
            }
            if !metrics.contains(&(row.metric, row.unit)) {
                metrics.push((row.metric, row.unit));
            }
        }
        let names: Vec<String> = ways.iter().map(|(mode, reply)| format!("{mode}/{reply}")).collect();
        let header: Vec<&str> =
            ["metric", "unit"].into_iter().chain(names.iter().map(String::as_str)).collect();
        let value = |metric: &str, (mode, reply): (&str, &str)| {
            let row = self.rows.iter().find(|r| (r.metric, r.mode, r.reply) == (metric, mode, reply));
            row.map_or_else(|| "-".to_owned(), |row| row.weft.to_string())
        };
        let rows: Vec<Vec<String>> = metrics
            .iter()
            .map(|(metric, unit)| {
                let values = ways.iter().map(|way| value(metric, *way));
                [(*metric).to_owned(), (*unit).to_owned()].into_iter().chain(values).collect()
            })
            .collect();
        say::table(&header, &rows);
    }

    pub(super) fn write(&self, path: &Path) -> Result<()> {
        report::write(self, path)
    }
}
