//! The `World` of production: facts asked of the engine and of the host's file system, and the little that is
//! remembered between requests. Nothing remembered matters: forgetting it costs a look-up, or makes an image shared.

use crate::answer::scan::{self, Broken};
use crate::answer::{self, Fields, Objects, known::Known, room::Room};
use crate::body::{Allowance, Body};
use crate::engine::Engine;
use crate::json::{self, Object, Value};
use crate::judge::labels::reserved;
use crate::judge::{Agent, ports};
use crate::owner::{
    AGENT_LABEL, BINDS_LABEL, BRIDGE_LABEL, IMAGE_LABEL, LABEL_PREFIX, OWNER_LABEL, Owner, PAUSED_BY_LABEL,
    PAUSED_LABEL, ROOT_LABEL, SEAL_LABEL, Standing,
};
use crate::place::{self, Place};
use crate::query::{Filters, Param, Query};
use crate::quota::Quotas;
use crate::reference::{self, Reference};
use crate::refusal::Refusal;
use crate::registry;
use crate::route::percent_encode;
use crate::world::{Container, Id, Image, Network, PathFact, Sockets, Volume, World};
use bytes::Bytes;
use http_body_util::BodyExt;
use hyper::body::Incoming;
use hyper::{Method, StatusCode};
use rustix::fs::{Mode, OFlags, ResolveFlags};
use rustix::io::Errno;
use std::borrow::Cow;
use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::os::fd::OwnedFd;
use std::path::Path;
use std::rc::Rc;

/// So many facts of each kind are remembered; then they are forgotten all at once.
const REMEMBERED: usize = 10_000;

/// The labels of one container are remembered up to this length.
const REMEMBERED_LABELS: usize = 1 << 10;

/// What is remembered: facts about full IDs, which never change.
#[derive(Debug, Default)]
pub struct Memory {
    containers: RefCell<HashMap<Id, Container>>,
    execs: RefCell<HashMap<String, Id>>,
    brought: RefCell<HashSet<Id>>,
    pulled: RefCell<HashSet<Id>>,
    gave: RefCell<HashMap<Reference, Id>>,
    /// What the owner's requests have in common for its quotas.
    pub quotas: Quotas,
    /// What is known of the owner's objects, for events.
    pub known: Known,
    /// What the owner may take of the memory for large bodies.
    pub allowance: Allowance,
    /// What the owner's connections have for large parts of answers.
    pub room: Room,
    /// Held while the owner's bridge is made, so that requests that come at once make one.
    pub bridge: tokio::sync::Mutex<()>,
    /// Where sockguard runs, once the engine was there to be asked.
    place: tokio::sync::OnceCell<Place>,
}

/// What is remembered for each owner: the same, whichever socket its agents use, so that all of them wait for each other
/// where they have to.
#[derive(Debug, Default)]
pub struct Memories(RefCell<HashMap<Owner, Rc<Memory>>>);

impl Memories {
    /// What is remembered for this owner. When there are very many, those that nobody uses are forgotten.
    pub fn of(&self, owner: &Owner) -> Rc<Memory> {
        let mut memories = self.0.borrow_mut();
        if memories.len() >= REMEMBERED {
            memories.retain(|_, memory| Rc::strong_count(memory) > 1);
        }
        Rc::clone(memories.entry(owner.clone()).or_default())
    }
}

/// Facts for one agent.
#[derive(Debug)]
pub struct Lookup {
    /// The engine.
    pub engine: Rc<Engine>,
    /// Who asks.
    pub agent: Rc<Agent>,
    /// What is remembered.
    pub memory: Rc<Memory>,
    /// The sockets that a bind may name.
    pub sockets: Sockets,
}

impl Memory {
    /// Remembers a container.
    pub fn container(&self, mut container: Container) {
        // Judgements ask for sockguard's own labels only. Who writes a book into one is asked about again.
        container.labels.retain(|key, _| key.starts_with(LABEL_PREFIX));
        if container.labels.values().map(String::len).sum::<usize>() > REMEMBERED_LABELS {
            return;
        }
        let mut known = self.containers.borrow_mut();
        if known.len() >= REMEMBERED {
            known.clear();
        }
        known.insert(container.id.clone(), container);
    }

