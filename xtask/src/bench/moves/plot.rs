//! How long moves were seen to take, by how many of them: in text and as a picture, one panel an implementation.

use crate::say;
use anyhow::{Result, anyhow};
use plotters::prelude::*;
use std::{collections::BTreeMap, path::Path};

/// Where a bar ends and the next begins, ms; each is twice the one before.
const EDGES: [f64; 11] = [1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0, 512.0, 1024.0];
const SIZE: (u32, u32) = (960, 480);
const BAR: RGBColor = RGBColor(0x2f, 0x6d, 0x9e);
const TEXT: RGBColor = RGBColor(0x30, 0x30, 0x30);
/// Of the picture's width, what a panel's margins take; of a panel's height, what is above and below its bars.
const MARGIN: f64 = 16.0;
const ABOVE: f64 = 44.0;
const BELOW: f64 = 24.0;

/// Samples by implementation.
type Gaps<'a> = BTreeMap<&'a str, Vec<f64>>;

/// How many lie below the first edge, between two, and above the last.
fn counts(gaps: &[f64]) -> [usize; EDGES.len() + 1] {
    let mut counts = [0; EDGES.len() + 1];
    for gap in gaps {
        counts[EDGES.partition_point(|edge| edge <= gap)] += 1;
    }
    counts
}

fn labels() -> Vec<String> {
    let within = EDGES.windows(2).map(|pair| format!("{}-{}", pair[0], pair[1]));
    let [first, .., last] = EDGES;
    std::iter::once(format!("<{first}")).chain(within).chain([format!(">={last}")]).collect()
}

/// Prints a table.
pub(super) fn print(gaps: &Gaps<'_>) {
    say::heading("gaps, ms: how many of each length");
    let labels = labels();
    let header: Vec<&str> = std::iter::once("").chain(labels.iter().map(String::as_str)).collect();
    let row = |(name, gaps): (&&str, &Vec<f64>)| {
        std::iter::once((*name).to_owned()).chain(counts(gaps).map(|count| count.to_string())).collect()
    };
    say::table(&header, &gaps.iter().map(row).collect::<Vec<_>>());
}

/// Writes the picture to `path` as SVG.
pub(super) fn write(gaps: &Gaps<'_>, path: &Path) -> Result<()> {
    let drawn = |e: &dyn std::fmt::Display| anyhow!("cannot draw {}: {e}", path.display());
    let root = SVGBackend::new(path, SIZE).into_drawing_area();
    root.fill(&WHITE).map_err(|e| drawn(&e))?;
    for (area, (name, gaps)) in root.split_evenly((gaps.len().max(1), 1)).iter().zip(gaps) {
        panel(area, name, gaps).map_err(|e| drawn(&e))?;
    }
    root.present().map_err(|e| drawn(&e))
}

type Area<'a> = DrawingArea<SVGBackend<'a>, plotters::coord::Shift>;
type Failed<'a> = DrawingAreaErrorKind<<SVGBackend<'a> as DrawingBackend>::ErrorType>;

fn panel<'a>(area: &Area<'a>, name: &str, gaps: &[f64]) -> Result<(), Failed<'a>> {
    let (width, height) = area.dim_in_pixel();
    let (width, height) = (f64::from(width), f64::from(height));
    let text = |size| ("sans-serif", size).into_font().color(&TEXT);
    let title = format!("{name}: {} gaps, ms", gaps.len());
    area.draw(&Text::new(title, pixel(MARGIN, 8.0), text(14)))?;
    let counts = counts(gaps);
    let most = counts.iter().copied().max().unwrap_or_default().max(1) as f64;
    let step = (width - 2.0 * MARGIN) / counts.len() as f64;
    let bottom = height - BELOW;
    for (n, (count, label)) in counts.iter().zip(labels()).enumerate() {
        let left = MARGIN + step * n as f64;
        let top = bottom - (bottom - ABOVE) * *count as f64 / most;
        let bar = [pixel(left, top.min(bottom - 1.0)), pixel(left + step * 0.8, bottom)];
        area.draw(&Rectangle::new(bar, BAR.filled()))?;
        area.draw(&Text::new(label, pixel(left, bottom + 6.0), text(12)))?;
        if *count > 0 {
            area.draw(&Text::new(count.to_string(), pixel(left, top - 14.0), text(12)))?;
        }
    }
    Ok(())
}

#[allow(clippy::cast_possible_truncation, reason = "inside the picture")]
fn pixel(x: f64, y: f64) -> (i32, i32) {
    (x.round() as i32, y.round() as i32)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_gap_is_in_one_bar() {
        let gaps = [0.5, 1.0, 1.5, 2.0, 1023.9, 1024.0, 30_000.0];
        let counts = counts(&gaps);
        assert_eq!(counts.iter().sum::<usize>(), gaps.len());
        assert_eq!((counts[0], counts[1], counts[2], counts[10], counts[11]), (1, 2, 1, 1, 2));
        assert_eq!(labels().len(), counts.len());
    }

    #[test]
    fn every_implementation_has_a_panel() {
        let gaps: Gaps<'_> = [("weft", vec![2.0, 3.0]), ("frr", vec![60.0])].into();
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("move.svg");
        write(&gaps, &path).unwrap();
        let svg = std::fs::read_to_string(path).unwrap();
        assert!(svg.contains("weft: 2 gaps") && svg.contains("frr: 1 gaps"), "{svg}");
        assert_eq!(svg.matches("<rect").count(), 1 + gaps.len() * (EDGES.len() + 1));
    }
}
