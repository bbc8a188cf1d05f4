//! `weft trace`: what becomes of a packet, step by step.

use super::tsi::{nve, unreachable};
use crate::cli::TraceArgs;
use crate::error::CommandError;
use crate::output::{self, Column, Format};
use weft_api::{TraceRequest, TraceResult, TraceView};

const COLUMNS: &[Column] = &[("nve", "/nve"), ("step", "/step"), ("what came of it", "/text")];

pub(super) async fn run(args: TraceArgs) -> Result<(), CommandError> {
    let TraceArgs { vn, from, to, probe, deliver, size, source_mac, source_ip, to_mac, socket, output } =
        args;
    let request = TraceRequest { vn, from, to, probe, deliver, size, source_mac, source_ip, to_mac };
    let view = nve(&socket)?.trace(&request).await.map_err(unreachable(&socket))?;
    match output.output {
        Format::Table => {
            let table = output::list(Format::Table, &view.steps, COLUMNS)?;
            output::print(&format!("{table}{}\n", ending(&view)))
        }
        format => output::print(&output::one(format, &view, COLUMNS)?),
    }
}

/// The last line.
fn ending(view: &TraceView) -> String {
    let at = view.nve.as_ref().map_or_else(String::new, |nve| format!(" at {nve}"));
    match (view.result, &view.reason) {
        (TraceResult::Delivered, _) => format!("delivered{at}"),
        (TraceResult::Arrived, _) => {
            format!("arrived{at}, and ended just before it would be handed over (--deliver hands it over)")
        }
        (TraceResult::Dropped, Some(reason)) => format!("dropped{at}: {reason}"),
        (TraceResult::Dropped, None) => format!("dropped{at}"),
        (TraceResult::Unknown, _) => format!("seen last{at}; what became of it is not known"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn how_it_ended_is_said_in_one_line() {
        let view = |result, reason: Option<&str>| TraceView {
            result,
            reason: reason.map(str::to_owned),
            nve: Some("h2".parse().unwrap()),
            steps: Vec::new(),
        };
        assert_eq!(ending(&view(TraceResult::Dropped, Some("denied"))), "dropped at h2: denied");
        for result in
            [TraceResult::Delivered, TraceResult::Arrived, TraceResult::Dropped, TraceResult::Unknown]
        {
            let text = ending(&view(result, None));
            assert!(text.contains("at h2") && !text.contains('\n'), "{text}");
        }
    }
}
