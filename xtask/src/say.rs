//! Everything that xtask prints.

use std::{
    io::{self, IsTerminal as _, Write as _},
    time::Duration,
};

/// A line of the result, on standard output.
pub(crate) fn line(text: &str) {
    // A reader that has gone away is no failure of ours.
    let _ = writeln!(io::stdout().lock(), "{text}");
}

/// A heading.
pub(crate) fn heading(text: &str) {
    let (on, off) = if io::stdout().is_terminal() { ("\x1b[1m", "\x1b[0m") } else { ("", "") };
    line(&format!("\n{on}{text}{off}"));
}

/// What is being done now, on standard error.
pub(crate) fn step(text: &str) {
    let _ = writeln!(io::stderr().lock(), "xtask: {text}");
}

/// A failure: one line, with its causes.
pub(crate) fn error(error: &anyhow::Error) {
    let _ = writeln!(io::stderr().lock(), "error: {error:#}");
}

/// A table with aligned columns; the first is to the left, the others to the right.
pub(crate) fn table(header: &[&str], rows: &[Vec<String>]) {
    let widths: Vec<usize> = (0..header.len())
        .map(|at| {
            let longest = rows.iter().filter_map(|row| row.get(at)).map(|cell| cell.chars().count()).max();
            longest.unwrap_or(0).max(header[at].chars().count())
        })
        .collect();
    let show = |cells: &mut dyn Iterator<Item = &str>| {
        let mut text = String::new();
        for (at, (cell, width)) in cells.zip(&widths).enumerate() {
            if at == 0 {
                text.push_str(&format!("{cell:<width$}"));
            } else {
                text.push_str(&format!("  {cell:>width$}"));
            }
        }
        line(text.trim_end());
    };
    show(&mut header.iter().copied());
    let rule: Vec<String> = widths.iter().map(|width| "-".repeat(*width)).collect();
    show(&mut rule.iter().map(String::as_str));
    for row in rows {
        show(&mut row.iter().map(String::as_str));
    }
}

/// `12.3 s`, or `2 min 5 s`.
pub(crate) fn duration(time: Duration) -> String {
    if time.as_secs() < 120 {
        format!("{:.1} s", time.as_secs_f64())
    } else {
        format!("{} min {} s", time.as_secs() / 60, time.as_secs() % 60)
    }
}
