//! Reads TOML files, policies and the configuration alike. Each key is read in one place, which also makes it known; what
//! is left over is unknown. All problems of a file are reported together, each with its line and a hint.

use crate::nearest::nearest;
use crate::policy::Glob;
use std::cell::RefCell;
use std::collections::BTreeSet;
use std::fmt;
use std::path::{Component, Path, PathBuf};
use toml::Spanned;
use toml::de::{DeTable, DeValue};

/// The largest file that is read.
const LARGEST: u64 = 1024 * 1024;

/// A file's text, with what it goes by.
#[derive(Debug)]
pub struct Document {
    /// Its name: the file's without `.toml`.
    pub name: String,
    /// The file, for messages.
    pub file: String,
    /// What stands in it.
    pub text: String,
    /// Where relative paths in it start from.
    pub directory: PathBuf,
}

/// What there are files of.
#[derive(Debug, Clone, Copy)]
pub struct Kind {
    /// One of them, in words.
    pub word: &'static str,
    /// The directory of the source that holds those that are built in.
    pub directory: &'static str,
    /// Those that are built in, by name.
    pub embedded: &'static [(&'static str, &'static str)],
}

impl Kind {
    /// The one that is built in under this name, else the file of this path, from `base` on.
    ///
    /// # Errors
    /// One line: there is neither, or it is no text.
    pub fn find(self, name_or_file: &str, base: &Path) -> Result<Document, Vec<String>> {
        if let Some((name, text)) = self.embedded.iter().find(|(name, _)| *name == name_or_file) {
            let file = format!("{}/{name}.toml", self.directory);
            return Ok(Document {
                name: (*name).to_owned(),
                file,
                text: (*text).to_owned(),
                directory: PathBuf::new(),
            });
        }
        let path = base.join(name_or_file);
        let file = path.display().to_string();
        let fail = |what: String| vec![format!("{file}: {what}")];
        let found = std::fs::metadata(&path).map_err(|e| match e.kind() {
            std::io::ErrorKind::NotFound => {
                let names = self.embedded.iter().map(|(name, _)| *name);
                let near = nearest(name_or_file, names.clone()).map(|near| format!("did you mean `{near}`? "));
                let known = names.collect::<Vec<_>>().join(", ");
                let near = near.unwrap_or_default();
                fail(format!("no such file, and no {} of that name ({near}there are: {known})", self.word))
            }
            _ => fail(e.to_string()),
        })?;
        if !found.is_file() {
            return Err(fail("not a regular file".to_owned()));
        }
        if found.len() > LARGEST {
            return Err(fail(format!("larger than {LARGEST} bytes, so it is no {}", self.word)));
        }
        let bytes = std::fs::read(&path).map_err(|e| fail(e.to_string()))?;
        let text = String::from_utf8(bytes).map_err(|e| {
            let good = e.utf8_error().valid_up_to();
            let line = 1 + e.as_bytes().iter().take(good).filter(|byte| **byte == b'\n').count();
            vec![format!("{file}:{line}: not valid UTF-8")]
        })?;
        let name = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        let directory = path.parent().unwrap_or(Path::new("")).to_owned();
        Ok(Document { name, file, text, directory })
    }
}

/// Reads a text with `read`, which takes the whole of it as a table. `file` is for messages.
///
/// # Errors
/// One line for each problem: `file:line:column: what (hint)`.
pub fn parse<T>(file: &str, text: &str, read: impl FnOnce(&Reader, &DeTable<'_>) -> T) -> Result<T, Vec<String>> {
    let reader = Reader::default();
    let value = match DeTable::parse(text) {
        Ok(document) => Some(read(&reader, document.get_ref())),
        Err(e) => {
            // The message may go on with what was expected, on lines of their own.
            let what = e.message().split('\n').collect::<Vec<_>>().join(", ");
            reader.problem(e.span().map_or(0, |span| span.start), what, String::new());
            None
        }
    };
    let mut problems = reader.finish();
    problems.sort_by_key(|problem| problem.at);
    match value {
        Some(value) if problems.is_empty() => Ok(value),
        _ => Err(problems.iter().flat_map(|problem| problem.lines(file, text)).collect()),
    }
}

/// Line and column of a byte, both from 1.
fn position(text: &str, at: usize) -> String {
    let before = text.get(..at).unwrap_or(text);
    let line = 1 + before.matches('\n').count();
    let column = 1 + before.rsplit('\n').next().unwrap_or_default().chars().count();
    format!("{line}:{column}")
}

/// Something wrong, at a byte of the file.
#[derive(Debug)]
struct Problem {
    at: usize,
    what: String,
    hint: String,
    /// Lines that say more: the problems of another file.
    more: Vec<String>,
}

impl Problem {
    fn lines(&self, file: &str, text: &str) -> Vec<String> {
        let mut lines = vec![format!("{file}:{}: {self}", position(text, self.at))];
        lines.extend(self.more.iter().cloned());
        lines
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.what)?;
        if self.hint.is_empty() { Ok(()) } else { write!(f, " ({})", self.hint) }
    }
}

