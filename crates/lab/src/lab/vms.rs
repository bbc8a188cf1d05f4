//! Tenant systems that are virtual machines: booting them, running commands in them, ending them.

use super::Lab;
use crate::{
    clock,
    error::LabError,
    links::Links,
    netns::NetNs,
    process::Signal,
    record::TenantState,
    spec::{DeviceKind, NodeName, TenantSpec},
    tenant,
    vm::{self, VmFiles, control},
};
use std::{ffi::OsStr, process::Output};

impl Lab {
    /// Whether tenant system `node` is a virtual machine.
    #[must_use]
    pub fn is_vm(&self, node: &str) -> bool {
        self.record.spec.tenants.get(node).is_some_and(|what| what.device == DeviceKind::Vm)
    }

    pub(super) fn vm_files(&self, name: &str, host: &str) -> VmFiles {
        VmFiles::of(&self.files, name, host)
    }

    /// Attaches a virtual machine's TAP, boots it with what it was granted, and waits until it may use that.
    pub(super) fn boot(
        &mut self,
        name: &NodeName,
        what: &TenantSpec,
        host: &NetNs,
    ) -> Result<TenantState, LabError> {
        tenant::plug(host, None, name.as_str(), what.device)?;
        let state = self.granted(name, what)?;
        self.start_vm(name, &what.host, &state, false)?;
        let files = self.vm_files(name.as_str(), what.host.as_str());
        let id = self.daemon(&files.daemon)?.id;
        if !control::wait_up(&files.control, vm::BOOT, || id.alive()) {
            let why =
                if id.alive() { format!("has not booted within {:?}", vm::BOOT) } else { "ended".to_owned() };
            return Err(self.daemon_error(&files.daemon, why));
        }
        self.record.tenants.insert(name.clone(), state.clone());
        self.record.save(&self.root)?;
        Ok(state)
    }

    /// Starts QEMU on `host`; with `incoming` it waits for the machine to come from another one.
    pub(super) fn start_vm(
        &mut self,
        name: &NodeName,
        host: &NodeName,
        state: &TenantState,
        incoming: bool,
    ) -> Result<(), LabError> {
        let image = vm::image::prepare(&mut |_| {})?;
        let files = self.vm_files(name.as_str(), host.as_str());
        let line = vm::line(&image, &files, name, state, incoming);
        self.start(&files.daemon, host, line).map_err(|error| match error {
            LabError::Start { program, source } if source.kind() == std::io::ErrorKind::NotFound => {
                LabError::Guest(format!("there is no {program}: install the package qemu-system-x86"))
            }
            other => other,
        })
    }

    /// Ends the QEMU that has `name` on `host`, if there is one; its log stays.
    pub(super) fn end_vm(&mut self, name: &str, host: &str) -> Result<(), LabError> {
        let files = self.vm_files(name, host);
        if self.record.daemons.contains_key(&files.daemon) {
            // It has nothing to save, and its machine may be elsewhere.
            self.signal(&files.daemon, Signal::SIGKILL)?;
            self.record.daemons.remove(&files.daemon);
            self.record.save(&self.root)?;
        }
        Ok(())
    }

    /// Takes what is left of `name` off `host`: its QEMU and its TAP.
    pub(super) fn clear_vm(&mut self, name: &str, host: &str) -> Result<(), LabError> {
        self.end_vm(name, host)?;
        let links = Links::open(&self.node(host)?)?;
        if links.find(name)?.is_some() {
            links.delete(name)?;
        }
        Ok(())
    }

    pub(super) fn exec_in_vm<S: AsRef<OsStr>>(&self, name: &str, line: &[S]) -> Result<Output, LabError> {
        let (_, what) = self.spec_of(name)?;
        control::exec(name, &self.vm_files(name, what.host.as_str()).control, line)
    }

    /// Runs `work` on what QEMU's sockets of a machine are, connecting within the usual time.
    pub(super) fn qmp(&self, name: &str, host: &str) -> Result<vm::qmp::Qmp, LabError> {
        vm::qmp::Qmp::connect(name, &self.vm_files(name, host).qmp)
    }

    /// Waits until `condition` holds of a machine that moves.
    pub(super) fn soon(
        what: &str,
        condition: impl FnMut() -> Result<Option<()>, LabError>,
    ) -> Result<(), LabError> {
        clock::until(clock::CEILING, condition)?
            .ok_or_else(|| LabError::Timeout { what: what.to_owned(), ceiling: clock::CEILING })
    }
}
