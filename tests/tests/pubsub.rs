//! RFC 9437 with a peer that shares no code with Weft: an xTR made with scapy subscribes over UDP while tenant
//! systems of Weft's NVEs come, move and go. tshark is the referee of what crosses the fabric.

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};
use std::{
    collections::{BTreeMap, BTreeSet},
    path::PathBuf,
    process::{Child, Command, Stdio},
};
use weft_e2e::{Peer, THREE_HOSTS, TestLab, script};
use weft_lab::{DeviceKind, TenantSpec, clock};

const XTR_ID: &str = "000102030405060708090a0b0c0d0e0f";
const KEY: &str = "for registrations";
const PUBSUB_KEY: &str = "for publications";

/// The three hosts of the examples, the third without an NVE and tenant.
fn spec(ipv6: bool) -> String {
    let lines = THREE_HOSTS.lines().filter(|line| !line.contains("host: h3"));
    let text: String = lines.flat_map(|line| [line, "\n"]).collect();
    let text = text.replace("h3: {}", "h3: { nve: false }");
    if ipv6 { text.replace("ipv4: 192.0.2.0/24", "ipv6: \"2001:db8::/64\"") } else { text }
}

/// Who is where, as the peer has been told.
type Table = BTreeMap<String, BTreeSet<String>>;

/// Takes in the records of a Map-Notify. IP addresses lead to MACs, MACs to RLOCs.
fn learn(table: &mut Table, notify: &Value) {
    for record in notify["records"].as_array().into_iter().flatten() {
        let eid = record["eid"].as_str().unwrap_or_default();
        let Some(eid) = eid.strip_suffix("/32").or(eid.strip_suffix("/128")).or(eid.strip_suffix("/48"))
        else {
            continue;
        };
        let locators = record["locators"].as_array().into_iter().flatten();
        let at: BTreeSet<String> = locators.filter_map(|l| Some(l[0].as_str()?.to_owned())).collect();
        if at.is_empty() { drop(table.remove(eid)) } else { drop(table.insert(eid.to_owned(), at)) }
    }
}

struct Scene {
    lab: TestLab,
    peer: Peer,
    table: Table,
    vni: u64,
}

impl Scene {
    fn counter(&self, name: &str) -> Result<u64> {
        let counters = self.lab.json(&["get", "counters"])?;
        let line = counters.as_array().and_then(|all| all.iter().find(|line| line["counter"] == name));
        line.and_then(|line| line["count"].as_u64()).with_context(|| format!("a counter {name}"))
    }

    /// Waits until a counter has risen by `by` since it was `from`, and no further.
    fn counted(&self, name: &str, from: u64, by: u64) -> Result<()> {
        let risen = clock::until_true(clock::CEILING, || self.counter(name).is_ok_and(|n| n >= from + by));
        let count = self.counter(name)?;
        ensure!(risen && count == from + by, "{name} is {count}, not {from} + {by}");
        Ok(())
    }

    fn tell(&mut self, what: &str, eid: &str, mask_len: Option<u8>, more: Value) -> Result<()> {
        let mut command = json!({ "do": what, "iid": self.vni, "eid": eid });
        if let Some(mask_len) = mask_len {
            command["mask_len"] = mask_len.into();
        }
        for (key, value) in more.as_object().into_iter().flatten() {
            command[key] = value.clone();
        }
        self.peer.tell(command)
    }

    /// The next Map-Notify of a kind; what publications tell is learned, whichever is waited for. All are authentic
    /// with the key of publications, and have its Key ID.
    fn notify(&mut self, of: &str) -> Result<Value> {
        loop {
            let what = format!("a Map-Notify of {of}");
            let notify = self.peer.expect(&what, |line| line["heard"] == "map-notify")?;
            ensure!(notify["authentic"] == true && notify["key_id"] == 3, "{notify}");
            ensure!(notify["octets"].as_u64().is_some_and(|octets| octets <= 1_400), "{notify}");
            if notify["of"] == "publication" {
                learn(&mut self.table, &notify);
            }
            if notify["of"] == of {
                return Ok(notify);
            }
        }
    }

