//! Rules as people write them.
//!
//! ```text
//! in tcp/80 from 10.0.0.0/8
//! in tcp/8000-8999 from group:web log # the shop
//! out any to anybody ipv6
//! in icmp/8
//! in icmpv6/1.4 from fd00::/8
//! ```

use super::{
    Description, DescriptionError, Family, IcmpType, Peer, PeerError, PortRange, Protocol, ProtocolError,
    Rule, RuleError, RuleFields, Toward,
};
use core::{fmt, str::FromStr};

/// Why a text is no rule.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RuleTextError {
    /// Nothing that says which way.
    #[error("'{0}' says not which way; begin with in or out, as in: in tcp/80 from 10.0.0.0/8")]
    Toward(String),
    /// Nothing that says what.
    #[error("'{0}' says not what; name a protocol, as in: in tcp/80, out any")]
    NoProtocol(String),
    /// No protocol.
    #[error(transparent)]
    Protocol(#[from] ProtocolError),
    /// No ports.
    #[error("'{0}' are no ports; write one like 80 or a range like 8000-8999, of 0 to 65535")]
    Ports(String),
    /// No message type.
    #[error("'{0}' is no message type; write one like 8, or with a code like 3.1, each of 0 to 255")]
    Icmp(String),
    /// A protocol without ports and types.
    #[error("{protocol} has neither ports nor message types; leave '/{what}' out")]
    Numbers {
        /// The protocol.
        protocol: Protocol,
        /// What is behind the slash.
        what: String,
    },
    /// The other end's word does not go with the direction.
    #[error("what goes {toward} is '{right}' somebody, not '{word}' somebody")]
    Preposition {
        /// The direction.
        toward: Toward,
        /// The word that goes with it.
        right: &'static str,
        /// The word that was used.
        word: String,
    },
    /// Nobody behind `from` or `to`.
    #[error("nobody stands after '{0}'; write anybody, a prefix, or group:NAME")]
    NoPeer(String),
    /// Not anybody.
    #[error(transparent)]
    Peer(#[from] PeerError),
    /// A word that means nothing there.
    #[error(
        "'{0}' means nothing there; after the protocol come from or to, ipv4 or ipv6, log, # and a description"
    )]
    Word(String),
    /// No description.
    #[error(transparent)]
    Description(#[from] DescriptionError),
    /// The parts contradict each other.
    #[error(transparent)]
    Rule(#[from] RuleError),
}

impl FromStr for Rule {
    type Err = RuleTextError;

    fn from_str(text: &str) -> Result<Self, RuleTextError> {
        let (said, remark) = match text.split_once('#') {
            Some((said, remark)) => (said, Some(remark.trim()).filter(|remark| !remark.is_empty())),
            None => (text, None),
        };
        let mut words = said.split_whitespace();
        let toward = match words.next() {
            Some("in") => Toward::In,
            Some("out") => Toward::Out,
            _ => return Err(RuleTextError::Toward(said.trim().to_owned())),
        };
        let what = words.next().ok_or_else(|| RuleTextError::NoProtocol(said.trim().to_owned()))?;
        let (protocol, numbers) = match what.split_once('/') {
            Some((protocol, numbers)) => (protocol.parse::<Protocol>()?, Some(numbers)),
            None => (what.parse()?, None),
        };
        let (ports, icmp) = match numbers {
            None => (None, None),
            Some(numbers) if protocol.has_ports() => (Some(port_range(numbers)?), None),
            Some(numbers) if protocol.has_types() => (None, Some(icmp_type(numbers)?)),
            Some(what) => return Err(RuleTextError::Numbers { protocol, what: what.to_owned() }),
        };
        let description = remark.map(Description::new).transpose()?;
        let mut fields = RuleFields {
            toward,
            protocol,
            ports,
            icmp,
            peer: Peer::Anybody,
            family: None,
            log: false,
            description,
        };
        let mut named = false;
        let right = preposition(toward);
        while let Some(word) = words.next() {
            match word {
                "from" | "to" if word != right => {
                    return Err(RuleTextError::Preposition { toward, right, word: word.to_owned() });
                }
                "from" | "to" if !named => {
                    let peer = words.next().ok_or_else(|| RuleTextError::NoPeer(word.to_owned()))?;
                    (fields.peer, named) = (peer.parse()?, true);
                }
                "ipv4" if fields.family.is_none() => fields.family = Some(Family::Ipv4),
                "ipv6" if fields.family.is_none() => fields.family = Some(Family::Ipv6),
                "log" if !fields.log => fields.log = true,
                other => return Err(RuleTextError::Word(other.to_owned())),
            }
        }
        Ok(Self::new(fields)?)
    }
}

const fn preposition(toward: Toward) -> &'static str {
    match toward {
        Toward::In => "from",
        Toward::Out => "to",
    }
}

/// A number without a sign before it.
fn number<T: FromStr>(text: &str) -> Option<T> {
    text.parse().ok().filter(|_| text.bytes().all(|b| b.is_ascii_digit()))
}

fn port_range(text: &str) -> Result<PortRange, RuleTextError> {
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    match (number(first), number(last)) {
        (Some(first), Some(last)) => Ok(PortRange { first, last }),
        _ => Err(RuleTextError::Ports(text.to_owned())),
    }
}

