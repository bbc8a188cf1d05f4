//! `weft group`.

use super::client;
use crate::cli::{GroupCommand, GroupWhich, Output};
use crate::error::CommandError;
use crate::output::{self, Column, Format};
use serde::Serialize;
use std::{io, path::Path};
use weft_api::{Client, GroupView, PutGroup};
use weft_model::{GroupLimits, GroupName, Rule, SecurityGroup, VnName, policy::RuleTwice};

const COLUMNS: &[Column] = &[("vn", "/vn"), ("group", "/group"), ("rule", "/rule")];

/// A row of the table: a rule of a group, or a group without any.
#[derive(Serialize)]
struct Row<'a> {
    vn: &'a VnName,
    group: &'a GroupName,
    rule: Option<String>,
}

/// Security groups in the format asked for: as a table they have a row a rule.
pub(super) fn list(format: Format, groups: &[GroupView]) -> Result<String, CommandError> {
    if format != Format::Table {
        return output::list(format, groups, &[]);
    }
    let mut rows = Vec::new();
    for GroupView { vn, name: group, rules, .. } in groups {
        rows.extend(rules.rules().iter().map(|rule| Row { vn, group, rule: Some(rule.to_string()) }));
        if rules.rules().is_empty() {
            rows.push(Row { vn, group, rule: None });
        }
    }
    output::list(format, &rows, COLUMNS)
}

pub(super) async fn run(command: GroupCommand) -> Result<(), CommandError> {
    match command {
        GroupCommand::Set { which, rule, file, access, output } => {
            let rules = match &file {
                Some(file) => read(file)?,
                None => rule,
            };
            let put = PutGroup { rules: group(rules)?, revision: None };
            shown(&output, &client(&access)?.put_group(&which.vn, &which.name, &put).await?)
        }
        GroupCommand::AddRule { which, rule, access, output } => {
            let client = client(&access)?;
            let (mut rules, revision) = rules(&client, &which).await?;
            for rule in rule {
                // Of one that is there already this may be another log or description.
                match rules.iter_mut().find(|old| old.bare() == rule.bare()) {
                    Some(old) => *old = rule,
                    None => rules.push(rule),
                }
            }
            let put = PutGroup { rules: group(rules)?, revision: Some(revision) };
            shown(&output, &client.put_group(&which.vn, &which.name, &put).await?)
        }
        GroupCommand::RemoveRule { which, rule, access, output } => {
            let client = client(&access)?;
            let (mut rules, revision) = rules(&client, &which).await?;
            for rule in rule {
                let at = rules.iter().position(|old| old.bare() == rule.bare()).ok_or_else(|| {
                    CommandError::Refused(format!(
                        "group '{}' of VN '{}' has no rule '{}'; `weft get groups --vn {}` lists them",
                        which.name,
                        which.vn,
                        rule.bare(),
                        which.vn
                    ))
                })?;
                rules.remove(at);
            }
            let put = PutGroup { rules: group(rules)?, revision: Some(revision) };
            shown(&output, &client.put_group(&which.vn, &which.name, &put).await?)
        }
        GroupCommand::Delete { which, access, output } => {
            let message = client(&access)?.delete_group(&which.vn, &which.name).await?;
            output::print(&output::done(output.output, &message)?)
        }
    }
}

fn shown(output: &Output, group: &GroupView) -> Result<(), CommandError> {
    match output.output {
        Format::Table => output::print(&list(Format::Table, std::slice::from_ref(group))?),
        format => output::print(&output::one(format, group, &[])?),
    }
}

fn group(rules: Vec<Rule>) -> Result<SecurityGroup, CommandError> {
    let most = GroupLimits::default().rules;
    if rules.len() > most {
        return Err(CommandError::TooManyRules { rules: rules.len(), most });
    }
    SecurityGroup::new(rules).map_err(|e: RuleTwice| CommandError::Refused(e.to_string()))
}

/// The rules of a group, with its revision.
async fn rules(client: &Client, which: &GroupWhich) -> Result<(Vec<Rule>, u64), CommandError> {
    let group = client.group(&which.vn, &which.name).await?;
    Ok((group.rules.into(), group.revision))
}

/// The rules in a file, or on standard input.
fn read(file: &Path) -> Result<Vec<Rule>, CommandError> {
    let text = match file.to_str() {
        Some("-") => io::read_to_string(io::stdin()),
        _ => std::fs::read_to_string(file),
    };
    let text = text.map_err(|source| CommandError::ReadRules { file: file.to_owned(), source })?;
    let lines = text.lines().enumerate().map(|(at, line)| (at + 1, line.trim()));
    let rules = lines.filter(|(_, line)| !line.is_empty() && !line.starts_with('#'));
    rules
        .map(|(at, line)| {
            line.parse::<Rule>()
                .map_err(|e| CommandError::Refused(format!("line {at} of {}: {e}", file.display())))
        })
        .collect()
}
