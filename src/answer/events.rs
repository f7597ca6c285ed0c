//! `GET /events`: a filtered stream. Containers' and images' events carry labels; networks' and volumes' do not, so it is
//! remembered which are the agent's: asked for when the stream begins and whenever one is made.
//!
//! What no longer exists when its event is read (a replay by `since`) and carries no label cannot be judged, and is not
//! shown.

use super::labels::{self, Holder};
use super::scan::{self, Broken, Show};
use super::split::{Parts, Splitter, Token};
use super::stream::Editor;
use super::upstream::{self, OwnContainers, Upstream};
use super::{images, networks};
use crate::body::BodyError;
use crate::judge::Agent;
use crate::refusal::Refusal;
use crate::route;
use std::collections::{HashSet, VecDeque};
use std::rc::Rc;

/// How many containers are remembered as not the agent's.
const FOREIGN_KEPT: usize = 256;

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
    agent: Rc<Agent>,
    upstream: Rc<U>,
    known: Option<Known>,
}

/// The objects that the agent may hear of.
struct Known {
    containers: OwnContainers,
    foreign: VecDeque<Box<str>>,
    images: HashSet<Box<str>>,
    networks: HashSet<Box<str>>,
    volumes: HashSet<Box<str>>,
}

/// An event, as far as it has to be known.
struct Event<'a> {
    kind: &'a str,
    action: &'a str,
    id: &'a str,
    attributes: &'a [u8],
}

impl<U: Upstream> Events<U> {
    /// For this agent.
    pub fn new(agent: Rc<Agent>, upstream: Rc<U>, separator: Separator) -> Self {
        Self { splitter: Splitter::new(Parts::Documents), judge: Judge { agent, upstream, known: None }, separator }
    }
}

impl<U: Upstream> Editor for Events<U> {
    async fn begin(&mut self) -> Result<(), BodyError> {
        self.judge.load().await.map_err(|refusal| refusal.message(&self.judge.agent.policy.name))?;
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

    async fn finish(&mut self, _: &mut Vec<u8>) -> Result<(), BodyError> {
        Ok(self.splitter.finish()?)
    }
}

impl<U: Upstream> Judge<U> {
    async fn load(&mut self) -> Result<(), Refusal> {
        let (upstream, owner) = (&*self.upstream, &self.agent.owner);
        self.known = Some(Known {
            containers: OwnContainers::load(upstream, owner).await?,
            foreign: VecDeque::new(),
            images: upstream::visible_images(upstream, owner).await?,
            networks: upstream::own_networks(upstream, owner).await?,
            volumes: upstream::own_volumes(upstream, owner).await?,
        });
        Ok(())
    }

