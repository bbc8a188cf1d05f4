//! VNs and grants over `/v1`, and what it does with bad input.

use crate::lab::*;
use std::time::Duration;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};
use weft_api::{Client, Code, Context, ORACLE_SERVER_NAME, TsiState, tls_config};
use weft_model::{Epoch, Origin};

#[test]
fn vns_are_created_and_refused() {
    in_namespace(async || {
        let f = Fabric::start().await;
        let red = f.operator.create_vn(&new_vn("red", Some(7), &["10.0.0.0/24", "fd00::/64"])).await.unwrap();
        assert_eq!((red.vni.get(), red.subnets.iter().count()), (7, 2));
        assert_eq!(f.operator.vn(&name("red")).await.unwrap(), red);
        let refused =
            [(new_vn("red", None, &[]), Code::VnTaken), (new_vn("blue", Some(7), &[]), Code::VniTaken)];
        for (new, code) in refused {
            assert_eq!(refusal(f.operator.create_vn(&new).await).0, code);
        }
        let mut both = new_vn("f", None, &[]);
        (both.learning, both.reply) = (weft_model::Learning::Distribute, weft_model::Reply::Forward);
        let (code, _, message) = refusal(f.operator.create_vn(&both).await);
        assert_eq!((code, message.contains("RFC 9437 section 3")), (Code::NotSupported, true));
        let learning = |learning| weft_api::VnChange { learning: Some(learning), ..Default::default() };
        let pushed = f.operator.change_vn(&name("red"), &learning(weft_model::Learning::Distribute)).await;
        assert_eq!(pushed.unwrap(), f.operator.vn(&name("red")).await.unwrap());
        let forward = weft_api::VnChange { reply: Some(weft_model::Reply::Forward), ..Default::default() };
        assert_eq!(refusal(f.operator.change_vn(&name("red"), &forward).await).0, Code::NotSupported);
        // What becomes of misses, and of storms: each refused with its reason, and nothing is changed.
        let before = f.operator.vn(&name("red")).await.unwrap();
        let gateway = |name: Option<&str>| weft_api::VnChange {
            miss: Some(weft_model::Miss::Gateway),
            gateway: name.map(|name| Some(name.parse().unwrap())),
            ..Default::default()
        };
        let (code, _, message) = refusal(f.operator.change_vn(&name("red"), &gateway(None)).await);
        assert_eq!((code, message.contains("--gateway")), (Code::BadRequest, true), "{message}");
        let (code, _, message) = refusal(f.operator.change_vn(&name("red"), &gateway(Some("host9"))).await);
        assert_eq!((code, message.contains("there is no NVE 'host9'")), (Code::NotFound, true), "{message}");
        let still = weft_api::VnChange { storm_rate: Some(0), ..Default::default() };
        let (code, _, message) = refusal(f.operator.change_vn(&name("red"), &still).await);
        assert_eq!((code, message.contains("`bum: drop`")), (Code::BadRequest, true), "{message}");
        assert_eq!(f.operator.vn(&name("red")).await.unwrap(), before);
        f.join(7).await;
        let set = weft_api::VnChange { storm_burst: Some(9), ..gateway(Some("host7")) };
        let now = f.operator.change_vn(&name("red"), &set).await.unwrap();
        assert_eq!((now.miss, now.storm.rate(), now.storm.burst()), (weft_model::Miss::Gateway, 1_000, 9));
        assert_eq!(now.gateway, Some("host7".parse().unwrap()));
        let missing = f.operator.change_vn(&name("none"), &forward).await;
        assert_eq!(refusal(missing).0, Code::NotFound);
        let nve = f.join(1).await;
        for tsi in ["a", "b", "c", "d"] {
            nve.grant("red", tsi).await.unwrap();
        }
        let (code, _, message) = refusal(f.operator.delete_vn(&name("red")).await);
        assert_eq!(code, Code::VnInUse);
        assert!(message.contains("4 tenant systems") && message.contains("(a, b, c, ...)"), "{message}");
        assert_eq!(refusal(f.operator.delete_vn(&name("none")).await).0, Code::NotFound);
    });
}

