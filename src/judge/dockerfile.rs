//! Dockerfiles: what the instructions of a build, of `commit` changes and of `ONBUILD` triggers may do, and which images
//! they name. The variables of a Dockerfile are followed as far as they matter for that; where engines could read them in
//! different ways, the text is refused or written out.

use super::build::{Cache, ContextRules};
use super::images::{granted, may_pull, same_in_registry};
use super::{Agent, env, labels};
use crate::dockerfile::{self, Dockerfile, Instruction, UNKNOWN, Variables};
use crate::json::Value;
use crate::owner::{OWNER_LABEL, Standing};
use crate::policy::ImageOperation as Operation;
use crate::reference::{self, Parsed, Reference};
use crate::refusal::Refusal;
use crate::registry;
use crate::world::{Image, World};
use std::collections::BTreeMap;

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

/// The same on the newest engines only.
const NEWER_PROXY_ARGS: &[&str] = &["ALL_PROXY", "all_proxy"];

/// The engine sets this one itself where the base image does not.
const PATH: &str = "PATH";

/// The variables of a stage are at most so many bytes, those of all stages so many, and so many are worked through.
const STAGE_BYTES: usize = 256 << 10;
const HELD_BYTES: usize = 4 << 20;
const WORK_BYTES: usize = 64 << 20;

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
        held: 0,
        work: 0,
        labels: 0,
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
    /// The length of all of that.
    bytes: usize,
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
    /// The bytes that are held for all stages.
    held: usize,
    /// The bytes that were worked through.
    work: usize,
    /// The bytes of the labels.
    labels: usize,
}

