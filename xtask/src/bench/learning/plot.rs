//! The learning bench as a picture: one panel a question, one bar a way of learning.

use super::report::Report;
use anyhow::{Result, anyhow};
use plotters::prelude::*;
use std::path::Path;

/// What is drawn: metric, what its panel says, and what a value is divided by.
const PANELS: [(&str, &str, f64); 6] = [
    ("entries_per_nve", "table entries per host", 1.0),
    ("mac_entries_per_nve", "of them MAC addresses", 1.0),
    ("control_bytes", "control traffic of first contacts, kB", 1e3),
    ("underlay_broadcasts", "ARP and ND copies on the underlay", 1.0),
    ("first_packet_us_p50", "first answer, p50, us", 1.0),
    ("storm_us_p99", "first answer in a storm, p99, ms", 1e3),
];
const SIZE: (u32, u32) = (960, 560);
const BAR: RGBColor = RGBColor(0x2f, 0x6d, 0x9e);
const TEXT: RGBColor = RGBColor(0x30, 0x30, 0x30);
/// Of a panel's width, how much the names take and how much the longest bar may.
const NAMES: f64 = 0.33;
const LONGEST: f64 = 0.47;

/// Writes the picture to `path` as SVG.
pub(super) fn write(report: &Report, path: &Path) -> Result<()> {
    let drawn = |e: &dyn std::fmt::Display| anyhow!("cannot draw {}: {e}", path.display());
    let root = SVGBackend::new(path, SIZE).into_drawing_area();
    root.fill(&WHITE).map_err(|e| drawn(&e))?;
    for (area, (metric, title, unit)) in root.split_evenly((2, 3)).iter().zip(PANELS) {
        let bars: Vec<(String, f64)> = report.of(metric).map(|(way, value)| (way, value / unit)).collect();
        panel(area, title, &bars).map_err(|e| drawn(&e))?;
    }
    root.present().map_err(|e| drawn(&e))
}

type Area<'a> = DrawingArea<SVGBackend<'a>, plotters::coord::Shift>;
type Failed<'a> = DrawingAreaErrorKind<<SVGBackend<'a> as DrawingBackend>::ErrorType>;

fn panel<'a>(area: &Area<'a>, title: &str, bars: &[(String, f64)]) -> Result<(), Failed<'a>> {
    let (width, height) = area.dim_in_pixel();
    let text = |size| ("sans-serif", size).into_font().color(&TEXT);
    area.draw(&Text::new(title.to_owned(), (12, 12), text(14)))?;
    let most = bars.iter().map(|(_, value)| *value).fold(f64::MIN_POSITIVE, f64::max);
    let step = (f64::from(height) - 48.0) / bars.len().max(1) as f64;
    for (n, (way, value)) in bars.iter().enumerate() {
        let top = 40.0 + step * n as f64;
        let left = f64::from(width) * NAMES;
        let right = left + f64::from(width) * LONGEST * value / most;
        let bar = [pixel(left, top), pixel(right.max(left + 1.0), top + step * 0.62)];
        let middle = top + step * 0.31 - 6.0;
        area.draw(&Rectangle::new(bar, BAR.filled()))?;
        area.draw(&Text::new(way.clone(), pixel(12.0, middle), text(12)))?;
        area.draw(&Text::new(number(*value), pixel(right + 5.0, middle), text(12)))?;
    }
    Ok(())
}

#[allow(clippy::cast_possible_truncation, reason = "inside the picture")]
fn pixel(x: f64, y: f64) -> (i32, i32) {
    (x.round() as i32, y.round() as i32)
}

/// Three digits are enough to compare bars by.
fn number(value: f64) -> String {
    if value == 0.0 {
        return "0".to_owned();
    }
    let digits = if value < 10.0 { 1 } else { 0 };
    format!("{value:.digits$}")
}

#[cfg(test)]
mod tests {
    use super::super::Way;
    use super::*;

    #[test]
    fn every_way_has_a_bar_in_every_panel() {
        let mut report = Report::new();
        for (n, way) in super::super::WAYS.into_iter().enumerate() {
            for (metric, _, _) in PANELS {
                report.add(way, metric, "1", n as f64 * 1e3);
            }
        }
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("learning.svg");
        write(&report, &path).unwrap();
        let svg = std::fs::read_to_string(path).unwrap();
        for Way { mode, reply } in super::super::WAYS {
            assert_eq!(svg.matches(&format!("{mode}/{reply}")).count(), PANELS.len(), "{mode}/{reply}");
        }
        assert_eq!(svg.matches("<rect").count(), 1 + PANELS.len() * super::super::WAYS.len());
    }
}