    /// Has Map-Notifies acknowledged from now on, or not. What came before, as a link-local address of a tenant system
    /// that came a moment ago, is taken in.
    fn acknowledge(&mut self, yes: bool) -> Result<()> {
        self.peer.tell(json!({ "do": "acknowledge", "yes": yes }))?;
        let before = self.peer.heard.len();
        self.peer.expect("it will", |line| line["acknowledges"] == yes)?;
        let since = self.peer.heard.get(before..).unwrap_or_default();
        for notify in since.iter().filter(|line| line["of"] == "publication") {
            learn(&mut self.table, notify);
        }
        Ok(())
    }

    /// Takes publications in until the table is what is `wanted` of it.
    fn until(&mut self, what: &str, wanted: impl Fn(&Table) -> bool) -> Result<()> {
        while !wanted(&self.table) {
            self.notify("publication").with_context(|| format!("{what}: {:#?}", self.table))?;
        }
        Ok(())
    }

    /// Whether the table has a tenant system at `host`: its addresses lead to its MAC, that to the host.
    fn has(&self, name: &str, host: &str) -> Result<impl Fn(&Table) -> bool + use<>> {
        let (rloc, tenant) = (self.lab.rloc(host)?.to_string(), self.lab.tenant(name)?.clone());
        Ok(move |table: &Table| {
            let mac = tenant.mac.to_string();
            let at = |eid: &str| table.get(eid).cloned().unwrap_or_default();
            let mut ips = tenant.ips.iter().map(|net| net.addr().to_string());
            ips.all(|ip| at(&ip) == [mac.clone()].into()) && at(&mac) == [rloc.clone()].into()
        })
    }

    fn subscriptions(&self) -> Result<Vec<u64>> {
        let xtrs = self.lab.json(&["get", "xtrs"])?;
        Ok(xtrs.as_array().into_iter().flatten().filter_map(|xtr| xtr["subscriptions"].as_u64()).collect())
    }
}

/// A capture of port 4342 with whole frames.
struct Dumpcap(Child, PathBuf);

impl Dumpcap {
    fn start(lab: &TestLab) -> Result<Self> {
        let file = lab.files().run.join("pubsub.pcap");
        let mut command = Command::new("dumpcap");
        command.args(["-q", "-P", "-i", "br0", "-f", "udp port 4342", "-w"]).arg(&file);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let child = lab.node("fabric")?.spawn(&mut command)?;
        let capture = Self(child, file);
        let begun = || std::fs::metadata(&capture.1).is_ok_and(|file| file.len() >= 24);
        ensure!(clock::until_true(clock::CEILING, begun), "dumpcap does not capture");
        Ok(capture)
    }

    /// Waits until the file has `nonce` so often, and has it judged: by message type, how many datagrams.
    fn judge(mut self, nonce: u64, times: usize) -> Result<BTreeMap<String, usize>> {
        let octets = nonce.to_be_bytes();
        let count = |file: &[u8]| file.windows(8).filter(|window| *window == octets).count();
        let written = || std::fs::read(&self.1).is_ok_and(|file| count(&file) >= times);
        ensure!(clock::until_true(clock::CEILING, written), "the last datagrams are not in the capture");
        self.0.kill()?;
        self.0.wait()?;
        let seen = |filter: &str| -> Result<String> {
            let mut tshark = Command::new("tshark");
            tshark.arg("-r").arg(&self.1).args(["-Y", filter]);
            let output = tshark.args(["-T", "fields", "-e", "lisp.type", "-e", "_ws.col.Info"]).output()?;
            ensure!(output.status.success(), "tshark: {}", String::from_utf8_lossy(&output.stderr));
            Ok(String::from_utf8(output.stdout)?)
        };
        // tshark 4.0 does not know that who unsubscribes names no ITR-RLOC.
        let unknown = "_ws.expert.message contains \"ITR-RLOC-AFI (0)\"";
        ensure!(seen(unknown)?.lines().count() == 1, "the one Map-Request that unsubscribes");
        let complaints = "_ws.malformed || _ws.short || _ws.expert.severity >= 0x600000";
        let bad = seen(&format!("({complaints}) && !({unknown})"))?;
        ensure!(bad.is_empty(), "tshark complains of {bad}");
        let mut types = BTreeMap::new();
        for line in seen("udp.port == 4342")?.lines() {
            let kind = line.split([',', '\t']).next().unwrap_or_default();
            *types.entry(kind.to_owned()).or_default() += 1;
        }
        Ok(types)
    }
}

