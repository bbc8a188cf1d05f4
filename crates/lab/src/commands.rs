//! Every `weft` command line that the lab types, and what it reads of the answers. The lab knows
//! nothing else of Weft.

use crate::spec::{TenantSpec, VnSpec};
use ipnet::IpNet;
use serde::Deserialize;
use std::{
    ffi::OsString,
    net::IpAddr,
    path::{Path, PathBuf},
};
use weft_model::MacAddr;

/// LISP, UDP and the session on TCP.
pub const LISP_PORT: u16 = 4342;
/// The Oracle's /v1 API.
pub const API_PORT: u16 = 4343;
/// Metrics and health, on loopback.
pub const HTTP_PORT: u16 = 4344;
/// VXLAN (RFC 7348).
pub const VXLAN_PORT: u16 = 4789;
/// Where BPF maps and links are pinned.
pub const BPF_FS: &str = "/sys/fs/bpf";
/// The path of the Oracle's readiness probe: 200 when it is ready.
pub const ORACLE_READY: &str = "/readyz";
/// The path of the NVE's state on its unix socket: a JSON object with a boolean `ready`.
pub const NVE_STATUS: &str = "/v1/status";

/// Where the NVE's local API takes attachments.
pub const NVE_TSIS: &str = "/v1/tsis";
/// Where an NVE tells what it knows of others.
pub const NVE_MAPPINGS: &str = "/v1/mappings";

/// The body of a `POST` to [`NVE_TSIS`]; the answer is [`Attached`].
#[must_use]
pub fn attach_body(name: &str, device: &str, tenant: &TenantSpec) -> serde_json::Value {
    let mut body = serde_json::json!({"vn": tenant.vn, "name": name, "device": device, "ips": tenant.ips});
    if let (Some(mac), Some(body)) = (tenant.mac, body.as_object_mut()) {
        body.insert("mac".to_owned(), mac.to_string().into());
    }
    body
}

/// The body that has [`NVE_TSIS`] hold it ready where it moves to (RFC 8394's Associate).
#[must_use]
pub fn associate_body(name: &str, device: &str, tenant: &TenantSpec) -> serde_json::Value {
    let mut body = attach_body(name, device, tenant);
    if let Some(body) = body.as_object_mut() {
        body.insert("state".to_owned(), ASSOCIATED.into());
    }
    body
}

/// An interface in service, for [`state_path`].
pub const ACTIVATED: &str = "activated";
/// An interface held ready, out of service.
pub const ASSOCIATED: &str = "associated";

/// Where the NVE's local API takes `{"state": ...}` of an interface, by `PUT`.
#[must_use]
pub fn state_path(vn: &str, name: &str) -> String {
    format!("{NVE_TSIS}/{vn}/{name}/state")
}

/// `weft tsi move`: to a host, or called off.
#[must_use]
pub fn tsi_move(context: &Path, name: &str, vn: &str, to: Option<&str>) -> Vec<OsString> {
    let mut line = args(&[&"tsi", &"move", &"--vn", &vn, &"--name", &name, &"--context", &context]);
    match to {
        Some(host) => line.extend(args(&[&"--to", &host])),
        None => line.extend(args(&[&"--cancel"])),
    }
    line
}

/// Whether the NVE that answered `body` to [`NVE_STATUS`] is ready.
#[must_use]
pub fn nve_ready(body: &[u8]) -> bool {
    #[derive(Deserialize)]
    struct Status {
        ready: bool,
    }
    serde_json::from_slice::<Status>(body).is_ok_and(|status| status.ready)
}

/// Files of a node inside a lab's run directory.
#[derive(Clone, Debug)]
pub struct Files {
    /// The run directory.
    pub run: PathBuf,
}

impl Files {
    /// The data directory of a node's daemon.
    #[must_use]
    pub fn data(&self, node: &str) -> PathBuf {
        self.run.join("data").join(node)
    }

    /// The local API socket of the NVE on `host`.
    #[must_use]
    pub fn socket(&self, host: &str) -> PathBuf {
        self.run.join(format!("{host}.sock"))
    }

    /// The log of daemon `name`.
    #[must_use]
    pub fn log(&self, name: &str) -> PathBuf {
        self.run.join(format!("{name}.log"))
    }

    /// What the agent in a virtual machine listens on, while the machine is on `host`.
    #[must_use]
    pub fn serial(&self, vm: &str, host: &str) -> PathBuf {
        crate::vm::VmFiles::of(self, vm, host).control
    }

    /// The operator's context file that the Oracle writes at its first start.
    #[must_use]
    pub fn context(&self, oracle: &str) -> PathBuf {
        self.data(oracle).join("operator.json")
    }
}

/// The directory of a lab's BPF pins: neither another lab's, whatever the names, nor that of an NVE
/// of the machine itself.
#[must_use]
pub fn pins(lab: &str) -> PathBuf {
    Path::new(BPF_FS).join("weft-lab").join(lab)
}

/// The BPF pin directory of the NVE on `host`.
#[must_use]
pub fn pin_dir(lab: &str, host: &str) -> PathBuf {
    pins(lab).join(host)
}

fn args(words: &[&dyn AsRef<std::ffi::OsStr>]) -> Vec<OsString> {
    words.iter().map(|word| word.as_ref().to_owned()).collect()
}

