//! Builds: the classic builder. The query is judged here, the Dockerfile when it passes in the context.

use super::images::{granted, may_pull, may_take, named, same_in_registry};
use super::labels;
use super::system::BUILDKIT;
use super::{Agent, Ask};
use crate::dockerfile::{self, Dockerfile, Instruction, UNKNOWN, Variables};
use crate::json::{Object, Value};
use crate::owner::{OWNER_LABEL, Standing};
use crate::permit::{Answer, Payload, Permit, Progress, RegistryAuth, Verdict};
use crate::policy::ImageOperation as Operation;
use crate::query::{Param, Query};
use crate::reference::{self, Parsed, Reference};
use crate::refusal::Refusal;
use crate::registry;
use crate::schema::{self, Field, Shape, Treat, field};
use crate::world::{Image, World};
use std::collections::BTreeMap;

/// What a build context must keep to.
#[derive(Debug, Clone, PartialEq)]
pub struct ContextRules {
    /// The path of the Dockerfile in the context.
    pub dockerfile: String,
    /// The build arguments; one without a value was named only.
    pub args: BTreeMap<String, Option<String>>,
    /// The stage that is built.
    pub target: Option<String>,
    /// Pull the base images even where they are here.
    pub pull: bool,
    /// The platform of the base images.
    pub platform: Option<String>,
    /// Do steps come from the cache?
    pub cache: Cache,
}

/// Does a build use the results of earlier ones?
///
/// The engine has one cache for all owners, and what is not in its key (hosts, networks, proxies) makes one owner's steps
/// another's. The labels are in the key: each stage begins with the owner's, or on an image that has it, so that every
/// step after it is the owner's own. The triggers of a base image run before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cache {
    /// Every step runs.
    Unused,
    /// Where the key is the same.
    Used,
}

/// The name under which the engine looks for a Dockerfile that nobody named.
pub const DOCKERFILE: &str = "Dockerfile";

/// What the classic builder understands.
const INSTRUCTIONS: &[&str] = &[
    "add",
    "arg",
    "cmd",
    "copy",
    "entrypoint",
    "env",
    "expose",
    "from",
    "healthcheck",
    "label",
    "maintainer",
    "onbuild",
    "run",
    "shell",
    "stopsignal",
    "user",
    "volume",
    "workdir",
];

/// Build arguments that need no `ARG`.
const PROXY_ARGS: &[&str] =
    &["HTTP_PROXY", "http_proxy", "HTTPS_PROXY", "https_proxy", "FTP_PROXY", "ftp_proxy", "NO_PROXY", "no_proxy"];

static ULIMIT: &[Field] = &[
    field("Name", Treat::Plain(Shape::Text)),
    field("Soft", Treat::Plain(Shape::Int)),
    field("Hard", Treat::Plain(Shape::Int)),
];

/// Judges a build.
pub async fn judge(mut ask: Ask, agent: &Agent, world: &impl World) -> Verdict {
    granted(Operation::Build, agent)?;
    let query = &mut ask.query;
    classic(query)?;
    host(query, agent)?;
    network(query, agent, world).await?;

    let mut labels = match query.remove("labels") {
        Some(Param::Json(Value::Object(labels))) => texts("labels", labels)?,
        None | Some(Param::Json(Value::Null)) => Object::new(),
        Some(_) => return Err(Refusal::malformed("the query parameter labels is no JSON object")),
    };
    labels::stamp(&mut labels, "labels", agent)?;
    query.set("labels", Param::Json(Value::Object(labels)));

    let mut tags = Vec::new();
    for tag in query.list("t").iter().filter(|tag| !tag.is_empty()) {
        let tag = named(tag)?;
        if tag.digest().is_some() {
            return Err(Refusal::malformed("refusing to create a tag with a digest reference"));
        }
        may_take(&tag, agent, world).await?;
        tags.push(tag.or_latest());
    }
    // The image gets them when it is there.
    query.remove("t");

    // `null` is what the CLI 20.10 sends for none.
    if let Some(ulimits) = query.json("ulimits").filter(|ulimits| **ulimits != Value::Null) {
        for ulimit in
            ulimits.as_array().ok_or_else(|| Refusal::malformed("the query parameter ulimits is no JSON array"))?
        {
            schema::check(ULIMIT, ulimit.clone())?;
        }
    }
    // Containers of a build carry no owner label: none may stay behind.
    query.set("rm", Param::Bool(true));
    query.set("forcerm", Param::Bool(true));
    // The owner's images are in the cache anyway. From API 1.52 on a build fails at a step without a layer (`ENV`) that is
    // to be taken from an image of this list because it was made elsewhere since: "failed to restore cached image".
    query.remove("cachefrom");

    let rules = ContextRules {
        dockerfile: dockerfile_path(query.text("dockerfile").unwrap_or(DOCKERFILE))?,
        args: arguments(query)?,
        target: query.text("target").map(str::to_owned),
        // The base images are pulled, if they have to be, before the engine builds: it is given their IDs.
        pull: matches!(query.remove("pull"), Some(Param::Text(text)) if truth(&text)),
        platform: query.text("platform").map(str::to_owned),
        cache: if query.bool("nocache") { Cache::Unused } else { Cache::Used },
    };
    query.set("dockerfile", Param::Text(rules.dockerfile.clone()));
    let from = if ask.query.bool("q") { Progress::QuietBuild } else { Progress::Build };
    let mut permit = Permit::forward(&ask.route, ask.version, "/build".to_owned(), ask.query)
        .with(Payload::Context(rules))
        .with_auth(RegistryAuth::Config)
        .showing(Answer::Named { names: tags, from });
    permit.rewritten = true;
    Ok(permit)
}

