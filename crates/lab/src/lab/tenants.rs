//! Tenant systems of a lab: attaching, detaching, moving.

use super::{Lab, excerpt, shown};
use crate::{
    clock::{self, CEILING},
    commands::{self, Attached},
    error::LabError,
    http,
    links::{AddressFlags, Links},
    netns::NetNs,
    process::Signal,
    record::TenantState,
    spec::{DeviceKind, NodeName, RlocFamily, TenantSpec},
    tenant, underlay,
};
use std::ffi::OsString;
use weft_model::TsMac;

impl Lab {
    /// Makes one more namespace in this lab, with its loopback down and nothing else in it.
    ///
    /// # Errors
    /// When the name is taken.
    pub fn add_namespace(&mut self, node: &str) -> Result<NetNs, LabError> {
        let node: NodeName = node.parse()?;
        let namespace = underlay::namespace(self.name(), node.as_str());
        if self.record.namespaces.contains(&namespace) {
            return Err(self.wrong(format!("it has a node {node} already")));
        }
        self.record.namespaces.push(namespace.clone());
        self.record.save(&self.root)?;
        NetNs::create(&namespace)
    }

    /// Waits until every tenant system may use its addresses: duplicate address detection (RFC 4862)
    /// takes a second or two, as on any IPv6 host.
    ///
    /// # Errors
    /// When it has not ended after 30 s, or has found a duplicate.
    pub fn settle(&self) -> Result<(), LabError> {
        for tenant in self.record.tenants.keys() {
            // Its agent does not answer before.
            if self.is_vm(tenant.as_str()) {
                continue;
            }
            let links = Links::open(&self.node(tenant.as_str())?)?;
            let states = clock::until(CEILING, || {
                let states = links.addresses(tenant::DEVICE)?;
                Ok::<_, LabError>(states.iter().all(|state| !state.tentative).then_some(states))
            })?;
            let states = states.ok_or_else(|| LabError::Timeout {
                what: format!("duplicate address detection of {tenant}"),
                ceiling: CEILING,
            })?;
            if let Some(state) = states.iter().find(|state| state.duplicate) {
                return Err(self.wrong(format!("{tenant} finds that {} is in use already", state.address)));
            }
        }
        Ok(())
    }

    /// Asks the NVE of `what.host`, over its local API and without the command line, to attach
    /// `device` as `name`. Nothing is remembered of it here: for measurements.
    ///
    /// # Errors
    /// When the NVE refuses.
    pub fn ask_attach_by_api(
        &self,
        name: &str,
        device: &str,
        what: &TenantSpec,
    ) -> Result<TenantState, LabError> {
        self.post_tsi(&commands::attach_body(name, device, what), what)
    }

    pub(super) fn post_tsi(
        &self,
        body: &serde_json::Value,
        what: &TenantSpec,
    ) -> Result<TenantState, LabError> {
        let socket = self.files.socket(what.host.as_str());
        let command = format!("POST {} {body}", commands::NVE_TSIS);
        let answer = http::post_unix(&socket, commands::NVE_TSIS, &body.to_string());
        let text = local_answer(&command, &socket, answer)?;
        self.read_attached(command, &text, what)
    }

    /// Waits until the NVE of `host` knows `eid`, in its tables too; asked over its local API without pause.
    /// False when it does not within `ceiling`.
    ///
    /// # Errors
    /// When the NVE does not answer.
    pub fn wait_mapping(
        &self,
        host: &str,
        eid: &str,
        ceiling: std::time::Duration,
    ) -> Result<bool, LabError> {
        let socket = self.files.socket(host);
        let known = || {
            let (_, answer) = http::get_unix(&socket, commands::NVE_MAPPINGS)
                .map_err(LabError::io(format!("GET {}", commands::NVE_MAPPINGS)))?;
            Ok::<_, LabError>(String::from_utf8_lossy(&answer).contains(eid).then_some(()))
        };
        Ok(clock::until(ceiling, known)?.is_some())
    }

    /// Asks the NVE of `what.host` to detach `name`, which [`Self::ask_attach_by_api`] attached.
    ///
    /// # Errors
    /// When it refuses.
    pub fn ask_detach(&self, name: &str, what: &TenantSpec) -> Result<(), LabError> {
        self.weft_at(what.host.as_str(), commands::tsi_detach(&self.files, name, what)).map(|_| ())
    }

