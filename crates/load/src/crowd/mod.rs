//! A crowd: many small tenant systems on the hosts of a lab, each behind a TAP of its own and attached like any
//! other, played by one thread a host. To their NVEs they are virtual machines.

mod host;
mod stack;

pub use stack::Contact;

use anyhow::{Context as _, Result, anyhow};
use host::{Clock, HostCrowd};
use std::{net::IpAddr, time::Duration};
use weft_lab::Lab;
use weft_model::MacAddr;

/// One of the crowd.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member {
    /// Its host.
    pub host: String,
    /// Its MAC address.
    pub mac: MacAddr,
    /// Its addresses.
    pub ips: Vec<IpAddr>,
}

/// Something to do: at this time after the start, this member contacts this address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Act {
    /// When.
    pub at: Duration,
    /// Which member, by its number.
    pub who: usize,
    /// The address.
    pub to: IpAddr,
}

/// What came of it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Played {
    /// Every contact.
    pub contacts: Vec<Contact>,
    /// ARP requests and Neighbor Solicitations to everybody, retries included.
    pub questions: usize,
}

/// Many tenant systems.
#[derive(Debug)]
pub struct Crowd(Vec<HostCrowd>);

impl Crowd {
    /// Attaches `per_host` tenant systems to `vn` on each of `hosts`, called `crowd`, a number and the host.
    ///
    /// # Errors
    /// When an NVE refuses one.
    pub fn attach(lab: &Lab, vn: &str, hosts: &[&str], per_host: usize) -> Result<Self> {
        let crowds = std::thread::scope(|scope| {
            let started: Vec<_> =
                hosts.iter().map(|host| scope.spawn(|| HostCrowd::attach(lab, vn, host, per_host))).collect();
            started
                .into_iter()
                .map(|crowd| crowd.join().unwrap_or_else(|_| Err(anyhow!("a thread ended early"))))
                .collect::<Result<Vec<_>>>()
        })?;
        Ok(Self(crowds))
    }

    /// Attaches one more on `host`.
    ///
    /// # Errors
    /// When its NVE refuses it, or the crowd is not on that host.
    pub fn attach_one(&mut self, lab: &Lab, vn: &str, host: &str) -> Result<Member> {
        let crowd = self.0.iter_mut().find(|crowd| crowd.host() == host);
        crowd.with_context(|| format!("the crowd is not on {host}"))?.attach_one(lab, vn)
    }

    /// All of them: the first of each host, the second of each host, and so on.
    #[must_use]
    pub fn members(&self) -> Vec<Member> {
        let most = self.0.iter().map(HostCrowd::len).max().unwrap_or(0);
        (0..most).flat_map(|n| self.0.iter().filter_map(move |host| host.member(n))).collect()
    }

    /// Plays `acts`, which are in the order of their times, from now on: until every contact is answered, or
    /// for `grace` after the last.
    ///
    /// # Errors
    /// When an act names a member that is not there, or a device fails.
    pub fn play(&mut self, acts: &[Act], grace: Duration) -> Result<Played> {
        // Who is meant, as `members` numbers them.
        let most = self.0.iter().map(HostCrowd::len).max().unwrap_or(0);
        let places: Vec<(usize, usize)> = (0..most)
            .flat_map(|n| {
                self.0.iter().enumerate().filter(move |(_, host)| n < host.len()).map(move |(h, _)| (h, n))
            })
            .collect();
        let end = acts.last().map_or(Duration::ZERO, |act| act.at) + grace;
        let clock = Clock::start(acts.len(), end);
        let mut parts: Vec<Vec<Act>> = vec![Vec::new(); self.0.len()];
        for act in acts {
            let (host, who) = *places.get(act.who).with_context(|| format!("no member {}", act.who))?;
            parts[host].push(Act { who, ..*act });
        }
        std::thread::scope(|scope| {
            let clock = &clock;
            let playing: Vec<_> = self
                .0
                .iter_mut()
                .zip(parts)
                .map(|(host, part)| scope.spawn(move || host.play(&part, clock)))
                .collect();
            let mut all = Played::default();
            for played in playing {
                let played = played.join().unwrap_or_else(|_| Err(anyhow!("a thread ended early")))?;
                all.contacts.extend(played.contacts);
                all.questions += played.questions;
            }
            Ok(all)
        })
    }
}
