//! The engine's answers on their way to the client: only what the agent may see.
//!
//! Lists and events are edited as they pass, one element at a time; what is one document (an inspection, `info`) is read
//! whole, within a bound. No tree is built of them: the spans of what has to change are found, the rest is passed as the
//! engine wrote it.

mod containers;
mod errors;
mod events;
mod images;
mod info;
pub mod known;
mod labels;
mod lists;
mod loading;
mod naming;
mod networks;
mod pick;
mod progress;
mod restore;
pub mod room;
pub mod scan;
mod split;
mod stream;
mod upstream;
mod usage;
mod volumes;

use crate::body::{Body, BodyError};
use crate::engine::Engine;
use crate::json::{self, Value};
use crate::judge::Agent;
use crate::lookup::{Lookup, Memory, text};
use crate::owner::{AGENT_LABEL, BINDS_LABEL, OWNER_LABEL, SEAL_LABEL};
use crate::permit::{Load, Progress, SeenAgain, View};
use crate::reference::Reference;
use crate::refusal::Refusal;
use crate::route;
use crate::world::{Container, Id};
use bytes::Bytes;
use hyper::body::Body as HttpBody;
use hyper::header::{CONTENT_LENGTH, CONTENT_TYPE, HeaderValue, TRANSFER_ENCODING};
use hyper::{Method, Response, StatusCode};
use known::Moment;
pub use pick::{Picked, each, one};
use room::{Place, Room};
use scan::Show;
pub use split::{Fields, Objects};
use std::collections::BTreeSet;
use std::rc::Rc;
use upstream::{LARGEST_DOCUMENT, OwnContainers, Upstream};

/// The largest error message.
const LARGEST_ERROR: usize = 64 << 10;

/// Who sees answers, and what tells what that may be.
#[derive(Debug)]
pub struct Viewer<U> {
    /// The agent.
    pub agent: Rc<Agent>,
    /// Where to ask.
    pub upstream: Rc<U>,
    /// What is remembered.
    pub memory: Rc<Memory>,
}

impl<U> Clone for Viewer<U> {
    fn clone(&self) -> Self {
        let Self { agent, upstream, memory } = self;
        Self { agent: Rc::clone(agent), upstream: Rc::clone(upstream), memory: Rc::clone(memory) }
    }
}

/// A successful answer to a request that was sent at `sent`, as the agent may see it.
///
/// # Errors
/// The object is not the agent's after all, or the answer cannot be understood.
pub async fn view<U, B>(
    view: View,
    viewer: &Viewer<U>,
    sent: Moment,
    response: Response<B>,
) -> Result<Response<Body>, Refusal>
where
    U: Upstream,
    B: HttpBody<Data = Bytes, Error: Into<BodyError>> + Unpin + 'static,
{
    let room = viewer.memory.room.clone();
    let list = |kind, response| edited(response, lists::List::new(kind, viewer.clone()), viewer.memory.room.clone());
    match view {
        View::ContainerList => Ok(list(lists::Kind::Containers, response)),
        View::ImageList => Ok(list(lists::Kind::Images, response)),
        View::NetworkList => Ok(list(lists::Kind::Networks, response)),
        View::VolumeList => Ok(list(lists::Kind::Volumes, response)),
        View::DiskUsage => Ok(edited(response, usage::Usage::new(viewer.clone()), room)),
        View::Events => {
            let separator = match response.headers().get(CONTENT_TYPE).map(HeaderValue::as_bytes) {
                Some(kind) if kind.starts_with(b"application/json-seq") => events::Separator::Record,
                _ => events::Separator::LineFeed,
            };
            Ok(edited(response, events::Events::new(viewer.clone(), separator), room))
        }
        View::Container
        | View::Image
        | View::ImageHistory
        | View::Network
        | View::NetworkCreated
        | View::Volume
        | View::VolumeCreated
        | View::Info => {
            let (head, document, place) = whole(response, &room).await?;
            let mut shown = self::document(view, viewer, sent, document.trim_ascii()).await?;
            shown.shrink_to_fit();
            let body = match place {
                Some(place) => Body::edited(room::Placed::new(shown.into(), place)),
                None => Body::full(shown),
            };
            Ok(Response::from_parts(head, body))
        }
    }
}

