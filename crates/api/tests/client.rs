//! The clients against a server of a few lines on unix sockets.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests, and what they share")]

use std::{
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{UnixListener, UnixStream},
    time::timeout,
};
use weft_api::{Client, ClientError, Code, Endpoint, Event, LocalClient, Server, Trust, Vn};

const CEILING: Duration = Duration::from_secs(30);

/// Reads one request's head and body; its first line.
async fn request(stream: &mut UnixStream) -> Option<String> {
    let mut octets = Vec::new();
    let head = loop {
        if let Some(at) = octets.windows(4).position(|w| w == b"\r\n\r\n") {
            break at + 4;
        }
        let mut buffer = [0; 1024];
        match stream.read(&mut buffer).await {
            Ok(0) | Err(_) => return None,
            Ok(n) => octets.extend_from_slice(&buffer[..n]),
        }
    };
    let text = String::from_utf8(octets[..head].to_vec()).unwrap();
    let length =
        text.lines().find_map(|l| l.to_lowercase().strip_prefix("content-length: ").map(str::to_owned));
    let length: usize = length.map_or(0, |l| l.parse().unwrap());
    while octets.len() < head + length {
        let mut buffer = [0; 1024];
        let n = stream.read(&mut buffer).await.unwrap();
        octets.extend_from_slice(&buffer[..n]);
    }
    Some(text.lines().next().unwrap().to_owned())
}

fn answer(status: &str, body: &str) -> Vec<u8> {
    format!("HTTP/1.1 {status}\r\nContent-Length: {}\r\n\r\n{body}", body.len()).into_bytes()
}

/// Serves `each` on every connection until it hangs up; counts connections.
fn serve<F>(path: &Path, each: impl Fn(UnixStream) -> F + Send + Sync + 'static) -> Arc<AtomicUsize>
where
    F: Future<Output = ()> + Send,
{
    let listener = UnixListener::bind(path).unwrap();
    let connections = Arc::new(AtomicUsize::new(0));
    let (count, each) = (connections.clone(), Arc::new(each));
    tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            count.fetch_add(1, Ordering::SeqCst);
            let each = each.clone();
            tokio::spawn(async move { each(stream).await });
        }
    });
    connections
}

fn client(paths: &[&Path]) -> Client {
    let servers = paths.iter().map(|p| Server::Unix(p.to_path_buf())).collect();
    let endpoint = Endpoint { servers, trust: Trust::Nobody, identity: None };
    Client::with_timeout(&endpoint, Duration::from_secs(5)).unwrap()
}

const LIST: &str = r#"{"resource_version":7,"items":[{"name":"red","vni":7,"future":"field"}]}"#;

#[tokio::test]
async fn connections_are_kept_and_replaced() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("s");
    // The third request on a connection finds it closed, as after a server's idle timeout.
    let connections = serve(&path, |mut stream| async move {
        for _ in 0..2 {
            if request(&mut stream).await.is_none() {
                return;
            }
            stream.write_all(&answer("200 OK", LIST)).await.unwrap();
        }
    });
    let client = client(&[&path]);
    for n in 1..=6 {
        let list = timeout(CEILING, client.vns()).await.unwrap().unwrap();
        assert_eq!((list.resource_version, list.items.len()), (7, 1));
        assert_eq!(connections.load(Ordering::SeqCst), usize::div_ceil(n, 2), "request {n}");
    }
}

#[tokio::test]
async fn the_next_server_takes_over() {
    let dir = tempfile::tempdir().unwrap();
    let (down, up) = (dir.path().join("down"), dir.path().join("up"));
    let client = client(&[&down, &up]);
    match client.vns().await {
        Err(e @ ClientError::Unreachable { .. }) => {
            assert!(e.is_transport() && e.to_string().contains(up.to_str().unwrap()), "{e}");
        }
        other => panic!("{other:?}"),
    }
    serve(&up, |mut stream| async move {
        while request(&mut stream).await.is_some() {
            stream.write_all(&answer("200 OK", LIST)).await.unwrap();
        }
    });
    client.vns().await.unwrap();
}

#[tokio::test]
async fn refusals_and_rubbish() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("s");
    serve(&path, |mut stream| async move {
        while let Some(line) = request(&mut stream).await {
            let reply = match line.as_str() {
                "GET /v1/vns/red HTTP/1.1" => {
                    answer("404 Not Found", r#"{"error":"not_found","message":"there is no VN 'red'"}"#)
                }
                "DELETE /v1/vns/red HTTP/1.1" => answer("502 Bad Gateway", "<html>"),
                "GET /v1/nves HTTP/1.1" => answer("200 OK", "{}"),
                "GET /v1/tokens HTTP/1.1" => b"SSH-2.0-x\r\n".to_vec(),
                // Hangs up without an answer.
                _ => return,
            };
            stream.write_all(&reply).await.unwrap();
        }
    });
    let client = client(&[&path]);
    let red = "red".parse().unwrap();
    match client.vn(&red).await {
        Err(ClientError::Api(e)) => {
            assert_eq!(
                (e.status, e.code, e.to_string().as_str()),
                (404, Code::NotFound, "there is no VN 'red'")
            );
        }
        other => panic!("{other:?}"),
    }
    assert!(matches!(client.delete_vn(&red).await, Err(ClientError::Answer { .. })));
    assert!(matches!(client.nves().await, Err(ClientError::Answer { .. })));
    assert!(client.tokens().await.unwrap_err().is_transport());
    assert!(client.counters().await.unwrap_err().is_transport());
}

