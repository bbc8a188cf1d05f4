//! The answer, from one end to the other.

use super::super::{
    Bounds, Event,
    driver::{Came, Said},
    error::FetchError,
    fetch::Fetching,
    wire::Line,
};
use super::fabric::*;
use crate::agent::common::{host, in_namespace};
use crate::agent::driver::Input;
use crate::core::{Context, Delta, Fetch, Live, TransferId, ends};
use std::{sync::Arc, time::Duration};
use tokio::{io::AsyncReadExt, io::AsyncWriteExt, sync::mpsc, time::timeout};
use weft_api::{Client, Endpoint, TicketReply};
use weft_datapath::{Connection, ConnectionState, Levels, Toward};
use weft_model::{Epoch, XtrId};

const CEILING: Duration = Duration::from_secs(30);

fn flow(local: &str, remote: &str, port: u16) -> Connection {
    Connection {
        vni: tsi().vni,
        local: local.parse().unwrap(),
        remote: remote.parse().unwrap(),
        protocol: 6,
        local_port: 80,
        remote_port: port,
        opened: Toward::In,
        state: ConnectionState::EndedThere,
        rule: 0,
        idle: Duration::from_millis(1_234),
    }
}

pub(super) fn live() -> Live {
    Live {
        connections: vec![flow("10.0.0.1", "10.0.0.2", 1), flow("fd00::1", "fd00::2", 2)],
        groups: ["239.1.2.3", "ff15::1", "all"].iter().map(|group| group.parse().unwrap()).collect(),
        addresses: vec![
            "10.0.0.2".parse::<weft_model::TenantIp>().unwrap().into(),
            weft_model::MacAddr([2; 6]).into(),
        ],
        levels: Levels { send: Some(1_500), receive: None },
    }
}

pub(super) fn delta() -> Delta {
    let ended = vec![ends(&flow("10.0.0.1", "10.0.0.2", 1))];
    Delta { live: Live { connections: vec![flow("fd00::1", "fd00::2", 2)], ..live() }, ended }
}

