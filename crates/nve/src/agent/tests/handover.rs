//! Connections in the kernel's table as tenant systems come and go with them (requirements V2, V3).

use super::{attached, away, driver, on_a_host};
use crate::agent::driver::{Driver, Input};
use crate::agent::handover::{Came, Event, Said};
use crate::core::{CallId, Claim, Context, Delta, Granted, Live, Output, TransferId, TsiState, ends};
use std::{collections::BTreeSet, time::Duration};
use tokio::sync::{mpsc, oneshot};
use weft_datapath::{Connection, ConnectionState, Levels, Toward};
use weft_model::{Grant, Successor, TenantIp, VnSpec, XtrId};

const OTHER: XtrId = XtrId([2; 16]);

fn ips() -> BTreeSet<TenantIp> {
    ["10.0.0.7", "fd00::7"].iter().map(|ip| ip.parse().unwrap()).collect()
}

fn vn() -> VnSpec {
    serde_json::from_str(r#"{"name":"red","vni":7,"subnets":["10.0.0.0/24","fd00::/64"]}"#).unwrap()
}

/// Web moves: it is the first's, and the second's next.
fn moving(owner: XtrId, to: XtrId) -> Grant {
    let here = away().grant;
    let next = Some(Successor { nve: to, epoch: here.epoch.next() });
    let tunnel = serde_json::from_str(r#"{"send_rate":"1kbit","send_burst":1000}"#).unwrap();
    Grant { ips: ips(), owner, next, tunnel, ..here }
}

fn flow(local: &str, remote: &str, port: u16) -> Connection {
    Connection {
        vni: away().grant.tsi.vni,
        local: local.parse().unwrap(),
        remote: remote.parse().unwrap(),
        protocol: 6,
        local_port: 80,
        remote_port: port,
        opened: Toward::In,
        state: ConnectionState::Established,
        rule: 0,
        idle: Duration::ZERO,
    }
}

/// Of web, in each family; and one of somebody else.
fn flows() -> [Connection; 3] {
    [flow("10.0.0.7", "10.0.0.2", 1), flow("fd00::7", "fd00::2", 2), flow("10.0.0.9", "10.0.0.2", 3)]
}

impl Driver {
    async fn has_web(&mut self, grant: Grant, state: TsiState) {
        let device = self.links.by_name("tap1").await.unwrap().device().unwrap();
        let attach = super::wanted(grant.tsi.name.as_str(), device, state);
        self.core.handle_attach(self.clock.now(), CallId(1), attach);
        self.outputs();
        let granted = Granted { grant, vn: self::vn(), revision: 9, created: false };
        self.input(Input::Granted(CallId(1), Ok(granted)));
    }

    fn connections(&self, of: &BTreeSet<TenantIp>) -> Vec<Connection> {
        self.plane.connection_reader(away().grant.tsi.vni, of).unwrap().read().unwrap()
    }

    /// Takes in what others do until connections have been read.
    async fn reads(&mut self, queue: &mut mpsc::Receiver<Input>) {
        loop {
            let next = tokio::time::timeout(Duration::from_secs(30), queue.recv());
            let input = next.await.expect("no connections were read").unwrap();
            let read = matches!(input, Input::Handover(Event::Read(..)));
            self.input(input);
            if read {
                return;
            }
        }
    }

    /// At 125 octets a second.
    fn has_left(&self, least: u32) -> bool {
        let mut vaps = self.core.tables().vaps.keys();
        let left = self.plane.levels(*vaps.next().unwrap()).unwrap().send;
        left.is_some_and(|left| (least..1_000).contains(&left))
    }

    fn tracked(&self) -> Vec<(String, u16)> {
        let all = self.connections(&ips());
        all.iter().map(|c| (c.local.to_string(), c.remote_port)).collect()
    }
}

fn tap1() {
    crate::agent::common::ip("tuntap add tap1 mode tap");
    crate::agent::common::ip("link set tap1 up");
}

#[test]
fn v3_who_moves_away_takes_its_connections_along() {
    on_a_host(async |dir, pins| {
        let (mut driver, mut queue) = driver(&dir, &pins, Duration::from_secs(60));
        tap1();
        driver.has_web(moving(super::ME, OTHER), TsiState::Activated).await;
        driver.outputs();
        let program = attached(&mut queue).await;
        driver.input(program);
        driver.outputs();
        driver.plane.set_connections(&flows()).unwrap();
        let device = *driver.core.tables().vaps.keys().next().unwrap();
        let sent = |driver: &mut Driver, left| {
            let left = Levels { send: Some(left), receive: None };
            driver.plane.lower(device, left, Duration::ZERO).unwrap();
        };
        sent(&mut driver, 400);
        let claim = Claim { tsi: away().grant.tsi, to: OTHER, epoch: away().grant.epoch.next() };
        let (answer, mut answered) = oneshot::channel();
        driver.input(Input::Handover(Event::Asked(claim, answer)));
        // However many there are of others, they are looked through beside the driver.
        assert!(answered.try_recv().is_err());
        driver.reads(&mut queue).await;
        let (_, context, mut said) = answered.await.unwrap().unwrap();
        let ports: BTreeSet<u16> = context.live.connections.iter().map(|c| c.remote_port).collect();
        assert_eq!((ports, context.activated), (BTreeSet::from([1, 2]), true));
        let left = |live: &Live| live.levels.send.unwrap();
        assert!((400..1_000).contains(&left(&context.live)), "{:?}", context.live.levels);
        sent(&mut driver, 0);
        // One more, and then it stops.
        driver.plane.set_connections(&[flow("10.0.0.7", "10.0.0.3", 4)]).unwrap();
        let name = away().grant.tsi.name;
        driver.core.handle_deactivate(CallId(2), away().vn, name);
        driver.outputs();
        assert!(matches!(said.recv().await, Some(Said::Stopping)));
        driver.reads(&mut queue).await;
        let Some(Said::Delta(Delta { live, ended })) = said.recv().await else { panic!("no delta") };
        assert_eq!(live.connections.iter().map(|c| c.remote_port).collect::<Vec<_>>(), [4], "what is new");
        assert!(ended.is_empty());
        assert!(left(&live) < 400, "{:?}", live.levels);
        assert_eq!(driver.tracked().len(), 3, "until it is there");
        driver.core.handle_fact(crate::core::Fact::Grants(12, vec![]));
        driver.outputs();
        assert_eq!(driver.tracked(), [], "at once");
        assert!(matches!(said.recv().await, Some(Said::Stopping)));
        driver.reads(&mut queue).await;
        let Some(Said::Delta(Delta { live, ended })) = said.recv().await else { panic!("no delta") };
        assert!(live.connections.is_empty() && ended.is_empty(), "they were its own still when it ended");
        assert!(matches!(said.recv().await, Some(Said::End)));
        let others = driver.connections(&["10.0.0.9".parse().unwrap()].into());
        assert_eq!(others.len(), 1, "another's stay");
    });
}

#[test]
fn v2_who_moves_here_brings_its_connections_along() {
    on_a_host(async |dir, pins| {
        let (mut driver, mut queue) = driver(&dir, &pins, Duration::from_secs(60));
        tap1();
        // Left here by an earlier stay.
        driver.plane.set_connections(&[flow("10.0.0.7", "10.0.0.2", 9)]).unwrap();
        driver.has_web(moving(OTHER, super::ME), TsiState::Associated).await;
        driver.outputs();
        let levels = Levels { send: Some(300), receive: None };
        let live = Live { connections: flows().to_vec(), levels, ..Live::default() };
        let (grant, epoch) = (moving(OTHER, super::ME), away().grant.epoch);
        let context = Context { revision: 9, grant, epoch, vn: vn(), activated: true, live };
        let first = TransferId(0);
        driver
            .input(Input::Handover(Event::Came(TransferId(7), Came::Context(Box::new(context.clone()), 1))));
        driver.outputs();
        assert_eq!(driver.tracked().len(), 1, "nobody asked for that");
        driver.input(Input::Handover(Event::Came(first, Came::Context(Box::new(context), 1))));
        driver.outputs();
        let two = [("10.0.0.7".to_owned(), 1), ("fd00::7".to_owned(), 2)];
        assert_eq!(driver.tracked(), two, "that of the other is not taken, nor is the old one left");
        let live = Live { connections: vec![flow("10.0.0.7", "10.0.0.3", 4)], ..Live::default() };
        let delta = Delta { live, ended: vec![ends(&flows()[1])] };
        driver.input(Input::Handover(Event::Came(first, Came::Delta(delta, 1))));
        driver.outputs();
        assert_eq!(driver.tracked(), [("10.0.0.7".to_owned(), 1), ("10.0.0.7".to_owned(), 4)]);
        let program = attached(&mut queue).await;
        driver.input(program);
        driver.outputs();
        assert!(!driver.has_left(0), "it is not in service");
        let here = moving(super::ME, OTHER);
        let here = Grant { epoch: here.epoch.next(), next: None, ..here };
        driver.core.handle_fact(crate::core::Fact::Grants(11, vec![here]));
        let name = away().grant.tsi.name;
        driver.core.handle_activate(driver.clock.now(), CallId(3), (away().vn, name), None);
        driver.outputs();
        assert!(driver.has_left(300));
        // It does not come after all.
        driver.core.handle_fact(crate::core::Fact::Grants(12, vec![]));
        assert!(driver.core.poll_output().is_some_and(|o| !matches!(o, Output::Connections(_))));
        driver.outputs();
        assert_eq!(driver.tracked(), []);
    });
}
