//! `weft group`.

use super::{Access, Output};
use clap::{Args, Subcommand};
use std::{collections::BTreeSet, path::PathBuf, str::FromStr};
use weft_model::{GroupName, Name, NameError, Rule, VnName};

#[derive(Debug, Subcommand)]
pub(crate) enum GroupCommand {
    /// Make a security group, or replace all its rules.
    #[command(after_help = "Examples:
  weft group set web --vn red --rule 'in tcp/80 from anybody' --rule 'in tcp/22 from 10.0.0.0/8 log # admins'
  weft group set db --vn red --rule 'in tcp/5432 from group:web' --rule 'out any to anybody'
  weft group set web --vn red -f web.rules           one rule a line, - reads standard input
  weft group set closed --vn red                     without rules: nothing may pass")]
    Set {
        #[command(flatten)]
        which: GroupWhich,
        /// A rule; may be repeated.
        #[arg(long, conflicts_with = "file")]
        rule: Vec<Rule>,
        /// A file with a rule a line; empty lines and those that begin with # are none.
        #[arg(short, long)]
        file: Option<PathBuf>,
        #[command(flatten)]
        access: Access,
        #[command(flatten)]
        output: Output,
    },
    /// Add rules to a security group.
    #[command(after_help = "Example: weft group add-rule web --vn red --rule 'in tcp/443'")]
    AddRule {
        #[command(flatten)]
        which: GroupWhich,
        /// A rule; may be repeated.
        #[arg(long, required = true)]
        rule: Vec<Rule>,
        #[command(flatten)]
        access: Access,
        #[command(flatten)]
        output: Output,
    },
    /// Take rules out of a security group: open connections that nothing allows any more are cut.
    #[command(after_help = "Example: weft group remove-rule web --vn red --rule 'in tcp/443'")]
    RemoveRule {
        #[command(flatten)]
        which: GroupWhich,
        /// A rule, as `weft get groups` shows it; log and description do not matter. May be repeated.
        #[arg(long, required = true)]
        rule: Vec<Rule>,
        #[command(flatten)]
        access: Access,
        #[command(flatten)]
        output: Output,
    },
    /// Delete a security group that nobody uses.
    #[command(after_help = "Example: weft group delete web --vn red")]
    Delete {
        #[command(flatten)]
        which: GroupWhich,
        #[command(flatten)]
        access: Access,
        #[command(flatten)]
        output: Output,
    },
}

/// A security group.
#[derive(Debug, Args)]
pub(crate) struct GroupWhich {
    /// Its name.
    pub(crate) name: GroupName,
    /// Its virtual network.
    #[arg(long)]
    pub(crate) vn: VnName,
}

/// Names of security groups with commas between, or `none`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct GroupNames(pub(crate) BTreeSet<GroupName>);

impl FromStr for GroupNames {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        if text == "none" {
            return Ok(Self(BTreeSet::new()));
        }
        text.split(',').map(|name| Name::new(name.trim())).collect::<Result<_, _>>().map(Self)
    }
}