/// Refuses what is BuildKit's, and what the classic builder does not do for agents.
fn classic(query: &mut Query) -> Result<(), Refusal> {
    let buildkit =
        |name: &str, value: &Value| Err(Refusal::never(format!("the query parameter {name}"), value, BUILDKIT));
    match query.text("version") {
        None | Some("1") => {}
        Some(version) => return buildkit("version", &Value::from(version)),
    }
    for name in ["session", "buildid"] {
        if let Some(value) = query.text(name) {
            return buildkit(name, &Value::from(value));
        }
    }
    if let Some(outputs) = query.json("outputs").filter(|outputs| !outputs.is_empty()) {
        return buildkit("outputs", outputs);
    }
    query.remove("outputs");
    if let Some(remote) = query.text("remote") {
        let hint = "the engine would fetch it from the host; send the context";
        return Err(Refusal::never("the query parameter remote", &Value::from(remote), hint));
    }
    if query.bool("squash") {
        return Err(Refusal::never("the query parameter squash", &Value::Bool(true), "it is experimental"));
    }
    query.remove("squash");
    match query.text("isolation") {
        None | Some("default") => {}
        Some(other) => return Err(Refusal::not_allowed("the query parameter isolation", &Value::from(other), "")),
    }
    query.remove("isolation");
    Ok(())
}

/// What touches the host.
fn host(query: &mut Query, agent: &Agent) -> Result<(), Refusal> {
    if let Some(options) = query.json("securityopt").filter(|options| !options.is_empty()) {
        return Err(Refusal::not_allowed("the query parameter securityopt", options, ""));
    }
    query.remove("securityopt");
    let hosts = query.list("extrahosts");
    if !hosts.is_empty() && !agent.policy.image.build_extra_hosts {
        let hosts: Value = hosts.iter().map(String::as_str).collect();
        return Err(Refusal::not_allowed("the query parameter extrahosts", &hosts, "image.build-extra-hosts"));
    }
    match (&agent.policy.container.cgroup_parent, query.text("cgroupparent")) {
        (Some(parent), _) => query.set("cgroupparent", Param::Text(parent.clone())),
        (None, Some(given)) => {
            return Err(Refusal::not_allowed(
                "the query parameter cgroupparent",
                &Value::from(given),
                "container.cgroup-parent",
            ));
        }
        (None, None) => {}
    }
    Ok(())
}

/// The network that `RUN` steps have.
async fn network(query: &mut Query, agent: &Agent, world: &impl World) -> Result<(), Refusal> {
    let Some(mode) = query.text("networkmode").map(str::to_owned) else { return Ok(()) };
    let host = || {
        if agent.policy.image.build_host_network {
            return Ok(());
        }
        Err(Refusal::not_allowed("the query parameter networkmode", &Value::from("host"), "image.build-host-network"))
    };
    match mode.as_str() {
        "default" | "bridge" | "none" => return Ok(()),
        "host" => return host(),
        _ => {}
    }
    let resolved = if let Some(name) = mode.strip_prefix("container:") {
        match world.container(name).await? {
            Some(container) if container.standing(&agent.owner) == Standing::Own => {
                format!("container:{}", container.id)
            }
            Some(_) | None => return Err(Refusal::absent(format!("No such container: {name}"))),
        }
    } else {
        match world.network(&mode).await? {
            Some(network) => match network.standing(&agent.owner) {
                Standing::Own => network.id.as_str().to_owned(),
                Standing::Shared if network.name == "host" => return host(),
                Standing::Shared => network.name,
                Standing::Foreign => return Err(Refusal::absent(format!("network {mode} not found"))),
            },
            None => return Err(Refusal::absent(format!("network {mode} not found"))),
        }
    };
    query.set("networkmode", Param::Text(resolved));
    Ok(())
}

fn arguments(query: &Query) -> Result<BTreeMap<String, Option<String>>, Refusal> {
    let wrong = || Refusal::malformed("the query parameter buildargs is no JSON object of strings");
    match query.json("buildargs") {
        None | Some(Value::Null) => Ok(BTreeMap::new()),
        Some(Value::Object(args)) => args
            .iter()
            .map(|(name, value)| match value {
                Value::Null => Ok((name.to_owned(), None)),
                Value::String(value) => Ok((name.to_owned(), Some(value.clone()))),
                Value::Bool(_) | Value::Number(_) | Value::Array(_) | Value::Object(_) => Err(wrong()),
            })
            .collect(),
        Some(_) => Err(wrong()),
    }
}

fn texts(name: &str, object: Object) -> Result<Object, Refusal> {
    if object.iter().any(|(_, value)| value.as_str().is_none()) {
        return Err(Refusal::malformed(format!("the query parameter {name} is no JSON object of strings")));
    }
    Ok(object)
}