impl<W: World> Builder<'_, W> {
    /// Judges an instruction. One without a place in the Dockerfile is an `ONBUILD` trigger.
    async fn instruction(&mut self, at: Option<usize>, instruction: &Instruction) -> Result<(), Refusal> {
        match instruction.keyword.as_str() {
            "from" => self.from(at, instruction).await,
            "arg" => self.arg(at, instruction),
            "env" => self.env(at, instruction),
            "label" => self.label(at, instruction),
            "copy" => self.copy(at, instruction).await,
            "add" => self.add(at, instruction),
            "onbuild" => {
                check_trigger(&instruction.args)?;
                self.hold(instruction.args.len())?;
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

    fn expand(&mut self, word: &str, env: &BTreeMap<String, String>) -> Result<String, Refusal> {
        let value = dockerfile::expand(word, self.escape, &Variables::Known(env))
            .map_err(|what| Refusal::malformed(format!("`{}`: {what}", short(word))))?;
        self.work(word.len() + value.len())?;
        Ok(value)
    }

    /// The same for what has to be known here.
    fn expand_known(&mut self, what: &str, word: &str, env: &BTreeMap<String, String>) -> Result<String, Refusal> {
        let value = self.expand(word, env)?;
        if value.contains(UNKNOWN) {
            return Err(depends(what, word));
        }
        Ok(value)
    }

    /// Counts what is worked through.
    fn work(&mut self, bytes: usize) -> Result<(), Refusal> {
        self.work = self.work.saturating_add(bytes);
        if self.work > WORK_BYTES { Err(too_much("the Dockerfile's variables", WORK_BYTES)) } else { Ok(()) }
    }

    /// Counts what is held for the current stage.
    fn hold(&mut self, bytes: usize) -> Result<(), Refusal> {
        self.held = self.held.saturating_add(bytes);
        if let Some(stage) = self.stages.last_mut() {
            stage.bytes = stage.bytes.saturating_add(bytes);
            if stage.bytes > STAGE_BYTES {
                return Err(too_much("the variables of a stage", STAGE_BYTES));
            }
        }
        if self.held > HELD_BYTES { Err(too_much("the variables of all stages", HELD_BYTES)) } else { Ok(()) }
    }

    /// The value of an argument, where it has one.
    fn argument(&self, name: &str, default: Option<&Option<String>>) -> Option<String> {
        let given = self.rules.args.get(name).cloned().flatten();
        given.or_else(|| default.cloned().flatten()).or_else(|| self.meta.get(name).cloned().flatten())
    }

    fn values(&self, args: &BTreeMap<String, Option<String>>) -> BTreeMap<String, String> {
        let names = args.keys().map(String::as_str).chain(PROXY_ARGS.iter().copied());
        let mut values: BTreeMap<String, String> =
            names.filter_map(|name| Some((name.to_owned(), self.argument(name, args.get(name))?))).collect();
        for name in NEWER_PROXY_ARGS.iter().filter(|name| !args.contains_key(**name)) {
            if self.argument(name, None).is_some() {
                values.insert((*name).to_owned(), UNKNOWN.to_string());
            }
        }
        values
    }

    /// The variables of the current stage: its environment, and the arguments that this does not hide.
    fn variables(&mut self) -> Result<BTreeMap<String, String>, Refusal> {
        let all = match self.stages.last() {
            None => self.values(&self.meta),
            Some(stage) => {
                let mut all = self.values(&stage.args);
                all.extend(stage.env.clone());
                all
            }
        };
        // An entry costs more than its bytes.
        self.work(all.iter().map(|(name, value)| name.len() + value.len() + 64).sum())?;
        Ok(all)
    }

    fn arg(&mut self, at: Option<usize>, instruction: &Instruction) -> Result<(), Refusal> {
        let env = self.variables()?;
        for (name, value) in instruction.pairs(self.parsing(at)).map_err(Refusal::malformed)? {
            let name = self.expand(&name, &env)?;
            let value = value.map(|value| self.expand(&value, &env)).transpose()?;
            self.hold(name.len() + value.as_ref().map_or(0, String::len))?;
            match self.stages.last_mut() {
                Some(stage) => stage.args.insert(name, value),
                None => self.meta.insert(name, value),
            };
        }
        Ok(())
    }

    fn env(&mut self, at: Option<usize>, instruction: &Instruction) -> Result<(), Refusal> {
        let env = self.variables()?;
        for (name, value) in instruction.pairs(self.parsing(at)).map_err(Refusal::malformed)? {
            let (name, value) = (self.expand(&name, &env)?, self.expand(&value.unwrap_or_default(), &env)?);
            self.hold(name.len() + value.len())?;
            env::name("ENV", &name, self.agent)?;
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
        let wanted = self.expand_known("FROM", base, &meta)?;
        let mut stage = Stage { name, ..Stage::default() };
        let mut triggers = Vec::new();
        if let Some(earlier) = self.stage(&wanted) {
            (stage.env, triggers) = (earlier.env.clone(), earlier.on_build.clone());
            self.named_literally(at, instruction, base, &wanted)?;
        } else if wanted != "scratch" {
            let platform = match instruction.flag("platform").last() {
                Some(platform) => Some(self.expand_known("FROM --platform", platform, &meta)?),
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
            stage.env = environment(&image.env);
            triggers = image.on_build;
        } else {
            self.named_literally(at, instruction, base, &wanted)?;
            self.own(at);
        }
        stage.env.entry(PATH.to_owned()).or_insert_with(|| UNKNOWN.to_string());
        let inherited = stage.env.iter().map(|(name, value)| name.len() + value.len()).sum();
        self.stages.push(stage);
        self.hold(inherited)?;
        for trigger in triggers {
            self.work(trigger.len() + 64)?;
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

    /// Has the engine read a base that was named with variables as it was read here.
    fn named_literally(
        &mut self,
        at: Option<usize>,
        instruction: &Instruction,
        base: &str,
        wanted: &str,
    ) -> Result<(), Refusal> {
        if base == wanted {
            return Ok(());
        }
        if !plain_word(wanted) {
            return Err(write_out("FROM", base));
        }
        let rest = instruction.args.strip_prefix(base).unwrap_or_default();
        self.rewrite(at, instruction, instruction.flags.clone(), format!("{wanted}{rest}"))
    }

    /// The names of labels may depend on variables. They are written out for the engine, so that no difference between
    /// its variables and those here matters.
    fn label(&mut self, at: Option<usize>, instruction: &Instruction) -> Result<(), Refusal> {
        let env = self.variables()?;
        let parting = self.parsing(at);
        check_labels_in(instruction, parting, self.escape, &Variables::Known(&env))?;
        let longest = env.values().map(String::len).max().unwrap_or_default();
        let mut names = Vec::new();
        let mut variable = false;
        for (name, value) in instruction.pairs(parting).map_err(Refusal::malformed)? {
            let value = value.unwrap_or_default();
            let resolved = self.expand_known("LABEL", &name, &env)?;
            // Of a value that only newer engines expand the length is not known, but for its bound.
            let length = match self.expand(&value, &env) {
                Ok(value) => value.len(),
                Err(_) => value.len().saturating_add(value.matches('$').count().saturating_mul(longest)),
            };
            self.labels = self.labels.saturating_add(resolved.len()).saturating_add(length);
            if self.labels > labels::MOST_BYTES {
                return Err(too_much("the labels of the Dockerfile", labels::MOST_BYTES));
            }
            if name.contains('$') {
                variable = true;
                if !plain_word(&resolved) || resolved.contains('=') {
                    return Err(write_out("LABEL", &name));
                }
                names.push(resolved);
            } else {
                names.push(name);
            }
        }
        if variable {
            let args = instruction.renamed(parting, &names).map_err(Refusal::malformed)?;
            self.rewrite(at, instruction, instruction.flags.clone(), args)?;
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
        // A number as the engine reads one; longer ones it takes for an image's name.
        let number = from.parse::<i64>().ok();
        if is_stage || number.is_some_and(|n| usize::try_from(n).is_ok_and(|n| n < earlier.len())) {
            return Ok(());
        }
        if number.is_some() {
            return Err(Refusal::malformed(format!("invalid from flag value {from}: there is no such stage before")));
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

    fn add(&mut self, at: Option<usize>, instruction: &Instruction) -> Result<(), Refusal> {
        if self.agent.policy.image.build_add_remote {
            return Ok(());
        }
        let env = self.variables()?;
        let mut paths = instruction.paths().map_err(Refusal::malformed)?;
        let mut variable = false;
        for source in paths.split_last_mut().map(|(_, sources)| sources).unwrap_or_default() {
            let resolved = self.expand_known("ADD", source, &env)?;
            let lower = resolved.to_ascii_lowercase();
            let remote =
                ["http:", "https:", "ftp:", "git:", "ssh:", "git@"].iter().any(|scheme| lower.starts_with(scheme));
            if remote {
                // As it was written: the values of arguments may be secret.
                let written = Value::from(registry::without_secrets(source));
                return Err(Refusal::not_allowed("ADD", &written, "image.build-add-remote")
                    .hint("the engine would fetch it from the host; fetch it with RUN, or beforehand"));
            }
            if source.contains('$') {
                let spaces = resolved.chars().any(char::is_whitespace);
                if resolved.is_empty()
                    || !resolved.split(char::is_whitespace).all(|word| word.is_empty() || plain_word(word))
                {
                    return Err(write_out("ADD", source));
                }
                variable |= spaces || *source != resolved;
                *source = resolved;
            }
        }
        if variable {
            let words = instruction.args.starts_with('[') || paths.iter().any(|path| path.contains([' ', '\t']));
            let args = match (words, paths.first().is_some_and(|first| first.starts_with('['))) {
                (false, false) => paths.join(" "),
                _ => paths.into_iter().collect::<Value>().to_string(),
            };
            self.rewrite(at, instruction, instruction.flags.clone(), args)?;
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
        self.rewrite(at, instruction, flags, args)?;
        if at.is_some() {
            self.names.push((id.to_owned(), name.to_owned()));
        }
        Ok(())
    }

    /// Has the engine given these flags and arguments in place of the instruction's.
    fn rewrite(
        &mut self,
        at: Option<usize>,
        instruction: &Instruction,
        flags: Vec<String>,
        args: String,
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
        }
        Ok(())
    }

    /// An image that the build may use: own, shared, or pulled for it.
    async fn image(&self, name: &str, platform: Option<&str>) -> Result<Image, Refusal> {
        let parsed = reference::parse_any(name).map_err(|what| Refusal::malformed(format!("`{name}`: {what}")))?;
        let here = match (self.world.image(name).await?, &parsed) {
            // A pull would take the name from the other, if it brought something else.
            (Some(image), _) if image.pulled && !self.rules.pull && image.fits(platform) => Some(image),
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
            (Parsed::Name(_), Some(image)) if !self.rules.pull && image.fits(platform) => {
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
        if !granted || !image.fits(platform) {
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

/// An image's environment. What is there twice, or without a value, engines read in different ways.
fn environment(pairs: &[String]) -> BTreeMap<String, String> {
    let mut env = BTreeMap::new();
    for pair in pairs {
        let (name, value) = pair.split_once('=').map_or((pair.as_str(), None), |(name, value)| (name, Some(value)));
        let value = match value {
            Some(value) if env.get(name).is_none_or(|known| known == value) => value.to_owned(),
            Some(_) | None => UNKNOWN.to_string(),
        };
        env.insert(name.to_owned(), value);
    }
    env
}

/// Is it read as it stands, by any engine and with any escape character?
fn plain_word(word: &str) -> bool {
    !word.is_empty()
        && !word
            .chars()
            .any(|c| c.is_control() || c.is_whitespace() || matches!(c, '$' | '"' | '\'' | '\\' | '`') || c == UNKNOWN)
}

fn short(word: &str) -> String {
    word.chars().take(80).collect()
}

fn depends(what: &str, word: &str) -> Refusal {
    Refusal::malformed(format!(
        "{what} `{}` depends on a variable that the engine may set by itself; write it out",
        short(word)
    ))
}

fn write_out(what: &str, word: &str) -> Refusal {
    Refusal::malformed(format!("{what} `{}` cannot be read in one way; write it without variables", short(word)))
}

fn too_much(what: &str, bytes: usize) -> Refusal {
    Refusal::TooLarge { message: format!("{what} are more than {bytes} bytes") }
}

/// The engine's words for an image that is neither here nor in a registry.
fn denied(reference: &Reference) -> Refusal {
    Refusal::absent(format!(
        "pull access denied for {}, repository does not exist or may require 'docker login': denied: requested access to the resource is denied",
        reference.familiar_name()
    ))
}

/// Checks the variables that an instruction sets.
///
/// # Errors
/// One that the policy keeps out.
pub fn check_env(
    instruction: &Instruction,
    escape: char,
    variables: &Variables<'_>,
    agent: &Agent,
) -> Result<(), Refusal> {
    for (name, _) in instruction.pairs(escape).map_err(Refusal::malformed)? {
        let name = dockerfile::expand(&name, escape, variables)
            .map_err(|what| Refusal::malformed(format!("ENV `{}`: {what}", short(&name))))?;
        env::name("ENV", &name, agent)?;
    }
    Ok(())
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
            .map_err(|what| Refusal::malformed(format!("LABEL `{}`: {what}", short(&name))))?;
        let reserved = match key.split_once(UNKNOWN) {
            None => labels::reserved(&key),
            Some((begin, _)) => {
                labels::RESERVED.iter().any(|prefix| begin.starts_with(prefix) || prefix.starts_with(begin))
            }
        };
        if reserved {
            let key = short(&key.replace(UNKNOWN, "$…"));
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
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::super::testing::{Fake, agent, id, wait};
    use super::*;
    use crate::judge::build::DOCKERFILE;

    const POLICY: &str = r#"image = { allow = ["build", "pull"], pull = ["docker.io/*"], tags = ["*/*"] }"#;

    fn world() -> Fake {
        let pulled = Fake::default().image("busybox:1", 'e', None).images;
        Fake { registry: pulled, ..Fake::default() }
            .image("alpine:latest", 'a', None)
            .image("mine:1", 'c', Some("me"))
            .image("their/app:1", 'd', Some("they"))
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
        world.images.get_mut("their/app:1").unwrap().digests = vec![format!("their/app@{}", id('1'))];
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
            "FROM alpine\nLABEL ${PATH:+com.buildkite.sockguard.owner}=they",
            "FROM alpine\nLABEL ${PATH:-x}=they",
            "FROM alpine\nENV A=${PATH:+com.buildkite.sockguard.owner}\nLABEL $A=they",
            "FROM alpine AS b\nFROM b\nLABEL ${PATH:+com.buildkite.sockguard.owner}=they",
            "FROM scratch\nLABEL ${PATH:+com.buildkite.sockguard.owner}=they",
            "FROM alpine\nARG PATH\nLABEL ${PATH:+com.buildkite.sockguard.owner}=they",
            "FROM alpine\nADD ${PATH:+http://127.0.0.1/} /",
            "FROM alpine\nADD [\"${PATH:+http://127.0.0.1/}\", \"/\"]",
            "FROM alpine\nONBUILD ADD ${PATH:+http://127.0.0.1/} /\nFROM alpine\nADD $PATH /",
            "FROM alpine\nARG A='a b'\nLABEL $A=x",
            "FROM alpine\nARG A=\"it's\"\nADD $A /",
            "FROM alpine\nCOPY --from=1 / /",
            "FROM alpine\nCOPY --from=0 / /",
            "FROM alpine\nCOPY --from=-1 / /",
            "FROM alpine\nCOPY --from=99999999999999999999 / /",
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
    fn what_stands_in_variables_is_written_out() {
        let (a, own) = (id('a'), "LABEL com.buildkite.sockguard.owner=me");
        for (text, pinned) in [
            ("ARG L=org.x\nLABEL $L.y=1 b=\"$L 2\"\n", "ARG L=org.x\nLABEL org.x.y=1 b=\"$L 2\"\n"),
            ("ARG L=org.x\nLABEL ${L}.y one $L\n", "ARG L=org.x\nLABEL org.x.y one $L\n"),
            ("ARG J=t/*.jar\nADD --chown=$U $J b /app/\n", "ARG J=t/*.jar\nADD --chown=$U t/*.jar b /app/\n"),
            ("ENV D='a b'\nADD [\"$D/c\", \"$D\"]\n", "ENV D='a b'\nADD [\"a b/c\",\"$D\"]\n"),
            ("ENV PATH=/bin\nADD x$PATH /\n", "ENV PATH=/bin\nADD x/bin /\n"),
        ] {
            let text = dockerfile(&format!("FROM alpine\n{text}"), &world(), POLICY, &[], None);
            assert_eq!(text, Ok(format!("FROM {a}\n{own}\n{pinned}")));
        }
        let text = "ARG B=base\nFROM alpine AS base\nFROM ${B} AS c\nFROM ${X:-scratch}\n";
        assert_eq!(
            dockerfile(text, &world(), POLICY, &[], None),
            Ok(format!("ARG B=base\nFROM {a} AS base\n{own}\nFROM base AS c\nFROM scratch\n{own}\n"))
        );
    }

    #[test]
    fn what_engines_read_differently_is_not_known() {
        let mut world = world();
        for (env, label, fine) in [
            (&["A=x", "PATH=/"][..], "LABEL $A=1 ${PATH:+y}=2", true),
            (&["A=x", "A=com.buildkite.sockguard.owner"], "LABEL $A=1", false),
            (&["A=x", "A=x"], "LABEL $A=1", true),
            (&["A"], "LABEL ${A+com.buildkite.sockguard.owner}=1", false),
        ] {
            let env = env.iter().map(|pair| (*pair).to_owned()).collect();
            world.images.get_mut("mine:1").unwrap().env = env;
            let text = format!("FROM mine:1\n{label}");
            assert_eq!(dockerfile(&text, &world, POLICY, &[], None).is_ok(), fine, "{text}");
        }
        // Newer engines alone have this one without `ARG`.
        let args = [("ALL_PROXY", "x")];
        let label = "LABEL ${ALL_PROXY:-com.buildkite.sockguard.owner}=1";
        assert!(dockerfile(&format!("FROM alpine\n{label}"), &world, POLICY, &args, None).is_err());
        assert!(dockerfile(&format!("FROM alpine\nARG ALL_PROXY\n{label}"), &world, POLICY, &args, None).is_ok());
    }

    #[test]
    fn variables_and_labels_are_bounded() {
        let refused = |text: &str| {
            let text = dockerfile(&format!("FROM alpine\n{text}"), &world(), POLICY, &[], None);
            text.err().is_some_and(|why| why.contains(" bytes"))
        };
        assert!(refused(&format!("ARG A=aaaaaaaaaaaaaaaa\n{}", "ARG A=$A$A\n".repeat(40))));
        let sixty = format!("ARG A={}\n", "x".repeat(60 << 10));
        assert!(!refused(&sixty));
        assert!(refused(&format!("{sixty}{}", "ENV B=$A\nENV C=$A\nENV D=$A\nENV E=$A\n")));
        assert!(refused(&format!("{sixty}LABEL a=$A b=$A c=$A d=$A e=$A\n")));
        assert!(refused(&format!("{sixty}{}", "LABEL a=1\n".repeat(4000))), "too much work");
        let stages = "FROM a AS b\n".repeat(200);
        let text = format!("FROM alpine AS a\n{sixty}ENV B=$A\n{stages}");
        assert!(dockerfile(&text, &world(), POLICY, &[], None).is_err());
        let deep = format!("FROM {}x{}", "${a:-".repeat(100_000), "}".repeat(100_000));
        assert!(dockerfile(&deep, &world(), POLICY, &[], None).is_err());
    }

    #[test]
    fn refusals_show_no_secret() {
        let text = "FROM alpine\nARG TOKEN\nADD https://$TOKEN@host/x?t=$TOKEN /x";
        let why = dockerfile(text, &world(), POLICY, &[("TOKEN", "hunter2")], None).unwrap_err();
        assert!(why.contains("https://host/x") && !why.contains("hunter2"), "{why}");
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
