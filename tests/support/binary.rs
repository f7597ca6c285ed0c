//! A case through the built binary, with an engine that records what really arrives.

use super::case::{Case, Forward, Group, Outcome, Request};
use super::engine::{self, Engine};
use super::facts::PathIs;
use super::{function, http};
use sockguard::json;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// Paths of the host begin with this in cases; a temporary directory stands in its place.
const HOST: &str = "/srv/";

const PATIENCE: Duration = Duration::from_secs(10);

/// A guard with its engine.
pub struct Guard {
    engine: Engine,
    process: Child,
    socket: PathBuf,
    upstream: PathBuf,
    directory: tempfile::TempDir,
}

impl Drop for Guard {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

impl Guard {
    /// Starts a guard with these settings; the engine has what this case says.
    pub fn start(group: &Group, case: &Case) -> Result<Self, String> {
        let directory = tempfile::Builder::new().prefix("sg").rand_bytes(10).tempdir().map_err(|e| e.to_string())?;
        let (socket, upstream) = (directory.path().join("guarded.sock"), directory.path().join("engine.sock"));
        let engine = Engine::listen(&upstream);
        engine.begin(&case.facts);
        let words = function::command_line(group, directory.path());
        let mut process = Command::new(env!("CARGO_BIN_EXE_sockguard"))
            .args(words.iter().map(|word| on_host(word, directory.path())))
            .args([Path::new("-filename"), &socket, Path::new("-upstream-socket"), &upstream])
            .stdout(Stdio::piped())
            .stderr(std::fs::File::create(directory.path().join("log")).map_err(|e| e.to_string())?)
            .spawn()
            .map_err(|e| e.to_string())?;
        let mut first = String::new();
        let read = BufReader::new(process.stdout.take().unwrap()).read_line(&mut first);
        let guard = Self { engine, process, socket, upstream, directory };
        if read.is_err() || !first.starts_with("Listening on ") {
            return Err(format!("the guard does not start: {}", guard.log()));
        }
        Ok(guard)
    }

    fn log(&self) -> String {
        std::fs::read_to_string(self.directory.path().join("log")).unwrap_or_default()
    }

    /// Runs a case.
    pub fn run(&self, case: &Case) -> Result<Outcome, String> {
        let root = self.directory.path();
        lay_out(root, case).map_err(|e| e.to_string())?;
        let mut facts = case.facts.clone();
        for label in facts.containers.iter_mut().flat_map(|container| container.labels.values_mut()) {
            *label = on_host(label, root);
        }
        self.engine.begin(&facts);
        for earlier in &case.earlier {
            let recorded = self.log().len();
            self.ask(earlier).map_err(|e| format!("earlier: {e}"))?;
            self.audit(recorded)?;
        }
        self.engine.with(|state| state.record.clear());
        let recorded = self.log().len();
        let answer = self.ask(&case.request).map_err(|e| format!("no answer: {e}\n{}", self.log()))?;
        self.settle();
        let audit = self.audit(recorded)?;
        let said = |key: &str| audit.at(&[key]).and_then(json::Value::as_str).unwrap_or_default();
        let unversioned = !case.request.target.starts_with("/v1.");
        let reads = matches!(case.request.method.as_str(), "GET" | "HEAD");
        let mut out = Outcome::default();
        self.engine.with(|state| {
            out.forward.append(&mut state.record);
            if unversioned && reads && answer.status() < 400 && out.forward.is_empty() {
                out.forward.extend(client_read(&mut state.reads, &case.expected()));
            }
        });
        let lines = || {
            let lines = answer.body.trim_ascii_end().split(|b| *b == b'\n').map(json::parse);
            lines.collect::<Result<Vec<_>, _>>().ok().map(json::Value::Array)
        };
        let document = json::parse(&answer.body).ok().or_else(lines);
        // A failure that is told at the end of a progress, or the usual shape.
        let last = answer.body.trim_ascii_end().rsplit(|b| *b == b'\n').next().and_then(|line| json::parse(line).ok());
        let failed = last.as_ref().and_then(|line| line.at(&["error"])?.as_str());
        if answer.status() >= 400 || answer.status() == 0 || (said("verdict") == "refuse" && failed.is_some()) {
            let message = document.as_ref().and_then(|body| body.at(&["message"])?.as_str());
            let message = message.or(failed).unwrap_or_default();
            out.refuse = Some((answer.status(), said("reason").to_owned(), message.to_owned()));
        } else if out.forward.is_empty() {
            out.answer = Some((answer.status(), document.unwrap_or(json::Value::Null)));
        }
        if (said("verdict") == "refuse") != out.refuse.is_some() {
            return Err(format!("the audit tells of another verdict: {audit}"));
        }
        out.makes = made(root, case);
        let plain = |text: &str| {
            let root = root.to_string_lossy();
            let text = text.replace(&*self.upstream.to_string_lossy(), "/run/docker.sock");
            // The volume that stands for a root is named after it.
            let named = format!("sockguard-root-{}.", root.trim_start_matches('/').replace('/', "."));
            text.replace(&named, "sockguard-root-").replace(&*root, "")
        };
        Ok(self.engine.with(|state| out.map(&|text| plain(&engine::contract(state, text)))))
    }

