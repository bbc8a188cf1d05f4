//! What hypervisors that follow the NVE are told (requirement H6): a ring of the latest events, and the streams that
//! read it. A follower costs nothing while it does not read, and one that is too slow is told that it has missed some.

use super::extract::Words;
use super::local::{Local, Refusal};
use super::{clock, driver::LocalCall};
use crate::core;
use axum::{
    body::{Body, Bytes},
    extract::State,
    http::header,
    response::{IntoResponse, Response},
};
use futures_util::stream;
use serde::Deserialize;
use std::{collections::VecDeque, convert::Infallible, sync::Arc, time::Duration};
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore, watch},
    time::timeout,
};
use weft_api::local as api;

/// Events kept.
const KEPT: usize = 4_096;
/// Events given out at once.
const PAGE: usize = 256;
/// Followers at a time.
const FOLLOWERS: usize = 64;
/// A bookmark is sent after this long without anything else.
const HEARTBEAT: Duration = Duration::from_secs(10);

/// The latest events.
pub(super) struct Ring {
    events: VecDeque<api::Event>,
    /// The number of the latest one.
    latest: watch::Sender<u64>,
    kept: usize,
}

/// What a follower is given.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Page {
    pub(super) events: Vec<api::Event>,
    /// Ask behind this next.
    pub(super) after: u64,
}

impl Ring {
    /// One that goes on behind the number of any earlier run: no event takes less than a microsecond.
    pub(super) fn start() -> Self {
        Self::new(clock::micros(), KEPT)
    }

    fn new(latest: u64, kept: usize) -> Self {
        Self { events: VecDeque::new(), latest: watch::Sender::new(latest), kept: kept.max(1) }
    }

    /// The number of the latest event, whenever there is a new one.
    pub(super) fn latest(&self) -> watch::Receiver<u64> {
        self.latest.subscribe()
    }

    /// Keeps an event under the next number.
    pub(super) fn push(&mut self, event: api::Event) {
        let number = *self.latest.borrow() + 1;
        if self.events.len() >= self.kept {
            self.events.pop_front();
        }
        self.events.push_back(api::Event { number, ..event });
        self.latest.send_replace(number);
    }

    /// What is kept behind a number; nothing but a bookmark without one.
    pub(super) fn page(&self, after: Option<u64>) -> Page {
        let latest = *self.latest.borrow();
        let Some(after) = after else {
            let bookmark = api::Event::plain(latest, api::Happened::Bookmark);
            return Page { events: vec![bookmark], after: latest };
        };
        // The one before the first that is kept: numbers have no gaps.
        let before = self.events.front().map_or(latest, |first| first.number - 1);
        let mut events = Vec::new();
        // A number that is yet to come is another run's.
        let from = if (before..=latest).contains(&after) {
            after
        } else {
            events.push(api::Event::plain(before, api::Happened::Missed));
            before
        };
        let skip = usize::try_from(from - before).unwrap_or(usize::MAX);
        events.extend(self.events.iter().skip(skip).take(PAGE).cloned());
        let after = events.last().map_or(from, |last| last.number);
        Page { events, after }
    }
}

/// Who follows, at most so many.
#[derive(Clone)]
pub(super) struct Followers {
    places: Arc<Semaphore>,
    latest: watch::Receiver<u64>,
}

