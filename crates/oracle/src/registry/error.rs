//! Why the registry refuses.

use crate::store::StoreError;
use core::net::IpAddr;
use std::collections::BTreeSet;
use weft_api::Code;
use weft_model::{
    Epoch, GroupName, IpNet, MacAddr, NoFamilyLeft, NveName, Rloc, StormError, TenantIp, TsMac, TsiName,
    VnName, Vni, XtrId,
};

/// Why an operation was refused. Nothing was changed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RegistryError {
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// An operator would free, or give to another, what an NVE that is connected may have in service.
    #[error(
        "'{tsi}' in VN '{vn}' is granted to NVE '{nve}', which is connected: detach or move it by that one, or take it away with --force (?force=true)"
    )]
    HolderConnected {
        /// The VN.
        vn: VnName,
        /// The tenant system.
        tsi: TsiName,
        /// Its owner, or who is to be.
        nve: NveName,
    },
    /// The same, of one that may be connected in a moment.
    #[error(
        "'{tsi}' in VN '{vn}' is granted to NVE {nve}, which has not been heard since the Oracle started: try again in half a minute, or take it away with --force (?force=true)"
    )]
    HolderUnheard {
        /// The VN.
        vn: VnName,
        /// The tenant system.
        tsi: TsiName,
        /// Its owner, or who is to be.
        nve: XtrId,
    },
    /// No such VN.
    #[error("there is no VN '{0}'; `weft get vns` lists them")]
    NoVn(VnName),
    /// A VN of that name exists.
    #[error("a VN '{name}' exists already (VNID {vni}); choose another name")]
    VnTaken {
        /// The name.
        name: VnName,
        /// Its VNID.
        vni: Vni,
    },
    /// A VN with that VNID exists.
    #[error("VNID {vni} belongs to VN '{holder}'; choose another or leave the choice to the Oracle")]
    VniTaken {
        /// The VNID.
        vni: Vni,
        /// The VN that has it.
        holder: VnName,
    },
    /// All 2^24 - 1 VNIDs are taken.
    #[error("all VNIDs are taken; delete a VN")]
    NoVniLeft,
    /// Link-local addresses are not assigned.
    #[error("subnet {0} is link-local: tenants choose those addresses themselves; name another or none")]
    LinkLocalSubnet(IpNet),
    /// Two settings of a VN that exclude each other.
    #[error(
        "learning 'distribute' with reply 'forward' cannot be: what the Oracle pushes, it answers for \
         (RFC 9437 section 3); use reply 'proxy', or learning 'oracle'"
    )]
    PushForward,
    /// Frames are to go to a gateway, and there is none.
    #[error(
        "miss 'gateway' in VN '{0}' needs an NVE to carry the frames; name it with --gateway, or use miss 'queue'"
    )]
    NoGateway(VnName),
    /// Nothing is asked for that a gateway could carry meanwhile.
    #[error(
        "miss 'gateway' in VN '{0}' needs learning 'oracle' or 'distribute': with 'flood' and 'translate' nothing waits \
         for an answer; use miss 'queue', or one of those"
    )]
    NothingToCarry(VnName),
    /// The NVE carries for VNs.
    #[error(
        "NVE '{nve}' is the gateway of VN {}; name another by `weft vn set VN --gateway`, or remove it with --force",
        quoted(vns)
    )]
    IsGateway {
        /// The NVE.
        nve: NveName,
        /// Whose.
        vns: Vec<VnName>,
    },
    /// Nothing would pass.
    #[error(transparent)]
    Storm(#[from] StormError),
    /// A tunnel policy by which nobody could be sent anything.
    #[error(transparent)]
    NoFamilyLeft(#[from] NoFamilyLeft),
    /// A VN's tunnel policy by which nobody could send to one of its tenant systems.
    #[error(
        "with that no RLOC is left to send to '{tsi}' in VN '{vn}': its own tunnel policy has priority 255 for the other family; change that first"
    )]
    NoFamilyLeftFor {
        /// The VN.
        vn: VnName,
        /// The tenant system.
        tsi: TsiName,
    },
    /// Tenant systems are in the VN.
    #[error("VN '{vn}' has {count} tenant systems in it ({}{}); detach them first", first.join(", "), if *count > first.len() { ", ..." } else { "" })]
    VnInUse {
        /// The VN.
        vn: VnName,
        /// How many.
        count: usize,
        /// Up to three of their names.
        first: Vec<String>,
    },
    /// The token limits the NVE to other VNs.
    #[error("NVE '{nve}' may not hold tenant systems in VN '{vn}': its join token was limited to others")]
    OutOfScope {
        /// The NVE.
        nve: NveName,
        /// The VN.
        vn: VnName,
    },
    /// No such grant.
    #[error("there is no tenant system '{tsi}' in VN '{vn}'; `weft get tsis` lists them")]
    NoTsi {
        /// The VN.
        vn: VnName,
        /// The name.
        tsi: TsiName,
    },
    /// Another NVE holds it.
    #[error(
        "'{tsi}' in VN '{vn}' is granted to NVE '{owner}' (epoch {epoch}); `weft tsi move --to` has it move here, or detach it there"
    )]
    GrantedElsewhere {
        /// The VN.
        vn: VnName,
        /// The tenant system.
        tsi: TsiName,
        /// Who holds it.
        owner: NveName,
        /// At which epoch.
        epoch: Epoch,
    },
    /// Where it moves to it may be in service already.
    #[error(
        "'{tsi}' in VN '{vn}' may be in service where it moves to: NVE {nve} has not said what it has since the Oracle started; try again in a moment"
    )]
    Unheard {
        /// The VN.
        vn: VnName,
        /// The tenant system.
        tsi: TsiName,
        /// Who is next.
        nve: XtrId,
    },
    /// It does not move to the caller.
    #[error(
        "'{tsi}' in VN '{vn}' does not move to NVE '{nve}': NVE '{owner}' holds it; `weft tsi move --to` names where it goes"
    )]
    NotNext {
        /// The VN.
        vn: VnName,
        /// The tenant system.
        tsi: TsiName,
        /// Who asks.
        nve: NveName,
        /// Who holds it.
        owner: NveName,
    },
    /// It is there.
    #[error("'{tsi}' in VN '{vn}' is on NVE '{nve}' already; name another to move it to")]
    MovesNowhere {
        /// The VN.
        vn: VnName,
        /// The tenant system.
        tsi: TsiName,
        /// Where it is and was to go.
        nve: NveName,
    },
    /// The caller holds it with another MAC address.
    #[error("'{tsi}' in VN '{vn}' has MAC address {has}, not {asked}; detach it to change that")]
    MacMismatch {
        /// The VN.
        vn: VnName,
        /// The tenant system.
        tsi: TsiName,
        /// Its MAC address.
        has: TsMac,
        /// The one asked for.
        asked: TsMac,
    },
    /// The caller holds it without that address.
    #[error(
        "'{tsi}' in VN '{vn}' exists without address {asked}; take it through its addresses, or detach it first"
    )]
    IpMismatch {
        /// The VN.
        vn: VnName,
        /// The tenant system.
        tsi: TsiName,
        /// The one asked for.
        asked: TenantIp,
    },
    /// The caller holds it in other groups.
    #[error(
        "'{tsi}' in VN '{vn}' is in groups {}, not {}; an operator changes that by `weft tsi set-groups`",
        names(has),
        names(asked)
    )]
    GroupsMismatch {
        /// The VN.
        vn: VnName,
        /// The tenant system.
        tsi: TsiName,
        /// Its groups.
        has: BTreeSet<GroupName>,
        /// Those asked for.
        asked: BTreeSet<GroupName>,
    },
    /// A word that stands for no group at all.
    #[error("a security group cannot be called 'none', which stands for no group; choose another name")]
    NoGroupsName,
    /// No such security group.
    #[error("there is no security group '{group}' in VN '{vn}'; `weft get groups` lists them")]
    NoGroup {
        /// The VN.
        vn: VnName,
        /// The name.
        group: GroupName,
    },
    /// Somebody uses it.
    #[error(
        "security group '{group}' in VN '{vn}' is used by {count} ({}{}); take it away there first",
        first.join(", "),
        if *count > first.len() { ", ..." } else { "" }
    )]
    GroupInUse {
        /// The VN.
        vn: VnName,
        /// The group.
        group: GroupName,
        /// How many.
        count: usize,
        /// Up to three of them.
        first: Vec<String>,
    },
    /// It was written since it was read.
    #[error(
        "security group '{group}' in VN '{vn}' is at revision {has}, not {asked}: somebody changed it meanwhile; \
         look at it again and repeat the change"
    )]
    GroupOutdated {
        /// The VN.
        vn: VnName,
        /// The group.
        group: GroupName,
        /// Its revision; 0 when there is none.
        has: u64,
        /// The one that was read.
        asked: u64,
    },
    /// Asked by an agent after which another one was started.
    #[error(
        "NVE {nve}'s agent was started again (start {latest}) after this was asked (start {start}): ask again; if no \
         other one runs with its identity, set the host's clock right and start it again"
    )]
    Outlived {
        /// The NVE.
        nve: XtrId,
        /// Who asked.
        start: u64,
        /// Who has asked since.
        latest: u64,
    },
    /// More than there may be of something of access policy.
    #[error("{what} may have at most {max} {of}; {got} are too many")]
    TooManyInPolicy {
        /// Who has it.
        what: String,
        /// The limit.
        max: usize,
        /// Of what.
        of: &'static str,
        /// How many it would be.
        got: usize,
    },
    /// Another tenant system has the MAC address.
    #[error("MAC address {mac} in VN '{vn}' belongs to '{holder}' on NVE '{nve}'; choose another or none")]
    MacTaken {
        /// The VN.
        vn: VnName,
        /// The address.
        mac: MacAddr,
        /// The tenant system that has it.
        holder: TsiName,
        /// Where that is.
        nve: NveName,
    },
    /// Another tenant system has the IP address.
    #[error("address {ip} in VN '{vn}' belongs to '{holder}' on NVE '{nve}'; choose another or none")]
    AddressTaken {
        /// The VN.
        vn: VnName,
        /// The address.
        ip: TenantIp,
        /// The tenant system that has it.
        holder: TsiName,
        /// Where that is.
        nve: NveName,
    },
    /// Not a host address of the VN.
    #[error("{ip} is no host address in a subnet of VN '{vn}' ({}); choose one inside", list(subnets))]
    OutsideSubnets {
        /// The VN.
        vn: VnName,
        /// The address.
        ip: IpAddr,
        /// The VN's subnets.
        subnets: Vec<IpNet>,
    },
    /// No address is left.
    #[error(
        "every host address of {} in VN '{vn}' is taken; add a subnet or detach tenant systems",
        list(subnets)
    )]
    SubnetFull {
        /// The VN.
        vn: VnName,
        /// Its subnets of that family.
        subnets: Vec<IpNet>,
    },
    /// More addresses than a tenant system may have.
    #[error("'{tsi}' may have at most {max} {what}")]
    TooManyAddresses {
        /// The tenant system.
        tsi: TsiName,
        /// The limit.
        max: usize,
        /// Of what.
        what: &'static str,
    },
    /// No MAC address could be made up that is free.
    #[error("no free MAC address was found for '{0}'; name one")]
    NoMac(TsiName),
    /// No such NVE.
    #[error("there is no NVE '{0}'; `weft get nves` lists them")]
    NoNve(NveName),
    /// No such xTR.
    #[error("there is no xTR '{0}'; `weft get xtrs` lists them")]
    NoXtr(NveName),
    /// An NVE or xTR has that identity.
    #[error("xTR-ID {0} is known already; each xTR needs one of its own")]
    XtrIdTaken(XtrId),
    /// The caller's NVE was removed.
    #[error(
        "NVE {0} has been removed from this fabric; to join again, move its identity.json away and start `weft nve --join TOKEN`"
    )]
    Revoked(XtrId),
    /// An NVE of that name exists.
    #[error(
        "an NVE or xTR '{0}' is known already; choose another name with --name, or remove that one first"
    )]
    NveTaken(NveName),
    /// An NVE has that RLOC.
    #[error("RLOC {rloc} belongs to NVE '{holder}'; remove that one first, or name another RLOC")]
    RlocTaken {
        /// The address.
        rloc: Rloc,
        /// Who has it.
        holder: NveName,
    },
    /// An NVE without an underlay address.
    #[error("an NVE needs at least one RLOC; name one with --rloc")]
    NoRloc,
    /// No such token.
    #[error("the join token is not known here; make one with `weft oracle token`")]
    TokenUnknown,
    /// Used up.
    #[error("the join token has been used already; make a new one with `weft oracle token`")]
    TokenUsed,
    /// Too old.
    #[error("the join token expired {0} s ago; make a new one with `weft oracle token`")]
    TokenExpired(u64),
    /// The token is limited to other RLOCs.
    #[error("the join token does not allow RLOC {0}; name one it allows, or make another token")]
    TokenRloc(Rloc),
    /// The token is limited to another name.
    #[error("the join token is for NVE '{allowed}', not '{asked}'")]
    TokenName {
        /// The name in the token.
        allowed: NveName,
        /// The name asked for.
        asked: NveName,
    },
    /// A token that nobody could use.
    #[error("a join token needs 1 to 100000 uses and 1 to 31536000 s; got {uses} uses, {ttl_s} s")]
    TokenLimits {
        /// Joins.
        uses: u32,
        /// Lifetime.
        ttl_s: u64,
    },
    /// No certificate could be made.
    #[error("no certificate could be made: {0}; look at the Oracle's log")]
    Certificate(String),
    /// The operation needs another role.
    #[error("{0}")]
    Forbidden(String),
    /// The request contradicts itself.
    #[error("{0}")]
    Bad(String),
}

