//! The endpoints of the Engine API. Decoding a method and a path is total and lives here alone; what is not an endpoint
//! is not a `Route`, so no policy can grant it.

use crate::refusal::Refusal;
use hyper::Method;
use std::fmt;

/// The version prefix of a path, such as `v1.41`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct ApiVersion(pub u32, pub u32);

impl fmt::Display for ApiVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "v{}.{}", self.0, self.1)
    }
}

/// A name, an ID or a prefix of one, as the client gave it: checked for its characters, not resolved.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Name(String);

impl Name {
    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// An endpoint.
#[derive(Debug, Clone, PartialEq, Eq)]
#[expect(missing_docs, reason = "the variants are the Engine API's operations")]
pub enum Route {
    System(System),
    Containers(Containers),
    Exec(Exec),
    Images(Images),
    Networks(Networks),
    Volumes(Volumes),
    /// What an agent's engine does not have: swarm, plugins, BuildKit, checkpoints, debugging.
    Lacking(Lacking),
}

#[derive(Debug, Clone, PartialEq, Eq)]
#[expect(missing_docs, reason = "the variants are the Engine API's operations")]
pub enum System {
    Ping,
    PingHead,
    Version,
    Info,
    Events,
    DiskUsage,
    Auth,
}

#[derive(Debug, Clone, PartialEq, Eq)]
#[expect(missing_docs, reason = "the variants are the Engine API's operations")]
pub enum Containers {
    List,
    Create,
    Prune,
    Inspect(Name),
    Top(Name),
    Logs(Name),
    Changes(Name),
    Export(Name),
    Stats(Name),
    Resize(Name),
    Start(Name),
    Stop(Name),
    Restart(Name),
    Kill(Name),
    Update(Name),
    Rename(Name),
    Pause(Name),
    Unpause(Name),
    Attach(Name),
    AttachWebsocket(Name),
    Wait(Name),
    Delete(Name),
    ArchiveStat(Name),
    ArchiveGet(Name),
    ArchivePut(Name),
    ExecCreate(Name),
}

#[derive(Debug, Clone, PartialEq, Eq)]
#[expect(missing_docs, reason = "the variants are the Engine API's operations")]
pub enum Exec {
    Start(Name),
    Resize(Name),
    Inspect(Name),
}

#[derive(Debug, Clone, PartialEq, Eq)]
#[expect(missing_docs, reason = "the variants are the Engine API's operations")]
pub enum Images {
    List,
    Build,
    BuildPrune,
    BuildCancel,
    Create,
    Inspect(Name),
    Attestations(Name),
    History(Name),
    Push(Name),
    Tag(Name),
    Delete(Name),
    Search,
    Prune,
    Commit,
    Save(Name),
    SaveMany,
    Load,
    Distribution(Name),
}

#[derive(Debug, Clone, PartialEq, Eq)]
#[expect(missing_docs, reason = "the variants are the Engine API's operations")]
pub enum Networks {
    List,
    Inspect(Name),
    Create,
    Connect(Name),
    Disconnect(Name),
    Delete(Name),
    Prune,
}

#[derive(Debug, Clone, PartialEq, Eq)]
#[expect(missing_docs, reason = "the variants are the Engine API's operations")]
pub enum Volumes {
    List,
    Create,
    Inspect(Name),
    Update(Name),
    Delete(Name),
    Prune,
}

/// What an agent's engine does not have.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Lacking {
    /// Reads of swarm, nodes, services, tasks, secrets, configs.
    SwarmRead,
    /// `POST /swarm/leave`, which clients call to be sure that there is no swarm.
    SwarmLeave,
    /// Every other call of the swarm family, by its method and path pattern.
    SwarmWrite(Method, &'static str),
    /// `GET /plugins`.
    PluginList,
    /// `GET /plugins/{name}/json`.
    PluginInspect(Name),
    /// Every other call on plugins.
    PluginWrite(Method, &'static str),
    /// `POST /session` and `POST /grpc`.
    BuildKit(&'static str),
    /// Checkpoints of a container.
    Checkpoint(Method),
    /// `/debug/…`.
    Debug,
}

/// What the head of a request names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    /// The version prefix.
    pub version: Option<ApiVersion>,
    /// The endpoint.
    pub route: Route,
}

/// Reads method and path (without the query).
///
/// # Errors
/// A path that could be read in more than one way (empty segments, dots, encoded slashes outside names), a version
/// below 1.24, anything that is not an endpoint.
pub fn parse(method: &Method, path: &str) -> Result<Target, Refusal> {
    let rest =
        path.strip_prefix('/').ok_or_else(|| Refusal::malformed("the request's path does not begin with `/`"))?;
    let (version, rest) = version_prefix(rest)?;
    let segments: Vec<&str> = rest.split('/').collect();
    let route = decode(method, &segments)?
        .ok_or_else(|| Refusal::unknown(format!("the endpoint `{method} {}`", shown(path))))?;
    Ok(Target { version, route })
}

fn shown(path: &str) -> String {
    path.chars().filter(|c| !c.is_control()).take(120).collect()
}

fn version_prefix(rest: &str) -> Result<(Option<ApiVersion>, &str), Refusal> {
    let Some((first, after)) = rest.split_once('/') else { return Ok((None, rest)) };
    let Some(number) = first.strip_prefix('v') else { return Ok((None, rest)) };
    if number == "olumes" {
        return Ok((None, rest));
    }
    let part = |text: &str| -> Option<u32> {
        let plain = !text.is_empty() && text.len() <= 3 && text.bytes().all(|b| b.is_ascii_digit());
        if plain && (text == "0" || !text.starts_with('0')) { text.parse().ok() } else { None }
    };
    let version = number.split_once('.').and_then(|(major, minor)| Some(ApiVersion(part(major)?, part(minor)?)));
    match version {
        Some(version) if version < ApiVersion(1, 24) => Err(Refusal::malformed(format!(
            "API version {}.{} is too old: sockguard serves 1.24 and later",
            version.0, version.1
        ))),
        Some(version) => Ok((Some(version), after)),
        None => Err(Refusal::malformed(format!("`{}` is no API version", shown(first)))),
    }
}

/// One segment that names an object of the engine: a container, exec, network, volume. The characters are those that
/// the engine allows in names and IDs.
fn name(segment: &str) -> Result<Name, Refusal> {
    let decoded = percent_decode(segment, false)?;
    // `/name` is how the engine itself writes a container's name.
    let plain = decoded.strip_prefix('/').unwrap_or(&decoded);
    let mut chars = plain.chars();
    let first = chars.next().is_some_and(|c| c.is_ascii_alphanumeric());
    if first && plain.len() <= 255 && chars.all(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '-')) {
        Ok(Name(plain.to_owned()))
    } else {
        Err(Refusal::malformed(format!("`{}` is no name or ID of an object", shown(&decoded))))
    }
}

/// The segments of an image reference: `registry:5000/path/name:tag@sha256:…`.
fn image(segments: &[&str]) -> Result<Name, Refusal> {
    image_reference(&percent_decode(&segments.join("/"), false)?)
}

/// Checks the form of an image reference or ID.
///
/// # Errors
/// Characters that no reference has, empty or dotted path components.
pub fn image_reference(text: &str) -> Result<Name, Refusal> {
    let fine = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '-' | '/' | ':' | '@');
    let parts_fine = text.split('/').all(|part| !part.is_empty() && part != "." && part != "..");
    let first = text.chars().next().is_some_and(|c| c.is_ascii_alphanumeric());
    if first && parts_fine && text.len() <= 512 && text.chars().all(fine) {
        Ok(Name(text.to_owned()))
    } else {
        Err(Refusal::malformed(format!("`{}` is no image reference", shown(text))))
    }
}

