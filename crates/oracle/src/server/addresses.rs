//! By which addresses this Oracle is to be reached.

use super::OracleOptions;
use nix::ifaddrs::getifaddrs;
use std::net::{IpAddr, SocketAddr};
use weft_model::Rloc;

/// Addresses told at most: an NVE tries them one by one.
const MOST: usize = 8;

/// By which addresses this Oracle is to be reached, `host:port` each.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Addresses {
    /// `/v1`.
    pub api: Vec<String>,
    /// Sessions, TCP.
    pub sessions: Vec<String>,
    /// LISP, UDP.
    pub lisp: Vec<String>,
    ports: (u16, u16, u16),
    /// Whether the operator named them.
    advertised: bool,
}

fn text(host: &str, port: u16) -> String {
    if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") }
}

/// This host's addresses of `v4`'s family that others may reach, loopback when there is none.
fn own(v4: bool) -> Vec<IpAddr> {
    let mut found: Vec<IpAddr> = getifaddrs().map_or_else(
        |_| Vec::new(),
        |all| {
            all.filter_map(|interface| {
                let address = interface.address?;
                let v4 = address.as_sockaddr_in().map(|a| IpAddr::V4(a.ip()));
                v4.or_else(|| address.as_sockaddr_in6().map(|a| IpAddr::V6(a.ip())))
            })
            .filter(|ip| ip.is_ipv4() == v4 && Rloc::new(*ip).is_ok())
            .collect()
        },
    );
    found.sort_unstable();
    found.dedup();
    found
}

impl Addresses {
    /// From what was asked for and `listening`, the addresses of the listeners.
    pub(super) fn new(options: &OracleOptions, listening: &[IpAddr], ports: (u16, u16, u16)) -> Self {
        let advertised = !options.advertise.is_empty();
        let mut hosts = options.advertise.clone();
        if !advertised {
            for ip in listening {
                if ip.is_unspecified() {
                    hosts.extend(own(ip.is_ipv4()).iter().map(ToString::to_string));
                } else {
                    hosts.push(ip.to_string());
                }
            }
            if hosts.is_empty() {
                hosts.extend(
                    listening.iter().map(|ip| if ip.is_ipv4() { "127.0.0.1" } else { "::1" }.to_owned()),
                );
            }
            hosts.truncate(MOST);
        }
        Self::of(&hosts, ports, advertised)
    }

    fn of(hosts: &[String], ports: (u16, u16, u16), advertised: bool) -> Self {
        let all = |port| hosts.iter().map(|host| text(host, port)).collect();
        let (api, sessions, lisp) = ports;
        Self { api: all(api), sessions: all(sessions), lisp: all(lisp), ports, advertised }
    }

    /// The same, the address somebody has just reached first: that one surely works for them.
    pub(super) fn seen_from(&self, reached: SocketAddr) -> Self {
        if self.advertised {
            return self.clone();
        }
        let host = reached.ip().to_canonical().to_string();
        let mut hosts = vec![host.clone()];
        let port = self.ports.0;
        let others = self.api.iter().filter_map(|api| api.strip_suffix(&format!(":{port}")));
        let others = others.map(|h| h.trim_matches(['[', ']']).to_owned());
        hosts.extend(others.filter(|h| *h != host));
        hosts.truncate(MOST);
        Self::of(&hosts, self.ports, false)
    }

    /// Hosts for the server certificate: these and every way to reach this host from itself.
    pub(super) fn names(&self) -> Vec<String> {
        let mut names: Vec<String> = vec!["localhost".into(), "127.0.0.1".into(), "::1".into()];
        let port = format!(":{}", self.ports.0);
        for api in &self.api {
            let host = api.strip_suffix(&port).unwrap_or(api).trim_matches(['[', ']']).to_owned();
            if !names.contains(&host) {
                names.push(host);
            }
        }
        names
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use weft_model::Name;

    #[test]
    fn told_and_reached() {
        let mut options = OracleOptions::new("/x", Name::new("o").unwrap());
        let listening = ["192.0.2.1".parse().unwrap(), "2001:db8::1".parse().unwrap()];
        let a = Addresses::new(&options, &listening, (1, 2, 3));
        assert_eq!(a.api, ["192.0.2.1:1", "[2001:db8::1]:1"]);
        let seen = a.seen_from("[2001:db8::1]:1".parse().unwrap());
        assert_eq!(seen.sessions, ["[2001:db8::1]:2", "192.0.2.1:2"]);
        assert_eq!(a.seen_from("[::ffff:192.0.2.9]:1".parse().unwrap()).lisp[0], "192.0.2.9:3");
        assert!(a.names().contains(&"2001:db8::1".to_owned()));
        options.advertise = vec!["oracle.example".into()];
        let a = Addresses::new(&options, &listening, (1, 2, 3));
        assert_eq!(a.seen_from("192.0.2.1:1".parse().unwrap()).lisp, ["oracle.example:3"]);
        options.advertise.clear();
        assert!(!Addresses::new(&options, &["0.0.0.0".parse().unwrap()], (1, 2, 3)).api.is_empty());
    }
}