impl Drop for Dumpcap {
    fn drop(&mut self) {
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

/// Makes the xTR known as an operator does, grants it a tenant system and starts it.
fn scene(ipv6: bool) -> Result<(Scene, Value)> {
    let lab = TestLab::up(&spec(ipv6))?;
    let (rloc, oracle) = (lab.rloc("h3")?.to_string(), lab.rloc("oracle")?.to_string());
    let files = [("key", KEY), ("pubsub-key", PUBSUB_KEY)].map(|(name, secret)| {
        let file = lab.files().run.join(name);
        std::fs::write(&file, format!("{secret}\n")).map(|()| file.display().to_string())
    });
    let [key, pubsub_key] = files;
    let (key, pubsub_key) = (key?, pubsub_key?);
    let add =
        ["xtr", "add", "router", "--rloc", &rloc, "--xtr-id", XTR_ID, "--site-id", "7", "--key-id", "3"];
    lab.weft([&add[..], &["--key-file", &key, "--pubsub-key-file", &pubsub_key, "--vn", "red"]].concat())?;
    let wish = json!({ "vn": "red", "tsi": "legacy", "nve": "router" }).to_string();
    let asked = Command::new("/usr/bin/python3")
        .arg(script("peerlab.py"))
        .args(["--lab", lab.name(), "POST", "/v1/grants", &wish])
        .env("PYTHONDONTWRITEBYTECODE", "1")
        .output()?;
    ensure!(asked.status.success(), "{}", String::from_utf8_lossy(&asked.stderr));
    let grant: Value = serde_json::from_slice(&asked.stdout)?;
    let words = ["--rloc", &rloc, "--oracle", &oracle, "--xtr-id", XTR_ID, "--site-id", "7", "--key-id", "3"];
    let words = [&words[..], &["--key", KEY, "--pubsub-key", PUBSUB_KEY]].concat();
    let words: Vec<String> = words.into_iter().map(str::to_owned).collect();
    let peer = Peer::start(&lab, "h3", "pubsub_peer.py", &words)?;
    let vns = lab.json(&["get", "vns"])?;
    let vni = vns.as_array().and_then(|all| all.iter().find(|vn| vn["name"] == "red"));
    let vni = vni.and_then(|vn| vn["vni"].as_u64()).context("red has a VNI")?;
    Ok((Scene { lab, peer, table: Table::new(), vni }, grant["grant"].clone()))
}

fn new_tenant(host: &str, last: u8) -> Result<TenantSpec> {
    let ips = vec![format!("10.0.0.{last}").parse()?, format!("fd00::{last:x}").parse()?];
    Ok(TenantSpec { host: host.parse()?, vn: "red".to_owned(), ips, mac: None, device: DeviceKind::Veth })
}

fn a_scapy_xtr_subscribes(ipv6: bool) -> Result<()> {
    let (mut scene, grant) = scene(ipv6)?;
    let capture = Dumpcap::start(&scene.lab)?;
    let (vni, rloc) = (scene.vni, scene.lab.rloc("h3")?.to_string());
    let own = grant["mac"].as_str().context("a MAC")?.to_owned();

    // It registers and asks like any other.
    let own_ips: Vec<String> = grant["ips"]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(|ip| Some(ip.as_str()?.to_owned()))
        .collect();
    let mut records = vec![json!({ "iid": vni, "eid": own, "locators": [[rloc, 1]] })];
    records.extend(own_ips.iter().map(|ip| json!({ "iid": vni, "eid": ip, "locators": [[own, 255]] })));
    scene.peer.tell(json!({ "do": "register", "records": records }))?;
    let answer = scene.peer.expect("its Map-Register is acknowledged", |l| l["of"] == "register")?;
    ensure!(answer["records"].as_array().map(Vec::len) == Some(1 + own_ips.len()), "{answer}");
    let (a, b) = (scene.lab.tenant("red-a")?.clone(), scene.lab.tenant("red-b")?.clone());
    let h1 = scene.lab.rloc("h1")?.to_string();
    for eid in a.ips.iter().map(|net| net.addr().to_string()) {
        scene.tell("ask", &eid, None, json!({}))?;
        let reply = scene.peer.expect("a Map-Reply", |line| line["heard"] == "map-reply")?;
        let mut told = Table::new();
        learn(&mut told, &reply);
        let wanted = [(eid, [a.mac.to_string()].into()), (a.mac.to_string(), [h1.clone()].into())];
        ensure!(told == Table::from(wanted), "{reply}");
    }

    // One address, and then all of the VN by its three families.
    let b_ip = b.ips.iter().map(address).find(|ip| ip.contains('.')).context("an IPv4 address")?;
    scene.tell("subscribe", &b_ip, None, json!({}))?;
    let confirmed = scene.notify("subscribe")?;
    learn(&mut scene.table, &confirmed);
    ensure!(scene.table.len() == 2 && scene.table.contains_key(&b_ip), "{confirmed}");
    for prefix in ["0.0.0.0", "::", "00:00:00:00:00:00"] {
        scene.tell("subscribe", prefix, Some(0), json!({}))?;
        let confirmed = scene.notify("subscribe")?;
        let records = json!([{ "iid": vni, "eid": format!("{prefix}/0"), "ttl": 15, "act": "send-map-request", "locators": [] }]);
        ensure!(confirmed["records"] == records, "{confirmed}");
    }
    for (tenant, host) in [("red-a", "h1"), ("red-b", "h2"), ("red-d", "h1")] {
        let there = scene.has(tenant, host)?;
        scene.until(tenant, there)?;
    }
    // One that nobody has.
    scene.tell("subscribe", "10.0.0.77", None, json!({}))?;
    let confirmed = scene.notify("subscribe")?;
    let records = json!([{ "iid": vni, "eid": "10.0.0.77/32", "ttl": 1, "act": "drop", "locators": [] }]);
    ensure!(confirmed["records"] == records, "{confirmed}");
    let all = || scene.subscriptions().is_ok_and(|count| count == [5]);
    ensure!(clock::until_true(clock::CEILING, all), "{:?}", scene.subscriptions()?);

    // A tenant system goes, another comes, a third moves.
    let gone: Vec<String> = b.ips.iter().map(address).chain([b.mac.to_string()]).collect();
    scene.lab.detach("red-b")?;
    scene.until("red-b is gone", |table| gone.iter().all(|eid| !table.contains_key(eid)))?;
    scene.lab.attach("red-e", &new_tenant("h2", 77)?)?;
    let there = scene.has("red-e", "h2")?;
    scene.until("red-e is there", there)?;
    scene.lab.move_cold("red-d", "h2")?;
    let there = scene.has("red-d", "h2")?;
    scene.until("red-d has moved", there)?;

    withheld_and_doubled(&mut scene)?;
    hostile(&mut scene, &b_ip)?;

    // It leaves; what it left is silent, the rest is not.
    scene.tell("unsubscribe", "00:00:00:00:00:00", Some(0), json!({}))?;
    let over = scene.notify("subscribe")?;
    ensure!(over["records"][0]["ttl"] == 0 && over["records"][0]["locators"] == json!([]), "{over}");
    let nonce = over["nonce"].as_u64().context("a nonce")?;
    let left = || scene.subscriptions().is_ok_and(|count| count == [4]);
    ensure!(clock::until_true(clock::CEILING, left), "{:?}", scene.subscriptions()?);
    // Map-Request, Map-Notify and its Ack.
    let types = capture.judge(nonce, 3)?;
    ensure!(["2", "3", "4", "5", "8"].iter().all(|kind| types.contains_key(*kind)), "{types:?}");
    scene.lab.weft(["xtr", "remove", "router", "--force"])?;
    ensure!(scene.subscriptions()?.is_empty());
    let heard = scene.peer.end()?;
    ensure!(heard.iter().all(|line| line["heard"] != "other" && line["heard"] != "smr"), "{heard:#?}");
    scene.lab.down()
}

fn address(net: &weft_model::IpNet) -> String {
    net.addr().to_string()
}

/// A publication whose Ack is withheld comes again, the same; what changes meanwhile comes behind it. Acks that come
/// too often, or are forged, change nothing.
fn withheld_and_doubled(scene: &mut Scene) -> Result<()> {
    let sent_again = scene.counter("pubsub_retransmitted")?;
    scene.acknowledge(false)?;
    let tenant = scene.lab.attach("red-f", &new_tenant("h1", 78)?)?;
    let first = scene.notify("publication")?;
    ensure!(first["acked"] == false, "{first}");
    scene.lab.detach("red-f")?;
    let again = scene.peer.expect("it comes again", |line| line["digest"] == first["digest"])?;
    ensure!(again["nonce"] == first["nonce"] && again["of"] == "publication", "{again}");
    ensure!(scene.counter("pubsub_retransmitted")? > sent_again);
    scene.acknowledge(true)?;
    let mut left: BTreeSet<String> = tenant.ips.iter().map(address).chain([tenant.mac.to_string()]).collect();
    while !left.is_empty() {
        let notify = scene.notify("publication")?;
        for record in notify["records"].as_array().into_iter().flatten().filter(|r| r["ttl"] == 0) {
            left.retain(|eid| {
                !record["eid"].as_str().is_some_and(|gone| gone.starts_with(&format!("{eid}/")))
            });
        }
    }
    let gone = [tenant.mac.to_string()].into_iter().chain(tenant.ips.iter().map(address));
    ensure!(gone.into_iter().all(|eid| !scene.table.contains_key(&eid)), "{:#?}", scene.table);

    let acked = || Ok::<_, anyhow::Error>(scene.counter("pubsub_acks")? == scene.counter("pubsub_notifies")?);
    ensure!(clock::until_true(clock::CEILING, || acked().unwrap_or(false)), "something is not acknowledged");
    let (unmatched, forged) = (scene.counter("pubsub_acks_unmatched")?, scene.counter("pubsub_bad_auth")?);
    scene.peer.tell(json!({ "do": "again", "times": 3 }))?;
    scene.counted("pubsub_acks_unmatched", unmatched, 3)?;
    scene.peer.tell(json!({ "do": "again", "times": 2, "forged": true }))?;
    scene.counted("pubsub_bad_auth", forged, 2)?;
    scene.lab.attach("red-g", &new_tenant("h1", 79)?)?;
    let there = scene.has("red-g", "h1")?;
    scene.until("red-g is there", there)
}

/// What is not its to ask for is not done, and counted.
fn hostile(scene: &mut Scene, eid: &str) -> Result<()> {
    let vns = scene.lab.json(&["get", "vns"])?;
    let blue = vns.as_array().and_then(|all| all.iter().find(|vn| vn["name"] == "blue"));
    let blue = blue.map(|vn| vn["vni"].clone()).context("there is blue")?;
    let h1 = scene.lab.rloc("h1")?.to_string();
    let (count, heard) = (scene.subscriptions()?, scene.peer.heard.len());
    for (counter, more) in [
        ("pubsub_replayed", json!({ "nonce": 1 })),
        ("requests_foreign_itr_rloc", json!({ "itr_rlocs": [h1] })),
        ("requests_foreign_vn", json!({ "iid": blue })),
    ] {
        let before = scene.counter(counter)?;
        scene.tell("subscribe", eid, None, more)?;
        scene.counted(counter, before, 1)?;
    }
    for more in [json!({ "xtr_id": "ff".repeat(16) }), json!({ "site_id": 8 })] {
        scene.tell("subscribe", eid, None, more)?;
        let reply = scene.peer.expect("it is refused", |line| line["heard"] == "map-reply")?;
        let record = &reply["records"][0];
        ensure!(record["act"] == "drop-auth" && record["locators"] == json!([]), "{reply}");
    }
    ensure!(scene.subscriptions()? == count);
    // What was sent before this answer has come before it.
    scene.tell("ask", eid, None, json!({}))?;
    scene.peer.expect("a Map-Reply", |line| line["heard"] == "map-reply")?;
    let since = scene.peer.heard.get(heard..).unwrap_or_default();
    ensure!(since.iter().all(|line| line["of"] != "subscribe" && line["of"] != "old"), "{since:#?}");
    Ok(())
}

/// Requirements N7, N8 and N11.
#[test]
fn a_scapy_xtr_subscribes_on_an_ipv4_underlay() -> Result<()> {
    a_scapy_xtr_subscribes(false)
}

#[test]
fn a_scapy_xtr_subscribes_on_an_ipv6_underlay() -> Result<()> {
    a_scapy_xtr_subscribes(true)
}
