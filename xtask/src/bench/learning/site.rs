//! The data centre of one way of learning, and what is measured there.

use super::{Way, report::Report, traffic};
use crate::{bench::stats::quantile, say};
use anyhow::{Context as _, Result, ensure};
use serde_json::Value;
use std::{path::Path, time::Duration};
use weft_lab::{
    Lab, LabSpec, Options, Signal,
    capture::{Capture, Captured, Class, Filter},
    clock,
};
use weft_load::{Act, Contact, Crowd, Played};

const HOSTS: [&str; 8] = ["h1", "h2", "h3", "h4", "h5", "h6", "h7", "h8"];
/// How long a contact may take to be answered.
const GRACE: Duration = Duration::from_secs(30);
/// New tenant systems that are to become known, one after the other.
const NEWCOMERS: usize = 15;

pub(super) struct Site {
    lab: Lab,
    way: Way,
}

impl Site {
    pub(super) fn up(weft: &Path, way: Way) -> Result<Self> {
        let hosts: String = HOSTS.iter().map(|host| format!("  {host}: {{}}\n")).collect();
        let Way { mode, reply } = way;
        let spec = LabSpec::parse(&format!(
            "
name: bench
underlay: {{ ipv4: 192.0.2.0/24, mtu: 1500 }}
oracles: {{ oracle: {{}} }}
hosts:
{hosts}
vns:
  red: {{ subnets: [10.0.0.0/16, \"fd00::/64\"], learning: {mode}, reply: {reply} }}
"
        ))
        .map_err(anyhow::Error::msg)?;
        let options = Options {
            name: Some(format!("bench{}-{mode}-{reply}", std::process::id()).parse()?),
            weft: Some(weft.to_owned()),
            bound: true,
            ..Options::default()
        };
        Ok(Self { lab: Lab::up(&spec, &options, &mut |_| {})?, way })
    }

    pub(super) fn down(self) -> Result<()> {
        Ok(self.lab.down()?)
    }

    pub(super) fn measure(&mut self, report: &mut Report, tenants: usize) -> Result<()> {
        let way = self.way;
        let empty = self.tables()?;
        let capture = self.capture("attach")?;
        let mut crowd = Crowd::attach(&self.lab, "red", &HOSTS, tenants.div_ceil(HOSTS.len()))?;
        let members = crowd.members();
        let attached = Control::of(&capture.stop()?);
        let per_thousand = 1_000.0 / members.len() as f64;
        report.add(way, "control_bytes_per_1000_added", "B", attached.bytes as f64 * per_thousand);

        let pairs = traffic::pairs(&members);
        let span = pairs.last().map_or(Duration::ZERO, |act| act.at);
        say::step(&format!("{} tenant systems; traffic for {span:?}", members.len()));
        let capture = self.capture("traffic")?;
        let played = crowd.play(&pairs, GRACE)?;
        let control = Control::of(&capture.stop()?);
        report.add(way, "contacts", "1", played.contacts.len() as f64);
        report.add(way, "contacts_unanswered", "1", unanswered(&played) as f64);
        report.add(way, "control_bytes", "B", control.bytes as f64);
        report.add(way, "control_packets", "1", control.packets as f64);
        report.add(way, "underlay_broadcasts", "1", control.broadcasts as f64);
        report.add(way, "first_packet_us_p50", "us", latency(&played.contacts, 0.5)?);
        report.add(way, "first_packet_us_p99", "us", latency(&played.contacts, 0.99)?);
        let full = self.tables()?;
        report.add(way, "entries_per_nve", "1", full.entries(&["fdb", "neighbours", "learned", "heard"]));
        report.add(way, "mac_entries_per_nve", "1", full.entries(&["fdb", "learned"]));
        report.add(way, "ip_entries_per_nve", "1", full.entries(&["neighbours", "heard"]));
        report.add(way, "kernel_bytes_per_nve", "B", full.bytes - empty.bytes);

        self.converge(report, &mut crowd)?;
        let storm = crowd.play(&traffic::storm(&members, 2), GRACE)?;
        report.add(way, "storm_us_p99", "us", latency(&storm.contacts, 0.99)?);
        report.add(way, "storm_unanswered", "1", unanswered(&storm) as f64);
        self.lab.signal("oracle", Signal::SIGKILL)?;
        self.lab.restart("oracle")?;
        let storm = crowd.play(&traffic::storm(&members, 3), GRACE)?;
        report.add(way, "storm_after_restart_us_p99", "us", latency(&storm.contacts, 0.99)?);
        report.add(way, "storm_after_restart_unanswered", "1", unanswered(&storm) as f64);
        Ok(())
    }

    /// From the call that attaches a tenant system until one on every other host has reached it.
    fn converge(&self, report: &mut Report, crowd: &mut Crowd) -> Result<()> {
        let mut took = Vec::new();
        for n in 0..NEWCOMERS {
            let host = HOSTS[n % HOSTS.len()];
            let begun = clock::now();
            let newcomer = crowd.attach_one(&self.lab, "red", host)?;
            let attached = begun.elapsed();
            let ip = newcomer.ips.iter().find(|ip| ip.is_ipv4() == n.is_multiple_of(2));
            let to = *ip.context("an address")?;
            let members = crowd.members();
            let others = HOSTS.iter().filter(|other| **other != host);
            let acts: Vec<Act> = others
                .filter_map(|other| members.iter().position(|member| member.host == *other))
                .map(|who| Act { at: Duration::ZERO, who, to })
                .collect();
            let played = crowd.play(&acts, GRACE)?;
            ensure!(unanswered(&played) == 0, "a newcomer on {host} was not reached from everywhere");
            let last = played.contacts.iter().filter_map(|contact| contact.answered).max();
            took.push((attached + last.unwrap_or_default()).as_secs_f64() * 1e3);
        }
        report.add(self.way, "converge_ms", "ms", quantile(&took, 0.5).unwrap_or(0.0));
        Ok(())
    }

    fn capture(&self, name: &str) -> Result<Capture> {
        Ok(Capture::underlay_of(&self.lab, name, Filter::Control)?)
    }

    /// The mean over all NVEs.
    fn tables(&self) -> Result<Tables> {
        let mut sum = Tables::default();
        for host in HOSTS {
            let socket = self.lab.files().socket(host);
            let socket = socket.to_str().context("a path that is text")?;
            let text = self.lab.weft_at(host, ["get", "tables", "--socket", socket, "-o", "json"])?;
            let tables: Vec<Value> = serde_json::from_str(&text)?;
            for table in &tables {
                let share = |field: &str| table[field].as_f64().unwrap_or(0.0) / HOSTS.len() as f64;
                let name = table["table"].as_str().unwrap_or_default().to_owned();
                sum.all.push((name, share("entries")));
                sum.bytes += share("bytes");
            }
        }
        Ok(sum)
    }
}

#[derive(Debug, Default)]
struct Tables {
    all: Vec<(String, f64)>,
    bytes: f64,
}

impl Tables {
    fn entries(&self, names: &[&str]) -> f64 {
        self.all.iter().filter(|(name, _)| names.contains(&name.as_str())).map(|(_, entries)| entries).sum()
    }
}

/// What the underlay carried beside data.
#[derive(Debug, Default)]
struct Control {
    packets: usize,
    bytes: usize,
    broadcasts: usize,
}

impl Control {
    fn of(captured: &Captured) -> Self {
        let mut sum = Self::default();
        for frame in &captured.frames {
            match frame.class {
                Class::LispUdp | Class::Session | Class::Api => {
                    sum.packets += 1;
                    sum.bytes += frame.len;
                }
                Class::Vxlan { group: true, .. } => sum.broadcasts += 1,
                _ => {}
            }
        }
        sum
    }
}

fn unanswered(played: &Played) -> usize {
    played.contacts.iter().filter(|contact| contact.answered.is_none()).count()
}

/// A quantile of the time to the first answer, in microseconds. What was never answered took [`GRACE`].
fn latency(contacts: &[Contact], part: f64) -> Result<f64> {
    let took = |contact: &Contact| contact.answered.map_or(GRACE, |at| at.saturating_sub(contact.asked));
    let all: Vec<f64> = contacts.iter().map(|contact| took(contact).as_secs_f64() * 1e6).collect();
    quantile(&all, part).context("nobody talked")
}