/// A ping of the engine that a guarded socket alone answers: to the engine it is an unknown path.
pub const GUARDED_PING: &str = "/_sockguard/ping";

/// A ping as the engine, too, answers it.
pub const PING: &str = "/_ping";

fn decode(method: &Method, segments: &[&str]) -> Result<Option<Route>, Refusal> {
    let verb = method.as_str();
    let route = match segments {
        [first, rest @ ..] => match *first {
            "containers" => containers(verb, rest)?.map(Route::Containers),
            "exec" => exec(verb, rest)?.map(Route::Exec),
            "images" | "build" | "commit" | "distribution" => images(verb, segments)?.map(Route::Images),
            "networks" => networks(verb, rest)?.map(Route::Networks),
            "volumes" => volumes(verb, rest)?.map(Route::Volumes),
            _ => system(verb, segments).map(Route::System),
        },
        [] => None,
    };
    Ok(match route {
        Some(route) => Some(route),
        None => lacking(method, segments)?.map(Route::Lacking),
    })
}

fn system(verb: &str, segments: &[&str]) -> Option<System> {
    Some(match (verb, segments) {
        ("GET", ["_ping"]) => System::Ping,
        ("HEAD", ["_ping"]) => System::PingHead,
        ("GET", ["_sockguard", "ping"]) => System::Ping,
        ("GET", ["version"]) => System::Version,
        ("GET", ["info"]) => System::Info,
        ("GET", ["events"]) => System::Events,
        ("GET", ["system", "df"]) => System::DiskUsage,
        ("POST", ["auth"]) => System::Auth,
        _ => return None,
    })
}

