//! NVEs tell each other that a tenant system is not where frames for it go (requirement V6, RFC 9301 section 6.1),
//! while no Oracle could. The captures say who told whom, and how often.

use anyhow::{Context as _, Result, ensure};
use std::{collections::BTreeSet, net::IpAddr, path::Path, process::Command};
use weft_e2e::{TestLab, cut, ping};
use weft_lab::{
    capture::{Capture, Class, Frame},
    clock,
    echo::Echoes,
};
use weft_model::MacAddr;

const LAB: &str = r#"
name: smr
underlay: UNDERLAY
oracles: { oracle: {} }
hosts: { h1: {}, h2: {}, h3: {}, h4: {} }
vns:
  red: { learning: oracle, subnets: [10.0.0.0/24, "fd00::/64"] }
tenants:
  red-a: { host: h1, vn: red, ips: [10.0.0.1, "fd00::1"] }
  red-b: { host: h2, vn: red, ips: [10.0.0.2, "fd00::2"] }
  red-c: { host: h3, vn: red, ips: [10.0.0.3, "fd00::3"] }
"#;
/// Whoever goes on sending.
const ASKERS: [(&str, &str); 2] = [("h1", "red-a"), ("h3", "red-c")];
const TARGETS: [&str; 2] = ["10.0.0.2", "fd00::2"];
/// Frames a second, of each asker and family.
const RATE: u32 = 50;
/// Between two for one asker, less what a capture's time may be off by, seconds.
const APART: f64 = 2.9;

/// A LISP message of a capture.
#[derive(Debug)]
struct Message {
    number: u64,
    at: f64,
    from: IpAddr,
    to: IpAddr,
    port: u16,
    /// The MAC addresses in it, each once.
    about: BTreeSet<MacAddr>,
}

/// The messages that tshark's `filter` accepts.
fn messages(file: &Path, filter: &str) -> Result<Vec<Message>> {
    let fields = [
        "frame.number",
        "frame.time_relative",
        "ip.src",
        "ipv6.src",
        "ip.dst",
        "ipv6.dst",
        "udp.dstport",
        "lisp.lcaf.iid.mac",
    ];
    let mut tshark = Command::new("tshark");
    tshark.arg("-r").arg(file).args([
        "-Y",
        filter,
        "-T",
        "fields",
        "-E",
        "separator=;",
        "-E",
        "occurrence=a",
    ]);
    let output = tshark.args(fields.iter().flat_map(|field| ["-e", field])).output().context("run tshark")?;
    ensure!(output.status.success(), "tshark: {}", String::from_utf8_lossy(&output.stderr));
    let read = |line: &str| -> Result<Message> {
        let fields: Vec<&str> = line.split(';').collect();
        // An ECM has two IP headers and two ports: the outer ones come first.
        let field = |n: usize| fields.get(n).map_or("", |f| f.split(',').next().unwrap_or_default());
        let ip = |v4: usize| if field(v4).is_empty() { field(v4 + 1) } else { field(v4) };
        let macs = fields.get(7).unwrap_or(&"").split(',').filter(|mac| !mac.is_empty());
        Ok(Message {
            number: field(0).parse()?,
            at: field(1).parse()?,
            from: ip(2).parse()?,
            to: ip(4).parse()?,
            port: field(6).parse()?,
            about: macs.map(str::parse).collect::<Result<_, _>>()?,
        })
    };
    let lines = String::from_utf8(output.stdout)?;
    lines.lines().map(|line| read(line).with_context(|| format!("tshark said {line:?}"))).collect()
}

/// LISP datagrams from one to another.
fn lisp(from: IpAddr, to: IpAddr) -> impl Fn(&Frame) -> bool {
    move |frame| frame.class == Class::LispUdp && (frame.from, frame.to) == (Some(from), Some(to))
}