/// Collects problems and which keys are known where.
#[derive(Debug, Default)]
pub struct Reader {
    problems: RefCell<Vec<Problem>>,
    known: RefCell<Vec<(&'static str, Vec<&'static str>)>>,
    unknown: RefCell<Vec<Unknown>>,
}

/// A key that nothing has read.
#[derive(Debug)]
struct Unknown {
    at: usize,
    section: &'static str,
    key: String,
}

impl Reader {
    /// Notes a problem at a byte of the file.
    pub fn problem(&self, at: usize, what: impl Into<String>, hint: impl Into<String>) {
        self.problem_with(at, what, hint, Vec::new());
    }

    /// Notes a problem of which further lines say more.
    pub fn problem_with(&self, at: usize, what: impl Into<String>, hint: impl Into<String>, more: Vec<String>) {
        self.problems.borrow_mut().push(Problem { at, what: what.into(), hint: hint.into(), more });
    }

    /// Every key is known now, so unknown ones can be told where they belong.
    fn finish(self) -> Vec<Problem> {
        let known = self.known.into_inner();
        let mut problems = self.problems.into_inner();
        for Unknown { at, section, key } in self.unknown.into_inner() {
            let here = known.iter().find(|(name, _)| *name == section).map(|(_, keys)| keys.as_slice()).unwrap_or(&[]);
            let elsewhere = known.iter().find(|(_, keys)| keys.contains(&key.as_str())).map(|(name, _)| *name);
            let hint = match (nearest(&key, here.iter().copied()), elsewhere) {
                (Some(near), _) => format!("did you mean `{near}`?"),
                (None, Some("")) => "it belongs above the first section".to_owned(),
                (None, Some(other)) => format!("it belongs in [{other}]"),
                (None, None) => format!("known: {}", here.join(", ")),
            };
            let place = if section.is_empty() { String::new() } else { format!(" in [{section}]") };
            problems.push(Problem { at, what: format!("unknown key `{key}`{place}"), hint, more: Vec::new() });
        }
        problems
    }

    /// A table, to be read key by key. Its name is for messages.
    pub fn section<'r, 't>(&'r self, name: &'static str, table: Option<&'t DeTable<'t>>) -> Section<'r, 't> {
        Section { reader: self, name, table, known: Vec::new() }
    }
}

/// A string in a table whose keys are data.
#[derive(Debug)]
pub struct Entry {
    /// Where the key stands.
    pub key_at: usize,
    /// The key.
    pub key: String,
    /// Where the value stands.
    pub value_at: usize,
    /// The value.
    pub value: String,
}

/// A table of the file, being read.
#[derive(Debug)]
pub struct Section<'r, 't> {
    /// Where problems go.
    pub reader: &'r Reader,
    name: &'static str,
    table: Option<&'t DeTable<'t>>,
    known: Vec<&'static str>,
}

