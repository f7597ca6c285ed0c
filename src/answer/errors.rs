//! The engine's error messages without what they tell about others.

use super::labels::{self, Holder};
use super::upstream::{self, Upstream};
use super::{Viewer, images, scan};
use crate::owner::Owner;
use crate::refusal::Refusal;
use crate::{policy, route};
use bytes::Bytes;
use std::collections::HashMap;

/// What stands in place of what is not told.
const HIDDEN: &str = "…";

/// So many things in one message are asked for; the rest is not told.
const MOST_QUESTIONS: usize = 16;

/// The message for the agent.
pub async fn scrubbed(message: &str, viewer: &Viewer<impl Upstream>) -> String {
    // Only what the request named.
    if message.starts_with("No such ") {
        return message.to_owned();
    }
    let mut scrubber = Scrubber { viewer, known: HashMap::new() };
    let message = scrubber.volumes(message).await;
    scrubber.ids(&message).await
}

struct Scrubber<'a, U> {
    viewer: &'a Viewer<U>,
    known: HashMap<String, bool>,
}

impl<U: Upstream> Scrubber<'_, U> {
    /// IDs, full and short, of what is neither the agent's nor shared; with the container's name where the message tells
    /// it beside an endpoint's ID.
    async fn ids(&mut self, message: &str) -> String {
        let mut out = String::with_capacity(message.len());
        let mut rest = message;
        while let Some((before, id, after)) = next_id(rest) {
            out.push_str(before);
            let shown = match named_endpoint(before) {
                Some(name) => {
                    let own = self.is_known(name).await;
                    if !own {
                        let from = out.len().saturating_sub(before.len());
                        let told = out.split_off(from);
                        out.push_str(&told.replace(name, HIDDEN));
                    }
                    own
                }
                None => self.is_known(id).await,
            };
            if shown {
                out.push_str(id);
            } else if let Some(without) = out.strip_suffix(" by container \"") {
                // The conflict of names, which says just as much without the other container's ID.
                out = without.to_owned();
                rest = after.strip_prefix('"').unwrap_or(after);
                continue;
            } else {
                if let Some(without) = out.strip_suffix("sha256:") {
                    out = without.to_owned();
                }
                out.push_str(HIDDEN);
            }
            rest = after;
        }
        out.push_str(rest);
        out
    }

    /// Paths in the engine's own directory of volumes: a bind root's is told as the root, an own volume's as it is.
    async fn volumes(&mut self, message: &str) -> String {
        const DIRECTORY: &str = "/volumes/";
        let mut out = String::new();
        let mut rest = message;
        while let Some((before, after)) = rest.split_once(DIRECTORY) {
            let end = after.find(['/', '"', '\'', ' ', ',', ':']).unwrap_or(after.len());
            let (name, after) = after.split_at_checked(end).unwrap_or((after, ""));
            let start = before.rfind(['"', '\'', ' ', ',', '(', '=', ':']).map_or(0, |n| n + 1);
            let (text, root) = before.split_at_checked(start).unwrap_or((before, ""));
            out.push_str(text);
            match (after.strip_prefix("/_data"), self.volume(name).await) {
                (Some(after), Some(VolumePath::Root(path))) => {
                    out.push_str(&path);
                    rest = after;
                }
                (Some(after), None) => {
                    out.push_str(HIDDEN);
                    // Nor what lies below.
                    let end = after.find(['"', '\'', ' ', ',', ':']).unwrap_or(after.len());
                    rest = after.get(end..).unwrap_or_default();
                }
                // A volume's parent appears where a path left it; any other path of this form is the client's own.
                (None, Some(VolumePath::Root(_))) => {
                    out.push_str(HIDDEN);
                    rest = after;
                }
                (Some(_), Some(VolumePath::Own)) | (None, Some(VolumePath::Own) | None) => {
                    out.push_str(root);
                    out.push_str(DIRECTORY);
                    out.push_str(name);
                    rest = after;
                }
            }
        }
        out.push_str(rest);
        out
    }

    /// What a path within this volume may tell.
    async fn volume(&mut self, name: &str) -> Option<VolumePath> {
        let volume = self.ask("volumes", name, "").await?;
        let labels = labels::read_in(&volume, "Labels", &self.viewer.agent.owner).ok()?;
        match (labels.root, labels.holder) {
            (Some(root), _) => Some(VolumePath::Root(root.into_owned())),
            (None, Holder::Me) => Some(VolumePath::Own),
            (None, Holder::Nobody) => {
                policy::any(&self.viewer.agent.policy.volume.shared, name).then_some(VolumePath::Own)
            }
            (None, Holder::Other) => None,
        }
    }

    /// Does this ID (or a container's name) belong to something that the agent may know of?
    async fn is_known(&mut self, id: &str) -> bool {
        if let Some(known) = self.known.get(id) {
            return *known;
        }
        if self.known.len() >= MOST_QUESTIONS {
            return false;
        }
        let known = self.find(id).await;
        self.known.insert(id.to_owned(), known);
        known
    }

    async fn find(&mut self, id: &str) -> bool {
        let me = &self.viewer.agent.owner;
        if let Some(container) = self.ask("containers", id, "/json").await {
            return config_labels(&container, me).is_some_and(|labels| labels.my_container());
        }
        if let Some(image) = self.ask("images", id, "/json").await {
            return match config_labels(&image, me).map(|labels| labels.holder) {
                Some(Holder::Me) => true,
                Some(Holder::Nobody) => images::named(&image).unwrap_or_default(),
                Some(Holder::Other) => scan::text_of(&image, "Id").is_ok_and(|id| self.viewer.memory.got(&id)),
                None => false,
            };
        }
        for kind in ["networks", "volumes"] {
            if let Some(object) = self.ask(kind, id, "").await {
                return labels::read_in(&object, "Labels", me).is_ok_and(|labels| labels.holder == Holder::Me);
            }
        }
        false
    }

    async fn ask(&self, kind: &str, name: &str, end: &str) -> Option<Bytes> {
        let mut path = format!("/{kind}/");
        route::percent_encode(name, "", &mut path);
        path.push_str(end);
        upstream::document(&*self.viewer.upstream, &path).await.ok().flatten()
    }
}

