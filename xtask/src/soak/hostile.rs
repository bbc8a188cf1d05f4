//! Millions of hostile datagrams at the LISP ports of a fabric that works. Afterwards the processes
//! are those that were there, have not grown, and tenants that nobody ever asked for reach each other.

use super::{
    datagrams::{self, Datagrams, Random},
    resident,
};
use crate::{interrupt, say};
use anyhow::{Context as _, Result, bail, ensure};
use serde_json::Value;
use std::{
    net::{IpAddr, SocketAddr, UdpSocket},
    sync::atomic::{AtomicBool, AtomicU64, Ordering},
    thread::ScopedJoinHandle,
    time::{Duration, Instant},
};
use weft_lab::{
    AddressFlags, DeviceKind, Lab, Links, NetNs, TenantSpec, clock, commands::LISP_PORT, ping::ping,
};

/// How much more memory a daemon may hold afterwards, KiB.
const GROWTH: u64 = 20 * 1024;
/// The Oracle and its underlay address in the example's file.
const ORACLE: (&str, &str) = ("oracle", "192.0.2.101");
/// An underlay address that is nobody's.
const STRANGER: &str = "192.0.2.200";
/// Datagrams between two looks at how the receiver gets on.
const BATCH: u64 = 256;
/// Octets that may wait at the receiver: beyond, the senders wait. Well below its buffer, because
/// what is counted is the memory that packets take there.
const WAITING: u64 = 64 << 10;

/// Whose datagrams, to whom.
struct Flood {
    what: &'static str,
    from: &'static str,
    source: IpAddr,
    to: &'static str,
    /// Its share of all, percent.
    share: u64,
}

/// How a receiver's socket gets on.
#[derive(Debug, Default)]
struct Socket {
    waiting: AtomicU64,
    dropped: AtomicU64,
}

/// Sends `count` of them and looks at what became of the fabric.
pub(super) fn run(lab: &mut Lab, count: u64, seed: u64) -> Result<()> {
    say::heading(&format!("{count} hostile datagrams, seed {seed}"));
    let oracle = address(lab, ORACLE.0)?;
    let stranger: IpAddr = STRANGER.parse()?;
    Links::open(&lab.node("h3")?)?.add_address(
        "eth0",
        format!("{STRANGER}/24").parse()?,
        AddressFlags::Detect,
    )?;
    // Where the killing left red-c is chance; what is asked from h3 is looked at only while it is there.
    lab.move_cold("red-c", "h3")?;
    let known = lab.rloc("h3")?;
    let floods = [
        Flood { what: "an NVE to the Oracle", from: "h3", source: known, to: "oracle", share: 50 },
        Flood { what: "a stranger to the Oracle", from: "h3", source: stranger, to: "oracle", share: 5 },
        Flood { what: "the Oracle to an NVE", from: "oracle", source: oracle, to: "h1", share: 40 },
        Flood { what: "a stranger to an NVE", from: "h3", source: stranger, to: "h1", share: 5 },
    ];
    new_pair(lab, "before")?;
    let daemons = ["oracle", "h1"];
    let memory = |lab: &Lab| -> Result<Vec<u64>> {
        daemons.iter().map(|name| resident(lab.daemon(name)?.id.pid).context("no memory to read")).collect()
    };
    let ids = daemons.map(|name| lab.daemon(name).map(|daemon| daemon.id));
    // The tables of memory allocators fill up at first: growth is counted from a tenth on.
    let warm = count / 10;
    let mut sent = flood(lab, &floods, warm, seed)?;
    let before = memory(lab)?;
    sent.extend(flood(lab, &floods, count - warm, seed.wrapping_add(1))?);
    let after = memory(lab)?;

    for (name, id) in daemons.iter().zip(ids) {
        ensure!(id?.alive(), "{name} is not the process it was: see {}", lab.files().log(name).display());
        let log = std::fs::read_to_string(lab.files().log(name)).unwrap_or_default();
        ensure!(!log.contains("panicked"), "{name} panicked: see {}", lab.files().log(name).display());
    }
    new_pair(lab, "after")?;

    let mut rows = Vec::new();
    for flood in &floods {
        let of = sent.iter().filter(|one| one.what == flood.what);
        let (all, refused) = of.fold((0, 0), |sum, one| (sum.0 + one.sent, sum.1 + one.refused));
        rows.push(vec![flood.what.to_owned(), all.to_string(), refused.to_string()]);
    }
    say::table(&["from, to", "sent", "refused by the sender's kernel"], &rows);
    let dropped: u64 = sent.iter().map(|one| one.dropped).sum();
    ensure!(dropped * 2 < count, "{dropped} of {count} found no room: hardly any was looked at");
    say::line(&format!(
        "{dropped} found no room in their receiver's buffer; counted by those who took the others:"
    ));
    counted(lab)?;
    let mut rows = Vec::new();
    for ((name, before), after) in daemons.iter().zip(before).zip(after) {
        rows.push(vec![(*name).to_owned(), before.to_string(), after.to_string()]);
        ensure!(after <= before + GROWTH, "{name} grew from {before} to {after} KiB");
    }
    say::table(&["daemon", "KiB before", "KiB after"], &rows);
    Ok(())
}

