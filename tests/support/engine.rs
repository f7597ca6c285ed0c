//! An engine that has what a case says, answers look-ups from it, and records what else arrives.

use super::case::{Body, Forward};
use super::facts::{Container, Exec, Facts, Image, Labels, Network, Volume, digits, plain_image};
use super::http::{self, Message};
use super::tar;
use sockguard::hold::PAUSED_PREFIX;
use sockguard::json::{self, Object, Value};
use std::io::{BufReader, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::sync::{Arc, Mutex};

/// The engine's objects and its record.
#[derive(Default)]
pub struct State {
    /// What it has.
    pub facts: Facts,
    /// What was created during the case, in order: IDs.
    pub made: Vec<String>,
    /// The answers to inspects of containers that were created during the case.
    inspects: Vec<(String, Value)>,
    /// All that arrived but look-ups.
    pub record: Vec<Forward>,
    /// Reads without a version: the guard's own look-ups, and the client's where it gives no version.
    pub reads: Vec<Forward>,
}

/// An engine on a socket.
#[derive(Clone)]
pub struct Engine(Arc<Mutex<State>>);

struct Reply {
    status: u16,
    body: Value,
    upgrade: bool,
    /// Each item of the body is a document of its own.
    progress: bool,
}

fn reply(status: u16, body: impl Into<Value>) -> Reply {
    Reply { status, body: body.into(), upgrade: false, progress: false }
}

fn absent(message: String) -> Reply {
    reply(404, Value::from([("message", Value::from(message))]))
}

fn object(members: Vec<(&str, Value)>) -> Value {
    Value::Object(members.into_iter().map(|(key, value)| (key.to_owned(), value)).collect())
}

fn texts<'a>(items: impl IntoIterator<Item = &'a String>) -> Value {
    items.into_iter().map(String::as_str).collect()
}

fn labels(labels: &Labels) -> Value {
    Value::Object(labels.iter().map(|(k, v)| (k.clone(), Value::from(v.as_str()))).collect())
}

fn labels_of(value: Option<&Value>) -> Labels {
    let members = value.and_then(Value::as_object).into_iter().flat_map(Object::iter);
    members.map(|(k, v)| (k.to_owned(), v.as_str().unwrap_or_default().to_owned())).collect()
}

fn text(value: &Value, key: &str) -> String {
    value.at(&[key]).and_then(Value::as_str).unwrap_or_default().to_owned()
}

impl Engine {
    /// Starts to listen.
    pub fn listen(socket: &Path) -> Self {
        let listener = UnixListener::bind(socket).unwrap();
        let engine = Self(Arc::new(Mutex::new(State::default())));
        let this = engine.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let (this, stream) = (this.clone(), stream.unwrap());
                std::thread::spawn(move || drop(this.serve(stream)));
            }
        });
        engine
    }

    /// Begins a case.
    pub fn begin(&self, facts: &Facts) {
        *self.0.lock().unwrap() = State { facts: facts.clone(), ..State::default() };
    }

    /// Looks at the state.
    pub fn with<T>(&self, look: impl FnOnce(&mut State) -> T) -> T {
        look(&mut self.0.lock().unwrap())
    }

    fn serve(&self, stream: UnixStream) -> std::io::Result<()> {
        let mut writer = stream.try_clone()?;
        let mut reader = BufReader::new(stream);
        while let Some(mut request) = http::head(&mut reader)? {
            http::body(&mut reader, &mut request, false)?;
            if self.with(|state| state.facts.down) {
                return writer.shutdown(std::net::Shutdown::Both);
            }
            let head_only = request.line.starts_with("HEAD ");
            let reply = self.with(|state| state.receive(&request));
            if reply.upgrade && request.header("Upgrade").is_some() {
                let websocket = request.header("Upgrade") == Some("websocket");
                let kind = if websocket { "websocket" } else { "tcp" };
                write!(writer, "HTTP/1.1 101 UPGRADED\r\nConnection: Upgrade\r\nUpgrade: {kind}\r\n\r\n")?;
                return writer.shutdown(std::net::Shutdown::Write);
            }
            let body = match &reply.body {
                Value::Null => String::new(),
                Value::Array(lines) if reply.progress => lines.iter().map(|line| format!("{line}\r\n")).collect(),
                body => body.to_string(),
            };
            write!(writer, "HTTP/1.1 {} -\r\nApi-Version: {}\r\n", reply.status, self.with(|state| state.version()))?;
            if !matches!(reply.status, 204 | 304) {
                write!(writer, "Content-Type: application/json\r\nContent-Length: {}\r\n", body.len())?;
            }
            write!(writer, "\r\n{}", if head_only { "" } else { &body })?;
        }
        Ok(())
    }
}

