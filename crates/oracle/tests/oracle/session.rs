//! Sessions and Map-Requests on real sockets.

use crate::lab::*;
use std::{
    net::{IpAddr, SocketAddr},
    sync::Arc,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpStream, UdpSocket},
    time::timeout,
};
use tokio_rustls::{TlsConnector, client::TlsStream};
use weft_api::{Code, ORACLE_SERVER_NAME, Role, Trust, TsiState, local::Shown, tls_config};
use weft_lisp::{
    Address, Ecm, EcmHeader, EidRecord, EncodeOptions, Locator, MapRegister, MapRequest, Message, Record,
    Xtr,
    tcp::{Body, FrameDecoder, Signal, View},
};
use weft_model::{Eid, Grant, Origin};

fn lisp_mac(vni: u32, mac: [u8; 6]) -> weft_lisp::Eid {
    weft_lisp::Eid::host(vni, weft_lisp::EidAddr::Mac(mac))
}

fn lisp_ip(vni: u32, ip: IpAddr) -> weft_lisp::Eid {
    let address = match ip {
        IpAddr::V4(v4) => weft_lisp::EidAddr::Ipv4(v4),
        IpAddr::V6(v6) => weft_lisp::EidAddr::Ipv6(v6),
    };
    weft_lisp::Eid::host(vni, address)
}

/// What came on a session, as far as these tests look.
#[derive(Debug, PartialEq)]
enum Heard {
    Hello,
    Ack(u32),
    Reject(u32),
    /// A change of this.
    Notify(weft_lisp::Eid),
    Other,
}

struct Session {
    stream: TlsStream<TcpStream>,
    decoder: FrameDecoder,
}

impl Session {
    async fn open(nve: &Nve) -> std::io::Result<Self> {
        let config = tls_config(&Trust::Ca(nve.reply.ca.clone()), Some(&nve.identity)).unwrap();
        let tcp = TcpStream::connect("127.0.0.1:4342").await?;
        let connector = TlsConnector::from(Arc::new(config));
        let stream = connector.connect(ORACLE_SERVER_NAME.try_into().unwrap(), tcp).await?;
        let mut session = Self { stream, decoder: FrameDecoder::default() };
        session.send(1, &Body::Signal(Signal::Hello { version: 1, boot_id: u64::from(nve.n) })).await?;
        Ok(session)
    }

    async fn up(nve: &Nve) -> Self {
        let mut session = Self::open(nve).await.unwrap();
        session.hear(|h| *h == Heard::Hello).await;
        session
    }

    async fn send(&mut self, id: u32, body: &Body<'_>) -> std::io::Result<()> {
        let mut octets = Vec::new();
        body.encode(id, &mut octets, EncodeOptions::default()).unwrap();
        self.stream.write_all(&octets).await?;
        self.stream.flush().await
    }

    /// The next frame that `wanted` wants; none when the session has ended.
    async fn next(&mut self, wanted: impl Fn(&Heard) -> bool) -> Option<Heard> {
        loop {
            while let Some(frame) = self.decoder.next_frame().unwrap() {
                let heard = match frame.body().unwrap() {
                    Body::Signal(Signal::Hello { .. }) => Heard::Hello,
                    Body::RegistrationAck(_) => Heard::Ack(frame.id),
                    Body::RegistrationReject { .. } => Heard::Reject(frame.id),
                    Body::MappingNotification { record, .. } => {
                        Heard::Notify(weft_lisp::Eid::host_from_wire(record.eid).unwrap())
                    }
                    _ => Heard::Other,
                };
                if wanted(&heard) {
                    return Some(heard);
                }
            }
            let mut buffer = [0; 4096];
            match timeout(CEILING, self.stream.read(&mut buffer)).await.expect("nothing came") {
                Ok(0) | Err(_) => return None,
                Ok(n) => self.decoder.push(&buffer[..n]),
            }
        }
    }