impl<'t> Section<'_, 't> {
    /// Notes the keys that nothing has read.
    pub fn finish(self) {
        for key in self.table.into_iter().flat_map(DeTable::keys) {
            if !self.known.contains(&key.get_ref().as_ref()) {
                let unknown = Unknown { at: key.span().start, section: self.name, key: key.get_ref().to_string() };
                self.reader.unknown.borrow_mut().push(unknown);
            }
        }
        let mut known = self.reader.known.borrow_mut();
        if !known.iter().any(|(name, _)| *name == self.name) {
            known.push((self.name, self.known));
        }
    }

    fn get(&mut self, key: &'static str) -> Option<&'t Spanned<DeValue<'t>>> {
        self.known.push(key);
        self.table?.get(key)
    }

    /// Where the key stands, if it is there.
    pub fn at(&self, key: &str) -> Option<usize> {
        self.table?.get_key_value(key).map(|(key, _)| key.span().start)
    }

    /// Where its value stands, if it is there.
    pub fn value_at(&self, key: &str) -> Option<usize> {
        self.table?.get(key).map(|value| value.span().start)
    }

    /// The key with the section's name, for messages.
    pub fn path(&self, key: &str) -> String {
        if self.name.is_empty() { key.to_owned() } else { format!("{}.{key}", self.name) }
    }

    /// A setting that is there, and says something, but cannot do anything.
    pub fn no_effect(&self, key: &str, why: &str) {
        let says = match self.table.and_then(|table| table.get(key)).map(Spanned::get_ref) {
            None | Some(DeValue::Boolean(false)) => false,
            Some(DeValue::Array(list)) => !list.is_empty(),
            Some(_) => true,
        };
        if says {
            self.without_effect(key, &self.path(key), why);
        }
    }

    /// Says that something has no effect.
    pub fn without_effect(&self, key: &str, what: &str, why: &str) {
        let at = self.at(key).unwrap_or_default();
        self.reader.problem(at, format!("{what} has no effect"), why);
    }

    /// Says that a value is of the wrong type.
    pub fn wrong_type(&self, key: &str, value: &Spanned<DeValue<'_>>, expected: &str, hint: impl Into<String>) {
        let found = match value.get_ref().type_str() {
            kind @ ("integer" | "array") => format!("an {kind}"),
            kind => format!("a {kind}"),
        };
        self.reader.problem(value.span().start, format!("{} takes {expected}, not {found}", self.path(key)), hint);
    }

    /// True or false; absent: false.
    pub fn flag(&mut self, key: &'static str) -> bool {
        let Some(value) = self.get(key) else { return false };
        match value.get_ref() {
            DeValue::Boolean(on) => return *on,
            DeValue::String(text) if matches!(text.as_ref(), "true" | "false") => {
                self.wrong_type(key, value, "true or false", format!("write {text} without quotes"));
            }
            _ => self.wrong_type(key, value, "true or false", ""),
        }
        false
    }

    /// A string.
    pub fn text(&mut self, key: &'static str) -> Option<String> {
        let value = self.get(key)?;
        match value.get_ref() {
            DeValue::String(text) => Some(text.to_string()),
            _ => {
                self.wrong_type(key, value, "a string", "");
                None
            }
        }
    }

    /// A text with a check that may find a problem.
    pub fn checked(&mut self, key: &'static str, check: impl Fn(&str) -> Option<String>) -> Option<String> {
        let text = self.text(key)?;
        let Some(problem) = check(&text) else { return Some(text) };
        let at = self.value_at(key).unwrap_or_default();
        self.reader.problem(at, format!("{}: {problem}", self.path(key)), "");
        None
    }

    /// A number.
    pub fn number(&mut self, key: &'static str, lowest: u64, highest: u64) -> Option<u64> {
        let value = self.get(key)?;
        let expected = match highest {
            highest if highest <= u32::MAX.into() => format!("a number from {lowest} to {highest}"),
            _ => format!("a number from {lowest}"),
        };
        let DeValue::Integer(number) = value.get_ref() else {
            self.wrong_type(key, value, &expected, "");
            return None;
        };
        let read = u64::from_str_radix(number.as_str(), number.radix()).ok();
        let read = read.filter(|number| (lowest..=highest).contains(number));
        if read.is_none() {
            let what = format!("{} takes {expected}, not {number}", self.path(key));
            self.reader.problem(value.span().start, what, "");
        }
        read
    }

    /// A size in bytes: a number, or a text such as "4GiB".
    pub fn size(&mut self, key: &'static str) -> Option<u64> {
        let value = self.get(key)?;
        let expected = "a number of bytes, or a size such as \"4GiB\"";
        let read = match value.get_ref() {
            DeValue::Integer(number) => u64::from_str_radix(number.as_str(), number.radix()).ok(),
            DeValue::String(text) => size(text),
            _ => {
                self.wrong_type(key, value, expected, "");
                return None;
            }
        };
        let read = read.filter(|bytes| (1..=i64::MAX.unsigned_abs()).contains(bytes));
        if read.is_none() {
            let what = format!("{} takes {expected}", self.path(key));
            self.reader.problem(value.span().start, what, "the units are KiB, MiB, GiB and TiB");
        }
        read
    }

    /// A number of CPUs, such as 1.5, in billionths.
    pub fn cpus(&mut self, key: &'static str) -> Option<u64> {
        let value = self.get(key)?;
        let expected = "a number of CPUs from 0.01, such as 1.5";
        let text = match value.get_ref() {
            DeValue::Integer(number) => number.as_str(),
            DeValue::Float(number) => number.as_str(),
            _ => {
                self.wrong_type(key, value, expected, "");
                return None;
            }
        };
        let read = cpus(text).filter(|billionths| *billionths >= LEAST_CPUS);
        if read.is_none() {
            self.reader.problem(value.span().start, format!("{} takes {expected}, not {text}", self.path(key)), "");
        }
        read
    }

    /// One of these words.
    pub fn word<T: Copy>(&mut self, key: &'static str, words: &[(&str, T)]) -> Option<T> {
        let value = self.get(key)?;
        let known = words.iter().map(|(word, _)| format!("\"{word}\"")).collect::<Vec<_>>().join(" or ");
        let DeValue::String(text) = value.get_ref() else {
            self.wrong_type(key, value, &known, "");
            return None;
        };
        let found = words.iter().find(|(word, _)| word == text).map(|(_, meaning)| *meaning);
        if found.is_none() {
            let what = format!("{} takes {known}, not \"{}\"", self.path(key), text.escape_debug());
            self.reader.problem(value.span().start, what, "");
        }
        found
    }

    /// A list of strings, none twice, each read by `read`, which says what is wrong and gives a hint.
    pub fn list<T>(&mut self, key: &'static str, read: impl Fn(&str) -> Result<T, (String, String)>) -> Vec<T> {
        let Some(value) = self.get(key) else { return Vec::new() };
        let DeValue::Array(array) = value.get_ref() else {
            let hint = match value.get_ref() {
                DeValue::String(text) => format!("write [\"{}\"]", text.escape_debug()),
                _ => String::new(),
            };
            self.wrong_type(key, value, "a list of strings", hint);
            return Vec::new();
        };
        let mut seen = BTreeSet::new();
        let mut items = Vec::new();
        for value in array.iter() {
            let DeValue::String(text) = value.get_ref() else {
                self.wrong_type(key, value, "a list of strings", "");
                continue;
            };
            if !seen.insert(text.as_ref()) {
                let what = format!("`{}` is listed twice in {}", text.escape_debug(), self.path(key));
                self.reader.problem(value.span().start, what, "");
                continue;
            }
            match read(text) {
                Ok(item) => items.push(item),
                Err((what, hint)) => {
                    self.reader.problem(value.span().start, format!("{}: {what}", self.path(key)), hint);
                }
            }
        }
        items
    }

    /// A table of its own.
    pub fn table<T>(&mut self, key: &'static str, read: impl Fn(Option<&'t DeTable<'t>>) -> T) -> T {
        let Some(value) = self.get(key) else { return read(None) };
        match value.get_ref() {
            DeValue::Table(table) => read(Some(table)),
            _ => {
                self.wrong_type(key, value, "a table", "");
                read(None)
            }
        }
    }

    /// A table whose keys are data: strings by key, each with where it begins.
    pub fn entries(&mut self, key: &'static str, example: &str) -> Vec<Entry> {
        let Some(value) = self.get(key) else { return Vec::new() };
        let expected = "a table of strings";
        let DeValue::Table(table) = value.get_ref() else {
            self.wrong_type(key, value, expected, format!("such as {example}"));
            return Vec::new();
        };
        let mut entries = Vec::new();
        for (name, value) in table.iter() {
            match value.get_ref() {
                DeValue::String(text) => entries.push(Entry {
                    key_at: name.span().start,
                    key: name.get_ref().to_string(),
                    value_at: value.span().start,
                    value: text.to_string(),
                }),
                DeValue::Table(_) => {
                    let hint = format!("a key with dots stands in quotes: {example}");
                    self.wrong_type(key, value, expected, hint);
                }
                _ => self.wrong_type(key, value, expected, ""),
            }
        }
        entries
    }

    /// A list of tables, each with where it begins.
    pub fn tables<T>(
        &mut self,
        key: &'static str,
        example: &str,
        read: impl Fn(usize, &'t DeTable<'t>) -> Option<T>,
    ) -> Vec<(usize, T)> {
        let Some(value) = self.get(key) else { return Vec::new() };
        let hint = format!("such as [{example}]");
        let DeValue::Array(array) = value.get_ref() else {
            self.wrong_type(key, value, "a list of tables", hint);
            return Vec::new();
        };
        let mut items = Vec::new();
        for value in array.iter() {
            let at = value.span().start;
            match value.get_ref() {
                DeValue::Table(table) => items.extend(read(at, table).map(|item| (at, item))),
                _ => self.wrong_type(key, value, "a list of tables", hint.clone()),
            }
        }
        items
    }
}

