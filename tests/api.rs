//! Every fact of the Engine API has a decision: the endpoints, parameters, headers and body fields that `api/facts.txt`
//! (from the API's definitions) and `api/unlisted.txt` (from the engine's sources) list. A new version of the API that
//! brings new entries fails here until somebody has decided what becomes of them.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "tests")]

use hyper::Method;
use sockguard::json;
use sockguard::judge::{self, BodyKind};
use sockguard::query;
use sockguard::route::{self, Route};
use sockguard::schema::{Field, Shape, Treat};
use std::collections::BTreeSet;
use std::path::Path;

/// A line of the facts.
struct Fact {
    line: String,
    kind: String,
    method: Method,
    path: String,
    /// The name of a parameter or header, or the path of a field.
    name: String,
    /// Its type.
    shape: String,
}

/// Endpoints that the router does not know, on purpose: they are refused as any other that is not known.
const NOT_ROUTED: &[(&str, &str, &str)] = &[
    ("OPTIONS", "/{path}", "no client needs it"),
    ("POST", "/containers/{id}/copy", "answers 404 since API 1.24, and takes a path before"),
];

/// Top-level fields of a creation that are neither known nor fields of `HostConfig`: refused as not known.
const NOT_KNOWN: &[(&str, &str)] = &[("Cpuset", "an old name of CpusetCpus, read beside HostConfig")];

/// Parameters that no engine of today reads, but that clients send.
const NOT_READ: &[(&str, &str, &str)] = &[
    ("/images/{name}/tag", "force", "docker-py sends it; read before API 1.24"),
    ("/containers/json", "trunc_cmd", "docker-py sends it"),
    ("/images/json", "only_ids", "docker-py sends it"),
    ("/containers/{id}/attach", "hijack", "dockerode sends it"),
    ("/containers/{id}/attach/ws", "hijack", "dockerode sends it"),
];

/// Fields that no engine reads, but that clients send.
const NOT_FIELDS: &[(&str, &str, &str)] = &[
    ("POST /containers/{id}/exec", "Container", "docker-py sends it"),
    ("POST /exec/{id}/start", "hijack", "dockerode sends it"),
];

/// What becomes of the headers that endpoints read. Whatever is not said to go along is dropped.
const HEADERS: &[(&str, &str)] = &[
    ("X-Registry-Auth", "goes along on pull, push, search, distribution and create, if it is base64"),
    ("X-Registry-Config", "goes along on build, if it is base64"),
    ("X-Meta-*", "dropped: sent to registries unread"),
    ("Content-type", "set to what the body is; a form is refused, since the engine prefers its fields to the query's"),
    ("Accept", "dropped: the engine then answers in its usual form"),
    ("Accept-Encoding", "dropped: the engine does not compress then"),
    ("Connection", "made anew for each side"),
    ("Upgrade", "made anew: `tcp` for hijacked streams, `websocket` for `attach/ws`"),
    ("Origin", "dropped: it is about the client's browser"),
    ("Sec-WebSocket-Key", "goes along on `attach/ws`"),
    ("Sec-WebSocket-Version", "goes along on `attach/ws`"),
    ("Sec-WebSocket-Protocol", "goes along on `attach/ws`"),
    ("X-Docker-Expose-Session-Grpc-Method", "of BuildKit's session, which is refused"),
    ("X-Docker-Expose-Session-Name", "of BuildKit's session, which is refused"),
    ("X-Docker-Expose-Session-Sharedkey", "of BuildKit's session, which is refused"),
    ("X-Docker-Expose-Session-Uuid", "of BuildKit's session, which is refused"),
];

fn facts() -> Vec<Fact> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/api");
    let texts = ["facts.txt", "unlisted.txt"].map(|file| std::fs::read_to_string(folder.join(file)).unwrap());
    texts
        .iter()
        .flat_map(|text| text.lines())
        .filter(|line| !line.is_empty() && !line.starts_with('#'))
        .map(fact)
        .collect()
}