    async fn hear(&mut self, wanted: impl Fn(&Heard) -> bool) -> Heard {
        self.next(wanted).await.expect("the session has ended")
    }

    /// Registers a grant as its NVE does; whether it was accepted.
    async fn register(&mut self, id: u32, nve: &Nve, grant: &Grant, ttl: u32) -> bool {
        let vni = grant.tsi.vni.get();
        let locators: Vec<Locator<'_>> = rlocs(nve.n).iter().map(|r| Locator::new(r.get(), 1)).collect();
        let owner = [Locator::mac(grant.mac.octets())];
        let mut eids = vec![lisp_mac(vni, grant.mac.octets())];
        eids.extend(grant.ips.iter().map(|ip| lisp_ip(vni, ip.get())));
        let records: Vec<Record<'_>> = eids
            .iter()
            .enumerate()
            .map(|(n, eid)| Record {
                ttl,
                mask_len: eid.mask_len(),
                authoritative: true,
                eid: eid.address(),
                locators: if n == 0 { locators.as_slice().into() } else { owner.as_slice().into() },
                ..Record::default()
            })
            .collect();
        let register = MapRegister {
            proxy_reply: true,
            want_notify: true,
            records: records.as_slice().into(),
            xtr: Some(Xtr { xtr_id: nve.id.0, site_id: 0 }),
            ..MapRegister::default()
        };
        let mut octets = Vec::new();
        Body::encode_registration(&register, id, &mut octets, EncodeOptions::default()).unwrap();
        self.stream.write_all(&octets).await.unwrap();
        self.stream.flush().await.unwrap();
        let answer = |h: &Heard| matches!(h, Heard::Ack(i) | Heard::Reject(i) if *i == id);
        self.hear(answer).await == Heard::Ack(id)
    }
}

/// A Map-Request of `nve` from `from`; the locators of the answer's last record that has RLOCs, or
/// nothing for a Negative one. None when no answer comes before `patience` ends.
async fn ask(
    nve: &Nve,
    from: &str,
    to: &str,
    vni: u32,
    wanted: Eid,
    nonce: u64,
) -> Option<(Vec<IpAddr>, IpAddr)> {
    let socket = UdpSocket::bind(format!("{from}:0")).await.unwrap();
    let wanted = match wanted {
        Eid::Ip(ip) => lisp_ip(vni, ip.get()),
        Eid::Mac(mac) => lisp_mac(vni, mac.octets()),
    };
    let source = lisp_ip(vni, "10.0.0.200".parse().unwrap());
    let records = [EidRecord { notify: false, mask_len: wanted.mask_len(), eid: wanted.address() }];
    let itr: Vec<Address<'_>> = rlocs(nve.n).iter().map(|r| Address::from(r.get())).collect();
    let request = MapRequest {
        nonce,
        source_eid: source.address(),
        itr_rlocs: itr.as_slice().into(),
        records: (&records).into(),
        ..MapRequest::default()
    };
    let to: SocketAddr = to.parse().unwrap();
    let header = EcmHeader::Ip { source: socket.local_addr().unwrap(), destination: to };
    let mut octets = Vec::new();
    Ecm::encode_with(&mut octets, false, header, |out| request.encode(out, EncodeOptions::default()))
        .unwrap();
    socket.send_to(&octets, to).await.unwrap();
    let mut buffer = [0; 2048];
    let patience = std::time::Duration::from_secs(if from == "127.0.0.1" { 1 } else { 30 });
    let (n, source) = timeout(patience, socket.recv_from(&mut buffer)).await.ok()?.unwrap();
    let Message::MapReply(reply) = Message::decode(&buffer[..n]).unwrap() else { panic!("no Map-Reply") };
    assert_eq!(reply.nonce, nonce);
    let rlocs = reply
        .records
        .iter()
        .flat_map(|r| r.locators.iter().filter_map(|l| l.rloc.as_ip()).collect::<Vec<_>>());
    Some((rlocs.collect(), source.ip()))
}

