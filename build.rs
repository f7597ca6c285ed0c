//! Gives `--version` the commit. Without git, or outside a repository, it is `unknown`; `SOCKGUARD_COMMIT` overrides it
//! (for builds of an exported tree). Nothing else of the surroundings gets into the binary.

use std::process::Command;

fn main() {
    println!("cargo:rerun-if-env-changed=SOCKGUARD_COMMIT");
    println!("cargo:rerun-if-changed=build.rs");
    let log = git(&["rev-parse", "--git-path", "logs/HEAD"]).filter(|log| std::path::Path::new(log).exists());
    if let Some(log) = log {
        println!("cargo:rerun-if-changed={log}");
    }
    let given = std::env::var("SOCKGUARD_COMMIT").ok().filter(|commit| !commit.is_empty());
    let commit = given.or_else(|| git(&["rev-parse", "--short=12", "HEAD"])).unwrap_or_else(|| "unknown".to_owned());
    println!("cargo:rustc-env=SOCKGUARD_COMMIT={commit}");
}

/// The output of git in this repository, and in no other that this one may lie in.
fn git(arguments: &[&str]) -> Option<String> {
    let root = std::env::var("CARGO_MANIFEST_DIR").ok()?;
    if !std::path::Path::new(&root).join(".git").exists() {
        return None;
    }
    let output = Command::new("git").arg("-C").arg(root).args(arguments).output().ok()?;
    let text = String::from_utf8(output.stdout).ok()?.trim().to_owned();
    (output.status.success() && !text.is_empty()).then_some(text)
}