fn fact(line: &str) -> Fact {
    let words: Vec<&str> = line.split_whitespace().collect();
    let word = |at: usize| words.get(at).copied().unwrap_or_default().to_owned();
    Fact {
        line: line.to_owned(),
        kind: word(0),
        method: word(1).parse().unwrap(),
        path: word(2),
        name: word(3),
        shape: word(4),
    }
}

/// A path in which names stand for the placeholders.
fn example(path: &str) -> String {
    let part = |part: &str| if part.starts_with('{') { "x".to_owned() } else { part.to_owned() };
    path.split('/').map(part).collect::<Vec<_>>().join("/")
}

/// Is there a decision for this fact? Else what is missing.
fn decided(fact: &Fact) -> Result<(), String> {
    let exempt = NOT_ROUTED.iter().any(|(method, path, _)| *method == fact.method.as_str() && *path == fact.path);
    let route = match route::parse(&fact.method, &example(&fact.path)) {
        Ok(target) if exempt => {
            return Err(format!("is routed ({}), against the list of exceptions", target.route.pattern()));
        }
        Ok(target) => target.route,
        Err(_) if exempt => return Ok(()),
        Err(refusal) => return Err(format!("no route: {}", refusal.message(""))),
    };
    // What an engine lacks is answered or refused whatever the request says, and goes no further.
    let lacking = matches!(route, Route::Lacking(_));
    match fact.kind.as_str() {
        "endpoint" => Ok(()),
        "header" => match HEADERS.iter().any(|(name, _)| *name == fact.name) {
            true => Ok(()),
            false => Err("no word on what becomes of the header".to_owned()),
        },
        _ if lacking => Ok(()),
        "query" => match query::parameters(&fact.method, route.pattern()).iter().any(|(name, _)| *name == fact.name) {
            true => Ok(()),
            false => Err("no such parameter".to_owned()),
        },
        "body" => match judge::body_kind(&route) {
            // It is refused if it says anything, or dropped.
            BodyKind::Empty | BodyKind::Unread => Ok(()),
            BodyKind::Stream if fact.name == "-" && fact.shape == "stream" => Ok(()),
            BodyKind::Stream => Err("the body is taken for a stream".to_owned()),
            BodyKind::Json => match judge::body_fields(&fact.method, route.pattern()) {
                Some(_) if fact.name == "-" => Ok(()),
                Some(fields) => {
                    let top = fact.name.split(['.', '[', '{']).next().unwrap_or_default();
                    let create = route.pattern() == "/containers/create";
                    // Before API 1.46 the engine read the fields of HostConfig beside it too: not known there, refused.
                    if create && !fields.iter().any(|field| field.name == top) && beside_host_config(fields, top) {
                        return Ok(());
                    }
                    field_decided(fields, &fact.name, &fact.shape)
                }
                None => Err("the fields of the body have no list".to_owned()),
            },
        },
        other => Err(format!("`{other}` is no kind of fact")),
    }
}

/// The fields of `HostConfig` among those of a creation.
fn host_config(creation: &[Field]) -> &'static [Field] {
    let host_config = creation.iter().find(|field| field.name == "HostConfig").unwrap();
    let Treat::Object(inner) = host_config.treat else { panic!("HostConfig is an object") };
    inner
}

fn beside_host_config(creation: &[Field], top: &str) -> bool {
    host_config(creation).iter().any(|field| field.name == top) || NOT_KNOWN.iter().any(|(name, _)| *name == top)
}