/// The path of the Dockerfile, relative to the context, without `.`, `..` and empty parts.
fn dockerfile_path(given: &str) -> Result<String, Refusal> {
    let parts: Vec<&str> = given.split('/').filter(|part| !part.is_empty() && *part != ".").collect();
    if parts.is_empty() || parts.contains(&"..") || given.ends_with('/') {
        return Err(Refusal::malformed(format!("Forbidden path outside the build context: {given}")));
    }
    Ok(parts.join("/"))
}

fn truth(text: &str) -> bool {
    !matches!(text.trim().to_ascii_lowercase().as_str(), "" | "0" | "no" | "false" | "none")
}

// The Dockerfile.

/// What the engine is given in place of the client's Dockerfile.
#[derive(Debug, Clone, PartialEq)]
pub struct Pinned {
    /// The Dockerfile, with the images that it names by ID.
    pub text: Vec<u8>,
    /// The IDs that stand in place of names, for the build's output.
    pub names: Vec<(String, String)>,
    /// How many instructions were added that set the owner's label.
    pub labels: usize,
}

/// Judges a Dockerfile, and pins the images that it names: a later stage looks them up minutes from now.
///
/// # Errors
/// What is not allowed, or cannot be read in one way.
pub async fn judge_dockerfile(
    text: &[u8],
    rules: &ContextRules,
    credentials: Option<&str>,
    agent: &Agent,
    world: &impl World,
) -> Result<Pinned, Refusal> {
    let file = dockerfile::parse(text).map_err(Refusal::malformed)?;
    let mut builder = Builder {
        escape: file.escape,
        rules,
        credentials,
        agent,
        world,
        meta: BTreeMap::new(),
        stages: Vec::new(),
        pins: BTreeMap::new(),
        then: BTreeMap::new(),
        names: Vec::new(),
    };
    let end = end(&file, rules.target.as_deref());
    for (at, instruction) in file.instructions.iter().enumerate().take(end) {
        builder.instruction(Some(at), instruction).await?;
    }
    if !file.instructions.iter().all(|one| INSTRUCTIONS.contains(&one.keyword.as_str())) {
        // The engine builds nothing of it, and tells the line.
        builder.then.clear();
    }
    let text = if builder.pins.is_empty() && builder.then.is_empty() {
        text.to_vec()
    } else {
        file.replaced(&builder.pins, &builder.then).map_err(Refusal::malformed)?.into_bytes()
    };
    Ok(Pinned { text, names: builder.names, labels: builder.then.len() })
}

/// Where the build of a target ends; what follows is not built.
fn end(file: &Dockerfile, target: Option<&str>) -> usize {
    let froms: Vec<usize> =
        file.instructions.iter().enumerate().filter(|(_, one)| one.keyword == "from").map(|(at, _)| at).collect();
    let named = |at: &usize, target: &str| {
        let words = file.instructions.get(*at).map(Instruction::words).unwrap_or_default();
        matches!(words.as_slice(), [_, _, name] if name.eq_ignore_ascii_case(target))
    };
    let stage = target.and_then(|target| froms.iter().position(|at| named(at, target)));
    stage.and_then(|stage| froms.get(stage + 1).copied()).unwrap_or(file.instructions.len())
}

/// A stage, as far as it matters for what is allowed.
#[derive(Debug, Clone, Default)]
struct Stage {
    name: Option<String>,
    env: BTreeMap<String, String>,
    args: BTreeMap<String, Option<String>>,
    on_build: Vec<String>,
}

struct Builder<'a, W> {
    escape: char,
    rules: &'a ContextRules,
    credentials: Option<&'a str>,
    agent: &'a Agent,
    world: &'a W,
    meta: BTreeMap<String, Option<String>>,
    stages: Vec<Stage>,
    pins: BTreeMap<usize, Instruction>,
    /// Lines that follow a pinned instruction.
    then: BTreeMap<usize, String>,
    names: Vec<(String, String)>,
}