async fn states(f: &Fabric) -> Vec<TsiState> {
    f.operator.tsis(None).await.unwrap().items.into_iter().map(|t| t.state).collect()
}

fn life(shards: usize) {
    in_namespace(async move || {
        let f = Fabric::with(shards, |_| ()).await;
        let (one, two) = (f.join(1).await, f.join(2).await);
        // Several VNs, so that with several shards some are not the first one's.
        for n in 0..4 {
            f.vn(&format!("vn{n}"), &["10.0.0.0/24", "fd00::/64"]).await;
        }
        let mut a = Session::up(&one).await;
        let mut b = Session::up(&two).await;
        let mut asked = 0;
        for n in 0..4 {
            let vn = format!("vn{n}");
            two.grant(&vn, "db1").await.unwrap();
            // A register right behind the grant's answer is accepted: the fact was there first.
            let got = one.grant(&vn, "web1").await.unwrap();
            let vni = got.vn.vni.get();
            let ip = *got.grant.ips.iter().find(|ip| ip.get().is_ipv4()).unwrap();
            // Before: answered from the grant. From the address that was asked.
            let mut answer = async |wanted| {
                asked += 1;
                ask(&two, "192.0.2.2", "192.0.2.5:4342", vni, wanted, asked).await.unwrap()
            };
            let (mut rlocs, source) = answer(Eid::Ip(ip)).await;
            rlocs.sort();
            assert_eq!(rlocs, ["192.0.2.1".parse::<IpAddr>().unwrap(), "2001:db8::1".parse().unwrap()]);
            assert_eq!(source, "192.0.2.5".parse::<IpAddr>().unwrap());
            assert!(a.register(10 + n, &one, &got.grant, 0xffff_ffff).await);
            // Somebody else's is not.
            assert!(!b.register(10 + n, &two, &got.grant, 0xffff_ffff).await);
            let (rlocs, _) = answer(Eid::Mac(got.grant.mac.get())).await;
            assert_eq!(rlocs.len(), 2);
            // Nobody's address: Negative.
            let (rlocs, _) = answer(Eid::Ip("10.0.0.99".parse().unwrap())).await;
            assert_eq!(rlocs, Vec::<IpAddr>::new());
            let mappings = f.operator.mappings(Some(&got.vn.name)).await.unwrap().items;
            assert_eq!(mappings.iter().filter(|m| m.origin == Origin::Registration).count(), 3);
            let talk = f.operator.conversations(Some(&got.vn.name)).await.unwrap().items;
            assert!(talk.iter().any(|c| c.nve == two.id && c.destination == Eid::Ip(ip)), "{talk:?}");

            // Who asked is told: of what is gone, and of what was not there and is now.
            one.client.release(&got.vn.name, &got.grant.tsi.name, false).await.unwrap();
            b.hear(|h| *h == Heard::Notify(lisp_ip(vni, ip.get()))).await;
            let new = one.client.grant(&wish(&vn, "new", &["10.0.0.99"])).await.unwrap();
            assert!(a.register(20 + n, &one, &new.grant, 0xffff_ffff).await);
            b.hear(|h| *h == Heard::Notify(lisp_ip(vni, "10.0.0.99".parse().unwrap()))).await;
        }
        // A stranger's question is counted, not answered.
        let stranger =
            ask(&one, "127.0.0.1", "127.0.0.1:4342", 4097, Eid::Ip("10.0.0.1".parse().unwrap()), 99);
        assert_eq!(stranger.await, None);
        let counters = f.operator.counters().await.unwrap().counters;
        assert_eq!(counters["requests_from_strangers"], 1);
        assert_eq!(counters["requests"], asked);
        assert!(counters["refused_held_by"] >= 4, "{counters:?}");
        // IPv6 underlay.
        let v6 = ask(
            &two,
            "[2001:db8::2]",
            "[2001:db8::7]:4342",
            4097,
            Eid::Ip("10.0.0.99".parse().unwrap()),
            100,
        );
        assert_eq!(v6.await.unwrap().1, "2001:db8::7".parse::<IpAddr>().unwrap());
    });
}

