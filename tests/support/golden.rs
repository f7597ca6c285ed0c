//! Files that must not load, each with the exact text that says why beside it. `BLESS=1` writes the texts anew: read the
//! diff.

use std::path::Path;

/// Loads every TOML file of the directory and compares what is said about it.
pub fn refused<T>(directory: &str, load: impl Fn(&str) -> Result<T, Vec<String>>) {
    let bless = std::env::var_os("BLESS").is_some();
    let mut names: Vec<String> = std::fs::read_dir(directory)
        .expect("the directory is there")
        .map(|entry| entry.expect("it can be read").path().to_string_lossy().into_owned())
        .filter(|path| path.ends_with(".toml"))
        .collect();
    names.sort();
    assert!(names.len() >= 15, "{} are too few", names.len());
    let mut wrong = Vec::new();
    for name in &names {
        let found = match load(name) {
            Ok(_) => "it loads\n".to_owned(),
            Err(lines) => lines.join("\n") + "\n",
        };
        let path = Path::new(name).with_extension("err");
        if bless {
            std::fs::write(&path, &found).expect("it can be written");
        }
        let expected = std::fs::read_to_string(&path).unwrap_or_default();
        if found != expected || found == "it loads\n" {
            wrong.push(format!("{name}\nexpected:\n{expected}found:\n{found}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