/// The units of sizes, the largest first.
const UNITS: [(&str, u64); 4] = [("TiB", 1 << 40), ("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)];

/// The least share of a CPU that the engine takes, in billionths.
const LEAST_CPUS: u64 = 10_000_000;

/// The bytes of a size such as `4GiB`.
fn size(text: &str) -> Option<u64> {
    let (number, unit) = UNITS.iter().find_map(|(name, unit)| Some((text.strip_suffix(name)?, *unit)))?;
    let plain = number.bytes().all(|byte| byte.is_ascii_digit());
    number.parse::<u64>().ok().filter(|_| plain)?.checked_mul(unit)
}

/// Bytes as they would be written in a file.
pub fn size_text(bytes: u64) -> String {
    match UNITS.iter().find(|(_, unit)| bytes >= *unit && bytes.is_multiple_of(*unit)) {
        Some((name, unit)) => format!("{}{name}", bytes / unit),
        None => format!("{bytes} bytes"),
    }
}

/// The billionths of a number of CPUs such as `1.5`.
fn cpus(text: &str) -> Option<u64> {
    let (whole, part) = text.split_once('.').unwrap_or((text, "0"));
    let plain = |digits: &str| !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
    if !plain(whole) || !plain(part) || part.len() > 9 {
        return None;
    }
    let billionths: u64 = format!("{part:0<9}").parse().ok()?;
    whole.parse::<u64>().ok()?.checked_mul(1_000_000_000)?.checked_add(billionths).filter(|n| i64::try_from(*n).is_ok())
}

/// Billionths of a CPU as they would be written in a file.
pub fn cpus_text(billionths: u64) -> String {
    let part = format!("{:09}", billionths % 1_000_000_000);
    let text = format!("{}.{}", billionths / 1_000_000_000, part.trim_end_matches('0'));
    text.trim_end_matches('.').to_owned()
}

/// Reads a pattern.
///
/// # Errors
/// What is wrong, and a hint.
pub fn glob(text: &str) -> Result<Glob, (String, String)> {
    if text.is_empty() {
        return Err(("an empty pattern matches nothing".to_owned(), String::new()));
    }
    if text.contains(char::is_whitespace) {
        return Err((format!("`{}` has white space", text.escape_debug()), String::new()));
    }
    Glob::try_from(text.to_owned()).map_err(|e| (e, String::new()))
}

/// Is the path absolute and written in the one way that needs no interpretation?
fn normal(path: &Path) -> bool {
    let written: PathBuf = path.components().collect();
    path.is_absolute()
        && written.as_os_str() == path.as_os_str()
        && path.components().all(|part| matches!(part, Component::RootDir | Component::Normal(_)))
}

/// What is wrong with the path of a file or a directory.
pub fn path_problem(text: &str) -> Option<String> {
    let path = Path::new(text);
    if text.chars().any(char::is_control) {
        return Some(format!("`{}` has control characters", text.escape_debug()));
    }
    if normal(path) {
        return None;
    }
    let better: PathBuf = path.components().collect();
    let hint = if normal(&better) && better != Path::new("/") {
        format!(": did you mean {}?", better.display())
    } else {
        String::new()
    };
    Some(format!("`{text}` is not an absolute path without `.`, `..`, `//` or a trailing slash{hint}"))
}
