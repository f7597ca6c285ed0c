//! `GET /events`: a filtered stream. Containers' and images' events carry labels; networks' and volumes' do not, so it is
//! remembered which are the agent's: when it makes one, when a stream begins, and whenever an event tells of a new one.
//!
//! What no longer exists when its event is read (a replay by `since`), carries no label, and was made before sockguard
//! started cannot be judged, and is not shown.

use super::known::Moment;
use super::labels::{self, Holder};
use super::scan::{self, Broken, Show};
use super::split::{Parts, Splitter, Token};
use super::stream::Editor;
use super::upstream::{self, OwnContainers, Upstream};
use super::{Viewer, images, networks};
use crate::body::BodyError;
use crate::judge::volumes::ROOT_PREFIX;
use crate::refusal::Refusal;
use crate::route;

/// How the stream separates its events.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Separator {
    /// A line feed after each.
    LineFeed,
    /// A record separator before each as well (`application/json-seq`).
    Record,
}

/// Edits a stream of events.
pub struct Events<U> {
    splitter: Splitter,
    judge: Judge<U>,
    separator: Separator,
}

struct Judge<U> {
    viewer: Viewer<U>,
    began: Moment,
}

/// An event, as far as it has to be known.
struct Event<'a> {
    kind: &'a str,
    action: &'a str,
    id: &'a str,
    attributes: &'a [u8],
    at: Moment,
}

impl<U: Upstream> Events<U> {
    /// For this agent.
    pub fn new(viewer: Viewer<U>, separator: Separator) -> Self {
        Self { splitter: Splitter::new(Parts::Documents), judge: Judge { viewer, began: Moment::now() }, separator }
    }
}

impl<U: Upstream> Editor for Events<U> {
    async fn begin(&mut self) -> Result<(), BodyError> {
        self.judge.load().await.map_err(|refusal| refusal.message(&self.judge.viewer.agent.policy.name))?;
        Ok(())
    }

    async fn piece(&mut self, piece: &[u8], out: &mut Vec<u8>) -> Result<(), BodyError> {
        let mut input = piece;
        while let Some(token) = self.splitter.next(&mut input)? {
            let Token::Value(event) = token else { continue };
            let mark = out.len();
            if self.separator == Separator::Record {
                out.push(0x1e);
            }
            match self.judge.event(event, out).await {
                Ok(Show::Shown) => out.push(b'\n'),
                Ok(Show::Hidden) => out.truncate(mark),
                // Whose event it is cannot be known; the stream goes on.
                Err(problem) => {
                    tracing::warn!("an event is left out: {problem}");
                    out.truncate(mark);
                }
            }
        }
        Ok(())
    }

    fn holds(&self) -> usize {
        self.splitter.held()
    }

    async fn finish(&mut self, _: &mut Vec<u8>) -> Result<(), BodyError> {
        Ok(self.splitter.finish()?)
    }
}

impl<U: Upstream> Judge<U> {
    /// Asks for what there is: the stream has begun, so nothing is missed that is made from now on.
    async fn load(&self) -> Result<(), Refusal> {
        let Viewer { agent, upstream, memory } = &self.viewer;
        let known = &memory.known;
        let ask = async |now| {
            for id in OwnContainers::load(&**upstream, &agent.owner).await?.ids() {
                known.container(id);
            }
            for id in upstream::visible_images(&self.viewer).await? {
                known.image(&id);
            }
            for id in upstream::own_networks(&**upstream, &agent.owner).await? {
                known.network(&id);
            }
            known.volumes(&upstream::own_volumes(&**upstream, &agent.owner).await?, now);
            Ok(())
        };
        known.refresh(ask).await
    }

    async fn event(&mut self, event: &[u8], out: &mut Vec<u8>) -> Result<Show, BodyError> {
        let [mut kind, mut action, mut id] = [const { std::borrow::Cow::Borrowed("") }; 3];
        let mut attributes: &[u8] = b"null";
        let mut at = Moment::now();
        for member in scan::members(event) {
            let member = member?;
            match member.key {
                b"Type" => kind = scan::text(member.value).ok_or(Broken("an event's type is no text"))?,
                b"Action" => action = scan::text(member.value).ok_or(Broken("an event's action is no text"))?,
                b"timeNano" => {
                    let nanos = scan::int(member.value).ok_or(Broken("an event's time is no number"))?;
                    at = Moment::from_nanos(nanos);
                }
                b"Actor" => {
                    id = scan::text_of(member.value, "ID")?;
                    if let Some(found) = scan::find(member.value, "Attributes")? {
                        attributes = found.value;
                    }
                }
                _ => {}
            }
        }
        let facts = Event { kind: &kind, action: &action, id: &id, attributes, at };
        if self.shown(&facts).await? == Show::Hidden {
            return Ok(Show::Hidden);
        }
        scan::each_member(event, out, |member, out| match member.key {
            b"Actor" => {
                scan::each_member(member.value, out, |member, out| match member.key {
                    b"Attributes" => labels::strip(member.value, out),
                    _ => Ok(scan::pass(member.value, out)),
                })?;
                Ok(Show::Shown)
            }
            _ => Ok(scan::pass(member.value, out)),
        })?;
        Ok(Show::Shown)
    }

