//! List, then watch: VN Contexts, NVEs, this NVE's grants and access policy, from the Oracle's /v1.

use super::driver::Input;
use crate::core::{Fact, PolicyFact};
use std::{collections::BTreeMap, sync::Arc, time::Duration};
use tokio::sync::{mpsc, watch};
use weft_api::{ApiError, Client, ClientError, Event, GrantView, List, NveView, PolicyItem, Vn, Watch};
use weft_model::{Grant, TsiId, XtrId};

/// Wait before a broken watch is taken up again.
const AGAIN: Duration = Duration::from_millis(500);
/// The history a watch wanted is no longer there: list again.
const GONE: u16 = 410;

/// What a watch ends with.
enum Ended {
    /// The agent ends.
    Agent,
    /// The Oracle or the connection.
    Broken(ClientError),
}

impl From<ClientError> for Ended {
    fn from(error: ClientError) -> Self {
        Self::Broken(error)
    }
}

/// The client of the moment: another one after each renewal of the certificate.
pub(super) type Clients = watch::Receiver<Arc<Client>>;

macro_rules! follow {
    ($name:ident, $what:literal, $object:ty, $list:ident, $watch:ident, $state:ident) => {
        /// Follows one kind of object for as long as the agent lives.
        pub(super) async fn $name(clients: Clients, inputs: mpsc::Sender<Input>) {
            let mut said = false;
            loop {
                let client = clients.borrow().clone();
                let mut state = $state::default();
                let ended = async {
                    let List { resource_version, items } = client.$list().await?;
                    said = false;
                    send(&inputs, state.listed(resource_version, items)).await?;
                    let mut from = resource_version;
                    loop {
                        let mut events: Watch<$object> = client.$watch(from).await?;
                        while let Some(event) = events.next().await {
                            let event = event?;
                            from = event.resource_version();
                            send(&inputs, state.event(event)).await?;
                        }
                        tokio::time::sleep(AGAIN).await;
                    }
                    #[allow(unreachable_code)]
                    Ok::<(), Ended>(())
                }
                .await;
                match ended {
                    Err(Ended::Agent) => return,
                    Err(Ended::Broken(ClientError::Api(ApiError { status: GONE, .. }))) | Ok(()) => continue,
                    Err(Ended::Broken(error)) => {
                        if !said {
                            tracing::warn!(what = $what, %error, "cannot follow the Oracle; what is known stays");
                            said = true;
                        }
                        tokio::time::sleep(AGAIN).await;
                    }
                }
            }
        }
    };
}

follow!(vns, "VN Contexts", Vn, vns, watch_vns, Vns);
follow!(nves, "NVEs", NveView, nves, watch_nves, Nves);
follow!(grants, "grants", GrantView, grants, watch_grants, Grants);
follow!(policy, "access policy", PolicyItem, policy, watch_policy, Policy);

async fn send(inputs: &mpsc::Sender<Input>, facts: Vec<Fact>) -> Result<(), Ended> {
    for fact in facts {
        inputs.send(Input::Fact(fact)).await.map_err(|_| Ended::Agent)?;
    }
    Ok(())
}

#[derive(Default)]
struct Vns;

impl Vns {
    fn listed(&mut self, _: u64, items: Vec<Vn>) -> Vec<Fact> {
        let listed = items.iter().map(|vn| vn.vni).collect();
        let named = items.into_iter().map(|vn| Fact::Vn(vn.into()));
        named.chain([Fact::VnsListed(listed)]).collect()
    }

    fn event(&mut self, event: Event<Vn>) -> Vec<Fact> {
        match event {
            Event::Added { object, .. } | Event::Modified { object, .. } => vec![Fact::Vn(object.into())],
            Event::Deleted { object, .. } => vec![Fact::VnGone(object.vni)],
            Event::Bookmark { .. } => Vec::new(),
        }
    }
}

