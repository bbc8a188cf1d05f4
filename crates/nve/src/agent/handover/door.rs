//! Who may come in, and how many: other hosts on the underlay can reach this port, NVEs or not.

use super::{driver::Event, ticket::Tickets, tls::Credentials};
use crate::agent::driver::Input;
use rustls::ServerConfig;
use std::{
    collections::BTreeMap,
    net::IpAddr,
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
    /// Of one source address, while it is not known who is there.
    pub(in crate::agent) strangers: usize,
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
            places: 1_024,
            strangers: 16,
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
    strangers: Mutex<BTreeMap<IpAddr, usize>>,
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
            strangers: Mutex::default(),
            credentials,
            inputs,
            bounds,
        }))
    }

    /// A place for a connection; none when there is none left.
    pub(super) fn enter(self: &Arc<Self>, from: IpAddr) -> Option<Place> {
        let place = self.places.clone().try_acquire_owned().ok()?;
        let mut strangers = self.strangers.lock().unwrap_or_else(PoisonError::into_inner);
        let count = strangers.entry(from).or_default();
        if *count >= self.bounds.strangers {
            return None;
        }
        *count += 1;
        drop(strangers);
        Some(Place { _place: place, stranger: Some(Stranger { door: self.clone(), from }) })
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
    _place: OwnedSemaphorePermit,
    stranger: Option<Stranger>,
}

impl Place {
    /// It is known who is there.
    pub(super) fn known(&mut self) {
        self.stranger = None;
    }
}

struct Stranger {
    door: Arc<Door>,
    from: IpAddr,
}

impl Drop for Stranger {
    fn drop(&mut self) {
        let mut strangers = self.door.strangers.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = strangers.get_mut(&self.from) {
            *count -= 1;
            if *count == 0 {
                strangers.remove(&self.from);
            }
        }
    }
}
