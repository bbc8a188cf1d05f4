//! `weft get`: what there is, from the Oracle or from this host's NVE.

use super::{client, tsi, vn};
use crate::cli::{GetArgs, Kinds, Socket};
use crate::error::CommandError;
use crate::output::{self, Column, Format};
use serde::Serialize;
use std::{collections::BTreeMap, path::PathBuf, time::Duration};

const NVES: &[Column] =
    &[("name", "/name"), ("xtr-id", "/xtr_id"), ("rlocs", "/rlocs"), ("connected", "/connected")];
const TSIS: &[Column] = &[
    ("vn", "/vn"),
    ("name", "/name"),
    ("nve", "/nve"),
    ("mac", "/mac"),
    ("ips", "/ips"),
    ("vni", "/vni"),
    ("state", "/state"),
    ("epoch", "/epoch"),
];
const MAPPINGS: &[Column] = &[
    ("vn", "/vn"),
    ("eid", "/eid"),
    ("mac", "/mac"),
    ("rlocs", "/rlocs"),
    ("nve", "/nve"),
    ("epoch", "/epoch"),
    ("origin", "/origin"),
    ("stale", "/stale"),
    ("age s", "/age_s"),
];
const CACHE: &[Column] = &[
    ("vn", "/vn"),
    ("eid", "/eid"),
    ("mac", "/mac"),
    ("rloc", "/rloc"),
    ("origin", "/origin"),
    ("epoch", "/epoch"),
    ("age s", "/age_s"),
    ("used s ago", "/last_used_s"),
];
const CONVERSATIONS: &[Column] = &[
    ("vn", "/vn"),
    ("source", "/source"),
    ("destination", "/destination"),
    ("nve", "/nve_name"),
    ("seen s ago", "/last_seen_s"),
];
const DROPS: &[Column] =
    &[("vn", "/vn"), ("reason", "/reason"), ("path", "/path"), ("packets", "/packets"), ("bytes", "/bytes")];
const TABLES: &[Column] =
    &[("table", "/table"), ("entries", "/entries"), ("room", "/room"), ("bytes", "/bytes")];
const COUNTERS: &[Column] = &[("counter", "/counter"), ("count", "/count")];

/// Between two looks of `--watch`.
const AGAIN: Duration = Duration::from_secs(1);

pub(super) async fn run(args: GetArgs) -> Result<(), CommandError> {
    let mut shown = String::new();
    loop {
        let text = fetch(&args).await?;
        if text != shown {
            output::print(&text)?;
            shown = text;
        }
        if !args.watch {
            return Ok(());
        }
        tokio::time::sleep(AGAIN).await;
    }
}

async fn fetch(args: &GetArgs) -> Result<String, CommandError> {
    let format = args.output.output;
    let local = match (&args.socket, args.what) {
        // The data plane's counters are the host's own.
        (None, Kinds::Drops | Kinds::Tables) => {
            let socket = std::env::var_os("WEFT_SOCKET").filter(|path| !path.is_empty());
            Some(Socket { socket: socket.map_or_else(|| weft_api::NVE_SOCKET.into(), PathBuf::from) })
        }
        (socket, _) => socket.clone().map(|socket| Socket { socket }),
    };
    match local {
        Some(socket) => local_list(args, &socket, format).await,
        None => oracle_list(args, format).await,
    }
}

async fn oracle_list(args: &GetArgs, format: Format) -> Result<String, CommandError> {
    let client = client(&args.access)?;
    let vn = args.vn.as_ref();
    match args.what {
        Kinds::Vns => {
            let mut vns = client.vns().await?.items;
            vns.retain(|v| vn.is_none_or(|name| v.name == *name));
            output::list(format, &vns, vn::COLUMNS)
        }
        Kinds::Nves => output::list(format, &client.nves().await?.items, NVES),
        Kinds::Tsis => output::list(format, &client.tsis(vn).await?.items, TSIS),
        Kinds::Mappings => output::list(format, &client.mappings(vn).await?.items, MAPPINGS),
        Kinds::Conversations => output::list(format, &client.conversations(vn).await?.items, CONVERSATIONS),
        Kinds::Counters => counters(format, client.counters().await?.counters),
        Kinds::Drops | Kinds::Tables => {
            Err(CommandError::Usage("an NVE's data plane knows this; name its socket with --socket"))
        }
    }
}

async fn local_list(args: &GetArgs, socket: &Socket, format: Format) -> Result<String, CommandError> {
    let nve = tsi::nve(socket)?;
    let failed = tsi::unreachable(socket);
    let wanted = |name: &weft_model::VnName| args.vn.as_ref().is_none_or(|vn| vn == name);
    match args.what {
        Kinds::Tsis => {
            let mut items = nve.tsis().await.map_err(failed)?.items;
            items.retain(|t| wanted(&t.vn));
            output::list(format, &items, tsi::COLUMNS)
        }
        Kinds::Mappings => {
            let mut items = nve.mappings().await.map_err(failed)?.items;
            items.retain(|m| wanted(&m.vn));
            output::list(format, &items, CACHE)
        }
        Kinds::Drops => {
            let mut items = nve.drops().await.map_err(failed)?.items;
            items.retain(|d| args.vn.is_none() || d.vn.as_ref().is_some_and(wanted));
            output::list(format, &items, DROPS)
        }
        Kinds::Tables => output::list(format, &nve.tables().await.map_err(failed)?.items, TABLES),
        Kinds::Counters => counters(format, nve.counters().await.map_err(failed)?.counters),
        Kinds::Vns | Kinds::Nves | Kinds::Conversations => {
            Err(CommandError::Usage("only the Oracle knows this; leave --socket away"))
        }
    }
}

#[derive(Serialize)]
struct Counter {
    counter: String,
    count: u64,
}

fn counters(format: Format, counters: BTreeMap<String, u64>) -> Result<String, CommandError> {
    let rows: Vec<Counter> =
        counters.into_iter().map(|(counter, count)| Counter { counter, count }).collect();
    output::list(format, &rows, COUNTERS)
}
