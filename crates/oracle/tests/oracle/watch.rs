//! Lists and watches.

use crate::lab::*;
use tokio::time::timeout;
use weft_api::{Code, Event, Vn, Watch};

/// The next event that is no bookmark.
async fn next<T: serde::de::DeserializeOwned + std::fmt::Debug>(watch: &mut Watch<T>) -> Event<T> {
    loop {
        match timeout(CEILING, watch.next()).await.unwrap().unwrap().unwrap() {
            Event::Bookmark { .. } => {}
            event => return event,
        }
    }
}

#[test]
fn every_change_after_the_list_is_seen_once() {
    in_namespace(async || {
        let f = Fabric::start().await;
        f.vn("red", &["10.0.0.0/24"]).await;
        let list = f.operator.vns().await.unwrap();
        assert_eq!(list.items.len(), 1);
        f.vn("blue", &[]).await;
        let mut watch = f.operator.watch_vns(list.resource_version).await.unwrap();
        let blue = next(&mut watch).await;
        assert!(matches!(&blue, Event::Added { object: Vn { name: n, .. }, .. } if *n == name("blue")));
        assert!(blue.resource_version() > list.resource_version);
        let replayed = timeout(CEILING, watch.next()).await.unwrap().unwrap().unwrap();
        assert!(matches!(replayed, Event::Bookmark { .. }));
        f.operator.delete_vn(&name("red")).await.unwrap();
        assert!(
            matches!(next(&mut watch).await, Event::Deleted { object, .. } if object.name == name("red"))
        );

        let mut nves = f.operator.watch_nves(list.resource_version).await.unwrap();
        let nve = f.join(1).await;
        assert!(matches!(next(&mut nves).await, Event::Added { object, .. } if object.xtr_id == nve.id));
        f.operator.remove_nve(&nve.name, false).await.unwrap();
        assert!(matches!(next(&mut nves).await, Event::Deleted { object, .. } if object.xtr_id == nve.id));
    });
}

#[test]
fn an_nve_sees_what_concerns_it_come_and_go() {
    in_namespace(async || {
        let f = Fabric::start().await;
        let (one, two) = (f.join(1).await, f.join(2).await);
        f.vn("red", &["10.0.0.0/24"]).await;
        let list = one.client.vns().await.unwrap();
        assert!(list.items.is_empty());
        let mut vns = one.client.watch_vns(list.resource_version).await.unwrap();
        let mut grants = one.client.watch_grants(list.resource_version).await.unwrap();
        f.vn("blue", &["10.0.0.0/24"]).await;
        two.grant("red", "other").await.unwrap();
        one.grant("red", "web1").await.unwrap();
        assert!(matches!(next(&mut vns).await, Event::Added { object, .. } if object.name == name("red")));
        assert!(
            matches!(next(&mut grants).await, Event::Added { object, .. } if object.grant.tsi.name == name("web1"))
        );
        one.client.take_address(&name("red"), &name("web1"), "fe80::1".parse().unwrap()).await.unwrap();
        assert!(
            matches!(next(&mut grants).await, Event::Modified { object, .. } if object.grant.ips.len() == 2)
        );
        one.client.release(&name("red"), &name("web1"), false).await.unwrap();
        assert!(matches!(next(&mut grants).await, Event::Deleted { .. }));
        assert!(matches!(next(&mut vns).await, Event::Deleted { object, .. } if object.name == name("red")));
    });
}

#[test]
fn too_old_a_version_is_gone() {
    in_namespace(async || {
        let f = Fabric::with(1, |o| o.history = 8).await;
        let from = f.operator.vns().await.unwrap().resource_version;
        let mut slow = f.operator.watch_vns(from).await.unwrap();
        for n in 0..8 {
            f.vn(&format!("vn{n}"), &[]).await;
        }
        let (code, status, _) = refusal(f.operator.watch_vns(from).await.map(|_| ()));
        assert_eq!((code, status), (Code::Gone, 410));
        // One that was there from the start may have kept up, or is ended; it is never told half.
        let mut seen = 0;
        while let Some(event) = timeout(CEILING, slow.next()).await.unwrap() {
            match event.unwrap() {
                Event::Bookmark { .. } if seen == 8 => break,
                Event::Bookmark { .. } => {}
                _ => seen += 1,
            }
            if seen == 8 {
                break;
            }
        }
        // After a restart the history is empty: who missed nothing goes on, who did lists again.
        let now = f.operator.vns().await.unwrap().resource_version;
        let f = f.restart().await;
        assert_eq!(f.operator.vns().await.unwrap().resource_version, now);
        let mut watch = f.operator.watch_vns(now).await.unwrap();
        assert_eq!(refusal(f.operator.watch_vns(now - 1).await.map(|_| ())).0, Code::Gone);
        f.vn("last", &[]).await;
        assert!(matches!(next(&mut watch).await, Event::Added { object, .. } if object.name == name("last")));
    });
}