/// Is it about the volume that says which containers are paused?
fn mark(forward: &Forward) -> bool {
    let named = match &forward.body {
        Body::Json(body) => body.at(&["Name"]).and_then(Value::as_str).is_some_and(|n| n.starts_with(PAUSED_PREFIX)),
        Body::None | Body::Stream(_) | Body::Files(_) => false,
    };
    named || forward.line.starts_with(&format!("DELETE /volumes/{PAUSED_PREFIX}"))
}

impl State {
    fn version(&self) -> String {
        format!("{}.{}", self.facts.api_version.0, self.facts.api_version.1)
    }

    fn receive(&mut self, request: &Message) -> Reply {
        let mut words = request.line.split(' ');
        let (method, target) =
            (words.next().unwrap_or_default().to_owned(), words.next().unwrap_or_default().to_owned());
        let (path, query) = target.split_once('?').unwrap_or((&target, ""));
        let body = match (request.body.as_slice(), request.header("Content-Type")) {
            ([], _) => Body::None,
            (bytes, Some("application/json")) => Body::Json(json::parse(bytes).unwrap()),
            (bytes, _) => match tar::read(bytes) {
                Some(files) => Body::Files(files),
                None => Body::Stream(String::from_utf8_lossy(bytes).into_owned()),
            },
        };
        let document = match &body {
            Body::Json(value) => value.clone(),
            Body::None | Body::Stream(_) | Body::Files(_) => Value::Null,
        };
        let credentials = |(name, _): &&(String, String)| name.to_ascii_lowercase().starts_with("x-registry");
        let headers = request.headers.iter().filter(credentials).cloned().collect();
        let forward = Forward { line: format!("{method} {path}"), query: query.to_owned(), headers, body };
        let versioned = path.strip_prefix("/v1.").and_then(|rest| rest.split_once('/'));
        let plain = versioned.map_or(path, |(_, rest)| &path[path.len() - rest.len() - 1..]);
        if versioned.is_none() && matches!(method.as_str(), "GET" | "HEAD") {
            self.reads.push(forward);
        } else if mark(&forward) {
            // What is paused is written down, under a name that nobody can foresee.
        } else {
            self.record.push(forward);
        }
        let plain = sockguard::route::percent_decode(plain, false).unwrap();
        let query = sockguard::route::percent_decode(query, true).unwrap();
        let authorized = request.header("X-Registry-Auth").is_some();
        self.answer(&method, &plain, &query, &document, authorized)
    }

