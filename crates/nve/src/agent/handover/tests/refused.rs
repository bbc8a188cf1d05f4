//! Bad input: refused in one line, and nobody's driver hears of it.

use super::super::Bounds;
use super::super::wire::{QUESTION, Question};
use super::fabric::*;
use crate::agent::clock;
use crate::core::Live;
use rcgen::ExtendedKeyUsagePurpose::{ClientAuth, ServerAuth};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use weft_api::{ErrorBody, ORACLE_SERVER_NAME, SignedTicket, Ticket};
use weft_model::Epoch;

/// The status and the one line.
pub(super) fn refusal(answer: &str) -> (u16, String) {
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or_else(|| panic!("{answer}"));
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    let body: ErrorBody = serde_json::from_str(body).unwrap_or_else(|e| panic!("{e}: {answer}"));
    assert_eq!(body.error.status(), status);
    assert!(!body.message.is_empty() && !body.message.contains('\n'), "{}", body.message);
    (status, body.message)
}

#[tokio::test]
async fn v2_a_ticket_that_is_not_an_oracles_word_for_who_shows_it() {
    let mut asked = Asked::new(Bounds::default(), Live::default()).await;
    let fabric = &asked.fabric;
    let new = fabric.nve(NEW);
    let now = clock::date();
    // Signed by somebody else, or for something else.
    let good = fabric.sign(&ticket());
    let mut spoilt = good.clone();
    *spoilt.signature.last_mut().unwrap() ^= 1;
    let other = SignedTicket { payload: Ticket { to: THIRD, ..ticket() }.payload().unwrap(), ..good.clone() };
    let elsewhere = Fabric::new().sign(&ticket());
    let by = |uri, name, usage| fabric.sign_as(&ticket(), uri, name, usage);
    let by_nve = by("weft:nve/02020202020202020202020202020202", None, ClientAuth);
    let named = by("weft:operator/admin", Some(ORACLE_SERVER_NAME), ServerAuth);
    let nobody = SignedTicket { certificate: vec![0x30, 0], ..good.clone() };
    let empty = SignedTicket { payload: b"{}".to_vec(), ..good.clone() };
    let sign = |change: &dyn Fn(&mut Ticket)| {
        let mut changed = ticket();
        change(&mut changed);
        fabric.sign(&changed)
    };
    let cases = [
        (spoilt, 403, "signature is not its Oracle's"),
        (other, 403, "signature is not its Oracle's"),
        (empty, 403, "signature is not its Oracle's"),
        (elsewhere, 403, "nobody that this fabric's CA calls an Oracle"),
        (by_nve, 403, "nobody that this fabric's CA calls an Oracle"),
        (named, 403, "nobody that this fabric's CA calls an Oracle"),
        (nobody, 403, "nobody that this fabric's CA calls an Oracle"),
        (sign(&|t| t.expires_at = now - 60), 403, "expired 60 s ago"),
        (sign(&|t| t.expires_at = now + 3_600), 403, "good for 3600 s"),
        (sign(&|t| t.from = THIRD), 403, "the ticket is for NVE"),
        (sign(&|t| t.to = THIRD), 403, "shows it"),
    ];
    for (ticket, status, why) in cases {
        let (got, text) = refusal(&asked.ask(&new, &ticket).await);
        // The clock may have gone on by a second.
        let text = text.replace("expired 61 s", "expired 60 s").replace("3599 s", "3600 s");
        assert!(got == status && text.contains(why), "{got} {text}");
    }
    // Another NVE has it.
    let (status, text) = refusal(&asked.ask(&fabric.nve(THIRD), &good).await);
    assert!(status == 403 && text.contains("shows it"), "{text}");
    assert!(asked.claims.try_recv().is_err(), "the driver heard of none");
    // At an epoch that is past: the core says so.
    let (status, text) =
        refusal(&asked.ask(&new, &asked.fabric.sign(&Ticket { epoch: Epoch::FIRST, ..ticket() })).await);
    assert!(status == 409 && text.contains("epoch 1"), "{text}");
    assert_eq!(asked.claims.recv().await.unwrap().to, NEW);
}

#[tokio::test]
async fn v2_a_ticket_counts_once() {
    let mut asked = Asked::new(Bounds { tickets: 2, ..Bounds::default() }, Live::default()).await;
    let new = asked.fabric.nve(NEW);
    for left in [2, 1] {
        let ticket = asked.fabric.sign(&ticket());
        let first = tokio::spawn({
            let mut stream = asked.connect(&new, OLD).await.unwrap();
            let question = question(&ticket);
            async move {
                let head = format!(
                    "POST /v1/context HTTP/1.1\r\nhost: a\r\ncontent-length: {}\r\n\r\n",
                    question.len()
                );
                stream.write_all(head.as_bytes()).await.unwrap();
                stream.write_all(&question).await.unwrap();
                let mut answer = [0; 15];
                stream.read_exact(&mut answer).await.unwrap();
                assert_eq!(&answer, b"HTTP/1.1 200 OK", "{left}");
            }
        });
        first.await.unwrap();
        let (status, text) = refusal(&asked.ask(&new, &ticket).await);
        assert!(status == 403 && text.contains("used already"), "{text}");
    }
    let (status, text) = refusal(&asked.ask(&new, &asked.fabric.sign(&ticket())).await);
    assert!(status == 429 && text.starts_with("2 tickets"), "{text}");
    assert!(asked.claims.recv().await.is_some() && asked.claims.recv().await.is_some());
    assert!(asked.claims.try_recv().is_err());
}