/// Is there a decision for a field, and does it fit the field's type?
fn field_decided(fields: &'static [Field], path: &str, shape: &str) -> Result<(), String> {
    let end = path.find(['.', '[', '{']).unwrap_or(path.len());
    let (name, below) = path.split_at(end);
    let Some(field) = fields.iter().find(|field| field.name == name) else {
        return Err(format!("no field `{name}`"));
    };
    let fits = |fits: bool| {
        if fits { Ok(()) } else { Err(format!("the decision on `{name}` does not fit `{below}` of type {shape}")) }
    };
    match field.treat {
        // Nothing of it is sent, so it decides all that is below.
        Treat::Silent(_) | Treat::Null(_) | Treat::Drop => Ok(()),
        Treat::Plain(kind) | Treat::Judged(kind) => fits(shape_fits(kind, below, shape)),
        Treat::Object(inner) => match below.strip_prefix('.') {
            Some(rest) => field_decided(inner, rest, shape),
            None => fits(below.is_empty() && shape == "object"),
        },
        Treat::Each(inner) => match below.strip_prefix("[].") {
            Some(rest) => field_decided(inner, rest, shape),
            None => fits(matches!((below, shape), ("", "array") | ("[]", "object"))),
        },
        Treat::Map(inner) => match below.strip_prefix("{}.") {
            Some(rest) => field_decided(inner, rest, shape),
            None => fits(matches!((below, shape), ("", "map") | ("{}", "object"))),
        },
    }
}

/// Does a shape hold what is below a field? Numbers of the API are integers here.
fn shape_fits(kind: Shape, below: &str, shape: &str) -> bool {
    let allowed: &[(&str, &str)] = match kind {
        Shape::Text => &[("", "string")],
        Shape::Bool => &[("", "boolean")],
        Shape::Int => &[("", "integer"), ("", "number")],
        Shape::Texts | Shape::Words => &[("", "array"), ("[]", "string")],
        Shape::Ints => &[("", "array"), ("[]", "integer")],
        Shape::TextLists => &[("", "array"), ("[]", "array"), ("[][]", "string")],
        Shape::TextMap => &[("", "map"), ("{}", "string")],
        Shape::Set => &[("", "map"), ("{}", "object")],
        Shape::Ports => {
            &[("", "map"), ("{}", "array"), ("{}[]", "object"), ("{}[].HostIp", "string"), ("{}[].HostPort", "string")]
        }
    };
    allowed.contains(&(below, shape))
}

#[test]
fn every_fact_of_the_api_has_a_decision() {
    let undecided: Vec<String> = facts()
        .iter()
        .filter_map(|fact| decided(fact).err().map(|missing| format!("{}\n    {missing}", fact.line)))
        .collect();
    assert!(undecided.is_empty(), "{} facts without a decision:\n{}", undecided.len(), undecided.join("\n"));
}

#[test]
fn what_has_no_decision_is_noticed() {
    for line in [
        "endpoint GET /future since=1.99",
        "endpoint POST /containers/{id}/future since=1.99",
        "query GET /containers/json future string since=1.99",
        "query POST /build future string since=1.99",
        "header POST /build X-Future string since=1.99",
        "body POST /containers/create Future string since=1.99",
        "body POST /containers/create HostConfig.Future string since=1.99",
        "body POST /containers/create HostConfig.Mounts[].Future string since=1.99",
        "body POST /containers/create HostConfig.Mounts[].VolumeOptions.Future string since=1.99",
        "body POST /containers/create NetworkingConfig.EndpointsConfig{}.Future string since=1.99",
        "body POST /containers/create HostConfig.Memory string since=1.99",
        "body POST /containers/create Labels{}.Future string since=1.99",
        "body POST /containers/{id}/exec Future boolean since=1.99",
        "body POST /networks/create IPAM.Config[].Future string since=1.99",
        "body POST /volumes/create Future string since=1.99",
        "body POST /images/load Future string since=1.99",
        "future POST /images/load",
    ] {
        assert!(decided(&fact(line)).is_err(), "{line}");
    }
}

