//! `weft tsi events`: what becomes of interfaces, as it happens.

use super::{nve, unreachable};
use crate::cli::Socket;
use crate::error::CommandError;
use crate::output::{self, Format};
use weft_api::local::{Event, Happened};

/// Prints events until there were `count`, or the NVE ends.
pub(super) async fn follow(
    socket: &Socket,
    after: Option<u64>,
    count: Option<u64>,
    format: Format,
) -> Result<(), CommandError> {
    let mut events = nve(socket)?.events(after).await.map_err(unreachable(socket))?;
    let (mut seen, mut last) = (0, after.unwrap_or_default());
    while count.is_none_or(|count| seen < count) {
        let Some(event) = events.next().await else { return Err(CommandError::StreamEnded(last)) };
        let event = event.map_err(|_| CommandError::StreamEnded(last))?;
        last = event.number;
        // For programs: it says where to go on, and that the NVE lives.
        if event.event != Happened::Bookmark {
            seen += 1;
        } else if format == Format::Table {
            continue;
        }
        if !output::print_on(&output::streamed(format, &event, &text(&event))?)? {
            return Ok(());
        }
    }
    Ok(())
}

/// An event for people.
fn text(event: &Event) -> String {
    let Event { number, event: happened, vn, tsi, cause, moved_to, moved_to_name, address, detail, now } =
        event;
    if *happened == Happened::Missed {
        return format!("{number} {happened}: what came before is not kept any more; list again");
    }
    let mut text = format!("{number} {happened:<13}");
    if let (Some(vn), Some(tsi)) = (vn, tsi) {
        text += &format!(" {vn}/{tsi}");
    }
    if let Some(epoch) = now.as_ref().and_then(|now| now.epoch) {
        text += &format!(" epoch {epoch}");
    }
    if let Some(cause) = cause {
        text += &format!(" because: {cause}");
    }
    let to = moved_to_name.as_ref().map(ToString::to_string);
    if let Some(to) = to.or_else(|| moved_to.map(|to| to.to_string())) {
        text += &format!(" to {to}");
    }
    if let Some(address) = address {
        text += &format!(" {address}");
    }
    if let Some(detail) = detail {
        text += &format!(": {detail}");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_is_one_line() {
        let moved = Event {
            vn: "red".parse().ok(),
            tsi: "web".parse().ok(),
            cause: Some("moved".to_owned()),
            moved_to_name: "h2".parse().ok(),
            ..Event::plain(42, Happened::DeAssociated)
        };
        assert_eq!(text(&moved), "42 de-associated red/web because: moved to h2");
        let missed = text(&Event::plain(7, Happened::Missed));
        assert_eq!(missed, "7 missed: what came before is not kept any more; list again");
    }
}