#[tokio::test]
async fn v2_what_is_no_question() {
    let mut asked = Asked::new(Bounds::default(), Live::default()).await;
    let new = asked.fabric.nve(NEW);
    let newer = serde_json::to_vec(&Question { version: 2, ticket: String::new() }).unwrap();
    let text =
        |ticket: &str| serde_json::to_vec(&Question { version: 1, ticket: ticket.to_owned() }).unwrap();
    let cases = [
        (b"".to_vec(), 400, "the body is not what is expected here"),
        (b"{\n".to_vec(), 400, "the body is not what is expected here"),
        (br#"{"version":1,"ticket":"x","more":1}"#.to_vec(), 400, "unknown field"),
        (newer, 400, "version 1 over, 2 was asked for"),
        (br#"{"version":2,"other":[]}"#.to_vec(), 400, "version 1 over, 2 was asked for"),
        (text("hello"), 400, "begins with 'weft-ticket1.'"),
        (text("weft-ticket1.a.b"), 400, "2 parts"),
        (text(&"weft-ticket1.".repeat(1_000)), 400, "at most 8192 octets"),
        (vec![b' '; QUESTION + 1], 413, "longer than 16384"),
        (vec![b' '; 8 << 20], 413, "longer than 16384"),
    ];
    for (body, status, why) in cases {
        let (got, text) = refusal(&asked.post(&new, &body).await);
        assert!(got == status && text.contains(why), "{got} {text}");
    }
    for head in ["GET /v1/context", "POST /v1/other", "POST /"] {
        let mut stream = asked.connect(&new, OLD).await.unwrap();
        stream.write_all(format!("{head} HTTP/1.1\r\nhost: a\r\n\r\n").as_bytes()).await.unwrap();
        let mut answer = String::new();
        let _ = stream.read_to_string(&mut answer).await;
        assert_eq!(refusal(&answer).0, 404, "{head}");
    }
    assert!(asked.claims.try_recv().is_err());
}

#[tokio::test]
async fn v2_who_is_no_nve_is_not_listened_to() {
    let bounds = Bounds { strangers: 2, question: Duration::from_millis(300), ..Bounds::default() };
    let mut asked = Asked::new(bounds, Live::default()).await;
    let ticket = asked.fabric.sign(&ticket());
    // An operator; an NVE of another fabric.
    for shown in
        [asked.fabric.of("weft:operator/admin"), asked.fabric.of("weft:nve/1"), Fabric::new().nve(NEW)]
    {
        let Ok(mut stream) = asked.connect(&shown, OLD).await else { continue };
        let _ = stream.write_all(&question(&ticket)).await;
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer).await;
        assert_eq!(String::from_utf8_lossy(&answer), "");
    }
    // Nor does who asks talk to another than it means to.
    let refused = asked.connect(&asked.fabric.nve(NEW), THIRD).await.unwrap_err().to_string();
    assert!(refused.contains("not NVE 0303"), "{refused}");
    // Strangers who say nothing keep few places, and not for long.
    let mut silent = Vec::new();
    for _ in 0..4 {
        silent.push(TcpStream::connect(asked.at).await.unwrap());
    }
    for mut stream in silent {
        assert!(matches!(stream.read(&mut [0; 1]).await, Ok(0) | Err(_)), "closed");
    }
    // One NVE holds no more places than are its own.
    let bounds = Bounds { of_nve: 2, question: Duration::from_millis(300), ..Bounds::default() };
    let crowd = Asked::new(bounds, Live::default()).await;
    let mut open = Vec::new();
    for _ in 0..2 {
        open.push(crowd.connect(&crowd.fabric.nve(NEW), OLD).await.unwrap());
    }
    for (who, taken) in [(NEW, false), (THIRD, true)] {
        let mut stream = crowd.connect(&crowd.fabric.nve(who), OLD).await.unwrap();
        let _ = stream.write_all(b"GET /v1/context HTTP/1.1\r\nhost: a\r\n\r\n").await;
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer).await;
        assert_eq!(answer.starts_with(b"HTTP/1.1 404"), taken, "{}", String::from_utf8_lossy(&answer));
    }
    drop(open);
    // And one that shakes hands and asks nothing, or half of it.
    for half in [
        "",
        "POST /v1/context HTTP/1.1\r\n",
        "POST /v1/context HTTP/1.1\r\nhost: a\r\ncontent-length: 9\r\n\r\nx",
    ] {
        let mut stream = asked.connect(&asked.fabric.nve(NEW), OLD).await.unwrap();
        stream.write_all(half.as_bytes()).await.unwrap();
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer).await;
        assert!(!answer.starts_with(b"HTTP/1.1 200"), "{half}");
    }
    assert!(asked.claims.try_recv().is_err());
}
