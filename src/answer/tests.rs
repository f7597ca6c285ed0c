//! Answers recorded on real engines (20.10 and 29), with own, foreign and unowned objects in each.

use super::*;
use crate::owner::{OWNER_LABEL, Owner};
use crate::policy::{Glob, Policy};
use std::cell::RefCell;
use std::collections::{BTreeMap, VecDeque};
use std::path::PathBuf;
use std::pin::Pin;
use std::task::{Context, Poll};

/// A body that comes in these pieces.
struct Pieces(VecDeque<Result<Bytes, BodyError>>);

impl Pieces {
    fn of(bytes: &[u8], size: usize) -> Self {
        Self(bytes.chunks(size).map(|piece| Ok(Bytes::copy_from_slice(piece))).collect())
    }
}

impl HttpBody for Pieces {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<hyper::body::Frame<Bytes>, BodyError>>> {
        Poll::Ready(self.0.pop_front().map(|piece| piece.map(hyper::body::Frame::data)))
    }
}

/// An engine that answers from a recording.
struct Recorded {
    version: &'static str,
    removed: RefCell<Vec<String>>,
}

impl Recorded {
    fn of(version: &'static str) -> Rc<Self> {
        Rc::new(Self { version, removed: RefCell::default() })
    }

    fn list(&self, file: &str) -> Value {
        json::parse(&read(self.version, file)).expect("a recording")
    }

    /// The element of a list by its ID, a prefix of it, or a name.
    fn element(&self, list: &Value, reference: &str) -> Option<Value> {
        let names = |element: &Value| -> Vec<String> {
            let texts = |value: &Value| match value {
                Value::String(text) => vec![text.clone()],
                Value::Array(items) => items.iter().filter_map(Value::as_str).map(str::to_owned).collect(),
                _ => Vec::new(),
            };
            ["Id", "Name", "Names", "RepoTags"].iter().filter_map(|key| element.at(&[key])).flat_map(texts).collect()
        };
        let matches = |element: &&Value| {
            names(element).iter().any(|name| {
                name.trim_start_matches('/') == reference
                    || (reference.len() >= 12 && name.trim_start_matches("sha256:").starts_with(reference))
            })
        };
        list.as_array()?.iter().find(matches).cloned()
    }

    fn answer(&self, path: &str) -> Option<Value> {
        let path = route::percent_decode(path, false).expect("a path");
        let (path, _) = path.split_once('?').unwrap_or((&path, ""));
        let inspected = |element: Value, image: &str| {
            let field = |key| element.at(&[key]).cloned().unwrap_or(Value::Null);
            let config = Value::from([("Labels", field("Labels")), ("Image", field("Image"))]);
            let keys = ["Id", "RepoTags", "RepoDigests"].map(|key| (key, field(key)));
            let mut whole = Value::from(keys);
            if let Some(object) = whole.as_object_mut() {
                object.set("Config", config);
                object.set("Image", field(image));
            }
            whole
        };
        match path.split('/').collect::<Vec<_>>()[1..] {
            ["containers", "json"] => Some(self.list("containers.json")),
            ["images", "json"] => Some(self.list("images.json")),
            ["networks"] => Some(self.list("networks.json")),
            ["volumes"] => Some(self.list("volumes.json")),
            ["containers", id, "json"] => Some(inspected(self.element(&self.list("containers.json"), id)?, "ImageID")),
            ["images", id, "json"] => Some(inspected(self.element(&self.list("images.json"), id)?, "Id")),
            ["networks", id] => self.element(&self.list("networks.json"), id),
            ["volumes", name] => self.element(self.list("volumes.json").at(&["Volumes"])?, name),
            _ => None,
        }
    }
}

impl Upstream for Recorded {
    type Body = Pieces;

