//! A case as a function call: the same calls as the proxy's, with the case's world.

use super::case::{Body, Case, Forward, Group, Outcome, Request};
use super::facts::{self, Facts, PathIs, find_network};
use hyper::Method;
use sockguard::cli::{Surroundings, flags};
use sockguard::config::Identity;
use sockguard::json::{self, Object, Value};
use sockguard::judge::build::ContextRules;
use sockguard::judge::dockerfile::judge_dockerfile;
use sockguard::judge::own_mounts::own_mounts;
use sockguard::judge::{self, Agent, Ask, BodyKind, Caller, ports};
use sockguard::owner::{OWNER_LABEL, Owner};
use sockguard::permit::{Action, Answer, Payload, Permit, RegistryAuth, Step};
use sockguard::query::{self, Param, Query};
use sockguard::reference::Reference;
use sockguard::refusal::Refusal;
use sockguard::route;
use sockguard::world::{Container, Id, Image, Network, PathFact, Sockets, Volume, World};
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::pin::pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

/// Where the guarded socket is, as the engine's host sees it.
pub const GUARDED: &str = "/run/sockguard/guarded.sock";

/// Runs a case.
pub fn run(case: &Case, agent: &Agent) -> Result<Outcome, String> {
    let caller = case.caller.as_ref().map(|inspect| Caller {
        id: Id::new("a".repeat(64)),
        agent: Id::new("a".repeat(64)),
        cgroup_parent: String::new(),
        mounts: own_mounts(inspect, &agent.owner),
    });
    let agent = &Agent { owner: agent.owner.clone(), policy: Rc::clone(&agent.policy), caller };
    let world = CaseWorld::new(&case.facts, &case.host, &agent.owner);
    for earlier in &case.earlier {
        let permit =
            now(decide(earlier, agent, &world)).map_err(|refusal| format!("earlier: {}", refusal.message("")))?;
        for step in permit.after {
            match step {
                Step::Brought { name, .. } => world.brought(&name.to_string()),
                Step::Pulled { image } => world.known.borrow_mut().push(image),
                _ => {}
            }
        }
    }
    let outcome = match now(decide(&case.request, agent, &world)) {
        Ok(permit) => rendered(case, permit, agent, &world)?,
        Err(refusal) => refused(&refusal, agent),
    };
    Ok(outcome.map(&|text| case.facts.contract(text)))
}

fn refused(refusal: &Refusal, agent: &Agent) -> Outcome {
    let message = refusal.message(&agent.policy.name);
    Outcome { refuse: Some((refusal.status().as_u16(), refusal.code().to_owned(), message)), ..Outcome::default() }
}

/// Whom the command line of the case's guard makes.
pub fn agent(group: &Group) -> Result<Agent, String> {
    let policies = tempfile::tempdir().map_err(|e| e.to_string())?;
    let words = command_line(group, policies.path());
    let flags::Words::Flags(given) = flags::parse(flags::FLAGS, &words)? else {
        return Err("the flags are no settings".to_owned());
    };
    let around = Surroundings { pid: 1, docker_host: None, variables: Vec::new() };
    let settings = sockguard::cli::settings(&given, &around).map_err(|failure| failure.lines().join("\n"))?;
    let Some(Identity::Fixed { owner, policy }) = settings.config.listeners.into_iter().next().map(|l| l.identity)
    else {
        return Err("flags make one agent".to_owned());
    };
    Ok(Agent { owner: Owner::new(&owner)?, policy, caller: None })
}

/// The command line of the case's guard, but for its sockets.
pub fn command_line(group: &Group, directory: &Path) -> Vec<String> {
    let policy = if group.policy.contains('\n') {
        let file = directory.join("inline.toml");
        std::fs::write(&file, &group.policy).unwrap();
        file.to_string_lossy().into_owned()
    } else if group.policy.ends_with(".toml") {
        super::case::root().join("policies").join(&group.policy).to_string_lossy().into_owned()
    } else {
        group.policy.clone()
    };
    let mut words: Vec<String> =
        ["-owner-label", &group.owner, "-policy", &policy, "-socket-on-host", GUARDED].map(str::to_owned).to_vec();
    words.extend(group.flags.iter().cloned());
    words
}

