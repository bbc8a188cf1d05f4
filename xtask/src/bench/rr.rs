//! Requests and answers of one octet over one TCP connection: how many per second.
//!
//! Two processes of this program, one in each tenant. Where they run decides much: with both on
//! one CPU nothing has to wake another CPU, which is what the data path itself costs; unpinned is
//! what a user sees.

use super::peers::Pair;
use anyhow::{Context as _, Result, ensure};
use nix::{
    sched::{CpuSet, sched_setaffinity},
    unistd::Pid,
};
use std::{
    io::{BufRead as _, BufReader, Read as _, Write as _},
    net::{IpAddr, SocketAddr, TcpListener, TcpStream},
    process::{Command as Process, Stdio},
    time::Duration,
};
use weft_lab::clock;

const PORT: u16 = 7008;

/// Where the two processes run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Pinning {
    /// Both on CPU 0.
    OneCpu,
    /// Wherever the kernel likes.
    Free,
    /// On CPU 0 and CPU 1.
    Split,
}

/// The ends, as hidden subcommands.
#[derive(Clone, Copy, Debug, clap::Subcommand)]
pub(crate) enum Command {
    /// Answers one connection.
    Server {
        /// Runs on this CPU only.
        #[arg(long)]
        cpu: Option<usize>,
    },
    /// Asks for a while and prints how many answers came per second.
    Client {
        /// The server.
        addr: IpAddr,
        /// How long.
        #[arg(long)]
        seconds: u32,
        /// Runs on this CPU only.
        #[arg(long)]
        cpu: Option<usize>,
    },
}

pub(crate) fn run(command: &Command) -> Result<()> {
    match command {
        Command::Server { cpu } => {
            pin(*cpu)?;
            serve()
        }
        Command::Client { addr, seconds, cpu } => {
            pin(*cpu)?;
            let rate = ask(SocketAddr::new(*addr, PORT), *seconds)?;
            crate::say::line(&format!("{rate}"));
            Ok(())
        }
    }
}

fn pin(cpu: Option<usize>) -> Result<()> {
    let Some(cpu) = cpu else { return Ok(()) };
    let mut set = CpuSet::new();
    set.set(cpu)?;
    sched_setaffinity(Pid::from_raw(0), &set).with_context(|| format!("cannot run on CPU {cpu} only"))
}

fn serve() -> Result<()> {
    let listener = TcpListener::bind(SocketAddr::from(([0u16; 8], PORT)))?;
    crate::say::line("listening");
    let (mut stream, _) = listener.accept()?;
    stream.set_nodelay(true)?;
    let mut octet = [0];
    while stream.read(&mut octet)? == 1 {
        stream.write_all(&octet)?;
    }
    Ok(())
}

fn ask(server: SocketAddr, seconds: u32) -> Result<f64> {
    let mut stream = TcpStream::connect_timeout(&server, Duration::from_secs(5))?;
    stream.set_nodelay(true)?;
    let mut octet = [7];
    let start = clock::now();
    let end = start + Duration::from_secs(seconds.into());
    let mut answers = 0u32;
    let mut now = start;
    while now < end {
        // The clock is read once per 16 requests, so that reading it is no part of the result.
        for _ in 0..16 {
            stream.write_all(&octet)?;
            stream.read_exact(&mut octet)?;
            answers += 1;
        }
        now = clock::now();
    }
    Ok(f64::from(answers) / (now - start).as_secs_f64())
}

/// Measures one pair of tenants.
pub(crate) fn measure(pair: &Pair, pinning: Pinning, seconds: u32) -> Result<f64> {
    let (server_cpu, client_cpu): (&[&str], &[&str]) = match pinning {
        Pinning::OneCpu => (&["--cpu", "0"], &["--cpu", "0"]),
        Pinning::Free => (&[], &[]),
        Pinning::Split => (&["--cpu", "0"], &["--cpu", "1"]),
    };
    let program = std::env::current_exe()?;
    let mut command = Process::new(&program);
    command.args(["rr", "server"]).args(server_cpu).stdin(Stdio::null()).stdout(Stdio::piped());
    let mut server = pair.b.spawn(&mut command)?;
    let mut said = String::new();
    BufReader::new(server.stdout.take().context("the server has an output")?).read_line(&mut said)?;
    ensure!(said.trim() == "listening", "the server said '{}'", said.trim());
    let mut command = Process::new(&program);
    command.args(["rr", "client", &pair.b_addr.to_string(), "--seconds", &seconds.to_string()]);
    command.args(client_cpu).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let output = pair.a.spawn(&mut command)?.wait_with_output()?;
    if !output.status.success() {
        server.kill()?;
    }
    server.wait()?;
    let text = String::from_utf8_lossy(&output.stdout);
    text.trim()
        .parse()
        .with_context(|| format!("the client said '{}'", String::from_utf8_lossy(&output.stderr).trim()))
}
