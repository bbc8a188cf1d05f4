//! Who comes in: bounds on connections and on handshakes, so that strangers who say nothing keep
//! nobody else out.
//!
//! Accepting never waits. A connection gets a place or is closed; its own task then waits for its
//! turn to shake hands, first among those of its source address and then among all. One source
//! holds a fraction of the turns at most, however many connections it opens.

use std::{
    collections::BTreeMap,
    net::{IpAddr, Ipv6Addr},
    sync::{Arc, Mutex, PoisonError},
};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Bounds of one [`Doors`].
#[derive(Clone, Copy, Debug)]
pub(super) struct Bounds {
    /// Connections at a time, those that still shake hands included.
    pub(super) places: usize,
    /// Handshakes at a time.
    pub(super) turns: usize,
    /// Of these, by one source address.
    pub(super) turns_per_source: usize,
    /// Connections of one source address whose other end is not known yet.
    pub(super) unknown_per_source: usize,
}

impl Bounds {
    /// `places`, and the usual rest.
    pub(super) const fn of(places: usize) -> Self {
        Self { places, turns: 256, turns_per_source: 64, unknown_per_source: 1_024 }
    }
}

/// The way in of one kind of connection.
pub(super) struct Doors {
    places: Arc<Semaphore>,
    turns: Arc<Semaphore>,
    bounds: Bounds,
    /// Sources with connections whose other end is not known yet: never without one.
    sources: Mutex<BTreeMap<IpAddr, Source>>,
}

struct Source {
    turns: Arc<Semaphore>,
    unknown: usize,
}

/// A connection's place, given back when dropped.
pub(super) struct Place {
    _place: OwnedSemaphorePermit,
    /// Until it is known who is at the other end.
    unknown: Option<Unknown>,
}

/// One of its source's unknown connections.
struct Unknown {
    doors: Arc<Doors>,
    source: IpAddr,
    turns: Arc<Semaphore>,
}

/// A turn to shake hands, given back when dropped.
pub(super) struct Turn {
    _own: Option<OwnedSemaphorePermit>,
    _all: Option<OwnedSemaphorePermit>,
}

/// What counts as one source: an IPv4 address, or the /64 that one IPv6 host has to itself.
fn source_of(ip: IpAddr) -> IpAddr {
    match ip.to_canonical() {
        IpAddr::V4(v4) => v4.into(),
        IpAddr::V6(v6) => Ipv6Addr::from_bits(v6.to_bits() & (u128::MAX << 64)).into(),
    }
}

impl Doors {
    pub(super) fn new(bounds: Bounds) -> Arc<Self> {
        Arc::new(Self {
            places: Arc::new(Semaphore::new(bounds.places)),
            turns: Arc::new(Semaphore::new(bounds.turns)),
            bounds,
            sources: Mutex::default(),
        })
    }

    /// A place for a connection from `ip`; none when all are taken, or too many of that source.
    pub(super) fn enter(self: &Arc<Self>, ip: IpAddr) -> Option<Place> {
        let place = self.places.clone().try_acquire_owned().ok()?;
        let source = source_of(ip);
        let mut sources = self.sources.lock().unwrap_or_else(PoisonError::into_inner);
        let entry = sources.entry(source).or_insert_with(|| Source {
            turns: Arc::new(Semaphore::new(self.bounds.turns_per_source)),
            unknown: 0,
        });
        if entry.unknown >= self.bounds.unknown_per_source {
            return None;
        }
        entry.unknown += 1;
        let unknown = Unknown { doors: self.clone(), source, turns: entry.turns.clone() };
        Some(Place { _place: place, unknown: Some(unknown) })
    }
}

impl Place {
    /// Waits for the turn to shake hands.
    pub(super) async fn turn(&self) -> Turn {
        let Some(unknown) = &self.unknown else { return Turn { _own: None, _all: None } };
        // Neither is ever closed. Its own source first: who waits for the others' holds nothing they need.
        let own = unknown.turns.clone().acquire_owned().await.ok();
        let all = unknown.doors.turns.clone().acquire_owned().await.ok();
        Turn { _own: own, _all: all }
    }

    /// It has been proved who is at the other end: this connection no longer counts against its source.
    pub(super) fn known(&mut self) {
        self.unknown = None;
    }
}

impl Drop for Unknown {
    fn drop(&mut self) {
        let mut sources = self.doors.sources.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(entry) = sources.get_mut(&self.source) {
            entry.unknown = entry.unknown.saturating_sub(1);
            if entry.unknown == 0 {
                sources.remove(&self.source);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_util::FutureExt;

    const BOUNDS: Bounds = Bounds { places: 8, turns: 3, turns_per_source: 2, unknown_per_source: 5 };

    #[test]
    fn one_source_holds_only_so_many_turns() {
        let doors = Doors::new(BOUNDS);
        let (stranger, other): (IpAddr, IpAddr) =
            ("192.0.2.1".parse().unwrap(), "2001:db8::1".parse().unwrap());
        let places: Vec<Place> = (0..5).map(|_| doors.enter(stranger).unwrap()).collect();
        assert!(doors.enter("::ffff:192.0.2.1".parse().unwrap()).is_none(), "the same address");
        let turns: Vec<Option<Turn>> = places.iter().map(|place| place.turn().now_or_never()).collect();
        assert_eq!(turns.iter().map(Option::is_some).collect::<Vec<_>>(), [true, true, false, false, false]);
        let place = doors.enter(other).unwrap();
        let turn = place.turn().now_or_never();
        assert!(turn.is_some(), "nobody else waits for that source");
        // A turn that ends is the next one's.
        drop(turns);
        assert!(places[4].turn().now_or_never().is_some());
        drop((places, place, turn));
        assert!(doors.sources.lock().unwrap().is_empty(), "nothing is remembered");
    }

    #[test]
    fn who_is_known_counts_no_longer_against_its_source() {
        let doors = Doors::new(BOUNDS);
        let ip = |text: &str| text.parse::<IpAddr>().unwrap();
        let mut all: Vec<Place> =
            (1..=5).map(|n| doors.enter(ip(&format!("2001:db8::{n}"))).unwrap()).collect();
        assert!(doors.enter(ip("2001:db8::ffff:0:0:9")).is_none(), "one /64 is one source");
        all[0].known();
        all.push(doors.enter(ip("2001:db8::9")).unwrap());
        all.push(doors.enter(ip("2001:db8:0:1::1")).unwrap());
        all.push(doors.enter(ip("192.0.2.1")).unwrap());
        all[7].known();
        assert!(doors.enter(ip("192.0.2.2")).is_none(), "all places are taken");
        all.pop();
        assert!(doors.enter(ip("192.0.2.2")).is_some());
    }
}