/// Judges a request without a body.
pub fn judge(method: &Method, target: &str, agent: &Agent, facts: &Facts) -> Result<Permit, Refusal> {
    let host = BTreeMap::new();
    let world = CaseWorld::new(facts, &host, &agent.owner);
    let (path, raw) = target.split_once('?').map_or((target, None), |(path, raw)| (path, Some(raw)));
    let target = route::parse(method, path)?;
    let query = query::parse(&target.route, raw)?;
    now(judge::judge(
        Ask { route: target.route, version: target.version, query, body: None, registry_auth: None },
        agent,
        &world,
    ))
}

/// The result of a future that waits for nothing.
fn now<T>(future: impl Future<Output = T>) -> T {
    match pin!(future).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(value) => value,
        Poll::Pending => panic!("a judgement waits for something"),
    }
}

async fn decide(request: &Request, agent: &Agent, world: &CaseWorld<'_>) -> Result<Permit, Refusal> {
    let method = Method::from_bytes(request.method.as_bytes()).map_err(|e| Refusal::malformed(e.to_string()))?;
    let (path, query) = request.target.split_once('?').map_or((request.target.as_str(), None), |(p, q)| (p, Some(q)));
    let target = route::parse(&method, path)?;
    let query = query::parse(&target.route, query)?;
    let bytes = request.body.as_deref().unwrap_or_default().trim_ascii();
    let body =
        match judge::body_kind(&target.route) {
            BodyKind::Empty if matches!(bytes, b"" | b"null" | b"{}") => None,
            BodyKind::Empty => return Err(Refusal::malformed("this endpoint takes no body")),
            BodyKind::Unread => None,
            BodyKind::Json if bytes.is_empty() => None,
            BodyKind::Json => Some(json::parse(bytes).map_err(|e| {
                Refusal::malformed(format!("the body is not the JSON that can be read in one way: {e}"))
            })?),
            BodyKind::Stream => None,
        };
    let credentials = request.headers.iter().find(|(name, _)| name.eq_ignore_ascii_case("X-Registry-Auth"));
    let registry_auth = credentials.map(|(_, value)| value.clone());
    judge::judge(Ask { route: target.route, version: target.version, query, body, registry_auth }, agent, world).await
}

