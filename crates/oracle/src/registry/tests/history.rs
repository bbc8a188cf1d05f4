//! Any sequence of operations against a model, across crashes.

use super::*;
use crate::store::RedbStore;
use proptest::prelude::*;
use std::{collections::BTreeMap, path::Path};
use weft_model::TsiName;

/// What the registry should be, without its indices.
#[derive(Default)]
struct Model {
    /// (VN, TSI) to owner, addresses, epoch.
    grants: BTreeMap<(String, String), (XtrId, BTreeSet<TenantIp>, Epoch)>,
    /// Those that move, and where to.
    next: BTreeMap<(String, String), (XtrId, Epoch)>,
    floors: BTreeMap<String, Epoch>,
}

type Key = (String, String);

impl Model {
    fn highest(&self, key: &Key) -> Epoch {
        self.next.get(key).map_or(self.grants[key].2, |(_, epoch)| *epoch)
    }

    fn remove(&mut self, key: &Key) -> bool {
        if !self.grants.contains_key(key) {
            return false;
        }
        let highest = self.highest(key);
        let floor = self.floors.entry(key.0.clone()).or_insert(Epoch::FIRST);
        *floor = (*floor).max(highest.next());
        self.next.remove(key);
        self.grants.remove(key).is_some()
    }

    fn succeed(&mut self, key: &Key) -> bool {
        let Some((nve, epoch)) = self.next.remove(key) else { return false };
        let grant = self.grants.get_mut(key).unwrap();
        (grant.0, grant.2) = (nve, epoch);
        true
    }

    fn call_off(&mut self, key: &Key) {
        if let Some((_, epoch)) = self.next.remove(key) {
            self.grants.get_mut(key).unwrap().2 = epoch.next();
        }
    }
}

#[derive(Clone, Debug)]
enum Op {
    Grant { vn: u8, tsi: u8, nve: u8, named: Option<u8> },
    Release { vn: u8, tsi: u8 },
    GiveBack { vn: u8, tsi: u8, nve: u8 },
    Next { vn: u8, tsi: u8, nve: u8 },
    CallOff { vn: u8, tsi: u8 },
    Succeed { vn: u8, tsi: u8 },
    RemoveNve { nve: u8 },
    Crash,
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        8 => (0u8..2, 0u8..12, 1u8..4, prop::option::weighted(0.3, 0u8..16))
            .prop_map(|(vn, tsi, nve, named)| Op::Grant { vn, tsi, nve, named }),
        5 => (0u8..2, 0u8..12).prop_map(|(vn, tsi)| Op::Release { vn, tsi }),
        4 => (0u8..2, 0u8..12, 1u8..4).prop_map(|(vn, tsi, nve)| Op::GiveBack { vn, tsi, nve }),
        6 => (0u8..2, 0u8..12, 1u8..4).prop_map(|(vn, tsi, nve)| Op::Next { vn, tsi, nve }),
        2 => (0u8..2, 0u8..12).prop_map(|(vn, tsi)| Op::CallOff { vn, tsi }),
        3 => (0u8..2, 0u8..12).prop_map(|(vn, tsi)| Op::Succeed { vn, tsi }),
        1 => (1u8..4).prop_map(|nve| Op::RemoveNve { nve }),
        2 => Just(Op::Crash),
    ]
}

/// The files as a power cut would leave them: copied while they are open.
fn crash_copy(from: &Path, to: &Path) {
    for file in std::fs::read_dir(from).unwrap() {
        let file = file.unwrap();
        std::fs::copy(file.path(), to.join(file.file_name())).unwrap();
    }
}

