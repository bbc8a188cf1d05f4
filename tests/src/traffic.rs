//! Moving octets between tenants.

use anyhow::{Context as _, Result, ensure};
use std::{
    io::{Read as _, Write as _},
    net::{IpAddr, SocketAddr, TcpListener, TcpStream},
    time::Duration,
};
use weft_lab::Lab;

/// Sends `octets` octets over TCP from one tenant to `addr`, which is `to`'s, and checks each.
///
/// # Errors
/// When the connection fails, stalls for 10 s, or an octet is another one.
pub fn transfer(lab: &Lab, from: &str, to: &str, addr: IpAddr, octets: usize) -> Result<()> {
    const PATIENCE: Duration = Duration::from_secs(10);
    // 251 is prime, so a lost or repeated segment shifts the pattern.
    let pattern: Vec<u8> = (0..251u8).cycle().take(251 * 256).collect();
    let any: IpAddr = if addr.is_ipv4() { [0; 4].into() } else { [0u16; 8].into() };
    let listener = lab.node(to)?.run(|| TcpListener::bind(SocketAddr::new(any, 0)))??;
    let target = SocketAddr::new(addr, listener.local_addr()?.port());
    let mut sender = lab.node(from)?.run(|| TcpStream::connect_timeout(&target, PATIENCE))??;
    let (mut receiver, _) = listener.accept()?;
    sender.set_write_timeout(Some(PATIENCE))?;
    receiver.set_read_timeout(Some(PATIENCE))?;
    std::thread::scope(|scope| -> Result<()> {
        let sending = scope.spawn(|| -> Result<()> {
            let mut left = octets;
            while left > 0 {
                let part = &pattern[..left.min(pattern.len())];
                sender.write_all(part)?;
                left -= part.len();
            }
            sender.shutdown(std::net::Shutdown::Write)?;
            Ok(())
        });
        let mut buffer = vec![0; 1 << 16];
        let mut at = 0;
        loop {
            let length = receiver.read(&mut buffer).with_context(|| format!("after {at} octets"))?;
            if length == 0 {
                break;
            }
            for octet in &buffer[..length] {
                ensure!(usize::from(*octet) == at % 251, "octet {at} is {octet}");
                at += 1;
            }
        }
        sending.join().unwrap_or_else(|_| anyhow::bail!("the sender ended early"))?;
        ensure!(at == octets, "{at} of {octets} octets arrived");
        Ok(())
    })
    .with_context(|| format!("TCP from {from} to {to} at {addr}"))
}