/// `docker inspect IMAGE` asks for a container, a network, a volume and more of the image's name: there is none. It goes
/// on only at the engine's own words for an absent object.
fn named_like_image(segments: &[&str], absent: impl Fn(&str) -> String) -> Result<(), Refusal> {
    let text = percent_decode(&segments.join("/"), false)?;
    if image_reference(&text).is_ok() && text.contains(['/', ':', '@']) {
        return Err(Refusal::absent(absent(&text)));
    }
    Ok(())
}

fn containers(verb: &str, rest: &[&str]) -> Result<Option<Containers>, Refusal> {
    if let ("GET", [reference @ .., "json"]) = (verb, rest) {
        named_like_image(reference, |text| format!("No such container: {text}"))?;
    }
    let by_name: fn(Name) -> Containers = match (verb, rest) {
        ("GET", ["json"]) => return Ok(Some(Containers::List)),
        ("POST", ["create"]) => return Ok(Some(Containers::Create)),
        ("POST", ["prune"]) => return Ok(Some(Containers::Prune)),
        ("GET", [_, "json"]) => Containers::Inspect,
        ("GET", [_, "top"]) => Containers::Top,
        ("GET", [_, "logs"]) => Containers::Logs,
        ("GET", [_, "changes"]) => Containers::Changes,
        ("GET", [_, "export"]) => Containers::Export,
        ("GET", [_, "stats"]) => Containers::Stats,
        ("GET", [_, "attach", "ws"]) => Containers::AttachWebsocket,
        ("HEAD", [_, "archive"]) => Containers::ArchiveStat,
        ("GET", [_, "archive"]) => Containers::ArchiveGet,
        ("PUT", [_, "archive"]) => Containers::ArchivePut,
        ("DELETE", [_]) => Containers::Delete,
        ("POST", [_, operation]) => match *operation {
            "resize" => Containers::Resize,
            "start" => Containers::Start,
            "stop" => Containers::Stop,
            "restart" => Containers::Restart,
            "kill" => Containers::Kill,
            "update" => Containers::Update,
            "rename" => Containers::Rename,
            "pause" => Containers::Pause,
            "unpause" => Containers::Unpause,
            "attach" => Containers::Attach,
            "wait" => Containers::Wait,
            "exec" => Containers::ExecCreate,
            _ => return Ok(None),
        },
        _ => return Ok(None),
    };
    match rest {
        [segment, ..] => Ok(Some(by_name(name(segment)?))),
        [] => Ok(None),
    }
}