    /// Is this the ID of a container that was looked up before? (Own ones only are.)
    pub fn knows(&self, id: &str) -> bool {
        self.containers.borrow().contains_key(&Id::new(id))
    }

    /// Remembers which container an exec runs in.
    pub fn exec(&self, id: &str, container: Id) {
        let mut known = self.execs.borrow_mut();
        if known.len() >= REMEMBERED {
            known.clear();
        }
        known.insert(id.to_owned(), container);
    }

    /// Remembers that the owner brought an image.
    pub fn brought(&self, image: Id) {
        let mut known = self.brought.borrow_mut();
        if known.len() < REMEMBERED {
            known.insert(image);
        }
    }

    /// Remembers that the owner pulled an image that is here as another's.
    pub fn pulled(&self, image: Id) {
        let mut known = self.pulled.borrow_mut();
        if known.len() < REMEMBERED {
            known.insert(image);
        }
    }

    /// Did the owner bring, or pull, the image of this ID?
    pub fn got(&self, id: &str) -> bool {
        let id = Id::new(id);
        self.brought.borrow().contains(&id) || self.pulled.borrow().contains(&id)
    }

    /// Remembers that the owner gave an image this name.
    pub fn gave(&self, name: Reference, image: Id) {
        let mut known = self.gave.borrow_mut();
        if known.len() < REMEMBERED {
            known.insert(name, image);
        }
    }

    /// Did the owner give this image the name by which it is asked for?
    fn named(&self, reference: &str, image: &Id) -> bool {
        let name = Reference::parse(reference).map(Reference::or_latest);
        name.is_ok_and(|name| self.gave.borrow().get(&name) == Some(image))
    }
}

impl Lookup {
    /// Where sockguard runs.
    ///
    /// # Errors
    /// When the engine has to be asked and cannot be.
    pub async fn place(&self) -> Result<&Place, Refusal> {
        self.memory.place.get_or_try_init(|| place::find(&self.engine)).await
    }

    /// Is the directory at this path the one that the engine's host has there?
    pub async fn sees(&self, root: &Path) -> bool {
        match self.place().await {
            Ok(place) => place.sees(root, self.engine.socket()).await,
            Err(_) => false,
        }
    }

    /// These fields of the object that the engine has at a path; nothing where it has none.
    async fn get(&self, path: &str, fields: Fields) -> Result<Option<Value>, Refusal> {
        let (status, found) = answer::one(&*self.engine, path, fields).await?;
        answered(status, found, message)
    }

    /// All of it, as the engine encoded it.
    async fn document(&self, path: &str) -> Result<Option<Bytes>, Refusal> {
        let (status, found) = self.engine.get(path).await?;
        answered(status, found, |error| message(&json::parse(error).unwrap_or(Value::Null)))
    }

    /// May a container be made from the image of this ID, though another was judged? What this one brings along nobody has
    /// looked at: labels that are blanked otherwise, volumes that would belong to nobody, ports. It must be none of that.
    async fn usable(&self, image: &str) -> Result<bool, Refusal> {
        let found = self.image(image).await?;
        let usable = |found: Image| {
            let marks = |(key, value): (&String, &String)| reserved(key) && key != OWNER_LABEL && !value.is_empty();
            found.id.as_str() == image
                && found.standing(&self.agent.owner) != Standing::Foreign
                && !found.labels.iter().any(marks)
                && found.volumes.is_empty()
                && ports::judge_exposed(&Object::new(), &found).is_ok()
        };
        Ok(found.is_some_and(usable))
    }

    /// The IDs of all images.
    ///
    /// # Errors
    /// When the engine cannot be asked.
    pub async fn image_ids(&self) -> Result<BTreeSet<Id>, Refusal> {
        answer::all_images(&self.engine).await
    }

    /// The digests of an image's layers.
    ///
    /// # Errors
    /// When the engine cannot be asked.
    pub async fn layers(&self, image: &str) -> Result<Option<Vec<String>>, Refusal> {
        let found = self.get(&format!("/images/{}/json", encoded(image)), &[&["RootFS", "Layers"]]).await?;
        Ok(found.map(|found| strings(found.at(&["RootFS", "Layers"]))))
    }

