//! Weft's LISP against peers that share no code with it: an xTR and a decoder written from the
//! RFCs, tshark, and hostile senders. The scripts in `peers/` can be run by hand as well.

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;
use std::{
    path::{Path, PathBuf},
    process::{Command, Stdio},
};
use weft_e2e::TestLab;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// Runs `peers/SCRIPT WORDS` to its end. What it says on standard error is shown with the test's own.
fn script(name: &str, words: &[&str]) -> Result<(bool, String)> {
    let path = root().join("tests/peers").join(name);
    let output = Command::new("python3")
        .arg(&path)
        .args(words)
        .env("PYTHONDONTWRITEBYTECODE", "1")
        .stdin(Stdio::null())
        .stderr(Stdio::inherit())
        .output()
        .with_context(|| format!("cannot run python3 {}", path.display()))?;
    Ok((output.status.success(), String::from_utf8(output.stdout)?))
}

/// Brings up the lab that a script wants, runs the script in it, and gives its report, in which
/// every check has passed.
fn report(name: &str, words: &[&str], up: fn(&str) -> Result<TestLab>, least: usize) -> Result<Value> {
    let (_, spec) = script(name, &[words, &["--print-spec"]].concat())?;
    let lab = up(&spec)?;
    let (good, said) = script(name, &[words, &["--lab", lab.name()]].concat())?;
    let report: Value = serde_json::from_str(&said).with_context(|| format!("{name} said {said:?}"))?;
    ensure!(good && report["ok"] == true, "{name} {words:?}: {}", report["failed"]);
    let checks = report["checks"].as_array().context("it has checks")?;
    ensure!(checks.len() >= least, "{} checks, at least {least} are known", checks.len());
    ensure!(checks.iter().all(|check| check["ok"] == true), "{checks:?}");
    lab.down()?;
    Ok(report)
}

/// The names in an object of counts.
fn names(counts: &Value) -> Vec<&str> {
    counts.as_object().map(|counts| counts.keys().map(String::as_str).collect()).unwrap_or_default()
}

/// Every kind of message that the codec writes, in the eyes of a decoder written from the RFCs:
/// Map-Notify-Ack and the I and N bits of Map-Requests too, which tshark 4.0 does not know.
#[test]
fn a_decoder_from_the_rfcs_reads_every_sample() -> Result<()> {
    let folder = root().join("fuzz/corpus/lisp_udp");
    let mut samples: Vec<String> = std::fs::read_dir(&folder)?
        .map(|entry| Ok(entry?.path().display().to_string()))
        .collect::<Result<_>>()?;
    // The fuzzer's own finds are named by their hash.
    samples.retain(|path| path.rsplit('/').next().is_some_and(|name| name.len() != 40));
    samples.sort();
    ensure!(samples.len() >= 40, "{samples:?}");
    let words: Vec<&str> = std::iter::once("--raw").chain(samples.iter().map(String::as_str)).collect();
    let (_, said) = script("lisp_decode.py", &words)?;
    let decoded: Value = serde_json::from_str(&said)?;
    let messages = decoded["messages"].as_array().context("it decoded")?;
    ensure!(messages.len() == samples.len());
    let (mut acks, mut subscriptions) = (0, 0);
    for message in messages {
        let file = message["file"].as_str().unwrap_or_default();
        // Deployed code leaves out the inner IP header for MAC EIDs; the RFC does not allow it.
        if file.ends_with("/ecm-bare-request-mac") {
            ensure!(message["error"].as_str().is_some_and(|e| e.contains("without an inner IP header")));
            continue;
        }
        ensure!(message["error"].is_null(), "{message}");
        let message = &message["message"];
        acks += usize::from(message["type"] == "map-notify-ack");
        subscriptions += usize::from(message["id"] == true && message["records"][0]["notify"] == true);
    }
    ensure!(acks >= 7 && subscriptions >= 3, "{acks} Map-Notify-Acks, {subscriptions} requests with I and N");
    Ok(())
}

fn plain_xtr(words: &[&str]) -> Result<()> {
    let report = report("xtr.py", words, TestLab::up, 60)?;
    let gaps = report["gaps"].as_array().context("it says what it knows not to work")?;
    ensure!(gaps.is_empty(), "{gaps:?}");
    Ok(())
}

/// Requirement N1 and RFC 9301: an xTR without Weft registers and resolves, and what it must not
/// do is refused without a word and counted.
#[test]
fn a_plain_xtr_on_an_ipv4_underlay() -> Result<()> {
    plain_xtr(&[])
}

#[test]
fn a_plain_xtr_on_an_ipv6_underlay() -> Result<()> {
    plain_xtr(&["--ipv6"])
}

fn tshark(words: &[&str]) -> Result<()> {
    let report = report("tshark_check.py", words, TestLab::bare, 18)?;
    ensure!(
        names(&report["seen"]["udp"]) == ["ecm", "map-notify", "map-register", "map-reply", "map-request"],
        "{}",
        report["seen"]
    );
    // Registration, ACK and Mapping Notification; and Weft's hello, end of registration, VN digest and
    // naming of groups, the only types that tshark does not know.
    ensure!(
        names(&report["seen"]["tcp"]) == ["17", "18", "21", "65281", "65282", "65283", "65297"],
        "{}",
        report["seen"]
    );
    let exceptions = report["exceptions"].as_array().context("it names what it cannot judge")?;
    ensure!(exceptions.len() == 6, "{exceptions:?}");
    Ok(())
}

/// Everything LISP that crosses the fabric in its life decodes, in TLS too.
#[test]
fn tshark_decodes_an_ipv4_underlay() -> Result<()> {
    tshark(&[])
}

#[test]
fn tshark_decodes_an_ipv6_underlay() -> Result<()> {
    tshark(&["--ipv6"])
}

/// 200,000 hostile datagrams at full speed and rubbish on TCP: nobody crashes, grows or stops
/// serving, and the counters say what came.
#[test]
fn hostile_datagrams_and_streams_change_nothing() -> Result<()> {
    let report = report("hostile.py", &["--datagrams", "200000"], TestLab::up, 20)?;
    ensure!(report["datagrams"] == 200_000, "{report}");
    Ok(())
}