/// One document as the agent may see it.
async fn document(
    view: View,
    viewer: &Viewer<impl Upstream>,
    sent: Moment,
    document: &[u8],
) -> Result<Vec<u8>, Refusal> {
    let (agent, upstream) = (&*viewer.agent, &*viewer.upstream);
    let me = &agent.owner;
    let mut out = Vec::with_capacity(document.len());
    let name = |key| scan::text_of(document, key).unwrap_or_default();
    // The permit's request named an object that is the agent's. That is seen again here, for volumes above all: they
    // have no ID, and a name can come to stand for another's volume between the look-up and the request.
    let absent = |message: String| Refusal::absent(message);
    let shown = match view {
        View::Container => match containers::inspection(document, agent, &mut out)? {
            Show::Hidden => return Err(absent(format!("No such container: {}", name("Id")))),
            shown => shown,
        },
        View::Network => {
            let own = match networks::names_containers(document)? {
                true => OwnContainers::load(upstream, me).await?,
                false => OwnContainers::default(),
            };
            match networks::element(document, me, &own, &mut out)? {
                Show::Hidden => return Err(absent(format!("network {} not found", name("Id")))),
                shown => shown,
            }
        }
        View::NetworkCreated => networks::created(document, viewer, &mut out).await?,
        View::Volume | View::VolumeCreated => match volumes::element(document, agent, &mut out)? {
            Show::Hidden => return Err(absent(format!("get {0}: no such volume", name("Name")))),
            shown => {
                if view == View::VolumeCreated {
                    volumes::remember(document, viewer, sent)?;
                }
                shown
            }
        },
        View::Image => {
            let own = match images::counts_containers(document)? {
                true => OwnContainers::load(upstream, me).await?,
                false => OwnContainers::default(),
            };
            let mut step = Value::Null;
            if images::made_by_label(document)? {
                let mut path = "/images/".to_owned();
                route::percent_encode(&name("Id"), ":", &mut path);
                path.push_str("/history");
                if let Some(history) = upstream::document(upstream, &path).await? {
                    step = images::last_step(&history)?;
                }
            }
            images::inspection(document, &own, step.to_string().as_bytes(), &mut out)?
        }
        View::ImageHistory => images::history(document, &mut out)?,
        View::Info => {
            let own = OwnContainers::load(upstream, me).await?;
            let images = upstream::visible_images(viewer).await?.len();
            let Ok(Value::Object(info)) = json::parse(document) else {
                return Err(Refusal::Engine { message: "the engine's information cannot be understood".to_owned() });
            };
            let shown = info::shown(info, &own, i64::try_from(images).unwrap_or(i64::MAX));
            scan::pass(Value::Object(shown).to_string().as_bytes(), &mut out)
        }
        View::ContainerList
        | View::ImageList
        | View::NetworkList
        | View::VolumeList
        | View::Events
        | View::DiskUsage => Show::Hidden,
    };
    if shown == Show::Hidden {
        return Err(Refusal::Engine { message: "this answer is no single document".to_owned() });
    }
    out.push(b'\n');
    Ok(out)
}

/// The IDs of all images that the engine has, whosever they are.
///
/// # Errors
/// The engine cannot be asked.
pub async fn all_images(engine: &Engine) -> Result<BTreeSet<Id>, Refusal> {
    upstream::all_images(engine).await
}