impl Followers {
    pub(super) fn new(latest: watch::Receiver<u64>) -> Self {
        Self { places: Arc::new(Semaphore::new(FOLLOWERS)), latest }
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct From {
    after: Option<u64>,
}

struct Following {
    local: Local,
    latest: watch::Receiver<u64>,
    after: Option<u64>,
    greeted: bool,
    _place: OwnedSemaphorePermit,
}

/// `GET /v1/events`.
pub(super) async fn follow(
    State(local): State<Local>,
    Words(From { after }): Words<From>,
) -> Result<Response, Refusal> {
    let Followers { places, latest } = local.followers.clone();
    let place = places.try_acquire_owned().map_err(|_| Refusal::followed(FOLLOWERS))?;
    let following = Following { local, latest, after, greeted: false, _place: place };
    let body = Body::from_stream(stream::unfold(following, |mut following| async move {
        let octets = following.next().await?;
        Some((Ok::<_, Infallible>(octets), following))
    }));
    Ok(([(header::CONTENT_TYPE, "application/x-ndjson")], body).into_response())
}

impl Following {
    /// The next lines; none when the NVE stops.
    async fn next(&mut self) -> Option<Bytes> {
        loop {
            // Before the look: what comes in between wakes it.
            self.latest.mark_unchanged();
            let after = self.after;
            let page = self.local.ask(|answer| LocalCall::Events(after, answer)).await.ok()?;
            self.after = Some(page.after);
            let greeted = std::mem::replace(&mut self.greeted, true);
            if !page.events.is_empty() {
                return Some(lines(&page.events));
            }
            let bookmark = || Some(lines(&[api::Event::plain(page.after, api::Happened::Bookmark)]));
            if !greeted {
                return bookmark();
            }
            match timeout(HEARTBEAT, self.latest.changed()).await {
                Ok(news) => news.ok()?,
                Err(_) => return bookmark(),
            }
        }
    }
}

fn lines(events: &[api::Event]) -> Bytes {
    let mut out = Vec::new();
    for event in events {
        let start = out.len();
        match serde_json::to_writer(&mut out, event) {
            Ok(()) => out.push(b'\n'),
            Err(_) => out.truncate(start),
        }
    }
    out.into()
}

/// An event of the core's, as the local API shows it.
pub(super) fn view(core: &core::Core, event: core::Event, now: Option<api::Tsi>) -> api::Event {
    use core::{Cause, Happened};
    let core::Event { tsi, vn, happened, cause, now: _ } = event;
    let moved_to = if let Cause::Moved(to) = &cause { Some(*to) } else { None };
    let (happened, address, detail) = match happened {
        Happened::Associated => (api::Happened::Associated, None, None),
        Happened::Activated => (api::Happened::Activated, None, None),
        Happened::Deactivated => (api::Happened::Deactivated, None, None),
        Happened::DeAssociated => (api::Happened::DeAssociated, None, None),
        Happened::Updated => (api::Happened::Updated, None, None),
        Happened::Conflict(ip, why) => (api::Happened::Conflict, Some(ip), Some(why)),
    };
    api::Event {
        vn: Some(vn),
        tsi: Some(tsi.name),
        cause: Some(cause.as_str().to_owned()),
        moved_to,
        moved_to_name: moved_to.and_then(|to| core.nve_name(to)).cloned(),
        address,
        detail: detail.or_else(|| now.as_ref().and_then(|now| now.closed.clone())),
        now,
        ..api::Event::plain(0, happened)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn numbers(page: &Page) -> Vec<u64> {
        page.events.iter().map(|event| event.number).collect()
    }

    fn ring(first: u64, kept: usize, count: u64) -> Ring {
        let mut ring = Ring::new(first, kept);
        (0..count).for_each(|_| ring.push(api::Event::plain(0, api::Happened::Updated)));
        ring
    }

    #[test]
    fn h6_who_comes_back_goes_on_and_who_is_too_slow_is_told() {
        let ring = ring(100, 3, 5);
        let now = ring.page(None);
        assert_eq!((numbers(&now), now.events[0].event), (vec![105], api::Happened::Bookmark));
        assert_eq!(numbers(&ring.page(Some(103))), [104, 105]);
        assert_eq!(ring.page(Some(105)), Page { events: vec![], after: 105 });
        // The last that is known of is the one before the first that is kept: nothing is missed.
        assert_eq!(numbers(&ring.page(Some(102))), [103, 104, 105]);
        for elsewhere in [101, 0, 106, u64::MAX] {
            let page = ring.page(Some(elsewhere));
            assert_eq!(numbers(&page), [102, 103, 104, 105], "{elsewhere}");
            assert_eq!(page.events[0].event, api::Happened::Missed);
        }
    }

    #[test]
    fn h6_an_earlier_run_s_numbers_are_known_to_be_such() {
        let ring = ring(1_000, 3, 0);
        let page = ring.page(Some(7));
        assert_eq!((numbers(&page), page.events[0].event), (vec![1_000], api::Happened::Missed));
        assert_eq!(ring.page(Some(page.after)).events, []);
    }

    proptest! {
        /// However events and looks follow each other, each number is seen once and in order, or in a gap that was told.
        #[test]
        fn h6_nothing_is_lost_without_a_word(
            kept in 1_usize..5,
            rounds in proptest::collection::vec(0_u64..8, 1..20),
        ) {
            let mut ring = ring(10, kept, 0);
            let mut seen = 10;
            for more in rounds {
                (0..more).for_each(|_| ring.push(api::Event::plain(0, api::Happened::Updated)));
                loop {
                    let page = ring.page(Some(seen));
                    if page.events.is_empty() {
                        break;
                    }
                    for event in &page.events {
                        match event.event {
                            api::Happened::Missed => prop_assert!(event.number > seen),
                            _ => prop_assert_eq!(event.number, seen + 1),
                        }
                        seen = event.number;
                    }
                    prop_assert_eq!(page.after, seen);
                }
                prop_assert_eq!(seen, *ring.latest.borrow());
            }
        }
    }
}
