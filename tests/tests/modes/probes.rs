//! What a tenant system sends beside plain questions (requirements L-common, La to Ld, ambiguity 9): probes and
//! duplicate address detection, announcements, unicast questions, questions for addresses of no subnet. Raw
//! frames of `d`, which is with `a` on h1, about `b` on h2; captured at `d`, at `b` and on the underlay.

use crate::lab::{Mode, ips, of_vn};
use anyhow::{Context as _, Result, bail, ensure};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use weft_e2e::{TestLab, ping};
use weft_lab::{
    capture::{Capture, Captured, Discovery, Frame},
    clock, raw,
};
use weft_model::MacAddr;

/// The last octet of an address that nobody has.
const UNUSED: u8 = 77;
/// Addresses of no subnet of the VNs.
const OUTSIDE: [&str; 2] = ["192.0.3.1", "fd99::1"];

/// What runs while one mode's frames are sent and answered.
struct Scene {
    mode: Mode,
    sender: raw::RawSender,
    /// At `d`, at `b`.
    ends: [Capture; 2],
}

fn spoken(frame: &Frame, which: impl Fn(&Discovery) -> bool) -> bool {
    frame.discovery.as_ref().is_some_and(which)
}

fn question(mac: MacAddr, from: IpAddr, target: IpAddr) -> Result<Vec<u8>> {
    Ok(match (from, target) {
        (IpAddr::V4(from), IpAddr::V4(target)) => raw::arp_request(mac, from, target),
        (IpAddr::V6(from), IpAddr::V6(target)) => raw::neighbour_solicitation(mac, from, target),
        _ => bail!("{from} and {target} are of two families"),
    })
}

const fn nobody(like: IpAddr) -> IpAddr {
    match like {
        IpAddr::V4(_) => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
        IpAddr::V6(_) => IpAddr::V6(Ipv6Addr::UNSPECIFIED),
    }
}

impl Scene {
    fn open(lab: &TestLab, mode: Mode) -> Result<Self> {
        let end = |letter| -> Result<Capture> {
            let tenant = mode.tenant(letter);
            let file = lab.files().run.join(format!("{tenant}.pcap"));
            Ok(Capture::start(&lab.node(&tenant)?, "eth0", &file)?)
        };
        let sender = raw::RawSender::open(&lab.node(&mode.tenant('d'))?, "eth0")?;
        Ok(Self { mode, sender, ends: [end('d')?, end('b')?] })
    }

    fn send(&self, frame: &[u8]) -> Result<()> {
        self.sender.send(frame).context("send")
    }

    /// Sends a probe until `d` hears that somebody has `target`; gives how many it took and who that is.
    fn probe(&self, target: IpAddr) -> Result<(usize, MacAddr)> {
        let heard = |frame: &Frame| spoken(frame, |said| said.answer && said.about == target);
        let (before, mut sent) = (self.ends[0].count(heard), 0);
        // As far apart as probes are at least (RFC 5227 section 1.1, PROBE_MIN), three of them (PROBE_NUM).
        while sent < 3 {
            self.send(&question(self.mode.mac(4), nobody(target), target)?)?;
            sent += 1;
            let told = || self.ends[0].count(heard) > before;
            if clock::until_true(std::time::Duration::from_secs(1), told) {
                let said = self.ends[0].last(heard).and_then(|frame| frame.discovery?.mac);
                return Ok((sent, said.context("no MAC")?));
            }
        }
        bail!("{:?}: nobody objects to {target}", self.mode)
    }
}

/// An address that is tried out and used is defended for its owner, at the first probe; with whose MAC address,
/// says the mode.
fn used(scene: &Scene, octet: u8) -> Result<()> {
    for target in ips(octet) {
        let (sent, mac) = scene.probe(target)?;
        let owner = scene.mode.mac(octet);
        match scene.mode {
            Mode::Translate => ensure!(mac.is_reserved(), "{target}: {mac} is no NVE's"),
            mode => ensure!(mac == owner, "{mode:?}, {target}: {mac} is not {owner}"),
        }
        ensure!(sent == 1, "{:?}, {target}: answered after {sent} probes", scene.mode);
    }
    Ok(())
}

/// The same of an address that nobody has talked to.
pub fn cold(lab: &TestLab, mode: Mode, octet: u8) -> Result<()> {
    used(&Scene::open(lab, mode)?, octet)
}

