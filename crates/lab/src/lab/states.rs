//! The states of a tenant system interface (RFC 8394), asked of NVEs as a hypervisor does: over their local API.

use super::{Lab, tenants::local_answer};
use crate::{commands, error::LabError, http, record::TenantState, spec::TenantSpec};

impl Lab {
    /// As an operator, says that `name` moves to `to`, or that it does not move.
    ///
    /// # Errors
    /// When the Oracle refuses.
    pub fn name_next(&self, name: &str, vn: &str, to: Option<&str>) -> Result<(), LabError> {
        self.weft(commands::tsi_move(&self.context()?, name, vn, to)).map(|_| ())
    }

    /// Asks the NVE of `what.host` to hold `name` ready at `device`: everything is there, nothing passes.
    ///
    /// # Errors
    /// When it refuses.
    pub fn ask_associate(
        &self,
        name: &str,
        device: &str,
        what: &TenantSpec,
    ) -> Result<TenantState, LabError> {
        self.post_tsi(&commands::associate_body(name, device, what), what)
    }

    /// Asks the NVE of `host` to put `name` in service; returns when an Oracle has acknowledged it.
    ///
    /// # Errors
    /// When it refuses.
    pub fn ask_activate(&self, name: &str, vn: &str, host: &str) -> Result<(), LabError> {
        self.put_state(name, vn, host, commands::ACTIVATED)
    }

    /// Asks the NVE of `host` to take `name` out of service.
    ///
    /// # Errors
    /// When it refuses.
    pub fn ask_deactivate(&self, name: &str, vn: &str, host: &str) -> Result<(), LabError> {
        self.put_state(name, vn, host, commands::ASSOCIATED)
    }

    fn put_state(&self, name: &str, vn: &str, host: &str, state: &str) -> Result<(), LabError> {
        let (path, socket) = (commands::state_path(vn, name), self.files.socket(host));
        let body = serde_json::json!({ "state": state });
        let command = format!("PUT {path} {body}");
        local_answer(&command, &socket, http::put_unix(&socket, &path, &body.to_string())).map(|_| ())
    }
}
