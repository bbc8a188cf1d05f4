//! The local API as its client sees it: requests with ids, leases, and who follows.

use super::super::{
    devices::Links,
    events::Followers,
    local::{Local, listen, router, serve},
    requests::Requests,
    state::{self, Saved},
};
use super::*;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use weft_api::{ClientError, Code, LocalClient, local as api};

/// The driver's API, and a client of it.
fn served(driver: &Driver, links: Links, dir: &Path) -> LocalClient {
    let local = Local {
        inputs: driver.inputs.clone(),
        links,
        reserved: vec!["weft0".to_owned()],
        pin_dir: dir.to_owned(),
        followers: Followers::new(driver.events.latest()),
    };
    let socket = dir.join("nve.sock");
    let listener = listen(&socket).unwrap();
    tokio::spawn(serve(listener, router(local)));
    LocalClient::new(&socket).unwrap()
}

fn refused<T: std::fmt::Debug>(answer: Result<T, ClientError>) -> (Code, String) {
    match answer {
        Err(ClientError::Api(error)) => {
            assert!(!error.message.contains('\n'), "{}", error.message);
            (error.code, error.message)
        }
        other => panic!("not refused: {other:?}"),
    }
}

fn change(state: api::State, id: Option<&str>) -> api::ChangeState {
    api::ChangeState { state, lease_s: None, request_id: id.map(|id| api::RequestId::new(id).unwrap()) }
}

#[test]
fn h8_a_request_with_an_id_is_carried_out_once_also_after_a_restart() {
    on_a_host(async |dir, pins| {
        let (vn, web) = (away().vn, away().grant.tsi.name);
        let (driver, queue) = driver(&dir, &pins, Duration::from_secs(60));
        let driver = driver.with_tap1().await;
        let client = served(&driver, driver.links.clone(), &dir);
        let state = async |state, id| client.change_state(&vn, &web, &change(state, id)).await;
        let now = async || client.tsis().await.unwrap().items[0].state;
        let asked = async {
            let first = state(api::State::Associated, Some("r1")).await.unwrap();
            state(api::State::Activated, Some("r2")).await.unwrap();
            assert_eq!(state(api::State::Associated, Some("r1")).await.unwrap(), first);
            assert_eq!(now().await, api::Standing::Activated, "no second effect");
            let (code, text) = refused(state(api::State::Activated, Some("r1")).await);
            assert_eq!(code, Code::RequestTaken);
            assert_eq!(
                text,
                "request id 'r1' is that of 'deactivate red/web'; use another for 'activate red/web'"
            );
            // What was refused has left no trace: under its id something else may be asked for.
            let nobody = "nobody".parse().unwrap();
            let wrong = client.change_state(&vn, &nobody, &change(api::State::Activated, Some("r3"))).await;
            assert_eq!(refused(wrong).0, Code::NotFound);
            state(api::State::Associated, Some("r3")).await.unwrap();
            assert_eq!(now().await, api::Standing::Associated);
        };
        driver.drive(queue, asked).await.unwrap();
        let saved: Saved = state::load(&dir.join("state.json")).unwrap().unwrap();

        let (mut driver, queue) = self::driver(&dir, &pins, Duration::from_secs(60));
        driver.requests = Requests::restore(saved.requests);
        let device = driver.links.by_name("tap1").await.unwrap().device().unwrap();
        driver.core.restore(driver.clock.now(), saved.attachments, &[device]);
        let client = served(&driver, driver.links.clone(), &dir.join("again"));
        let asked = async {
            let again = client.change_state(&vn, &web, &change(api::State::Activated, Some("r2"))).await;
            assert_eq!(again.unwrap().message, "red/web is activated");
            assert_eq!(
                client.tsis().await.unwrap().items[0].state,
                api::Standing::Associated,
                "no second effect"
            );
            let other = client.change_state(&vn, &web, &change(api::State::Associated, Some("r2"))).await;
            assert_eq!(refused(other).0, Code::RequestTaken);
        };
        driver.drive(queue, asked).await.unwrap();
    });
}

#[test]
fn h4_and_h8_what_cannot_be_is_refused_in_one_line_and_changes_nothing() {
    on_a_host(async |dir, pins| {
        let (vn, web) = (away().vn, away().grant.tsi.name);
        let (driver, queue) = driver(&dir, &pins, Duration::from_secs(60));
        let driver = driver.with_tap1().await;
        let client = served(&driver, driver.links.clone(), &dir);
        let asked = async {
            let before = client.tsis().await.unwrap();
            let update = async |update: api::Update| refused(client.update(&vn, &web, &update).await);
            let device = |name: &str| api::Update { device: Some(name.to_owned()), ..Default::default() };
            let lease = |s| api::Update { lease_s: Some(s), ..Default::default() };
            let ip = BTreeSet::from(["10.0.0.9".parse().unwrap()]);
            let both = api::Update { add: ip.clone(), remove: ip, ..Default::default() };
            for (wanted, code, text) in [
                (device("tap9"), Code::NotFound, "there is no device 'tap9'"),
                (device("weft0"), Code::BadRequest, "weft0 is the NVE's own device"),
                (lease(604_801), Code::BadRequest, "a lease of 604801 s cannot be; it is 0 to 604800 s"),
                (both, Code::BadRequest, "10.0.0.9 is to be added and removed"),
            ] {
                let got = update(wanted).await;
                assert!(got.0 == code && got.1.starts_with(text), "{got:?}");
            }
            let leased = api::ChangeState { lease_s: Some(9), ..change(api::State::Associated, None) };
            let (code, _) = refused(client.change_state(&vn, &web, &leased).await);
            assert_eq!(code, Code::BadRequest);
            assert_eq!(client.tsis().await.unwrap(), before);
        };
        driver.drive(queue, asked).await.unwrap();
    });
}