#[test]
fn one_shard() {
    life(1);
}

#[test]
fn three_shards() {
    life(3);
}

#[test]
fn sessions_end_and_are_replaced() {
    in_namespace(async || {
        let f = Fabric::with(2, |_| ()).await;
        let nve = f.join(1).await;
        f.vn("red", &["10.0.0.0/24"]).await;
        let grant = nve.grant("red", "web1").await.unwrap().grant;
        let mut first = Session::up(&nve).await;
        assert!(first.register(2, &nve, &grant, 0xffff_ffff).await);
        assert_eq!(states(&f).await, [TsiState::Registered]);
        // A second session takes the place of the first, which ends.
        let mut second = Session::up(&nve).await;
        assert_eq!(first.next(|_| false).await, None);
        assert!(second.register(3, &nve, &grant, 0xffff_ffff).await);
        until("registered on the second", async || {
            (states(&f).await == [TsiState::Registered]).then_some(())
        })
        .await;
        assert_eq!(f.operator.nves().await.unwrap().items[0].connected, Some(true));
        drop(second);
        until("stale", async || (states(&f).await == [TsiState::Stale]).then_some(())).await;
        assert_eq!(f.operator.nves().await.unwrap().items[0].connected, Some(false));

        // Rubbish ends a session and nothing else.
        let mut third = Session::up(&nve).await;
        drop(third.stream.write_all(&[0xff; 70_000]).await);
        assert_eq!(third.next(|_| false).await, None);

        // Removed: the session ends at once and a new one is refused.
        let mut fourth = Session::up(&nve).await;
        f.operator.remove_nve(&nve.name, true).await.unwrap();
        assert_eq!(fourth.next(|_| false).await, None);
        if let Ok(mut session) = Session::open(&nve).await {
            assert_eq!(session.next(|_| true).await, None);
        }
        assert!(f.operator.tsis(None).await.unwrap().items.is_empty());
    });
}

#[test]
fn only_nves_have_sessions() {
    in_namespace(async || {
        let f = Fabric::start().await;
        let mut nve = f.join(1).await;
        let context = weft_oracle::credentials(&f.data(), &Role::Operator("x".into()), None).unwrap();
        nve.identity = context.endpoint().unwrap().identity.unwrap();
        if let Ok(mut session) = Session::open(&nve).await {
            assert_eq!(session.next(|_| true).await, None);
        }
        // No certificate at all.
        let config = tls_config(&Trust::Ca(nve.reply.ca.clone()), None).unwrap();
        let tcp = TcpStream::connect("127.0.0.1:4342").await.unwrap();
        let connector = TlsConnector::from(Arc::new(config));
        if let Ok(mut stream) = connector.connect(ORACLE_SERVER_NAME.try_into().unwrap(), tcp).await {
            let mut buffer = [0; 1];
            assert!(!matches!(stream.read(&mut buffer).await, Ok(1..)));
        }
    });
}

/// Answers the next question about what the NVE shows, in two parts; what was asked.
async fn show(session: &mut Session, refused: bool, answer: &[u8]) -> String {
    loop {
        while let Some(frame) = session.decoder.next_frame().unwrap() {
            let Body::View(View::Request { what }) = frame.body().unwrap() else { continue };
            let (id, what) = (frame.id, String::from_utf8(what.to_vec()).unwrap());
            let (head, tail) = answer.split_at(answer.len() / 2);
            for (last, octets) in [(false, head), (true, tail)] {
                session.send(id, &Body::View(View::Part { last, refused, octets })).await.unwrap();
            }
            return what;
        }
        let mut buffer = [0; 4096];
        let n = timeout(CEILING, session.stream.read(&mut buffer)).await.expect("nothing came").unwrap();
        assert!(n > 0, "the session has ended");
        session.decoder.push(&buffer[..n]);
    }
}

