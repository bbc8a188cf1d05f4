//! Plain RFC 9301 xTRs: Map-Registers over UDP, and SMRs in place of notifications.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::time::Duration;

use weft_lisp as lisp;
use weft_lisp::auth;
use weft_lisp::{
    Address, Algorithm, CONTROL_PORT, EidRecord, EncodeOptions, List, MacLength, MapNotify, MapRegister,
    MapRequest, Policy, RecordBuf,
};
use weft_model::{Eid, Rloc, SiteId, Time, Vni, XtrId};

use super::conversations::AskKey;
use super::database::{TsiIx, Via};
use super::facts::XtrFact;
use super::output::Event;
use super::pubsub::Floors;
use super::route::iid;
use super::wire::to_lisp;
use super::{Shard, Timer};

/// What is kept of a plain xTR besides its being a node.
#[derive(Clone, PartialEq, Eq, Hash)]
pub(crate) struct PlainXtr {
    pub(crate) site_id: SiteId,
    pub(crate) key_id: u8,
    pub(crate) algorithm: Algorithm,
    key: Vec<u8>,
    /// That of publications; the same unless configured.
    pubsub_key: Vec<u8>,
    /// Below which nonces subscriptions do not count.
    pub(crate) floors: Floors,
    pub(crate) vnis: BTreeSet<Vni>,
    /// The last nonce accepted, and the MAC of that message: an authentic message with both is a copy.
    nonce: u64,
    mac: Vec<u8>,
    saved: u64,
    /// Map-Notifies that wait for their nonce to be saved; the latest is enough.
    waiting: Option<(u64, SocketAddr, Vec<RecordBuf>, usize)>,
}

impl std::fmt::Debug for PlainXtr {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // The key stays out of dumps.
        f.debug_struct("PlainXtr")
            .field("nonce", &self.nonce)
            .field("saved", &self.saved)
            .finish_non_exhaustive()
    }
}

impl PlainXtr {
    pub(crate) fn new(fact: &XtrFact) -> Self {
        Self {
            site_id: fact.site_id,
            key_id: fact.key_id,
            algorithm: fact.algorithm,
            key: fact.key.clone(),
            pubsub_key: fact.pubsub_key.as_ref().unwrap_or(&fact.key).clone(),
            floors: Floors::new(&fact.subscription_nonces),
            vnis: fact.vnis.clone(),
            nonce: fact.saved_nonce,
            mac: Vec::new(),
            saved: fact.saved_nonce,
            waiting: None,
        }
    }

    /// Takes over what a changed fact says; true when the keys are others: they start the nonces anew.
    pub(crate) fn update(&mut self, fact: &XtrFact) -> bool {
        let fresh = Self::new(fact);
        let same = (fresh.key_id, fresh.algorithm, &fresh.key, &fresh.pubsub_key)
            == (self.key_id, self.algorithm, &self.key, &self.pubsub_key);
        if same {
            self.floors.merge(&fresh.floors);
            self.site_id = fresh.site_id;
            self.vnis = fresh.vnis;
            self.saved = self.saved.max(fresh.saved);
            self.nonce = self.nonce.max(fresh.saved);
        } else {
            *self = fresh;
        }
        !same
    }

    /// The security association of RFC 9437 section 7.1.
    pub(crate) fn pubsub_key(&self) -> &[u8] {
        &self.pubsub_key
    }

    /// A signed Map-Notify for a subscriber; its MAC is as long as those the xTR sends.
    pub(crate) fn publication(&self, nonce: u64, records: &[lisp::Record<'_>]) -> Option<Vec<u8>> {
        let full = self.algorithm.mac_len(MacLength::Full) == self.mac.len();
        let length = if full { MacLength::Full } else { MacLength::Truncated };
        let auth = self.algorithm.placeholder(self.key_id, length);
        let notify = MapNotify { nonce, auth, records: records.into(), ..MapNotify::default() };
        let mut octets = Vec::new();
        notify.encode(&mut octets, EncodeOptions::default()).ok()?;
        auth::sign(&mut octets, &self.pubsub_key, auth::Coverage::WholePayload).ok()?;
        Some(octets)
    }
}

/// An SMR that is repeated until its xTR asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Solicit {
    left: u8,
    due: Time,
}

/// Why a Map-Register over UDP is dropped without a word, as RFC 9301 section 5.6 wants it.
enum Dropped {
    Malformed,
    Stranger,
    Auth,
    Replayed,
}

impl Shard {
    pub(crate) fn on_register(&mut self, now: Time, src: SocketAddr, octets: &[u8]) {
        match self.check_register(src, octets) {
            Ok((nve, register, repeated)) => self.accept_register(now, nve, src, &register, repeated),
            Err(Dropped::Malformed) => self.counters.malformed += 1,
            Err(Dropped::Stranger | Dropped::Auth) => self.counters.register_bad_auth += 1,
            Err(Dropped::Replayed) => self.counters.register_replayed += 1,
        }
    }