/// All that nobody may answer for.
fn send_unanswered(scene: &Scene) -> Result<()> {
    let mac = scene.mode.mac(4);
    for (own, unused) in ips(4).into_iter().zip(ips(UNUSED)) {
        scene.send(&question(mac, nobody(unused), unused)?)?;
        let outside = OUTSIDE.iter().map(|text| text.parse::<IpAddr>());
        for target in
            outside.collect::<Result<Vec<_>, _>>()?.into_iter().filter(|t| t.is_ipv4() == own.is_ipv4())
        {
            scene.send(&question(mac, own, target)?)?;
        }
        // A gratuitous ARP request (RFC 5227 section 2.3), an unsolicited advertisement.
        match own {
            IpAddr::V4(ip) => scene.send(&raw::arp_request(mac, ip, ip))?,
            IpAddr::V6(ip) => scene.send(&raw::unsolicited_advertisement(mac, ip))?,
        }
    }
    Ok(())
}

/// Whether `b` is still there is asked of `b`, by unicast, and `b` answers.
fn unicast(scene: &Scene, owner: MacAddr) -> Result<()> {
    let mac = scene.mode.mac(4);
    for (own, target) in ips(4).into_iter().zip(ips(2)) {
        let asked =
            |frame: &Frame| spoken(frame, |said| !said.answer && said.about == target && said.from == own);
        let told = |frame: &Frame| spoken(frame, |said| said.answer && said.about == target);
        let before = (scene.ends[1].count(asked), scene.ends[0].count(told));
        scene.send(&match (own, target) {
            (IpAddr::V4(own), IpAddr::V4(target)) => raw::arp_request_to(owner, mac, own, target),
            (IpAddr::V6(own), IpAddr::V6(target)) => raw::neighbour_solicitation_to(owner, mac, own, target),
            _ => bail!("two families"),
        })?;
        let now = || (scene.ends[1].count(asked), scene.ends[0].count(told));
        let both = || now().0 == before.0 + 1 && now().1 > before.1;
        ensure!(
            clock::until_true(clock::CEILING, both),
            "{:?}, {target}: {before:?}, {:?}",
            scene.mode,
            now()
        );
    }
    Ok(())
}

/// How often each of what [`send_unanswered`] sent crossed the underlay, by whom it is about.
fn crossed(captured: &Captured, mode: Mode, about: IpAddr, answer: bool) -> usize {
    of_vn(captured, mode)
        .filter(|frame| spoken(frame, |said| said.about == about && said.answer == answer))
        .count()
}

pub fn all(lab: &TestLab) -> Result<()> {
    let capture = Capture::underlay(lab, "probes")?;
    let scenes = Mode::ALL.map(|mode| Scene::open(lab, mode));
    let scenes: Vec<Scene> = scenes.into_iter().collect::<Result<_>>()?;
    for scene in &scenes {
        send_unanswered(scene)?;
        used(scene, 2)?;
        let links = weft_lab::Links::open(&lab.node(&scene.mode.tenant('a'))?)?;
        // What a tenant system of this host holds for it.
        let owner = links.neighbour("eth0", "10.0.0.2".parse()?)?.context("a talked to b")?;
        unicast(scene, owner)?;
    }
    // Whoever would answer has had a second.
    ensure!(ping(lab, "proxy-a", "10.0.0.66", 1)?.nothing());
    let captured = capture.stop()?;
    let counts = captured.counts();
    for scene in scenes {
        let Scene { mode, ends, .. } = scene;
        let [at_d, at_b] = ends.map(Capture::stop);
        let (at_d, at_b) = (at_d?, at_b?);
        let members = if mode.asks_members() { 2 } else { 0 };
        let outside: Vec<IpAddr> = OUTSIDE.iter().map(|text| text.parse()).collect::<Result<_, _>>()?;
        for target in ips(UNUSED).into_iter().chain(outside) {
            let answered = |frame: &&Frame| spoken(frame, |said| said.answer && said.about == target);
            ensure!(!at_d.frames.iter().any(|f| answered(&f)), "{mode:?}: somebody answered for {target}");
            // Only where nobody knows who has an address is everybody asked, and only by who can be answered.
            let asked = crossed(&captured, mode, target, false);
            let tried = mode == Mode::Translate && ips(UNUSED).contains(&target);
            ensure!(
                asked == if tried { 0 } else { members },
                "{mode:?}: {target} was asked of {asked}, {counts:?}"
            );
        }
        for own in ips(4) {
            let announced = |frame: &&Frame| {
                spoken(frame, |said| said.about == own && (said.answer || said.from == own))
                    && frame.macs.is_some_and(|(_, to)| to.is_group())
            };
            let seen = at_b.frames.iter().filter(announced).count();
            let wanted = usize::from(matches!(mode, Mode::Flood | Mode::Translate));
            ensure!(seen == wanted, "{mode:?}: b saw {seen} announcements of {own}");
        }
    }
    Ok(())
}
