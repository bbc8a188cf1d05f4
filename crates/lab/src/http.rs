//! A GET request, as readiness probes send it: no keep-alive, no TLS, no redirects.

use std::{
    io::{self, Read, Write},
    net::{SocketAddr, TcpStream},
    os::unix::net::UnixStream,
    path::Path,
    time::Duration,
};

const PATIENCE: Duration = Duration::from_secs(2);

/// Status code and body.
pub(crate) type Answer = (u16, Vec<u8>);

/// The answer to `GET path` at `addr`, from the calling thread's namespace.
pub(crate) fn get_tcp(addr: SocketAddr, path: &str) -> io::Result<Answer> {
    let stream = TcpStream::connect_timeout(&addr, PATIENCE)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    get(stream, path)
}

/// The answer to `GET path` on the unix socket `socket`.
pub(crate) fn get_unix(socket: &Path, path: &str) -> io::Result<Answer> {
    let stream = UnixStream::connect(socket)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    get(stream, path)
}

/// The answer to `POST path` with a JSON body on the unix socket `socket`.
pub(crate) fn post_unix(socket: &Path, path: &str, body: &str) -> io::Result<Answer> {
    send_unix(socket, "POST", path, body)
}

/// The answer to `PUT path` with a JSON body on the unix socket `socket`.
pub(crate) fn put_unix(socket: &Path, path: &str, body: &str) -> io::Result<Answer> {
    send_unix(socket, "PUT", path, body)
}

fn send_unix(socket: &Path, method: &str, path: &str, body: &str) -> io::Result<Answer> {
    let mut stream = UnixStream::connect(socket)?;
    stream.set_read_timeout(Some(PATIENCE * 5))?;
    let length = body.len();
    // In one piece: the other side reads as soon as there is something.
    let request = format!(
        "{method} {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\
         Content-Type: application/json\r\nContent-Length: {length}\r\n\r\n{body}"
    );
    stream.write_all(request.as_bytes())?;
    read(stream)
}

fn get(mut stream: impl Read + Write, path: &str) -> io::Result<Answer> {
    write!(stream, "GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")?;
    read(stream)
}

fn read(stream: impl Read) -> io::Result<Answer> {
    let mut answer = Vec::new();
    stream.take(1 << 20).read_to_end(&mut answer)?;
    parse(&answer).ok_or_else(|| io::Error::other("the answer is not HTTP"))
}

fn parse(answer: &[u8]) -> Option<Answer> {
    let end = answer.windows(4).position(|part| part == b"\r\n\r\n")?;
    let head = std::str::from_utf8(&answer[..end]).ok()?;
    let code = head.strip_prefix("HTTP/1.")?.split(' ').nth(1)?.parse().ok()?;
    Some((code, answer[end + 4..].to_vec()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers() {
        let got = parse(b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 2\r\n\r\nno").unwrap();
        assert_eq!(got, (503, b"no".to_vec()));
        for bad in [&b"HTTP/1.1 200 OK\r\n"[..], b"\r\n\r\n", b"SSH-2.0\r\n\r\n"] {
            assert_eq!(parse(bad), None);
        }
    }
}
