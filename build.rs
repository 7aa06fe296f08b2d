//! Tells the program which sources and which compiler made it (`sgcache_build_info`).
//!
//! The revision comes from `SGCACHE_REVISION` (packagers), from git, or from the name
//! that `git archive` wrote into `.revision`; without any of them it is `unknown`. A debug
//! build does not ask git, so that a commit does not compile everything again.

use std::process::Command;

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-changed=.revision");
    println!("cargo::rerun-if-env-changed=SGCACHE_REVISION");
    let release = std::env::var("PROFILE").is_ok_and(|profile| profile == "release");
    let revision = std::env::var("SGCACHE_REVISION").ok().filter(|given| !given.is_empty());
    let revision = revision.or_else(archived).or_else(|| release.then(committed).flatten());
    println!("cargo::rustc-env=SGCACHE_REVISION={}", revision.unwrap_or_else(|| "unknown".to_owned()));
    let rustc = std::env::var_os("RUSTC").and_then(|rustc| said(Command::new(rustc).arg("--version")));
    println!("cargo::rustc-env=SGCACHE_RUSTC={}", rustc.unwrap_or_else(|| "unknown".to_owned()));
}

/// The commit that `git archive` exported.
fn archived() -> Option<String> {
    let text = std::fs::read_to_string(".revision").ok()?;
    let text = text.trim();
    (!text.is_empty() && !text.contains("Format")).then(|| text.to_owned())
}

/// The commit that is checked out. `.git` may be a file, as in a worktree.
fn committed() -> Option<String> {
    if !std::path::Path::new(".git").exists() {
        return None;
    }
    if let Some(log) = said(Command::new("git").args(["rev-parse", "--git-path", "logs/HEAD"])) {
        println!("cargo::rerun-if-changed={log}");
    }
    said(Command::new("git").args(["rev-parse", "--short=12", "HEAD"]))
}

fn said(command: &mut Command) -> Option<String> {
    let output = command.output().ok()?;
    let text = String::from_utf8(output.stdout).ok()?.trim().to_owned();
    (output.status.success() && !text.is_empty()).then_some(text)
}
