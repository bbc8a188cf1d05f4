//! What a start needs of the host. All of it is looked at, and taken, before an Oracle is asked for
//! anything; a start that is refused gives it back.

use super::{
    NveError, NveOptions,
    devices::{Link, Links},
    driver::Input,
    handover,
    lisp::LispSockets,
    local::{self, PeerChecked},
    metrics,
    plane::Plane,
    session::KeyLogTo,
    uplinks::Rule,
};
use std::collections::BTreeSet;
use tokio::{net::TcpListener, sync::mpsc};
use weft_datapath::{DatapathError, Tables};
use weft_model::Rloc;

/// Encapsulation takes this much of the underlay's MTU.
const OVERHEAD_V4: u16 = 50;
const OVERHEAD_V6: u16 = 70;
/// IPv6's least MTU (RFC 8200 section 5).
const LEAST_MTU: u16 = 1_280;

/// The host's part of a start.
pub(super) struct Host {
    pub(super) links: Links,
    /// Every link there is.
    pub(super) all: Vec<Link>,
    pub(super) rule: Rule,
    pub(super) uplinks: Vec<Link>,
    pub(super) tenant_mtu: u16,
    pub(super) sockets: LispSockets,
    pub(super) peers: handover::Listeners,
    pub(super) scrapes: TcpListener,
    pub(super) listener: PeerChecked,
    pub(super) plane: Opened,
}

/// The data plane as it was found.
pub(super) struct Opened {
    pub(super) plane: Plane,
    pub(super) observed: Tables,
    /// Nothing of it was there before.
    made: bool,
}

impl Host {
    /// Checks everything and takes it: sockets, the data plane, and last the place of the local API.
    pub(super) async fn take(
        options: &NveOptions,
        rlocs: &BTreeSet<Rloc>,
        inputs: &mpsc::Sender<Input>,
    ) -> Result<Self, NveError> {
        if !privileged() {
            return Err(NveError::Privileges);
        }
        one_of_each_family(rlocs)?;
        let links = Links::open(inputs.clone())?;
        let all = links.all().await?;
        let rule = Rule::new(options, rlocs);
        let uplinks = rule.find(&all)?;
        let most = tenant_mtu(&uplinks, rlocs)?;
        let tenant_mtu = options.tenant_mtu.unwrap_or(most);
        if !(LEAST_MTU..=most).contains(&tenant_mtu) {
            return Err(NveError::TenantMtu { mtu: tenant_mtu, least: LEAST_MTU, most });
        }
        // Of an address that is not this host's this is what fails, whatever the uplinks are.
        let sockets = LispSockets::bind(rlocs, options.lisp_port)?;
        if let Some(path) = &options.tls_key_log {
            KeyLogTo::open(path).map_err(NveError::file("open", path))?;
        }
        let peers = handover::bind(rlocs, options.peer_port)?;
        let scrapes = metrics::listen(options.http_listen).await?;
        let plane = Opened::open(options, &all).await?;
        let listener = match local::listen(&options.socket) {
            Ok(listener) => listener,
            Err(error) => {
                plane.give_back().await;
                return Err(error);
            }
        };
        Ok(Self { links, all, rule, uplinks, tenant_mtu, sockets, peers, scrapes, listener, plane })
    }

    /// After a start that goes no further.
    pub(super) async fn give_back(self) {
        self.plane.give_back().await;
    }
}

impl Opened {
    async fn open(options: &NveOptions, links: &[Link]) -> Result<Self, NveError> {
        let (pin_dir, vxlan) = (options.pin_dir.clone(), options.vxlan_device.clone());
        let had_device = links.iter().any(|link| link.name == vxlan);
        let mut plane = tokio::task::spawn_blocking(move || Plane::open(pin_dir, vxlan))
            .await
            .map_err(|_| NveError::Ended("the data plane"))??;
        plane.listen().map_err(NveError::file("listen to", "the punt ring"))?;
        let observed = plane.observed()?;
        let made = !had_device && observed == Tables::default();
        Ok(Self { plane, observed, made })
    }

    /// Removes the data plane if this start made it.
    async fn give_back(self) {
        if !self.made {
            return;
        }
        match tokio::task::spawn_blocking(move || self.plane.uninstall()).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::warn!(%error, "cannot remove the data plane of a start that failed"),
            Err(error) => tracing::warn!(%error, "removing the data plane ended"),
        }
    }
}

/// Whether this process may make a data plane (capabilities(7)); where that cannot be told, it may try.
pub(super) fn privileged() -> bool {
    const NET_ADMIN: u64 = 1 << 12;
    const SYS_ADMIN: u64 = 1 << 21;
    const BPF: u64 = 1 << 39;
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("CapEff:"));
    let Some(held) = line.and_then(|hex| u64::from_str_radix(hex.trim(), 16).ok()) else { return true };
    held & NET_ADMIN != 0 && held & (BPF | SYS_ADMIN) != 0
}

/// Tunnels have one source address of each family.
fn one_of_each_family(rlocs: &BTreeSet<Rloc>) -> Result<(), NveError> {
    for v4 in [true, false] {
        let mut family = rlocs.iter().filter(|rloc| rloc.get().is_ipv4() == v4);
        if let (Some(one), Some(other)) = (family.next(), family.next()) {
            return Err(DatapathError::TwoRlocs(*one, *other).into());
        }
    }
    Ok(())
}

fn tenant_mtu(uplinks: &[Link], rlocs: &BTreeSet<Rloc>) -> Result<u16, NveError> {
    let overhead = if rlocs.iter().any(|r| r.get().is_ipv6()) { OVERHEAD_V6 } else { OVERHEAD_V4 };
    let Some(smallest) = uplinks.iter().min_by_key(|l| l.mtu) else { return Ok(1_500 - overhead) };
    let mtu = u16::try_from(smallest.mtu.saturating_sub(overhead.into())).unwrap_or(u16::MAX - overhead);
    if mtu < LEAST_MTU {
        let (device, mtu) = (smallest.name.clone(), smallest.mtu);
        return Err(NveError::Mtu { device, mtu, least: LEAST_MTU, overhead });
    }
    Ok(mtu)
}
