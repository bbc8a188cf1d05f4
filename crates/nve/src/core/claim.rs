//! Link-local addresses: a tenant system claims its own.

use super::proxy::Query;
use super::tsi::{State, Tsi};
use super::{ApiCall, Core, Granted, Notice, Output, Refused};
use weft_datapath::Neighbour;
use weft_model::{TenantIp, Time, TsiId};

/// The code of /v1 that says that another one has the address.
const TAKEN: &str = "address_taken";

impl Core {
    /// A tenant system tries out a link-local address (DAD): it is taken at the Oracle like any other, so
    /// that of two with the same address the second fails its DAD.
    pub(super) fn claim(&mut self, now: Time, id: &TsiId, query: Query) {
        let limit = self.config.limits.link_locals;
        let Some(tsi) = self.tsis.get_mut(id) else { return };
        if !query.target.is_link_local() {
            self.question(now, query);
            return;
        }
        if self.tables.neighbours.get(&(id.vni, query.target)).is_some_and(|n| *n != Neighbour::Nobody) {
            // Somebody has it: defended as any address is.
            self.question(now, query);
            return;
        }
        let held = tsi.grant.ips.iter().filter(|ip| ip.is_link_local()).count() + tsi.claims.len();
        if tsi.claims.contains_key(&query.target) || tsi.grant.ips.contains(&query.target) {
            return;
        }
        if held >= limit.max(1) {
            // It may not have the address; somebody else may, and then has it defended.
            self.counters.claims_refused += 1;
            self.question(now, query);
            return;
        }
        let (vn, ip) = (tsi.vn.clone(), query.target);
        tsi.claims.insert(ip, query);
        self.outputs.push_back(Output::Call(ApiCall::Take { vn, tsi: id.clone(), ip }));
    }

    /// An Oracle's answer to [`ApiCall::Take`].
    pub fn handle_taken(&mut self, now: Time, id: &TsiId, ip: TenantIp, answer: Result<Granted, Refused>) {
        self.now = now;
        let Some(tsi) = self.tsis.get_mut(id) else { return };
        let Some(query) = tsi.claims.remove(&ip) else { return };
        match answer {
            // Of two answers the later one knows both addresses, whichever comes in first.
            Ok(Granted { revision, .. }) if revision < tsi.revision => {}
            Ok(Granted { grant, revision, .. }) => self.update_grant(id, grant, revision),
            Err(refused) => {
                self.counters.claims_refused += 1;
                self.notice(Notice::ClaimRefused(id.clone(), ip, refused.to_string()));
                // What nobody has answered, or somebody else refuses for another reason, is no conflict.
                if matches!(&refused, Refused::Oracle { code, .. } if code == TAKEN) {
                    self.tell_conflict(id, ip, refused.to_string());
                }
                // Its owner defends it through us, if there is still somebody to be told.
                let asking = |t: &Tsi| t.state == State::Activated && t.device.index == query.vap;
                if self.tsis.get(id).is_some_and(asking) {
                    self.question(now, query);
                }
            }
        }
    }
}
