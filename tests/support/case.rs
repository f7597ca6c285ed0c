//! A case file: strict in what it may say, so that a misspelt field fails the case.

use super::facts::{Facts, PathIs};
use super::pretty;
use super::tar::{self, Files};
use sockguard::json::{self, Object, Value};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// A case.
pub struct Case {
    /// The path below `tests/cases`, without `.json`.
    pub sentence: String,
    /// What cannot be seen by a function call: limits of the server, an engine that is away.
    pub binary_only: bool,
    /// The settings of the guard.
    pub group: Group,
    /// What the engine has.
    pub facts: Facts,
    /// What the host has, by path.
    pub host: BTreeMap<String, PathIs>,
    /// The inspect of the container that asks, where agents are told apart by their containers.
    pub caller: Option<Value>,
    /// What the client asked before: what comes of it is looked at elsewhere.
    pub earlier: Vec<Request>,
    /// What the client asks.
    pub request: Request,
    file: PathBuf,
    document: Object,
}

/// The settings of the guard: cases with the same share a process.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Group {
    /// A shipped policy's name, a file under `tests/cases/policies`, or a policy's text.
    pub policy: String,
    /// More flags of the command line.
    pub flags: Vec<String>,
    /// The owner.
    pub owner: String,
    /// The engine's API version; a guard meets one engine.
    pub api_version: (u32, u32),
}

/// A request.
pub struct Request {
    /// The method.
    pub method: String,
    /// Path and query, encoded.
    pub target: String,
    /// Headers beside those that every request has.
    pub headers: Vec<(String, String)>,
    /// The body's bytes; nothing where the request has none.
    pub body: Option<Vec<u8>>,
    /// The files of which the body is an archive.
    pub files: Option<Files>,
}

/// What came of a case.
#[derive(Default)]
pub struct Outcome {
    /// The refusal that the client hears: status, code, message.
    pub refuse: Option<(u16, String, String)>,
    /// The answer that sockguard makes itself.
    pub answer: Option<(u16, Value)>,
    /// All that the engine receives, without look-ups.
    pub forward: Vec<Forward>,
    /// Directories that are made on the host.
    pub makes: Vec<String>,
}

/// A request that the engine receives.
pub struct Forward {
    /// Method and path.
    pub line: String,
    /// The parameters, encoded.
    pub query: String,
    /// Registry credentials that go along.
    pub headers: Vec<(String, String)>,
    /// The body.
    pub body: Body,
}

/// A body that the engine receives.
pub enum Body {
    /// None.
    None,
    /// A document.
    Json(Value),
    /// Bytes as the client sent them.
    Stream(String),
    /// An archive of these files.
    Files(Files),
}

/// The root of the cases.
pub fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/cases")
}

/// All cases whose path has the text, and what cannot be read.
pub fn load(wanted: &str) -> (Vec<Case>, Vec<String>) {
    let mut files = Vec::new();
    find(&root(), &mut files);
    files.sort();
    let (mut cases, mut problems) = (Vec::new(), Vec::new());
    for file in files {
        let below = file.strip_prefix(root()).unwrap().with_extension("");
        let sentence = below.to_string_lossy().into_owned();
        if !sentence.contains(wanted) {
            continue;
        }
        match read(&file, sentence.clone()) {
            Ok(case) => cases.push(case),
            Err(problem) => problems.push(format!("{sentence}\n  {problem}")),
        }
    }
    (cases, problems)
}

fn find(directory: &Path, files: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            find(&path, files);
        } else if path.extension().is_some_and(|extension| extension == "json") {
            files.push(path);
        }
    }
}

/// The members of an object that are still to be read.
pub struct Fields {
    name: String,
    object: Object,
}

impl Fields {
    /// The members of a value that has to be an object.
    pub fn of(name: &str, value: Value) -> Result<Self, String> {
        match value {
            Value::Object(object) => Ok(Self { name: name.to_owned(), object }),
            other => Err(format!("{name} must be an object, not {other}")),
        }
    }