    /// Remembers the image that a pull under a free name brought; these were `known` before. The name alone does not
    /// tell: it may be another's image's by now, so it counts only if it is what the pull says it is.
    ///
    /// # Errors
    /// When the engine cannot be asked.
    pub async fn remember_pull(&self, name: &Reference, pulled: &Pulled, known: &BTreeSet<Id>) -> Result<(), Refusal> {
        let Pulled { digest: Some(digest), done: true, error: None } = pulled else { return Ok(()) };
        let Some(image) = self.image(&name.to_string()).await? else { return Ok(()) };
        if !image.is_in_registry(&name.clone().with_digest(digest)) {
            return Ok(());
        }
        if image.anothers(&self.agent.owner) {
            // It may be used by whoever could pull it. Only the name is this owner's.
            self.memory.pulled(image.id.clone());
            self.memory.gave(name.clone().or_latest(), image.id.clone());
        }
        if !known.contains(&image.id) {
            self.memory.brought(image.id);
        }
        Ok(())
    }

    /// Reads these fields of the engine's objects that carry this owner's label: of all of them, or an error.
    ///
    /// # Errors
    /// When the engine cannot be asked, or its answer cannot be understood.
    pub async fn owned(
        &self,
        path: &str,
        owner: &Owner,
        more: &[(&str, &str)],
        fields: Fields,
        mut read: impl FnMut(Value),
    ) -> Result<(), Refusal> {
        let path = with_label(path, owner, more);
        answer::each(&*self.engine, &path, Objects::Listed, fields, |object| {
            read(object.fields());
            Ok(())
        })
        .await
    }

    /// The limits in the `HostConfig` of a container; nothing where the engine has none of this ID.
    ///
    /// # Errors
    /// When the engine cannot be asked.
    pub async fn limits(&self, id: &Id) -> Result<Option<Object>, Refusal> {
        const LIMITS: Fields = &[
            &["HostConfig", "Memory"],
            &["HostConfig", "NanoCpus"],
            &["HostConfig", "CpuPeriod"],
            &["HostConfig", "CpuQuota"],
            &["HostConfig", "PidsLimit"],
        ];
        match self.get(&format!("/containers/{id}/json"), LIMITS).await? {
            Some(Value::Object(mut container)) => match container.remove("HostConfig") {
                Some(Value::Object(host)) => Ok(Some(host)),
                _ => Ok(Some(Object::new())),
            },
            _ => Ok(None),
        }
    }
}

/// What the engine answered about an object; nothing where it has none.
fn answered<T>(status: StatusCode, found: T, said: impl Fn(&T) -> String) -> Result<Option<T>, Refusal> {
    match status {
        StatusCode::OK => Ok(Some(found)),
        StatusCode::NOT_FOUND => Ok(None),
        // Such as "Multiple IDs found with provided prefix": the engine's own words, for its own status.
        StatusCode::BAD_REQUEST => Err(Refusal::Rejected { message: said(&found) }),
        status => Err(Refusal::Engine { message: format!("the engine answered {status}: {}", said(&found)) }),
    }
}

/// The list at this path, of what carries this owner's label.
fn with_label(path: &str, owner: &Owner, more: &[(&str, &str)]) -> String {
    let mut filters = Filters::default();
    filters.add("label", format!("{OWNER_LABEL}={owner}"));
    for (key, value) in more {
        filters.add(key, *value);
    }
    format!("{path}?{}", Query::of([("filters", Param::Filters(filters))]).encode())
}

/// The text of the engine's error answer.
pub fn message(answer: &Value) -> String {
    answer.at(&["message"]).and_then(Value::as_str).unwrap_or("no message").to_owned()
}

/// What the progress of a pull tells.
#[derive(Debug, Default, PartialEq)]
pub struct Pulled {
    digest: Option<String>,
    done: bool,
    error: Option<String>,
}

