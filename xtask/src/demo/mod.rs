//! `cargo xtask demo`: a three-host data centre comes up, and every claim is shown with what was
//! seen on the wire.

mod steps;
mod story;

use crate::{
    build, interrupt, machine,
    packages::{self, Use},
    say,
};
use anyhow::{Context as _, Result};
use std::{
    path::{Path, PathBuf},
    process::ExitCode,
};
use story::Story;
use weft_lab::{Lab, LabSpec, Options};

/// Options of `demo`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Writes what was seen to this file as JSON too.
    #[arg(long)]
    json: Option<PathBuf>,
    /// Leaves the data centre up afterwards, to look around in.
    #[arg(long)]
    keep: bool,
}

pub(crate) fn run(args: &Args) -> Result<ExitCode> {
    machine::check()?;
    interrupt::watch();
    interrupt::sweep();
    packages::install(&[Use::Demo])?;
    let weft = build::weft()?;
    let spec = LabSpec::read(&build::root()?.join("examples/three-hosts.yaml"))?;

    say::heading("A data centre of three hosts");
    let name = if args.keep { spec.name.clone() } else { format!("demo{}", std::process::id()).parse()? };
    let options =
        Options { name: Some(name), weft: Some(weft.clone()), bound: !args.keep, ..Options::default() };
    let mut lab = Lab::up(&spec, &options, &mut |line| say::line(&format!("  {line}")))?;

    let mut story = Story::default();
    let told = steps::tell(&mut lab, &mut story);
    if let Err(error) = &told {
        story.check("the demo ran to its end", false, format!("{error:#}"));
    }
    let around = args.keep.then(|| look_around(&lab, &weft));
    if !args.keep {
        lab.down()?;
    }
    story.table();
    // Last, where it is seen.
    for line in around.iter().flatten() {
        say::line(line);
    }
    if let Some(path) = &args.json {
        let text = serde_json::to_string_pretty(&story)?;
        std::fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))?;
    }
    Ok(if story.holds() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// What to type in a data centre that stays up. Its name is in every line: others may be up too.
fn look_around(lab: &Lab, weft: &Path) -> Vec<String> {
    let (weft, name) = (weft.display(), lab.name());
    vec![
        format!("\nThe data centre is still up; logs are in {}. Look around:", lab.files().run.display()),
        format!("  {weft} lab exec --lab {name} red-a -- ping -c3 10.0.0.2"),
        format!("  {weft} lab exec --lab {name} oracle -- weft get mappings"),
        format!("  {weft} lab exec --lab {name} h1 -- weft get drops"),
        format!("  {weft} lab down {name}"),
    ]
}