impl<W: World> Builder<'_, W> {
    /// Judges an instruction. One without a place in the Dockerfile is an `ONBUILD` trigger.
    async fn instruction(&mut self, at: Option<usize>, instruction: &Instruction) -> Result<(), Refusal> {
        match instruction.keyword.as_str() {
            "from" => self.from(at, instruction).await,
            "arg" => self.arg(at, instruction),
            "env" => self.env(at, instruction),
            "label" => {
                let env = self.variables();
                check_labels_in(instruction, self.parsing(at), self.escape, &Variables::Known(&env))
            }
            "copy" => self.copy(at, instruction).await,
            "add" => self.add(instruction),
            "onbuild" => {
                check_trigger(&instruction.args)?;
                if let Some(stage) = self.stages.last_mut() {
                    stage.on_build.push(instruction.args.clone());
                }
                Ok(())
            }
            _ => Ok(()),
        }
    }

    /// The escape with which words are parted: a trigger is read by itself.
    fn parsing(&self, at: Option<usize>) -> char {
        if at.is_some() { self.escape } else { '\\' }
    }

    fn expand(&self, word: &str, env: &BTreeMap<String, String>) -> Result<String, Refusal> {
        dockerfile::expand(word, self.escape, &Variables::Known(env))
            .map_err(|what| Refusal::malformed(format!("`{word}`: {what}")))
    }

    /// The value of an argument, where it has one.
    fn argument(&self, name: &str, default: Option<&Option<String>>) -> Option<String> {
        let given = self.rules.args.get(name).cloned().flatten();
        given.or_else(|| default.cloned().flatten()).or_else(|| self.meta.get(name).cloned().flatten())
    }

    fn values(&self, args: &BTreeMap<String, Option<String>>) -> BTreeMap<String, String> {
        let names = args.keys().map(String::as_str).chain(PROXY_ARGS.iter().copied());
        names.filter_map(|name| Some((name.to_owned(), self.argument(name, args.get(name))?))).collect()
    }

    /// The variables of the current stage: its environment, and the arguments that this does not hide.
    fn variables(&self) -> BTreeMap<String, String> {
        let Some(stage) = self.stages.last() else { return self.values(&self.meta) };
        let mut all = self.values(&stage.args);
        all.extend(stage.env.clone());
        all
    }

    fn arg(&mut self, at: Option<usize>, instruction: &Instruction) -> Result<(), Refusal> {
        let env = self.variables();
        for (name, value) in instruction.pairs(self.parsing(at)).map_err(Refusal::malformed)? {
            let name = self.expand(&name, &env)?;
            let value = value.map(|value| self.expand(&value, &env)).transpose()?;
            match self.stages.last_mut() {
                Some(stage) => stage.args.insert(name, value),
                None => self.meta.insert(name, value),
            };
        }
        Ok(())
    }

    fn env(&mut self, at: Option<usize>, instruction: &Instruction) -> Result<(), Refusal> {
        let env = self.variables();
        for (name, value) in instruction.pairs(self.parsing(at)).map_err(Refusal::malformed)? {
            let (name, value) = (self.expand(&name, &env)?, self.expand(&value.unwrap_or_default(), &env)?);
            if let Some(stage) = self.stages.last_mut() {
                stage.env.insert(name, value);
            }
        }
        Ok(())
    }

    async fn from(&mut self, at: Option<usize>, instruction: &Instruction) -> Result<(), Refusal> {
        let words = instruction.words();
        let (base, name) = match words.as_slice() {
            [base] => (*base, None),
            [base, word, name] if word.eq_ignore_ascii_case("as") => (*base, Some(name.to_ascii_lowercase())),
            _ => return Err(Refusal::malformed("FROM requires either one or three arguments")),
        };
        let meta = self.values(&self.meta);
        let wanted = self.expand(base, &meta)?;
        let mut stage = Stage { name, ..Stage::default() };
        let mut triggers = Vec::new();
        if let Some(earlier) = self.stage(&wanted) {
            (stage.env, triggers) = (earlier.env.clone(), earlier.on_build.clone());
        } else if wanted != "scratch" {
            let platform = match instruction.flag("platform").last() {
                Some(platform) => Some(self.expand(platform, &meta)?),
                None => self.rules.platform.clone(),
            };
            let image = self.image(&wanted, platform.as_deref()).await?;
            let rest = instruction.args.strip_prefix(base).unwrap_or_default();
            let pinned = format!("{}{rest}", image.id);
            self.pin(at, instruction, instruction.flags.clone(), pinned, (image.id.as_str(), base))?;
            if image.standing(&self.agent.owner) != Standing::Own {
                self.check_triggers(base, &image)?;
                self.own(at);
            }
            stage.env = image
                .env
                .iter()
                .filter_map(|pair| pair.split_once('='))
                .map(|(k, v)| (k.to_owned(), v.to_owned()))
                .collect();
            triggers = image.on_build;
        } else {
            self.own(at);
        }
        self.stages.push(stage);
        for trigger in triggers {
            let instruction = dockerfile::parse_one(&trigger).map_err(Refusal::malformed)?;
            if matches!(instruction.keyword.as_str(), "from" | "maintainer") {
                return Err(Refusal::malformed(format!(
                    "{} isn't allowed as an ONBUILD trigger",
                    instruction.keyword.to_uppercase()
                )));
            }
            Box::pin(self.instruction(None, &instruction)).await?;
        }
        Ok(())
    }

    /// The triggers of a base image run before the label that makes steps the owner's.
    fn check_triggers(&self, name: &str, image: &Image) -> Result<(), Refusal> {
        let runs = |trigger: &String| dockerfile::parse_one(trigger).is_ok_and(|one| one.keyword == "run");
        let what = "FROM an image with ONBUILD triggers";
        if image.labelled() && !image.on_build.is_empty() {
            let hint = "another owner built it, and these steps would count as that owner's";
            return Err(Refusal::never(what, &Value::from(name), hint));
        }
        if self.rules.cache == Cache::Used && image.on_build.iter().any(runs) {
            let hint = "RUN in a trigger could come from another owner's build; build with --no-cache";
            return Err(Refusal::never(what, &Value::from(name), hint));
        }
        Ok(())
    }

    /// Has every step on a base image carry the owner's label, not only the last one of the build: so the images of
    /// earlier stages and of failed builds are the owner's to see, to re-use and to prune, and no label that a base image
    /// brings along makes the steps on it another's.
    fn own(&mut self, at: Option<usize>) {
        if let Some(at) = at {
            self.then.insert(at, format!("LABEL {OWNER_LABEL}={}", self.agent.owner));
        }
    }

    /// An earlier stage by its name.
    fn stage(&self, name: &str) -> Option<&Stage> {
        let name = name.to_lowercase();
        self.stages.iter().find(|stage| stage.name.as_deref() == Some(name.as_str()))
    }

    async fn copy(&mut self, at: Option<usize>, instruction: &Instruction) -> Result<(), Refusal> {
        let Some(from) = instruction.flag("from").last().filter(|from| !from.is_empty()) else { return Ok(()) };
        // The stage that is being built has no name yet.
        let earlier = self.stages.split_last().map(|(_, earlier)| earlier).unwrap_or_default();
        let lower = from.to_lowercase();
        let is_stage = earlier.iter().any(|stage| stage.name.as_deref() == Some(lower.as_str()));
        let digits = from.strip_prefix(['+', '-']).unwrap_or(from);
        if is_stage || (!digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit())) {
            return Ok(());
        }
        if at.is_none() {
            let hint = "an ONBUILD trigger cannot be pinned; copy from a stage";
            return Err(Refusal::never("COPY --from", &Value::from(from), hint));
        }
        let image = self.image(from, self.rules.platform.as_deref()).await?;
        let flags = instruction
            .flags
            .iter()
            .map(|flag| if flag.starts_with("--from=") { format!("--from={}", image.id) } else { flag.clone() })
            .collect();
        self.pin(at, instruction, flags, instruction.args.clone(), (image.id.as_str(), from))
    }

    fn add(&self, instruction: &Instruction) -> Result<(), Refusal> {
        if self.agent.policy.image.build_add_remote {
            return Ok(());
        }
        let env = self.variables();
        let paths = instruction.paths().map_err(Refusal::malformed)?;
        for source in paths.split_last().map(|(_, sources)| sources).unwrap_or_default() {
            let source = self.expand(source, &env)?;
            let lower = source.to_ascii_lowercase();
            let remote =
                ["http:", "https:", "ftp:", "git:", "ssh:", "git@"].iter().any(|scheme| lower.starts_with(scheme));
            if remote {
                return Err(Refusal::not_allowed("ADD", &Value::from(source), "image.build-add-remote")
                    .hint("the engine would fetch it from the host; fetch it with RUN, or beforehand"));
            }
        }
        Ok(())
    }

    /// Sees to it that the engine uses the image that was checked.
    fn pin(
        &mut self,
        at: Option<usize>,
        instruction: &Instruction,
        flags: Vec<String>,
        args: String,
        (id, name): (&str, &str),
    ) -> Result<(), Refusal> {
        let plain = |flag: &String| flag.chars().all(|c| c.is_ascii_alphanumeric() || "._:/@=,$+{}-".contains(c));
        if !flags.iter().all(plain) {
            return Err(Refusal::malformed(format!(
                "the flags of `{}` cannot be read in one way",
                instruction.keyword.to_uppercase()
            )));
        }
        if let Some(at) = at {
            self.pins.insert(at, instruction.with(flags, args));
            self.names.push((id.to_owned(), name.to_owned()));
        }
        Ok(())
    }

    /// An image that the build may use: own, shared, or pulled for it.
    async fn image(&self, name: &str, platform: Option<&str>) -> Result<Image, Refusal> {
        let parsed = reference::parse_any(name).map_err(|what| Refusal::malformed(format!("`{name}`: {what}")))?;
        let here = match (self.world.image(name).await?, &parsed) {
            // A pull would take the name from the other, if it brought something else.
            (Some(image), _) if image.pulled && !self.rules.pull && fits(platform, &image) => Some(image),
            (Some(image), Parsed::Name(reference)) if image.anothers(&self.agent.owner) => {
                return match self.is_same(reference, &image, platform).await? {
                    true => Ok(image),
                    false => Err(denied(reference)),
                };
            }
            _ => self.usable(name).await?,
        };
        let reference = match (parsed, here) {
            (Parsed::Id(id), None) => return Err(Refusal::absent(format!("No such image: {id}"))),
            (Parsed::Id(_), Some(image)) => return Ok(image),
            (Parsed::Name(_), Some(image)) if !self.rules.pull && fits(platform, &image) => {
                return Ok(image);
            }
            (Parsed::Name(reference), _) => reference.or_latest(),
        };
        granted(Operation::Pull, self.agent)?;
        may_pull(&reference, self.agent)?;
        self.world.pull(&reference, platform, self.credentials).await?;
        self.usable(&reference.to_string()).await?.ok_or_else(|| denied(&reference))
    }

    /// Is an image of another's what this owner would pull under the name?
    async fn is_same(&self, name: &Reference, image: &Image, platform: Option<&str>) -> Result<bool, Refusal> {
        let name = name.clone().or_latest();
        let granted = self.agent.policy.image.grants(Operation::Pull) && may_pull(&name, self.agent).is_ok();
        if !granted || !fits(platform, image) {
            return Ok(false);
        }
        let credentials = self.credentials.and_then(|config| registry::auth(config, &name));
        same_in_registry(&name, image, credentials.as_deref(), self.world).await.map(|digest| digest.is_some())
    }

    async fn usable(&self, name: &str) -> Result<Option<Image>, Refusal> {
        match self.world.image(name).await? {
            Some(image) if image.standing(&self.agent.owner) == Standing::Foreign => match Reference::parse(name) {
                Ok(reference) => Err(denied(&reference)),
                Err(_) => Err(Refusal::absent(super::images::absent_image(name))),
            },
            found => Ok(found),
        }
    }
}