    fn answer(&mut self, method: &str, path: &str, query: &str, body: &Value, authorized: bool) -> Reply {
        let segments: Vec<&str> = path.trim_start_matches('/').split('/').collect();
        match (method, segments.as_slice()) {
            ("GET" | "HEAD", ["_ping"]) => reply(200, "OK"),
            ("GET", ["version"]) => {
                reply(200, object(vec![("ApiVersion", self.version().into()), ("Version", "20.10.24".into())]))
            }
            ("GET", ["containers", "json"]) => {
                let of_label = |c: &&Container| query_has(query, &c.labels) && (c.running || shows_all(query));
                let entry = |c: &Container| {
                    let mounts = if c.writes { vec![object(vec![("RW", true.into())])] } else { Vec::new() };
                    let name = format!("/{}", c.name);
                    object(vec![
                        ("Id", c.id.as_str().into()),
                        ("Names", texts([&name])),
                        ("ImageID", plain_image().into()),
                        ("Labels", labels(&c.labels)),
                        ("State", if c.running { "running" } else { "exited" }.into()),
                        ("Mounts", Value::Array(mounts)),
                    ])
                };
                reply(200, Value::Array(self.facts.containers.iter().filter(of_label).map(entry).collect()))
            }
            ("GET", ["containers", id, "json"]) => {
                if let Some((_, made)) = self.inspects.iter().find(|(known, _)| known == id) {
                    return reply(200, made.clone());
                }
                self.facts.container(id).map_or_else(
                    || absent(format!("No such container: {id}")),
                    |c| {
                        let config = object(vec![("Labels", labels(&c.labels))]);
                        let name = format!("/{}", c.name);
                        reply(
                            200,
                            object(vec![
                                ("Id", c.id.as_str().into()),
                                ("Name", name.into()),
                                ("Image", plain_image().into()),
                                ("Config", config),
                            ]),
                        )
                    },
                )
            }
            ("POST", ["containers", "create"]) => {
                let id = self.make("container");
                let image = self.facts.image(&text(body, "Image")).map(|i| i.id.clone()).unwrap_or_default();
                let config = object(vec![("Labels", body.at(&["Labels"]).cloned().unwrap_or(Value::Null))]);
                self.inspects.push((
                    id.clone(),
                    object(vec![("Id", id.as_str().into()), ("Image", image.into()), ("Config", config)]),
                ));
                reply(201, object(vec![("Id", id.into()), ("Warnings", Value::Array(Vec::new()))]))
            }
            ("POST", ["containers", _, "exec"]) => reply(201, object(vec![("Id", self.make("exec").into())])),
            ("POST", ["containers", _, "attach"])
            | ("GET", ["containers", _, "attach", "ws"])
            | ("POST", ["exec", _, "start"]) => {
                Reply { status: 200, body: Value::Null, upgrade: true, progress: false }
            }
            ("POST", ["containers", _, "start" | "stop" | "restart" | "kill" | "pause" | "unpause" | "rename"])
            | ("DELETE", ["containers" | "networks" | "volumes", _]) => reply(204, Value::Null),
            ("GET", ["exec", id, "json"]) => self.facts.exec(id).map_or_else(
                || absent(format!("No such exec instance: {id}")),
                |exec: &Exec| {
                    reply(
                        200,
                        object(vec![("ID", exec.id.as_str().into()), ("ContainerID", exec.container.as_str().into())]),
                    )
                },
            ),
            ("GET", ["images", "json"]) => {
                let entries = self.facts.images.iter().filter(|image| query_has(query, &image.labels));
                let entry = |i: &Image| {
                    object(vec![
                        ("Id", i.id.as_str().into()),
                        ("RepoTags", texts(&i.names)),
                        ("Labels", labels(&i.labels)),
                    ])
                };
                reply(200, Value::Array(entries.map(entry).collect()))
            }
            ("GET", ["images", id, "json"]) if *id == plain_image() => reply(
                200,
                object(vec![("Id", plain_image().into()), ("Config", object(vec![("Labels", Value::Null)]))]),
            ),
            ("GET", ["images", reference @ .., "json"]) => {
                let reference = reference.join("/");
                let found = self.facts.image(&reference);
                found
                    .map_or_else(|| absent(format!("No such image: {reference}")), |image| reply(200, inspected(image)))
            }
            ("GET", ["distribution", name @ .., "json"]) => match self.facts.served(&name.join("/")) {
                Some(digest) if authorized => {
                    reply(200, object(vec![("Descriptor", object(vec![("digest", digest.into())]))]))
                }
                Some(_) => reply(404, object(vec![("message", "manifest unknown".into())])),
                None => reply(200, Value::Object(Object::new())),
            },
            ("GET", ["images", .., "history"] | ["images", "search"]) => reply(200, Value::Array(Vec::new())),
            ("DELETE", ["images", ..]) => reply(200, Value::Array(Vec::new())),
            ("POST", ["commit"]) => {
                reply(201, object(vec![("Id", self.make_image(labels_of(body.at(&["Labels"]))).into())]))
            }
            ("POST", ["build"]) => {
                let labels = document_in(query, "labels=");
                let id = self.make_image(labels_of(Some(&labels)));
                let quiet = query.split('&').any(|pair| pair == "q=1");
                let said =
                    if quiet { ("stream", format!("{id}\n").into()) } else { ("aux", object(vec![("ID", id.into())])) };
                reply(200, object(vec![said]))
            }
            ("POST", ["images", "create"]) if query.contains("fromSrc") => {
                let label = query.split("LABEL ").nth(1).and_then(|rest| rest.split('&').next()).unwrap_or_default();
                let (key, value) = label.split_once('=').unwrap_or_default();
                let id = self.make_image(Labels::from([(key.to_owned(), value.to_owned())]));
                reply(200, object(vec![("status", id.into())]))
            }
            ("POST", ["images", "create"]) => {
                let value = |key: &str| query.split('&').find_map(|pair| pair.strip_prefix(key)).unwrap_or_default();
                match self.facts.pulled(value("fromImage="), value("tag=")) {
                    Some(mut image) => {
                        let digest = image.digest.get_or_insert(image.id.clone()).clone();
                        self.facts.images.push(image);
                        let status = |text: &str| object(vec![("status", text.into())]);
                        let lines =
                            [status(&format!("Digest: {digest}")), status("Status: Downloaded newer image for it")];
                        Reply { progress: true, ..reply(200, Value::Array(lines.to_vec())) }
                    }
                    None => reply(200, object(vec![("error", "manifest unknown".into())])),
                }
            }
            ("POST", ["images", .., "tag"]) => reply(201, Value::Null),
            ("GET", ["networks"] | ["networks", ""]) => {
                let entries = self.facts.networks.iter().filter(|network| query_has(query, &network.labels));
                reply(200, Value::Array(entries.map(network).collect()))
            }
            ("GET", ["networks", id]) => self
                .facts
                .network(id)
                .map_or_else(|| absent(format!("network {id} not found")), |found| reply(200, network(found))),
            ("POST", ["networks", "create"]) => {
                let id = self.make("network");
                self.facts.networks.push(Network {
                    reference: "new".to_owned(),
                    name: text(body, "Name"),
                    id: id.clone(),
                    labels: labels_of(body.at(&["Labels"])),
                });
                reply(201, object(vec![("Id", id.into()), ("Warning", "".into())]))
            }
            ("GET", ["volumes"]) => {
                let entries = self.facts.volumes.iter().filter(|volume| query_has(query, &volume.labels));
                let volumes = Value::Array(entries.map(made_volume).collect());
                reply(200, object(vec![("Volumes", volumes), ("Warnings", Value::Null)]))
            }
            ("GET", ["volumes", name]) => self.facts.volume(name).map_or_else(
                || absent(format!("get {name}: no such volume")),
                |volume| reply(200, made_volume(volume)),
            ),
            ("POST", ["volumes", "create"]) => {
                let name = text(body, "Name");
                if self.facts.volume(&name).is_none() {
                    let pairs = |key: &str| labels_of(body.at(&[key]));
                    self.facts.volumes.push(Volume {
                        name: name.clone(),
                        labels: pairs("Labels"),
                        options: pairs("DriverOpts"),
                    });
                }
                self.facts
                    .volume(&name)
                    .map_or_else(|| reply(500, Value::Null), |volume| reply(201, made_volume(volume)))
            }
            ("GET", ["containers", _, "changes"] | ["containers", _, "logs"] | ["events"]) => reply(200, Value::Null),
            _ => reply(200, Value::Object(Object::new())),
        }
    }

