//! What became of frames, and how many.

use crate::Path;
use core::{fmt, time::Duration};
use weft_model::Vni;

macro_rules! reasons {
    ($($(#[doc = $doc:literal])* $name:ident = $code:literal, $text:literal;)*) => {
        /// What became of a frame. Codes below 32 are not losses. The codes and names are those of
        /// `enum weft_reason` in `bpf/abi.h`.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[repr(u16)]
        pub enum Reason {
            $($(#[doc = $doc])* $name = $code,)*
        }

        impl Reason {
            /// Every reason, ascending by code.
            pub const ALL: &[Self] = &[$(Self::$name,)*];

            /// The reason with this code.
            #[must_use]
            pub const fn from_code(code: u16) -> Option<Self> {
                match code {
                    $($code => Some(Self::$name),)*
                    _ => None,
                }
            }

            /// The word operators see, in kebab case.
            #[must_use]
            pub const fn as_str(self) -> &'static str {
                match self {
                    $(Self::$name => $text,)*
                }
            }
        }
    };
}

reasons! {
    /// Handed to a tenant system here; it came from another NVE.
    Delivered = 1, "delivered";
    /// Sent to another NVE.
    Encapsulated = 2, "encapsulated";
    /// From one VAP here to another.
    Local = 3, "local";
    /// An ARP request or Neighbor Solicitation, answered here.
    Answered = 4, "answered";
    /// Handed to the agent.
    Punted = 5, "punted";
    /// A liveness echo, answered here.
    Echoed = 6, "echoed";
    /// Counted beside [`Reason::Delivered`]: the sender is known behind another NVE.
    SrcMoved = 7, "src-moved";
    /// A frame for all, sent to the other VAPs and NVEs of its VN; once, however many those are.
    Replicated = 8, "replicated";
    /// Counted beside what becomes of it: sent to the VN's gateway, for its destination is asked for; or, inward,
    /// carried on by this NVE as a gateway.
    ByGateway = 9, "by-gateway";
    /// Sent on to the NVE that its destination has moved to from here.
    Redirected = 10, "redirected";
    /// The device is no VAP.
    NoVap = 32, "no-vap";
    /// The VAP it came from or goes to is not Activated (RFC 8394).
    NotActivated = 33, "not-activated";
    /// It carries a VLAN tag (RFC 7348 section 6.1).
    VlanTagged = 34, "vlan-tagged";
    /// Its headers do not add up.
    Malformed = 35, "malformed";
    /// Source MAC not the VAP's; of a frame that an NVE sent, another NVE's.
    SpoofedMac = 36, "spoofed-mac";
    /// ARP sender addresses not the VAP's.
    SpoofedArp = 37, "spoofed-arp";
    /// Source IP not the VAP's.
    SpoofedIp = 38, "spoofed-ip";
    /// ND link-layer address option, or an advertised target, not the VAP's.
    SpoofedNd = 39, "spoofed-nd";
    /// Fragments or extension headers hide what it is (RFC 6980, RFC 7112).
    HiddenL4 = 40, "hidden-l4";
    /// A Router Advertisement or Redirect from a tenant system (RFC 6105), or an IGMP or MLD query where this NVE is
    /// the querier.
    RogueRouter = 41, "rogue-router";
    /// A DHCP server's message from a tenant system.
    RogueDhcp = 42, "rogue-dhcp";
    /// A gratuitous ARP or unsolicited Neighbor Advertisement: never proxied.
    Announcement = 43, "announcement";
    /// A question about the asker's own address.
    OwnAddress = 44, "own-address";
    /// A question about an address known to be nobody's.
    Nobody = 45, "nobody";
    /// Any other group destination, in a VN that does not replicate such frames.
    BumOff = 46, "bum-off";
    /// Unicast to a MAC no table holds, asked for less than a second ago.
    UnknownMac = 47, "unknown-mac";
    /// Unicast to a MAC known not to exist.
    Nowhere = 48, "nowhere";
    /// Unicast to the VAP it came from.
    ToSelf = 49, "to-self";
    /// Larger than the tenant MTU; the sender is told where the protocols allow.
    TooBig = 50, "too-big";
    /// The destination's RLOC is of a family this NVE has none of.
    NoRloc = 51, "no-rloc";
    /// To be punted, but over the VAP's rate.
    PuntLimited = 52, "punt-limited";
    /// To be punted, but the agent is behind.
    PuntRingFull = 53, "punt-ring-full";
    /// From an underlay address that may not send here.
    ForeignRloc = 54, "foreign-rloc";
    /// From a peer, but no VXLAN: I flag clear, VNI 0, too short.
    BadVxlan = 55, "bad-vxlan";
    /// For a VN without a VAP here. Counted without VNI.
    UnknownVni = 56, "unknown-vni";
    /// An inner group destination that the VN does not let in: any, or ARP and ND.
    InnerGroup = 57, "inner-group";
    /// From a tenant system that is here, so not there; or that another NVE has held for a while.
    Fenced = 58, "fenced";
    /// For a MAC that is not at a VAP here, or for all VAPs of a VN of which none is Activated.
    NoSuchTs = 59, "no-such-ts";
    /// Congestion was signalled outside and cannot be inside (RFC 6040 section 4.2).
    EcnLost = 60, "ecn-lost";
    /// A kernel helper refused; memory, mostly.
    Kernel = 61, "kernel";
    /// VXLAN that came to this host over a device that is no uplink, a tenant system's of somebody else's
    /// making for one.
    OtherLink = 62, "other-link";
    /// To be replicated, but over the VN's rate.
    Storm = 63, "storm";
    /// Neither IP nor ARP, in a VN that translates: nothing in it says whose it is.
    Untranslatable = 64, "untranslatable";
    /// For a multicast group that nobody asked for, in a VN that replicates.
    NoReceiver = 65, "no-receiver";
    /// To be redirected, but back to the NVE it came from, or too often already.
    RedirectLoop = 66, "redirect-loop";
    /// No rule of the policy of the VAP that it came from ([`Direction::Out`]) or is for ([`Direction::In`]) allows it.
    Denied = 67, "denied";
    /// More than the tunnel policy of the VAP that it came from ([`Direction::Out`]) or is for ([`Direction::In`]) lets
    /// pass.
    RateLimited = 68, "rate-limited";
    /// For the IP address of one tenant system and the MAC address of another, from a VAP with a policy: rules look at the
    /// one, its way is the other's.
    WrongMac = 69, "wrong-mac";
}

impl Reason {
    /// Whether a frame was lost.
    #[must_use]
    pub const fn is_drop(self) -> bool {
        self as u16 >= 32
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// Which way frames were going.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Direction {
    /// From a tenant system.
    Out,
    /// From the underlay.
    In,
}

/// One counter, summed over the CPUs. Only ever grows, until the last VAP of its VN is removed: then it
/// is gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Counter {
    /// The virtual network; none for frames of no VN that is here.
    pub vni: Option<Vni>,
    /// What became of them.
    pub reason: Reason,
    /// By which path; for frames dropped before one was taken, the VAP's.
    pub path: Path,
    /// Going where.
    pub direction: Direction,
    /// Frames; a segmentation-offload frame counts as the packets it becomes.
    pub packets: u64,
    /// Octets of the frames, Ethernet header included, tunnel headers not, except for frames
    /// dropped before they were decapsulated.
    pub bytes: u64,
}

/// How long ago a location was last sent to; accurate to about a second.
pub type Idle = Duration;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_codes_are_those_of_the_header() {
        let header = include_str!("../bpf/abi.h");
        let body = header.split("enum weft_reason {").nth(1).unwrap().split('}').next().unwrap();
        let theirs: Vec<(String, u16)> = body
            .split(',')
            .filter_map(|entry| entry.split_once('='))
            .map(|(name, code)| {
                let name = name.trim().strip_prefix("WEFT_").unwrap().to_lowercase().replace('_', "-");
                (name, code.trim().parse().unwrap())
            })
            .collect();
        let ours: Vec<(String, u16)> =
            Reason::ALL.iter().map(|r| (r.as_str().to_owned(), *r as u16)).collect();
        assert_eq!(theirs, ours);
        for r in Reason::ALL {
            assert_eq!(Reason::from_code(*r as u16), Some(*r));
        }
    }
}