fn solicited(underlay: &str, oracle: &str) -> Result<()> {
    let mut lab = TestLab::up(&LAB.replace("UNDERLAY", underlay))?;
    lab.settle()?;
    let (old, new, oracle) = (lab.rloc("h2")?, lab.rloc("h4")?, oracle.parse()?);
    let mac = lab.tenant("red-b")?.mac;
    for (_, tenant) in ASKERS {
        for target in TARGETS {
            ensure!(ping(&lab, tenant, target, 1)?.complete(), "{tenant} to {target}");
        }
    }
    for (host, _) in ASKERS {
        cut(&lab, (host, oracle), true)?;
    }
    let capture = Capture::underlay(&lab, "solicited")?;
    lab.move_cold("red-b", "h4")?;
    let mut streams = Vec::new();
    for (_, tenant) in ASKERS {
        for target in TARGETS {
            streams.push(Echoes::start(&lab.node(tenant)?, target.parse()?, RATE)?);
        }
    }
    for (host, _) in ASKERS {
        let asker = lab.rloc(host)?;
        let told = || capture.count(lisp(old, asker)) >= 3 && capture.count(lisp(asker, oracle)) >= 1;
        ensure!(clock::until_true(clock::CEILING, told), "{host} was not told, or has not asked");
    }
    ensure!(streams.iter().all(|stream| stream.answers() == 0), "the old place answers");
    for (host, _) in ASKERS {
        cut(&lab, (host, oracle), false)?;
    }
    let answered = || streams.iter().all(|stream| stream.answers() > 0);
    ensure!(clock::until_true(clock::CEILING, answered), "they still send to the old place");
    drop(streams);
    let captured = capture.stop()?;

    let smrs = messages(&captured.file, "lisp.type == 1 && lisp.mreq.flags.smr == 1")?;
    let questions = messages(&captured.file, "lisp.type == 8 && lisp.mreq.flags.smr == 0")?;
    let invoked = messages(&captured.file, "lisp.type == 8 && lisp.mreq.flags.smri == 1")?;
    let about = |message: &&Message| message.about == BTreeSet::from([mac]);
    ensure!(smrs.iter().all(|smr| smr.from == old && smr.port == 4342 && about(&smr)), "{smrs:?}");
    for (host, _) in ASKERS {
        let asker = lab.rloc(host)?;
        let told: Vec<&Message> = smrs.iter().filter(|smr| smr.to == asker).collect();
        ensure!(told.len() >= 3, "{told:?}");
        ensure!(told.is_sorted_by(|one, next| next.at - one.at >= APART), "{told:?}");
        let astray = captured.frames.iter().filter(|f| (f.from, f.to) == (Some(asker), Some(old)));
        let astray = astray.filter(|f| f.inner.is_some_and(|(_, to)| to == mac)).count();
        ensure!(astray > 20 * told.len(), "{astray} frames for {} solicitations", told.len());
        // It asks when it is told, not before, and the Oracle alone.
        let asked: Vec<&Message> = questions.iter().filter(|q| q.from == asker).filter(about).collect();
        let first = asked.first().with_context(|| format!("{host} has not asked"))?;
        ensure!(first.number > told[0].number && asked.iter().all(|q| q.to == oracle), "{asked:?}");
        ensure!(invoked.iter().any(|q| q.number == first.number), "its question says why: {invoked:?}");
        let last = captured
            .frames
            .iter()
            .rev()
            .find(|f| f.from == Some(asker) && f.inner.is_some_and(|(_, to)| to == mac));
        ensure!(last.and_then(|f| f.to) == Some(new), "{host} sent last to {last:?}");
    }
    ensure!(captured.counts().flooded() == 0, "{:?}", captured.counts());
    lab.down()
}

#[test]
fn v6_who_sends_to_the_old_place_is_solicited_over_ipv4() -> Result<()> {
    solicited("{ ipv4: 192.0.2.0/24 }", "192.0.2.101")
}

#[test]
fn v6_who_sends_to_the_old_place_is_solicited_over_ipv6() -> Result<()> {
    solicited("{ ipv6: \"2001:db8::/64\" }", "2001:db8::65")
}