/// What the engine would receive.
fn rendered(case: &Case, permit: Permit, agent: &Agent, world: &CaseWorld<'_>) -> Result<Outcome, String> {
    let mut out = Outcome::default();
    let mut let_go = Vec::new();
    for step in permit.before {
        match step {
            Step::CreateVolume { name, options, labels } => {
                let map = |pairs: Vec<(String, String)>| -> Value {
                    Value::Object(pairs.into_iter().map(|(k, v)| (k, Value::from(v))).collect::<Object>())
                };
                let body = Value::from([
                    ("Name", Value::from(name)),
                    ("Driver", Value::from("local")),
                    ("DriverOpts", map(options)),
                    ("Labels", map(labels)),
                ]);
                out.forward.push(own("POST", "/volumes/create", "", Body::Json(body)));
            }
            Step::Bridge { name, labels } => {
                let there = world.facts.networks.iter().any(|network| {
                    network.name == name && network.labels.get(OWNER_LABEL).is_some_and(|o| *o == case.group.owner)
                });
                if !there {
                    let labels = labels.into_iter().map(|(k, v)| (k, Value::from(v))).collect();
                    let body = Value::from([
                        ("Name", Value::from(name)),
                        ("CheckDuplicate", Value::Bool(true)),
                        ("Driver", Value::from("bridge")),
                        ("Labels", Value::Object(labels)),
                    ]);
                    out.forward.push(own("POST", "/networks/create", "", Body::Json(body)));
                }
            }
            // The containers of a case are in no network.
            Step::Rejoin { .. } => {}
            Step::MakeDirectory { root, below } => out.makes.push(root.join(below).to_string_lossy().into_owned()),
            // The function has no counts.
            Step::Quota(_) | Step::ShareBinds => {}
            Step::HoldBinds { binds } => {
                let mut others: Vec<_> = world.facts.containers.iter().collect();
                others.retain(|other| {
                    other.running && other.labels.get(OWNER_LABEL).is_some_and(|o| *o == case.group.owner)
                });
                others.sort_by(|a, b| a.id.cmp(&b.id));
                for other in others {
                    out.forward.push(own("POST", &format!("/containers/{}/pause", other.id), "", Body::None));
                    let_go.push(own("POST", &format!("/containers/{}/unpause", other.id), "", Body::None));
                }
                for (root, below) in binds {
                    let why = match now(world.path(&root, &below)) {
                        PathFact::Fine | PathFact::Missing => continue,
                        PathFact::Link => "a part of it below the root is a symbolic link",
                        PathFact::Unseen => "sockguard cannot see it",
                    };
                    let path = root.join(below).to_string_lossy().into_owned();
                    let refusal = Refusal::not_allowed("the bind source", &Value::from(path), "bind.roots").hint(why);
                    out.refuse = refused(&refusal, agent).refuse;
                    out.forward.append(&mut let_go);
                    return Ok(out);
                }
            }
            Step::Stop { container, query } => {
                out.forward.push(own("POST", &format!("/containers/{container}/stop"), &query.encode(), Body::None));
            }
            Step::Leave { container, network } => {
                let body = Value::from([("Container", Value::from(container)), ("Force", Value::Bool(true))]);
                out.forward.push(own("POST", &format!("/networks/{network}/disconnect"), "", Body::Json(body)));
            }
            Step::Join { .. }
            | Step::Brought { .. }
            | Step::Gave { .. }
            | Step::Pulled { .. }
            | Step::Gone { .. }
            | Step::Exec { .. }
            | Step::Tag { .. } => {}
        }
    }
    match permit.action {
        Action::Answer(status, body) => out.answer = Some((status.as_u16(), body)),
        Action::Progress(lines) => out.answer = Some((200, Value::Array(lines))),
        Action::Send(request) => {
            let version = request.version.map(|version| format!("/{version}")).unwrap_or_default();
            let body = match request.payload {
                Payload::Empty => Body::None,
                Payload::Json(value) => Body::Json(value),
                Payload::Stream | Payload::Archive(_) => stream(case),
                Payload::Context(rules) => match context(case, &rules, agent, world) {
                    Ok(body) => body,
                    Err(refusal) => {
                        out.forward.append(&mut world.calls.borrow_mut());
                        out.refuse = refused(&refusal, agent).refuse;
                        return Ok(out);
                    }
                },
            };
            let credentials = match request.registry_auth {
                RegistryAuth::None => None,
                RegistryAuth::Auth | RegistryAuth::Push => Some("X-Registry-Auth"),
                RegistryAuth::Config => Some("X-Registry-Config"),
            };
            let given = case.request.headers.iter();
            let mut headers: Vec<_> =
                given.filter(|(name, _)| credentials.is_some_and(|c| name.eq_ignore_ascii_case(c))).cloned().collect();
            if request.registry_auth == RegistryAuth::Push && headers.is_empty() {
                headers.push(("X-Registry-Auth".to_owned(), "e30=".to_owned()));
            }
            out.forward.append(&mut world.calls.borrow_mut());
            out.forward.push(Forward {
                line: format!("{} {version}{}", request.method, request.path),
                query: request.query.encode(),
                headers,
                body,
            });
        }
    }
    if let Answer::Named { names, .. } = &permit.answer {
        out.forward.extend(names.iter().map(named));
    }
    for step in permit.after {
        match step {
            Step::Join { container, alias } => {
                let mut endpoint = Object::new();
                if let Some(alias) = alias {
                    endpoint.set("Aliases", [alias].into_iter().collect::<Value>());
                }
                let body =
                    Value::from([("Container", Value::from(container)), ("EndpointConfig", Value::Object(endpoint))]);
                out.forward.push(own("POST", "/networks/{new}/connect", "", Body::Json(body)));
            }
            Step::Tag { name } => out.forward.push(named(&name)),
            Step::Brought { .. } | Step::Gave { .. } | Step::Pulled { .. } | Step::Gone { .. } | Step::Exec { .. } => {}
            Step::Quota(_)
            | Step::CreateVolume { .. }
            | Step::Bridge { .. }
            | Step::Rejoin { .. }
            | Step::MakeDirectory { .. }
            | Step::ShareBinds
            | Step::HoldBinds { .. }
            | Step::Stop { .. }
            | Step::Leave { .. } => {
                return Err("a step of before stands in after".to_owned());
            }
        }
    }
    out.forward.append(&mut let_go);
    Ok(out)
}