    /// A member.
    pub fn take(&mut self, key: &str) -> Option<Value> {
        self.object.remove(key)
    }

    /// A member that is an object of the case's own keys.
    pub fn members(&mut self, key: &str) -> Result<Vec<(String, Value)>, String> {
        match self.take(key) {
            None => Ok(Vec::new()),
            Some(Value::Object(object)) => Ok(object.into_iter().map(|(key, value)| (key.into(), value)).collect()),
            Some(other) => Err(format!("{}.{key} must be an object, not {other}", self.name)),
        }
    }

    /// A member that is a text.
    pub fn text(&mut self, key: &str) -> Result<Option<String>, String> {
        match self.take(key) {
            None => Ok(None),
            Some(Value::String(text)) => Ok(Some(text)),
            Some(other) => Err(format!("{}.{key} must be a text, not {other}", self.name)),
        }
    }

    /// A member that is a list of texts.
    pub fn texts(&mut self, key: &str) -> Result<Vec<String>, String> {
        let bad = |value: &Value| format!("{}.{key} must be a list of texts, not {value}", self.name);
        match self.object.remove(key) {
            None => Ok(Vec::new()),
            Some(value) => {
                let items = value.as_array().ok_or_else(|| bad(&value))?;
                items.iter().map(|item| item.as_str().map(str::to_owned).ok_or_else(|| bad(&value))).collect()
            }
        }
    }

    /// A member that is true or false.
    pub fn truth(&mut self, key: &str, otherwise: bool) -> Result<bool, String> {
        match self.take(key) {
            None => Ok(otherwise),
            Some(Value::Bool(truth)) => Ok(truth),
            Some(other) => Err(format!("{}.{key} must be true or false, not {other}", self.name)),
        }
    }

    /// Nothing may be left.
    pub fn end(self) -> Result<(), String> {
        match self.object.iter().next() {
            None => Ok(()),
            Some((key, _)) => Err(format!("{} has no field `{key}`", self.name)),
        }
    }
}

fn read(file: &Path, sentence: String) -> Result<Case, String> {
    let text = std::fs::read_to_string(file).map_err(|e| e.to_string())?;
    parse(&text, file, sentence)
}

/// Reads the text of a case.
pub fn parse(text: &str, file: &Path, sentence: String) -> Result<Case, String> {
    let value = json::parse(text.as_bytes()).map_err(|e| e.to_string())?;
    let Value::Object(document) = value.clone() else { return Err("a case is an object".to_owned()) };
    let mut fields = Fields::of("the case", value)?;
    let why = fields.text("why")?.unwrap_or_default();
    if why.is_empty() {
        return Err("a case says why".to_owned());
    }
    let binary_only = match fields.text("run")?.as_deref() {
        None => false,
        Some("binary") => true,
        Some(other) => return Err(format!("run: `{other}` is not `binary`")),
    };
    let policy = fields.text("policy")?.unwrap_or_else(|| "ci-agent".to_owned());
    let flags = fields.texts("flags")?;
    let owner = fields.text("owner")?.unwrap_or_else(|| "me".to_owned());
    let facts = Facts::read(fields.take("engine").unwrap_or(Value::Object(Object::new())))?;
    let mut host = BTreeMap::new();
    for (path, fact) in fields.members("host")? {
        host.insert(path, PathIs::read(&fact)?);
    }
    let caller = fields.take("caller");
    let request = self::request(fields.take("request").ok_or("a case has a request")?, &facts)?;
    let earlier = match fields.take("earlier") {
        None => Vec::new(),
        Some(Value::Array(items)) => {
            items.into_iter().map(|item| self::request(item, &facts)).collect::<Result<_, _>>()?
        }
        Some(other) => return Err(format!("earlier must be a list of requests, not {other}")),
    };
    let expect = fields.take("expect");
    if let Some(expect) = expect {
        check_expectation(expect)?;
    }
    fields.end()?;
    let group = Group { policy, flags, owner, api_version: facts.api_version };
    Ok(Case { sentence, binary_only, group, facts, host, caller, earlier, request, file: file.to_owned(), document })
}