#[test]
fn an_nve_is_asked_what_it_knows_through_the_oracle() {
    in_namespace(async || {
        let f = Fabric::with(2, |_| ()).await;
        let nve = f.join(1).await;
        let ask = || f.operator.shown::<serde_json::Value>(&nve.name, Shown::Mappings);
        let (code, _, text) = refusal(ask().await);
        assert_eq!(code, Code::NotReady, "{text}");
        let mut session = Session::up(&nve).await;
        let (answer, what) = tokio::join!(ask(), show(&mut session, false, br#"{"items":[1,2,3]}"#));
        assert_eq!((answer.unwrap(), what.as_str()), (serde_json::json!({"items": [1, 2, 3]}), "mappings"));
        let no = br#"{"error":"too_many_requests","message":"later"}"#;
        let (answer, _) = tokio::join!(ask(), show(&mut session, true, no));
        let (code, _, text) = refusal(answer);
        assert!(code == Code::TooManyRequests && text.contains("later"), "{code:?} {text}");
        // Its session ends meanwhile; nobody of that name.
        let (answer, ()) = tokio::join!(ask(), async { drop(session) });
        assert_eq!(refusal(answer).0, Code::NotReady);
        let nobody = f.operator.shown::<serde_json::Value>(&name("nobody"), Shown::Mappings).await;
        assert_eq!(refusal(nobody).0, Code::NotFound);
        // An NVE may not look at another.
        let other = nve.client.shown::<serde_json::Value>(&nve.name, Shown::Mappings).await;
        assert_eq!(refusal(other).0, Code::Forbidden);
    });
}

/// More silent connections than there are turns to shake hands.
async fn silent(port: u16) -> Vec<TcpStream> {
    let mut all = Vec::new();
    for _ in 0..300 {
        let socket = tokio::net::TcpSocket::new_v4().unwrap();
        socket.bind("192.0.2.2:0".parse().unwrap()).unwrap();
        all.push(socket.connect(SocketAddr::from(([192, 0, 2, 1], port))).await.unwrap());
    }
    all
}

/// Whether the Oracle has not given up on it yet.
fn open(stream: &TcpStream) -> bool {
    matches!(stream.try_read(&mut [0]), Err(e) if e.kind() == std::io::ErrorKind::WouldBlock)
}

#[test]
fn strangers_who_say_nothing_keep_nobody_out() {
    in_namespace(async || {
        let f = Fabric::start().await;
        let nve = f.join(1).await;
        let all = silent(4342).await;
        Session::up(&nve).await;
        assert!(open(all.last().unwrap()), "the session was up before they were given up");
        let all = silent(4343).await;
        let context = weft_api::Context::load(&f.data().join("operator.json")).unwrap();
        let operator = weft_api::Client::new(&context.endpoint().unwrap()).unwrap();
        operator.vns().await.unwrap();
        assert!(open(all.last().unwrap()), "the answer was there before they were given up");
    });
}

#[test]
fn a_stranger_who_asks_nothing_is_sent_away_before_others() {
    in_namespace(async || {
        let f = Fabric::start().await;
        let nve = f.join(1).await;
        let open = async |identity: Option<&weft_api::Identity>| {
            let config = tls_config(&Trust::Ca(nve.reply.ca.clone()), identity).unwrap();
            let tcp = TcpStream::connect("127.0.0.1:4343").await.unwrap();
            let connector = TlsConnector::from(Arc::new(config));
            connector.connect(ORACLE_SERVER_NAME.try_into().unwrap(), tcp).await.unwrap()
        };
        let mut known = open(Some(&nve.identity)).await;
        let mut stranger = open(None).await;
        let (mut from_known, mut from_stranger) = ([0], [0]);
        let ended = async {
            tokio::select! {
                biased;
                _ = known.read(&mut from_known) => "known",
                _ = stranger.read(&mut from_stranger) => "stranger",
            }
        };
        assert_eq!(timeout(CEILING, ended).await.expect("both are still there"), "stranger");
    });
}
