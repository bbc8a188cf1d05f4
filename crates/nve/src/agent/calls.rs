//! Calls of an Oracle's /v1 on behalf of the core.

use super::driver::Input;
use crate::core::{ApiCall, Granted, Held, Refused};
use weft_api::{ChangeAddresses, Client, ClientError, GrantRequest};
use weft_model::{TsiName, VnName};

/// Makes a call; its answer as an input.
pub(super) async fn make(client: &Client, call: ApiCall) -> Input {
    match call {
        ApiCall::Grant { call, vn, name, mac, ips, groups, activate } => {
            let (nve, request_id) = (None, None);
            let request = GrantRequest { vn, tsi: name, mac, ips, groups, nve, activate, request_id };
            Input::Granted(
                call,
                client
                    .grant_anew(&request)
                    .await
                    .map(|(reply, created)| granted(reply, created))
                    .map_err(|e| refused(e, GRANTS)),
            )
        }
        ApiCall::Release { call, vn, name, held } => {
            Input::Released(call, release(client, &vn, &name, held).await)
        }
        ApiCall::Addresses { call, vn, name, add, remove } => {
            let changed = client.change_addresses(&vn, &name, &ChangeAddresses { add, remove }).await;
            let answer = changed.map(|reply| granted(reply, false)).map_err(|e| refused(e, ADDRESSES));
            Input::Addresses(call, answer)
        }
        ApiCall::Connections => {
            let all = client.connections().await.map_err(|e| refused(e, VNS));
            Input::Connections(all.map(|list| list.items.into_iter().map(|one| (one.vni, one.vn)).collect()))
        }
        ApiCall::Connect { call, vn } => {
            let answer = client.connect_vn(&vn).await.map(Into::into).map_err(|e| refused(e, VNS));
            Input::Connected(call, vn, answer)
        }
        ApiCall::Disconnect { call, vn } => {
            let answer = client.disconnect_vn(&vn).await.map(drop).map_err(|e| refused(e, VNS));
            Input::Disconnected(call, answer)
        }
        ApiCall::Take { vn, tsi, ip } => {
            let taken = client.take_address(&vn, &tsi.name, ip).await;
            Input::Taken(tsi, ip, taken.map(|reply| granted(reply, false)).map_err(|e| refused(e, GRANTS)))
        }
    }
}

/// What to know while no Oracle answers.
const GRANTS: &str = "new grants need an Oracle, everything attached goes on";
const VNS: &str = "try again when one does";
const ADDRESSES: &str = "other addresses need an Oracle; what is attached goes on with those that it has";

async fn release(client: &Client, vn: &VnName, tsi: &TsiName, held: Held) -> Result<(), Refused> {
    let released = match held {
        Held::Granted => client.release(vn, tsi, false).await,
        Held::Activated(epoch) => client.release_activated(vn, tsi, epoch).await,
        Held::Unknown => client.release_owned(vn, tsi).await,
    };
    match released {
        Ok(_) => Ok(()),
        // It is gone already: what was wanted.
        Err(ClientError::Api(error)) if error.status == 404 => Ok(()),
        Err(error) => Err(refused(error, "--force lets go at once, and the grant is given back later")),
    }
}

fn granted(reply: weft_api::GrantReply, created: bool) -> Granted {
    Granted { grant: reply.grant, vn: reply.vn.into(), revision: reply.resource_version, created }
}

fn refused(error: ClientError, hint: &str) -> Refused {
    match error {
        ClientError::Api(error) => {
            let code = serde_json::to_value(error.code).ok().and_then(|v| v.as_str().map(str::to_owned));
            Refused::Oracle { code: code.unwrap_or_default(), message: error.message }
        }
        other => Refused::Unanswered { message: format!("{other}; {hint}") },
    }
}
