//! A GET request, as readiness probes send it: no keep-alive, no TLS, no redirects.

use std::{
    io::{self, Read, Write},
    net::{SocketAddr, TcpStream},
    os::unix::net::UnixStream,
    path::Path,
    time::Duration,
};

const PATIENCE: Duration = Duration::from_secs(2);

/// The status code of `GET path` at `addr`, from the calling thread's namespace.
pub(crate) fn get_tcp(addr: SocketAddr, path: &str) -> io::Result<u16> {
    let stream = TcpStream::connect_timeout(&addr, PATIENCE)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    get(stream, path)
}

/// The status code of `GET path` on the unix socket `socket`.
pub(crate) fn get_unix(socket: &Path, path: &str) -> io::Result<u16> {
    let stream = UnixStream::connect(socket)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    get(stream, path)
}

fn get(mut stream: impl Read + Write, path: &str) -> io::Result<u16> {
    write!(stream, "GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")?;
    let mut head = [0; 12];
    stream.read_exact(&mut head)?;
    std::str::from_utf8(&head)
        .ok()
        .and_then(|head| head.strip_prefix("HTTP/1.1 ").or_else(|| head.strip_prefix("HTTP/1.0 ")))
        .and_then(|code| code.parse().ok())
        .ok_or_else(|| io::Error::other("the answer is not HTTP"))
}