/// The engine's words for an image that is neither here nor in a registry.
fn denied(reference: &Reference) -> Refusal {
    Refusal::absent(format!(
        "pull access denied for {}, repository does not exist or may require 'docker login': denied: requested access to the resource is denied",
        reference.familiar_name()
    ))
}

/// Does an image have the platform that is wanted, if one is?
pub fn fits(platform: Option<&str>, image: &Image) -> bool {
    platform.is_none_or(|wanted| same_platform(wanted, &image.platform))
}

fn same_platform(wanted: &str, has: &str) -> bool {
    let plain = |text: &str| text.to_ascii_lowercase().replace("x86_64", "amd64").replace("aarch64", "arm64");
    let (wanted, has) = (plain(wanted), plain(has));
    let architecture = has.split_once('/').map(|(_, architecture)| architecture).unwrap_or_default();
    has.is_empty()
        || wanted == has
        || wanted == architecture
        || wanted.strip_prefix(&has).is_some_and(|rest| rest.starts_with('/'))
}

/// Checks the labels that an instruction sets.
///
/// # Errors
/// A label that is reserved, or may be when its variables have values.
pub fn check_labels(instruction: &Instruction, escape: char, variables: &Variables<'_>) -> Result<(), Refusal> {
    check_labels_in(instruction, escape, escape, variables)
}