/// Where an NVE is before what it is called, which may make it a gateway.
fn nve(NveView { xtr_id, name, rlocs, .. }: NveView) -> [Fact; 2] {
    [Fact::Nve(xtr_id, rlocs), Fact::NveName(xtr_id, name)]
}

#[derive(Default)]
struct Nves;

impl Nves {
    fn listed(&mut self, _: u64, items: Vec<NveView>) -> Vec<Fact> {
        let all = items.iter().map(|nve| nve.xtr_id).collect();
        let mut facts: Vec<_> = items.into_iter().flat_map(nve).collect();
        facts.push(Fact::NvesListed(all));
        facts
    }

    fn event(&mut self, event: Event<NveView>) -> Vec<Fact> {
        let gone = |xtr: XtrId| vec![Fact::NveGone(xtr)];
        match event {
            Event::Added { object, .. } | Event::Modified { object, .. } => nve(object).into(),
            Event::Deleted { object, .. } => gone(object.xtr_id),
            Event::Bookmark { .. } => Vec::new(),
        }
    }
}

/// The core wants all grants at once; a watch tells of one at a time.
#[derive(Default)]
struct Grants {
    held: BTreeMap<TsiId, Grant>,
}

impl Grants {
    fn all(&self, revision: u64) -> Vec<Fact> {
        vec![Fact::Grants(revision, self.held.values().cloned().collect())]
    }

    fn listed(&mut self, revision: u64, items: Vec<GrantView>) -> Vec<Fact> {
        self.held = items.into_iter().map(|g| (g.grant.tsi.clone(), g.grant)).collect();
        self.all(revision)
    }

    fn event(&mut self, event: Event<GrantView>) -> Vec<Fact> {
        let revision = event.resource_version();
        match event {
            Event::Added { object, .. } | Event::Modified { object, .. } => {
                self.held.insert(object.grant.tsi.clone(), object.grant);
            }
            Event::Deleted { object, .. } => {
                self.held.remove(&object.grant.tsi);
                let went = Fact::GrantWent { revision, grant: object.grant, holder: object.nve };
                return [went].into_iter().chain(self.all(revision)).collect();
            }
            Event::Bookmark { .. } => return Vec::new(),
        }
        self.all(revision)
    }
}

/// Events up to a bookmark are of one moment: they are handed on together.
#[derive(Default)]
struct Policy {
    round: Vec<PolicyFact>,
}

impl Policy {
    fn listed(&mut self, _: u64, items: Vec<PolicyItem>) -> Vec<Fact> {
        vec![Fact::Policy { listed: true, facts: items.into_iter().flat_map(there).collect() }]
    }

    fn event(&mut self, event: Event<PolicyItem>) -> Vec<Fact> {
        match event {
            Event::Added { object, .. } | Event::Modified { object, .. } => self.round.extend(there(object)),
            Event::Deleted { object, .. } => self.round.push(match object {
                PolicyItem::Vn { vni, .. } => PolicyFact::VnGone(vni),
                PolicyItem::Group { vni, name, .. } => PolicyFact::GroupGone(vni, name),
                PolicyItem::Member { vni, name, .. } => PolicyFact::MemberGone(TsiId { vni, name }),
            }),
            Event::Bookmark { .. } if self.round.is_empty() => {}
            Event::Bookmark { .. } => {
                return vec![Fact::Policy { listed: false, facts: std::mem::take(&mut self.round) }];
            }
        }
        Vec::new()
    }
}

fn there(item: PolicyItem) -> Vec<PolicyFact> {
    match item {
        PolicyItem::Vn { vni, default_groups } => {
            vec![PolicyFact::Vn(vni), PolicyFact::Defaults(vni, default_groups)]
        }
        PolicyItem::Group { vni, name, rules } => vec![PolicyFact::Group(vni, name, rules)],
        PolicyItem::Member { vni, name, ips, groups } => {
            vec![PolicyFact::Member(TsiId { vni, name }, ips, groups)]
        }
    }
}
