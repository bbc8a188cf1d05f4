//! `weft get rules`: what each rule let through, on all hosts together.

use crate::cli::GetArgs;
use crate::error::CommandError;
use crate::output::{self, Column, Format};
use std::collections::{BTreeMap, BTreeSet};
use weft_api::{
    Client, ClientError, GroupView, TsiView,
    local::{Items, RuleCount, Shown},
};
use weft_model::VnName;

pub(super) const COLUMNS: &[Column] =
    &[("vn", "/vn"), ("group", "/group"), ("rule", "/rule"), ("packets", "/packets"), ("bytes", "/bytes")];

/// The security groups asked for. A VN or a group that is named and does not exist is an error: an empty list would say
/// that nothing is in it.
pub(super) async fn groups(args: &GetArgs, client: &Client) -> Result<Vec<GroupView>, CommandError> {
    let vn = args.vn.as_ref();
    if let Some(vn) = vn
        && !client.vns().await?.items.iter().any(|known| known.name == *vn)
    {
        return Err(CommandError::NoVn(vn.clone()));
    }
    let mut groups = client.groups().await?.items;
    groups.retain(|group| vn.is_none_or(|vn| group.vn == *vn));
    if let Some(name) = &args.group {
        groups.retain(|group| group.name == *name);
        if groups.is_empty() {
            return Err(CommandError::NoGroup { group: name.clone(), vn: vn.cloned() });
        }
    }
    Ok(groups)
}

/// The tenant systems asked for: with a group those to which it applies, also because their VN has it by default.
pub(super) async fn members(args: &GetArgs, client: &Client) -> Result<Vec<TsiView>, CommandError> {
    let mut tsis = client.tsis(args.vn.as_ref()).await?.items;
    let Some(group) = &args.group else { return Ok(tsis) };
    groups(args, client).await?;
    let vns = client.vns().await?.items;
    let by_default: BTreeSet<&VnName> =
        vns.iter().filter(|vn| vn.default_groups.contains(group)).map(|vn| &vn.name).collect();
    tsis.retain(|tsi| match tsi.groups.is_empty() {
        true => by_default.contains(&tsi.vn),
        false => tsi.groups.contains(group),
    });
    Ok(tsis)
}

/// Every rule of the groups asked for, in the order in which they were written, with what all NVEs together counted. One
/// that does not answer is named beside.
pub(super) async fn all(args: &GetArgs, client: &Client, format: Format) -> Result<String, CommandError> {
    let groups = groups(args, client).await?;
    let mut counted: BTreeMap<_, (u64, u64)> = BTreeMap::new();
    for nve in client.nves().await?.items {
        match client.shown::<Items<RuleCount>>(&nve.name, Shown::Rules).await {
            Ok(Items { items }) => {
                for RuleCount { vn, group, rule, packets, bytes } in items {
                    let sum = counted.entry((vn, group, rule)).or_default();
                    sum.0 += packets;
                    sum.1 += bytes;
                }
            }
            Err(ClientError::Api(refused)) => {
                output::note(format, &format!("'{}' is not counted: {}", nve.name, refused.message));
            }
            Err(other) => return Err(other.into()),
        }
    }
    let mut rows = Vec::new();
    for group in &groups {
        for rule in group.rules.rules() {
            let (vn, name, rule) = (group.vn.clone(), group.name.clone(), rule.bare().to_string());
            let key = (vn, name, rule);
            let (packets, bytes) = counted.get(&key).copied().unwrap_or_default();
            let (vn, group, rule) = key;
            rows.push(RuleCount { vn, group, rule, packets, bytes });
        }
    }
    output::list(format, &rows, COLUMNS)
}