fn exec(verb: &str, rest: &[&str]) -> Result<Option<Exec>, Refusal> {
    Ok(Some(match (verb, rest) {
        ("POST", [id, "start"]) => Exec::Start(name(id)?),
        ("POST", [id, "resize"]) => Exec::Resize(name(id)?),
        ("GET", [id, "json"]) => Exec::Inspect(name(id)?),
        _ => return Ok(None),
    }))
}

fn images(verb: &str, segments: &[&str]) -> Result<Option<Images>, Refusal> {
    Ok(Some(match (verb, segments) {
        ("POST", ["build"]) => Images::Build,
        ("POST", ["build", "prune"]) => Images::BuildPrune,
        ("POST", ["build", "cancel"]) => Images::BuildCancel,
        ("POST", ["commit"]) => Images::Commit,
        ("GET", ["distribution", reference @ .., "json"]) if !reference.is_empty() => {
            Images::Distribution(image(reference)?)
        }
        ("GET", ["images", "json"]) => Images::List,
        ("GET", ["images", "search"]) => Images::Search,
        ("GET", ["images", "get"]) => Images::SaveMany,
        ("POST", ["images", "create"]) => Images::Create,
        ("POST", ["images", "prune"]) => Images::Prune,
        ("POST", ["images", "load"]) => Images::Load,
        ("GET", ["images", reference @ .., operation]) if !reference.is_empty() => match *operation {
            "json" => Images::Inspect(image(reference)?),
            "attestations" => Images::Attestations(image(reference)?),
            "history" => Images::History(image(reference)?),
            "get" => Images::Save(image(reference)?),
            _ => return Ok(None),
        },
        ("POST", ["images", reference @ .., operation]) if !reference.is_empty() => match *operation {
            "push" => Images::Push(image(reference)?),
            "tag" => Images::Tag(image(reference)?),
            _ => return Ok(None),
        },
        ("DELETE", ["images", reference @ ..]) if !reference.is_empty() => Images::Delete(image(reference)?),
        _ => return Ok(None),
    }))
}

fn networks(verb: &str, rest: &[&str]) -> Result<Option<Networks>, Refusal> {
    if verb == "GET" {
        named_like_image(rest, |text| format!("network {text} not found"))?;
    }
    Ok(Some(match (verb, rest) {
        // The engine serves the list under both spellings, and old clients use the one with a slash.
        ("GET", [] | [""]) => Networks::List,
        ("POST", ["create"]) => Networks::Create,
        ("POST", ["prune"]) => Networks::Prune,
        ("GET", [id]) => Networks::Inspect(name(id)?),
        ("DELETE", [id]) => Networks::Delete(name(id)?),
        ("POST", [id, "connect"]) => Networks::Connect(name(id)?),
        ("POST", [id, "disconnect"]) => Networks::Disconnect(name(id)?),
        _ => return Ok(None),
    }))
}

fn volumes(verb: &str, rest: &[&str]) -> Result<Option<Volumes>, Refusal> {
    if verb == "GET" {
        named_like_image(rest, |text| format!("get {text}: no such volume"))?;
    }
    Ok(Some(match (verb, rest) {
        ("GET", []) => Volumes::List,
        ("POST", ["create"]) => Volumes::Create,
        ("POST", ["prune"]) => Volumes::Prune,
        ("GET", [id]) => Volumes::Inspect(name(id)?),
        ("PUT", [id]) => Volumes::Update(name(id)?),
        ("DELETE", [id]) => Volumes::Delete(name(id)?),
        _ => return Ok(None),
    }))
}