fn request(value: Value, facts: &Facts) -> Result<Request, String> {
    let mut fields = Fields::of("request", value)?;
    let line = facts.expand(&fields.text("line")?.ok_or("a request has a line")?);
    let (method, target) = line.split_once(' ').ok_or("a request's line is a method and a target")?;
    let headers = fields.members("headers")?;
    let headers =
        headers.into_iter().map(|(name, value)| (name, value.as_str().unwrap_or_default().to_owned())).collect();
    let body = fields.take("body").map(|body| facts.expand(&body.to_string()).into_bytes());
    let raw = fields.take("raw").map(|raw| raw_bytes(&raw, facts)).transpose()?;
    let files = fields.take("files").map(|files| archive(files, facts)).transpose()?;
    fields.end()?;
    if usize::from(body.is_some()) + usize::from(raw.is_some()) + usize::from(files.is_some()) > 1 {
        return Err("a request has either a body, or a raw one, or one of files".to_owned());
    }
    let archive = files.as_deref().map(tar::write);
    let body = body.or(raw).or(archive);
    Ok(Request { method: method.to_owned(), target: encoded(target), headers, body, files })
}

/// Files by path: texts, or documents.
fn archive(files: Value, facts: &Facts) -> Result<Files, String> {
    let Value::Object(files) = files else { return Err("request.files must be an object".to_owned()) };
    let text = |value: &Value| facts.expand(&value.as_str().map_or_else(|| value.to_string(), str::to_owned));
    Ok(files.iter().map(|(path, value)| (path.to_owned(), text(value))).collect())
}

/// A text as it is, or one that stands many times between others.
fn raw_bytes(raw: &Value, facts: &Facts) -> Result<Vec<u8>, String> {
    if let Some(text) = raw.as_str() {
        return Ok(facts.expand(text).into_bytes());
    }
    let mut fields = Fields::of("request.raw", raw.clone())?;
    let mut part = |key: &str| fields.text(key).map(Option::unwrap_or_default);
    let (before, repeat, after) = (part("before")?, part("repeat")?, part("after")?);
    let times = fields.take("times").and_then(|times| times.as_i64()).unwrap_or(1);
    fields.end()?;
    Ok(format!("{before}{}{after}", repeat.repeat(usize::try_from(times).unwrap())).into_bytes())
}

/// So that filters can be read in a case, what may not stand in a request's line is encoded here.
fn encoded(target: &str) -> String {
    let mut out = String::new();
    for byte in target.bytes() {
        if byte.is_ascii_graphic() && !b"\"{}<>^`|\\".contains(&byte) {
            out.push(char::from(byte));
        } else {
            out.push_str(&format!("%{byte:02X}"));
        }
    }
    out
}

fn check_expectation(expect: Value) -> Result<(), String> {
    let mut fields = Fields::of("expect", expect)?;
    let mut says_something = false;
    if let Some(refuse) = fields.take("refuse") {
        says_something = true;
        let mut refuse = Fields::of("expect.refuse", refuse)?;
        for key in ["status", "code", "message"] {
            refuse.take(key).ok_or_else(|| format!("expect.refuse has a {key}"))?;
        }
        refuse.end()?;
    }
    if let Some(answer) = fields.take("answer") {
        says_something = true;
        let mut answer = Fields::of("expect.answer", answer)?;
        for key in ["status", "body"] {
            answer.take(key).ok_or_else(|| format!("expect.answer has a {key}"))?;
        }
        answer.end()?;
    }
    if let Some(forward) = fields.take("forward") {
        says_something = true;
        let items = forward.as_array().ok_or("expect.forward is a list")?;
        for item in items {
            let mut item = Fields::of("expect.forward[]", item.clone())?;
            item.text("line")?.ok_or("expect.forward[] has a line")?;
            for key in ["query", "headers", "body", "stream", "files"] {
                item.take(key);
            }
            item.end()?;
        }
    }
    fields.texts("makes")?;
    if !says_something {
        return Err("expect says refuse, answer or forward".to_owned());
    }
    fields.end()
}