/// What became of one flood.
struct Sent {
    what: &'static str,
    sent: u64,
    refused: u64,
    dropped: u64,
}

/// A thread that sends, and how many it sent and how many its kernel refused.
type Sending<'a> = ScopedJoinHandle<'a, Result<(u64, u64)>>;

/// Sends `count` datagrams, each flood in a thread of its own, as fast as they are taken.
fn flood(lab: &Lab, floods: &[Flood], count: u64, seed: u64) -> Result<Vec<Sent>> {
    let samples = samples(lab)?;
    let (over, done) = (AtomicBool::new(false), AtomicU64::new(0));
    let sockets = [("oracle", Socket::default()), ("h1", Socket::default())];
    let socket = |to: &str| sockets.iter().find(|(name, _)| *name == to).map(|(_, socket)| socket);
    let namespaces = [lab.node(sockets[0].0)?, lab.node(sockets[1].0)?];
    let start = clock::now();
    std::thread::scope(|scope| {
        for ((_, socket), namespace) in sockets.iter().zip(namespaces) {
            let over = &over;
            scope.spawn(move || watch(&namespace, socket, over));
        }
        let mut threads: Vec<(&Flood, Sending<'_>)> = Vec::new();
        for (stream, flood) in floods.iter().enumerate() {
            let (namespace, to) = (lab.node(flood.from), address(lab, flood.to));
            let random = Random::new(seed, stream as u64);
            let (samples, done) = (&samples, &done);
            let receiver = socket(flood.to);
            let share = count * flood.share / 100;
            let sending = move || {
                let from = namespace?.run(|| UdpSocket::bind((flood.source, 0)))??;
                let to = SocketAddr::new(to?, LISP_PORT);
                let receiver = receiver.context("nobody watches it")?;
                send(&from, to, share, Datagrams::new(random, samples), receiver, done)
            };
            threads.push((flood, scope.spawn(sending)));
        }
        let mut shown = start;
        while threads.iter().any(|(_, thread)| !thread.is_finished()) {
            clock::pace_until(clock::now() + Duration::from_millis(50));
            progress(&mut shown, start, done.load(Ordering::Relaxed), count);
        }
        // Those who watch go on until they are told.
        over.store(true, Ordering::Release);
        let mut all = Vec::new();
        for (flood, thread) in threads {
            let (sent, refused) = thread
                .join()
                .unwrap_or_else(|_| anyhow::bail!("a sender ended early"))
                .context(flood.what)?;
            all.push(Sent { what: flood.what, sent, refused, dropped: 0 });
        }
        let dropped = sockets.iter().map(|(_, socket)| socket.dropped.load(Ordering::Relaxed)).sum();
        if let Some(last) = all.last_mut() {
            last.dropped = dropped;
        }
        Ok(all)
    })
}

/// What is mutated: messages of every kind, and among them many that the Oracle has a use for, from h3,
/// where red-c is.
fn samples(lab: &Lab) -> Result<Vec<Vec<u8>>> {
    let mut all = datagrams::samples()?;
    let vns: Value = serde_json::from_str(&lab.weft(["get", "vns", "-o", "json"])?)?;
    let vni = vns.as_array().and_then(|vns| vns.iter().find(|vn| vn["name"] == "red")?["vni"].as_u64());
    let vni = u32::try_from(vni.context("VN red has no VNID")?)?;
    let addresses = (lab.rloc("h3")?, address(lab, ORACLE.0)?, lab.tenant("red-c")?.ipv4());
    let (IpAddr::V4(rloc), IpAddr::V4(oracle), Some(IpAddr::V4(source))) = addresses else {
        bail!("the example's underlay and tenants have IPv4");
    };
    let known = all.len();
    all.extend((0..known).filter_map(|number| {
        let target = [10, 0, 0, u8::try_from(number % 256).ok()?];
        Some(datagrams::question(vni, (rloc, oracle), (source, target.into())))
    }));
    Ok(all)
}

/// The underlay address of the Oracle or a host.
fn address(lab: &Lab, node: &str) -> Result<IpAddr> {
    if node == ORACLE.0 { Ok(ORACLE.1.parse()?) } else { Ok(lab.rloc(node)?) }
}

fn progress(shown: &mut Instant, start: Instant, done: u64, count: u64) {
    let now = clock::now();
    if now < *shown + Duration::from_secs(5) {
        return;
    }
    *shown = now;
    let rate = done as f64 / (now - start).as_secs_f64();
    say::step(&format!("{done} of {count} datagrams, {rate:.0} a second"));
}

fn send(
    from: &UdpSocket,
    to: SocketAddr,
    count: u64,
    mut datagrams: Datagrams<'_>,
    receiver: &Socket,
    done: &AtomicU64,
) -> Result<(u64, u64)> {
    let (mut sent, mut refused) = (0, 0);
    let mut octets = Vec::with_capacity(2_048);
    for number in 0..count {
        if number % BATCH == 0 {
            if interrupt::interrupted() {
                break;
            }
            done.fetch_add(BATCH.min(count - number), Ordering::Relaxed);
            let taken = || receiver.waiting.load(Ordering::Relaxed) < WAITING;
            while !taken() {
                ensure!(clock::until_true(clock::CEILING, taken), "{to} takes nothing any more");
            }
        }
        datagrams.next(&mut octets);
        // Word that an earlier one could not be delivered, or no room: as good as lost on the way.
        match from.send_to(&octets, to) {
            Ok(_) => sent += 1,
            Err(_) => refused += 1,
        }
    }
    Ok((sent, refused))
}

/// Follows what waits at, and what found no room in, the LISP sockets of a namespace.
fn watch(namespace: &NetNs, socket: &Socket, over: &AtomicBool) {
    let started = sockets(namespace).map_or(0, |(_, dropped)| dropped);
    let _ = namespace.run(|| {
        while !over.load(Ordering::Acquire) {
            if let Some((waiting, dropped)) = read_sockets() {
                socket.waiting.store(waiting, Ordering::Relaxed);
                socket.dropped.store(dropped.saturating_sub(started), Ordering::Relaxed);
            }
            clock::pace_until(clock::now() + Duration::from_micros(500));
        }
    });
}

fn sockets(namespace: &NetNs) -> Option<(u64, u64)> {
    namespace.run(read_sockets).ok().flatten()
}

/// Octets waiting and datagrams dropped, over all sockets bound to LISP's port, in the namespace of
/// this thread.
fn read_sockets() -> Option<(u64, u64)> {
    let mut sum = (0, 0);
    for file in ["/proc/thread-self/net/udp", "/proc/thread-self/net/udp6"] {
        let text = std::fs::read_to_string(file).ok()?;
        for line in text.lines().skip(1) {
            let words: Vec<&str> = line.split_ascii_whitespace().collect();
            let port = words.get(1).and_then(|word| u16::from_str_radix(word.rsplit(':').next()?, 16).ok());
            if port != Some(LISP_PORT) {
                continue;
            }
            let waiting =
                words.get(4).and_then(|word| u64::from_str_radix(word.rsplit(':').next()?, 16).ok());
            sum.0 += waiting.unwrap_or_default();
            sum.1 += words.last().and_then(|word| word.parse::<u64>().ok()).unwrap_or_default();
        }
    }
    Some(sum)
}

/// Two tenants that nobody ever asked for reach each other over both families, at the first attempt.
fn new_pair(lab: &mut Lab, when: &str) -> Result<()> {
    let ends = [("h1", "a"), ("h2", "b")];
    for (host, end) in ends {
        let what = TenantSpec {
            host: host.parse()?,
            vn: "red".to_owned(),
            ips: Vec::new(),
            mac: None,
            device: DeviceKind::Veth,
        };
        lab.attach(&format!("{when}-{end}"), &what)?;
    }
    lab.settle()?;
    for (from, to) in [("a", "b"), ("b", "a")] {
        for ip in lab.tenant(&format!("{when}-{to}"))?.ips.clone() {
            let pinged = ping(lab, &format!("{when}-{from}"), &ip.addr().to_string(), 2)?;
            ensure!(pinged.complete(), "{when} the datagrams, {from} to {to} at {}: {pinged:?}", ip.addr());
        }
    }
    Ok(())
}

/// The counters that tell of it, of both.
fn counted(lab: &Lab) -> Result<()> {
    let socket = lab.files().socket("h1").display().to_string();
    let of_oracle = lab.weft(["get", "counters", "-o", "json"])?;
    let of_h1 = lab.weft_at("h1", ["get", "counters", "--socket", &socket, "-o", "json"])?;
    for (name, text) in [("oracle", of_oracle), ("h1", of_h1)] {
        let all: Value = serde_json::from_str(&text)?;
        let all = all.as_array().context("weft get counters gives no list")?;
        let mut rows: Vec<(u64, String)> = all
            .iter()
            .filter_map(|row| Some((row["count"].as_u64()?, row["counter"].as_str()?.to_owned())))
            .filter(|(count, _)| *count >= 1_000)
            .collect();
        rows.sort_by(|a, b| b.cmp(a));
        let rows: Vec<Vec<String>> =
            rows.into_iter().map(|(count, what)| vec![what, count.to_string()]).collect();
        say::table(&[&format!("{name} counted"), "of them"], &rows);
    }
    Ok(())
}