    /// Makes a tenant system's namespace, connects and attaches it.
    ///
    /// # Errors
    /// When the name is taken, the host is unknown, or Weft refuses.
    pub fn attach(&mut self, name: &str, what: &TenantSpec) -> Result<TenantState, LabError> {
        let tenant: NodeName = name.parse()?;
        if what.device != DeviceKind::Vm {
            self.add_namespace(name)?;
        }
        self.record.spec.tenants.insert(tenant.clone(), what.clone());
        self.attach_in_place(&tenant, what)
    }

    /// Detaches a tenant system, and attaches it again on `host`, with the addresses it had. The
    /// namespace, and whatever runs in it, stays: what moves is where it is plugged in.
    ///
    /// # Errors
    /// When it is not attached or Weft refuses.
    pub fn move_cold(&mut self, name: &str, host: &str) -> Result<TenantState, LabError> {
        let (tenant, mut what) = self.spec_of(name)?;
        let had = self.tenant(name)?.clone();
        self.detach(name)?;
        what.host = host.parse()?;
        what.mac = Some(had.mac);
        what.ips = had.ips.iter().map(ipnet::IpNet::addr).collect();
        self.record.spec.tenants.insert(tenant.clone(), what.clone());
        self.attach_in_place(&tenant, &what)
    }

    /// Plugs a tenant system in whose MAC and IP addresses `what` names, and sets it up with them
    /// without duplicate address detection: it may send and receive from the moment that
    /// [`Self::attach_ready`] returns.
    ///
    /// # Errors
    /// When `what` names no MAC address or the host is unknown.
    pub fn make_ready(&mut self, name: &str, what: &TenantSpec) -> Result<(), LabError> {
        let state = self.made_up(&name.parse()?, what)?;
        if what.device == DeviceKind::Vm {
            return Err(self.wrong(format!("{name} is a virtual machine, which boots when it is attached")));
        }
        if what.mac.is_none() {
            return Err(self.wrong(format!("{name} cannot be set up before it is attached without a MAC")));
        }
        let namespace = match self.node(name) {
            Ok(namespace) => namespace,
            Err(_) => self.add_namespace(name)?,
        };
        self.record.spec.tenants.insert(name.parse()?, what.clone());
        self.record.save(&self.root)?;
        tenant::plug(&self.node(what.host.as_str())?, Some(&namespace), name, what.device)?;
        tenant::dress(&namespace, &state, AddressFlags::NoDetection)?;
        let links = Links::open(&namespace)?;
        links.wait_running(tenant::DEVICE)?;
        for ip in &what.ips {
            underlay::wait_usable(&links, tenant::DEVICE, *ip)?;
        }
        Ok(())
    }

    /// Attaches, over the local API, what [`Self::make_ready`] made ready.
    ///
    /// # Errors
    /// When the NVE refuses, or grants something else.
    pub fn attach_ready(&mut self, name: &str) -> Result<(), LabError> {
        let (tenant, what) = self.spec_of(name)?;
        let state = self.ask_attach_by_api(name, name, &what)?;
        let granted = |ip: &std::net::IpAddr| state.ips.iter().any(|net| net.addr() == *ip);
        if Some(state.mac) != what.mac || !what.ips.iter().all(granted) {
            return Err(self.wrong(format!("{name} was granted {state:?}, not what it has")));
        }
        self.record.tenants.insert(tenant, state);
        self.record.save(&self.root)
    }

    /// Detaches a tenant system and takes its interface away; its namespace stays.
    ///
    /// # Errors
    /// When it is not attached or Weft refuses.
    pub fn detach(&mut self, name: &str) -> Result<(), LabError> {
        let (tenant, what) = self.spec_of(name)?;
        self.tenant(name)?;
        if self.record.weft.is_some() {
            self.weft_at(what.host.as_str(), commands::tsi_detach(&self.files, name, &what))?;
        }
        let relay = format!("relay-{name}");
        if self.record.daemons.contains_key(&relay) {
            self.signal(&relay, Signal::SIGTERM)?;
            self.record.daemons.remove(&relay);
        }
        let inside = if what.device == DeviceKind::Vm {
            self.end_vm(name, what.host.as_str())?;
            None
        } else {
            Some(self.node(name)?)
        };
        tenant::unplug(&self.node(what.host.as_str())?, inside.as_ref(), name, what.device)?;
        self.record.tenants.remove(&tenant);
        self.record.save(&self.root)
    }

    pub(super) fn spec_of(&self, name: &str) -> Result<(NodeName, TenantSpec), LabError> {
        self.record
            .spec
            .tenants
            .get_key_value(name)
            .map(|(name, what)| (name.clone(), what.clone()))
            .ok_or_else(|| self.wrong(format!("it has no tenant {name}")))
    }