impl Case {
    /// What is expected, as text.
    pub fn expected(&self) -> String {
        self.document.get("expect").map_or_else(|| "(nothing: BLESS=1 writes it)".to_owned(), pretty::document)
    }

    /// The code of the refusal that is expected.
    pub fn code(&self) -> Option<&str> {
        self.document.get("expect")?.at(&["refuse", "code"])?.as_str()
    }

    /// Writes what came into the file.
    pub fn bless(&self, outcome: &Outcome) {
        let mut document = self.document.clone();
        document.set("expect", outcome.value());
        std::fs::write(&self.file, pretty::document(&Value::Object(document))).unwrap();
    }
}

impl Outcome {
    /// As text, as it stands in a case file.
    pub fn rendered(&self) -> String {
        pretty::document(&self.value())
    }

    fn value(&self) -> Value {
        let mut out = Object::new();
        if let Some((status, code, message)) = &self.refuse {
            let mut refuse = Object::new();
            refuse.set("status", i64::from(*status));
            refuse.set("code", code.as_str());
            refuse.set("message", message.as_str());
            out.set("refuse", refuse);
        }
        if let Some((status, body)) = &self.answer {
            out.set("answer", Value::from([("status", Value::from(i64::from(*status))), ("body", body.clone())]));
        }
        if !self.forward.is_empty() || (self.refuse.is_none() && self.answer.is_none()) {
            out.set("forward", Value::Array(self.forward.iter().map(Forward::value).collect()));
        }
        if !self.makes.is_empty() {
            out.set("makes", self.makes.iter().map(String::as_str).collect::<Value>());
        }
        Value::Object(out)
    }

    /// The same with every text changed.
    pub fn map(mut self, change: &dyn Fn(&str) -> String) -> Self {
        let value = |value: &Value| json::parse(change(&value.to_string()).as_bytes()).unwrap();
        if let Some((_, _, message)) = &mut self.refuse {
            *message = change(message);
        }
        if let Some((_, body)) = &mut self.answer {
            *body = value(body);
        }
        for forward in &mut self.forward {
            forward.line = change(&forward.line);
            forward.query = change(&forward.query);
            match &mut forward.body {
                Body::Json(document) => *document = value(document),
                Body::Files(files) => files.iter_mut().for_each(|(_, text)| *text = change(text)),
                Body::None | Body::Stream(_) => {}
            }
        }
        for path in &mut self.makes {
            *path = change(path);
        }
        self
    }
}

impl Forward {
    fn value(&self) -> Value {
        let mut out = Object::new();
        out.set("line", self.line.as_str());
        if !self.query.is_empty() {
            out.set("query", readable(&self.query));
        }
        if !self.headers.is_empty() {
            let headers: Object = self.headers.iter().map(|(k, v)| (k.clone(), Value::from(v.as_str()))).collect();
            out.set("headers", headers);
        }
        match &self.body {
            Body::None => {}
            Body::Json(value) => out.set("body", value.clone()),
            Body::Stream(text) => out.set("stream", text.as_str()),
            Body::Files(files) => {
                out.set("files", files.iter().map(|(k, v)| (k.clone(), Value::from(v.as_str()))).collect::<Object>());
            }
        }
        Value::Object(out)
    }
}

/// A query for people: decoded, documents as documents.
fn readable(query: &str) -> Value {
    let mut out = Object::new();
    for pair in query.split('&') {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        let text = sockguard::route::percent_decode(value, true).unwrap();
        let value = match json::parse(text.as_bytes()) {
            Ok(document @ (Value::Object(_) | Value::Array(_))) => document,
            Ok(_) | Err(_) => Value::from(text),
        };
        match out.get_mut(name) {
            None => out.set(name, value),
            Some(Value::Array(values)) => values.push(value),
            Some(first) => *first = Value::Array(vec![first.clone(), value]),
        }
    }
    Value::Object(out)
}