impl Pulled {
    /// Reads a line.
    pub fn read(&mut self, line: &[u8]) {
        let Ok(document) = json::parse(line.trim_ascii()) else { return };
        let text = document.at(&["error"]).or_else(|| document.at(&["message"])).and_then(Value::as_str);
        self.error = text.map(str::to_owned).or(self.error.take());
        let status = document.at(&["status"]).and_then(Value::as_str).unwrap_or_default();
        if let Some(digest) = status.strip_prefix("Digest: ").filter(|digest| reference::is_digest(digest)) {
            self.digest = Some(digest.to_owned());
        }
        // Which of the two it is does not tell whether the image is new.
        let done = ["Status: Downloaded newer image for ", "Status: Image is up to date for "];
        self.done |= done.iter().any(|words| status.starts_with(words));
    }
}

/// Reads the progress of a pull to its end.
async fn progress(mut body: Incoming) -> Result<Pulled, Refusal> {
    /// A line is cut here; progress is much shorter.
    const LINE: usize = 64 << 10;
    let cut = |e: hyper::Error| Refusal::Engine { message: format!("the engine's answer was cut short: {e}") };
    let (mut line, mut pulled) = (Vec::new(), Pulled::default());
    let mut read = |line: &mut Vec<u8>| {
        pulled.read(line);
        line.clear();
    };
    while let Some(frame) = body.frame().await {
        for byte in frame.map_err(cut)?.into_data().unwrap_or_default() {
            if byte == b'\n' {
                read(&mut line);
            } else if line.len() < LINE {
                line.push(byte);
            }
        }
    }
    read(&mut line);
    Ok(pulled)
}

fn encoded(reference: &str) -> String {
    let mut out = String::new();
    percent_encode(reference, "/:@", &mut out);
    out
}

fn labels(value: Option<&Value>) -> BTreeMap<String, String> {
    let members = value.and_then(Value::as_object).into_iter().flat_map(Object::iter);
    members.filter_map(|(key, value)| Some((key.to_owned(), value.as_str()?.to_owned()))).collect()
}

fn strings(value: Option<&Value>) -> Vec<String> {
    let items = value.and_then(Value::as_array).unwrap_or_default();
    items.iter().filter_map(Value::as_str).map(str::to_owned).collect()
}

/// The text at a path of a document; empty where there is none.
pub fn text(value: &Value, path: &[&str]) -> String {
    value.at(path).and_then(Value::as_str).unwrap_or_default().to_owned()
}

/// What the engine's inspection says of an image, and how many tags it has.
fn image(document: &[u8]) -> Result<(Image, usize), Broken> {
    let some = |value: &[u8]| !scan::is_null(value);
    let texts = |value| -> Result<Vec<String>, Broken> {
        let items = if some(value) { scan::items(value) } else { scan::items(b"[]") };
        items.filter_map(|item| item.map(|item| scan::text(item.value).map(Cow::into_owned)).transpose()).collect()
    };
    let names = |value| -> Result<Vec<String>, Broken> {
        let mut names = texts(value)?;
        names.retain(|name| !name.contains("<none>"));
        Ok(names)
    };
    let mut image = Image::of(Id::new(""));
    let (mut tags, mut config, mut os, mut architecture) = (0, &b"null"[..], Cow::default(), Cow::default());
    for member in scan::members(document) {
        let scan::Member { key, value, .. } = member?;
        match key {
            b"Id" => image.id = Id::new(scan::text(value).unwrap_or_default()),
            b"RepoTags" => tags = names(value)?.len(),
            b"RepoDigests" => {
                image.digests = names(value)?;
                image.tagged = !image.digests.is_empty();
            }
            b"Config" => config = value,
            b"Os" => os = scan::text(value).unwrap_or_default(),
            b"Architecture" => architecture = scan::text(value).unwrap_or_default(),
            _ => {}
        }
    }
    image.tagged |= tags > 0;
    image.platform = format!("{os}/{architecture}");
    if !some(config) {
        return Ok((image, tags));
    }
    for member in scan::members(config) {
        let scan::Member { key, value, .. } = member?;
        match key {
            b"Labels" if some(value) => {
                for label in scan::members(value) {
                    let label = label?;
                    let text = Broken("a label is no text");
                    let (key, value) = (scan::decoded(label.key).ok_or(text)?, scan::text(label.value).ok_or(text)?);
                    image.labels.insert(key.into_owned(), value.into_owned());
                }
            }
            b"Volumes" if some(value) => {
                for volume in scan::members(value) {
                    let path = scan::decoded(volume?.key).ok_or(Broken("a volume's path is no text"))?;
                    image.volumes.push(path.into_owned());
                }
            }
            b"ExposedPorts" if some(value) => {
                for port in scan::members(value) {
                    let port = scan::decoded(port?.key).ok_or(Broken("a port is no text"))?;
                    image.exposes = image.exposes.saturating_add(ports::number(&port));
                }
            }
            b"OnBuild" => image.on_build = texts(value)?,
            b"Env" => image.env = texts(value)?,
            _ => {}
        }
    }
    Ok((image, tags))
}