/// An answer with an error status, as the agent may see it.
pub async fn error<U, B>(viewer: &Viewer<U>, response: Response<B>) -> Response<Body>
where
    U: Upstream,
    B: HttpBody<Data = Bytes, Error: Into<BodyError>> + Unpin + 'static,
{
    if response.body().is_end_stream() {
        return response.map(|_| Body::Empty);
    }
    let (mut head, body) = response.into_parts();
    unframed(&mut head.headers);
    let message = match upstream::collect(body, LARGEST_ERROR).await {
        Ok(body) => match (scan::find(&body, "message"), std::str::from_utf8(&body)) {
            (Ok(Some(message)), _) => scan::text(message.value).map(|text| text.into_owned()),
            // Not the engine's usual form: `404 page not found`.
            (_, Ok(text)) => Some(text.trim_end().to_owned()),
            (_, Err(_)) => None,
        },
        Err(_) => None,
    };
    let message = match message {
        Some(message) => errors::scrubbed(&message, viewer).await,
        None => errors::too_long().message(&viewer.agent.policy.name),
    };
    head.headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    Response::from_parts(head, Body::full(format!("{}\n", Value::from([("message", Value::from(message))]))))
}

/// The answer to a container's creation, with `warnings` more, and the container where it is seen again: the names of its
/// image and its volumes can have come to stand for others between the look-up and the request.
///
/// # Errors
/// It was made from another image than the judged one, or mounts another's volume, and is removed.
pub async fn created<U, B>(
    viewer: &Viewer<U>,
    sent: Moment,
    response: Response<B>,
    warnings: &[String],
    judged: Option<&SeenAgain>,
) -> Result<(Response<Body>, Option<Container>), Refusal>
where
    U: Upstream,
    B: HttpBody<Data = Bytes, Error: Into<BodyError>> + Unpin + 'static,
{
    let (head, answer, _) = whole(response, &viewer.memory.room).await?;
    let id = scan::text_of(&answer, "Id")?.into_owned();
    if id.is_empty() || !id.bytes().all(|b| b.is_ascii_alphanumeric()) {
        return Err(Refusal::Engine { message: "the engine's answer names no container".to_owned() });
    }
    viewer.memory.known.container(&id);
    let container = match judged {
        None => None,
        Some(judged) => match confirmed(&id, viewer, sent, judged).await {
            Ok(container) => container,
            Err(refusal) => {
                let removed = viewer.upstream.ask(Method::DELETE, &format!("/containers/{id}?force=1&v=1")).await;
                if !removed.is_ok_and(|r| r.status().is_success()) {
                    tracing::warn!(owner = %viewer.agent.owner, "container {id} could not be removed");
                }
                return Err(refusal);
            }
        },
    };
    let mut out = Vec::with_capacity(answer.len());
    scan::each_member(&answer, &mut out, |member, out| {
        if member.key != b"Warnings" || warnings.is_empty() {
            return Ok(scan::pass(member.value, out));
        }
        out.push(b'[');
        let mut comma = scan::Comma::default();
        if !scan::is_null(member.value) {
            for warning in scan::items(member.value) {
                comma.write(out);
                comma.written();
                out.extend_from_slice(warning?.value);
            }
        }
        for warning in warnings {
            comma.write(out);
            comma.written();
            out.extend_from_slice(Value::from(warning.as_str()).to_string().as_bytes());
        }
        out.push(b']');
        Ok(Show::Shown)
    })?;
    out.push(b'\n');
    Ok((Response::from_parts(head, Body::full(out)), container))
}