/// The body as the client sent it.
fn stream(case: &Case) -> Body {
    match (&case.request.files, &case.request.body) {
        (Some(files), _) => Body::Files(files.clone()),
        (None, Some(bytes)) if !bytes.is_empty() => Body::Stream(String::from_utf8_lossy(bytes).into_owned()),
        (None, _) => Body::None,
    }
}

/// A build context with its Dockerfile judged and pinned.
fn context(case: &Case, rules: &ContextRules, agent: &Agent, world: &CaseWorld<'_>) -> Result<Body, Refusal> {
    let Some(mut files) = case.request.files.clone() else { return Ok(stream(case)) };
    let credentials = case.request.headers.iter().find(|(name, _)| name.eq_ignore_ascii_case("X-Registry-Config"));
    let credentials = credentials.map(|(_, value)| value.as_str());
    for (_, text) in files.iter_mut().filter(|(path, _)| *path == rules.dockerfile) {
        let pinned = now(judge_dockerfile(text.as_bytes(), rules, credentials, agent, world))?;
        *text = String::from_utf8_lossy(&pinned.text).into_owned();
    }
    Ok(Body::Files(files))
}

/// The call that gives a new image its name.
fn named(name: &Reference) -> Forward {
    let query = Query::of([
        ("repo", Param::Text(name.full_name())),
        ("tag", Param::Text(name.tag().unwrap_or("latest").to_owned())),
    ]);
    own("POST", "/images/{new}/tag", &query.encode(), Body::None)
}

/// A call of sockguard's own.
fn own(method: &str, path: &str, query: &str, body: Body) -> Forward {
    Forward { line: format!("{method} {path}"), query: query.to_owned(), headers: Vec::new(), body }
}

/// The world that a case describes.
struct CaseWorld<'a> {
    facts: &'a Facts,
    host: &'a BTreeMap<String, PathIs>,
    owner: &'a Owner,
    /// What was pulled since.
    pulled: RefCell<Vec<facts::Image>>,
    /// What is another's and was pulled all the same.
    known: RefCell<Vec<Id>>,
    /// What the engine was asked to do meanwhile.
    calls: RefCell<Vec<Forward>>,
}

impl<'a> CaseWorld<'a> {
    fn new(facts: &'a Facts, host: &'a BTreeMap<String, PathIs>, owner: &'a Owner) -> Self {
        Self { facts, host, owner, pulled: RefCell::default(), known: RefCell::default(), calls: RefCell::default() }
    }

    /// The owner has brought an image from a registry.
    fn brought(&self, reference: &str) {
        let name = facts::full_name(reference);
        let found = self.facts.registry.iter().filter(|image| image.names.contains(&name));
        self.pulled.borrow_mut().extend(found.cloned().map(|image| facts::Image { brought: true, ..image }));
    }
}