    fn make_image(&mut self, labels: Labels) -> String {
        let bare = self.make("image");
        self.facts.images.push(Image {
            names: Vec::new(),
            reference: "new".to_owned(),
            id: format!("sha256:{bare}"),
            labels,
            volumes: Vec::new(),
            exposes: Vec::new(),
            on_build: Vec::new(),
            brought: false,
            digest: None,
            served: None,
        });
        format!("sha256:{bare}")
    }

    fn make(&mut self, kind: &str) -> String {
        let id = digits(&["made", kind, &self.made.len().to_string()]);
        self.made.push(id.clone());
        id
    }
}

/// A document among the parameters.
fn document_in(query: &str, name: &str) -> Value {
    let text = query.split_once(name).map_or("", |(_, rest)| rest.split('&').next().unwrap_or_default());
    json::parse(text.as_bytes()).unwrap_or(Value::Null)
}

/// Does a list of containers with these filters show those that do not run?
fn shows_all(query: &str) -> bool {
    !query.contains("\"status\"") || query.contains("\"removing\"")
}

/// Does a list with these filters show an object with these labels?
fn query_has(query: &str, labels: &Labels) -> bool {
    let Some((_, filters)) = query.split_once("filters=") else { return true };
    let filters = json::parse(filters.split('&').next().unwrap_or_default().as_bytes()).unwrap_or(Value::Null);
    let wanted = filters.at(&["label"]).and_then(Value::as_object).into_iter().flat_map(Object::iter);
    wanted.map(|(label, _)| label).all(|label| match label.split_once('=') {
        Some((key, value)) => labels.get(key).is_some_and(|v| v == value),
        None => labels.contains_key(label),
    })
}

fn inspected(image: &Image) -> Value {
    let set = |keys: &[String]| -> Value {
        Value::Object(keys.iter().map(|key| (key.clone(), Value::Object(Object::new()))).collect())
    };
    let config = object(vec![
        ("Labels", labels(&image.labels)),
        ("Volumes", set(&image.volumes)),
        ("ExposedPorts", set(&image.exposes)),
        ("OnBuild", texts(&image.on_build)),
    ]);
    object(vec![
        ("Id", image.id.as_str().into()),
        ("RepoTags", texts(&image.names)),
        ("RepoDigests", texts(&image.digests().collect::<Vec<_>>())),
        ("Config", config),
    ])
}

fn made_volume(volume: &Volume) -> Value {
    object(vec![
        ("Name", volume.name.as_str().into()),
        ("Driver", "local".into()),
        ("Labels", labels(&volume.labels)),
        ("Options", labels(&volume.options)),
    ])
}

fn network(network: &Network) -> Value {
    object(vec![
        ("Id", network.id.as_str().into()),
        ("Name", network.name.as_str().into()),
        ("Labels", labels(&network.labels)),
        ("Containers", Value::Object(Object::new())),
    ])
}

/// The same digits again, so that texts with the IDs of what was made can be read.
pub fn contract(state: &State, text: &str) -> String {
    let text = state.facts.contract(text);
    state.made.iter().fold(text, |text, id| text.replace(&format!("sha256:{id}"), "{new}").replace(id, "{new}"))
}
