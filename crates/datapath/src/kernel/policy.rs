//! Policies in the maps: rules and classes, and what rules have let through.

use super::{
    Kernel,
    abi::{Match, OfClass, RuleValue},
};
use crate::{
    Allow, ClassId, DatapathError, Policy, PolicyId, Ports, Prefix, RULE_COUNTERS, RuleKey, Tables, Toward,
};
use core::net::IpAddr;
use weft_model::Vni;

/// Bits of a key before its port, and before its address.
const RULE_PREFIX: u32 = 96;
const CLASS_PREFIX: u32 = 64;
/// Before the bits of an IPv4 address, which stands there as an IPv6 one.
const MAPPED: u32 = 96;
const ANY_PROTOCOL: u16 = 256;

pub(super) const fn toward_code(toward: Toward) -> u8 {
    match toward {
        Toward::Out => 0,
        Toward::In => 1,
    }
}

pub(super) const fn toward_of(code: u8) -> Toward {
    if code == 0 { Toward::Out } else { Toward::In }
}

pub(super) fn policy_of(id: u32, generation: u32, log_refused: bool) -> Option<Policy> {
    Some(Policy { id: PolicyId::new(id)?, generation, log_refused })
}

fn rule_key(key: &RuleKey) -> (u32, Match) {
    let data = Match {
        policy: key.policy.get(),
        class: key.class.0,
        toward: toward_code(key.toward).into(),
        protocol: key.protocol.map_or(ANY_PROTOCOL, u16::from),
        number: key.ports.first().to_be_bytes(),
        pad: [0; 2],
    };
    (RULE_PREFIX + u32::from(key.ports.bits()), data)
}

/// None for what [`rule_key`] never makes.
fn rule_of(bits: u32, data: &Match) -> Option<RuleKey> {
    let bits = u8::try_from(bits.checked_sub(RULE_PREFIX)?).ok()?;
    let protocol = match data.protocol {
        ANY_PROTOCOL => None,
        protocol => Some(u8::try_from(protocol).ok()?),
    };
    Some(RuleKey {
        policy: PolicyId::new(data.policy)?,
        toward: if data.toward == 0 { Toward::Out } else { Toward::In },
        class: ClassId(data.class),
        protocol,
        ports: Ports::new(u16::from_be_bytes(data.number), bits).ok()?,
    })
}

fn class_key(vni: Vni, prefix: Prefix) -> (u32, OfClass) {
    let v4 = prefix.addr().is_ipv4();
    let bits = CLASS_PREFIX + u32::from(prefix.bits()) + if v4 { MAPPED } else { 0 };
    (bits, OfClass { vni: vni.get(), family: if v4 { 4 } else { 6 }, ip: prefix.addr().into() })
}

fn class_of(bits: u32, data: &OfClass) -> Option<(Vni, Prefix)> {
    let before = CLASS_PREFIX + if data.family == 4 { MAPPED } else { 0 };
    let bits = u8::try_from(bits.checked_sub(before)?).ok()?;
    let prefix = Prefix::new(IpAddr::from(data.ip), bits).ok()?;
    Some((Vni::new(data.vni).ok()?, prefix))
}

impl Kernel {
    pub(super) fn set_rule(&mut self, key: &RuleKey, allow: Allow) -> Result<(), DatapathError> {
        if allow.rule >= RULE_COUNTERS {
            return Err(DatapathError::NoRuleCounter(allow.rule));
        }
        let (bits, key) = rule_key(key);
        self.maps.rules.set(bits, key, RuleValue { rule: allow.rule, log: allow.log.into() })
    }

    pub(super) fn remove_rule(&mut self, key: &RuleKey) -> Result<(), DatapathError> {
        let (bits, key) = rule_key(key);
        self.maps.rules.remove(bits, key)
    }

    pub(super) fn set_class(
        &mut self,
        vni: Vni,
        prefix: Prefix,
        class: ClassId,
    ) -> Result<(), DatapathError> {
        let (bits, key) = class_key(vni, prefix);
        self.maps.classes.set(bits, key, class.0)
    }

    pub(super) fn remove_class(&mut self, vni: Vni, prefix: Prefix) -> Result<(), DatapathError> {
        let (bits, key) = class_key(vni, prefix);
        self.maps.classes.remove(bits, key)
    }

    pub(super) fn observe_policies(&self, tables: &mut Tables) -> Result<(), DatapathError> {
        let rule = |(bits, key, value): (u32, Match, RuleValue)| {
            Some((rule_of(bits, &key)?, Allow { rule: value.rule, log: value.log != 0 }))
        };
        tables.rules = self.maps.rules.all()?.into_iter().filter_map(rule).collect();
        let class = |(bits, key, value): (u32, OfClass, u32)| Some((class_of(bits, &key)?, ClassId(value)));
        tables.classes = self.maps.classes.all()?.into_iter().filter_map(class).collect();
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_mean_what_they_were_made_of() {
        let vni = Vni::new(7).unwrap();
        for (addr, len) in
            [("10.0.0.0", 8), ("0.0.0.0", 0), ("10.1.2.3", 32), ("::", 0), ("fd00::", 8), ("fd00::1", 128)]
        {
            let prefix = Prefix::new(addr.parse().unwrap(), len).unwrap();
            let (bits, key) = class_key(vni, prefix);
            assert_eq!(class_of(bits, &key), Some((vni, prefix)));
        }
        for (protocol, ports) in
            [(None, Ports::ALL), (Some(0), Ports::one(80)), (Some(255), Ports::new(0x800, 8).unwrap())]
        {
            for toward in [Toward::In, Toward::Out] {
                let policy = PolicyId::new(9).unwrap();
                let key = RuleKey { policy, toward, class: ClassId(3), protocol, ports };
                let (bits, data) = rule_key(&key);
                assert_eq!(rule_of(bits, &data), Some(key));
            }
        }
    }
}