#[test]
fn every_field_that_has_a_decision_is_a_field_of_the_api() {
    let known: BTreeSet<(String, String)> = facts()
        .into_iter()
        .filter(|fact| fact.kind == "body")
        .map(|fact| (format!("{} {}", fact.method, fact.path), fact.name))
        .collect();
    let mut unknown = Vec::new();
    let endpoints: BTreeSet<&String> = known.iter().map(|(endpoint, _)| endpoint).collect();
    for endpoint in endpoints {
        let (method, path) = endpoint.split_once(' ').unwrap();
        let Some(fields) = judge::body_fields(&method.parse().unwrap(), path) else { continue };
        names(fields, "", &mut |name| {
            let not_read = NOT_FIELDS.iter().any(|(of, field, _)| of == endpoint && *field == name);
            if !not_read && !known.contains(&(endpoint.clone(), name.to_owned())) {
                unknown.push(format!("{endpoint} {name}"));
            }
        });
    }
    assert!(unknown.is_empty(), "fields that the API does not have:\n{}", unknown.join("\n"));
}

fn names(fields: &'static [Field], prefix: &str, seen: &mut impl FnMut(&str)) {
    for field in fields {
        let name = format!("{prefix}{}", field.name);
        seen(&name);
        match field.treat {
            Treat::Object(inner) => names(inner, &format!("{name}."), &mut *seen),
            Treat::Each(inner) => names(inner, &format!("{name}[]."), &mut *seen),
            Treat::Map(inner) => names(inner, &format!("{name}{{}}."), &mut *seen),
            Treat::Plain(_) | Treat::Judged(_) | Treat::Silent(_) | Treat::Null(_) | Treat::Drop => {}
        }
    }
}

/// What a creation and an update both take is written down for each; what one refuses is not to be had by the other.
#[test]
fn an_update_takes_no_more_than_a_creation() {
    let fields = |path| judge::body_fields(&Method::POST, path).unwrap();
    let creation = host_config(fields("/containers/create"));
    for update in fields("/containers/{id}/update") {
        let created = creation.iter().find(|field| field.name == update.name).unwrap();
        let refused = matches!(update.treat, Treat::Silent(""));
        assert!(refused || format!("{:?}", update.treat) == format!("{:?}", created.treat), "{}", update.name);
    }
}

/// dockerode sends parameters in the body too, where they are dropped: that is sound as long as no body has such a field.
#[test]
fn no_parameter_has_the_name_of_a_field_that_is_not_known() {
    for fact in facts().iter().filter(|fact| fact.kind == "body" && !fact.name.contains(['.', '[', '{', '-'])) {
        let Ok(target) = route::parse(&fact.method, &example(&fact.path)) else { continue };
        let Some(fields) = judge::body_fields(&fact.method, target.route.pattern()) else { continue };
        let known = fields.iter().any(|field| field.name == fact.name);
        let parameters = query::parameters(&fact.method, target.route.pattern());
        let same = parameters.iter().any(|(name, _)| json::fold(name) == json::fold(&fact.name));
        assert!(known || !same, "{}", fact.line);
    }
}

#[test]
fn every_parameter_that_is_known_is_one_of_the_api() {
    let facts = facts();
    let mut unknown = Vec::new();
    for endpoint in facts.iter().filter(|fact| fact.kind == "endpoint") {
        let Ok(target) = route::parse(&endpoint.method, &example(&endpoint.path)) else { continue };
        for (name, _) in query::parameters(&endpoint.method, target.route.pattern()) {
            let listed = facts.iter().any(|fact| {
                fact.kind == "query"
                    && fact.method == endpoint.method
                    && fact.path.trim_end_matches('/') == endpoint.path.trim_end_matches('/')
                    && fact.name == *name
            });
            let not_read = NOT_READ.iter().any(|(path, known, _)| *path == endpoint.path && known == name);
            if !listed && !not_read {
                unknown.push(format!("{} {} {name}", endpoint.method, endpoint.path));
            }
        }
    }
    assert!(unknown.is_empty(), "parameters that the API does not have:\n{}", unknown.join("\n"));
}