#[test]
fn h6_and_h8_who_follows_hears_of_each_change_and_goes_on_where_it_was() {
    on_a_host(async |dir, pins| {
        let (vn, web) = (away().vn, away().grant.tsi.name);
        let (driver, queue) = driver(&dir, &pins, Duration::from_secs(60));
        let driver = driver.with_tap1().await;
        let client = served(&driver, driver.links.clone(), &dir);
        let asked = async {
            let mut events = client.events(None).await.unwrap();
            let mut next = async || events.next().await.unwrap().unwrap();
            let first = next().await;
            assert_eq!(first.event, api::Happened::Bookmark);
            client.change_state(&vn, &web, &change(api::State::Associated, None)).await.unwrap();
            let event = next().await;
            assert_eq!(
                (event.event, event.cause.as_deref()),
                (api::Happened::Deactivated, Some("hypervisor"))
            );
            assert_eq!(event.number, first.number + 1);
            let leased = api::Update { lease_s: Some(1), ..Default::default() };
            assert_eq!(client.update(&vn, &web, &leased).await.unwrap().lease_s, Some(1));
            assert_eq!(next().await.event, api::Happened::Updated);
            let last = next().await;
            assert_eq!(last.event, api::Happened::DeAssociated);
            assert_eq!((last.cause.as_deref(), last.now.is_none()), (Some("lease_expired"), true));
            assert_eq!(client.tsis().await.unwrap().items, []);
            // Another one that has heard of the first only.
            let mut events = client.events(Some(event.number)).await.unwrap();
            let mut next = async || events.next().await.unwrap().unwrap();
            assert_eq!(next().await.event, api::Happened::Updated);
            assert_eq!(next().await, last);
            let mut events = client.events(Some(1)).await.unwrap();
            assert_eq!(events.next().await.unwrap().unwrap().event, api::Happened::Missed);
        };
        driver.drive(queue, asked).await.unwrap();
    });
}

#[test]
fn h4_another_device_is_the_vap_once_its_program_runs() {
    on_a_host(async |dir, pins| {
        let (vn, web) = (away().vn, away().grant.tsi.name);
        let (driver, queue) = driver(&dir, &pins, Duration::from_secs(60));
        let driver = driver.with_tap1().await;
        ip("tuntap add tap2 mode tap");
        let links = driver.links.clone();
        let client = served(&driver, links.clone(), &dir);
        let asked = async {
            let wanted = api::Update { device: Some("tap2".to_owned()), ..Default::default() };
            let now = client.update(&vn, &web, &wanted).await.unwrap();
            assert_eq!((now.device.as_str(), now.state), ("tap2", api::Standing::Activated));
            assert!(links.by_name("tap2").await.unwrap().up);
            assert_eq!(client.update(&vn, &web, &wanted).await.unwrap(), now, "once more it is so already");
        };
        driver.drive(queue, asked).await.unwrap();
        assert_eq!(programs(&pins), 2, "the one before is kept closed");
    });
}

/// Writes a request and reads the answer to its end: its status and its body.
async fn raw(socket: &Path, head: &str, body: &[u8]) -> (u16, weft_api::ErrorBody) {
    let mut stream = tokio::net::UnixStream::connect(socket).await.unwrap();
    let head = format!(
        "{head} HTTP/1.1\r\nhost: nve\r\nconnection: close\r\ncontent-length: {}\r\n\r\n",
        body.len()
    );
    stream.write_all(head.as_bytes()).await.unwrap();
    stream.write_all(body).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    (status, serde_json::from_str(body).unwrap_or_else(|e| panic!("{e}: {answer}")))
}

/// Whatever is asked wrongly is refused in the words and the form of the Oracle, and heard by who has written all of it.
#[test]
fn h8_what_cannot_be_understood_is_refused_like_anything_else() {
    on_a_host(async |dir, pins| {
        let (driver, queue) = driver(&dir, &pins, Duration::from_secs(60));
        served(&driver, driver.links.clone(), &dir);
        let socket = dir.join("nve.sock");
        let long = "x".repeat(5_000);
        let asked = async {
            let big = vec![b' '; 20 << 20];
            for (head, body, code, part) in [
                ("GET /v1/nothing", &b""[..], Code::NotFound, "no such path"),
                ("DELETE /v1/tsis", b"", Code::MethodNotAllowed, "does not take that method"),
                ("POST /v1/tsis", &big, Code::TooLarge, "longer than 65536 octets"),
                ("POST /v1/tsis", b"{", Code::BadRequest, "the body is not what is expected here"),
                ("POST /v1/tsis", b"{\"vm\":\"red\"}", Code::BadRequest, "unknown field `vm`"),
                ("DELETE /v1/tsis/red/%ff", b"", Code::BadRequest, "tsis"),
                ("DELETE /v1/tsis/red/web?forse=true", b"", Code::BadRequest, "unknown field `forse`"),
                ("GET /v1/events?after=-1", b"", Code::BadRequest, "invalid digit"),
                (
                    &format!("DELETE /v1/tsis/red/{long}"),
                    b"",
                    Code::BadRequest,
                    "...[5002 characters]' is 5000 characters",
                ),
            ] {
                let (status, refused) = raw(&socket, head, body).await;
                assert_eq!((refused.error, status), (code, code.status()), "{head}: {}", refused.message);
                let fits = refused.message.contains(part) && refused.message.len() < 300;
                assert!(fits || part == "tsis", "{head}: {}", refused.message);
            }
        };
        driver.drive(queue, asked).await.unwrap();
    });
}
