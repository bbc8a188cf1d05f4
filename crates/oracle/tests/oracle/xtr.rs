//! A plain RFC 9301 xTR: known by configuration, registers over UDP.

use crate::lab::*;
use std::{collections::BTreeSet, net::SocketAddr};
use tokio::{net::UdpSocket, time::timeout};
use weft_api::{Code, KeyAlgorithm, NewXtr, TsiState};
use weft_lisp::{Algorithm, EncodeOptions, Locator, MacLength, MapRegister, Message, Record, auth};
use weft_model::{Grant, XtrId};

const KEY: &str = "correct horse";

fn new() -> NewXtr {
    NewXtr {
        name: name("old-router"),
        rlocs: BTreeSet::from(["192.0.2.5".parse().unwrap()]),
        xtr_id: None,
        site_id: Default::default(),
        key_id: 1,
        algorithm: KeyAlgorithm::HmacSha256,
        key: KEY.into(),
        pubsub_key: None,
        vns: BTreeSet::from([name("red")]),
    }
}

/// Registers a grant's MAC; the nonce of the Map-Notify, if one comes.
async fn register(grant: &Grant, nonce: u64, key: &str, patience: std::time::Duration) -> Option<u64> {
    register_all(std::slice::from_ref(grant), nonce, key, patience).await
}

/// The same of several grants in one message.
async fn register_all(grants: &[Grant], nonce: u64, key: &str, patience: std::time::Duration) -> Option<u64> {
    let socket = UdpSocket::bind("192.0.2.5:4342").await.unwrap();
    let locators = [Locator::new(std::net::IpAddr::from([192, 0, 2, 5]), 1)];
    let eid = |grant: &Grant| {
        weft_lisp::Eid::host(grant.tsi.vni.get(), weft_lisp::EidAddr::Mac(grant.mac.octets()))
    };
    let eids: Vec<weft_lisp::Eid> = grants.iter().map(eid).collect();
    let record = |eid: &'_ weft_lisp::Eid| (eid.mask_len(), eid.address());
    let records: Vec<Record<'_>> = eids
        .iter()
        .map(record)
        .map(|(mask_len, eid)| Record {
            ttl: 3,
            mask_len,
            authoritative: true,
            eid,
            locators: (&locators).into(),
            ..Record::default()
        })
        .collect();
    let message = MapRegister {
        proxy_reply: true,
        want_notify: true,
        nonce,
        auth: Algorithm::HmacSha256.placeholder(1, MacLength::Truncated),
        records: records.as_slice().into(),
        ..MapRegister::default()
    };
    let mut octets = Vec::new();
    message.encode(&mut octets, EncodeOptions::default()).unwrap();
    auth::sign(&mut octets, key.as_bytes(), auth::Coverage::WholePayload).unwrap();
    let oracle: SocketAddr = "192.0.2.9:4342".parse().unwrap();
    socket.send_to(&octets, oracle).await.unwrap();
    let mut buffer = [0; 2048];
    let (n, _) = timeout(patience, socket.recv_from(&mut buffer)).await.ok()?.unwrap();
    match Message::decode(&buffer[..n]).unwrap() {
        Message::MapNotify(notify) => Some(notify.nonce),
        other => panic!("{other:?}"),
    }
}