/// Requirements V2, V5, V10.
#[test]
fn a_move_is_the_owners_or_an_operators_to_begin_and_to_call_off() {
    in_namespace(async || {
        let f = Fabric::with(2, |_| ()).await;
        let (one, two) = (f.join(1).await, f.join(2).await);
        f.vn("red", &["10.0.0.0/29", "fd00::/64"]).await;
        let web1 = (name("red"), name("web1"));
        let got = one.grant("red", "web1").await.unwrap();
        let (code, status, message) = refusal(two.client.name_next(&web1.0, &web1.1, two.name.clone()).await);
        assert_eq!((code, status), (Code::GrantedElsewhere, 409));
        assert!(message.contains("'host1' (epoch 1)"), "{message}");
        assert_eq!(refusal(f.operator.name_next(&web1.0, &web1.1, name("none")).await).0, Code::NotFound);
        assert_eq!(
            refusal(one.client.name_next(&web1.0, &web1.1, one.name.clone()).await).0,
            Code::BadRequest
        );
        for client in [&f.operator, &one.client] {
            let view = client.name_next(&web1.0, &web1.1, two.name.clone()).await.unwrap();
            assert_eq!(view.nve, one.name);
            assert_eq!(view.grant.next.map(|next| (next.nve, next.epoch.get())), Some((two.id, 2)));
        }
        // Both see it, and who is next takes the very same grant.
        let seen = two.client.grants().await.unwrap().items;
        assert_eq!(seen.iter().map(|view| &view.grant.mac).collect::<Vec<_>>(), [&got.grant.mac]);
        assert_eq!(two.grant("red", "web1").await.unwrap().grant.ips, got.grant.ips);
        let view = f.operator.call_off(&web1.0, &web1.1).await.unwrap();
        assert_eq!((view.grant.next, view.grant.epoch.get()), (None, 3));
        assert_eq!(two.client.grants().await.unwrap().items, []);
        assert_eq!(refusal(two.client.call_off(&web1.0, &web1.1).await).0, Code::GrantedElsewhere);
    });
}

#[test]
fn grants_are_taken_found_refused_and_released() {
    in_namespace(async || {
        let f = Fabric::with(2, |_| ()).await;
        let (one, two) = (f.join(1).await, f.join(2).await);
        let vn = f.vn("red", &["10.0.0.0/29", "fd00::/64"]).await;
        let got = one.grant("red", "web1").await.unwrap();
        assert_eq!((texts(&got.grant.ips), &got.vn), (vec!["10.0.0.1".into(), "fd00::1".into()], &vn));
        assert_eq!(one.grant("red", "web1").await.unwrap().grant, got.grant);
        let (code, status, message) = refusal(two.client.grant(&wish("red", "x", &["10.0.0.1"])).await);
        assert_eq!((code, status), (Code::AddressTaken, 409));
        assert!(message.contains("'web1' on NVE 'host1'"), "{message}");
        let (code, _, message) = refusal(two.grant("red", "web1").await);
        assert_eq!((code, message.contains("'host1' (epoch 1)")), (Code::GrantedElsewhere, true));
        let mut mac = wish("red", "x", &[]);
        mac.mac = Some(got.grant.mac);
        assert_eq!(refusal(two.client.grant(&mac).await).0, Code::MacTaken);
        assert_eq!(refusal(two.client.grant(&wish("red", "x", &["10.9.9.9"])).await).0, Code::OutsideSubnets);
        assert_eq!(refusal(two.grant("none", "x").await).0, Code::NotFound);

        // An operator names whose it is to be.
        let mut theirs = wish("red", "db1", &[]);
        assert_eq!(refusal(f.operator.grant(&theirs).await).0, Code::BadRequest);
        theirs.nve = Some(name("none"));
        assert_eq!(refusal(f.operator.grant(&theirs).await).0, Code::NotFound);
        theirs.nve = Some(two.name.clone());
        assert_eq!(f.operator.grant(&theirs).await.unwrap().grant.owner, two.id);

        // More addresses.
        let take = |nve: &Nve, ip: &str| {
            let (client, ip) = (nve.client.clone(), ip.parse().unwrap());
            async move { client.take_address(&name("red"), &name("web1"), ip).await }
        };
        let more = take(&one, "fe80::1").await.unwrap().grant;
        assert_eq!(texts(&more.ips), ["10.0.0.1", "fd00::1", "fe80::1"]);
        assert_eq!(refusal(take(&two, "fe80::2").await).0, Code::GrantedElsewhere);

        // All at once: every address is given once, the rest is refused.
        let many = (0..8).map(|n| {
            let client = if n % 2 == 0 { &one.client } else { &two.client };
            async move { client.grant(&wish("red", &format!("m{n}"), &[])).await }
        });
        let mut given = Vec::new();
        for result in futures_util::future::join_all(many).await {
            match result {
                Ok(reply) => given.extend(texts(&reply.grant.ips)),
                Err(e) => assert_eq!(e.code(), Some(Code::SubnetFull), "{e}"),
            }
        }
        let count = given.len();
        given.sort();
        given.dedup();
        assert_eq!((count, given.len()), (8, 8), "4 of 6 addresses were free, each with one of IPv6");

        assert_eq!(refusal(f.operator.release(&name("red"), &name("none"), true).await).0, Code::NotFound);
        one.client.release(&name("red"), &name("web1"), false).await.unwrap();
        assert_eq!(refusal(one.client.release(&name("red"), &name("web1"), false).await).0, Code::NotFound);
        assert_eq!(two.grant("red", "web1").await.unwrap().grant.epoch, Epoch::FIRST.next());

        // Who was to have what moves calls that off by giving it back; what has come there already ends.
        let (web1, to) = (name("web1"), || one.name.clone());
        f.operator.name_next(&name("red"), &web1, to()).await.unwrap();
        one.client.release(&name("red"), &web1, false).await.unwrap();
        let moves = f.operator.name_next(&name("red"), &web1, to()).await.unwrap().grant;
        one.client.release_activated(&name("red"), &web1, moves.next.unwrap().epoch).await.unwrap();
        assert_eq!(refusal(two.client.release(&name("red"), &web1, false).await).0, Code::NotFound);
        two.grant("red", "web1").await.unwrap();

        // The views know it by the time the answer is here.
        let tsis = f.operator.tsis(Some(&name("red"))).await.unwrap().items;
        assert_eq!(tsis.len(), 6);
        let web1 = tsis.iter().find(|t| t.name == name("web1")).unwrap();
        assert_eq!((web1.state, &web1.nve, &web1.rlocs), (TsiState::Granted, &two.name, &rlocs(2)));
        let mappings = f.operator.mappings(None).await.unwrap().items;
        assert_eq!(mappings.len(), 6 * 3);
        assert!(mappings.iter().all(|m| m.origin == Origin::Grant && m.rlocs.len() == 2));
        assert_eq!(refusal(f.operator.tsis(Some(&name("none"))).await).0, Code::NotFound);
    });
}

