//! Connections on their way to another NVE: what has changed of them since they were last told, and how the two are
//! put together.

use ::core::{net::IpAddr, time::Duration};
use std::collections::BTreeMap;
use weft_datapath::Connection;
use weft_model::Time;

/// How much later a connection's last packet has to be to be worth a word: as accurately as that is known.
const LATER: Duration = Duration::from_secs(2);

/// What a connection of one VN is found by: both ends.
pub type Ends = (IpAddr, IpAddr, u8, u16, u16);

/// Both ends of a connection.
#[must_use]
pub const fn ends(c: &Connection) -> Ends {
    (c.local, c.remote, c.protocol, c.local_port, c.remote_port)
}

/// Connections as they were at a time.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Flows {
    held: BTreeMap<Ends, (Connection, Time)>,
}

impl Flows {
    /// Takes in connections as they are at `now`; there are no more than `most` afterwards.
    pub fn take(&mut self, now: Time, connections: impl IntoIterator<Item = Connection>, most: usize) {
        for connection in connections {
            let key = ends(&connection);
            if self.held.len() < most || self.held.contains_key(&key) {
                self.held.insert(key, (connection, now));
            }
        }
    }

    /// Forgets one, and gives it as it was.
    pub fn end(&mut self, ends: &Ends) -> Option<Connection> {
        self.held.remove(ends).map(|(connection, _)| connection)
    }

    /// All of them, in order, as long without a packet as they are at `now` if none has come since.
    #[must_use]
    pub fn at(&self, now: Time) -> Vec<Connection> {
        let aged = |(connection, at): &(Connection, Time)| Connection {
            idle: connection.idle.saturating_add(now.since(*at)),
            ..*connection
        };
        self.held.values().map(aged).collect()
    }

    /// Which of those there are at `now` are others than these, and which of these are gone.
    #[must_use]
    pub fn changes(&self, now: Time, current: &[Connection]) -> (Vec<Connection>, Vec<Ends>) {
        let mut gone: BTreeMap<Ends, ()> = self.held.keys().map(|key| (*key, ())).collect();
        let mut changed = Vec::new();
        for connection in current {
            let key = ends(connection);
            gone.remove(&key);
            let same = self.held.get(&key).is_some_and(|(old, at)| {
                let idle = old.idle.saturating_add(now.since(*at));
                (old.state, old.opened) == (connection.state, connection.opened)
                    && idle <= connection.idle.saturating_add(LATER)
            });
            if !same {
                changed.push(*connection);
            }
        }
        (changed, gone.into_keys().collect())
    }

    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.held.len()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.held.is_empty()
    }
}

/// Of too many connections those that are in use: the ones whose last packets were the latest.
#[must_use]
pub fn newest(mut connections: Vec<Connection>, most: usize) -> Vec<Connection> {
    connections.sort_by_key(|connection| (connection.idle, ends(connection)));
    connections.truncate(most);
    connections
}

#[cfg(test)]
mod tests {
    use super::*;
    use weft_datapath::{ConnectionState, Toward};
    use weft_model::Vni;

    fn flow(port: u16, idle: u64) -> Connection {
        Connection {
            vni: Vni::new(7).unwrap(),
            local: [10, 0, 0, 1].into(),
            remote: [10, 0, 0, 2].into(),
            protocol: 6,
            local_port: port,
            remote_port: 80,
            opened: Toward::Out,
            state: ConnectionState::Established,
            rule: 0,
            idle: Duration::from_secs(idle),
        }
    }

    #[test]
    fn only_what_has_changed_is_told_and_both_together_are_what_there_is() {
        let (then, now) = (Time::from_secs(100), Time::from_secs(400));
        let mut told = Flows::default();
        told.take(then, [flow(1, 5), flow(2, 5), flow(3, 5), flow(4, 5)], 9);
        // Silent since; used since; ended by one side; gone; and one that is new.
        let ended = Connection { state: ConnectionState::EndedHere, ..flow(3, 305) };
        let current = [flow(1, 305), flow(2, 0), ended, flow(5, 1)];
        let (changed, gone) = told.changes(now, &current);
        assert_eq!(changed, [flow(2, 0), ended, flow(5, 1)]);
        assert_eq!(gone, [ends(&flow(4, 0))]);
        told.take(now, changed, 9);
        assert!(gone.iter().all(|ends| told.end(ends).is_some()));
        assert_eq!(told.at(now), current);
        assert_eq!(told.changes(now, &current), (vec![], vec![]));
        assert_eq!(told.at(now + Duration::from_secs(7))[1], flow(2, 7));
    }

    #[test]
    fn of_too_many_the_newest() {
        let all = vec![flow(1, 50), flow(2, 1), flow(3, 7)];
        assert_eq!(newest(all.clone(), 2), [flow(2, 1), flow(3, 7)]);
        let mut told = Flows::default();
        told.take(Time(1), newest(all, 9), 2);
        assert_eq!(told.len(), 2);
        told.take(Time(2), [flow(2, 0), flow(9, 0)], 2);
        assert_eq!((told.len(), told.at(Time(2))[0].idle), (2, Duration::ZERO), "what is known is renewed");
    }
}
