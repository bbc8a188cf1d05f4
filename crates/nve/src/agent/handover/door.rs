//! Who may come in, and how many: other hosts on the underlay can reach this port, NVEs or not.

use super::{driver::Event, ticket::Tickets, tls::Credentials};
use crate::agent::driver::Input;
use rustls::ServerConfig;
use std::{
    collections::BTreeMap,
    net::{IpAddr, Ipv6Addr},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, watch};
use weft_model::XtrId;

/// Bounds of what others can make this NVE hold and wait for.
#[derive(Clone, Copy, Debug)]
pub(in crate::agent) struct Bounds {
    /// Connections at a time.
    pub(in crate::agent) places: usize,
    /// Of one source address, while it is not known who is there,
    pub(in crate::agent) strangers: usize,
    /// and of one IPv6 /64, which may be one host's, or a segment's.
    pub(in crate::agent) of_net: usize,
    /// Of one NVE.
    pub(in crate::agent) of_nve: usize,
    /// Tickets remembered.
    pub(in crate::agent) tickets: usize,
    /// How long a handshake may take, and then the question.
    pub(in crate::agent) question: Duration,
    /// How long a line may wait until the other end takes it.
    pub(in crate::agent) line: Duration,
    /// Between two words that somebody is there.
    pub(in crate::agent) alive: Duration,
}

impl Default for Bounds {
    fn default() -> Self {
        Self {
            places: 2_048,
            strangers: 16,
            of_net: 1_024,
            of_nve: 1_024,
            tickets: 16_384,
            question: Duration::from_secs(5),
            line: Duration::from_secs(10),
            alive: Duration::from_secs(5),
        }
    }
}

/// What every connection of another NVE goes by.
pub(in crate::agent) struct Door {
    pub(super) credentials: watch::Receiver<Arc<Credentials>>,
    pub(super) tickets: Tickets,
    pub(super) inputs: mpsc::Sender<Input>,
    pub(super) bounds: Bounds,
    places: Arc<Semaphore>,
    strangers: Arc<Counts<IpAddr>>,
    nets: Arc<Counts<IpAddr>>,
    known: Arc<Counts<XtrId>>,
}

impl Door {
    /// One for this NVE.
    ///
    /// # Errors
    /// When the CA's certificate cannot be used.
    pub(in crate::agent) fn new(
        here: XtrId,
        credentials: watch::Receiver<Arc<Credentials>>,
        inputs: mpsc::Sender<Input>,
        bounds: Bounds,
    ) -> Result<Arc<Self>, String> {
        let roots = credentials.borrow().roots.clone();
        Ok(Arc::new(Self {
            tickets: Tickets::new(here, roots, bounds.tickets)?,
            places: Arc::new(Semaphore::new(bounds.places)),
            strangers: Arc::default(),
            nets: Arc::default(),
            known: Arc::default(),
            credentials,
            inputs,
            bounds,
        }))
    }

    /// A place for a connection; none when there is none left.
    pub(super) fn enter(self: &Arc<Self>, from: IpAddr) -> Option<Place> {
        let place = self.places.clone().try_acquire_owned().ok()?;
        let stranger = (
            Counts::one(&self.strangers, from.to_canonical(), self.bounds.strangers)?,
            Counts::one(&self.nets, net_of(from), self.bounds.of_net)?,
        );
        Some(Place { door: self.clone(), _place: place, stranger: Some(stranger), known: None })
    }

    pub(super) fn server(&self) -> Result<Arc<ServerConfig>, rustls::Error> {
        self.credentials.borrow().server().map(Arc::new)
    }

    /// Tells the driver.
    pub(super) async fn tell(&self, event: Event) -> bool {
        self.inputs.send(Input::Handover(event)).await.is_ok()
    }
}

/// A connection's place, given back when dropped.
pub(super) struct Place {
    door: Arc<Door>,
    _place: OwnedSemaphorePermit,
    stranger: Option<(One<IpAddr>, One<IpAddr>)>,
    known: Option<One<XtrId>>,
}

impl Place {
    /// It is known who is there; whether that is one of not too many of its own.
    pub(super) fn known(&mut self, nve: XtrId) -> bool {
        self.stranger = None;
        self.known = Counts::one(&self.door.known, nve, self.door.bounds.of_nve);
        self.known.is_some()
    }
}

/// The /64 of an IPv6 address.
fn net_of(ip: IpAddr) -> IpAddr {
    match ip.to_canonical() {
        IpAddr::V4(v4) => v4.into(),
        IpAddr::V6(v6) => Ipv6Addr::from_bits(v6.to_bits() & (u128::MAX << 64)).into(),
    }
}

/// How many there are of each.
#[derive(Debug)]
struct Counts<K>(Mutex<BTreeMap<K, usize>>);

impl<K> Default for Counts<K> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

impl<K: Ord + Copy> Counts<K> {
    /// One more, if that is not more than `most`.
    fn one(all: &Arc<Self>, of: K, most: usize) -> Option<One<K>> {
        let mut counts = all.0.lock().unwrap_or_else(PoisonError::into_inner);
        let count = counts.entry(of).or_default();
        if *count >= most {
            return None;
        }
        *count += 1;
        Some(One { all: all.clone(), of })
    }
}

/// One of those, given back when dropped.
struct One<K: Ord + Copy> {
    all: Arc<Counts<K>>,
    of: K,
}

impl<K: Ord + Copy> Drop for One<K> {
    fn drop(&mut self) {
        let mut counts = self.all.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = counts.get_mut(&self.of) {
            *count -= 1;
            if *count == 0 {
                counts.remove(&self.of);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_of_many_addresses_is_one_source() {
        let source = |text: &str| net_of(text.parse().unwrap());
        assert_eq!(source("2001:db8::1"), source("2001:db8::ffff:1"));
        assert_ne!(source("2001:db8::1"), source("2001:db8:0:1::1"));
        assert_eq!(source("::ffff:192.0.2.1"), source("192.0.2.1"));
        assert_ne!(source("192.0.2.1"), source("192.0.2.2"));
    }

    #[test]
    fn places_are_given_back() {
        let counts: Arc<Counts<u8>> = Arc::default();
        let (first, _other) = (Counts::one(&counts, 1, 1), Counts::one(&counts, 2, 1));
        assert!(first.is_some() && Counts::one(&counts, 1, 1).is_none());
        drop(first);
        assert!(Counts::one(&counts, 1, 1).is_some());
        assert_eq!(counts.0.lock().unwrap().len(), 1);
    }
}