/// Sends octets as they are over TLS; the status line and the body.
async fn raw(f: &Fabric, request: &str) -> (String, String) {
    let context = Context::load(&f.data().join("operator.json")).unwrap();
    let endpoint = context.endpoint().unwrap();
    let config = tls_config(&endpoint.trust, endpoint.identity.as_ref()).unwrap();
    let connector = tokio_rustls::TlsConnector::from(std::sync::Arc::new(config));
    let tcp = TcpStream::connect("127.0.0.1:4343").await.unwrap();
    let mut stream = connector.connect(ORACLE_SERVER_NAME.try_into().unwrap(), tcp).await.unwrap();
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    tokio::time::timeout(CEILING, stream.read_to_end(&mut answer)).await.unwrap().unwrap();
    let answer = String::from_utf8(answer).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    (head.lines().next().unwrap().to_owned(), body.to_owned())
}

#[test]
fn bad_input_gets_one_line() {
    in_namespace(async || {
        let f = Fabric::start().await;
        let post = |path: &str, body: &str| {
            format!(
                "POST {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: {}\r\n\r\n{body}",
                body.len()
            )
        };
        let get = |path: &str| format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
        let delete = |path: &str| get(path).replacen("GET", "DELETE", 1);
        let long = format!(r#"{{"name":"{}"}}"#, "x".repeat(70_000));
        let cases = [
            (post("/v1/vns", ""), "400", "bad_request"),
            (post("/v1/vns", "{"), "400", "bad_request"),
            (post("/v1/vns", r#"{"name":"Red"}"#), "400", "'R'"),
            (post("/v1/vns", r#"{"name":""}"#), "400", "empty"),
            (post("/v1/vns", r#"{"name":"a","vni":0}"#), "400", "reserved"),
            (post("/v1/vns", r#"{"name":"a","vni":16777216}"#), "400", "24 bits"),
            (post("/v1/vns", r#"{"name":"a","vni":-1}"#), "400", "bad_request"),
            (post("/v1/vns", r#"{"name":"a","subnets":["10.0.0.1/24"]}"#), "400", "host bits"),
            (post("/v1/vns", r#"{"name":"a","subnets":["10.0.0.0/8","10.1.0.0/16"]}"#), "400", "overlap"),
            (post("/v1/vns", r#"{"name":"a","subnets":["224.0.0.0/8"]}"#), "400", "cannot hold"),
            (post("/v1/vns", r#"{"name":"a","color":"red"}"#), "400", "color"),
            (post("/v1/vns?x=1", r#"{"name":"a"}"#), "400", "'x'"),
            (post("/v1/vns", &long), "413", "too_large"),
            (post("/v1/grants", r#"{"vn":"a","tsi":"b","ips":["224.0.0.1"],"nve":"n"}"#), "400", "unicast"),
            (post("/v1/grants", r#"{"vn":"a","tsi":"b","mac":"01:00:00:00:00:00"}"#), "400", "group"),
            (post("/v1/tokens", r#"{"uses":0}"#), "400", "uses"),
            (post("/v1/tokens", r#"{"vns":["none"]}"#), "404", "none"),
            (get("/v1/vns/Red"), "400", "'R'"),
            (get("/v1/nothing"), "404", "not_found"),
            (get("/"), "404", "not_found"),
            (get("/v1/vns?watch=true"), "400", "resource_version"),
            (get("/v1/vns?watch=perhaps&resource_version=1"), "400", "perhaps"),
            (get("/v1/vns?watch=true&resource_version=x"), "400", "number"),
            (get("/v1/vns?watch=true&watch=true"), "400", "twice"),
            (get("/v1/mappings?vn=A"), "400", "'A'"),
            (get("/v1/vns?watch=true&resource_version=999"), "410", "gone"),
            (post("/v1/version", ""), "405", "method_not_allowed"),
            (delete("/v1/grants/red/web1?owned=true&activated=7"), "400", "for an NVE to say"),
            (delete("/v1/grants/red/web1?activated=0"), "400", "from 1 on"),
            (delete("/v1/grants/red/web1?owned=true"), "400", "for an NVE to say"),
        ];
        for (request, status, word) in cases {
            let (line, body) = raw(&f, &request).await;
            assert!(line.contains(status) && body.contains(word), "{request:.100}\n{line}\n{body}");
            let parsed: weft_api::ErrorBody = serde_json::from_str(&body).unwrap();
            assert!(!parsed.message.contains('\n'));
        }
        // Not HTTP, not TLS: dropped, and the next one is served.
        let mut tcp = TcpStream::connect("127.0.0.1:4343").await.unwrap();
        tcp.write_all(&[0xff; 4096]).await.unwrap();
        drop(tcp);
        let (line, _) = raw(&f, "\0\0\0\r\n\r\n").await;
        assert!(line.contains("400"));
        f.operator.vns().await.unwrap();
    });
}

#[test]
fn metrics_and_health() {
    in_namespace(async || {
        let f = Fabric::start().await;
        let get = async |path: &str| {
            let mut tcp = TcpStream::connect(f.metrics).await.unwrap();
            let request = format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
            tcp.write_all(request.as_bytes()).await.unwrap();
            let mut answer = String::new();
            tcp.read_to_string(&mut answer).await.unwrap();
            answer
        };
        assert!(get("/healthz").await.starts_with("HTTP/1.1 200"));
        until("ready", async || get("/readyz").await.starts_with("HTTP/1.1 200").then_some(())).await;
        f.join(1).await;
        let metrics = get("/metrics").await;
        assert!(metrics.contains("weft_oracle_nves 1\n"), "{metrics}");
        assert!(metrics.contains("weft_oracle_requests_total 0\n"), "{metrics}");
        assert!(metrics.contains(r#"weft_oracle_registrations_refused_total{reason="not-granted"} 0"#));
    });
}

/// What an attach pays at the Oracle. Run alone and in release for numbers:
/// `cargo test -p weft-oracle --release --test oracle -- --ignored --nocapture latency`.
#[test]
#[ignore = "a measurement, not a test"]
#[allow(clippy::disallowed_methods, reason = "measures time")]
fn latency_of_a_grant() {
    in_namespace(async || {
        let f = Fabric::start().await;
        f.vn("red", &["10.0.0.0/16", "fd00::/64"]).await;
        let nve = f.join(1).await;
        let quantiles = |mut all: Vec<Duration>| {
            all.sort();
            (all[all.len() / 2], all[all.len() * 99 / 100])
        };
        let mut took = Vec::new();
        let mut plain = Vec::new();
        for n in 0..1200 {
            let start = std::time::Instant::now();
            nve.grant("red", &format!("t{n}")).await.unwrap();
            if n >= 200 {
                took.push(start.elapsed());
            }
            let start = std::time::Instant::now();
            nve.client.version().await.unwrap();
            if n >= 200 {
                plain.push(start.elapsed());
            }
        }
        let mut fsync = Vec::new();
        let path = f.data().join("probe");
        let mut file = std::fs::File::create(&path).unwrap();
        for _ in 0..500 {
            use std::io::Write;
            let start = std::time::Instant::now();
            file.write_all(&[1; 4096]).unwrap();
            file.sync_data().unwrap();
            fsync.push(start.elapsed());
        }
        let start = std::time::Instant::now();
        let clients: Vec<Client> = vec![nve.client.clone(); 16];
        let all = clients.iter().enumerate().map(|(c, client)| async move {
            for n in 0..250 {
                client.grant(&wish("red", &format!("c{c}-{n}"), &[])).await.unwrap();
            }
        });
        futures_util::future::join_all(all).await;
        let rate = 4000.0 / start.elapsed().as_secs_f64();
        println!(
            "grant p50, p99 {:?}; GET version {:?}; 4 KiB write + fdatasync {:?}; 16 at once {rate:.0}/s",
            quantiles(took),
            quantiles(plain),
            quantiles(fsync)
        );
    });
}
