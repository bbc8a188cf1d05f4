//! Compiles `bpf/weft.c` with the first clang found, 14 or newer, and looks at what the kernel would not explain.

#[path = "build/stack.rs"]
mod stack;

use std::{env, error::Error, fs, path::Path, process::Command};

const SOURCES: &str = "bpf";

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo::rerun-if-changed={SOURCES}");
    println!("cargo::rerun-if-changed=build");
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
    stack::check(&stack::chains(&object)?, stack::MOST)?;
    let sections = stack::section_names(&object).ok_or("the compiled object is no ELF file")?;
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