fn check_labels_in(
    instruction: &Instruction,
    parting: char,
    escape: char,
    variables: &Variables<'_>,
) -> Result<(), Refusal> {
    for (name, _) in instruction.pairs(parting).map_err(Refusal::malformed)? {
        let key = dockerfile::expand(&name, escape, variables)
            .map_err(|what| Refusal::malformed(format!("LABEL `{name}`: {what}")))?;
        let reserved = match key.split_once(UNKNOWN) {
            None => labels::reserved(&key),
            Some((begin, _)) => {
                labels::RESERVED.iter().any(|prefix| begin.starts_with(prefix) || prefix.starts_with(begin))
            }
        };
        if reserved {
            let key = key.replace(UNKNOWN, "$…");
            return Err(Refusal::never(
                "LABEL",
                &Value::from(key),
                "this label tells whose an object is; a client cannot set it",
            ));
        }
    }
    Ok(())
}

/// Checks an `ONBUILD` trigger where it is given. It is judged again wherever it runs.
///
/// # Errors
/// A reserved label, or a text that can be read in two ways.
pub fn check_trigger(text: &str) -> Result<(), Refusal> {
    let instruction = dockerfile::parse_one(text).map_err(Refusal::malformed)?;
    if instruction.keyword == "label" {
        // It may run in a Dockerfile with another escape character.
        for escape in ['\\', '`'] {
            check_labels_in(&instruction, '\\', escape, &Variables::Unknown)?;
            check_labels_in(&instruction, '`', escape, &Variables::Unknown)?;
        }
    }
    Ok(())
}

#[cfg(test)]
#[expect(clippy::unwrap_used, clippy::panic, reason = "tests")]
mod tests {
    use super::super::testing::{Fake, agent, id};
    use super::*;
    use crate::permit::Action;
    use crate::query;
    use crate::route::{self, Route};

    const POLICY: &str = r#"image = { allow = ["build", "pull"], pull = ["docker.io/*"], tags = ["*/*"] }"#;

    fn world() -> Fake {
        let mut world = Fake::default()
            .image("alpine:latest", 'a', None)
            .image("mine:1", 'c', Some("me"))
            .image("their/app:1", 'd', Some("they"))
            .container("box", Some("me"))
            .container("theirs", Some("they"))
            .network("net", Some("me"))
            .network("theirnet", Some("they"))
            .network("host", None);
        let pulled = Fake::default().image("busybox:1", 'e', None).images.remove("busybox:1").unwrap();
        world.registry.insert("busybox:1".to_owned(), pulled);
        world
    }

    fn wait<T>(future: impl Future<Output = T>) -> T {
        tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(future)
    }

    fn ask(raw: &str, world: &Fake, policy: &str) -> Result<String, String> {
        let agent = agent(policy);
        let route = Route::Images(route::Images::Build);
        let verdict = wait(async {
            let query = query::parse(&route, Some(raw))?;
            judge(Ask { route, version: None, query, body: None, registry_auth: None }, &agent, world).await
        });
        match verdict.map_err(|refusal| refusal.message("test"))?.action {
            Action::Send(request) => Ok(request.query.encode()),
            Action::Answer(..) | Action::Progress(_) => panic!("{raw}"),
        }
    }