/// `weft oracle`, listening on its underlay address.
#[must_use]
pub fn oracle(files: &Files, name: &str, addrs: &[IpAddr]) -> Vec<OsString> {
    let mut line = args(&[&"oracle", &"--data-dir", &files.data(name)]);
    for addr in addrs {
        line.extend(args(&[&"--listen", &addr.to_string()]));
    }
    line.extend(args(&[&"--http-listen", &format!("127.0.0.1:{HTTP_PORT}")]));
    line
}

/// `weft oracle token`, which prints a token on standard output.
#[must_use]
pub fn token(context: &Path, uses: usize) -> Vec<OsString> {
    args(&[&"oracle", &"token", &"--context", &context, &"--uses", &uses.to_string()])
}

/// `weft nve`.
#[must_use]
pub fn nve(files: &Files, lab: &str, host: &str, token: &str, rloc: IpAddr) -> Vec<OsString> {
    args(&[
        &"nve",
        &"--join",
        &token,
        &"--name",
        &host,
        &"--data-dir",
        &files.data(host),
        &"--socket",
        &files.socket(host),
        &"--uplink",
        &"eth0",
        &"--rloc",
        &rloc.to_string(),
        &"--pin-dir",
        &pin_dir(lab, host),
    ])
}

/// `weft vn create`.
#[must_use]
pub fn vn_create(context: &Path, name: &str, vn: &VnSpec) -> Vec<OsString> {
    let mut line = args(&[&"vn", &"create", &name, &"--context", &context]);
    for subnet in &vn.subnets {
        line.extend(args(&[&"--subnet", &subnet.to_string()]));
    }
    if let Some(vni) = vn.vni {
        line.extend(args(&[&"--vni", &vni.to_string()]));
    }
    for (flag, word) in [("--learning", &vn.learning), ("--reply", &vn.reply), ("--bum", &vn.bum)] {
        let Some(word) = word else { continue };
        line.extend(args(&[&flag, word]));
    }
    line
}

/// `weft tsi attach`, which prints [`Attached`] as JSON.
#[must_use]
pub fn tsi_attach(files: &Files, name: &str, device: &str, tenant: &TenantSpec) -> Vec<OsString> {
    let socket = files.socket(tenant.host.as_str());
    let mut line = args(&[
        &"tsi",
        &"attach",
        &"--vn",
        &tenant.vn,
        &"--name",
        &name,
        &"--device",
        &device,
        &"--socket",
        &socket,
        &"-o",
        &"json",
    ]);
    for ip in &tenant.ips {
        line.extend(args(&[&"--ip", &ip.to_string()]));
    }
    if let Some(mac) = tenant.mac {
        line.extend(args(&[&"--mac", &mac.to_string()]));
    }
    line
}

/// `weft tsi detach`.
#[must_use]
pub fn tsi_detach(files: &Files, name: &str, tenant: &TenantSpec) -> Vec<OsString> {
    let socket = files.socket(tenant.host.as_str());
    args(&[&"tsi", &"detach", &"--vn", &tenant.vn, &"--name", &name, &"--socket", &socket])
}

/// The environment that makes `weft get ...` and `weft tsi ...` work without options.
#[must_use]
pub fn environment(files: &Files, oracle: Option<&str>, host: Option<&str>) -> Vec<(&'static str, PathBuf)> {
    oracle
        .map(|oracle| ("WEFT_CONTEXT", files.context(oracle)))
        .into_iter()
        .chain(host.map(|host| ("WEFT_SOCKET", files.socket(host))))
        .collect()
}

/// Where programs are looked for: in `dir` first, then where this process looks.
pub(crate) fn path_with(dir: &Path) -> OsString {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let all = std::iter::once(dir.to_owned()).chain(std::env::split_paths(&path));
    // A directory with a colon in its name cannot be in a path.
    std::env::join_paths(all).unwrap_or(path)
}

/// What the lab reads of the answer to `weft tsi attach -o json`.
#[derive(Clone, Debug, Deserialize)]
pub struct Attached {
    /// The MAC address granted.
    pub mac: MacAddr,
    /// The addresses granted, each with or without its prefix's length.
    pub ips: Vec<String>,
    /// The MTU for the tenant system.
    pub mtu: u32,
}

impl Attached {
    /// The addresses, each with the length of its subnet's prefix in `vn`.
    ///
    /// # Errors
    /// The text that is no address.
    pub fn addresses(&self, vn: &VnSpec) -> Result<Vec<IpNet>, String> {
        self.ips.iter().map(|text| with_prefix(text, &vn.subnets)).collect()
    }
}

/// `text` as an address with a prefix length: its own, else that of the subnet it is in.
pub(crate) fn with_prefix(text: &str, subnets: &[IpNet]) -> Result<IpNet, String> {
    if let Ok(net) = text.parse::<IpNet>() {
        return Ok(net);
    }
    let ip: IpAddr = text.parse().map_err(|_| format!("'{text}' is no address"))?;
    let length = subnets
        .iter()
        .find(|net| net.contains(&ip))
        .map_or(if ip.is_ipv4() { 32 } else { 128 }, IpNet::prefix_len);
    IpNet::new(ip, length).map_err(|error| format!("{text}: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_lab_has_pins_below_another_ones() {
        // Names of labs and hosts may contain dashes.
        assert_ne!(pin_dir("a", "b-c"), pin_dir("a-b", "c"));
        let all = [pins("a"), pins("a-b"), pins("nve"), "/sys/fs/bpf/weft/nve".into()];
        for one in &all {
            assert!(all.iter().filter(|other| other.starts_with(one)).count() == 1, "{}", one.display());
        }
    }
}