fn check(r: &Registry, model: &Model) {
    let tx = r.snapshot().unwrap();
    let (mut seen, mut next) = (BTreeMap::new(), BTreeMap::new());
    let mut ips = BTreeMap::new();
    tx.scan(b"grant/", &mut |k, v| {
        let view: weft_api::GrantView = decode(k, v).unwrap();
        for ip in &view.grant.ips {
            let other = ips.insert((view.grant.tsi.vni, *ip), view.grant.tsi.name.clone());
            assert_eq!(other, None, "{ip} is held twice");
            assert_eq!(
                read::<TsiName>(&*tx, &keys::ip(view.grant.tsi.vni, ip.get())).unwrap().as_ref(),
                Some(&view.grant.tsi.name)
            );
        }
        let g = view.grant;
        let key = (view.vn.to_string(), g.tsi.name.to_string());
        if let Some(successor) = g.next {
            assert!(successor.epoch > g.epoch && successor.nve != g.owner);
            next.insert(key.clone(), (successor.nve, successor.epoch));
        }
        seen.insert(key, (g.owner, g.ips, g.epoch));
        true
    })
    .unwrap();
    assert_eq!(seen, model.grants);
    assert_eq!(next, model.next);
    let held = seen.len() + next.len();
    for (prefix, expected) in [(&b"ip/"[..], ips.len()), (b"mac/", seen.len()), (b"held/", held)] {
        let mut count = 0;
        tx.scan(prefix, &mut |_, _| {
            count += 1;
            true
        })
        .unwrap();
        assert_eq!(count, expected, "index {}", String::from_utf8_lossy(prefix));
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, max_shrink_iters: 200, ..ProptestConfig::default() })]
    /// No address is ever held twice, no epoch falls, no index is left over, whatever happens.
    #[test]
    fn any_history(ops in prop::collection::vec(op(), 1..60)) {
        let mut dir = tempfile::tempdir().unwrap();
        let mut r = Registry::new(Arc::new(RedbStore::open(dir.path(), 64).unwrap()));
        let mut model = Model::default();
        let vns = ["red", "blue"];
        let nets = [Subnets::new(vec!["10.0.0.0/29".parse().unwrap(), "fd00::/64".parse().unwrap()]).unwrap(),
            Subnets::new(vec!["10.0.0.0/28".parse().unwrap()]).unwrap()];
        for (vn, subnets) in vns.iter().zip(&nets) {
            let mut new = new_vn(vn, None, &[]);
            new.subnets = subnets.clone();
            block(r.create_vn(new)).unwrap();
        }
        let mut enrolled: BTreeMap<u8, XtrId> = (1..4).map(|id| (id, enrol(&r, id))).collect();
        for op in ops {
            match op {
                Op::Grant { vn, tsi, nve, named } => {
                    let (vn_name, tsi) = (vns[usize::from(vn)], format!("t{tsi}"));
                    let key = (vn_name.to_owned(), tsi.clone());
                    let named = named.map(|h| format!("10.0.0.{h}"));
                    let named: Vec<&str> = named.iter().map(String::as_str).collect();
                    let owner = enrolled[&nve];
                    let result = block(r.grant(wish(vn_name, &tsi, owner, &named)));
                    let used: BTreeSet<TenantIp> = model.grants.iter()
                        .filter(|((v, _), _)| v == vn_name).flat_map(|(_, (_, ips, _))| ips.clone()).collect();
                    match (result, model.grants.get(&key)) {
                        (Ok((g, _)), Some((holder, ips, epoch))) => {
                            let next = model.next.get(&key).is_some_and(|(next, _)| *next == owner);
                            prop_assert!(!g.created && (*holder == owner || next));
                            prop_assert_eq!((&g.view.grant.ips, g.view.grant.epoch), (ips, *epoch));
                        }
                        (Ok((g, _)), None) => {
                            let grant = g.view.grant;
                            prop_assert!(used.is_disjoint(&grant.ips));
                            for ip in &grant.ips {
                                prop_assert!(nets[usize::from(vn)].host_subnet(ip.get()).is_some());
                            }
                            prop_assert_eq!(grant.epoch, *model.floors.get(vn_name).unwrap_or(&Epoch::FIRST));
                            prop_assert_eq!(grant.ips.len(), if vn == 0 { 2 } else { 1 });
                            model.grants.insert(key, (owner, grant.ips, grant.epoch));
                        }
                        (Err(RegistryError::GrantedElsewhere { .. }), held) =>
                            prop_assert!(held.is_some_and(|(holder, ..)| *holder != owner)),
                        (Err(RegistryError::IpMismatch { asked, .. }), held) =>
                            prop_assert!(held.is_some_and(|(_, ips, _)| !ips.contains(&asked))),
                        (Err(RegistryError::AddressTaken { ip, .. }), _) => prop_assert!(used.contains(&ip)),
                        (Err(RegistryError::OutsideSubnets { ip, .. }), _) =>
                            prop_assert!(nets[usize::from(vn)].host_subnet(ip).is_none()),
                        (Err(RegistryError::SubnetFull { .. }), _) => {
                            let v4 = used.iter().filter(|ip| ip.get().is_ipv4()).count();
                            prop_assert_eq!(v4, if vn == 0 { 6 } else { 14 });
                        }
                        (Err(e), _) => prop_assert!(false, "{e}"),
                    }
                }
                Op::Release { vn, tsi } => {
                    let (vn, tsi) = (vns[usize::from(vn)], format!("t{tsi}"));
                    let result = block(r.release(n(vn), n(&tsi), Caller::Operator, |_| Presence::Gone));
                    prop_assert_eq!(result.is_ok(), model.remove(&(vn.to_owned(), tsi)));
                }
                Op::GiveBack { vn, tsi, nve: id } => {
                    let (vn, tsi) = (vns[usize::from(vn)], format!("t{tsi}"));
                    let (key, who) = ((vn.to_owned(), tsi.clone()), enrolled[&id]);
                    let name = NveName::new(format!("nve{id}")).unwrap();
                    let caller = Caller::Nve { xtr_id: who, name, start: None };
                    let result = block(r.release(n(vn), n(&tsi), caller, |_| Presence::Gone));
                    let owner = model.grants.get(&key).map(|(owner, ..)| *owner);
                    let next = model.next.get(&key).map(|(next, _)| *next);
                    prop_assert_eq!(result.is_ok(), owner == Some(who) || next == Some(who));
                    if next == Some(who) {
                        model.call_off(&key);
                    } else if owner == Some(who) && !model.succeed(&key) {
                        model.remove(&key);
                    }
                }
                Op::Next { vn, tsi, nve } => {
                    let (vn, tsi) = (vns[usize::from(vn)], format!("t{tsi}"));
                    let key = (vn.to_owned(), tsi.clone());
                    let (to, name) = (enrolled[&nve], NveName::new(format!("nve{nve}")).unwrap());
                    let result = block(r.name_next(n(vn), n(&tsi), name, Caller::Operator));
                    let fits = model.grants.get(&key).is_some_and(|(owner, ..)| *owner != to);
                    prop_assert_eq!(result.is_ok(), fits, "{:?}", result);
                    if fits && model.next.get(&key).is_none_or(|(next, _)| *next != to) {
                        let epoch = model.highest(&key).next();
                        model.next.insert(key, (to, epoch));
                    }
                }
                Op::CallOff { vn, tsi } => {
                    let (vn, tsi) = (vns[usize::from(vn)], format!("t{tsi}"));
                    let key = (vn.to_owned(), tsi.clone());
                    let result = block(r.call_off(n(vn), n(&tsi), Caller::Operator));
                    prop_assert_eq!(result.is_ok(), model.grants.contains_key(&key));
                    model.call_off(&key);
                }
                Op::Succeed { vn, tsi } => {
                    let (vn, tsi) = (vns[usize::from(vn)], format!("t{tsi}"));
                    let key = (vn.to_owned(), tsi.clone());
                    let vni = crate::registry::vns::find(&*r.snapshot().unwrap(), &n(vn)).unwrap().vni;
                    let (nve, epoch) = model.next.get(&key).copied().unwrap_or((XtrId([9; 16]), Epoch::FIRST));
                    block(r.succeed(weft_model::TsiId { vni, name: n(&tsi) }, nve, epoch)).unwrap();
                    model.succeed(&key);
                }
                Op::RemoveNve { nve } => {
                    let name = r.snapshot().unwrap();
                    let name = nves::find(&*name, enrolled[&nve]).unwrap().unwrap().name;
                    block(r.remove_nve(name, true)).unwrap();
                    let gone = enrolled[&nve];
                    for key in model.grants.keys().cloned().collect::<Vec<_>>() {
                        if model.next.get(&key).is_some_and(|(next, _)| *next == gone) {
                            model.call_off(&key);
                        } else if model.grants[&key].0 == gone && !model.succeed(&key) {
                            model.remove(&key);
                        }
                    }
                    let secret = format!("again{}", model.floors.len());
                    block(r.create_token(NewToken { uses: 99, ..NewToken::default() }, &secret, 0)).unwrap();
                    let mut e = enrolment(&secret, nve);
                    e.csr = format!("{}", r.snapshot().unwrap().revision());
                    e.xtr_id.0[15] = e.xtr_id.0[15].wrapping_add(16);
                    e.xtr_id.0[14] = u8::try_from(r.snapshot().unwrap().revision() % 251).unwrap();
                    enrolled.insert(nve, block(r.join(e, 1, sign(1))).unwrap().xtr_id);
                }
                Op::Crash => {
                    let next = tempfile::tempdir().unwrap();
                    crash_copy(dir.path(), next.path());
                    r = Registry::new(Arc::new(RedbStore::open(next.path(), 64).unwrap()));
                    dir = next;
                }
            }
            check(&r, &model);
        }
    }
}
