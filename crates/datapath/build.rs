//! Compiles `bpf/weft.c` with the first clang found, 14 or newer.

use std::{env, error::Error, fs, path::Path, process::Command};

const SOURCES: &str = "bpf";

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo::rerun-if-changed={SOURCES}");
    println!("cargo::rerun-if-env-changed=WEFT_CLANG");
    println!("cargo::rerun-if-env-changed=PATH");
    let out = Path::new(&env::var("OUT_DIR")?).join("weft.o");
    let clang = find_clang()?;
    let mut command = Command::new(&clang);
    command.args(["-O2", "-g", "-target", "bpf", "-mcpu=v3", "-Wall", "-Wextra", "-Werror"]);
    command.args(["-Wno-unknown-warning-option", "-Wno-address-of-packed-member"]);
    // Debian keeps asm/types.h where a compiler for another target does not look.
    let multiarch = format!("/usr/include/{}-linux-gnu", env::var("CARGO_CFG_TARGET_ARCH")?);
    if Path::new(&multiarch).is_dir() {
        command.arg(format!("-I{multiarch}"));
    }
    command.args(["-c", &format!("{SOURCES}/weft.c"), "-o"]).arg(&out);
    let result = command.output()?;
    if !result.status.success() {
        return Err(format!(
            "{clang} cannot compile {SOURCES}/weft.c (it needs libbpf-dev and linux-libc-dev):\n{}",
            String::from_utf8_lossy(&result.stderr)
        )
        .into());
    }
    let object = fs::read(&out)?;
    let sections = section_names(&object).ok_or("the compiled object is no ELF file")?;
    match sections.iter().find(|name| name.starts_with(".rodata.cst")) {
        Some(name) => Err(format!(
            "the compiled eBPF object has a section {name}: clang 14 loses stores next to a copy of a \
             16-octet constant; assign its fields one by one"
        )
        .into()),
        None => Ok(()),
    }
}

/// `WEFT_CLANG`, else the plain name, else versioned ones.
fn find_clang() -> Result<String, String> {
    let named = env::var("WEFT_CLANG").ok();
    let plain = std::iter::once("clang".to_owned());
    let candidates: Vec<String> =
        named.into_iter().chain(plain).chain((14..=22).map(|v| format!("clang-{v}"))).collect();
    let new_enough = |name: &String| {
        let Ok(output) = Command::new(name).arg("-dumpversion").output() else { return false };
        let text = String::from_utf8_lossy(&output.stdout);
        text.split('.').next().and_then(|major| major.trim().parse::<u32>().ok()).is_some_and(|v| v >= 14)
    };
    candidates.into_iter().find(new_enough).ok_or_else(|| {
        "no clang of version 14 or newer found; install it: apt install clang libbpf-dev".into()
    })
}

/// The section names of a little-endian 64-bit ELF file.
fn section_names(elf: &[u8]) -> Option<Vec<String>> {
    let number = |at: usize, len: usize| -> Option<usize> {
        let octets = elf.get(at..at.checked_add(len)?)?;
        Some(octets.iter().rev().fold(0, |n, octet| n << 8 | usize::from(*octet)))
    };
    if elf.get(..6)? != b"\x7fELF\x02\x01" {
        return None;
    }
    let (table, size, count, names) =
        (number(0x28, 8)?, number(0x3a, 2)?, number(0x3c, 2)?, number(0x3e, 2)?);
    let strings = number(table + names * size + 0x18, 8)?;
    (0..count)
        .map(|i| {
            let start = strings + number(table + i * size, 4)?;
            let name = elf.get(start..)?.split(|octet| *octet == 0).next()?;
            Some(String::from_utf8_lossy(name).into_owned())
        })
        .collect()
}
