//! The table of connections, which programs write: shown, taken along, forgotten.

use super::{
    Kernel,
    abi::{ConnKey, ConnValue},
    maps::Walker,
    policy::{toward_code, toward_of},
    sys,
};
use crate::{Connection, ConnectionState, DatapathError, Tracked};
use core::time::Duration;
use std::collections::{BTreeMap, BTreeSet};
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
        (TCP, ConnectionState::Reset) => 300,
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

/// What its key adds up to, as conn.h has it.
fn key_sum(key: &ConnKey) -> u32 {
    let ConnKey { vni, local, remote, local_port: [a, b], remote_port: [c, d], protocol, pad: [x, y, z] } =
        *key;
    let word = |o: &[u8; 4]| u32::from_ne_bytes(*o);
    let ips = [local, remote];
    let ips = ips.iter().flat_map(|ip| ip.0.as_chunks::<4>().0.iter().map(word));
    let ends = [word(&[a, b, c, d]), word(&[protocol, x, y, z])];
    let words = core::iter::once(vni).chain(ips).chain(ends);
    let spread = (0_u32..).map(|i| i.wrapping_mul(0x9e37_79b1));
    words.zip(spread).fold(0, |sum, (word, spread)| sum ^ word.wrapping_add(spread))
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
        rule: value.rule.into(),
        idle: Duration::from_nanos(idle),
    };
    (idle < kept(key.protocol, state)).then_some(connection)
}

/// Reads the connections of some tenant systems on any thread: for that all connections have to be looked through, some 0.1 us
/// for each. It knows them as they are when it was made: what ends while it reads is there, if it is found.
#[derive(Clone, Debug)]
pub struct ConnectionReader {
    vni: Vni,
    /// Whose; of everybody in the VN without.
    of: Option<BTreeSet<TenantIp>>,
    since: BTreeMap<TenantIp, u64>,
    of_others: u64,
    conns: Walker<ConnKey, ConnValue>,
}

impl ConnectionReader {
    /// Reads.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn read(&self) -> Result<Vec<Connection>, DatapathError> {
        let now = sys::monotonic();
        let mut found = Vec::new();
        self.conns.walk(|key, value| {
            if key.vni == self.vni.get() && self.is_wanted(&key, &value) {
                found.extend(meaning(&key, &value, now));
            }
        })?;
        found.sort();
        Ok(found)
    }

    fn is_wanted(&self, key: &ConnKey, value: &ConnValue) -> bool {
        let local = TenantIp::new(key.local.into()).ok();
        let since = local.and_then(|ip| self.since.get(&ip)).copied().unwrap_or(self.of_others);
        let its = self.of.as_ref().is_none_or(|of| local.is_some_and(|ip| of.contains(&ip)));
        its && value.born > since
    }
}

/// Counts connections on any thread.
#[derive(Debug)]
pub struct ConnectionCounter {
    held: u64,
    unfollowed: u64,
    capacity: u64,
    conns: Walker<ConnKey, ConnValue>,
}

impl ConnectionCounter {
    /// Counts.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn count(&self) -> Result<Tracked, DatapathError> {
        let mut entries = 0;
        self.conns.walk(|_, _| entries += 1)?;
        let (unfollowed, capacity) = (self.unfollowed, self.capacity);
        Ok(Tracked { entries, evicted: self.held.saturating_sub(entries), unfollowed, capacity })
    }
}

