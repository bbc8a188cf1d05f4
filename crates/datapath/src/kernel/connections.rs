//! The table of connections, which programs write: shown, taken along, forgotten.

use super::{
    Kernel,
    abi::{ConnKey, ConnValue},
    policy::{toward_code, toward_of},
    sys,
};
use crate::{Connection, ConnectionState, DatapathError, Tracked};
use core::time::Duration;
use std::collections::BTreeSet;
use weft_model::{TenantIp, Vni};

const SECOND: u64 = 1_000_000_000;
const TCP: u8 = 6;
const UDP: u8 = 17;
const ICMP: u8 = 1;
const ICMPV6: u8 = 58;

/// After which silence a connection is as none, ns: as abi.h has it.
const fn kept(protocol: u8, state: ConnectionState) -> u64 {
    let seconds = match (protocol, state) {
        (TCP, ConnectionState::Opening | ConnectionState::Answered) => 60,
        (TCP, ConnectionState::Closing) => 30,
        (TCP, _) => 86_400,
        (UDP, ConnectionState::Opening) => 60,
        (UDP, _) => 180,
        (ICMP | ICMPV6, _) => 30,
        _ => 120,
    };
    seconds * SECOND
}

fn key(connection: &Connection) -> ConnKey {
    ConnKey {
        vni: connection.vni.get(),
        local: connection.local.into(),
        remote: connection.remote.into(),
        local_port: connection.local_port.to_be_bytes(),
        remote_port: connection.remote_port.to_be_bytes(),
        protocol: connection.protocol,
        pad: [0; 3],
    }
}

/// None for one that has ended, and for octets that no program writes.
fn meaning(key: &ConnKey, value: &ConnValue, now: u64) -> Option<Connection> {
    let idle = now.saturating_sub(value.seen);
    let state = ConnectionState::from_code(value.state)?;
    let connection = Connection {
        vni: Vni::new(key.vni).ok()?,
        local: key.local.into(),
        remote: key.remote.into(),
        protocol: key.protocol,
        local_port: u16::from_be_bytes(key.local_port),
        remote_port: u16::from_be_bytes(key.remote_port),
        opened: toward_of(value.opened),
        state,
        rule: value.rule,
        idle: Duration::from_nanos(idle),
    };
    (idle < kept(key.protocol, state)).then_some(connection)
}

impl Kernel {
    pub(super) fn read_connections(
        &self,
        vni: Vni,
        of: Option<&BTreeSet<TenantIp>>,
    ) -> Result<Vec<Connection>, DatapathError> {
        let now = sys::monotonic();
        let mut found = Vec::new();
        self.maps.conns.walk(|key, value| {
            let connection = (key.vni == vni.get()).then(|| meaning(&key, &value, now)).flatten();
            let wanted = |ip| of.is_none_or(|of| TenantIp::new(ip).is_ok_and(|ip| of.contains(&ip)));
            found.extend(connection.filter(|connection| wanted(connection.local)));
        })?;
        found.sort();
        Ok(found)
    }

    pub(super) fn take_over_connections(&mut self, connections: &[Connection]) -> Result<(), DatapathError> {
        let now = sys::monotonic();
        let mut inserted = 0;
        let mut written = Ok(());
        for connection in connections {
            let idle = u64::try_from(connection.idle.as_nanos()).unwrap_or(u64::MAX);
            // One from before this host was started cannot be told how old it is.
            let Some(seen) = now.checked_sub(idle).filter(|seen| *seen != 0) else { continue };
            let value = ConnValue {
                seen,
                policy: 0,
                generation: 0,
                rule: connection.rule,
                state: connection.state.code(),
                opened: toward_code(connection.opened),
                pad: [0; 2],
            };
            match self.maps.conns.add(&key(connection), &value) {
                Ok(new) => inserted += u64::from(new),
                Err(e) => {
                    written = Err(e);
                    break;
                }
            }
        }
        self.maps.count_conns(inserted, 0)?;
        written
    }

    pub(super) fn forget_connections(
        &mut self,
        vni: Vni,
        of: &BTreeSet<TenantIp>,
    ) -> Result<(), DatapathError> {
        let mut gone = Vec::new();
        self.maps.conns.walk(|key, _| {
            let local = TenantIp::new(key.local.into());
            if key.vni == vni.get() && local.is_ok_and(|ip| of.contains(&ip)) {
                gone.push(key);
            }
        })?;
        let mut removed = 0;
        let mut written = Ok(());
        for key in gone {
            match self.maps.conns.take(&key) {
                Ok(was) => removed += u64::from(was),
                Err(e) => {
                    written = Err(e);
                    break;
                }
            }
        }
        self.maps.count_conns(0, removed)?;
        written
    }

    pub(super) fn read_tracked(&self) -> Result<Tracked, DatapathError> {
        // Read first: what is inserted meanwhile was not evicted.
        let held = self.maps.conns_held()?;
        let mut entries = 0;
        self.maps.conns.walk(|_, _| entries += 1)?;
        Ok(Tracked {
            entries,
            evicted: held.saturating_sub(entries),
            capacity: self.limits.connections.into(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connections_end_when_the_header_says_so() {
        let header = include_str!("../../bpf/abi.h");
        let of = |name: &str| {
            let line = header.lines().find(|line| line.starts_with(&format!("#define {name} "))).unwrap();
            line.rsplit(' ').next().unwrap().trim_end_matches("ULL").parse::<u64>().unwrap()
        };
        use ConnectionState as State;
        for state in [State::Opening, State::Answered] {
            assert_eq!(kept(TCP, state), of("WEFT_TCP_OPENING"));
        }
        for state in [State::Established, State::EndedHere, State::EndedThere] {
            assert_eq!(kept(TCP, state), of("WEFT_TCP_ESTABLISHED"));
        }
        assert_eq!(kept(TCP, State::Closing), of("WEFT_TCP_CLOSING"));
        assert_eq!(kept(UDP, State::Opening), of("WEFT_UDP_OPENING"));
        assert_eq!(kept(UDP, State::Established), of("WEFT_UDP_ESTABLISHED"));
        assert_eq!([ICMP, ICMPV6].map(|p| kept(p, State::Established)), [of("WEFT_ICMP_KEPT"); 2]);
        assert_eq!(kept(47, State::Opening), of("WEFT_OTHER_KEPT"));
        assert_eq!(crate::RULE_COUNTERS, u32::try_from(of("WEFT_RULE_COUNTERS")).unwrap());
    }
}