    #[test]
    fn the_query_is_rebuilt_with_what_must_hold() {
        let sent = ask(
            "t=new&t=acme/app:2&nocache=1&networkmode=net&rm=0&pull=1&cachefrom=[\"alpine\",\"mine:1\"]",
            &world(),
            POLICY,
        )
        .unwrap();
        assert_eq!(
            sent,
            "nocache=1&networkmode=net-id&rm=1\
             &labels=%7B%22com.buildkite.sockguard.owner%22:%22me%22%7D&forcerm=1&dockerfile=Dockerfile"
        );
        assert!(ask("networkmode=container:box", &world(), POLICY).unwrap().contains("networkmode=container:box-id"));
        assert!(ask("dockerfile=./a//b", &world(), POLICY).unwrap().contains("dockerfile=a/b"));
        let parent = "image = { allow = [\"build\"] }\ncontainer = { cgroup-parent = \"/agents/me\" }";
        assert!(ask("cgroupparent=/other", &world(), parent).unwrap().contains("cgroupparent=/agents/me"));
    }

    #[test]
    fn what_the_classic_builder_must_not_do_is_refused() {
        for raw in [
            "version=2",
            "session=x",
            "buildid=x",
            "outputs=[{\"Type\":\"moby\"}]",
            "remote=http://x",
            "squash=1",
            "isolation=hyperv",
            "securityopt=[\"seccomp=unconfined\"]",
            "extrahosts=a:1.2.3.4",
            "cgroupparent=/",
            "networkmode=host",
            "networkmode=container:theirs",
            "networkmode=theirnet",
            "networkmode=absent",
            "t=alpine",
            "t=their/app:1",
            "t=a@sha256:0",
            "t=A",
            "dockerfile=../x",
            "dockerfile=a/../../b",
            "labels={\"com.buildkite.sockguard.owner\":\"they\"}",
            "labels={\"com.amazonaws.ecs.task-arn\":\"x\"}",
            "labels=[]",
            "labels={\"a\":1}",
            "buildargs={\"a\":1}",
            "ulimits=[{\"Name\":\"nofile\",\"Other\":1}]",
        ] {
            assert!(ask(raw, &world(), POLICY).is_err(), "{raw}");
        }
        for fine in [
            "version=1",
            "squash=0",
            "outputs=[]",
            "securityopt=[]",
            "isolation=default",
            "networkmode=default",
            "buildargs={\"a\":null}",
        ] {
            assert!(ask(fine, &world(), POLICY).is_ok(), "{fine}");
        }
    }

    fn dockerfile(
        text: &str,
        world: &Fake,
        policy: &str,
        args: &[(&str, &str)],
        target: Option<&str>,
    ) -> Result<String, String> {
        cached(Cache::Used, text, world, policy, args, target)
    }

    fn cached(
        cache: Cache,
        text: &str,
        world: &Fake,
        policy: &str,
        args: &[(&str, &str)],
        target: Option<&str>,
    ) -> Result<String, String> {
        let rules = ContextRules {
            dockerfile: DOCKERFILE.to_owned(),
            args: args.iter().map(|(k, v)| ((*k).to_owned(), Some((*v).to_owned()))).collect(),
            target: target.map(str::to_owned),
            pull: false,
            platform: None,
            cache,
        };
        let agent = agent(policy);
        let pinned = wait(judge_dockerfile(text.as_bytes(), &rules, None, &agent, world))
            .map_err(|refusal| refusal.message("test"))?;
        Ok(String::from_utf8(pinned.text).unwrap())
    }

    #[test]
    fn images_are_pinned_where_they_are_named() {
        let (a, c, e) = (id('a'), id('c'), id('e'));
        let own = "LABEL com.buildkite.sockguard.owner=me";
        for (text, args, pinned) in [
            ("FROM alpine\nRUN x\n", &[][..], format!("FROM {a}\n{own}\nRUN x\n")),
            ("FROM scratch\nCOPY . /\n", &[], format!("FROM scratch\n{own}\nCOPY . /\n")),
            (
                "FROM alpine AS b\nFROM B\nCOPY --from=b /x /\nCOPY --from=0 /y /\nCOPY --from=mine:1 /z /\n",
                &[],
                format!("FROM {a} AS b\n{own}\nFROM B\nCOPY --from=b /x /\nCOPY --from=0 /y /\nCOPY --from={c} /z /\n"),
            ),
            ("ARG I=their/app\nFROM ${I:-x}:1\n", &[("I", "mine")], format!("ARG I=their/app\nFROM {c}\n")),
            ("ARG V=1\nARG I=mine:$V\nFROM $I as x\n", &[], format!("ARG V=1\nARG I=mine:$V\nFROM {c} as x\n")),
            ("FROM busybox:1\n", &[], format!("FROM {e}\n{own}\n")),
            ("FROM \\\n  alpine\nRUN x", &[], format!("FROM {a}\n{own}\nRUN x\n")),
            ("FROM scratch\n# why\n\nRUN x", &[], format!("FROM scratch\n{own}\n\nRUN x\n")),
            ("FROM scratch\nNOPE x", &[], "FROM scratch\nNOPE x".to_owned()),
        ] {
            assert_eq!(dockerfile(text, &world(), POLICY, args, None), Ok(pinned), "{text}");
        }
    }