impl Kernel {
    /// What reads the connections of these addresses, or of all, of a VN.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn connection_reader(
        &self,
        vni: Vni,
        of: Option<&BTreeSet<TenantIp>>,
    ) -> Result<ConnectionReader, DatapathError> {
        let (since, of_others) = self.sinces(vni, of)?;
        Ok(ConnectionReader { vni, of: of.cloned(), since, of_others, conns: self.maps.conns.walker()? })
    }

    /// What counts connections.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn connection_counter(&self) -> Result<ConnectionCounter, DatapathError> {
        // Read first: what is inserted meanwhile was not evicted.
        let (held, unfollowed) = self.maps.conns_held()?;
        let capacity = self.limits.connections.into();
        Ok(ConnectionCounter { held, unfollowed, capacity, conns: self.maps.conns.walker()? })
    }

    /// Takes over what has changed of connections that were taken over before: those of `changed` as they are now, whatever is
    /// tracked here, and none of `ended`.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn change_connections(
        &mut self,
        changed: &[Connection],
        ended: &[Connection],
    ) -> Result<(), DatapathError> {
        let mut removed = 0;
        for connection in ended {
            removed += u64::from(self.maps.conns.take(&key(connection))?);
        }
        self.maps.count_conns(0, removed)?;
        self.write_connections(changed, true)
    }

    pub(super) fn take_over_connections(&mut self, connections: &[Connection]) -> Result<(), DatapathError> {
        self.write_connections(connections, false)
    }

    /// Writes connections that another host let through; `anyway`: also where one is tracked here.
    fn write_connections(&mut self, connections: &[Connection], anyway: bool) -> Result<(), DatapathError> {
        let (now, born) = (sys::monotonic(), sys::monotonic_exact());
        let mut since: BTreeMap<(Vni, TenantIp), u64> = BTreeMap::new();
        let mut inserted = 0;
        let mut written = Ok(());
        for connection in connections {
            let idle = u64::try_from(connection.idle.as_nanos()).unwrap_or(u64::MAX);
            // One from before this host was started cannot be told how old it is.
            let Some(seen) = now.checked_sub(idle).filter(|seen| *seen != 0) else { continue };
            let Ok(local) = TenantIp::new(connection.local) else { continue };
            let at = (connection.vni, local);
            let since = match since.get(&at) {
                Some(since) => *since,
                None => *since.entry(at).or_insert(self.since_of(connection.vni, local)?),
            };
            let key = key(connection);
            let value = ConnValue {
                of: key_sum(&key),
                policy: 0,
                seen,
                born: born.max(since + 1),
                generation: 0,
                // Of another host; here none let it through yet.
                rule: u16::try_from(connection.rule).unwrap_or(0),
                state: connection.state.code(),
                opened: toward_code(connection.opened),
                to: 0,
                pad: 0,
            };
            match self.add_connection(&key, &value, if anyway { u64::MAX } else { since }) {
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

    /// Adds a connection where there is none but perhaps one of another's, up to `since`; whether the place is new.
    fn add_connection(
        &mut self,
        key: &ConnKey,
        value: &ConnValue,
        since: u64,
    ) -> Result<bool, DatapathError> {
        if self.maps.conns.add(key, value)? {
            return Ok(true);
        }
        if self.maps.conns.get(key)?.is_some_and(|old| old.born <= since) {
            self.maps.conns.set(key, value)?;
        }
        Ok(false)
    }

    /// Ends connections, and makes their room free.
    pub(super) fn forget_connections(
        &mut self,
        vni: Vni,
        of: &BTreeSet<TenantIp>,
    ) -> Result<(), DatapathError> {
        self.end_connections(vni, of)?;
        let mut gone = Vec::new();
        self.maps.conns.walker()?.walk(|key, _| {
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
        assert_eq!(kept(TCP, State::Reset), of("WEFT_TCP_RESET"));
        assert_eq!(super::super::options::open_interval(1), of("WEFT_OPEN_WINDOW"));
        assert_eq!(kept(UDP, State::Opening), of("WEFT_UDP_OPENING"));
        assert_eq!(kept(UDP, State::Established), of("WEFT_UDP_ESTABLISHED"));
        assert_eq!([ICMP, ICMPV6].map(|p| kept(p, State::Established)), [of("WEFT_ICMP_KEPT"); 2]);
        assert_eq!(kept(47, State::Opening), of("WEFT_OTHER_KEPT"));
        assert_eq!(crate::RULE_COUNTERS, u32::try_from(of("WEFT_RULE_COUNTERS")).unwrap());
    }
}
