//! How VNs are treated is kept in maps: read back as written, adopted, limited.
#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stdout, reason = "a test fails by panicking")]

mod common;

use common::{How, Lab, rloc, vni};
use std::collections::BTreeSet;
use weft_datapath::{Datapath as _, DatapathError, Op, Path, Tables, VapKind, Vn};
use weft_model::{Bum, Learning, Miss, Rloc, Storm};

fn members(numbers: impl IntoIterator<Item = usize>) -> BTreeSet<Rloc> {
    numbers.into_iter().map(|n| rloc(n, n % 2 == 1)).collect()
}

/// Whatever order they are told in, settings, members and node number are observed as told, by the process
/// that wrote them and by the next.
#[test]
fn settings_are_observed_and_adopted() {
    let how = How { kind: VapKind::Veth, path: Path::Direct, v6: false };
    let mut lab = Lab::new();
    let vn = |learning, bum, members| Vn { learning, bum, members, ..Vn::default() };
    let before = lab.nves[0].with(|k| k.observed().unwrap());
    let steps = [
        vn(Learning::Flood, Bum::Replicate, members(1..6)),
        vn(Learning::Flood, Bum::Replicate, members([1, 2, 4, 5])),
        vn(Learning::Translate, Bum::Drop, members([7, 2, 5])),
        vn(Learning::Distribute, Bum::Drop, members([])),
        Vn::default(),
        Vn { miss: Miss::Drop, storm: Storm::new(1, u32::MAX).unwrap(), ..Vn::default() },
        Vn { miss: Miss::Gateway, gateway: Some(rloc(3, false)), carries: true, ..Vn::default() },
        Vn { miss: Miss::Gateway, gateway: Some(rloc(3, true)), ..Vn::default() },
        vn(Learning::Oracle, Bum::Replicate, members(1..9)),
    ];
    for (n, step) in steps.iter().enumerate() {
        if n == 2 {
            lab.attach(0, 1, how);
            lab.attach(0, 2, how);
        }
        lab.nves[0].apply(&[Op::SetVn(vni(7001), step.clone()), Op::SetVn(vni(7002), steps[0].clone())]);
        let observed = lab.nves[0].with(|k| k.observed().unwrap());
        assert_eq!(observed.vns[&vni(7001)], *step);
        assert_eq!(observed.vns[&vni(7002)], steps[0]);
        assert_eq!(observed.config.node, 0);
        lab.nves[0].punts = None;
        lab.nves[0].kernel = None;
        lab.nves[0].open();
        assert_eq!(lab.nves[0].with(|k| k.observed().unwrap()), observed, "adopted");
    }
    lab.nves[0].apply(&[Op::RemoveVn(vni(7001)), Op::RemoveVn(vni(7002)), Op::RemoveVn(vni(7002))]);
    let observed = lab.nves[0].with(|k| k.observed().unwrap());
    assert_eq!(observed.vns, before.vns);
    assert_eq!(lab.nves[1].with(|k| k.observed().unwrap()).config.node, 1);
}

#[test]
fn members_are_limited() {
    let mut lab = Lab::new();
    let vn = |n| Op::SetVn(vni(7001), Vn { members: members(1..=n), ..Vn::default() });
    lab.nves[0].apply(&[vn(8)]);
    let observed: Tables = lab.nves[0].with(|k| k.observed().unwrap());
    let error = lab.nves[0].with(|k| k.apply(&vn(9)).unwrap_err());
    assert!(matches!(error, DatapathError::Full { limit: 8, .. }), "{error}");
    assert_eq!(lab.nves[0].with(|k| k.observed().unwrap()), observed, "nothing was changed");
}