    async fn event(&mut self, event: &[u8], out: &mut Vec<u8>) -> Result<Show, BodyError> {
        let [mut kind, mut action, mut id] = [const { std::borrow::Cow::Borrowed("") }; 3];
        let mut attributes: &[u8] = b"null";
        for member in scan::members(event) {
            let member = member?;
            match member.key {
                b"Type" => kind = scan::text(member.value).ok_or(Broken("an event's type is no text"))?,
                b"Action" => action = scan::text(member.value).ok_or(Broken("an event's action is no text"))?,
                b"Actor" => {
                    id = scan::text_of(member.value, "ID")?;
                    if let Some(found) = scan::find(member.value, "Attributes")? {
                        attributes = found.value;
                    }
                }
                _ => {}
            }
        }
        let facts = Event { kind: &kind, action: &action, id: &id, attributes };
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

    async fn shown(&mut self, event: &Event<'_>) -> Result<Show, BodyError> {
        let labels = labels::read(event.attributes, &self.agent.owner)?;
        Ok(match (event.kind, labels.holder) {
            ("container", Holder::Me) => {
                let Some(known) = &mut self.known else { return Ok(Show::Hidden) };
                match event.action {
                    "destroy" => known.containers.remove(event.id),
                    _ => known.containers.add(event.id),
                }
                Show::Shown
            }
            ("container", Holder::Other | Holder::Nobody) => Show::Hidden,
            ("image", Holder::Me) => {
                // A pull or push names the reference, not the ID.
                if let Some(known) = self.known.as_mut().filter(|_| event.id.starts_with("sha256:")) {
                    known.images.insert(event.id.into());
                }
                Show::Shown
            }
            ("image", Holder::Other) => Show::Hidden,
            ("image", Holder::Nobody) => self.image(event).await?,
            // A label of this kind on these would be an attribute that some driver made up.
            ("network", _) => self.network(event).await?,
            ("volume", _) => self.volume(event).await?,
            // The engine itself, plugins, the build cache, a swarm's things.
            _ => Show::Hidden,
        })
    }

    /// An image event without an owner: of a shared image, or of one that is gone.
    async fn image(&mut self, event: &Event<'_>) -> Result<Show, BodyError> {
        let Some(known) = &mut self.known else { return Ok(Show::Hidden) };
        if matches!(event.action, "delete" | "untag") {
            let visible = known.images.contains(event.id);
            if event.action == "delete" {
                known.images.remove(event.id);
            }
            return Ok(if visible { Show::Shown } else { Show::Hidden });
        }
        if known.images.contains(event.id) {
            return Ok(Show::Shown);
        }
        // A pull names the reference, not the ID.
        let mut path = "/images/".to_owned();
        route::percent_encode(event.id, "/:@", &mut path);
        path.push_str("/json");
        let Some(image) = self.ask(&path).await? else { return Ok(Show::Hidden) };
        let config = scan::find(&image, "Config")?.map_or(&b"null"[..], |m| m.value);
        let holder = match scan::is_null(config) {
            true => Holder::Nobody,
            false => labels::read_in(config, "Labels", &self.agent.owner)?.holder,
        };
        let visible = match holder {
            Holder::Me => true,
            Holder::Other => false,
            Holder::Nobody => images::named(&image)?,
        };
        match (&mut self.known, visible) {
            (Some(known), true) => {
                known.images.insert(scan::text_of(&image, "Id")?.into());
                Ok(Show::Shown)
            }
            _ => Ok(Show::Hidden),
        }
    }

    async fn network(&mut self, event: &Event<'_>) -> Result<Show, BodyError> {
        let Some(known) = &mut self.known else { return Ok(Show::Hidden) };
        let own = match event.action {
            "destroy" => known.networks.remove(event.id),
            _ if known.networks.contains(event.id) => true,
            "create" => self.made(event, "networks").await?,
            _ => false,
        };
        let shared = !own && networks::built_in(&scan::text_of(event.attributes, "name")?);
        self.with_container(event, own, shared).await
    }

    async fn volume(&mut self, event: &Event<'_>) -> Result<Show, BodyError> {
        let Some(known) = &mut self.known else { return Ok(Show::Hidden) };
        let own = match event.action {
            "destroy" => known.volumes.remove(event.id),
            _ if known.volumes.contains(event.id) => true,
            "create" => self.made(event, "volumes").await?,
            _ => false,
        };
        let shared = !own && crate::policy::any(&self.agent.policy.volume.shared, event.id);
        self.with_container(event, own, shared).await
    }

    /// An event of a network or a volume that is the agent's or shared. Where a container has to do with it, it must be
    /// the agent's.
    async fn with_container(&mut self, event: &Event<'_>, own: bool, shared: bool) -> Result<Show, BodyError> {
        if !own && !shared {
            return Ok(Show::Hidden);
        }
        let container = scan::text_of(event.attributes, "container")?;
        let shown = match (container.is_empty(), own) {
            (true, own) => own,
            (false, _) => self.is_own_container(&container).await?,
        };
        Ok(if shown { Show::Shown } else { Show::Hidden })
    }

    /// Is the network or volume that was just made the agent's? Then it is remembered.
    async fn made(&mut self, event: &Event<'_>, kind: &str) -> Result<bool, BodyError> {
        let mut path = format!("/{kind}/");
        route::percent_encode(event.id, "", &mut path);
        let Some(object) = self.ask(&path).await? else { return Ok(false) };
        let labels = labels::read_in(&object, "Labels", &self.agent.owner)?;
        let own = labels.holder == Holder::Me && labels.root.is_none();
        if let (Some(known), true) = (&mut self.known, own) {
            match kind {
                "networks" => known.networks.insert(event.id.into()),
                _ => known.volumes.insert(event.id.into()),
            };
        }
        Ok(own)
    }

    async fn is_own_container(&mut self, id: &str) -> Result<bool, BodyError> {
        let Some(known) = &self.known else { return Ok(false) };
        if known.containers.has(id) {
            return Ok(true);
        }
        if known.foreign.iter().any(|foreign| &**foreign == id) {
            return Ok(false);
        }
        let mut path = "/containers/".to_owned();
        route::percent_encode(id, "", &mut path);
        path.push_str("/json");
        let own = match self.ask(&path).await? {
            Some(container) => {
                let config = scan::find(&container, "Config")?.ok_or(Broken("a container has no configuration"))?;
                labels::read_in(config.value, "Labels", &self.agent.owner)?.holder == Holder::Me
            }
            None => false,
        };
        let Some(known) = &mut self.known else { return Ok(false) };
        if own {
            known.containers.add(id);
        } else {
            if known.foreign.len() >= FOREIGN_KEPT {
                known.foreign.pop_front();
            }
            known.foreign.push_back(id.into());
        }
        Ok(own)
    }

    async fn ask(&self, path: &str) -> Result<Option<bytes::Bytes>, BodyError> {
        let answer = upstream::document(&*self.upstream, path).await;
        Ok(answer.map_err(|refusal| refusal.message(&self.agent.policy.name))?)
    }
}