    #[test]
    fn steps_on_what_another_built_are_ones_own() {
        let mut world = world();
        assert!(dockerfile("FROM their/app:1", &world, POLICY, &[], None).is_err());
        let registry = BTreeMap::from([("their/app:1".to_owned(), id('1').to_string())]);
        world.images.get_mut("their/app:1").unwrap().digests =
            vec![Reference::parse("their/app").unwrap().with_digest(id('1').as_str())];
        let served = Fake { served: registry, images: world.images.clone(), ..Fake::default() };
        assert!(dockerfile("FROM their/app:1", &served, POLICY, &[], None).is_ok());
        world.images.get_mut("their/app:1").unwrap().brought = true;
        let text = dockerfile("FROM their/app:1 AS \\\n b\nRUN x\n", &world, POLICY, &[], None).unwrap();
        let label = "LABEL com.buildkite.sockguard.owner=me";
        assert_eq!(text, format!("FROM {} AS  b\n{label}\nRUN x\n", id('d')));
    }

    #[test]
    fn what_a_dockerfile_must_not_do_is_refused() {
        for text in [
            "FROM their/app:1",
            "FROM docker.io/their/app:1",
            "FROM dddddddd",
            "FROM alpine\nCOPY --from=their/app:1 / /",
            "FROM alpine\ncopy --from=\"their/app:1\" / /",
            "FROM alpine AS b\nCOPY --from=b / /",
            "ARG I=their/app:1\nFROM $I",
            "FROM alpine\nFROM absent:1",
            "FROM ghcr.io/x",
            "FROM alpine\nADD http://169.254.169.254/ /",
            "FROM alpine\nADD [\"https://x/\", \"/\"]",
            "FROM alpine\nARG U=http://x/\nADD $U /",
            "FROM alpine\nENV P=tp://x/\nADD ht$P /",
            "FROM alpine\nADD h\\ttp://x/ /",
            "FROM alpine\nONBUILD ADD http://x/ /\nFROM alpine",
            "FROM alpine AS a\nONBUILD ADD http://x/ /\nFROM a",
            "FROM alpine AS a\nONBUILD COPY --from=mine:1 / /\nFROM a",
            "FROM alpine\nLABEL com.buildkite.sockguard.owner=they",
            "FROM alpine\nARG K=com.buildkite.sockguard.owner\nLABEL $K=they",
            "FROM alpine\nONBUILD LABEL com.buildkite.sockguard.owner=they",
            "FROM alpine\nRUN <<EOF\nEOF",
        ] {
            let verdict = dockerfile(text, &world(), POLICY, &[], None);
            // A trigger in a stage that nothing builds on is judged where it runs.
            if text.ends_with("/ /\nFROM alpine") {
                assert!(verdict.is_ok(), "{text}");
            } else {
                assert!(verdict.is_err(), "{text}");
            }
        }
        let fine = "FROM alpine\nARG JAR=target/*.jar\nADD $JAR /app.jar\nARG L=org.x\nLABEL $L.y=1\n";
        assert!(dockerfile(fine, &world(), POLICY, &[], None).is_ok());
        assert!(dockerfile("FROM alpine AS a\nFROM their/app:1 AS b", &world(), POLICY, &[], Some("A")).is_ok());
    }

    #[test]
    fn what_a_base_image_triggers_is_judged_too() {
        let mut world = world();
        for (trigger, fine) in [
            ("RUN make", true),
            ("COPY . /", true),
            ("ADD http://x/ /", false),
            ("LABEL com.buildkite.sockguard.owner=they", false),
            ("COPY --from=their/app:1 / /", false),
            ("ADD $JAR /", false),
            ("FROM alpine", false),
        ] {
            let image = world.images.get_mut("mine:1").unwrap();
            image.on_build = vec![trigger.to_owned()];
            image.env = vec!["JAR=http://x/".to_owned()];
            assert_eq!(dockerfile("FROM mine:1", &world, POLICY, &[], None).is_ok(), fine, "{trigger}");
        }
        world.images.get_mut("mine:1").unwrap().on_build.clear();
        // What runs before the label must not be another's, nor come from everybody's cache.
        for (name, trigger, unused, used) in [
            ("alpine:latest", "RUN make", true, false),
            ("alpine:latest", "COPY . /", true, true),
            ("mine:1", "RUN make", true, true),
            ("their/app:1", "RUN make", false, false),
            ("their/app:1", "COPY . /", false, false),
        ] {
            let mut world = Fake { images: world.images.clone(), ..Fake::default() };
            let image = world.images.get_mut(name).unwrap();
            (image.on_build, image.brought) = (vec![trigger.to_owned()], true);
            let built = |cache| cached(cache, &format!("FROM {name}"), &world, POLICY, &[], None).is_ok();
            assert_eq!((built(Cache::Unused), built(Cache::Used)), (unused, used), "{name} {trigger}");
        }
        assert!(
            dockerfile("FROM mine:1\nARG JAR=x\nADD $JAR /", &world, POLICY, &[], None).is_err(),
            "the environment hides the argument"
        );
    }
}