#[tokio::test]
async fn a_server_that_does_not_answer() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("s");
    serve(&path, |mut stream| async move {
        request(&mut stream).await;
        std::future::pending::<()>().await;
    });
    let endpoint = Endpoint::unix(&path);
    let client = Client::with_timeout(&endpoint, Duration::from_millis(50)).unwrap();
    assert!(matches!(timeout(CEILING, client.vns()).await.unwrap(), Err(ClientError::Timeout { .. })));
}

#[tokio::test]
async fn events_however_they_are_cut() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("s");
    const EVENTS: &str = concat!(
        r#"{"type":"added","resource_version":8,"object":{"name":"red","vni":7}}"#,
        "\n",
        r#"{"type":"bookmark","resource_version":8}"#,
        "\n\n",
        r#"{"type":"deleted","resource_version":9,"object":{"name":"red","vni":7}}"#,
        "\nrubbish\n",
        r#"{"type":"bookmark","resource_version":10}"#,
        "\n"
    );
    serve(&path, |mut stream| async move {
        let line = request(&mut stream).await.unwrap();
        assert_eq!(line, "GET /v1/vns?watch=true&resource_version=7 HTTP/1.1");
        stream.write_all(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n").await.unwrap();
        for piece in EVENTS.as_bytes().chunks(7) {
            let chunk = [format!("{:x}\r\n", piece.len()).as_bytes(), piece, b"\r\n"].concat();
            stream.write_all(&chunk).await.unwrap();
            stream.flush().await.unwrap();
            tokio::task::yield_now().await;
        }
        stream.write_all(b"0\r\n\r\n").await.unwrap();
    });
    let mut watch = client(&[&path]).watch_vns(7).await.unwrap();
    let mut seen = Vec::new();
    while let Some(event) = timeout(CEILING, watch.next()).await.unwrap() {
        match event {
            Ok(Event::Added { object: Vn { name, .. }, .. }) => seen.push(format!("+{name}")),
            Ok(Event::Deleted { object, .. }) => seen.push(format!("-{}", object.name)),
            Ok(event) => seen.push(event.resource_version().to_string()),
            Err(ClientError::Answer { .. }) => seen.push("?".into()),
            Err(e) => panic!("{e}"),
        }
    }
    assert_eq!(seen, ["+red", "8", "-red", "?"], "after rubbish it is over");
}

#[tokio::test]
async fn the_local_api() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("nve.sock");
    serve(&path, |mut stream| async move {
        while let Some(line) = request(&mut stream).await {
            let body = match line.as_str() {
                "POST /v1/tsis HTTP/1.1" => {
                    r#"{"vn":"red","tsi":"web1","device":"tap0","mac":"02:00:00:00:00:01","ips":["10.0.0.1"],"vni":7,"mtu":1450,"state":"activated"}"#
                }
                "DELETE /v1/tsis/red/web1?force=true HTTP/1.1" => r#"{"message":"gone"}"#,
                other => panic!("{other}"),
            };
            stream.write_all(&answer("200 OK", body)).await.unwrap();
        }
    });
    let client = LocalClient::new(&path).unwrap();
    let attach = weft_api::local::Attach {
        vn: "red".parse().unwrap(),
        name: "web1".parse().unwrap(),
        device: "tap0".into(),
        kind: None,
        mac: None,
        ips: Default::default(),
        groups: Default::default(),
        state: Default::default(),
        lease_s: None,
        explicit: false,
        request_id: None,
    };
    let tsi = client.attach(&attach).await.unwrap();
    assert_eq!((tsi.mtu, tsi.vni.get()), (1450, 7));
    assert_eq!(client.detach(&attach.vn, &attach.name, true, None).await.unwrap().message, "gone");
}

#[test]
fn an_oracle_over_tcp_must_be_trusted_by_something() {
    let endpoint =
        Endpoint { servers: vec!["192.0.2.1:4343".parse().unwrap()], trust: Trust::Nobody, identity: None };
    assert!(matches!(Client::new(&endpoint), Err(ClientError::Tls(_))));
    let none = Endpoint { servers: vec![], ..endpoint };
    assert!(Client::new(&none).is_err());
}