fn network(value: &Value) -> Network {
    Network { id: Id::new(text(value, &["Id"])), name: text(value, &["Name"]), labels: labels(value.at(&["Labels"])) }
}

impl World for Lookup {
    async fn container(&self, reference: &str) -> Result<Option<Container>, Refusal> {
        if reference.len() == 64
            && let Some(known) = self.memory.containers.borrow().get(&Id::new(reference))
        {
            return Ok(Some(known.clone()));
        }
        const FIELDS: Fields = &[
            &["Id"],
            &["Image"],
            &["Config", "Labels", OWNER_LABEL],
            &["Config", "Labels", SEAL_LABEL],
            &["Config", "Labels", IMAGE_LABEL],
            &["Config", "Labels", AGENT_LABEL],
            &["Config", "Labels", BINDS_LABEL],
        ];
        let found = self.get(&format!("/containers/{}/json", encoded(reference)), FIELDS).await?;
        let Some(found) = found else { return Ok(None) };
        let mut container =
            Container { id: Id::new(text(&found, &["Id"])), labels: labels(found.at(&["Config", "Labels"])) };
        if container.standing(&self.agent.owner) == Standing::Own {
            let image = text(&found, &["Image"]);
            // Names may be given anew while a container is made. What it was made from instead may be as good.
            let judged = container.labels.get(IMAGE_LABEL) == Some(&image) || self.usable(&image).await?;
            match judged {
                true => self.memory.container(container.clone()),
                // What it inherits proves nothing.
                false => container.labels.retain(|key, _| !key.starts_with(LABEL_PREFIX)),
            }
        }
        Ok(Some(container))
    }

    async fn image(&self, reference: &str) -> Result<Option<Image>, Refusal> {
        let path = format!("/images/{}/json", encoded(reference));
        let Some(document) = self.document(&path).await? else { return Ok(None) };
        let (mut image, tags) = image(&document)?;
        // A name that the owner gave it is the owner's to take away, as long as that leaves it another.
        let named = self.memory.named(reference, &image.id);
        let spare = named && tags > 1;
        // One that another built elsewhere may come to be another's here as well: then only the names that the owner
        // gave it are the owner's.
        let mine = named || image.labels.get(OWNER_LABEL).is_none_or(|owner| owner == self.agent.owner.as_str());
        image.brought = spare || (mine && self.memory.brought.borrow().contains(&image.id));
        image.pulled = self.memory.pulled.borrow().contains(&image.id);
        Ok(Some(image))
    }

    async fn pull(
        &self,
        reference: &Reference,
        platform: Option<&str>,
        credentials: Option<&str>,
    ) -> Result<(), Refusal> {
        let known = match self.image(&reference.to_string()).await? {
            Some(_) => None,
            None => Some(self.image_ids().await?),
        };
        let mut query = Query::of([
            ("fromImage", Param::Text(reference.full_name())),
            ("tag", Param::Text(reference.digest().or(reference.tag()).unwrap_or("latest").to_owned())),
        ]);
        if let Some(platform) = platform {
            query.set("platform", Param::Text(platform.to_owned()));
        }
        let path = format!("/images/create?{}", query.encode());
        let request = self.engine.request(Method::POST, &path, Body::Empty);
        let mut request = request.map_err(|_| Refusal::malformed(format!("`{reference}` cannot be pulled")))?;
        if let Some(auth) = credentials.and_then(|config| registry::auth(config, reference))
            && let Ok(auth) = auth.try_into()
        {
            request.headers_mut().insert(registry::AUTH, auth);
        }
        let response = self.engine.send(request).await?;
        let status = response.status();
        let pulled = progress(response.into_body()).await?;
        if let Some(error) = pulled.error {
            return Err(Refusal::absent(error));
        }
        if !status.is_success() {
            return Err(Refusal::absent(format!("pulling {reference} failed: the engine answered {status}")));
        }
        match known {
            Some(known) => self.remember_pull(reference, &pulled, &known).await,
            None => Ok(()),
        }
    }

