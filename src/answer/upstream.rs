//! What the answers' editors ask the engine for: which containers and images the agent may know of.

use super::known::Moment;
use super::labels::Holder;
use super::room::SMALL;
use super::scan::{self, Broken};
use super::split::{Fields, Objects, Parts, Splitter, Token};
use super::{Viewer, images, pick};
use crate::body::{Body, BodyError};
use crate::engine::Engine;
use crate::json::Value;
use crate::owner::{OWNER_LABEL, Owner, PAUSED_LABEL, ROOT_LABEL, SEAL_LABEL};
use crate::query::{Filters, Param, Query};
use crate::refusal::Refusal;
use crate::world::Id;
use bytes::Bytes;
use http_body_util::BodyExt;
use hyper::body::{Body as HttpBody, Incoming};
use hyper::{Method, Response, StatusCode};
use std::collections::{BTreeSet, HashMap, HashSet};

/// The largest document that is read whole.
pub const LARGEST_DOCUMENT: usize = 8 << 20;

/// Where questions go: the engine, or a recording in tests.
pub trait Upstream: 'static {
    /// The body of its answers.
    type Body: HttpBody<Data = Bytes, Error: Into<BodyError>> + Unpin + 'static;

    /// Sends a request without a body.
    async fn ask(&self, method: Method, path_and_query: &str) -> Result<Response<Self::Body>, Refusal>;
}

impl Upstream for Engine {
    type Body = Incoming;

    async fn ask(&self, method: Method, path_and_query: &str) -> Result<Response<Incoming>, Refusal> {
        self.send(self.request(method, path_and_query, Body::Empty)?).await
    }
}

/// The agent's own containers.
#[derive(Debug, Default)]
pub struct OwnContainers {
    images: HashMap<Box<str>, Box<str>>,
    /// How many run.
    pub running: i64,
    /// How many are paused.
    pub paused: i64,
}

impl OwnContainers {
    /// Asks for them.
    ///
    /// # Errors
    /// The engine cannot be asked.
    pub async fn load(upstream: &impl Upstream, owner: &Owner) -> Result<Self, Refusal> {
        const FIELDS: Fields = &[&["Id"], &["ImageID"], &["State"], &["Labels", OWNER_LABEL], &["Labels", SEAL_LABEL]];
        let mut own = Self::default();
        let path = format!("/containers/json?all=1&{}", owners_filter(owner));
        pick::each(upstream, &path, Objects::Listed, FIELDS, |container| {
            let (id, container) = (container.id()?, container.fields());
            let text = |path: &[&str]| container.at(path).and_then(Value::as_str).unwrap_or_default();
            if holder(&container, owner) == Holder::Me && text(&["Labels", SEAL_LABEL]) == owner.seal() {
                own.images.insert(id.as_str().into(), text(&["ImageID"]).into());
                match text(&["State"]) {
                    "running" => own.running += 1,
                    "paused" => own.paused += 1,
                    _ => {}
                }
            }
            Ok(())
        })
        .await?;
        Ok(own)
    }

    /// Is this full ID one of them?
    pub fn has(&self, id: &str) -> bool {
        self.images.contains_key(id)
    }

    /// How many there are.
    pub fn count(&self) -> i64 {
        i64::try_from(self.images.len()).unwrap_or(i64::MAX)
    }

    /// How many of them were made from this image.
    pub fn made_from(&self, image: &str) -> i64 {
        i64::try_from(self.images.values().filter(|i| &***i == image).count()).unwrap_or(i64::MAX)
    }

    /// Their IDs.
    pub fn ids(&self) -> impl Iterator<Item = &str> {
        self.images.keys().map(|id| &**id)
    }
}

/// The IDs of all images that the agent sees in a list.
///
/// # Errors
/// The engine cannot be asked.
pub async fn visible_images(viewer: &Viewer<impl Upstream>) -> Result<HashSet<Box<str>>, Refusal> {
    let mut ids = HashSet::new();
    each_part(&*viewer.upstream, "/images/json", Parts::Items, |item| {
        if images::visible(item, &viewer.agent.owner, &viewer.memory)? {
            ids.insert(scan::text_of(item, "Id")?.into());
        }
        Ok(())
    })
    .await?;
    Ok(ids)
}

/// The IDs of all images that the engine has, whosever they are.
///
/// # Errors
/// The engine cannot be asked, or an image's ID cannot be found.
pub async fn all_images(upstream: &impl Upstream) -> Result<BTreeSet<Id>, Refusal> {
    let mut ids = BTreeSet::new();
    pick::each(upstream, "/images/json?all=1", Objects::Listed, &[&["Id"]], |image| {
        ids.insert(image.id()?);
        Ok(())
    })
    .await?;
    Ok(ids)
}

/// The IDs of all own networks.
///
/// # Errors
/// The engine cannot be asked.
pub async fn own_networks(upstream: &impl Upstream, owner: &Owner) -> Result<HashSet<Box<str>>, Refusal> {
    let mut ids = HashSet::new();
    let path = format!("/networks?{}", owners_filter(owner));
    pick::each(upstream, &path, Objects::Listed, &[&["Id"], &["Labels", OWNER_LABEL]], |network| {
        let id = network.id()?;
        if holder(&network.fields(), owner) == Holder::Me {
            ids.insert(id.as_str().into());
        }
        Ok(())
    })
    .await?;
    Ok(ids)
}