    async fn shown(&self, event: &Event<'_>) -> Result<Show, BodyError> {
        let Viewer { agent, memory, .. } = &self.viewer;
        let labels = labels::read(event.attributes, &agent.owner)?;
        let shown = match (event.kind, labels.holder) {
            ("container", _) => {
                let own = labels.my_container();
                if own {
                    memory.known.container(event.id);
                }
                own
            }
            ("image", Holder::Me) => {
                // A pull or push names the reference, not the ID.
                if event.id.starts_with("sha256:") {
                    memory.known.image(event.id);
                }
                true
            }
            ("image", Holder::Other | Holder::Nobody) => self.image(event, labels.holder).await?,
            // A label of this kind on these would be an attribute that some driver made up.
            ("network", _) => self.network(event).await?,
            ("volume", _) => self.volume(event).await?,
            // The engine itself, plugins, the build cache, a swarm's things.
            _ => false,
        };
        Ok(if shown { Show::Shown } else { Show::Hidden })
    }

    /// An image event without the agent's label: of a shared image, of one that is gone, of one that the agent brought.
    async fn image(&self, event: &Event<'_>, holder: Holder) -> Result<bool, BodyError> {
        let Viewer { agent, memory, .. } = &self.viewer;
        if event.id.starts_with("sha256:") && holder == Holder::Other {
            return Ok(memory.got(event.id));
        }
        if memory.known.has_image(event.id) {
            return Ok(true);
        }
        if matches!(event.action, "delete" | "untag") {
            return Ok(false);
        }
        // A pull names the reference, not the ID.
        let mut path = "/images/".to_owned();
        route::percent_encode(event.id, "/:@", &mut path);
        path.push_str("/json");
        let Some(image) = self.ask(&path).await? else { return Ok(false) };
        let id = scan::text_of(&image, "Id")?;
        let config = scan::find(&image, "Config")?.map_or(&b"null"[..], |m| m.value);
        let holder = match scan::is_null(config) {
            true => Holder::Nobody,
            false => labels::read_in(config, "Labels", &agent.owner)?.holder,
        };
        let visible = match holder {
            Holder::Me => true,
            Holder::Other => memory.got(&id),
            Holder::Nobody => images::named(&image)?,
        };
        if visible {
            memory.known.image(&id);
        }
        Ok(visible)
    }

    async fn network(&self, event: &Event<'_>) -> Result<bool, BodyError> {
        let container = scan::text_of(event.attributes, "container")?;
        let shared = networks::built_in(&scan::text_of(event.attributes, "name")?);
        let visible = match (shared, container.is_empty()) {
            (true, nobody) => !nobody,
            (false, _) => networks::is_own(event.id, &self.viewer).await.map_err(|refusal| self.failed(&refusal))?,
        };
        // Where a container has to do with it, it must be the agent's.
        Ok(visible && (container.is_empty() || self.is_own_container(&container).await?))
    }

    async fn volume(&self, event: &Event<'_>) -> Result<bool, BodyError> {
        let Viewer { agent, memory, .. } = &self.viewer;
        let known = &memory.known;
        let container = scan::text_of(event.attributes, "container")?;
        if !container.is_empty() {
            // An own container mounts own and shared volumes, and those that stand for bind roots.
            return Ok(self.is_own_container(&container).await?
                && (known.had_volume(event.id, event.at) || !self.is_root(event.id).await?));
        }
        if event.action == "create" && event.at >= self.began && !known.had_volume(event.id, event.at) {
            // Its maker may not have been answered yet, or is another sockguard, for the same owner. Of a creation of the
            // past nothing is asked: the name may have come to stand for another volume.
            let Some(volume) = self.ask(&volume_path(event.id)).await? else { return Ok(false) };
            let labels = labels::read_in(&volume, "Labels", &agent.owner)?;
            if labels.holder == Holder::Me && labels.root.is_none() {
                known.volume(event.id, event.at);
            }
        }
        let told = event.action == "create" && known.is_echo(event.id, event.at);
        let own = known.had_volume(event.id, event.at) && !told;
        if own && event.action == "destroy" {
            known.volume_went(event.id, event.at);
        }
        Ok(own)
    }

    /// Does the volume stand for a bind root?
    async fn is_root(&self, name: &str) -> Result<bool, BodyError> {
        if name.starts_with(ROOT_PREFIX) {
            return Ok(true);
        }
        let Some(volume) = self.ask(&volume_path(name)).await? else { return Ok(false) };
        Ok(labels::read_in(&volume, "Labels", &self.viewer.agent.owner)?.root.is_some())
    }

    async fn is_own_container(&self, id: &str) -> Result<bool, BodyError> {
        let Viewer { agent, memory, .. } = &self.viewer;
        if memory.known.has_container(id) || memory.knows(id) {
            return Ok(true);
        }
        if memory.known.is_foreign(id) {
            return Ok(false);
        }
        let mut path = "/containers/".to_owned();
        route::percent_encode(id, "", &mut path);
        path.push_str("/json");
        let own = match self.ask(&path).await? {
            Some(container) => {
                let config = scan::find(&container, "Config")?.ok_or(Broken("a container has no configuration"))?;
                labels::read_in(config.value, "Labels", &agent.owner)?.my_container()
            }
            None => false,
        };
        if own {
            memory.known.container(id);
        } else {
            memory.known.foreign(id);
        }
        Ok(own)
    }

    async fn ask(&self, path: &str) -> Result<Option<bytes::Bytes>, BodyError> {
        let answer = upstream::document(&*self.viewer.upstream, path).await;
        answer.map_err(|refusal| self.failed(&refusal))
    }

    fn failed(&self, refusal: &Refusal) -> BodyError {
        refusal.message(&self.viewer.agent.policy.name).into()
    }
}

fn volume_path(name: &str) -> String {
    let mut path = "/volumes/".to_owned();
    route::percent_encode(name, "", &mut path);
    path
}
