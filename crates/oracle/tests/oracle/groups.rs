//! Security groups over `/v1`, and what NVEs are told of them.

use crate::lab::*;
use std::{collections::BTreeSet, time::Duration};
use tokio::time::timeout;
use weft_api::{Code, Event, PolicyItem, PutGroup, VnChange, Watch};
use weft_model::{GroupName, Rule};

const CEILING: Duration = Duration::from_secs(30);

fn rules(texts: &[&str]) -> PutGroup {
    let rules: Vec<Rule> = texts.iter().map(|text| text.parse().unwrap()).collect();
    PutGroup { rules: rules.try_into().unwrap(), revision: None }
}

fn groups(names: &[&str]) -> BTreeSet<GroupName> {
    names.iter().map(|text| name(text)).collect()
}

/// What a watch says up to the next bookmark, in words.
async fn round(watch: &mut Watch<PolicyItem>) -> Vec<String> {
    let mut said = Vec::new();
    loop {
        let (sign, object) = match timeout(CEILING, watch.next()).await.unwrap().unwrap().unwrap() {
            Event::Added { object, .. } | Event::Modified { object, .. } => ('+', object),
            Event::Deleted { object, .. } => ('-', object),
            Event::Bookmark { .. } if said.is_empty() => continue,
            Event::Bookmark { .. } => return said,
        };
        said.push(format!("{sign}{}", words(&object)));
    }
}

fn words(item: &PolicyItem) -> String {
    match item {
        PolicyItem::Vn { default_groups, .. } if default_groups.is_empty() => "vn".to_owned(),
        PolicyItem::Vn { default_groups, .. } => {
            let groups: Vec<&str> = default_groups.iter().map(GroupName::as_str).collect();
            format!("vn of {}", groups.join(","))
        }
        PolicyItem::Group { name, rules, .. } => format!("group {name} {}", rules.rules().len()),
        PolicyItem::Member { name, ips, groups, .. } => {
            let groups: Vec<&str> = groups.iter().map(GroupName::as_str).collect();
            format!("member {name} {} [{}]", texts(ips).join(","), groups.join(","))
        }
    }
}

/// Who writes far too much is told so, and not cut off while it writes.
#[test]
fn too_much_at_once_is_refused_with_the_limit() {
    in_namespace(async || {
        let f = Fabric::start().await;
        f.vn("red", &["10.0.0.0/24"]).await;
        let many: Vec<Rule> = (0..300_000_u32)
            .map(|n| format!("in any from {}", std::net::Ipv4Addr::from(n)).parse().unwrap())
            .collect();
        let put = PutGroup { rules: many.try_into().unwrap(), revision: None };
        let (code, _, message) = refusal(f.operator.put_group(&name("red"), &name("web"), &put).await);
        assert_eq!(code, Code::TooLarge);
        assert!(message.contains("longer than 3145728 octets"), "{message}");
        assert_eq!(f.operator.groups().await.unwrap().items, []);
    });
}

#[test]
fn groups_over_v1() {
    in_namespace(async || {
        let f = Fabric::start().await;
        f.vn("red", &["10.0.0.0/24"]).await;
        let (red, web) = (name("red"), name("web"));
        let list = f.operator.groups().await.unwrap();
        let mut watch = f.operator.watch_groups(list.resource_version).await.unwrap();
        let made = f.operator.put_group(&red, &web, &rules(&["in tcp/80"])).await.unwrap();
        assert_eq!((made.revision, made.rules.rules().len()), (1, 1));
        let event = loop {
            match timeout(CEILING, watch.next()).await.unwrap().unwrap().unwrap() {
                Event::Bookmark { .. } => {}
                event => break event,
            }
        };
        assert!(matches!(event, Event::Added { object, .. } if object == made));
        assert_eq!(f.operator.group(&red, &web).await.unwrap(), made);
        let lost = PutGroup { revision: Some(7), ..rules(&[]) };
        assert_eq!(refusal(f.operator.put_group(&red, &web, &lost).await).0, Code::Outdated);
        let nve = f.join(1).await;
        nve.client
            .grant(&weft_api::GrantRequest { groups: groups(&["web"]), ..wish("red", "a", &[]) })
            .await
            .unwrap();
        assert_eq!(refusal(f.operator.delete_group(&red, &web).await).0, Code::GroupInUse);
        assert_eq!(refusal(nve.client.set_groups(&red, &name("a"), groups(&[])).await).0, Code::Forbidden);
        assert_eq!(refusal(nve.client.groups().await).0, Code::Forbidden);
        assert_eq!(refusal(f.operator.policy().await).0, Code::Forbidden);
        assert_eq!(f.operator.tsis(None).await.unwrap().items[0].groups, groups(&["web"]));
        // Ten thousand rules fit; what they are and who is in the group outlives a restart.
        let many: Vec<String> = (1..=10_000).map(|port| format!("in tcp/{port}")).collect();
        let many: Vec<&str> = many.iter().map(String::as_str).collect();
        f.operator.put_group(&red, &web, &rules(&many)).await.unwrap();
        let too_many = rules(&[many, vec!["in udp"]].concat());
        assert_eq!(refusal(f.operator.put_group(&red, &web, &too_many).await).0, Code::BadRequest);
        let f = f.restart().await;
        let found = f.operator.group(&red, &web).await.unwrap();
        assert_eq!((found.revision, found.rules.rules().len()), (2, 10_000));
        f.operator.set_groups(&red, &name("a"), groups(&[])).await.unwrap();
        f.operator.delete_group(&red, &web).await.unwrap();
        assert_eq!(refusal(f.operator.group(&red, &web).await).0, Code::NotFound);
    });
}