enum VolumePath {
    /// It stands for this host path.
    Root(String),
    /// The agent's, or shared.
    Own,
}

fn config_labels<'a>(object: &'a [u8], me: &Owner) -> Option<labels::Labels<'a>> {
    match scan::find(object, "Config").ok()? {
        Some(config) if !scan::is_null(config.value) => labels::read_in(config.value, "Labels", me).ok(),
        _ => labels::read(b"null", me).ok(),
    }
}

/// The next ID of 64 or 12 hexadecimal digits that stands by itself, with what is before and after it.
fn next_id(text: &str) -> Option<(&str, &str, &str)> {
    let mut from = 0;
    while let Some(rest) = text.get(from..) {
        let start = from + rest.find(|c: char| c.is_ascii_alphanumeric())?;
        let word = text.get(start..)?;
        let end = start + word.find(|c: char| !c.is_ascii_alphanumeric()).unwrap_or(word.len());
        let word = text.get(start..end)?;
        let hexadecimal = word.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
        if hexadecimal && matches!(word.len(), 12 | 64) {
            return Some((text.get(..start)?, word, text.get(end..)?));
        }
        from = end;
    }
    None
}

/// All such IDs of a text.
pub fn ids(text: &str) -> impl Iterator<Item = &str> {
    let mut rest = text;
    std::iter::from_fn(move || {
        let (_, id, after) = next_id(rest)?;
        rest = after;
        Some(id)
    })
}

/// The container's name where an endpoint's ID follows: `endpoint NAME (ID)`, `(name:"NAME" id:"ID")`.
fn named_endpoint(before: &str) -> Option<&str> {
    if let Some(text) = before.strip_suffix(" (") {
        let (_, name) = text.rsplit_once("endpoint ")?;
        return (!name.is_empty() && !name.contains(' ')).then_some(name);
    }
    let (_, name) = before.strip_suffix("\" id:\"")?.rsplit_once("name:\"")?;
    (!name.is_empty() && !name.contains('"')).then_some(name)
}

/// What a refusal of the engine's own making says when it cannot be shown.
pub fn too_long() -> Refusal {
    Refusal::Engine { message: "the engine's error message is too long".to_owned() }
}