    async fn ask(&self, method: Method, path: &str) -> Result<Response<Pieces>, Refusal> {
        if method == Method::DELETE {
            self.removed.borrow_mut().push(path.to_owned());
        }
        let (status, body) = match self.answer(path) {
            Some(answer) => (200, answer.to_string()),
            None => (404, r#"{"message":"no such thing"}"#.to_owned()),
        };
        let mut response = Response::new(Pieces::of(body.as_bytes(), 1000));
        *response.status_mut() = hyper::StatusCode::from_u16(status).expect("a status");
        Ok(response)
    }
}

fn folder(version: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/answers").join(version)
}

fn read(version: &str, file: &str) -> Vec<u8> {
    std::fs::read(folder(version).join(file)).expect(file)
}

fn agent() -> Rc<Agent> {
    let policy = Policy { name: "test".to_owned(), ..Policy::default() };
    Rc::new(Agent { owner: Owner::new("me").expect("an owner"), policy: Rc::new(policy), caller: None })
}

fn viewer(upstream: &Rc<Recorded>) -> Viewer<Recorded> {
    Viewer { agent: agent(), upstream: Rc::clone(upstream), memory: Rc::new(Memory::default()) }
}

fn wait<F: Future>(future: F) -> F::Output {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().expect("a runtime");
    runtime.block_on(future)
}

/// What the agent sees of an answer that comes in pieces of this size.
async fn seen(shape: View, upstream: &Rc<Recorded>, answer: &[u8], size: usize) -> Result<String, String> {
    seen_by(&viewer(upstream), shape, answer, size).await
}

async fn seen_by(viewer: &Viewer<Recorded>, shape: View, answer: &[u8], size: usize) -> Result<String, String> {
    let response = Response::new(Pieces::of(answer, size));
    let shown = view(shape, viewer, Moment::now(), response).await.map_err(|refusal| refusal.message("test"))?;
    let bytes = upstream::collect(shown.into_body(), 1 << 20).await.map_err(|refusal| refusal.message("test"))?;
    Ok(String::from_utf8(bytes.into()).expect("text"))
}

const RECORDINGS: &[(&str, &str, View)] = &[
    ("20.10", "containers.json", View::ContainerList),
    ("20.10", "container.json", View::Container),
    ("20.10", "container-size.json", View::Container),
    ("20.10", "images.json", View::ImageList),
    ("20.10", "image-own.json", View::Image),
    ("20.10", "image-own1.json", View::Image),
    ("20.10", "image-shared.json", View::Image),
    ("20.10", "history-own.json", View::ImageHistory),
    ("20.10", "history-own1.json", View::ImageHistory),
    ("20.10", "history-shared.json", View::ImageHistory),
    ("20.10", "networks.json", View::NetworkList),
    ("20.10", "networks-1.27.json", View::NetworkList),
    ("20.10", "network-own.json", View::Network),
    ("20.10", "network-bridge.json", View::Network),
    ("20.10", "volumes.json", View::VolumeList),
    ("20.10", "volume-own.json", View::Volume),
    ("20.10", "df.json", View::DiskUsage),
    ("20.10", "info.json", View::Info),
    ("20.10", "events.jsonl", View::Events),
    ("29", "containers.json", View::ContainerList),
    ("29", "container.json", View::Container),
    ("29", "images.json", View::ImageList),
    ("29", "images-manifests.json", View::ImageList),
    ("29", "image-own.json", View::Image),
    ("29", "image-own1.json", View::Image),
    ("29", "history-own1.json", View::ImageHistory),
    ("29", "networks.json", View::NetworkList),
    ("29", "network-own.json", View::Network),
    ("29", "network-bridge.json", View::Network),
    ("29", "volumes.json", View::VolumeList),
    ("29", "volume-own.json", View::Volume),
    ("29", "df.json", View::DiskUsage),
    ("29", "df-1.41.json", View::DiskUsage),
    ("29", "df-verbose.json", View::DiskUsage),
    ("29", "df-type.json", View::DiskUsage),
    ("29", "info.json", View::Info),
    ("29", "events.jsonl", View::Events),
];

/// What is foreign or sockguard's own in a recording.
fn unseen(version: &str) -> Vec<String> {
    let mut all: Vec<String> = [
        "com.buildkite.sockguard",
        "theirs",
        "theirnet",
        "theirvol",
        "nobodys",
        "rootvol",
        "secret",
        "proxy:3128",
        "internal.example",
        "team=",
        "\"them\"",
    ]
    .map(str::to_owned)
    .into();
    for list in ["containers.json", "images.json", "networks.json"] {
        for element in json::parse(&read(version, list)).expect(list).as_array().expect(list) {
            let owner = element.at(&["Labels", crate::owner::OWNER_LABEL]).and_then(Value::as_str);
            let shared = ["RepoTags", "Driver"].iter().any(|key| element.at(&[key]).is_some());
            if owner == Some("them") || (owner.is_none() && !shared) {
                all.push(element.at(&["Id"]).and_then(Value::as_str).expect("an ID").to_owned());
            }
        }
    }
    all
}

#[test]
fn agents_see_what_is_theirs() {
    let mut problems = Vec::new();
    for (version, file, shape) in RECORDINGS {
        let shown = wait(seen(*shape, &Recorded::of(version), &read(version, file), 1 << 16)).expect(file);
        for text in unseen(version) {
            if shown.contains(&text) {
                problems.push(format!("{version}/{file} shows `{text}`"));
            }
        }
        for document in shown.lines() {
            if json::parse(document.as_bytes()).is_err() {
                problems.push(format!("{version}/{file} is no JSON"));
            }
        }
        let expected = folder(version).join("shown").join(file);
        if std::env::var_os("BLESS").is_some() {
            std::fs::create_dir_all(folder(version).join("shown")).expect("a folder");
            std::fs::write(&expected, &shown).expect("written");
        }
        if std::fs::read_to_string(&expected).unwrap_or_default() != shown {
            problems.push(format!("{version}/{file} is shown as\n{shown}"));
        }
    }
    assert!(problems.is_empty(), "{}", problems.join("\n"));
}

#[test]
fn an_answer_is_the_same_in_any_pieces() {
    for (version, file, shape) in RECORDINGS {
        let upstream = Recorded::of(version);
        let answer = read(version, file);
        let whole = wait(seen(*shape, &upstream, &answer, answer.len())).expect(file);
        for size in [1, 2, 3, 7, 61, 1021] {
            let shown = wait(seen(*shape, &upstream, &answer, size)).expect(file);
            assert!(shown == whole, "{version}/{file} in pieces of {size}");
        }
    }
}

#[test]
fn an_answer_that_is_cut_off_is_never_whole() {
    for (version, file, shape) in RECORDINGS {
        let upstream = Recorded::of(version);
        let answer = read(version, file);
        let end = answer.trim_ascii_end().len();
        for cut in [1, 2, 50, end / 2, end - 1] {
            let seen = wait(seen(*shape, &upstream, &answer[..end - cut], 97));
            assert!(seen.is_err(), "{version}/{file} without its last {cut} bytes is {seen:?}");
        }
    }
}

#[test]
fn what_belongs_to_nobody_else_is_passed_byte_for_byte() {
    // Without labels of sockguard's own there is nothing to change in own objects.
    let owner = br#""com.buildkite.sockguard.owner":"me""#;
    let seal = r#","com.buildkite.sockguard.seal":"cefd518be37ee4b002e3d3f158c478c9""#;
    for (version, file, shape, keep) in [
        ("20.10", "container-size.json", View::Container, true),
        ("29", "volume-own.json", View::Volume, false),
        ("20.10", "network-own.json", View::Network, true),
        ("29", "network-own.json", View::Network, true),
    ] {
        let answer = read(version, file);
        let shown = wait(seen(shape, &Recorded::of(version), &answer, 4096)).expect(file);
        let text = String::from_utf8(answer).expect("text").replace(seal, "");
        let owner = String::from_utf8_lossy(owner);
        let expected = if keep { text.replace(&*owner, "") } else { text.replace(&format!(",{owner}"), "") };
        assert_eq!(shown, expected, "{version}/{file}");
    }
}

#[test]
fn values_that_the_policy_redacts_are_not_shown() {
    for (version, file) in [("20.10", "container.json"), ("29", "container.json")] {
        let upstream = Recorded::of(version);
        let shown = |names: &str| {
            let mut policy = Policy::default();
            policy.container.redact_env.extend(Glob::try_from(names.to_owned()));
            let agent = Agent { owner: agent().owner.clone(), policy: Rc::new(policy), caller: None };
            let viewer = Viewer { agent: Rc::new(agent), ..viewer(&upstream) };
            wait(seen_by(&viewer, View::Container, &read(version, file), 4096)).expect(file)
        };
        let all = shown("NO_SUCH");
        let path = r#""PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin""#;
        assert!(all.contains(path), "{version}/{file}");
        assert_eq!(shown("P*H"), all.replace(path, r#""PATH=redacted""#), "{version}/{file}");
    }
}

#[test]
fn what_is_not_the_agents_after_all_does_not_exist() {
    for (file, shape, owner) in [
        ("container-size.json", View::Container, "No such container: "),
        ("network-own.json", View::Network, "network "),
        ("volume-own.json", View::Volume, "get myvol: no such volume"),
    ] {
        let answer = String::from_utf8(read("20.10", file)).expect("text");
        let foreign = answer.replace(r#"sockguard.owner":"me""#, r#"sockguard.owner":"you""#);
        let refused = wait(seen(shape, &Recorded::of("20.10"), foreign.as_bytes(), 4096)).expect_err(file);
        assert!(refused.starts_with(owner), "{refused}");
    }
}

#[test]
fn an_element_that_cannot_be_understood_is_left_out() {
    let list = br#"[{"Id":"a","Labels":[]},{"Id":"b","ImageID":"i","Labels":{"com.buildkite.sockguard.image":"i","com.buildkite.sockguard.owner":"me","com.buildkite.sockguard.seal":"cefd518be37ee4b002e3d3f158c478c9"}},{"Id":"c","Labels":{"com.buildkite.sockguard.owner":"me"}},7,{"Id"},{"Labels":{"com.buildkite.sockguard.owner":1}}]"#;
    let shown = wait(seen(View::ContainerList, &Recorded::of("20.10"), list, 4096));
    assert_eq!(shown.as_deref(), Ok("[{\"Id\":\"b\",\"ImageID\":\"i\",\"Labels\":{}}]\n"));
}

#[test]
fn a_container_of_another_image_than_the_judged_one_is_not_listed() {
    for version in ["20.10", "29"] {
        let list = String::from_utf8(read(version, "containers.json")).expect("text");
        let listed = |list: &str| {
            let shown = wait(seen(View::ContainerList, &Recorded::of(version), list.as_bytes(), 4096)).expect("a list");
            json::parse(shown.as_bytes()).expect("a list").as_array().map_or(0, <[Value]>::len)
        };
        let own = listed(&list);
        assert!(own > 0);
        let raced = list.replacen("sockguard.image\":\"sha256:", "sockguard.image\":\"sha256:0", 1);
        assert_eq!(listed(&raced), own - 1);
        // Whoever used it has looked at what it was made from.
        let viewer = viewer(&Recorded::of(version));
        for container in json::parse(list.as_bytes()).expect("a list").as_array().into_iter().flatten() {
            viewer.memory.container(Container { id: Id::new(text(container, &["Id"])), labels: BTreeMap::new() });
        }
        let shown = wait(seen_by(&viewer, View::ContainerList, raced.as_bytes(), 4096)).expect("a list");
        assert_eq!(json::parse(shown.as_bytes()).expect("a list").as_array().map_or(0, <[Value]>::len), own);
        // Without the label, what tells whose it is may be inherited from an image.
        assert_eq!(listed(&list.replacen("sockguard.image\"", "sockguard.other\"", 1)), own - 1);
    }
}

#[test]
fn an_element_that_is_too_large_does_not_break_the_others_lists() {
    let large = format!("{{\"Labels\":{{\"x\":\"{}\"}}}}", "\\b".repeat(9 << 19));
    let own = |name: &str| format!("{{\"Name\":\"{name}\",\"Labels\":{{\"com.buildkite.sockguard.owner\":\"me\"}}}}");
    let items = format!("[{},{large},{}]", own("a"), own("b"));
    let shown = r#"[{"Name":"a","Labels":{}},{"Name":"b","Labels":{}}]"#;
    for size in [1000, 65_536, usize::MAX] {
        for (shape, answer, shown) in [
            (View::NetworkList, items.clone(), format!("{shown}\n")),
            (
                View::VolumeList,
                format!("{{\"Volumes\":{items},\"Warnings\":[{large}]}}"),
                format!("{{\"Volumes\":{shown},\"Warnings\":null}}\n"),
            ),
            (View::DiskUsage, format!("{{\"Volumes\":{items}}}"), format!("{{\"Volumes\":{shown}}}\n")),
        ] {
            let seen = wait(seen(shape, &Recorded::of("20.10"), answer.as_bytes(), size));
            assert_eq!(seen.as_deref(), Ok(&*shown), "{size}");
        }
    }
}

#[test]
fn lists_keep_their_shape() {
    for (shape, answer, shown) in [
        (View::ContainerList, "[]\n", "[]\n"),
        (View::ContainerList, "null\n", "null\n"),
        (View::VolumeList, "{\"Volumes\":null,\"Warnings\":null}\n", "{\"Volumes\":null,\"Warnings\":null}\n"),
        (View::VolumeList, "{\"Volumes\":[],\"Warnings\":[\"x\"]}\n", "{\"Volumes\":[],\"Warnings\":null}\n"),
        (View::DiskUsage, "{\"LayersSize\":5,\"Images\":null,\"Later\":1}\n", "{\"Images\":null,\"LayersSize\":5}\n"),
        (
            View::DiskUsage,
            "{\"ImageUsage\":{\"TotalCount\":9},\"BuildCacheUsage\":{}}",
            "{\"ImageUsage\":{},\"BuildCacheUsage\":{}}\n",
        ),
        (
            View::DiskUsage,
            "{\"BuildCache\":[{\"ID\":\"x\"}],\"BuilderSize\":7}",
            "{\"BuildCache\":[],\"BuilderSize\":0}\n",
        ),
        (View::ImageHistory, "null\n", "null\n"),
        (View::Events, "", ""),
    ] {
        let seen = wait(seen(shape, &Recorded::of("20.10"), answer.as_bytes(), 4096));
        assert_eq!(seen.as_deref(), Ok(shown), "{answer}");
    }
    for (shape, answer) in [(View::ContainerList, "{}"), (View::ContainerList, "7 "), (View::DiskUsage, "[]")] {
        assert!(wait(seen(shape, &Recorded::of("20.10"), answer.as_bytes(), 4096)).is_err(), "{answer}");
    }
}

/// The ID of a container of the recording.
fn container(version: &'static str, name: &str) -> String {
    let upstream = Recorded::of(version);
    let found = upstream.element(&upstream.list("containers.json"), name).expect(name);
    found.at(&["Id"]).and_then(Value::as_str).expect("an ID").to_owned()
}

#[test]
fn error_messages_tell_nothing_of_others() {
    let own = container("20.10", "one");
    let foreign = container("20.10", "theirs");
    let (own12, foreign12) = (&own[..12], &foreign[..12]);
    let endpoint = "0".repeat(64);
    for (message, shown) in [
        (format!("No such container: {foreign}"), format!("No such container: {foreign}")),
        (
            format!("Conflict. The container name \"/one\" is already in use by container \"{own}\". You have to remove"),
            format!("Conflict. The container name \"/one\" is already in use by container \"{own}\". You have to remove"),
        ),
        (
            format!("Conflict. The container name \"/theirs\" is already in use by container \"{foreign}\". You have to remove"),
            "Conflict. The container name \"/theirs\" is already in use. You have to remove".to_owned(),
        ),
        (format!("container {foreign12} is using its image"), "container … is using its image".to_owned()),
        (format!("container {own12} is using its image"), format!("container {own12} is using its image")),
        (format!("in use - [{own}, {foreign}]"), format!("in use - [{own}, …]")),
        (format!("image sha256:{endpoint} is there"), "image … is there".to_owned()),
        (format!("on endpoint one ({endpoint}): taken"), format!("on endpoint one ({endpoint}): taken")),
        (format!("on endpoint theirs ({endpoint}): taken"), "on endpoint … (…): taken".to_owned()),
        ("endpoints (name:\"one\" id:\"02de189cc51f\")".to_owned(), "endpoints (name:\"one\" id:\"02de189cc51f\")".to_owned()),
        ("endpoints (name:\"theirs\" id:\"02de189cc51f\")".to_owned(), "endpoints (name:\"…\" id:\"…\")".to_owned()),
        (
            "cannot access path /var/lib/docker/volumes/rootvol/_data/a/b: lstat /var/lib/docker/volumes/rootvol/_data/a: no"
                .to_owned(),
            "cannot access path /builds/a/b: lstat /builds/a: no".to_owned(),
        ),
        ("lstat /var/lib/docker/volumes/rootvol/outside: no".to_owned(), "lstat …/outside: no".to_owned()),
        (
            "base: /var/lib/docker/volumes/theirvol/_data, subpath: x".to_owned(),
            "base: …, subpath: x".to_owned(),
        ),
        ("'/var/lib/docker/volumes/theirvol/_data/x y'".to_owned(), "'… y'".to_owned()),
        (
            "path /var/lib/docker/volumes/myvol/_data/x".to_owned(),
            "path /var/lib/docker/volumes/myvol/_data/x".to_owned(),
        ),
        ("bind source path does not exist: /my/volumes/x".to_owned(), "bind source path does not exist: /my/volumes/x".to_owned()),
    ] {
        let body = Value::from([("message", Value::from(message.as_str()))]).to_string();
        let mut response = Response::new(Pieces::of(body.as_bytes(), 10));
        *response.status_mut() = hyper::StatusCode::CONFLICT;
        let answer = wait(async {
            let answer = error(&viewer(&Recorded::of("20.10")), response).await;
            upstream::collect(answer.into_body(), 1 << 20).await.expect("a body")
        });
        let answer = json::parse(&answer).expect("JSON");
        assert_eq!(answer.at(&["message"]).and_then(Value::as_str), Some(&*shown), "{message}");
    }
}

#[test]
fn an_error_message_is_bounded() {
    let response = Response::new(Pieces::of(&[b'x'; 70_000], 1000));
    let answer = wait(async {
        let answer = error(&viewer(&Recorded::of("20.10")), response).await;
        upstream::collect(answer.into_body(), 1 << 20).await.expect("a body")
    });
    assert_eq!(&answer[..], b"{\"message\":\"sockguard: the engine's error message is too long\"}\n");
}

#[test]
fn a_new_container_is_what_was_judged() {
    let upstream = Recorded::of("20.10");
    let id = container("20.10", "one");
    let made = upstream.element(&upstream.list("containers.json"), "one").expect("one");
    let image = Id::new(made.at(&["ImageID"]).and_then(Value::as_str).expect("an ID"));
    let other = Id::new("sha256:0");
    let warnings = ["\"no\"".to_owned()];
    let none: &[String] = &[];
    let seen = |image: &Id, volumes: &[&str]| {
        let volumes = volumes.iter().map(|name| (*name).to_owned()).collect();
        Some(SeenAgain { image: image.clone(), volumes })
    };
    let create = |answer: &str, warnings: &[String], judged: Option<SeenAgain>| {
        let response = Response::new(Pieces::of(answer.as_bytes(), 10));
        wait(async {
            let (response, container) =
                created(&viewer(&upstream), Moment::now(), response, warnings, judged.as_ref()).await?;
            let body = upstream::collect(response.into_body(), 1 << 20).await?;
            Ok::<_, Refusal>((String::from_utf8(body.into()).expect("text"), container))
        })
    };
    let answer = format!("{{\"Id\":\"{id}\",\"Warnings\":[\"a\"]}}\n");
    let (shown, container) = create(&answer, none, seen(&image, &["myvol"])).expect("made");
    assert_eq!(shown, answer);
    let container = container.expect("a container");
    assert_eq!(container.id.as_str(), id);
    assert_eq!(container.labels.get(OWNER_LABEL).map(String::as_str), Some("me"));
    // Of the client's own labels none is remembered.
    assert_eq!(container.labels.get("a"), None);
    let (shown, _) = create(&answer, &warnings, seen(&image, &[])).expect("made");
    assert_eq!(shown, format!("{{\"Id\":\"{id}\",\"Warnings\":[\"a\",\"\\\"no\\\"\"]}}\n"));
    let null = answer.replace("[\"a\"]", "null");
    // What mounts nothing is not looked at before it is used.
    let (shown, container) = create(&null, &warnings, None).expect("made");
    assert_eq!(container, None);
    assert_eq!(shown, format!("{{\"Id\":\"{id}\",\"Warnings\":[\"\\\"no\\\"\"]}}\n"));
    assert!(upstream.removed.borrow().is_empty());

    let refused = create(&answer, none, seen(&other, &[]));
    assert_eq!(refused, Err(Refusal::absent("No such image: mine:2")));
    assert_eq!(upstream.removed.take(), [format!("/containers/{id}?force=1&v=1")]);
    let refused = create(&answer, none, seen(&image, &["theirvol"]));
    assert!(matches!(refused, Err(Refusal::NotAllowed { .. })), "{refused:?}");
    assert_eq!(upstream.removed.take(), [format!("/containers/{id}?force=1&v=1")]);
}

#[test]
fn events_go_on_one_by_one() {
    let answer = read("29", "events.jsonl");
    let text = String::from_utf8(answer).expect("text");
    // A sequence keeps its separators.
    let sequence: String = text.lines().map(|event| format!("\u{1e}{event}\n")).collect();
    let mut response = Response::new(Pieces::of(sequence.as_bytes(), 333));
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json-seq"));
    let shown = wait(async {
        let shown = view(View::Events, &viewer(&Recorded::of("29")), Moment::now(), response).await.expect("events");
        upstream::collect(shown.into_body(), 1 << 20).await.expect("events")
    });
    let plain = wait(seen(View::Events, &Recorded::of("29"), text.as_bytes(), 4096)).expect("events");
    let expected: String = plain.lines().map(|event| format!("\u{1e}{event}\n")).collect();
    assert_eq!(String::from_utf8_lossy(&shown), expected);
    assert!(!plain.is_empty());
}

/// What a viewer sees of events that are told as `TYPE ACTION ID TIME CONTAINER`.
fn events(viewer: &Viewer<Recorded>, told: &[(&str, &str, &str, i64, &str)]) -> Vec<String> {
    let mut stream = String::new();
    for (kind, action, id, time, container) in told {
        let attributes = match *container {
            "" => Value::from([("driver", Value::from("local"))]),
            container => Value::from([("container", Value::from(container))]),
        };
        let actor = Value::from([("ID", Value::from(*id)), ("Attributes", attributes)]);
        let head = [("Type", *kind), ("Action", *action)].map(|(key, text)| (key, Value::from(text)));
        let mut event = Value::from(head);
        if let Some(event) = event.as_object_mut() {
            event.set("Actor", actor);
        }
        stream.push_str(&event.to_string().replace("{\"Type\"", &format!("{{\"timeNano\":{time},\"Type\"")));
        stream.push('\n');
    }
    let shown = wait(async {
        let response = Response::new(Pieces::of(stream.as_bytes(), 100));
        let shown = view(View::Events, viewer, Moment::now(), response).await.expect("events");
        upstream::collect(shown.into_body(), 1 << 20).await.expect("events")
    });
    let shown = String::from_utf8_lossy(&shown).into_owned();
    let text = |event: &Value, path: &[&str]| event.at(path).and_then(Value::as_str).unwrap_or_default().to_owned();
    let lines = shown.lines().map(|line| json::parse(line.as_bytes()).expect("an event"));
    lines.map(|event| format!("{} {}", text(&event, &["Action"]), text(&event, &["Actor", "ID"]))).collect()
}

#[test]
fn events_of_what_is_gone_are_shown_to_its_owner() {
    let viewer = viewer(&Recorded::of("20.10"));
    let (network, foreign) = ("1".repeat(64), "2".repeat(64));
    viewer.memory.known.network(&network);
    viewer.memory.known.container("c");
    viewer.memory.known.volume("v", Moment::from_nanos(10));
    viewer.memory.known.volume_went("v", Moment::from_nanos(13));
    let told = [
        ("network", "create", &*network, 1, ""),
        ("network", "create", &*foreign, 2, ""),
        ("network", "connect", &*network, 3, "c"),
        ("network", "connect", &*network, 4, "theirs"),
        ("network", "connect", &*foreign, 5, "theirs"),
        ("network", "destroy", &*network, 6, ""),
        ("network", "destroy", &*foreign, 7, ""),
        // Before and after the agent's, the name is somebody else's.
        ("volume", "destroy", "v", 9, ""),
        ("volume", "create", "v", 10, ""),
        ("volume", "mount", "v", 11, "c"),
        ("volume", "mount", "v", 12, "theirs"),
        ("volume", "mount", "sockguard-root-1", 12, "c"),
        ("volume", "mount", "rootvol", 12, "c"),
        ("volume", "destroy", "v", 13, ""),
        ("volume", "create", "v", 14, ""),
        ("volume", "mount", "v", 15, "theirs"),
        ("volume", "destroy", "v", 16, ""),
        // The agent's, but it is not known that it was at this moment.
        ("volume", "create", "myvol", 17, ""),
        ("volume", "create", "theirvol", 17, ""),
    ];
    let own = [0, 2, 5, 8, 9, 13].map(|i| format!("{} {}", told[i].1, told[i].2));
    assert_eq!(events(&viewer, &told), own);
    let only_later = [told[14], told[15], told[16]];
    assert!(events(&viewer, &only_later).is_empty());
}

#[test]
fn events_of_new_volumes_are_those_of_now() {
    let viewer = viewer(&Recorded::of("20.10"));
    let now = i64::MAX / 2;
    let told = [("volume", "create", "myvol", now, ""), ("volume", "create", "theirvol", now, "")];
    assert_eq!(events(&viewer, &told), ["create myvol"]);
}

#[test]
fn new_networks_and_volumes_are_remembered() {
    let viewer = viewer(&Recorded::of("20.10"));
    let show = |shape, answer: &str| {
        wait(async {
            let response = Response::new(Pieces::of(answer.as_bytes(), 20));
            let shown = view(shape, &viewer, Moment::from_nanos(5), response).await?;
            let body = upstream::collect(shown.into_body(), 1 << 20).await?;
            Ok::<_, Refusal>(String::from_utf8(body.into()).expect("text"))
        })
    };
    let list = Recorded::of("20.10").list("networks.json");
    let id = |name: &str| {
        let found = Recorded::of("20.10").element(&list, name).expect(name);
        found.at(&["Id"]).and_then(Value::as_str).expect("an ID").to_owned()
    };
    let (own, foreign, new) = (id("mynet"), id("theirnet"), "3".repeat(64));
    let answer = |warning: &str| format!("{{\"Id\":\"{new}\",\"Warning\":\"{warning}\"}}\n");
    let same_name = |id: &str| format!("Network with name n (id : {id}) already exists");
    for (warning, told) in [
        (String::new(), true),
        ("no addresses are left".to_owned(), true),
        (same_name(&own), true),
        (same_name(&new), true),
        (same_name(&foreign), false),
        (same_name(&"4".repeat(64)), false),
        (same_name(&foreign[..12]), false),
    ] {
        let shown = show(View::NetworkCreated, &answer(&warning)).expect("an answer");
        assert_eq!(shown, answer(if told { &warning } else { "" }));
    }
    assert!(viewer.memory.known.has_network(&new));
    let volume = read("20.10", "volume-own.json");
    let volume = String::from_utf8_lossy(&volume);
    assert!(!viewer.memory.known.had_volume("myvol", Moment::now()));
    show(View::VolumeCreated, &volume).expect("an answer");
    assert!(viewer.memory.known.had_volume("myvol", Moment::now()));
    assert!(!viewer.memory.known.had_volume("myvol", Moment::from_nanos(4)));
}

#[test]
fn an_image_that_the_owner_brought_is_shown_whoever_built_it() {
    let viewer = viewer(&Recorded::of("20.10"));
    let list = br#"[{"Id":"sha256:0","Labels":{"com.buildkite.sockguard.owner":"them"},"RepoTags":["app:1"]}]"#;
    let show = || {
        wait(async {
            let response = Response::new(Pieces::of(list, 20));
            let shown = view(View::ImageList, &viewer, Moment::now(), response).await?;
            upstream::collect(shown.into_body(), 1 << 20).await
        })
    };
    assert_eq!(&show().expect("a list")[..], b"[]\n");
    viewer.memory.brought(Id::new("sha256:0"));
    assert_eq!(&show().expect("a list")[..], b"[{\"Id\":\"sha256:0\",\"Labels\":{},\"RepoTags\":[\"app:1\"]}]\n");
}
