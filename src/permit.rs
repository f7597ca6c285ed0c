//! The only ticket to the engine: a request rebuilt from what was judged, with what has to happen around it.

use crate::json::Value;
use crate::judge::limits::Demand;
use crate::query::Query;
use crate::reference::Reference;
use crate::route::{ApiVersion, Route};
use crate::world::Id;
use hyper::{Method, StatusCode};
use std::collections::BTreeSet;

/// What a judgement comes to.
pub type Verdict = Result<Permit, crate::refusal::Refusal>;

/// Leave to send a request to the engine. Guards make it; nothing else can be forwarded.
#[must_use = "a permit that is not used is a request that was judged and dropped"]
#[derive(Debug, Clone, PartialEq)]
pub struct Permit {
    /// What has to be done first, in order; if one fails the request is not sent.
    pub before: Vec<Step>,
    /// The request itself.
    pub action: Action,
    /// What has to be done when the engine has answered with success.
    pub after: Vec<Step>,
    /// How the engine's answer goes to the client.
    pub answer: Answer,
    /// Was the request changed beyond its encoding? For the audit: `allow` or `rewrite`.
    pub rewritten: bool,
}

/// The request to the engine, or the answer that makes one needless.
#[derive(Debug, Clone, PartialEq)]
pub enum Action {
    /// Send this request.
    Send(Request),
    /// Do not ask the engine: answer this.
    Answer(StatusCode, Value),
    /// Do not ask the engine: answer with this progress.
    Progress(Vec<Value>),
}

/// A request to the engine, rebuilt from parsed values.
#[derive(Debug, Clone, PartialEq)]
pub struct Request {
    /// The method.
    pub method: Method,
    /// The version prefix, if the client gave one.
    pub version: Option<ApiVersion>,
    /// The path without version prefix, every segment encoded.
    pub path: String,
    /// The query, of known parameters only.
    pub query: Query,
    /// The body.
    pub payload: Payload,
    /// Registry credentials go along on the routes that use them.
    pub registry_auth: RegistryAuth,
}

/// Which of the client's registry headers go along.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RegistryAuth {
    /// None.
    None,
    /// `X-Registry-Auth` (pull, search, distribution).
    Auth,
    /// The same for a push: an empty one where the client gave none, without which older engines take no push.
    Push,
    /// `X-Registry-Config` (build).
    Config,
}

/// The body of a request to the engine.
#[derive(Debug, Clone, PartialEq)]
pub enum Payload {
    /// None.
    Empty,
    /// Our encoding of the judged document.
    Json(Value),
    /// The client's stream as it comes (tar into a container).
    Stream,
    /// The build context, inspected as it passes.
    Context(crate::judge::build::ContextRules),
    /// An image archive, inspected before the engine sees its end.
    Archive(crate::judge::images::ArchiveRules),
}

/// How the engine's answer goes to the client.
#[derive(Debug, Clone, PartialEq)]
pub enum Answer {
    /// As it is, streamed.
    Pass,
    /// A raw stream in both directions.
    Hijack,
    /// As it is, for as long as it lasts: line by line, as soon as the engine says them.
    Follow,
    /// Filtered and edited on the way: only what `View` shows.
    View(View),
    /// The progress of a build or an import, at whose end the new image gets its names: they were free when the request
    /// was judged, and could have been taken since.
    Named {
        /// The names, with tags.
        names: Vec<Reference>,
        /// How the image's ID stands in the progress.
        from: Progress,
    },
    /// The progress of a load, at whose end the images get their names, for the same reason.
    Loaded {
        /// What the archive holds.
        loads: Vec<Load>,
        /// The images that are there before.
        known: BTreeSet<Id>,
    },
    /// The answer to a container's creation: its warnings are amended. What mounts nothing is looked at when it is used
    /// for the first time, and is not the agent's then if it was made from another image than the judged one.
    Created {
        /// More warnings for the client.
        warnings: Vec<String>,
        /// What is looked at before the client hears of it, where it mounts anything.
        seen_again: Option<SeenAgain>,
    },
}

/// What was judged of a container that is created: its names can have come to stand for others since.
#[derive(Debug, Clone, PartialEq)]
pub struct SeenAgain {
    /// The image that it must have been made from.
    pub image: Id,
    /// The named volumes that it mounts; they must still be the agent's to use.
    pub volumes: Vec<String>,
}

/// An image in an archive that is loaded.
#[derive(Debug, Clone, PartialEq)]
pub struct Load {
    /// The digest of its configuration, or of its manifest or index: where the engine goes by that document, its ID.
    pub id: String,
    /// The digests of its layers, where a manifest has to be made for it by the engine, which then gives the ID.
    pub layers: Option<Vec<String>>,
    /// The names that it is to have, with tags.
    pub names: Vec<Reference>,
}

/// How the ID of a new image stands in the progress that the engine tells.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Progress {
    /// As `aux`, which nothing that runs in a build can write.
    Build,
    /// As the only output, of a build that is asked to be quiet.
    QuietBuild,
    /// As the last `status`.
    Import,
}

