//! tshark as a referee: it must understand every sample and complain about none.
//!
//! Needs tshark and text2pcap, which Debian's package tshark brings.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

#[allow(dead_code, reason = "main is the example's")]
#[path = "../examples/samples.rs"]
mod samples;

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;

fn run(command: &mut Command) -> String {
    let output = command.output().expect("installed");
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// A capture with one packet per sample, in a folder of its own.
fn capture(name: &str, port: &str, samples: &[(String, Vec<u8>)]) -> PathBuf {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    std::fs::create_dir_all(&folder).unwrap();
    let (text, pcap) = (folder.join("packets.txt"), folder.join("packets.pcap"));
    let mut dump = String::new();
    for (_, octets) in samples {
        dump.push_str("000000");
        octets.iter().for_each(|octet| write!(dump, " {octet:02x}").unwrap());
        dump.push('\n');
    }
    std::fs::write(&text, dump).unwrap();
    run(Command::new("text2pcap").args(["-q", port, "40000,4342"]).args([&text, &pcap]));
    pcap
}

fn tshark(pcap: &Path, args: &[&str]) -> String {
    let checks = ["-o", "udp.check_checksum:TRUE", "-o", "ip.check_checksum:TRUE"];
    let mut command = Command::new("tshark");
    run(command.args(["-d", "tcp.port==4342,lisp-tcp"]).args(checks).arg("-r").arg(pcap).args(args))
}

/// One line per sample, and not one complaint but of what tshark 4.0 does not know: that who unsubscribes names
/// no ITR-RLOC (RFC 9437 section 5).
fn summary(pcap: &Path, samples: &[(String, Vec<u8>)]) -> Vec<String> {
    let complaints = ["-Y", "_ws.malformed || _ws.expert", "-T", "fields", "-e", "frame.number"];
    let complaints = tshark(pcap, &[&complaints[..], &["-e", "_ws.expert.message"]].concat());
    let unknown = samples.iter().zip(1..).filter(|((name, _), _)| name.contains("-request-unsubscribe"));
    let expected: String =
        unknown.map(|(_, n)| format!("{n}\tUnexpected ITR-RLOC-AFI (0), cannot decode\n")).collect();
    assert_eq!(complaints, expected, "malformed or complained about");
    let info = tshark(pcap, &["-T", "fields", "-e", "_ws.col.Info"]);
    let lines: Vec<_> = info.lines().map(str::to_owned).collect();
    assert_eq!(lines.len(), samples.len());
    lines
}

#[test]
fn udp() {
    let samples = samples::udp().unwrap();
    let pcap = capture("udp", "-u", &samples);
    for ((name, _), info) in samples.iter().zip(summary(&pcap, &samples)) {
        // tshark 4.0 knows neither Map-Notify-Ack nor an ECM without an IP header.
        let expected = match name.split('-').nth(1).unwrap() {
            _ if name.contains("notify-ack") => "LISP Control Packet (5)",
            _ if name.contains("ecm-bare") => "Encapsulated Control Message",
            "ecm" => "Encapsulated Map-Request for [5000]",
            "request" if name.contains("smr") => "Map-Request (SMR) for [5000]",
            "request" if name.contains("probe") => "Map-Request (RLOC-probe) for [5000]",
            "request" if name.contains("unsubscribe") => "Map-Request",
            "request" => "Map-Request for [5000]",
            "reply" => "Map-Reply",
            "register" => "Map-Register",
            _ => "Map-Notify",
        };
        assert!(info.contains(expected), "{name}: {info}");
    }
}

#[test]
fn tcp() {
    let samples = samples::tcp().unwrap();
    let pcap = capture("tcp", "-T", &samples);
    for ((name, _), info) in samples.iter().zip(summary(&pcap, &samples)) {
        let own = [
            "tcp-hello",
            "tcp-end-of-registration",
            "tcp-vn-digest",
            "tcp-subscribe-mappings",
            "tcp-unsubscribe-mappings",
            "tcp-mappings-refused",
            "tcp-mappings-begin",
            "tcp-mappings-marker",
            "tcp-lisp-port",
            "tcp-group-begin",
            "tcp-group-end",
            "tcp-group-add-v4",
            "tcp-group-remove-v6",
            "tcp-group-add-all",
            "tcp-group-remove-all",
            "tcp-names-groups",
            "tcp-view-request",
            "tcp-view-part",
        ]
        .contains(&name.as_str());
        assert_eq!(info.contains("Unknown type"), own, "{name}: {info}");
        assert!(info.starts_with("Msg: "), "{name}: {info}");
    }
}