    pub(super) fn attach_in_place(
        &mut self,
        name: &NodeName,
        what: &TenantSpec,
    ) -> Result<TenantState, LabError> {
        let host = self.node(what.host.as_str())?;
        if what.device == DeviceKind::Vm {
            return self.boot(name, what, &host);
        }
        let namespace = self.node(name.as_str())?;
        tenant::plug(&host, Some(&namespace), name.as_str(), what.device)?;
        if what.device == DeviceKind::Tap {
            self.start_relay(name, what, &host, &namespace)?;
        }
        let state = self.granted(name, what)?;
        tenant::dress(&namespace, &state, AddressFlags::Detect)?;
        self.record.tenants.insert(name.clone(), state.clone());
        self.record.save(&self.root)?;
        Ok(state)
    }

    fn start_relay(
        &mut self,
        name: &NodeName,
        what: &TenantSpec,
        host: &NetNs,
        namespace: &NetNs,
    ) -> Result<(), LabError> {
        let Some(relay) = self.relay.clone() else {
            return Err(self.wrong(format!("tenant {name} has a TAP and there is no program for its relay")));
        };
        let mut line: Vec<OsString> = vec![relay.program.into_os_string()];
        line.extend(relay.words.iter().map(OsString::from));
        for (option, value) in [
            ("--host-namespace", host.name()),
            ("--host-device", name.as_str()),
            ("--tenant-namespace", namespace.name()),
            ("--tenant-device", tenant::DEVICE),
        ] {
            line.extend([OsString::from(option), OsString::from(value)]);
        }
        self.start(&format!("relay-{name}"), &what.host, line)
    }

    /// What Weft grants it, or what the file says where there is no Weft.
    pub(super) fn granted(&self, name: &NodeName, what: &TenantSpec) -> Result<TenantState, LabError> {
        if self.record.weft.is_some() { self.ask_attach(name, what) } else { self.made_up(name, what) }
    }

    fn ask_attach(&self, name: &NodeName, what: &TenantSpec) -> Result<TenantState, LabError> {
        let line = commands::tsi_attach(&self.files, name.as_str(), name.as_str(), what);
        let text = self.weft_at(what.host.as_str(), &line)?;
        self.read_attached(shown(&line), &text, what)
    }

    fn read_attached(&self, command: String, text: &str, what: &TenantSpec) -> Result<TenantState, LabError> {
        let wrong =
            |reason: String| LabError::Answer { command: command.clone(), reason, answer: excerpt(text) };
        let answer: Attached = serde_json::from_str(text).map_err(|error| wrong(error.to_string()))?;
        let ips = match self.record.spec.vns.get(&what.vn) {
            Some(vn) => answer.addresses(vn).map_err(wrong)?,
            None => Vec::new(),
        };
        Ok(TenantState { mac: answer.mac, ips, mtu: answer.mtu })
    }

    /// Without Weft: the file's addresses, and a MAC address from the tenant's place in the file.
    fn made_up(&self, name: &NodeName, what: &TenantSpec) -> Result<TenantState, LabError> {
        let place = self.record.spec.tenants.keys().position(|tenant| tenant == name).unwrap_or_default();
        let subnets = self.record.spec.vns.get(&what.vn).map_or(&[][..], |vn| &vn.subnets);
        let ips = what
            .ips
            .iter()
            .map(|ip| commands::with_prefix(&ip.to_string(), subnets))
            .collect::<Result<_, _>>()
            .map_err(|reason| self.wrong(reason))?;
        let mac = what.mac.unwrap_or_else(|| TsMac::local(place as u64 + 1).get());
        let both = self.record.spec.underlay.rloc == Some(RlocFamily::Both);
        let outer = if self.rloc(what.host.as_str())?.is_ipv4() && !both { 50 } else { 70 };
        Ok(TenantState { mac, ips, mtu: self.record.spec.underlay.mtu.saturating_sub(outer) })
    }
}

/// What the NVE answered over its local API.
pub(super) fn local_answer(
    command: &str,
    socket: &std::path::Path,
    answer: std::io::Result<http::Answer>,
) -> Result<String, LabError> {
    let (code, body) = answer.map_err(LabError::io(format!("{command} at {}", socket.display())))?;
    let text = String::from_utf8_lossy(&body).into_owned();
    if (200..300).contains(&code) {
        return Ok(text);
    }
    Err(LabError::Command { command: command.to_owned(), status: code.to_string(), stderr: excerpt(&text) })
}
