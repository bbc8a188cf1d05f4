//! A packet that is traced, with a real data plane.

use super::{ME, attached, away, driver, on_a_host};
use crate::agent::{
    common::ip,
    driver::{Driver, Input},
    handover::Refusal,
    trace::{Event, Expected},
};
use std::time::Duration;
use tokio::sync::{mpsc, oneshot};
use weft_api::{TraceRequest, TraceResult, TraceView};
use weft_datapath::TraceId;
use weft_model::XtrId;

fn request(text: &str) -> TraceRequest {
    serde_json::from_str(text).unwrap()
}

/// Web at tap1, Activated, with addresses.
async fn with_web(mut driver: Driver, queue: &mut mpsc::Receiver<Input>) -> Driver {
    ip("tuntap add tap1 mode tap");
    ip("link set tap1 up");
    let device = driver.links.by_name("tap1").await.unwrap().device().unwrap();
    let mut web = away();
    web.grant.ips = ["10.0.0.7", "fd00::7"].iter().map(|ip| ip.parse().unwrap()).collect();
    let vn = r#"{"name":"red","vni":7,"subnets":["10.0.0.0/24","fd00::/64"]}"#;
    driver.core.handle_fact(crate::core::Fact::Vn(serde_json::from_str(vn).unwrap()));
    driver.core.restore(driver.clock.now(), vec![web], &[device]);
    driver.outputs();
    let program = attached(queue).await;
    driver.input(program);
    driver.outputs();
    driver
}

/// Runs a driver while something is asked of it.
async fn asked(
    driver: Driver,
    queue: mpsc::Receiver<Input>,
    requests: &[&str],
) -> Vec<Result<TraceView, String>> {
    let inputs = driver.inputs.clone();
    let mut answers = Vec::new();
    let asks = async {
        for text in requests {
            let answer = crate::agent::trace::run(&inputs, request(text)).await;
            answers.push(answer.map_err(|refusal| weft_api::ErrorBody::from(refusal).message));
        }
    };
    driver.drive(queue, asks).await.unwrap();
    answers
}

fn steps(view: &TraceView) -> Vec<&str> {
    view.steps.iter().map(|step| step.step.as_str()).collect()
}

#[test]
fn what_one_nve_tells_of_it() {
    on_a_host(async |dir, pins| {
        let (driver, mut queue) = driver(&dir, &pins, Duration::from_secs(60));
        let driver = with_web(driver, &mut queue).await;
        let to = r#""vn":"red","from":"web","to":"10.0.0.9""#;
        let lines = [
            format!("{{{to},\"to_mac\":\"02:00:00:00:00:09\"}}"),
            format!("{{{to},\"to_mac\":\"02:00:00:00:00:09\",\"source_mac\":\"02:00:00:00:00:08\"}}"),
            format!("{{{to},\"to_mac\":\"ff:ff:ff:ff:ff:ff\"}}"),
            format!("{{{to},\"size\":9}}"),
            r#"{"vn":"red","from":"db","to":"10.0.0.9"}"#.to_owned(),
            r#"{"vn":"red","from":"web","to":"fd00::7"}"#.to_owned(),
        ];
        let lines: Vec<&str> = lines.iter().map(String::as_str).collect();
        let answers = asked(driver, queue, &lines).await;
        let view = |n: usize| answers[n].as_ref().unwrap();
        assert_eq!((view(0).result, view(0).reason.as_deref()), (TraceResult::Dropped, Some("unknown-mac")));
        assert_eq!(view(0).nve.as_ref().map(ToString::to_string), Some("h1".to_owned()));
        let all = ["frame", "address", "vap", "spoof-check", "policy", "agent", "drop"];
        assert_eq!(steps(view(0)), all, "{:?}", view(0));
        assert_eq!(view(1).reason.as_deref(), Some("spoofed-mac"), "{:?}", view(1));
        for (n, why) in [(2, "group's"), (3, "9 is not between"), (4, "not attached here"), (5, "itself")] {
            let refused = answers[n].as_ref().unwrap_err();
            assert!(refused.contains(why) && !refused.contains('\n'), "{refused}");
        }
    });
}

/// What is to come from elsewhere: from an address of who asked, and so many at a time.
#[test]
fn what_is_to_come_is_bounded() {
    on_a_host(async |dir, pins| {
        let (mut driver, _queue) = driver(&dir, &pins, Duration::from_secs(60));
        let (other, rloc) = (XtrId([9; 16]), "192.0.2.9".parse().unwrap());
        driver.core.handle_fact(crate::core::Fact::Nve(other, [rloc].into()));
        driver.core.handle_fact(crate::core::Fact::NveName(other, "h9".parse().unwrap()));
        let expect = |driver: &mut Driver, n: u32, nve| {
            let id = TraceId::new(n).unwrap();
            let expected =
                Expected { tsi: away().grant.tsi, id, nve, from: rloc, next: None, deliver: false };
            let (answer, mut answered) = oneshot::channel();
            driver.input(Input::Trace(Event::Expect(expected, answer)));
            answered.try_recv().unwrap()
        };
        assert!(
            matches!(expect(&mut driver, 1, ME), Err(Refusal::OtherRloc { .. })),
            "it is another's address"
        );
        let mut waiting: Vec<_> = (1..=16).map(|n| expect(&mut driver, n, other).unwrap()).collect();
        assert!(matches!(expect(&mut driver, 17, other), Err(Refusal::Traces(16))));
        // One that has ended, and one that nobody waits for, give their places up.
        driver.input(Input::Trace(Event::End(TraceId::new(1).unwrap())));
        let seen = waiting.remove(0).try_recv().unwrap();
        assert_eq!((seen.steps, seen.result), (Vec::new(), TraceResult::Unknown));
        waiting.pop();
        let again: Vec<_> = (21..=22).map(|n| expect(&mut driver, n, other)).collect();
        assert!(again.iter().all(Result::is_ok));
        assert!(matches!(expect(&mut driver, 2, other), Err(Refusal::Traces(_))), "the same once more");
    });
}