fn icmp_type(text: &str) -> Result<IcmpType, RuleTextError> {
    let (kind, code) = match text.split_once('.') {
        Some((kind, code)) => (number(kind), number(code).map(Some)),
        None => (number(text), Some(None)),
    };
    match (kind, code) {
        (Some(r#type), Some(code)) => Ok(IcmpType { r#type, code }),
        _ => Err(RuleTextError::Icmp(text.to_owned())),
    }
}

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.toward(), self.protocol())?;
        if let Some(ports) = self.ports() {
            write!(f, "/{ports}")?;
        }
        if let Some(icmp) = self.icmp() {
            write!(f, "/{icmp}")?;
        }
        write!(f, " {} {}", preposition(self.toward()), self.peer())?;
        if let Some(family) = self.family() {
            write!(f, " {family}")?;
        }
        if self.log() {
            f.write_str(" log")?;
        }
        match self.description() {
            Some(description) => write!(f, " # {}", description.as_str()),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rule(text: &str) -> Rule {
        text.parse().unwrap_or_else(|e| panic!("{text}: {e}"))
    }

    #[test]
    fn texts_are_written_as_they_are_read() {
        for (text, shown) in [
            ("in tcp/80 from 10.0.0.0/8", ""),
            ("in tcp/8000-8999 from group:web log # the shop", ""),
            ("out any to anybody ipv6", ""),
            ("in icmp/8", "in icmp/8 from anybody"),
            ("in icmpv6/1.4 from fd00::/8", ""),
            ("  out  47   to 10.0.0.1 #", "out 47 to 10.0.0.1/32"),
            ("in 6/80-80", "in tcp/80 from anybody"),
            ("in udp/0-65535", "in udp from anybody"),
            ("in any from 10.0.0.0/8 ipv4", "in any from 10.0.0.0/8"),
        ] {
            let shown = if shown.is_empty() { text } else { shown };
            assert_eq!(rule(text).to_string(), shown);
            let json = serde_json::to_string(&rule(text)).unwrap();
            assert_eq!(serde_json::from_str::<Rule>(&json).unwrap(), rule(text), "{json}");
        }
    }

    #[test]
    fn refusals_name_the_value_and_what_to_do() {
        for (text, words) in [
            ("", "'' says not which way; begin with in or out"),
            ("tcp/80", "'tcp/80' says not which way"),
            ("in", "'in' says not what"),
            ("in sctp/80", "'sctp' is no protocol"),
            ("in 256", "'256' is no protocol"),
            ("in tcp/90-80", "ports 90-80 are upside down; did you mean 80-90?"),
            ("in tcp/65536", "'65536' are no ports"),
            ("in tcp/+80", "'+80' are no ports"),
            ("in icmp/8.256", "'8.256' is no message type"),
            ("in 47/80", "47 has neither ports nor message types; leave '/80' out"),
            ("in any/80", "any has neither ports"),
            ("in tcp/80 to anybody", "what goes in is 'from' somebody, not 'to' somebody"),
            ("in tcp/80 from", "nobody stands after 'from'"),
            ("in tcp/80 from web", "'web' is nobody"),
            ("in tcp/80 from 10.0.0.1/8", "10.0.0.1/8 has host bits set; did you mean 10.0.0.0/8?"),
            ("in tcp/80 from group:Web", "after 'group:': 'Web' has 'W' in it"),
            ("in icmp/8 from fd00::/8", "icmp is no protocol of fd00::/8; use icmpv6"),
            ("in icmpv6 ipv4", "icmpv6 is no protocol of ipv4; use icmp"),
            ("in any from 10.0.0.0/8 ipv6", "10.0.0.0/8 is not of family ipv6"),
            ("in any log log", "'log' means nothing there"),
            ("in any from anybody from anybody", "'from' means nothing there"),
        ] {
            let error = text.parse::<Rule>().unwrap_err().to_string();
            assert!(error.contains(words) && !error.contains('\n'), "{text}: {error}");
        }
        let long = format!("in any # {}", "x".repeat(129));
        assert!(long.parse::<Rule>().unwrap_err().to_string().contains("129 characters"));
    }

    #[test]
    fn fields_that_contradict_are_no_rule() {
        for (json, words) in [
            (r#"{"toward":"in","ports":{"first":80,"last":80}}"#, "any has no ports (80)"),
            (r#"{"toward":"in","protocol":"tcp","icmp":{"type":8}}"#, "tcp has no message types (8)"),
            (r#"{"toward":"in","protocol":"tcp","port":8}"#, "unknown field `port`"),
            (r#"{"toward":"in","description":"a\nb"}"#, "must be one line"),
        ] {
            let error = serde_json::from_str::<Rule>(json).unwrap_err().to_string();
            assert!(error.contains(words), "{json}: {error}");
        }
    }

    #[test]
    fn what_is_allowed() {
        let web = |name: &super::super::GroupName| name.as_str() == "web";
        let ip = |text: &str| text.parse().unwrap();
        let rule = rule("in tcp/8000-8999 from group:web ipv4");
        assert!(rule.allows(Toward::In, 6, 8999, ip("10.0.0.1"), web));
        assert!(!rule.allows(Toward::Out, 6, 8999, ip("10.0.0.1"), web));
        assert!(!rule.allows(Toward::In, 17, 8999, ip("10.0.0.1"), web));
        assert!(!rule.allows(Toward::In, 6, 9000, ip("10.0.0.1"), web));
        assert!(!rule.allows(Toward::In, 6, 8999, ip("fd00::1"), web));
        assert!(!rule.allows(Toward::In, 6, 8999, ip("10.0.0.1"), |_| false));
        let echo: Rule = "in icmp/8".parse().unwrap();
        assert!(echo.allows(Toward::In, 1, 0x0800, ip("10.0.0.1"), web));
        assert!(!echo.allows(Toward::In, 1, 0x0300, ip("10.0.0.1"), web));
    }
}