fn list(nets: &[IpNet]) -> String {
    if nets.is_empty() {
        return "it has none".to_owned();
    }
    nets.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}

/// Names one after another.
fn names(all: &BTreeSet<GroupName>) -> String {
    if all.is_empty() {
        return "of its VN's choice".to_owned();
    }
    all.iter().map(|name| format!("'{name}'")).collect::<Vec<_>>().join(", ")
}

/// At most three names, as they are shown.
fn quoted(vns: &[VnName]) -> String {
    let mut text = vns.iter().take(3).map(|vn| format!("'{vn}'")).collect::<Vec<_>>().join(", ");
    if vns.len() > 3 {
        text.push_str(", ...");
    }
    text
}

impl RegistryError {
    /// The code that `/v1` answers with.
    #[must_use]
    pub const fn code(&self) -> Code {
        match self {
            Self::Store(_) => Code::StoreFailed,
            Self::Unheard { .. } | Self::HolderUnheard { .. } => Code::NotReady,
            Self::Certificate(_) => Code::Internal,
            Self::NoVn(_) | Self::NoTsi { .. } | Self::NoNve(_) | Self::NoXtr(_) | Self::NoGroup { .. } => {
                Code::NotFound
            }
            Self::GroupsMismatch { .. } => Code::GroupsMismatch,
            Self::GroupInUse { .. } => Code::GroupInUse,
            Self::GroupOutdated { .. } | Self::Outlived { .. } => Code::Outdated,
            Self::VnTaken { .. } => Code::VnTaken,
            Self::VniTaken { .. } | Self::NoVniLeft => Code::VniTaken,
            Self::PushForward | Self::NothingToCarry(_) => Code::NotSupported,
            Self::IsGateway { .. } | Self::HolderConnected { .. } => Code::NveInUse,
            Self::VnInUse { .. } => Code::VnInUse,
            Self::OutOfScope { .. } | Self::Forbidden(_) => Code::Forbidden,
            Self::GrantedElsewhere { .. } | Self::NotNext { .. } => Code::GrantedElsewhere,
            Self::MacMismatch { .. } | Self::IpMismatch { .. } => Code::AddressMismatch,
            Self::MacTaken { .. } | Self::NoMac(_) => Code::MacTaken,
            Self::AddressTaken { .. } => Code::AddressTaken,
            Self::OutsideSubnets { .. } => Code::OutsideSubnets,
            Self::SubnetFull { .. } => Code::SubnetFull,
            Self::TooManyAddresses { .. } => Code::TooManyAddresses,
            Self::Revoked(_) => Code::Revoked,
            Self::NveTaken(_) | Self::XtrIdTaken(_) => Code::NveTaken,
            Self::RlocTaken { .. } => Code::RlocTaken,
            Self::TokenUnknown => Code::TokenUnknown,
            Self::TokenUsed => Code::TokenUsed,
            Self::TokenExpired(_) => Code::TokenExpired,
            Self::TokenRloc(_) | Self::TokenName { .. } => Code::Forbidden,
            Self::MovesNowhere { .. }
            | Self::NoGroupsName
            | Self::NoGateway(_)
            | Self::Storm(_)
            | Self::NoFamilyLeft(_)
            | Self::NoFamilyLeftFor { .. }
            | Self::LinkLocalSubnet(_)
            | Self::NoRloc
            | Self::TooManyInPolicy { .. }
            | Self::TokenLimits { .. }
            | Self::Bad(_) => Code::BadRequest,
        }
    }
}