    async fn registry_digest(&self, name: &Reference, credentials: Option<&str>) -> Result<Option<String>, Refusal> {
        let path = format!("/distribution/{}/json", encoded(&name.to_string()));
        let header = credentials.and_then(|auth| Some((registry::AUTH, auth.try_into().ok()?)));
        let (status, answer) = self.engine.call_with(Method::GET, &path, None, header).await?;
        let digest = Some(text(&answer, &["Descriptor", "digest"])).filter(|digest| reference::is_digest(digest));
        Ok(digest.filter(|_| status == StatusCode::OK))
    }

    async fn network(&self, reference: &str) -> Result<Option<Network>, Refusal> {
        const FIELDS: Fields = &[&["Id"], &["Name"], &["Labels", OWNER_LABEL], &["Labels", BRIDGE_LABEL]];
        // The engine's networks may share names. Own ones come first, so that nobody can stand in another's way.
        let mut own = Vec::new();
        self.owned("/networks", &self.agent.owner, &[], FIELDS, |found| own.push(network(&found))).await?;
        let by: [&dyn Fn(&Network) -> bool; 3] =
            [&|network| network.id.as_str() == reference, &|network| network.name == reference, &|network| {
                !reference.is_empty() && network.id.as_str().starts_with(reference)
            }];
        for matches in by {
            let mut found = own.iter().filter(|network| matches(network));
            match (found.next(), found.next()) {
                (Some(network), None) => return Ok(Some(network.clone())),
                (Some(_), Some(_)) => {
                    let count = own.iter().filter(|network| matches(network)).count();
                    return Err(Refusal::Rejected {
                        message: format!("network {reference} is ambiguous ({count} matches found)"),
                    });
                }
                (None, _) => {}
            }
        }
        // What is left is a built-in one, by name or ID; anything else there is foreign.
        match self.get(&format!("/networks/{}", encoded(reference)), FIELDS).await {
            Ok(found) => Ok(found.as_ref().map(network)),
            Err(Refusal::Rejected { .. }) => Ok(None),
            Err(other) => Err(other),
        }
    }

    async fn volume(&self, name: &str) -> Result<Option<Volume>, Refusal> {
        const FIELDS: Fields = &[
            &["Name"],
            &["Driver"],
            &["Options"],
            &["Labels", OWNER_LABEL],
            &["Labels", AGENT_LABEL],
            &["Labels", ROOT_LABEL],
            &["Labels", PAUSED_LABEL],
            &["Labels", PAUSED_BY_LABEL],
        ];
        let found = self.get(&format!("/volumes/{}", encoded(name)), FIELDS).await?;
        Ok(found.map(|found| Volume {
            name: text(&found, &["Name"]),
            labels: labels(found.at(&["Labels"])),
            plain: text(&found, &["Driver"]) == "local" && found.at(&["Options"]).is_none_or(Value::is_empty),
        }))
    }

    async fn exec(&self, id: &str) -> Result<Option<Id>, Refusal> {
        if let Some(container) = self.memory.execs.borrow().get(id) {
            return Ok(Some(container.clone()));
        }
        let found = self.get(&format!("/exec/{}/json", encoded(id)), &[&["ContainerID"]]).await?;
        let container = found
            .map(|found| Id::new(text(&found, &["ContainerID"])))
            .filter(|container| !container.as_str().is_empty());
        if let Some(container) = &container {
            self.memory.exec(id, container.clone());
        }
        Ok(container)
    }

