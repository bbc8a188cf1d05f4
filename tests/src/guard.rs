//! A lab that lasts as long as its test.

use crate::weft_bin;
use std::{
    ops::{Deref, DerefMut},
    path::Path,
    process::Command,
    sync::atomic::{AtomicU32, Ordering},
};
use weft_lab::{Lab, LabSpec, Options, RunRoot, TapRelay};

/// A lab with a name of its own. A test that succeeds ends with [`TestLab::down`]. Dropped before
/// that, because the test failed, it first shows every daemon's log and what is known of the
/// overlay; in every case it is taken down.
#[derive(Debug)]
pub struct TestLab(Option<Lab>);

impl TestLab {
    /// Brings up the lab that `yaml` describes, with the real binary.
    ///
    /// # Errors
    /// When the YAML or the lab is bad; the logs of what did start are shown.
    pub fn up(yaml: &str) -> anyhow::Result<Self> {
        Self::with(yaml, Options { weft: Some(weft_bin()?), ..Options::default() })
    }

    /// Brings up the namespaces and devices that `yaml` describes, without Weft.
    ///
    /// # Errors
    /// When the YAML or the lab is bad.
    pub fn bare(yaml: &str) -> anyhow::Result<Self> {
        Self::with(yaml, Options::default())
    }

    /// [`TestLab::bare`] for files with TAP tenants: `weft` carries their frames, nothing else.
    ///
    /// # Errors
    /// When the YAML or the lab is bad.
    pub fn bare_with_relay(yaml: &str) -> anyhow::Result<Self> {
        Self::with(yaml, Options { relay: Some(TapRelay::of(weft_bin()?)), ..Options::default() })
    }

    fn with(yaml: &str, options: Options) -> anyhow::Result<Self> {
        let spec = LabSpec::parse(yaml).map_err(anyhow::Error::msg)?;
        let name = unique_name();
        let options = Options { name: Some(name.parse()?), bound: true, ..options };
        let lab = Lab::up(&spec, &options, &mut |line| eprintln!("{name}: {line}")).inspect_err(|_| {
            show_logs(&options.root.path().join("failed").join(&name));
        })?;
        Ok(Self(Some(lab)))
    }

    /// Takes it down and tells what was left behind, if anything.
    ///
    /// # Errors
    /// What was left behind.
    pub fn down(mut self) -> anyhow::Result<()> {
        match self.0.take() {
            Some(lab) => Ok(lab.down()?),
            None => Ok(()),
        }
    }

    /// `weft WORDS -o json` beside the Oracle, as a value.
    ///
    /// # Errors
    /// When it fails or is no JSON.
    pub fn json(&self, words: &[&str]) -> anyhow::Result<serde_json::Value> {
        Ok(serde_json::from_str(&self.weft([words, &["-o", "json"]].concat())?)?)
    }
}

impl Deref for TestLab {
    type Target = Lab;
    #[allow(clippy::expect_used, reason = "only `down` takes the lab, and it takes the guard with it")]
    fn deref(&self) -> &Lab {
        self.0.as_ref().expect("the lab is up")
    }
}

impl DerefMut for TestLab {
    #[allow(clippy::expect_used, reason = "only `down` takes the lab, and it takes the guard with it")]
    fn deref_mut(&mut self) -> &mut Lab {
        self.0.as_mut().expect("the lab is up")
    }
}

impl Drop for TestLab {
    fn drop(&mut self) {
        let Some(lab) = self.0.take() else { return };
        show(&lab);
        if let Err(error) = lab.down() {
            eprintln!("{error}");
        }
    }
}

/// Unique on this machine among tests that run at once and their predecessors that crashed.
fn unique_name() -> String {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    format!("t{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed))
}

fn show(lab: &Lab) {
    show_logs(&lab.files().run);
    if lab.record().weft.is_some() {
        for what in ["nves", "tsis", "mappings", "counters"] {
            match lab.weft(["get", what]) {
                Ok(text) => eprintln!("---- weft get {what}\n{text}"),
                Err(error) => eprintln!("---- weft get {what}: {error}"),
            }
        }
    }
    // Captures go with the run directory: keep them where the next run does not remove them.
    let kept = RunRoot::default().path().join("failed").join(lab.name());
    for entry in std::fs::read_dir(&lab.files().run).into_iter().flatten().filter_map(Result::ok) {
        if entry.path().extension().is_some_and(|ending| ending == "pcap") {
            let copied = std::fs::create_dir_all(&kept)
                .and_then(|()| std::fs::copy(entry.path(), kept.join(entry.file_name())));
            eprintln!("---- capture kept: {} ({copied:?})", kept.join(entry.file_name()).display());
        }
    }
    for namespace in &lab.record().namespaces {
        let Some((_, node)) = namespace.split_once('.') else { continue };
        match lab.exec(node, &["ip", "-s", "address", "show", "up"]) {
            Ok(output) => eprintln!("---- {namespace}\n{}", String::from_utf8_lossy(&output.stdout)),
            Err(error) => eprintln!("---- {namespace}: {error}"),
        }
    }
}

fn show_logs(dir: &Path) {
    for entry in std::fs::read_dir(dir).into_iter().flatten().filter_map(Result::ok) {
        if entry.path().extension().is_some_and(|ending| ending == "log") {
            let text = Command::new("tail").args(["-n", "60"]).arg(entry.path()).output();
            let text = text.map(|output| String::from_utf8_lossy(&output.stdout).into_owned());
            eprintln!("---- {}\n{}", entry.path().display(), text.unwrap_or_default());
        }
    }
}