    pub(crate) fn is_authentic(&self, src: SocketAddr, octets: &[u8]) -> bool {
        self.check_register(src, octets).is_ok()
    }

    /// Whether a Map-Register is authentic, new or a copy of the last, and its part here is allowed.
    pub(crate) fn allows_register(&self, src: SocketAddr, octets: &[u8]) -> bool {
        let Ok((nve, register, repeated)) = self.check_register(src, octets) else { return false };
        repeated || self.claims(nve, &register, true).is_ok()
    }

    /// Finds the key by (Site-ID, xTR-ID, Key ID), or by the source address of an xTR that sends no
    /// xTR-ID, and checks MAC and nonce. True when it is a copy of the last message.
    fn check_register<'a>(
        &self,
        src: SocketAddr,
        octets: &'a [u8],
    ) -> Result<(XtrId, MapRegister<'a>, bool), Dropped> {
        let register = MapRegister::decode(octets).map_err(|_| Dropped::Malformed)?;
        let key_id = register.auth.key_id;
        let fits =
            |plain: &PlainXtr| plain.key_id == key_id && plain.algorithm as u8 == register.auth.algorithm;
        let found = match register.xtr {
            Some(xtr) => {
                let id = XtrId(xtr.xtr_id);
                let plain = self.nodes.get(id).and_then(|node| node.plain.as_ref());
                plain.filter(|p| fits(p) && p.site_id == SiteId(xtr.site_id)).map(|p| (id, p))
            }
            None => {
                let rloc = Rloc::new(src.ip()).map_err(|_| Dropped::Stranger)?;
                let at = self.nodes.at(rloc);
                at.filter_map(|(id, node)| node.plain.as_ref().map(|p| (id, p))).find(|(_, p)| fits(p))
            }
        };
        let (id, plain) = found.ok_or(Dropped::Stranger)?;
        // An algorithm is accepted when it is the one configured, the legacy one included; none never is.
        auth::verify(octets, &plain.key, Policy::strict().with_sha1()).map_err(|_| Dropped::Auth)?;
        let repeated = register.nonce == plain.nonce && register.auth.mac == plain.mac.as_slice();
        if register.nonce <= plain.nonce && !repeated {
            return Err(Dropped::Replayed);
        }
        Ok((id, register, repeated))
    }

    fn accept_register(
        &mut self,
        now: Time,
        nve: XtrId,
        src: SocketAddr,
        register: &MapRegister<'_>,
        repeated: bool,
    ) {
        if repeated {
            // Its Map-Notify was lost; nothing in it is new.
            self.counters.register_repeated += 1;
        } else {
            let claims = match self.claims(nve, register, true) {
                Ok(claims) => claims,
                Err(reason) => return self.refuse(Some(nve), reason),
            };
            let minutes = |ttl: u32| Duration::from_secs(60 * u64::from(ttl));
            for claim in claims {
                let life = match claim.ttl() {
                    // T bit: the Record TTL is also how long the registration lives.
                    Some(ttl) if register.use_ttl => {
                        minutes(ttl).min(self.config.timing.registration_longest)
                    }
                    _ => self.config.timing.registration_timeout,
                };
                self.apply(now, nve, claim, Via::Udp { expires: now + life }, true);
            }
        }
        let first = register.records.first().and_then(|record| Vni::new(iid(record.eid)?).ok());
        let leads = first.is_none_or(|vni| self.owns(vni));
        let Some(plain) = self.nodes.get_mut(nve).and_then(|node| node.plain.as_mut()) else { return };
        plain.nonce = register.nonce;
        plain.mac = register.auth.mac.to_vec();
        if !leads {
            // The shard that has the first record saves the nonce and acknowledges.
            return;
        }
        if register.want_notify {
            let records = register.records.iter().filter_map(|record| RecordBuf::new(&record).ok()).collect();
            // A Map-Notify goes to port 4342, to where the register came from (RFC 9301 section 5.7).
            let to = SocketAddr::new(src.ip(), CONTROL_PORT);
            plain.waiting = Some((register.nonce, to, records, register.auth.mac.len()));
        }
        if plain.saved >= register.nonce {
            self.notify_saved(nve);
        } else {
            self.event(Event::SaveNonce { xtr: nve, nonce: register.nonce });
        }
    }

    /// The store holds a nonce of a plain xTR: the Map-Notify that waited for it goes out.
    pub(crate) fn nonce_saved(&mut self, nve: XtrId, nonce: u64) {
        let Some(plain) = self.nodes.get_mut(nve).and_then(|node| node.plain.as_mut()) else { return };
        plain.saved = plain.saved.max(nonce);
        self.notify_saved(nve);
    }

    pub(crate) fn notify_saved(&mut self, nve: XtrId) {
        let Some(plain) = self.nodes.get_mut(nve).and_then(|node| node.plain.as_mut()) else { return };
        let saved = plain.saved;
        let Some((nonce, to, records, mac_len)) = plain.waiting.take_if(|(nonce, ..)| *nonce <= saved) else {
            return;
        };
        let records: Vec<lisp::Record<'_>> = records.iter().map(RecordBuf::get).collect();
        // MACs are as long as those the xTR sends: deployed code expects what it makes itself.
        let full = plain.algorithm.mac_len(MacLength::Full) == mac_len;
        let length = if full { MacLength::Full } else { MacLength::Truncated };
        let auth = plain.algorithm.placeholder(plain.key_id, length);
        let notify = MapNotify { nonce, auth, records: (&records).into(), ..MapNotify::default() };
        let key = &plain.key;
        let queued = self.out.udp(self.config.limits.udp_queue_octets, to, None, |octets| {
            let start = octets.len();
            notify.encode(octets, EncodeOptions::default()).map_err(drop)?;
            let message = octets.get_mut(start..).unwrap_or_default();
            auth::sign(message, key, auth::Coverage::WholePayload).map_err(drop)
        });
        if !queued {
            self.counters.udp_dropped += 1;
        }
    }

    /// Has a plain xTR's registration looked at when it ends. There is one timer each, however often it is
    /// refreshed: a later end is found when the timer is due.
    pub(crate) fn arm_expiry(&mut self, at: Time, ix: TsiIx, nve: XtrId) {
        let timer = Timer::Expiry(ix, nve);
        match self.expiries.get(&(ix, nve)) {
            Some(armed) if *armed <= at => return,
            Some(armed) => drop(self.timers.remove(&(*armed, timer))),
            None => {}
        }
        self.expiries.insert((ix, nve), at);
        self.arm(at, timer);
    }

    /// A plain xTR's registration may have timed out.
    pub(crate) fn review_expiry(&mut self, now: Time, ix: TsiIx, nve: XtrId) {
        self.expiries.remove(&(ix, nve));
        let via = self.db.get(ix).and_then(|tsi| tsi.registration(nve)).map(|r| r.via);
        match via {
            Some(Via::Udp { expires }) if expires > now => self.arm_expiry(expires, ix, nve),
            Some(Via::Udp { .. }) => {
                self.counters.expired += 1;
                self.drop_registration(now, ix, nve);
            }
            _ => {}
        }
    }

    /// Has a plain xTR ask again: the only way it can be told of a change (RFC 9301 section 6.1), unless it
    /// is subscribed and told itself.
    pub(crate) fn solicit(&mut self, now: Time, nve: XtrId, vni: Vni, eid: Eid) {
        if self.is_published(nve, to_lisp(vni, eid)) {
            return;
        }
        let key = AskKey { vni, eid, asker: nve };
        let left = self.config.timing.smr_count;
        match self.smrs.get_mut(&key) {
            // One is on its way; the change it tells of is this one too.
            Some(solicit) => solicit.left = left,
            None => {
                self.smrs.insert(key, Solicit { left, due: now });
                self.arm(now, Timer::Smr(key));
            }
        }
    }

    pub(crate) fn end_solicit(&mut self, key: AskKey) {
        // Kept until its interval ends, so that the next one keeps its distance.
        if let Some(solicit) = self.smrs.get_mut(&key) {
            solicit.left = 0;
        }
    }

    pub(crate) fn review_smr(&mut self, now: Time, key: AskKey) {
        let Some(solicit) = self.smrs.get_mut(&key) else { return };
        if solicit.due > now {
            return;
        }
        if solicit.left == 0 {
            self.smrs.remove(&key);
            return;
        }
        solicit.left -= 1;
        solicit.due = now + self.config.timing.smr_interval;
        let due = solicit.due;
        self.send_smr(key);
        self.arm(due, Timer::Smr(key));
    }

    fn send_smr(&mut self, key: AskKey) {
        let source = self.asks.source_of(key);
        let nonce = self.nonces.draw();
        let Some(node) = self.nodes.get(key.asker) else { return };
        let Some(here) = node.asked_at else { return };
        let same_family = node.rlocs.iter().find(|rloc| rloc.get().is_ipv4() == here.is_ipv4());
        let Some(rloc) = same_family else { return };
        // What changed is the Source-EID, what it is about there is the EID-Record.
        let changed = to_lisp(key.vni, key.eid);
        let theirs = to_lisp(key.vni, source.unwrap_or(key.eid));
        let records = [EidRecord { notify: false, mask_len: theirs.mask_len(), eid: theirs.address() }];
        let itr_rlocs = [Address::from(here)];
        let smr = MapRequest {
            smr: true,
            nonce,
            source_eid: changed.address(),
            itr_rlocs: List::new(&itr_rlocs),
            records: List::new(&records),
            ..MapRequest::default()
        };
        let to = SocketAddr::new(rloc.get(), CONTROL_PORT);
        let limit = self.config.limits.udp_queue_octets;
        if self.out.udp(limit, to, Some(here), |octets| smr.encode(octets, EncodeOptions::default())) {
            self.counters.smrs += 1;
        } else {
            self.counters.udp_dropped += 1;
        }
    }
}