/// The container that was made, if it is still there.
async fn confirmed(
    id: &str,
    viewer: &Viewer<impl Upstream>,
    sent: Moment,
    judged: &SeenAgain,
) -> Result<Option<Container>, Refusal> {
    let (agent, upstream) = (&*viewer.agent, &*viewer.upstream);
    const FIELDS: Fields = &[
        &["Image"],
        &["Mounts"],
        &["Config", "Image"],
        &["Config", "Labels", OWNER_LABEL],
        &["Config", "Labels", SEAL_LABEL],
        &["Config", "Labels", AGENT_LABEL],
        &["Config", "Labels", BINDS_LABEL],
    ];
    let found = match one(upstream, &format!("/containers/{id}/json"), FIELDS).await? {
        (StatusCode::OK, found) => found,
        // One that is gone already was removed by another of the agent's requests.
        (StatusCode::NOT_FOUND, _) => return Ok(None),
        (status, _) => {
            return Err(Refusal::Engine { message: format!("the engine answered {status} for container {id}") });
        }
    };
    if text(&found, &["Image"]) != judged.image.as_str() {
        return Err(made_from_another(&text(&found, &["Config", "Image"])));
    }
    for name in &judged.volumes {
        let mut path = "/volumes/".to_owned();
        route::percent_encode(name, "", &mut path);
        let Some(volume) = upstream::document(upstream, &path).await? else { continue };
        if !volumes::visible(&volume, agent).unwrap_or_default() {
            let hint = "this volume name is not available, choose another";
            return Err(Refusal::never("HostConfig.Mounts", &Value::from(name.as_str()), hint));
        }
        volumes::remember(&volume, viewer, sent)?;
    }
    for mount in found.at(&["Mounts"]).and_then(Value::as_array).unwrap_or_default() {
        let name = text(mount, &["Name"]);
        // Such a name is a new volume's or, by `VolumesFrom`, one of another own container.
        if volumes::made_up(&name) {
            viewer.memory.known.volume(&name, sent);
        }
    }
    let labels = found.at(&["Config", "Labels"]).and_then(Value::as_object).into_iter().flat_map(json::Object::iter);
    // No others are remembered.
    let labels = labels.filter_map(|(key, value)| Some((key.to_owned(), value.as_str()?.to_owned()))).collect();
    Ok(Some(Container { id: Id::new(id), labels }))
}

/// The refusal where a container was made from another image than the judged one, whose name is not there any more.
fn made_from_another(name: &str) -> Refusal {
    let last = name.rsplit('/').next().unwrap_or_default();
    let tag = if last.contains([':', '@']) { "" } else { ":latest" };
    Refusal::absent(format!("No such image: {name}{tag}"))
}

impl From<scan::Broken> for Refusal {
    fn from(broken: scan::Broken) -> Self {
        Self::Engine { message: broken.to_string() }
    }
}

/// The progress of a build or an import, at whose end the new image gets its names. `labels` instructions were added to
/// the Dockerfile.
pub fn named<B>(
    world: &Rc<Lookup>,
    names: Vec<Reference>,
    from: Progress,
    labels: usize,
    response: Response<B>,
) -> Response<Body>
where
    B: HttpBody<Data = Bytes, Error: Into<BodyError>> + Unpin + 'static,
{
    let room = world.memory.room.clone();
    edited(response, naming::Naming::new(Rc::clone(world), names, from, labels), room)
}

/// The progress of a load, in which the images get their names. These were `known` before.
pub fn loaded<B>(world: &Rc<Lookup>, loads: Vec<Load>, known: BTreeSet<Id>, response: Response<B>) -> Response<Body>
where
    B: HttpBody<Data = Bytes, Error: Into<BodyError>> + Unpin + 'static,
{
    let room = world.memory.room.clone();
    edited(response, loading::Loading::new(Rc::clone(world), loads, known), room)
}

/// The head and the whole body of an answer, and the place of a large one.
async fn whole<B>(
    response: Response<B>,
    room: &Room,
) -> Result<(hyper::http::response::Parts, Bytes, Option<Place>), Refusal>
where
    B: HttpBody<Data = Bytes, Error: Into<BodyError>> + Unpin,
{
    let (mut head, body) = response.into_parts();
    unframed(&mut head.headers);
    let mut place = None;
    let document = upstream::collect_in(body, LARGEST_DOCUMENT, async || {
        place = Some(room.place().await?);
        Ok(())
    })
    .await?;
    Ok((head, document, place))
}

fn edited<B, E>(response: Response<B>, editor: E, room: Room) -> Response<Body>
where
    B: HttpBody<Data = Bytes, Error: Into<BodyError>> + Unpin + 'static,
    E: stream::Editor + 'static,
{
    let (mut head, body) = response.into_parts();
    unframed(&mut head.headers);
    Response::from_parts(head, stream::edited(body, editor, room))
}

/// An edited body has a length of its own.
fn unframed(headers: &mut hyper::HeaderMap) {
    headers.remove(CONTENT_LENGTH);
    headers.remove(TRANSFER_ENCODING);
}

#[cfg(test)]
#[expect(clippy::expect_used, clippy::indexing_slicing, clippy::string_slice, reason = "tests")]
mod tests;