    async fn path(&self, root: &Path, below: &Path) -> PathFact {
        if !self.sees(root).await {
            return PathFact::Unseen;
        }
        let (root, below) = (root.to_owned(), below.to_owned());
        tokio::task::spawn_blocking(move || look(&root, &below)).await.unwrap_or(PathFact::Unseen)
    }

    async fn api_version(&self) -> Result<(u32, u32), Refusal> {
        api_version(&self.engine).await
    }

    fn sockets(&self) -> Sockets {
        self.sockets.clone()
    }
}

/// The newest version of the API that the engine speaks.
///
/// # Errors
/// When the engine cannot be asked.
pub async fn api_version(engine: &Engine) -> Result<(u32, u32), Refusal> {
    let version = match engine.call(Method::GET, "/version", None).await? {
        (StatusCode::OK, answer) => text(&answer, &["ApiVersion"]),
        (status, answer) => {
            return Err(Refusal::Engine { message: format!("the engine answered {status}: {}", message(&answer)) });
        }
    };
    let parsed = version.split_once('.').and_then(|(major, minor)| Some((major.parse().ok()?, minor.parse().ok()?)));
    parsed.ok_or_else(|| Refusal::Engine { message: format!("the engine's API version `{version}` cannot be read") })
}

const DIRECTORY: OFlags = OFlags::PATH.union(OFlags::DIRECTORY).union(OFlags::CLOEXEC);

fn open_root(root: &Path) -> Option<OwnedFd> {
    rustix::fs::open(root, DIRECTORY, Mode::empty()).ok()
}

fn open_below(directory: &OwnedFd, below: &Path, flags: OFlags) -> Result<OwnedFd, Errno> {
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
    let below = if below.as_os_str().is_empty() { Path::new(".") } else { below };
    loop {
        match rustix::fs::openat2(directory, below, flags, Mode::empty(), resolve) {
            // A rename elsewhere in the system was under way.
            Err(Errno::AGAIN | Errno::INTR) => {}
            result => return result,
        }
    }
}

fn look(root: &Path, below: &Path) -> PathFact {
    let Some(directory) = open_root(root) else { return PathFact::Unseen };
    match open_below(&directory, below, OFlags::PATH | OFlags::CLOEXEC) {
        Ok(_) => PathFact::Fine,
        Err(Errno::NOENT) => PathFact::Missing,
        Err(Errno::LOOP | Errno::XDEV) => PathFact::Link,
        // A file in the place of a directory: nothing can be made below it.
        Err(Errno::NOTDIR) => PathFact::Missing,
        Err(_) => PathFact::Unseen,
    }
}

/// Makes a directory below a root, and those on the way to it, without following a symbolic link.
///
/// # Errors
/// What the system says.
pub fn make_directory(root: &Path, below: &Path) -> Result<(), Errno> {
    let mut directory = open_root(root).ok_or(Errno::NOTDIR)?;
    for part in below.components() {
        match rustix::fs::mkdirat(&directory, part.as_os_str(), Mode::from_raw_mode(0o755)) {
            Ok(()) | Err(Errno::EXIST) => {}
            Err(e) => return Err(e),
        }
        directory = open_below(&directory, Path::new(part.as_os_str()), DIRECTORY)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pull_tells_what_it_brought() {
        let digest = format!("sha256:{}", "a".repeat(64));
        let read = |lines: &[&str]| {
            let mut pulled = Pulled::default();
            lines.iter().for_each(|line| pulled.read(line.as_bytes()));
            pulled
        };
        let told = format!(r#"{{"status":"Digest: {digest}"}}"#);
        let new = read(&[
            r#"{"status":"Pulling from x","id":"1"}"#,
            &told,
            "{\"status\":\"Status: Downloaded newer image for x:1\"}\r",
        ]);
        assert_eq!(new, Pulled { digest: Some(digest.clone()), done: true, error: None });
        let same = read(&[&told, r#"{"status":"Status: Image is up to date for x:1"}"#]);
        assert!(same.done);
        let failed = read(&[&told, r#"{"errorDetail":{"message":"no"},"error":"no"}"#]);
        assert_eq!((failed.done, failed.error.as_deref()), (false, Some("no")));
        assert_eq!(read(&[r#"{"status":"Digest: sha256:1"}"#]).digest, None);
    }
}