    /// The line that the audit has for a request, from this place of the log on.
    fn audit(&self, from: usize) -> Result<json::Value, String> {
        let deadline = Instant::now() + PATIENCE;
        while Instant::now() < deadline {
            let log = self.log();
            let line = log[from..].lines().find(|line| line.contains("\"verdict\"") && line.ends_with('}'));
            if let Some(line) = line {
                return json::parse(line.as_bytes()).map_err(|e| format!("the audit's line is no JSON: {e}: {line}"));
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        Err("the audit has no line for the request".to_owned())
    }

    fn ask(&self, request: &Request) -> std::io::Result<http::Message> {
        let mut stream = UnixStream::connect(&self.socket)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_write_timeout(Some(PATIENCE))?;
        let target = on_host(&request.target, self.directory.path());
        let mut head = format!("{} {target} HTTP/1.1\r\nHost: docker\r\n", request.method);
        for (name, value) in &request.headers {
            head.push_str(&format!("{name}: {value}\r\n"));
        }
        if request.headers.iter().all(|(name, _)| !name.eq_ignore_ascii_case("Connection")) {
            head.push_str("Connection: close\r\n");
        }
        let mut bytes = Vec::new();
        if let Some(body) = &request.body {
            bytes = match std::str::from_utf8(body) {
                Ok(text) => on_host(text, self.directory.path()).into_bytes(),
                Err(_) => body.clone(),
            };
            if request.headers.iter().all(|(name, _)| !name.eq_ignore_ascii_case("Content-Type")) {
                let kind = if request.files.is_some() { "x-tar" } else { "json" };
                head.push_str(&format!("Content-Type: application/{kind}\r\n"));
            }
            head.push_str(&format!("Content-Length: {}\r\n", bytes.len()));
        }
        head.push_str("\r\n");
        stream.write_all(head.as_bytes())?;
        // The guard may answer before it has read all.
        let _ = stream.write_all(&bytes);
        let mut reader = BufReader::new(stream);
        let mut answer = http::head(&mut reader)?.unwrap_or_default();
        let hijacked =
            answer.status() == 101 || answer.header("Content-Type") == Some("application/vnd.docker.raw-stream");
        let bodiless = request.method == "HEAD" || matches!(answer.status(), 204 | 304);
        if !hijacked && !bodiless {
            http::body(&mut reader, &mut answer, true)?;
        }
        Ok(answer)
    }

    /// What was paused goes on after the answer.
    fn settle(&self) {
        let deadline = Instant::now() + PATIENCE;
        let open = || {
            self.engine.with(|state| {
                // The guard's own calls have no version.
                let own = state.record.iter().filter(|forward| forward.line.starts_with("POST /containers/"));
                let count = |end: &str| own.clone().filter(|forward| forward.line.ends_with(end)).count();
                count("/pause") > count("/unpause")
            })
        };
        while open() && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

/// The client's own request among reads without a version.
fn client_read(reads: &mut Vec<Forward>, expected: &str) -> Option<Forward> {
    let place = reads.iter().rposition(|read| expected.contains(&format!("{}\"", read.line)));
    let place = place.or(reads.len().checked_sub(1))?;
    Some(reads.remove(place))
}

fn on_host(text: &str, root: &Path) -> String {
    text.replace(HOST, &format!("{}{HOST}", root.display()))
}

/// The host's paths as the case wants them: the roots are there, unless they cannot be seen.
fn lay_out(root: &Path, case: &Case) -> std::io::Result<()> {
    let _ = std::fs::remove_dir_all(root.join("srv"));
    let unseen = |path: &str| case.host.get(path) == Some(&PathIs::Unseen);
    for path in roots(case).filter(|path| !unseen(path)) {
        std::fs::create_dir_all(root.join(path.trim_start_matches('/')))?;
    }
    for (path, is) in &case.host {
        let place = root.join(path.trim_start_matches('/'));
        match is {
            PathIs::Fine => std::fs::create_dir_all(&place)?,
            PathIs::Link => {
                std::fs::create_dir_all(place.parent().unwrap())?;
                std::os::unix::fs::symlink("/etc", &place)?;
            }
            PathIs::Missing | PathIs::Unseen => {}
        }
    }
    Ok(())
}

/// The bind roots of the flags.
fn roots(case: &Case) -> impl Iterator<Item = &str> {
    let words = case.group.flags.iter().flat_map(|word| word.split(','));
    words.filter(|word| word.starts_with(HOST)).map(|word| word.trim_end_matches(":ro").trim_end_matches(":rw"))
}

/// The directories that are there now and were not before.
fn made(root: &Path, case: &Case) -> Vec<String> {
    let mut out = Vec::new();
    let mut waiting: Vec<String> = roots(case).map(str::to_owned).collect();
    while let Some(path) = waiting.pop() {
        let place = root.join(path.trim_start_matches('/'));
        let Ok(entries) = std::fs::read_dir(&place) else { continue };
        let below: Vec<String> = entries
            .flatten()
            .filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()))
            .map(|entry| format!("{path}/{}", entry.file_name().to_string_lossy()))
            .collect();
        let laid_out =
            |path: &str| roots(case).any(|r| r.starts_with(path)) || case.host.keys().any(|k| k.starts_with(path));
        if below.is_empty() && !laid_out(&path) {
            out.push(path);
        }
        waiting.extend(below);
    }
    out.sort();
    out
}