#[test]
fn v2_lines_are_read_as_they_are_written() {
    let whole = Context { live: live(), ..context() };
    let Line::Context(read) = Line::read(&Line::context(whole.clone()).octets()).unwrap() else { panic!() };
    assert_eq!(read.read().unwrap(), whole);
    let Line::Delta(read) = Line::read(&Line::delta(delta()).octets()).unwrap() else { panic!() };
    assert_eq!(read.read(tsi().vni).unwrap(), delta());
    let text = String::from_utf8(Line::context(whole).octets()).unwrap();
    // More is ignored, another version and what makes no sense are not.
    assert!(Line::read(text.replace("\"revision\"", "\"new\":1,\"revision\"").as_bytes()).is_ok());
    // An agent before says nothing of rates; more than there can be is as much as there can.
    for (to, send) in [("\"send_lift\":1500", None), ("\"send_left\":18446744073709551615", Some(u32::MAX))] {
        assert!(text.contains("\"send_left\":1500"));
        let other = text.replace("\"send_left\":1500", to);
        let Line::Context(read) = Line::read(other.as_bytes()).unwrap() else { panic!() };
        assert_eq!(read.read().unwrap().live.levels, Levels { send, receive: None });
    }
    let newer = Line::read(br#"{"context":{"version":2,"all":"else"}}"#);
    assert!(matches!(newer, Err(FetchError::Version { theirs: 2, ours: 1 })));
    for bad in ["{}", "", "\"alife\"", "[1]", "{\"context\":{\"version\":1}}"] {
        assert!(matches!(Line::read(bad.as_bytes()), Err(FetchError::Malformed(_))), "{bad}");
    }
    for (from, to) in [("\"state\":4", "\"state\":7"), ("\"10.0.0.2\",6", "\"fd00::9\",6")] {
        assert!(text.contains(from));
        let Line::Context(read) = Line::read(text.replace(from, to).as_bytes()).unwrap() else { panic!() };
        assert!(matches!(read.read(), Err(FetchError::Malformed(_))), "{to}");
    }
}

/// A fetch by NVE 2 of NVE 1 at 192.0.2.1 in this namespace.
fn fetching(asked: &Asked, who: XtrId) -> (Arc<Fetching>, mpsc::Receiver<Input>) {
    let (inputs, queue) = mpsc::channel(8);
    let names = ("red".parse().unwrap(), "web1".parse().unwrap());
    let fetching = Fetching {
        fetch: Fetch { transfer: TransferId(1), vn: names.0, name: names.1, from: OLD },
        client: Arc::new(Client::new(&Endpoint::unix("/nowhere")).unwrap()),
        credentials: Arc::new(asked.fabric.nve(who)),
        rlocs: ["192.0.2.1".parse().unwrap()].into(),
        port: asked.at.port(),
        inputs,
    };
    (Arc::new(fetching), queue)
}

fn reply(asked: &Asked) -> TicketReply {
    let ticket = asked.fabric.sign(&ticket()).to_string();
    // The other family is passed over.
    let rlocs = ["2001:db8::1".parse().unwrap(), "192.0.2.1".parse().unwrap()].into();
    TicketReply { ticket, from: OLD, rlocs, epoch: Epoch::FIRST.next() }
}

async fn next(queue: &mut mpsc::Receiver<Input>) -> Came {
    match timeout(CEILING, queue.recv()).await.unwrap() {
        Some(Input::Handover(Event::Came(TransferId(1), came))) => came,
        _ => panic!("something else"),
    }
}

#[test]
fn v3_context_then_delta_then_the_end() {
    in_namespace(|| {
        host();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let bounds = Bounds { alive: Duration::from_millis(20), ..Bounds::default() };
            let mut asked = Asked::at(([192, 0, 2, 1], 0).into(), bounds, live()).await;
            let (fetching, mut queue) = fetching(&asked, NEW);
            let reply = reply(&asked);
            let reading = tokio::spawn(async move { fetching.converse(reply).await });
            let Came::Context(came, octets) = next(&mut queue).await else { panic!() };
            assert_eq!(*came, Context { live: live(), ..context() });
            assert!(octets > 500);
            let said = asked.said.recv().await.unwrap();
            // Words that somebody is there are none of it.
            tokio::time::sleep(Duration::from_millis(100)).await;
            said.send(Said::Stopping).await.ok().unwrap();
            assert!(matches!(next(&mut queue).await, Came::Stopping));
            said.send(Said::Delta(delta())).await.ok().unwrap();
            assert!(matches!(next(&mut queue).await, Came::Delta(came, _) if came == delta()));
            said.send(Said::End).await.ok().unwrap();
            timeout(CEILING, reading).await.unwrap().unwrap().unwrap();
            timeout(CEILING, asked.left.recv()).await.unwrap().unwrap();

            // One whose agent ends breaks off; one that is not listened to any more is told so.
            let (fetching, mut queue) = self::fetching(&asked, NEW);
            let ticket = self::reply(&asked);
            let reading = tokio::spawn(async move { fetching.converse(ticket).await });
            assert!(matches!(next(&mut queue).await, Came::Context(..)));
            drop(asked.said.recv().await.unwrap());
            let broken = timeout(CEILING, reading).await.unwrap().unwrap();
            assert!(matches!(broken, Err(FetchError::Broken(_))), "{broken:?}");
            timeout(CEILING, asked.left.recv()).await.unwrap().unwrap();
            let (fetching, mut queue) = self::fetching(&asked, NEW);
            let ticket = self::reply(&asked);
            let reading = tokio::spawn(async move { fetching.converse(ticket).await });
            assert!(matches!(next(&mut queue).await, Came::Context(..)));
            let _said = asked.said.recv().await.unwrap();
            reading.abort();
            timeout(CEILING, asked.left.recv()).await.unwrap().unwrap();

            // Refused, in the other's words; nobody there; another owner.
            let (fetching, _queue) = self::fetching(&asked, THIRD);
            let why = fetching.converse(self::reply(&asked)).await.unwrap_err().to_string();
            assert!(why.contains("refuses") && why.contains("shows it") && !why.contains('\n'), "{why}");
            let other = TicketReply { from: THIRD, ..self::reply(&asked) };
            assert!(matches!(fetching.converse(other).await, Err(FetchError::OtherOwner { .. })));
            let nowhere =
                TicketReply { rlocs: ["2001:db8::1".parse().unwrap()].into(), ..self::reply(&asked) };
            assert!(matches!(fetching.converse(nowhere).await, Err(FetchError::NoWay(OLD))));
        });
    });
}

#[tokio::test]
async fn v2_who_does_not_take_its_answer_is_left() {
    let bounds =
        Bounds { line: Duration::from_millis(100), alive: Duration::from_millis(10), ..Bounds::default() };
    // More than the kernel takes for it.
    let connections = (0..60_000).map(|n| flow("10.0.0.1", "10.0.0.2", n)).collect();
    let mut asked = Asked::new(bounds, Live { connections, ..Live::default() }).await;
    let question = question(&asked.fabric.sign(&ticket()));
    let mut stream = asked.connect(&asked.fabric.nve(NEW), OLD).await.unwrap();
    let head = format!("POST /v1/context HTTP/1.1\r\nhost: a\r\ncontent-length: {}\r\n\r\n", question.len());
    stream.write_all(head.as_bytes()).await.unwrap();
    stream.write_all(&question).await.unwrap();
    let said = asked.said.recv().await.unwrap();
    timeout(CEILING, asked.left.recv()).await.unwrap().unwrap();
    timeout(CEILING, said.closed()).await.unwrap();
    // Its connection is cut, too.
    let mut rest = Vec::new();
    let _ = timeout(CEILING, stream.read_to_end(&mut rest)).await.unwrap();
    assert!(!rest.ends_with(b"0\r\n\r\n"), "in the middle");
}