/// What an answer shows, by its shape.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum View {
    /// `GET /containers/json`: own containers.
    ContainerList,
    /// `GET /containers/{id}/json`.
    Container,
    /// `GET /images/json`: own and shared images.
    ImageList,
    /// `GET /images/{name}/json`.
    Image,
    /// `GET /images/{name}/history`.
    ImageHistory,
    /// `GET /networks`: own and built-in networks, own containers in them.
    NetworkList,
    /// `GET /networks/{id}`.
    Network,
    /// The answer to a network's creation: no warning that tells of another's.
    NetworkCreated,
    /// `GET /volumes`: own volumes.
    VolumeList,
    /// `GET /volumes/{name}`.
    Volume,
    /// The answer to a volume's creation.
    VolumeCreated,
    /// `GET /events`: own objects' events.
    Events,
    /// `GET /system/df`: own objects and shared images.
    DiskUsage,
    /// `GET /info`: known fields, own counts.
    Info,
}

/// Something that is done around a request.
#[derive(Debug, Clone, PartialEq)]
pub enum Step {
    /// See that the owner's quotas have room for what the request adds, and keep it until the engine has answered. Comes
    /// before all others.
    Quota(Demand),
    /// Create a volume that carries the owner label, if it does not exist.
    CreateVolume {
        /// Its name.
        name: String,
        /// Its options (none, but for the volume that stands for a bind root).
        options: Vec<(String, String)>,
        /// Its labels.
        labels: Vec<(String, String)>,
    },
    /// Make the owner's bridge, if it is not there.
    Bridge {
        /// Its name.
        name: String,
        /// Its labels.
        labels: Vec<(String, String)>,
    },
    /// The same for a container about to start, if it is on that bridge: it may have been on one that is gone since.
    Rejoin {
        /// The container.
        container: Id,
        /// The bridge's name.
        name: String,
        /// Its labels.
        labels: Vec<(String, String)>,
    },
    /// Make a directory below a bind root where the engine's own bind would have made it.
    MakeDirectory {
        /// The bind root.
        root: std::path::PathBuf,
        /// The path below it.
        below: std::path::PathBuf,
    },
    /// Check the binds of a container again, with whatever could swap them paused until the request is answered.
    HoldBinds {
        /// Root and path below it of each bind.
        binds: Vec<(std::path::PathBuf, std::path::PathBuf)>,
    },
    /// Wait for, and keep off, starts whose binds are checked: the request could swap what they mount, or let a
    /// container go on that is paused for one.
    ShareBinds,
    /// Stop the container first: a restart is a stop and a guarded start where binds are checked at each start.
    Stop {
        /// The container.
        container: Id,
        /// `t` and `signal`, as the client gave them.
        query: Query,
    },
    /// Connect the container of `-container-join-network` to the network just made.
    Join {
        /// The container.
        container: String,
        /// Its alias there.
        alias: Option<String>,
    },
    /// Disconnect the container of `-container-join-network` from the network about to be removed.
    Leave {
        /// The container.
        container: String,
        /// The network.
        network: Id,
    },
    /// Give the image just committed a name, if it may still be had.
    Tag {
        /// The name, with tag.
        name: Reference,
    },
    /// Remember that this owner gave an image this name.
    Gave {
        /// The name, with tag.
        name: Reference,
        /// The image.
        image: Id,
    },
    /// Remember that this owner brought an image that it pulled.
    Brought {
        /// The name under which it was pulled.
        name: Reference,
        /// The images that were there before; filled in when the request is sent.
        known: BTreeSet<Id>,
    },
    /// Remember that this owner pulled an image that was here already, as another's.
    Pulled {
        /// The image.
        image: Id,
    },
    /// Remember that an own volume is gone, so that its name may be another's.
    Gone {
        /// Its name, where the request names it; else the answer does.
        volume: Option<String>,
    },
    /// Remember that an exec belongs to a container (the answer has the exec's ID).
    Exec {
        /// The container.
        container: Id,
    },
}

impl Permit {
    /// The route's own request with the parameters that were read, and an answer that passes as it is.
    pub fn forward(route: &Route, version: Option<ApiVersion>, path: String, query: Query) -> Self {
        Self {
            before: Vec::new(),
            action: Action::Send(Request {
                method: route.method(),
                version,
                path,
                query,
                payload: Payload::Empty,
                registry_auth: RegistryAuth::None,
            }),
            after: Vec::new(),
            answer: Answer::Pass,
            rewritten: false,
        }
    }

    /// An answer of sockguard's own.
    pub fn made(status: StatusCode, body: Value) -> Self {
        Self {
            before: Vec::new(),
            action: Action::Answer(status, body),
            after: Vec::new(),
            answer: Answer::Pass,
            rewritten: true,
        }
    }

    /// The same with this body.
    pub fn with(mut self, payload: Payload) -> Self {
        if let Action::Send(request) = &mut self.action {
            request.payload = payload;
        }
        self
    }

    /// The same with the client's registry credentials.
    pub fn with_auth(mut self, auth: RegistryAuth) -> Self {
        if let Action::Send(request) = &mut self.action {
            request.registry_auth = auth;
        }
        self
    }

    /// The same with this treatment of the answer.
    pub fn showing(mut self, answer: Answer) -> Self {
        self.answer = answer;
        self
    }
}