fn lacking(method: &Method, segments: &[&str]) -> Result<Option<Lacking>, Refusal> {
    let write = |pattern| Ok(Some(Lacking::SwarmWrite(method.clone(), pattern)));
    let plugin = |pattern| Ok(Some(Lacking::PluginWrite(method.clone(), pattern)));
    Ok(Some(match (method.as_str(), segments) {
        ("GET", ["swarm" | "nodes" | "services" | "tasks" | "secrets" | "configs"]) => Lacking::SwarmRead,
        ("GET", ["nodes" | "services" | "tasks" | "secrets" | "configs", id]) => {
            image(&[*id])?;
            Lacking::SwarmRead
        }
        ("GET", ["services" | "tasks", id, "logs"]) => {
            name(id)?;
            Lacking::SwarmRead
        }
        ("GET", ["nodes" | "services" | "tasks" | "secrets" | "configs", rest @ ..]) => {
            named_like_image(rest, |_| "page not found".to_owned())?;
            return Ok(None);
        }
        ("POST", ["swarm", "leave"]) => Lacking::SwarmLeave,
        ("GET", ["swarm", "unlockkey"]) => return write("/swarm/unlockkey"),
        ("POST", ["swarm", "init"]) => return write("/swarm/init"),
        ("POST", ["swarm", "join"]) => return write("/swarm/join"),
        ("POST", ["swarm", "update"]) => return write("/swarm/update"),
        ("POST", ["swarm", "unlock"]) => return write("/swarm/unlock"),
        ("POST", ["nodes", _, "update"]) => return write("/nodes/{id}/update"),
        ("DELETE", ["nodes", _]) => return write("/nodes/{id}"),
        ("POST", ["services", "create"]) => return write("/services/create"),
        ("POST", ["services", _, "update"]) => return write("/services/{id}/update"),
        ("DELETE", ["services", _]) => return write("/services/{id}"),
        ("POST", ["secrets", "create"]) => return write("/secrets/create"),
        ("POST", ["secrets", _, "update"]) => return write("/secrets/{id}/update"),
        ("DELETE", ["secrets", _]) => return write("/secrets/{id}"),
        ("POST", ["configs", "create"]) => return write("/configs/create"),
        ("POST", ["configs", _, "update"]) => return write("/configs/{id}/update"),
        ("DELETE", ["configs", _]) => return write("/configs/{id}"),
        ("GET", ["plugins"]) => Lacking::PluginList,
        ("GET", ["plugins", "privileges"]) => return plugin("/plugins/privileges"),
        ("GET", ["plugins", reference @ .., "json"]) if !reference.is_empty() => {
            Lacking::PluginInspect(image(reference)?)
        }
        ("POST", ["plugins", "pull"]) => return plugin("/plugins/pull"),
        ("POST", ["plugins", "create"]) => return plugin("/plugins/create"),
        ("POST", ["plugins", .., "enable"]) => return plugin("/plugins/{name}/enable"),
        ("POST", ["plugins", .., "disable"]) => return plugin("/plugins/{name}/disable"),
        ("POST", ["plugins", .., "upgrade"]) => return plugin("/plugins/{name}/upgrade"),
        ("POST", ["plugins", .., "push"]) => return plugin("/plugins/{name}/push"),
        ("POST", ["plugins", .., "set"]) => return plugin("/plugins/{name}/set"),
        ("DELETE", ["plugins", ..]) => return plugin("/plugins/{name}"),
        ("POST", ["session"]) => Lacking::BuildKit("/session"),
        ("POST", ["grpc"]) => Lacking::BuildKit("/grpc"),
        ("GET" | "POST", ["containers", _, "checkpoints"]) | ("DELETE", ["containers", _, "checkpoints", _]) => {
            Lacking::Checkpoint(method.clone())
        }
        ("GET" | "POST", ["debug", ..]) => Lacking::Debug,
        _ => return Ok(None),
    }))
}

