//! Traces that are announced: for an Oracle's word only, once, and what was seen comes back.

use super::super::{Bounds, error::Refusal, trace::TraceQuestion};
use super::{fabric::*, refused::refusal};
use crate::agent::{
    clock,
    trace::{Event, Seen},
};
use crate::core::Live;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    sync::{mpsc, oneshot},
};
use weft_api::{SignedTicket, Ticket, TraceResult, TraceTicket};
use weft_datapath::TraceId;

const PATH: &str = "/v1/trace";

fn trace_ticket() -> TraceTicket {
    let id = [getrandom::u64().unwrap(), 1];
    let expires_at = clock::date() + Ticket::TTL_S;
    TraceTicket { tsi: tsi(), asks: NEW, told: OLD, trace: 0x1_0203, expires_at, id }
}

fn question(ticket: &SignedTicket) -> Vec<u8> {
    let (ticket, from) = (ticket.to_string(), "192.0.2.2".parse().unwrap());
    let next = Some("192.0.2.9".parse().unwrap());
    serde_json::to_vec(&TraceQuestion { version: 1, ticket, from, by: None, next, deliver: true }).unwrap()
}

#[tokio::test]
async fn what_was_seen_comes_back() {
    let mut asked = Asked::new(Bounds::default(), Live::default()).await;
    let mut traces = std::mem::replace(&mut asked.traces, mpsc::unbounded_channel().1);
    let (new, ticket) = (asked.fabric.nve(NEW), asked.fabric.sign_trace(&trace_ticket()));
    let answered = async {
        let Some(Event::Expect(expected, answer)) = traces.recv().await else { panic!("not asked") };
        assert_eq!((expected.id, expected.nve), (TraceId::new(0x1_0203).unwrap(), NEW));
        let said = (&expected.tsi, expected.from.to_string(), expected.deliver);
        assert_eq!(said, (&tsi(), "192.0.2.2".to_owned(), true));
        assert_eq!(expected.next.map(|next| next.to_string()).as_deref(), Some("192.0.2.9"));
        let (seen, wait) = oneshot::channel();
        assert!(answer.send(Ok(wait)).is_ok());
        let (result, reason) = (TraceResult::Dropped, Some("denied".to_owned()));
        let stopped_before = Some("192.0.2.8".parse().unwrap());
        seen.send(Seen { steps: Vec::new(), result, reason, left: true, stopped_before }).unwrap();
    };
    let question = question(&ticket);
    let (answer, ()) = tokio::join!(asked.post_to(PATH, &new, &question), answered);
    assert!(answer.starts_with("HTTP/1.1 200 OK"), "{answer}");
    let (ready, seen) = (answer.find("\"ready\"").unwrap(), answer.find("{\"seen\":").unwrap());
    assert!(ready < seen && answer.contains("denied") && answer.contains("192.0.2.8"), "{answer}");
    assert!(!answer.contains("left"), "what is this NVE's own business is not said");
    let (status, text) = refusal(&asked.post_to(PATH, &new, &question).await);
    assert!(status == 403 && text.contains("used already"), "{text}");
}

/// What an NVE of an earlier version asks, and one that says by whom the packet comes.
#[test]
fn what_is_not_said_is_who_asks() {
    let plain = r#"{"version":1,"ticket":"t","from":"192.0.2.2","deliver":false}"#;
    let question = TraceQuestion::read(plain.as_bytes()).unwrap();
    assert_eq!((question.by, question.next), (None, None));
    assert_eq!(
        serde_json::to_string(&question).unwrap(),
        plain,
        "nor does one that is old get more than it knows"
    );
    let by = TraceQuestion { by: Some(THIRD), ..question };
    let read = TraceQuestion::read(&serde_json::to_vec(&by).unwrap()).unwrap();
    assert_eq!(read.by, Some(THIRD));
}

#[tokio::test]
async fn who_hangs_up_has_it_ended() {
    let mut asked = Asked::new(Bounds::default(), Live::default()).await;
    let mut traces = std::mem::replace(&mut asked.traces, mpsc::unbounded_channel().1);
    let (new, ticket) = (asked.fabric.nve(NEW), asked.fabric.sign_trace(&trace_ticket()));
    let mut stream = asked.connect(&new, OLD).await.unwrap();
    let body = question(&ticket);
    let head = format!("POST {PATH} HTTP/1.1\r\nhost: a\r\ncontent-length: {}\r\n\r\n", body.len());
    stream.write_all(&[head.as_bytes(), &body].concat()).await.unwrap();
    let Some(Event::Expect(expected, answer)) = traces.recv().await else { panic!("not asked") };
    let (_seen, wait) = oneshot::channel();
    assert!(answer.send(Ok(wait)).is_ok());
    let mut begin = [0; 15];
    stream.read_exact(&mut begin).await.unwrap();
    assert_eq!(&begin, b"HTTP/1.1 200 OK");
    drop(stream);
    assert!(matches!(traces.recv().await, Some(Event::End(id)) if id == expected.id));
}

#[tokio::test]
async fn what_is_no_oracles_word_for_it() {
    let mut asked = Asked::new(Bounds::default(), Live::default()).await;
    let mut traces = std::mem::replace(&mut asked.traces, mpsc::unbounded_channel().1);
    let (fabric, new) = (&asked.fabric, asked.fabric.nve(NEW));
    let sign = |change: &dyn Fn(&mut TraceTicket)| {
        let mut changed = trace_ticket();
        change(&mut changed);
        fabric.sign_trace(&changed)
    };
    let (good, for_a_move) = (fabric.sign_trace(&trace_ticket()), fabric.sign(&ticket()));
    let cases = [
        // Whoever signed it, one for a move is not one for a trace.
        (for_a_move.clone(), 403, "signature is not its Oracle's"),
        (SignedTicket { payload: good.payload.clone(), ..for_a_move }, 403, "signature is not its Oracle's"),
        (sign(&|t| t.told = THIRD), 403, "the ticket is for NVE"),
        (sign(&|t| t.asks = THIRD), 403, "shows it"),
        (sign(&|t| t.expires_at = 5), 403, "expired"),
        (sign(&|t| t.trace = 0), 400, "0 is no trace's id"),
        (sign(&|t| t.trace = 1 << 24), 400, "16777216 is no trace's id"),
    ];
    for (ticket, status, why) in cases {
        let (got, text) = refusal(&asked.post_to(PATH, &new, &question(&ticket)).await);
        assert!(got == status && text.contains(why), "{got} {text}");
    }
    let (status, text) = refusal(&asked.ask(&new, &good).await);
    assert!(status == 403 && text.contains("signature"), "nor is that one for a move: {text}");
    for (body, why) in [(&b"{"[..], "not what is expected"), (br#"{"version":2}"#, "traces of version 1")] {
        let (status, text) = refusal(&asked.post_to(PATH, &new, body).await);
        assert!(status == 400 && text.contains(why), "{text}");
    }
    assert!(traces.try_recv().is_err(), "the driver heard of none");
    let refuse = async {
        let Some(Event::Expect(expected, answer)) = traces.recv().await else { panic!("not asked") };
        let refused = Refusal::OtherRloc { rloc: expected.from, nve: expected.nve };
        assert!(answer.send(Err(refused)).is_ok());
    };
    let question = question(&good);
    let (answer, ()) = tokio::join!(asked.post_to(PATH, &new, &question), refuse);
    let (status, text) = refusal(&answer);
    assert!(status == 403 && text.contains("192.0.2.2"), "{text}");
}
