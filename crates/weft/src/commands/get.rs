//! `weft get`: what there is, from the Oracle or from this host's NVE.

mod rules;

use super::{client, group, tsi, vn, xtr};
use crate::cli::{GetArgs, Kinds, Socket};
use crate::error::CommandError;
use crate::output::{self, Column, Format};
use serde::{Serialize, de::DeserializeOwned};
use std::{collections::BTreeMap, path::PathBuf, time::Duration};
use weft_api::{
    Client, Counters,
    local::{self, CacheEntry, Items, Shown},
};
use weft_model::{NveName, Rloc, VnName};

const NVES: &[Column] =
    &[("name", "/name"), ("xtr-id", "/xtr_id"), ("rlocs", "/rlocs"), ("connected", "/connected")];
const TSIS: &[Column] = &[
    ("vn", "/vn"),
    ("name", "/name"),
    ("nve", "/nve"),
    ("mac", "/mac"),
    ("ips", "/ips"),
    ("groups", "/groups"),
    ("vni", "/vni"),
    ("state", "/state"),
    ("epoch", "/epoch"),
    ("moves to", "/next"),
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
    ("nve", "/nve"),
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
const DUPLICATES: &[Column] = &[
    ("vn", "/vn"),
    ("tsi", "/tsi"),
    ("address", "/address"),
    ("held by", "/holder_name"),
    ("claimed by", "/claimant_name"),
    ("times", "/times"),
    ("last s ago", "/last_s"),
];
const MULTICAST: &[Column] = &[("vn", "/vn"), ("group", "/group"), ("here", "/here"), ("rlocs", "/rlocs")];
const DROPS: &[Column] = &[
    ("vn", "/vn"),
    ("reason", "/reason"),
    ("direction", "/direction"),
    ("path", "/path"),
    ("packets", "/packets"),
    ("bytes", "/bytes"),
];
const TABLES: &[Column] =
    &[("table", "/table"), ("entries", "/entries"), ("room", "/room"), ("bytes", "/bytes")];
const COUNTERS: &[Column] = &[("counter", "/counter"), ("count", "/count")];

/// Between two looks of `--watch`.
const AGAIN: Duration = Duration::from_secs(1);

pub(super) async fn run(args: GetArgs) -> Result<(), CommandError> {
    applicable(&args)?;
    let mut shown = String::new();
    loop {
        let text = fetch(&args).await?;
        if text != shown {
            if !output::print_on(&text)? {
                return Ok(());
            }
            shown = text;
        }
        if !args.watch {
            return Ok(());
        }
        tokio::time::sleep(AGAIN).await;
    }
}

/// A filter that would choose nothing is refused: the list would look like what it asks for.
fn applicable(args: &GetArgs) -> Result<(), CommandError> {
    let of_no_vn = matches!(args.what, Kinds::Nves | Kinds::Xtrs | Kinds::Counters | Kinds::Tables);
    if args.vn.is_some() && of_no_vn {
        return Err(CommandError::Usage("these are of no VN; leave --vn away"));
    }
    let here = args.socket.is_some() || args.nve.is_some();
    let of_groups = match args.what {
        Kinds::Rules => true,
        Kinds::Groups | Kinds::Tsis => !here,
        _ => false,
    };
    if args.group.is_some() && !of_groups {
        return Err(CommandError::Usage(
            "--group chooses among groups, rules, and tsis of the Oracle; leave it away",
        ));
    }
    Ok(())
}

async fn fetch(args: &GetArgs) -> Result<String, CommandError> {
    let format = args.output.output;
    let local = match (&args.socket, args.what) {
        // The data plane's counters are the host's own.
        (None, Kinds::Drops | Kinds::Multicast | Kinds::Tables) if args.nve.is_none() => {
            let socket = std::env::var_os("WEFT_SOCKET").filter(|path| !path.is_empty());
            Some(Socket { socket: socket.map_or_else(|| weft_api::NVE_SOCKET.into(), PathBuf::from) })
        }
        (socket, _) => socket.clone().map(|socket| Socket { socket }),
    };
    match local {
        Some(socket) => nve_list(args, &Source::Socket(&socket), format).await,
        None => match &args.nve {
            Some(nve) => nve_list(args, &Source::Oracle(client(&args.access)?, nve), format).await,
            None => oracle_list(args, format).await,
        },
    }
}

/// How an NVE is asked.
enum Source<'a> {
    /// On its host.
    Socket(&'a Socket),
    /// Through the Oracle.
    Oracle(Client, &'a NveName),
}

impl Source<'_> {
    async fn list<T: DeserializeOwned>(&self, what: Shown) -> Result<T, CommandError> {
        match self {
            Self::Socket(socket) => tsi::nve(socket)?.shown(what).await.map_err(tsi::unreachable(socket)),
            Self::Oracle(client, nve) => Ok(client.shown(nve, what).await?),
        }
    }

    /// The names of the NVEs, by address.
    async fn names(&self) -> Result<BTreeMap<Rloc, NveName>, CommandError> {
        let Self::Oracle(client, _) = self else { return Ok(BTreeMap::new()) };
        let nves = client.nves().await?.items.into_iter();
        Ok(nves.flat_map(|nve| nve.rlocs.into_iter().map(move |rloc| (rloc, nve.name.clone()))).collect())
    }
}

async fn oracle_list(args: &GetArgs, format: Format) -> Result<String, CommandError> {
    let client = client(&args.access)?;
    let vn = args.vn.as_ref();
    match args.what {
        Kinds::Vns => {
            let mut vns = client.vns().await?.items;
            vns.retain(|v| vn.is_none_or(|name| v.name == *name));
            if let Some(vn) = vn.filter(|_| vns.is_empty()) {
                return Err(CommandError::NoVn(vn.clone()));
            }
            output::list(format, &vns, vn::COLUMNS)
        }
        Kinds::Nves => output::list(format, &client.nves().await?.items, NVES),
        Kinds::Xtrs => output::list(format, &client.xtrs().await?.items, xtr::COLUMNS),
        Kinds::Tsis => output::list(format, &rules::members(args, &client).await?, TSIS),
        Kinds::Mappings => output::list(format, &client.mappings(vn).await?.items, MAPPINGS),
        Kinds::Conversations => output::list(format, &client.conversations(vn).await?.items, CONVERSATIONS),
        Kinds::Duplicates => output::list(format, &client.duplicates(vn).await?.items, DUPLICATES),
        Kinds::Groups => group::list(format, &rules::groups(args, &client).await?),
        Kinds::Rules => rules::all(args, &client, format).await,
        Kinds::Counters => counters(format, client.counters().await?.counters),
        Kinds::Drops | Kinds::Multicast | Kinds::Tables => Err(CommandError::Usage(
            "an NVE's data plane knows this; name it with --nve, or its socket with --socket",
        )),
    }
}

async fn nve_list(args: &GetArgs, nve: &Source<'_>, format: Format) -> Result<String, CommandError> {
    let wanted = |name: &VnName| args.vn.as_ref().is_none_or(|vn| vn == name);
    match args.what {
        Kinds::Tsis => {
            let mut items = nve.list::<Items<local::Tsi>>(Shown::Tsis).await?.items;
            items.retain(|t| wanted(&t.vn));
            output::list(format, &items, tsi::COLUMNS)
        }
        Kinds::Mappings => {
            let mut items = nve.list::<Items<CacheEntry>>(Shown::Mappings).await?.items;
            items.retain(|m| wanted(&m.vn));
            let names = nve.names().await?;
            for item in &mut items {
                item.nve = item.rloc.and_then(|rloc| names.get(&rloc).cloned());
            }
            output::list(format, &items, CACHE)
        }
        Kinds::Multicast => {
            let mut items = nve.list::<Items<local::Group>>(Shown::Groups).await?.items;
            items.retain(|g| wanted(&g.vn));
            output::list(format, &items, MULTICAST)
        }
        Kinds::Drops => {
            let mut items = nve.list::<Items<local::Drop>>(Shown::Drops).await?.items;
            items.retain(|d| args.vn.is_none() || d.vn.as_ref().is_some_and(wanted));
            output::list(format, &items, DROPS)
        }
        Kinds::Tables => {
            output::list(format, &nve.list::<Items<local::Table>>(Shown::Tables).await?.items, TABLES)
        }
        Kinds::Counters => counters(format, nve.list::<Counters>(Shown::Counters).await?.counters),
        Kinds::Rules => {
            let mut items = nve.list::<Items<local::RuleCount>>(Shown::Rules).await?.items;
            items.retain(|r| wanted(&r.vn) && args.group.as_ref().is_none_or(|name| r.group == *name));
            output::list(format, &items, rules::COLUMNS)
        }
        Kinds::Vns | Kinds::Nves | Kinds::Xtrs | Kinds::Conversations | Kinds::Duplicates | Kinds::Groups => {
            Err(CommandError::Usage("only the Oracle knows this; leave --nve and --socket away"))
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
