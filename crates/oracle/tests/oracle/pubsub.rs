//! A plain xTR subscribes over UDP (RFC 9437).

use crate::lab::*;
use std::{collections::BTreeSet, net::SocketAddr, time::Duration};
use tokio::{net::UdpSocket, time::timeout};
use weft_api::{KeyAlgorithm, NewXtr};
use weft_lisp::{
    Address, Algorithm, Ecm, EcmHeader, Eid, EidRecord, EncodeOptions, MacLength, MapNotify, MapRequest,
    NotifyKind, Policy, Xtr, auth,
};
use weft_model::XtrId;

const KEY: &[u8] = b"for publications";
const XTR: [u8; 16] = [7; 16];

fn oracle() -> SocketAddr {
    "192.0.2.9:4342".parse().unwrap()
}

/// An ECM with a Map-Request for `eid` with I and N bits.
fn request(eid: Eid, nonce: u64) -> Vec<u8> {
    let itr_rlocs = [Address::from(std::net::IpAddr::from([192, 0, 2, 5]))];
    let records = [EidRecord { notify: true, mask_len: eid.mask_len(), eid: eid.address() }];
    let request = MapRequest {
        nonce,
        itr_rlocs: (&itr_rlocs).into(),
        records: (&records).into(),
        xtr: Some(Xtr { xtr_id: XTR, site_id: 0 }),
        ..MapRequest::default()
    };
    let header = EcmHeader::Ip { source: "192.0.2.5:4342".parse().unwrap(), destination: oracle() };
    let mut octets = Vec::new();
    Ecm::encode_with(&mut octets, false, header, |out| request.encode(out, EncodeOptions::default()))
        .unwrap();
    octets
}

/// The next Map-Notify, which is acknowledged: its nonce and how many records it has.
async fn notified(socket: &UdpSocket, patience: Duration) -> Option<(u64, usize)> {
    let mut buffer = [0; 2048];
    let (n, _) = timeout(patience, socket.recv_from(&mut buffer)).await.ok()?.unwrap();
    let octets = &buffer[..n];
    auth::verify(octets, KEY, Policy::strict()).unwrap();
    let notify = MapNotify::decode(octets).unwrap();
    let auth = Algorithm::HmacSha256.placeholder(1, MacLength::Truncated);
    let mut ack = Vec::new();
    MapNotify { kind: NotifyKind::Ack, auth, ..notify }.encode(&mut ack, EncodeOptions::default()).unwrap();
    auth::sign(&mut ack, KEY, auth::Coverage::WholePayload).unwrap();
    socket.send_to(&ack, oracle()).await.unwrap();
    Some((notify.nonce, notify.records.len()))
}

#[test]
fn n7_an_xtr_subscribes_and_its_nonce_outlives_a_restart() {
    in_namespace(async || {
        let f = Fabric::with(3, |o| o.listen = vec!["192.0.2.9".parse().unwrap()]).await;
        f.vn("red", &["10.0.0.0/24"]).await;
        let new = NewXtr {
            name: name("router"),
            rlocs: BTreeSet::from(["192.0.2.5".parse().unwrap()]),
            xtr_id: Some(XtrId(XTR)),
            site_id: Default::default(),
            key_id: 1,
            algorithm: KeyAlgorithm::HmacSha256,
            key: "for registrations".into(),
            pubsub_key: Some(String::from_utf8(KEY.to_vec()).unwrap()),
            vns: BTreeSet::from([name("red")]),
        };
        f.operator.create_xtr(&new).await.unwrap();
        let nve = f.join(1).await;
        let vni = f.operator.vns().await.unwrap().items[0].vni.get();
        let all = Eid::prefix(vni, [0; 6], 0).unwrap();
        let socket = UdpSocket::bind("192.0.2.5:4342").await.unwrap();
        let ask = async |nonce| {
            socket.send_to(&request(all, nonce), oracle()).await.unwrap();
        };
        ask(20).await;
        assert_eq!(notified(&socket, CEILING).await, Some((20, 1)));
        nve.grant("red", "web1").await.unwrap();
        assert_eq!(notified(&socket, CEILING).await, Some((21, 1)));
        let count = async |f: &Fabric| f.operator.xtrs().await.unwrap().items[0].subscriptions;
        assert_eq!(count(&f).await, 1);
        let acks = async |f: &Fabric| f.operator.counters().await.unwrap().counters["pubsub_acks"];
        until("the second is acknowledged", async || (acks(&f).await == 2).then_some(())).await;

        // Who is subscribed is forgotten; with which nonce is not.
        let f = f.restart().await;
        assert_eq!(count(&f).await, 0);
        ask(20).await;
        let replayed = async || f.operator.counters().await.unwrap().counters["pubsub_replayed"];
        until("the replay is counted", async || (replayed().await == 1).then_some(())).await;
        assert_eq!(count(&f).await, 0);
        ask(22).await;
        assert_eq!(notified(&socket, CEILING).await, Some((22, 1)));
        assert_eq!(notified(&socket, CEILING).await, Some((23, 1)), "what there is already");
        f.operator.remove_xtr(&new.name, true).await.unwrap();
        let soon = Duration::from_millis(500);
        ask(24).await;
        assert_eq!(notified(&socket, soon).await, None);
    });
}