impl World for CaseWorld<'_> {
    async fn container(&self, reference: &str) -> Result<Option<Container>, Refusal> {
        let found = self.facts.container(reference);
        Ok(found.map(|c| Container { id: Id::new(&c.id), labels: c.labels.clone() }))
    }

    async fn image(&self, reference: &str) -> Result<Option<Image>, Refusal> {
        let known = self.facts.image(reference).cloned();
        let name = facts::full_name(reference);
        let found = known.or_else(|| self.pulled.borrow().iter().find(|image| image.names.contains(&name)).cloned());
        Ok(found.map(|image| Image {
            tagged: !image.names.is_empty(),
            labels: image.labels.clone(),
            brought: image.brought,
            pulled: self.known.borrow().iter().any(|id| id.as_str() == image.id),
            digests: image.digests().collect(),
            volumes: image.volumes.clone(),
            exposes: image.exposes.iter().map(|port| ports::number(port)).sum(),
            on_build: image.on_build.clone(),
            platform: "linux/amd64".to_owned(),
            ..Image::of(Id::new(&image.id))
        }))
    }

    async fn pull(&self, reference: &Reference, platform: Option<&str>, _: Option<&str>) -> Result<(), Refusal> {
        let tag = reference.digest().or(reference.tag()).unwrap_or("latest");
        let mut query =
            Query::of([("fromImage", Param::Text(reference.full_name())), ("tag", Param::Text(tag.to_owned()))]);
        if let Some(platform) = platform {
            query.set("platform", Param::Text(platform.to_owned()));
        }
        self.calls.borrow_mut().push(own("POST", "/images/create", &query.encode(), Body::None));
        match self.facts.pulled(&reference.full_name(), tag) {
            Some(image) => self.pulled.borrow_mut().push(image),
            None => return Err(Refusal::absent("manifest unknown")),
        }
        Ok(())
    }

    async fn registry_digest(&self, name: &Reference, credentials: Option<&str>) -> Result<Option<String>, Refusal> {
        Ok(credentials.and_then(|_| self.facts.served(&name.to_string())))
    }

    async fn network(&self, reference: &str) -> Result<Option<Network>, Refusal> {
        let own = |n: &&facts::Network| n.labels.get(OWNER_LABEL).is_some_and(|o| o == self.owner.as_str());
        let found =
            find_network(self.facts.networks.iter().filter(own), reference).or_else(|| self.facts.network(reference));
        Ok(found.map(|n| Network { id: Id::new(&n.id), name: n.name.clone(), labels: n.labels.clone() }))
    }

    async fn volume(&self, name: &str) -> Result<Option<Volume>, Refusal> {
        Ok(self.facts.volume(name).map(|v| Volume {
            name: v.name.clone(),
            labels: v.labels.clone(),
            plain: v.options.is_empty(),
        }))
    }

    async fn exec(&self, id: &str) -> Result<Option<Id>, Refusal> {
        Ok(self.facts.exec(id).map(|exec| Id::new(&exec.container)))
    }

    async fn path(&self, root: &Path, below: &Path) -> PathFact {
        let at = |path: PathBuf| self.host.get(path.to_string_lossy().trim_end_matches('/')).copied();
        if at(root.to_owned()) == Some(PathIs::Unseen) {
            return PathFact::Unseen;
        }
        // Cases take place where the guarded socket is seen by the engine alone.
        if root.join(below) == self.sockets().guarded {
            return PathFact::Unseen;
        }
        if below.as_os_str().is_empty() {
            return PathFact::Fine;
        }
        let mut place = root.to_owned();
        for part in below.components() {
            place.push(part);
            if at(place.clone()) == Some(PathIs::Link) {
                return PathFact::Link;
            }
        }
        match at(place) {
            Some(PathIs::Fine) => PathFact::Fine,
            Some(PathIs::Link) => PathFact::Link,
            Some(PathIs::Unseen) => PathFact::Unseen,
            Some(PathIs::Missing) | None => PathFact::Missing,
        }
    }

    async fn api_version(&self) -> Result<(u32, u32), Refusal> {
        Ok(self.facts.api_version)
    }

    fn sockets(&self) -> Sockets {
        Sockets { guarded: GUARDED.into(), engine: vec!["/var/run/docker.sock".into(), "/run/docker.sock".into()] }
    }
}