#[test]
fn an_nve_is_told_of_groups_and_members_where_it_has_a_grant() {
    in_namespace(async || {
        let f = Fabric::start().await;
        let (one, two) = (f.join(1).await, f.join(2).await);
        f.vn("red", &["10.0.0.0/24"]).await;
        f.vn("blue", &["10.0.0.0/24"]).await;
        let (red, web) = (name("red"), name("web"));
        let from = one.client.policy().await.unwrap();
        assert!(from.items.is_empty());
        let mut watch = one.client.watch_policy(from.resource_version).await.unwrap();
        // Neither a VN without groups nor one without a grant of its own is its business.
        one.grant("blue", "x").await.unwrap();
        f.operator.put_group(&red, &web, &rules(&["in tcp/80 from group:web"])).await.unwrap();
        let grant = |nve: &Nve, tsi: &str, names: &[&str]| {
            let wish = weft_api::GrantRequest { groups: groups(names), ..wish("red", tsi, &[]) };
            let client = nve.client.clone();
            async move { client.grant(&wish).await.unwrap() }
        };
        grant(&two, "a", &["web"]).await;
        grant(&two, "b", &[]).await;
        grant(&one, "c", &[]).await;
        assert_eq!(round(&mut watch).await, ["+vn", "+group web 1", "+member a 10.0.0.1 [web]"]);
        // One member's change is one event, and one transaction is told as a whole.
        grant(&two, "d", &["web"]).await;
        assert_eq!(round(&mut watch).await, ["+member d 10.0.0.4 [web]"]);
        two.client.take_address(&red, &name("d"), "fe80::1".parse().unwrap()).await.unwrap();
        assert_eq!(round(&mut watch).await, ["+member d 10.0.0.4,fe80::1 [web]"]);
        two.client.release(&red, &name("d"), false).await.unwrap();
        assert_eq!(round(&mut watch).await, ["-member d  []"]);
        f.operator.put_group(&red, &web, &rules(&[])).await.unwrap();
        assert_eq!(round(&mut watch).await, ["+group web 0"]);
        let from = one.client.policy().await.unwrap();
        // Who names none is in the default ones.
        let default = VnChange { default_groups: Some(groups(&["web"])), ..VnChange::default() };
        f.operator.change_vn(&red, &default).await.unwrap();
        let all = [
            "+vn of web",
            "+group web 0",
            "+member a 10.0.0.1 [web]",
            "+member b 10.0.0.2 []",
            "+member c 10.0.0.3 []",
        ];
        assert_eq!(round(&mut watch).await, all);
        // A watch that was broken goes on where it ended.
        let mut again = one.client.watch_policy(from.resource_version).await.unwrap();
        assert_eq!(round(&mut again).await, all);
        let listed = one.client.policy().await.unwrap();
        assert_eq!(listed.items.iter().map(|item| format!("+{}", words(item))).collect::<Vec<_>>(), all);
        let mut again = one.client.watch_policy(listed.resource_version).await.unwrap();
        grant(&two, "e", &["web"]).await;
        assert_eq!(round(&mut again).await, ["+member e 10.0.0.5 [web]"]);
        // With its last grant there the VN goes out of its sight.
        one.client.release(&red, &name("c"), false).await.unwrap();
        assert_eq!(round(&mut again).await, ["-vn"]);
        grant(&one, "c", &[]).await;
        assert_eq!(round(&mut again).await.len(), 6);
    });
}
