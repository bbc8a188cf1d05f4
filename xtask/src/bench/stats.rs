//! Samples by metric and implementation, medians and percentiles.

use std::collections::BTreeMap;

/// Everything measured in one bench.
#[derive(Debug, Default)]
pub(crate) struct Samples(BTreeMap<(&'static str, &'static str), Vec<f64>>);

impl Samples {
    pub(crate) fn add(&mut self, metric: &'static str, peer: &'static str, value: f64) {
        self.0.entry((metric, peer)).or_default().push(value);
    }

    /// The `part` quantile (0.5 is the median) of what `peer` gave for `metric`.
    pub(crate) fn quantile(&self, metric: &'static str, peer: &'static str, part: f64) -> Option<f64> {
        self.0.get(&(metric, peer)).and_then(|values| quantile(values, part))
    }

    /// The implementations that were measured for `metric`.
    pub(crate) fn peers(&self, metric: &str) -> Vec<&'static str> {
        self.0.keys().filter(|(name, _)| *name == metric).map(|(_, peer)| *peer).collect()
    }
}

/// The smallest value that `part` of all values do not exceed; for a median of an even number, the
/// mean of the middle two.
pub(crate) fn quantile(values: &[f64], part: f64) -> Option<f64> {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let count = sorted.len();
    if part == 0.5 && count > 0 && count.is_multiple_of(2) {
        return Some(f64::midpoint(sorted[count / 2 - 1], sorted[count / 2]));
    }
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a rank within the list")]
    let rank = (part * count as f64).ceil() as usize;
    sorted.get(rank.clamp(1, count.max(1)) - 1).copied()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles() {
        assert_eq!(quantile(&[], 0.5), None);
        assert_eq!(quantile(&[3.0, 1.0, 2.0], 0.5), Some(2.0));
        assert_eq!(quantile(&[4.0, 1.0, 2.0, 3.0], 0.5), Some(2.5));
        let hundred: Vec<f64> = (1..=100).map(f64::from).collect();
        assert_eq!(quantile(&hundred, 0.99), Some(99.0));
        assert_eq!(quantile(&[7.0], 0.99), Some(7.0));
    }
}