/// Decodes `%XX` and, in queries, `+`.
///
/// # Errors
/// Bad escapes, control characters, or bytes that are not UTF-8.
pub fn percent_decode(text: &str, plus_is_space: bool) -> Result<String, Refusal> {
    let bad = || Refusal::malformed(format!("`{}` is not well encoded", shown(text)));
    let mut out = Vec::with_capacity(text.len());
    let mut bytes = text.bytes();
    while let Some(byte) = bytes.next() {
        match byte {
            b'%' => {
                let mut hex = || bytes.next().and_then(|b| char::from(b).to_digit(16)).ok_or_else(bad);
                let (high, low) = (hex()?, hex()?);
                out.push(u8::try_from(high * 16 + low).map_err(|_| bad())?);
            }
            b'+' if plus_is_space => out.push(b' '),
            byte => out.push(byte),
        }
    }
    let text = String::from_utf8(out).map_err(|_| bad())?;
    if text.contains('\0') { Err(bad()) } else { Ok(text) }
}

/// Encodes everything but unreserved characters and those in `keep`.
pub fn percent_encode(text: &str, keep: &str, out: &mut String) {
    let plain = |byte: u8| {
        byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) || (byte.is_ascii() && keep.as_bytes().contains(&byte))
    };
    let digit = |four: u8| char::from(four + if four < 10 { b'0' } else { b'A' - 10 });
    out.reserve(text.len());
    let mut rest = text;
    loop {
        // What is plain is ASCII, so every place that is found is the beginning of a character.
        let n = rest.bytes().position(|byte| !plain(byte)).unwrap_or(rest.len());
        let (run, special) = rest.split_at(n);
        out.push_str(run);
        let mut chars = special.chars();
        let Some(special) = chars.next() else { break };
        for byte in special.encode_utf8(&mut [0; 4]).bytes() {
            out.extend(['%', digit(byte >> 4), digit(byte & 15)]);
        }
        rest = chars.as_str();
    }
}

impl Route {
    /// The method of its request.
    pub fn method(&self) -> Method {
        match self {
            Route::System(route) => match route {
                System::PingHead => Method::HEAD,
                System::Auth => Method::POST,
                System::Ping | System::Version | System::Info | System::Events | System::DiskUsage => Method::GET,
            },
            Route::Containers(route) => match route {
                Containers::List
                | Containers::Inspect(_)
                | Containers::Top(_)
                | Containers::Logs(_)
                | Containers::Changes(_)
                | Containers::Export(_)
                | Containers::Stats(_)
                | Containers::AttachWebsocket(_)
                | Containers::ArchiveGet(_) => Method::GET,
                Containers::ArchiveStat(_) => Method::HEAD,
                Containers::ArchivePut(_) => Method::PUT,
                Containers::Delete(_) => Method::DELETE,
                Containers::Create
                | Containers::Prune
                | Containers::Resize(_)
                | Containers::Start(_)
                | Containers::Stop(_)
                | Containers::Restart(_)
                | Containers::Kill(_)
                | Containers::Update(_)
                | Containers::Rename(_)
                | Containers::Pause(_)
                | Containers::Unpause(_)
                | Containers::Attach(_)
                | Containers::Wait(_)
                | Containers::ExecCreate(_) => Method::POST,
            },
            Route::Exec(route) => match route {
                Exec::Start(_) | Exec::Resize(_) => Method::POST,
                Exec::Inspect(_) => Method::GET,
            },
            Route::Images(route) => match route {
                Images::List
                | Images::Inspect(_)
                | Images::Attestations(_)
                | Images::History(_)
                | Images::Search
                | Images::Save(_)
                | Images::SaveMany
                | Images::Distribution(_) => Method::GET,
                Images::Delete(_) => Method::DELETE,
                Images::Build
                | Images::BuildPrune
                | Images::BuildCancel
                | Images::Create
                | Images::Push(_)
                | Images::Tag(_)
                | Images::Prune
                | Images::Commit
                | Images::Load => Method::POST,
            },
            Route::Networks(route) => match route {
                Networks::List | Networks::Inspect(_) => Method::GET,
                Networks::Delete(_) => Method::DELETE,
                Networks::Create | Networks::Connect(_) | Networks::Disconnect(_) | Networks::Prune => Method::POST,
            },
            Route::Volumes(route) => match route {
                Volumes::List | Volumes::Inspect(_) => Method::GET,
                Volumes::Update(_) => Method::PUT,
                Volumes::Delete(_) => Method::DELETE,
                Volumes::Create | Volumes::Prune => Method::POST,
            },
            Route::Lacking(route) => match route {
                Lacking::SwarmRead | Lacking::PluginList | Lacking::PluginInspect(_) | Lacking::Debug => Method::GET,
                Lacking::SwarmLeave | Lacking::BuildKit(_) => Method::POST,
                Lacking::SwarmWrite(method, _) | Lacking::PluginWrite(method, _) | Lacking::Checkpoint(method) => {
                    method.clone()
                }
            },
        }
    }

