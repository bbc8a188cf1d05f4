//! Announcements on behalf of who has just come into service (requirement V7; RFC 5227 section 3, RFC 4861 section
//! 7.2.6), where a VN floods or translates: there other NVEs learn from frames where it is, and one that only listens
//! sends none; and where it translates (RFC 7586) other tenants have the MAC address of the NVE that it has left. One
//! without an address is announced by its MAC, as hypervisors do it (RFC 903). Each is said twice, as RFC 5227 section
//! 2.3 has it: what says it may be lost, or come before the NVE that it has left knows that it has.

use super::members::Membership;
use super::proxy::Query;
use super::tsi::{State, Tsi};
use super::{Core, Output, Timer};
use ::core::net::{IpAddr, Ipv4Addr};
use etherparse::{ArpEthIpv4Packet, ArpOperation, PacketBuilder};
use weft_model::{Learning, MacAddr, TsiId, Vni};

/// How often it is still to be said.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Times {
    Once,
    Twice,
}

impl Core {
    /// An interface has come into service because its hypervisor has said so, or it itself: that is said into its VN where it
    /// floods or translates, for each of its addresses, as soon as it is known who else is in the VN, and once more after a while.
    pub(super) fn announce(&mut self, id: &TsiId) {
        self.timers.cancel(&Timer::Announce(id.clone()));
        self.say_where(id, Times::Twice);
    }

    /// It has been announced, a while ago.
    pub(super) fn announce_again(&mut self, id: &TsiId) {
        self.say_where(id, Times::Once);
    }

    fn say_where(&mut self, id: &TsiId, times: Times) {
        let learning = self.vns.get(&id.vni).map(|vn| vn.learning);
        if matches!(learning, Some(Learning::Flood | Learning::Translate)) {
            self.announcing.insert(id.clone(), times);
            self.announce_all(id.vni);
        }
    }

    /// Who else is in a VN may be known now.
    pub(super) fn announce_all(&mut self, vni: Vni) {
        let known = |members: &Membership| members.complete && members.named.is_none();
        if !self.memberships.get(&vni).is_some_and(known) {
            return;
        }
        let ready: Vec<TsiId> = self.announcing.keys().filter(|id| id.vni == vni).cloned().collect();
        for id in ready {
            let times = self.announcing.remove(&id);
            // What waits for an Oracle's word may not be its own.
            let own = |tsi: &&Tsi| tsi.state == State::Activated && tsi.waiting.is_none();
            let Some(tsi) = self.tsis.get(&id).filter(own) else { continue };
            let (vap, mac) = (tsi.device.index, tsi.grant.mac.get());
            if tsi.grant.ips.is_empty() && self.vns.get(&vni).is_some_and(|vn| vn.learning == Learning::Flood)
            {
                self.outputs.push_back(Output::Resend(vap, reverse(mac)));
            }
            for ip in &tsi.grant.ips {
                let frame = match ip.get() {
                    IpAddr::V4(ip) => announcement(ip, mac),
                    // Unsolicited: to all nodes.
                    IpAddr::V6(_) => {
                        let (target, asker_mac) = (*ip, MacAddr::BROADCAST);
                        Query { vap, vni, target, asker_mac, asker_ip: None }.answer(mac)
                    }
                };
                self.outputs.push_back(Output::Resend(vap, frame));
            }
            if times == Some(Times::Twice) {
                let again = self.now + self.config.timing.announce_again;
                self.timers.set(Timer::Announce(id), again);
            }
        }
    }
}

/// A gratuitous ARP request.
fn announcement(ip: Ipv4Addr, mac: MacAddr) -> Vec<u8> {
    let arp = ArpEthIpv4Packet {
        operation: ArpOperation::REQUEST,
        sender_mac: mac.octets(),
        sender_ipv4: ip.octets(),
        target_mac: [0; 6],
        target_ipv4: ip.octets(),
    };
    let builder = PacketBuilder::ethernet2(mac.octets(), MacAddr::BROADCAST.octets()).arp(arp.into());
    let mut frame = Vec::with_capacity(builder.size());
    // Writing to a vector of the right size cannot fail; an empty frame would be refused by the device.
    let _ = builder.write_to_vec(&mut frame);
    frame
}

/// A RARP request for one's own address, to all: ARP's form under another EtherType.
fn reverse(mac: MacAddr) -> Vec<u8> {
    let (all, own) = (MacAddr::BROADCAST.octets(), mac.octets());
    // Ethernet and IPv4, six and four octets, "request reverse".
    let fixed = [0x80, 0x35, 0, 1, 8, 0, 6, 4, 0, 3];
    let mut frame = [&all[..], &own, &fixed, &own, &[0; 4], &own, &[0; 4]].concat();
    // As short as a frame may be.
    frame.resize(60, 0);
    frame
}
