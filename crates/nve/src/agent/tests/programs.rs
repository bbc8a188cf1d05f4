//! Programs that come before what they are for, however long they take.

use super::{attached, away, driver, on_a_host, programs};
use crate::agent::common::ip;
use crate::agent::driver::{Driver, Input, LocalCall};
use crate::core::{Attach, CallId, Granted, Refused};
use std::{collections::BTreeSet, path::PathBuf, sync::Arc, time::Duration};
use tokio::sync::{Semaphore, mpsc, oneshot};
use weft_datapath::{IfIndex, Location};
use weft_model::{Grant, TenantIp, VnSpec};

/// A driver that attaches nothing before its gate is opened, and a TAP.
async fn gated(dir: PathBuf, pins: PathBuf) -> (Driver, mpsc::Receiver<Input>, Arc<Semaphore>, IfIndex) {
    let (mut driver, queue) = driver(&dir, &pins, Duration::from_secs(60));
    let gate = Arc::new(Semaphore::new(0));
    driver.plane.gate = gate.clone();
    ip("tuntap add tap1 mode tap");
    ip("link set tap1 up");
    let device = driver.links.by_name("tap1").await.unwrap().index;
    (driver, queue, gate, device)
}

fn granted() -> Granted {
    let ips = ["10.0.0.7", "fd00::7"].iter().map(|ip| ip.parse::<TenantIp>().unwrap()).collect();
    let vn: VnSpec = serde_json::from_str(r#"{"name":"red","vni":7}"#).unwrap();
    Granted { grant: Grant { ips, ..away().grant }, vn, revision: 9, created: true }
}

impl Driver {
    /// Asks for web at tap1; no Oracle will answer.
    async fn ask_for_web(&mut self) -> oneshot::Receiver<Result<crate::core::Attached, Refused>> {
        let device = self.links.by_name("tap1").await.unwrap().device().unwrap();
        let (answer, answered) = oneshot::channel();
        let attach = Attach {
            vn: away().vn,
            name: away().grant.tsi.name,
            device,
            mac: None,
            ips: BTreeSet::new(),
            groups: BTreeSet::new(),
            state: crate::core::TsiState::Activated,
            lease: None,
            explicit: false,
        };
        self.input(Input::Local(LocalCall::Attach(attach, answer)));
        self.outputs();
        answered
    }

    /// Whether frames are delivered to web in the kernel.
    fn delivers(&self, device: IfIndex) -> bool {
        let tables = self.plane.observed().unwrap();
        let at = (away().grant.tsi.vni, away().grant.mac.get());
        tables.fdb.get(&at) == Some(&Location::Local(device)) || tables.neighbours.len() == 2
    }
}

#[test]
fn nothing_is_delivered_or_registered_before_the_program_runs() {
    on_a_host(async |dir, pins| {
        let (mut driver, mut queue, gate, device) = gated(dir, pins.clone()).await;
        let mut answered = driver.ask_for_web().await;
        driver.input(Input::Granted(CallId(1), Ok(granted())));
        driver.outputs();
        assert!(!driver.delivers(device) && programs(&pins) == 0);
        assert!(driver.core.attachments().is_empty(), "so that no Oracle is told");
        gate.add_permits(1);
        let done = attached(&mut queue).await;
        assert_eq!(programs(&pins), 1);
        driver.input(done);
        driver.outputs();
        assert!(driver.delivers(device));
        assert_eq!(driver.plane.observed().unwrap().vaps.len(), 1);
        assert!(answered.try_recv().unwrap().is_ok());
    });
}

/// The kernel says that the program is attached only when nobody can be without it: that is not waited for.
#[test]
fn a_grant_waits_for_the_program_and_not_for_the_kernel() {
    on_a_host(async |dir, pins| {
        let (mut driver, mut queue, gate, device) = gated(dir, pins.clone()).await;
        let mut answered = driver.ask_for_web().await;
        gate.add_permits(1);
        let done = attached(&mut queue).await;
        // It runs by now, and the driver has not heard.
        driver.input(Input::Granted(CallId(1), Ok(granted())));
        driver.outputs();
        assert!(driver.delivers(device));
        assert!(answered.try_recv().is_err(), "it is not answered before it is pinned");
        driver.input(done);
        driver.outputs();
        assert!(answered.try_recv().unwrap().is_ok());
    });
}

#[test]
fn a_device_whose_grant_is_refused_is_let_go_of() {
    for late in [false, true] {
        on_a_host(async move |dir, pins| {
            let (mut driver, mut queue, gate, _) = gated(dir, pins.clone()).await;
            let mut answered = driver.ask_for_web().await;
            let (code, message) = ("not_found".to_owned(), "no VN red".to_owned());
            let refused = Input::Granted(CallId(1), Err(Refused::Oracle { code, message }));
            if late {
                driver.input(refused);
                driver.outputs();
                gate.add_permits(1);
                let done = attached(&mut queue).await;
                driver.input(done);
            } else {
                gate.add_permits(1);
                let done = attached(&mut queue).await;
                driver.input(done);
                assert_eq!(programs(&pins), 1, "it may still be granted");
                driver.input(refused);
            }
            driver.outputs();
            assert!(answered.try_recv().unwrap().is_err());
            assert_eq!(programs(&pins), 0);
        });
    }
}

#[test]
fn a_device_that_comes_back_has_its_program_first() {
    on_a_host(async |dir, pins| {
        let (mut driver, mut queue, gate, device) = gated(dir, pins.clone()).await;
        driver.core.restore(driver.clock.now(), vec![away()], &[]);
        let there = driver.links.by_name("tap1").await.unwrap().device().unwrap();
        driver.input(Input::Device(there.clone()));
        driver.input(Input::Device(there));
        driver.outputs();
        assert!(!driver.delivers(device));
        gate.add_permits(1);
        let done = attached(&mut queue).await;
        driver.input(done);
        driver.outputs();
        assert!(driver.delivers(device) && programs(&pins) == 1);
    });
}

/// A grant that waits for a program at a device that goes away is taken back.
#[test]
fn a_device_that_goes_away_meanwhile_is_no_ones() {
    on_a_host(async |dir, pins| {
        let (mut driver, mut queue, gate, device) = gated(dir, pins.clone()).await;
        let mut answered = driver.ask_for_web().await;
        driver.input(Input::Granted(CallId(1), Ok(granted())));
        driver.outputs();
        ip("link del tap1");
        driver.input(Input::DeviceGone(device));
        driver.outputs();
        gate.add_permits(1);
        let done = attached(&mut queue).await;
        driver.input(done);
        driver.outputs();
        let refused = answered.try_recv().unwrap().unwrap_err();
        assert!(matches!(refused, Refused::Datapath { .. }), "{refused}");
        assert!(!driver.delivers(device) && programs(&pins) == 0);
    });
}
