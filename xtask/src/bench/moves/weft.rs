//! Weft: Associate where it moves to, then Deactivate when it is stopped and Activate when it goes on (RFC 8394).

use super::{
    Moves,
    guest::{ADDRESSES, Flip, Guest, MAC, NAME, SPEC},
    policy,
};
use crate::bench::report::WEFT;
use anyhow::Result;
use std::path::Path;
use weft_lab::{DeviceKind, Lab, LabSpec, Options, TenantSpec, clock};

/// Its virtual network.
const VN: &str = "red";

pub(super) struct Weft {
    lab: Lab,
    guest: Guest,
    /// Where it was before the last move.
    left: Option<&'static str>,
}

impl Weft {
    pub(super) fn up(weft: &Path) -> Result<Self> {
        let spec = LabSpec::parse(SPEC).map_err(anyhow::Error::msg)?;
        let options = Options {
            name: Some(format!("bench{}-move", std::process::id()).parse()?),
            weft: Some(weft.to_owned()),
            bound: true,
            ..Options::default()
        };
        let mut lab = Lab::up(&spec, &options, &mut |_| {})?;
        match boot(&mut lab) {
            Ok(guest) => Ok(Self { lab, guest, left: None }),
            Err(error) => {
                lab.down()?;
                Err(error)
            }
        }
    }
}

fn boot(lab: &mut Lab) -> Result<Guest> {
    lab.settle()?;
    let guest = Guest::new(lab)?;
    lab.ask_attach_by_api(NAME, NAME, &place(guest.host())?)?;
    policy::set(lab, VN)?;
    Ok(guest)
}

/// It, on `host`.
fn place(host: &str) -> Result<TenantSpec> {
    Ok(TenantSpec {
        host: host.parse()?,
        vn: VN.to_owned(),
        ips: ADDRESSES.to_vec(),
        mac: Some(MAC),
        device: DeviceKind::Veth,
    })
}

impl Moves for Weft {
    fn name(&self) -> &'static str {
        WEFT
    }

    fn lab(&self) -> &Lab {
        &self.lab
    }

    fn has_policy(&self) -> bool {
        true
    }

    fn move_on(&mut self) -> Result<Flip> {
        let (from, to) = (self.guest.host(), self.guest.next());
        self.lab.name_next(NAME, VN, Some(to))?;
        self.lab.ask_associate(NAME, NAME, &place(to)?)?;
        let lab = &self.lab;
        let flip = self
            .guest
            .flip(|| Ok(lab.ask_deactivate(NAME, VN, from)?), || Ok(lab.ask_activate(NAME, VN, to)?))?;
        self.left = Some(from);
        Ok(flip)
    }

    fn clear(&mut self) -> Result<()> {
        let Some(left) = self.left.take() else { return Ok(()) };
        let what = place(left)?;
        // Until the Oracle's word is there it still counts as moving.
        let gone =
            clock::until(clock::CEILING, || Ok::<_, anyhow::Error>(self.lab.ask_detach(NAME, &what).ok()))?;
        anyhow::ensure!(gone.is_some(), "{left} does not let go of {NAME}");
        Ok(())
    }

    fn down(self: Box<Self>) -> Result<()> {
        Ok(self.lab.down()?)
    }
}
