//! Security groups: who may be in them, and who keeps them.

use super::*;
use weft_api::PutGroup;
use weft_model::{GroupLimits, GroupName};

fn rules(texts: &[&str]) -> PutGroup {
    let rules: Vec<weft_model::Rule> = texts.iter().map(|text| text.parse().unwrap()).collect();
    PutGroup { rules: rules.try_into().unwrap(), revision: None }
}

fn groups(names: &[&str]) -> BTreeSet<GroupName> {
    names.iter().map(|name| n(name)).collect()
}

/// A VN `red` with `web` in it, of this enrolled NVE.
fn fabric() -> (Registry, XtrId) {
    let limits = GroupLimits { rules: 2, per_tsi: 2, per_vn: 3 };
    let r = memory().with_limits(limits);
    let owner = enrol(&r, 1);
    block(r.create_vn(new_vn("red", Some(7), &["10.0.0.0/24"]))).unwrap();
    block(r.put_group(n("red"), n("web"), rules(&["in tcp/80"]))).unwrap();
    (r, owner)
}

fn refused<T: std::fmt::Debug>(result: Result<T, RegistryError>, words: &str) {
    let error = result.unwrap_err().to_string();
    assert!(error.contains(words) && !error.contains('\n'), "{error}");
}

#[test]
fn a_group_is_written_as_a_whole_and_no_change_is_lost() {
    let (r, _) = fabric();
    let put = |texts: &[&str], revision| {
        block(r.put_group(n("red"), n("web"), PutGroup { revision, ..rules(texts) }))
            .map(|((group, new), _)| (group.revision, new))
    };
    assert_eq!(put(&["in tcp/81"], Some(1)), Ok((2, false)));
    assert_eq!(put(&["in tcp/81"], None), Ok((2, false)), "the same again is no change");
    refused(put(&["in tcp/82"], Some(1)), "is at revision 2, not 1: somebody changed it meanwhile");
    refused(put(&["in tcp/82"], Some(0)), "is at revision 2, not 0");
    refused(
        put(&["in tcp/1", "in tcp/2", "in tcp/3"], None),
        "group 'web' may have at most 2 rules; 3 are too many",
    );
    refused(put(&["in any from group:db"], None), "no security group 'db' in VN 'red'");
    assert_eq!(put(&["in any from group:web"], None), Ok((3, false)), "its own members");
    refused(block(r.put_group(n("blue"), n("web"), rules(&[]))), "no VN 'blue'");
    refused(block(r.put_group(n("red"), n("none"), rules(&[]))), "cannot be called 'none'");
    for name in ["a", "b"] {
        assert!(block(r.put_group(n("red"), n(name), rules(&[]))).unwrap().0.1);
    }
    refused(
        block(r.put_group(n("red"), n("c"), rules(&[]))),
        "VN 'red' may have at most 3 security groups; 4 are",
    );
}

#[test]
fn a_group_that_is_used_stays_and_says_by_whom() {
    let (r, owner) = fabric();
    let delete = |name| block(r.delete_group(n("red"), n(name))).map(|(group, _)| group.name);
    refused(delete("db"), "no security group 'db' in VN 'red'");
    block(r.put_group(n("red"), n("db"), rules(&["in tcp/5432 from group:web"]))).unwrap();
    let in_web = |tsi| Wish { groups: groups(&["web"]), ..wish("red", tsi, owner, &[]) };
    block(r.grant(in_web("one"))).unwrap();
    let change = |names: &[&str]| {
        let default_groups = Some(groups(names));
        block(r.change_vn(n("red"), VnChange { default_groups, ..VnChange::default() }))
            .map(|(vn, _)| vn.default_groups)
    };
    assert_eq!(change(&["web"]), Ok(groups(&["web"])));
    refused(change(&["none"]), "no security group 'none'");
    refused(delete("web"), "is used by 3 (VN 'red' by default, rules of group 'db', 'one'); take it away");
    block(r.grant(in_web("two"))).unwrap();
    refused(delete("web"), "is used by 4 (VN 'red' by default, rules of group 'db', 'one', ...)");
    assert_eq!(delete("db").unwrap(), n("db"));
    change(&[]).unwrap();
    for tsi in ["one", "two"] {
        let (view, _) = block(r.set_groups(n("red"), n(tsi), groups(&[]))).unwrap();
        assert!(view.grant.groups.is_empty());
    }
    assert_eq!(delete("web").unwrap(), n("web"));
}

#[test]
fn an_attach_names_groups_that_exist_and_keeps_them() {
    let (r, owner) = fabric();
    let ask =
        |names: &[&str]| block(r.grant(Wish { groups: groups(names), ..wish("red", "one", owner, &[]) }));
    refused(ask(&["web", "db"]), "no security group 'db'");
    for name in ["db", "ssh"] {
        block(r.put_group(n("red"), n(name), rules(&[]))).unwrap();
    }
    refused(ask(&["web", "db", "ssh"]), "a tenant system may have at most 2 security groups; 3 are");
    assert_eq!(ask(&["web", "db"]).unwrap().0.view.grant.groups, groups(&["web", "db"]));
    assert_eq!(
        ask(&[]).unwrap().0.view.grant.groups,
        groups(&["web", "db"]),
        "who names none takes what there is"
    );
    refused(ask(&["web"]), "'one' in VN 'red' is in groups 'db', 'web', not 'web'");
    refused(block(r.set_groups(n("red"), n("one"), groups(&["none"]))), "no security group 'none'");
    refused(block(r.set_groups(n("red"), n("two"), groups(&["web"]))), "no tenant system 'two'");
    // A move takes them along; a VN takes them away.
    enrol(&r, 2);
    block(r.name_next(n("red"), n("one"), n("nve2"), Caller::Operator)).unwrap();
    let moved = block(r.release(n("red"), n("one"), nve(1), |_| Presence::Gone)).unwrap().0;
    assert!(
        matches!(&moved, Released::HandedOver(view) if view.grant.groups == groups(&["web", "db"])),
        "{moved:?}"
    );
    block(r.release(n("red"), n("one"), nve(2), |_| Presence::Gone)).unwrap();
    block(r.delete_vn(n("red"))).unwrap();
    let mut left = Vec::new();
    r.snapshot()
        .unwrap()
        .scan(b"group/", &mut |key, _| {
            left.push(key.to_vec());
            true
        })
        .unwrap();
    assert!(left.is_empty(), "{left:?}");
}