#[test]
fn it_registers_and_its_nonce_outlives_a_restart() {
    in_namespace(async || {
        let f = Fabric::with(1, |o| o.listen = vec!["192.0.2.9".parse().unwrap()]).await;
        f.vn("red", &["10.0.0.0/24"]).await;
        let nve = f.join(1).await;
        let mut bad = new();
        bad.key = "short".into();
        assert_eq!(refusal(f.operator.create_xtr(&bad).await).0, Code::BadRequest);
        bad = new();
        bad.vns = BTreeSet::from([name("none")]);
        assert_eq!(refusal(f.operator.create_xtr(&bad).await).0, Code::NotFound);
        bad = new();
        bad.name = nve.name.clone();
        assert_eq!(refusal(f.operator.create_xtr(&bad).await).0, Code::NveTaken);
        bad = new();
        bad.rlocs = rlocs(1);
        assert_eq!(refusal(f.operator.create_xtr(&bad).await).0, Code::RlocTaken);
        bad = new();
        bad.xtr_id = Some(nve.id);
        assert_eq!(refusal(f.operator.create_xtr(&bad).await).0, Code::NveTaken);
        assert_eq!(refusal(nve.client.create_xtr(&new()).await).0, Code::Forbidden);
        let xtr = f.operator.create_xtr(&new()).await.unwrap();
        assert_ne!(xtr.xtr_id, XtrId([0; 16]));
        assert_eq!(f.operator.xtrs().await.unwrap().items.as_slice(), std::slice::from_ref(&xtr));

        let mut wish = wish("red", "legacy", &[]);
        wish.nve = Some(xtr.name.clone());
        let grant = f.operator.grant(&wish).await.unwrap().grant;
        assert_eq!(grant.owner, xtr.xtr_id);
        let soon = std::time::Duration::from_millis(500);
        assert_eq!(register(&grant, 7, "wrong secret", soon).await, None);
        assert_eq!(register(&grant, 7, KEY, CEILING).await, Some(7));
        let tsis = f.operator.tsis(None).await.unwrap().items;
        assert_eq!((tsis[0].state, &tsis[0].nve), (TsiState::Registered, &xtr.name));

        let f = f.restart().await;
        assert_eq!(register(&grant, 7, KEY, soon).await, None, "a replay");
        assert_eq!(f.operator.tsis(None).await.unwrap().items[0].state, TsiState::Granted);
        assert_eq!(register(&grant, 8, KEY, CEILING).await, Some(8));

        let said = f.operator.remove_xtr(&xtr.name, true).await.unwrap().message;
        assert!(said.contains("its 1 tenant systems are released"), "{said}");
        assert_eq!(register(&grant, 9, KEY, soon).await, None);
        assert!(f.operator.grants().await.unwrap().items.is_empty());
        assert_eq!(refusal(f.operator.remove_xtr(&xtr.name, true).await).0, Code::NotFound);
    });
}

#[test]
fn one_message_may_be_about_vns_of_several_shards() {
    in_namespace(async || {
        let f = Fabric::with(3, |o| o.listen = vec!["192.0.2.9".parse().unwrap()]).await;
        f.vn("red", &["10.0.0.0/24"]).await;
        let xtr = f.operator.create_xtr(&new()).await.unwrap();
        let mut grants = Vec::new();
        for n in 0..6 {
            let vn = format!("vn{n}");
            f.vn(&vn, &["10.0.0.0/24"]).await;
            let mut wish = wish(&vn, "legacy", &[]);
            wish.nve = Some(xtr.name.clone());
            grants.push(f.operator.grant(&wish).await.unwrap().grant);
        }
        assert_eq!(register_all(&grants, 1, KEY, CEILING).await, Some(1));
        let states = async || -> Vec<TsiState> {
            f.operator.tsis(None).await.unwrap().items.into_iter().map(|tsi| tsi.state).collect()
        };
        // The acknowledging shard may be done before the others.
        until("all are registered", async || (states().await == [TsiState::Registered; 6]).then_some(()))
            .await;
        // One that is not its own, and none of the others counts.
        let stranger = f.join(1).await;
        let foreign = stranger.grant("red", "web1").await.unwrap().grant;
        let mut all = grants.clone();
        all.insert(3, foreign);
        let soon = std::time::Duration::from_millis(500);
        assert_eq!(register_all(&all, 2, KEY, soon).await, None);
        let counters = f.operator.counters().await.unwrap().counters;
        assert_eq!((counters["registrations"], counters["refused_vn_out_of_scope"]), (6, 1), "{counters:?}");
        assert_eq!(register_all(&grants, 3, KEY, CEILING).await, Some(3));
    });
}