/// The names of all own volumes, and the moments from which on they were surely there.
///
/// # Errors
/// The engine cannot be asked.
pub async fn own_volumes(upstream: &impl Upstream, owner: &Owner) -> Result<HashMap<Box<str>, Moment>, Refusal> {
    const FIELDS: Fields = &[
        &["Volumes", "Name"],
        &["Volumes", "CreatedAt"],
        &["Volumes", "Labels", OWNER_LABEL],
        &["Volumes", "Labels", ROOT_LABEL],
        &["Volumes", "Labels", PAUSED_LABEL],
    ];
    let now = Moment::now();
    let mut names = HashMap::new();
    let path = format!("/volumes?{}", owners_filter(owner));
    pick::each(upstream, &path, Objects::Listed, FIELDS, |volume| {
        let volume = volume.fields();
        let text = |path: &[&str]| volume.at(path).and_then(Value::as_str);
        let ours = text(&["Labels", ROOT_LABEL]).or(text(&["Labels", PAUSED_LABEL]));
        if holder(&volume, owner) == Holder::Me && ours.is_none() {
            let made = text(&["CreatedAt"]).and_then(Moment::parse);
            names.insert(text(&["Name"]).unwrap_or_default().into(), made.map_or(now, Moment::surely));
        }
        Ok(())
    })
    .await?;
    Ok(names)
}

/// Whose an object is.
fn holder(object: &Value, me: &Owner) -> Holder {
    match object.at(&["Labels", OWNER_LABEL]).map(Value::as_str) {
        Some(Some(owner)) if owner == me.as_str() => Holder::Me,
        Some(_) => Holder::Other,
        None => Holder::Nobody,
    }
}

/// One object's document, or nothing where there is none.
///
/// # Errors
/// The engine cannot be asked.
pub async fn document(upstream: &impl Upstream, path: &str) -> Result<Option<Bytes>, Refusal> {
    let response = upstream.ask(Method::GET, path).await?;
    let status = response.status();
    let body = collect(response.into_body(), LARGEST_DOCUMENT).await?;
    match status {
        StatusCode::OK => Ok(Some(body)),
        StatusCode::NOT_FOUND => Ok(None),
        status => Err(Refusal::Engine { message: format!("the engine answered {status} to {path}") }),
    }
}

/// Reads a body whole.
///
/// # Errors
/// It is larger than `most`, or it was cut off.
pub async fn collect<B>(body: B, most: usize) -> Result<Bytes, Refusal>
where
    B: HttpBody<Data = Bytes, Error: Into<BodyError>> + Unpin,
{
    collect_in(body, most, async || Ok(())).await
}

/// Reads a body whole. Where it is large, it waits for `room` before it holds more.
///
/// # Errors
/// As [`collect`]; there is no room.
pub async fn collect_in<B>(
    mut body: B,
    most: usize,
    room: impl AsyncFnOnce() -> Result<(), Refusal>,
) -> Result<Bytes, Refusal>
where
    B: HttpBody<Data = Bytes, Error: Into<BodyError>> + Unpin,
{
    let mut room = Some(room);
    let mut whole = Vec::new();
    let mut first = None;
    while let Some(frame) = body.frame().await {
        let frame =
            frame.map_err(|e| Refusal::Engine { message: format!("the engine's answer was cut off: {}", e.into()) })?;
        let Ok(piece) = frame.into_data() else { continue };
        let length = whole.len() + first.as_ref().map_or(0, Bytes::len) + piece.len();
        if length > most {
            return Err(Refusal::Engine { message: "the engine's answer is too large".to_owned() });
        }
        if length > SMALL
            && let Some(room) = room.take()
        {
            room().await?;
        }
        // Most documents come in one piece, which needs no copy.
        match (first.take(), whole.is_empty()) {
            (None, true) => first = Some(piece),
            (Some(before), _) => {
                whole.extend_from_slice(&before);
                whole.extend_from_slice(&piece);
            }
            (None, false) => whole.extend_from_slice(&piece),
        }
    }
    Ok(first.unwrap_or_else(|| whole.into()))
}

/// Reads every part of a list, but not what is too large: whoever made such an object does not keep the others from
/// theirs.
///
/// # Errors
/// The engine cannot be asked.
pub async fn each_part(
    upstream: &impl Upstream,
    path: &str,
    parts: Parts,
    mut read: impl FnMut(&[u8]) -> Result<(), Broken>,
) -> Result<(), Refusal> {
    let broken = |e: Broken| Refusal::Engine { message: e.to_string() };
    let response = upstream.ask(Method::GET, path).await?;
    if response.status() != StatusCode::OK {
        return Err(Refusal::Engine { message: format!("the engine answered {} to {path}", response.status()) });
    }
    let mut body = response.into_body();
    let mut splitter = Splitter::new(parts);
    while let Some(frame) = body.frame().await {
        let frame =
            frame.map_err(|e| Refusal::Engine { message: format!("the engine's answer was cut off: {}", e.into()) })?;
        let Some(piece) = frame.data_ref() else { continue };
        let mut input = &piece[..];
        while let Some(token) = splitter.next(&mut input).map_err(broken)? {
            // What cannot be understood is not the agent's.
            if let Token::Value(value) = token
                && let Err(error) = read(value)
            {
                tracing::warn!("{path}: {error}");
            }
        }
    }
    splitter.finish().map_err(broken)
}

fn owners_filter(owner: &Owner) -> String {
    let mut filters = Filters::default();
    filters.add("label", format!("{OWNER_LABEL}={owner}"));
    Query::of([("filters", Param::Filters(filters))]).encode()
}