    /// The endpoint's path as the Engine API writes it. For the audit, and to find its parameters.
    pub fn pattern(&self) -> &'static str {
        match self {
            Route::System(route) => match route {
                System::Ping | System::PingHead => PING,
                System::Version => "/version",
                System::Info => "/info",
                System::Events => "/events",
                System::DiskUsage => "/system/df",
                System::Auth => "/auth",
            },
            Route::Containers(route) => match route {
                Containers::List => "/containers/json",
                Containers::Create => "/containers/create",
                Containers::Prune => "/containers/prune",
                Containers::Inspect(_) => "/containers/{id}/json",
                Containers::Top(_) => "/containers/{id}/top",
                Containers::Logs(_) => "/containers/{id}/logs",
                Containers::Changes(_) => "/containers/{id}/changes",
                Containers::Export(_) => "/containers/{id}/export",
                Containers::Stats(_) => "/containers/{id}/stats",
                Containers::Resize(_) => "/containers/{id}/resize",
                Containers::Start(_) => "/containers/{id}/start",
                Containers::Stop(_) => "/containers/{id}/stop",
                Containers::Restart(_) => "/containers/{id}/restart",
                Containers::Kill(_) => "/containers/{id}/kill",
                Containers::Update(_) => "/containers/{id}/update",
                Containers::Rename(_) => "/containers/{id}/rename",
                Containers::Pause(_) => "/containers/{id}/pause",
                Containers::Unpause(_) => "/containers/{id}/unpause",
                Containers::Attach(_) => "/containers/{id}/attach",
                Containers::AttachWebsocket(_) => "/containers/{id}/attach/ws",
                Containers::Wait(_) => "/containers/{id}/wait",
                Containers::Delete(_) => "/containers/{id}",
                Containers::ArchiveStat(_) | Containers::ArchiveGet(_) | Containers::ArchivePut(_) => {
                    "/containers/{id}/archive"
                }
                Containers::ExecCreate(_) => "/containers/{id}/exec",
            },
            Route::Exec(route) => match route {
                Exec::Start(_) => "/exec/{id}/start",
                Exec::Resize(_) => "/exec/{id}/resize",
                Exec::Inspect(_) => "/exec/{id}/json",
            },
            Route::Images(route) => match route {
                Images::List => "/images/json",
                Images::Build => "/build",
                Images::BuildPrune => "/build/prune",
                Images::BuildCancel => "/build/cancel",
                Images::Create => "/images/create",
                Images::Inspect(_) => "/images/{name}/json",
                Images::Attestations(_) => "/images/{name}/attestations",
                Images::History(_) => "/images/{name}/history",
                Images::Push(_) => "/images/{name}/push",
                Images::Tag(_) => "/images/{name}/tag",
                Images::Delete(_) => "/images/{name}",
                Images::Search => "/images/search",
                Images::Prune => "/images/prune",
                Images::Commit => "/commit",
                Images::Save(_) => "/images/{name}/get",
                Images::SaveMany => "/images/get",
                Images::Load => "/images/load",
                Images::Distribution(_) => "/distribution/{name}/json",
            },
            Route::Networks(route) => match route {
                Networks::List => "/networks",
                Networks::Inspect(_) | Networks::Delete(_) => "/networks/{id}",
                Networks::Create => "/networks/create",
                Networks::Connect(_) => "/networks/{id}/connect",
                Networks::Disconnect(_) => "/networks/{id}/disconnect",
                Networks::Prune => "/networks/prune",
            },
            Route::Volumes(route) => match route {
                Volumes::List => "/volumes",
                Volumes::Create => "/volumes/create",
                Volumes::Inspect(_) | Volumes::Update(_) | Volumes::Delete(_) => "/volumes/{name}",
                Volumes::Prune => "/volumes/prune",
            },
            Route::Lacking(route) => match route {
                Lacking::SwarmRead => "/swarm",
                Lacking::SwarmLeave => "/swarm/leave",
                Lacking::SwarmWrite(_, pattern) | Lacking::PluginWrite(_, pattern) | Lacking::BuildKit(pattern) => {
                    pattern
                }
                Lacking::PluginList => "/plugins",
                Lacking::PluginInspect(_) => "/plugins/{name}/json",
                Lacking::Checkpoint(_) => "/containers/{id}/checkpoints",
                Lacking::Debug => "/debug",
            },
        }
    }

    /// The object that the path names, for the audit.
    pub fn object(&self) -> Option<&str> {
        use Containers as C;
        match self {
            Route::System(_) => None,
            Route::Containers(route) => match route {
                C::List | C::Create | C::Prune => None,
                C::Inspect(n)
                | C::Top(n)
                | C::Logs(n)
                | C::Changes(n)
                | C::Export(n)
                | C::Stats(n)
                | C::Resize(n)
                | C::Start(n)
                | C::Stop(n)
                | C::Restart(n)
                | C::Kill(n)
                | C::Update(n)
                | C::Rename(n)
                | C::Pause(n)
                | C::Unpause(n)
                | C::Attach(n)
                | C::AttachWebsocket(n)
                | C::Wait(n)
                | C::Delete(n)
                | C::ArchiveStat(n)
                | C::ArchiveGet(n)
                | C::ArchivePut(n)
                | C::ExecCreate(n) => Some(n.as_str()),
            },
            Route::Exec(Exec::Start(n) | Exec::Resize(n) | Exec::Inspect(n)) => Some(n.as_str()),
            Route::Images(route) => match route {
                Images::Inspect(n)
                | Images::Attestations(n)
                | Images::History(n)
                | Images::Push(n)
                | Images::Tag(n)
                | Images::Delete(n)
                | Images::Save(n)
                | Images::Distribution(n) => Some(n.as_str()),
                Images::List
                | Images::Build
                | Images::BuildPrune
                | Images::BuildCancel
                | Images::Create
                | Images::Search
                | Images::Prune
                | Images::Commit
                | Images::SaveMany
                | Images::Load => None,
            },
            Route::Networks(route) => match route {
                Networks::Inspect(n) | Networks::Connect(n) | Networks::Disconnect(n) | Networks::Delete(n) => {
                    Some(n.as_str())
                }
                Networks::List | Networks::Create | Networks::Prune => None,
            },
            Route::Volumes(route) => match route {
                Volumes::Inspect(n) | Volumes::Update(n) | Volumes::Delete(n) => Some(n.as_str()),
                Volumes::List | Volumes::Create | Volumes::Prune => None,
            },
            Route::Lacking(Lacking::PluginInspect(n)) => Some(n.as_str()),
            Route::Lacking(_) => None,
        }
    }
}
