//! Images: own and shared ones can be used, own ones removed, and a name is never taken from somebody else.

use super::dockerfile::{check_env, check_labels, check_trigger};
use super::labels;
use super::system::{BUILDKIT, known_filters, own_only};
use super::{Agent, Ask, build, env};
use crate::dockerfile::{self, Variables};
use crate::json::{Object, Value};
use crate::owner::{OWNER_LABEL, Standing};
use crate::permit::{Action, Answer, Payload, Permit, Progress, RegistryAuth, Step, Verdict, View};
use crate::policy::{self, ImageOperation as Operation, SystemOperation};
use crate::query::{Param, Query};
use crate::reference::{self, Parsed, Reference};
use crate::refusal::Refusal;
use crate::registry;
use crate::route::{Images, Name, percent_encode};
use crate::schema::{self, Field, Shape, Treat, field};
use crate::world::{Image, World};
use hyper::StatusCode;
use std::collections::BTreeSet;

/// What an image archive must keep to.
#[derive(Debug, Clone, PartialEq)]
pub struct ArchiveRules {
    /// What kind of archive it is.
    pub form: ArchiveForm,
    /// The largest that is taken.
    pub max_bytes: u64,
}

/// The kinds of archives.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ArchiveForm {
    /// Images with their tags and labels (`docker load`): inspected.
    Images,
    /// A file system (`docker import`): only its size is looked at.
    FileSystem,
}

/// Where a policy states no limit.
const MAX_ARCHIVE: u64 = 16 << 30;

/// From this API version on engines keep images in containerd, if they were not set up before.
pub const CONTAINERD: (u32, u32) = (1, 52);

/// The body of `POST /commit`: the configuration of the new image.
pub static COMMIT: &[Field] = &[
    field("Hostname", Treat::Plain(Shape::Text)),
    field("Domainname", Treat::Plain(Shape::Text)),
    field("User", Treat::Plain(Shape::Text)),
    field("AttachStdin", Treat::Plain(Shape::Bool)),
    field("AttachStdout", Treat::Plain(Shape::Bool)),
    field("AttachStderr", Treat::Plain(Shape::Bool)),
    field("ExposedPorts", Treat::Plain(Shape::Set)),
    field("Tty", Treat::Plain(Shape::Bool)),
    field("OpenStdin", Treat::Plain(Shape::Bool)),
    field("StdinOnce", Treat::Plain(Shape::Bool)),
    field("Env", Treat::Plain(Shape::Texts)),
    field("Cmd", Treat::Plain(Shape::Words)),
    field(
        "Healthcheck",
        Treat::Object(&[
            field("Test", Treat::Plain(Shape::Texts)),
            field("Interval", Treat::Plain(Shape::Int)),
            field("Timeout", Treat::Plain(Shape::Int)),
            field("StartPeriod", Treat::Plain(Shape::Int)),
            field("StartInterval", Treat::Plain(Shape::Int)),
            field("Retries", Treat::Plain(Shape::Int)),
        ]),
    ),
    field("ArgsEscaped", Treat::Plain(Shape::Bool)),
    // The engine takes the image of the container.
    field("Image", Treat::Plain(Shape::Text)),
    field("Volumes", Treat::Plain(Shape::Set)),
    field("WorkingDir", Treat::Plain(Shape::Text)),
    field("Entrypoint", Treat::Plain(Shape::Words)),
    field("NetworkDisabled", Treat::Plain(Shape::Bool)),
    field("MacAddress", Treat::Plain(Shape::Text)),
    field("OnBuild", Treat::Judged(Shape::Texts)),
    field("Labels", Treat::Judged(Shape::TextMap)),
    field("StopSignal", Treat::Plain(Shape::Text)),
    field("StopTimeout", Treat::Plain(Shape::Int)),
    field("Shell", Treat::Plain(Shape::Texts)),
];

/// Judges a request on images.
pub async fn judge(route: Images, mut ask: Ask, agent: &Agent, world: &impl World) -> Verdict {
    match &route {
        Images::List => {
            granted(Operation::Read, agent)?;
            known_filters(&ask.query, &["dangling", "label", "label!", "before", "since", "until", "reference"])?;
            let mut filters = ask.query.filters();
            for key in ["before", "since"] {
                if let [name, ..] = filters.values(key) {
                    let image = usable(name, agent, world).await?;
                    filters.set(key, vec![image.id.as_str().to_owned()]);
                    ask.query.set("filters", Param::Filters(filters.clone()));
                }
            }
            Ok(forward(ask, "/images/json").showing(Answer::View(View::ImageList)))
        }
        Images::Inspect(name) => {
            granted(Operation::Read, agent)?;
            let image = match usable(name.as_str(), agent, world).await {
                Err(Refusal::Absent { message }) if world.api_version().await? < (1, 42) => {
                    return Err(Refusal::absent(format!("no such image: {name}: {message}")));
                }
                image => image?,
            };
            Ok(forward(ask, &format!("/images/{}/json", image.id)).showing(Answer::View(View::Image)))
        }
        Images::History(name) => {
            granted(Operation::Read, agent)?;
            let image = usable(name.as_str(), agent, world).await?;
            Ok(forward(ask, &format!("/images/{}/history", image.id)).showing(Answer::View(View::ImageHistory)))
        }
        Images::Attestations(name) => {
            granted(Operation::Read, agent)?;
            let image = usable(name.as_str(), agent, world).await?;
            Ok(forward(ask, &format!("/images/{}/attestations", image.id)))
        }
        Images::Create => match (ask.query.text("fromImage"), ask.query.text("fromSrc")) {
            (Some(_), None) => pull(ask, agent, world).await,
            (None, Some("-")) => import(ask, agent, world).await,
            (None, Some(url)) => Err(Refusal::never(
                "fromSrc",
                &Value::from(registry::without_secrets(url)),
                "the engine would fetch it from the host; send the archive with `-`",
            )),
            (None, None) => Err(Refusal::malformed("one of the query parameters fromImage and fromSrc must be given")),
            (Some(_), Some(_)) => {
                Err(Refusal::malformed("only one of the query parameters fromImage and fromSrc can be given"))
            }
        },
        Images::Push(name) => push(name, ask, agent, world).await,
        Images::Tag(name) => {
            granted(Operation::Tag, agent)?;
            let image = usable(name.as_str(), agent, world).await?;
            let target =
                target(&ask.query)?.ok_or_else(|| Refusal::malformed("the query parameter repo must be given"))?;
            may_take(&target, agent, world).await?;
            set_target(&mut ask.query, &target);
            let mut permit = forward(ask, &format!("/images/{}/tag", image.id));
            permit.after.push(Step::Gave { name: target.or_latest(), image: image.id });
            Ok(permit)
        }
        Images::Delete(name) => delete(name, ask, agent, world).await,
        Images::Search => {
            granted(Operation::Search, agent)?;
            known_filters(&ask.query, &["is-automated", "is-official", "stars"])?;
            let term = ask.query.text("term").unwrap_or_default();
            let (domain, _) = reference::split_domain(term);
            if !policy::any(&agent.policy.image.registries, domain) {
                return Err(Refusal::not_allowed("the registry", &Value::from(domain), "image.registries"));
            }
            Ok(forward(ask, "/images/search").with_auth(RegistryAuth::Auth))
        }
        Images::Prune => {
            granted(Operation::Remove, agent)?;
            known_filters(&ask.query, &["dangling", "label", "label!", "until"])?;
            own_only(&mut ask.query, agent);
            Ok(rewritten(forward(ask, "/images/prune")))
        }
        Images::Commit => commit(ask, agent, world).await,
        Images::Save(name) => {
            granted(Operation::Save, agent)?;
            let name = saved(name.as_str(), agent, world).await?;
            Ok(forward(ask, &format!("/images/{}/get", encoded(&name))))
        }
        Images::SaveMany => {
            granted(Operation::Save, agent)?;
            let mut names = Vec::new();
            for name in ask.query.list("names") {
                names.push(saved(name, agent, world).await?);
            }
            ask.query.set("names", Param::List(names));
            Ok(forward(ask, "/images/get"))
        }
        Images::Load => {
            granted(Operation::Load, agent)?;
            let rules = ArchiveRules { form: ArchiveForm::Images, max_bytes: max_archive(agent) };
            Ok(forward(ask, "/images/load")
                .with(Payload::Archive(rules))
                .showing(Answer::Loaded { loads: Vec::new(), known: BTreeSet::new() }))
        }
        Images::Distribution(name) => {
            if !agent.policy.system.grants(SystemOperation::Distribution) {
                return Err(Refusal::operation("asking a registry for an image", "system.allow: \"distribution\""));
            }
            let reference = named(name.as_str())?;
            if !policy::any(&agent.policy.image.registries, reference.domain()) {
                return Err(Refusal::not_allowed("the registry", &Value::from(reference.domain()), "image.registries"));
            }
            Ok(forward(ask, &format!("/distribution/{}/json", encoded(name.as_str()))).with_auth(RegistryAuth::Auth))
        }
        Images::Build => build::judge(ask, agent, world).await,
        Images::BuildPrune => {
            granted(Operation::Remove, agent)?;
            // What the classic builder caches are images, and the rest of the cache is everybody's.
            Ok(Permit::made(
                StatusCode::OK,
                Value::from([("CachesDeleted", Value::Null), ("SpaceReclaimed", Value::from(0))]),
            ))
        }
        Images::BuildCancel => Err(Refusal::operation("POST /build/cancel", "").hint(BUILDKIT)),
    }
}

/// Is this operation granted?
///
/// # Errors
/// What to add to the policy, if not.
pub fn granted(operation: Operation, agent: &Agent) -> Result<(), Refusal> {
    if agent.policy.image.grants(operation) {
        return Ok(());
    }
    let (what, key) = match operation {
        Operation::Read => ("reading images", "image.allow: \"read\""),
        Operation::Pull => ("pulling images", "image.allow: \"pull\""),
        Operation::Push => ("pushing images", "image.allow: \"push\""),
        Operation::Build => ("building images", "image.allow: \"build\""),
        Operation::Commit => ("committing containers", "image.allow: \"commit\""),
        Operation::Load => ("loading images", "image.allow: \"load\""),
        Operation::Import => ("importing images", "image.allow: \"import\""),
        Operation::Save => ("saving images", "image.allow: \"save\""),
        Operation::Tag => ("tagging images", "image.allow: \"tag\""),
        Operation::Remove => ("removing images", "image.allow: \"remove\""),
        Operation::Search => ("searching registries", "image.allow: \"search\""),
    };
    Err(Refusal::operation(what, key))
}

/// The engine's words for an image that is not there.
pub fn absent_image(reference: &str) -> String {
    match reference::parse_any(reference) {
        Ok(Parsed::Id(id)) => format!("No such image: {id}"),
        Ok(Parsed::Name(name)) => format!("No such image: {}", name.or_latest()),
        Err(_) => format!("No such image: {reference}"),
    }
}

/// An image that may be used: own or shared.
///
/// # Errors
/// For a foreign image the same as for an absent one.
pub async fn usable(reference: &str, agent: &Agent, world: &impl World) -> Result<Image, Refusal> {
    if let Err(what) = reference::parse_any(reference) {
        return Err(Refusal::malformed(format!("`{}`: {what}", shown(reference))));
    }
    match world.image(reference).await? {
        Some(image) if image.standing(&agent.owner) != Standing::Foreign => Ok(image),
        Some(_) | None => Err(Refusal::absent(absent_image(reference))),
    }
}

/// May an image of this agent's be given this name? It may be free or held by an own image; a shared one gives it up
/// only where the policy says so, and a foreign one never.
///
/// # Errors
/// Who is in the way, but not whose it is.
pub async fn may_take(name: &Reference, agent: &Agent, world: &impl World) -> Result<(), Refusal> {
    let name = name.clone().or_latest();
    let tag = Value::from(name.to_string());
    let Some(image) = world.image(&format!("{}:{}", name.full_name(), name.tag().unwrap_or("latest"))).await? else {
        return Ok(());
    };
    match image.standing(&agent.owner) {
        Standing::Own => Ok(()),
        // Its builder may have given it the name as well.
        Standing::Shared if image.labelled() => Err(Refusal::never("taking the tag", &tag, "it is in use")),
        Standing::Shared if image.brought || policy::any(&agent.policy.image.tags, &name.familiar_name()) => Ok(()),
        Standing::Shared => {
            Err(Refusal::not_allowed("taking the tag", &tag, "image.tags").hint("an image that nobody owns holds it"))
        }
        Standing::Foreign => Err(Refusal::never("taking the tag", &tag, "it is in use")),
    }
}

/// A reference by name.
///
/// # Errors
/// The engine's words for a reference that is none.
pub fn named(text: &str) -> Result<Reference, Refusal> {
    Reference::parse(text).map_err(|what| Refusal::malformed(format!("`{}`: {what}", shown(text))))
}

/// Checks the `changes` of a commit or an import, or the `ONBUILD` triggers of a body: Dockerfile instructions that
/// must not set a reserved label, by themselves or when somebody builds on the image, nor a variable that the policy keeps
/// out.
///
/// # Errors
/// What is wrong, or the label or variable.
pub fn check_changes(text: &str, agent: &Agent) -> Result<(), Refusal> {
    if text.len() > labels::MOST_BYTES {
        return Err(labels::too_many("changes"));
    }
    let file = dockerfile::parse(text.as_bytes())
        .map_err(|what| Refusal::malformed(what.replace("the Dockerfile", "changes")))?;
    for instruction in &file.instructions {
        match instruction.keyword.as_str() {
            "label" => check_labels(instruction, file.escape, &Variables::Unknown)?,
            "onbuild" => check_trigger(&instruction.args)?,
            "env" => check_env(instruction, file.escape, &Variables::Unknown, agent)?,
            "cmd" | "entrypoint" | "healthcheck" | "expose" | "user" | "volume" | "workdir" | "stopsignal"
            | "shell" => {}
            other => return Err(Refusal::malformed(format!("{} is not a valid change command", other.to_uppercase()))),
        }
    }
    Ok(())
}

async fn pull(mut ask: Ask, agent: &Agent, world: &impl World) -> Verdict {
    granted(Operation::Pull, agent)?;
    let image = ask.query.text("fromImage").unwrap_or_default();
    // The engine forgives a colon without a tag.
    let given = named(image.strip_suffix(':').unwrap_or(image))?;
    let name = match ask.query.text("tag") {
        Some(tag) => tagged(given, tag)?,
        None => given,
    };
    for parameter in ["repo", "message", "changes"] {
        if ask.query.remove(parameter).is_some() {
            return Err(Refusal::malformed(format!("the query parameter {parameter} has no meaning for a pull")));
        }
    }
    if name.tag().is_none() && name.digest().is_none() {
        let hint = "name the tag; the other tags of the repository may belong to others";
        return Err(Refusal::never("pulling every tag of", &Value::from(name.to_string()), hint));
    }
    may_pull(&name, agent)?;
    let here = match world.image(&name.to_string()).await? {
        Some(image) if image.anothers(&agent.owner) => {
            let fits = image.fits(ask.query.text("platform"));
            let credentials = ask.registry_auth.as_deref();
            if fits && let Some(digest) = same_in_registry(&name, &image, credentials, world).await? {
                return Ok(pulled_already(&name, &digest, image));
            }
            return Err(Refusal::never("pulling", &Value::from(name.to_string()), "the tag is in use"));
        }
        here => here,
    };
    let version = name.digest().or(name.tag()).unwrap_or("latest").to_owned();
    ask.query.set("fromImage", Param::Text(name.full_name()));
    ask.query.set("tag", Param::Text(version));
    let mut permit = forward(ask, "/images/create").with_auth(RegistryAuth::Auth);
    if here.is_none() {
        permit.after.push(Step::Brought { name, known: BTreeSet::new() });
    }
    Ok(permit)
}

/// The digest by which an image that is here is what its registry has under a name, if it is: then a pull for a client
/// with these credentials would change nothing.
///
/// # Errors
/// When the engine cannot be asked.
pub async fn same_in_registry(
    name: &Reference,
    image: &Image,
    credentials: Option<&str>,
    world: &impl World,
) -> Result<Option<String>, Refusal> {
    let digest = world.registry_digest(name, credentials).await?;
    Ok(digest.filter(|digest| image.is_in_registry(&name.clone().with_digest(digest))))
}

/// What the engine says of a pull that changes nothing. It is not asked: what the registry has under the name could be
/// another image by then.
fn pulled_already(name: &Reference, digest: &str, image: Image) -> Permit {
    let version = name
        .digest()
        .map_or_else(|| name.tag().unwrap_or("latest").to_owned(), |digest| format!("{}@{digest}", name.full_name()));
    let status = |text: String| Value::from([("status", Value::from(text))]);
    let begin = [("status", Value::from(format!("Pulling from {}", name.path()))), ("id", Value::from(version))];
    let mut permit = Permit::made(StatusCode::OK, Value::Null);
    permit.action = Action::Progress(vec![
        Value::from(begin),
        status(format!("Digest: {digest}")),
        status(format!("Status: Image is up to date for {name}")),
    ]);
    permit.after.push(Step::Pulled { image: image.id });
    permit
}

/// May this name be pulled?
///
/// # Errors
/// The policy's key.
pub fn may_pull(name: &Reference, agent: &Agent) -> Result<(), Refusal> {
    let full = name.full_name();
    if full == "docker.io/moby/buildkit" {
        // What buildx does when BuildKit in the engine is not to be had; this is the one answer that it shows.
        return Err(Refusal::never("pulling", &Value::from(name.to_string()), BUILDKIT));
    }
    if policy::any(&agent.policy.image.pull, &full) {
        return Ok(());
    }
    Err(Refusal::not_allowed("pulling", &Value::from(full), "image.pull"))
}

async fn import(mut ask: Ask, agent: &Agent, world: &impl World) -> Verdict {
    granted(Operation::Import, agent)?;
    // The image gets its name when it is there: the upload may take as long as the client likes.
    let mut names = Vec::new();
    if let Some(target) = target(&ask.query)? {
        may_take(&target, agent, world).await?;
        ask.query.remove("repo");
        ask.query.remove("tag");
        names.push(target);
    } else if ask.query.remove("tag").is_some() {
        return Err(Refusal::malformed("the query parameter tag has no meaning without repo"));
    }
    // The engine reads the changes as lines of one text. Ours is the first, where nothing of the client's can join it;
    // and nothing of the client's can set the label again.
    let mut changes = vec![format!("LABEL {OWNER_LABEL}={}", agent.owner)];
    changes.extend(ask.query.list("changes").iter().cloned());
    let own = changes.split_off(1);
    check_changes(&own.join("\n"), agent)?;
    changes.extend(own);
    ask.query.set("changes", Param::List(changes));
    let rules = ArchiveRules { form: ArchiveForm::FileSystem, max_bytes: max_archive(agent) };
    let mut permit = rewritten(forward(ask, "/images/create").with(Payload::Archive(rules)));
    if !names.is_empty() {
        permit.answer = Answer::Named { names, from: Progress::Import };
    }
    Ok(permit)
}

async fn push(name: &Name, mut ask: Ask, agent: &Agent, world: &impl World) -> Verdict {
    granted(Operation::Push, agent)?;
    let given = named(name.as_str())?;
    let name = match ask.query.text("tag") {
        Some(tag) => tagged(given, tag)?,
        None => given,
    };
    let shown = Value::from(name.to_string());
    if name.digest().is_some() {
        return Err(Refusal::malformed("cannot push a digest reference"));
    }
    let Some(tag) = name.tag().map(str::to_owned) else {
        let hint = "name the tag; the other tags of the repository may belong to others";
        return Err(Refusal::never("pushing every tag of", &shown, hint));
    };
    if !policy::any(&agent.policy.image.push, &name.full_name()) {
        return Err(Refusal::not_allowed("pushing", &Value::from(name.full_name()), "image.push"));
    }
    match world.image(&name.to_string()).await? {
        Some(image) if image.standing(&agent.owner) != Standing::Foreign => {}
        Some(_) | None => {
            return Err(Refusal::Reported {
                begun: format!("The push refers to repository [{}]", name.full_name()),
                message: match world.api_version().await? < CONTAINERD {
                    true => format!("An image does not exist locally with the tag: {}", name.familiar_name()),
                    false => format!("tag does not exist: {name}"),
                },
            });
        }
    }
    ask.query.set("tag", Param::Text(tag));
    Ok(forward(ask, &format!("/images/{}/push", encoded(&name.full_name()))).with_auth(RegistryAuth::Push))
}

/// Removal goes upstream by the name that was given where a name was given: by ID it would mean something else (all
/// names at once, other conflicts). That is sound because nobody can take a name from an own image; only the owner
/// itself could free it in the moment between.
async fn delete(name: &Name, ask: Ask, agent: &Agent, world: &impl World) -> Verdict {
    granted(Operation::Remove, agent)?;
    let image = usable(name.as_str(), agent, world).await?;
    let by_id = is_id_of(name.as_str(), &image);
    // One that was pulled and is another's elsewhere loses the name, not what else it is known by.
    if image.standing(&agent.owner) == Standing::Shared && (!image.brought || (image.labelled() && by_id)) {
        let why = if image.labelled() { "it is in use" } else { "images that nobody owns are read-only" };
        return Err(Refusal::never("removing", &Value::from(name.as_str()), why));
    }
    let path = if by_id { image.id.as_str().to_owned() } else { encoded(name.as_str()) };
    Ok(forward(ask, &format!("/images/{path}")))
}

async fn commit(mut ask: Ask, agent: &Agent, world: &impl World) -> Verdict {
    granted(Operation::Commit, agent)?;
    let mut names = Vec::new();
    let reference = ask.query.text("container").unwrap_or_default();
    let container = match world.container(reference).await? {
        Some(container) if container.standing(&agent.owner) == Standing::Own => container,
        Some(_) | None => return Err(Refusal::absent(format!("No such container: {}", shown(reference)))),
    };
    ask.query.set("container", Param::Text(container.id.as_str().to_owned()));
    if let Some(target) = target(&ask.query)? {
        may_take(&target, agent, world).await?;
        names.push(Step::Tag { name: target });
    }
    ask.query.remove("repo");
    ask.query.remove("tag");
    check_changes(&ask.query.list("changes").join("\n"), agent)?;
    let mut body = match ask.body.take() {
        None | Some(Value::Null) => Object::new(),
        Some(body) => schema::check(COMMIT, body)?,
    };
    env::list("Env", body.get("Env"), agent)?;
    if let Some(triggers) = body.get("OnBuild").and_then(Value::as_array) {
        for trigger in triggers.iter().filter_map(Value::as_str) {
            check_trigger(trigger)?;
        }
    }
    let fields = body.entry_object("Labels");
    labels::stamp(fields, "Labels", agent)?;
    // What the container carries besides is not its image's.
    labels::blank_inherited(fields, &container.labels);
    let mut permit = rewritten(forward(ask, "/commit").with(Payload::Json(Value::Object(body))));
    // A commit pauses the container and lets it go on at its end.
    permit.before.push(Step::ShareBinds);
    permit.after = names;
    Ok(permit)
}

/// The name under which an image is saved. The archive carries the names, so names go upstream, each with its tag: by
/// the bare name of a repository the engine would save every tag of it, whosever they are.
async fn saved(name: &str, agent: &Agent, world: &impl World) -> Result<String, Refusal> {
    let image = match usable(name, agent, world).await {
        Err(Refusal::Absent { .. }) if world.api_version().await? < (1, 44) => {
            let tagged = reference::parse_any(name).is_ok_and(|parsed| match parsed {
                Parsed::Name(name) => name.tag().is_some(),
                Parsed::Id(_) => false,
            });
            let message =
                if tagged { "reference does not exist".to_owned() } else { format!("No such image: {}", shown(name)) };
            return Err(Refusal::absent(message));
        }
        image => image?,
    };
    match reference::parse_any(name) {
        Ok(Parsed::Name(reference)) if !is_id_of(name, &image) => Ok(reference.or_latest().to_string()),
        _ => Ok(image.id.as_str().to_owned()),
    }
}

/// Does this say the image by its ID, or the beginning of it? (A name that is also the beginning of the ID of the image
/// that bears it means the same image.)
fn is_id_of(text: &str, image: &Image) -> bool {
    let bare = text.strip_prefix("sha256:").unwrap_or(text);
    let hex = image.id.as_str().strip_prefix("sha256:").unwrap_or(image.id.as_str());
    !bare.is_empty() && hex.starts_with(bare)
}

/// The name that `repo` and `tag` ask for.
fn target(query: &Query) -> Result<Option<Reference>, Refusal> {
    let Some(repo) = query.text("repo") else { return Ok(None) };
    let name = named(repo)?;
    let name = match query.text("tag") {
        Some(tag) if reference::is_tag(tag) => name.with_tag(tag),
        Some(tag) => return Err(Refusal::malformed(format!("`{}`: invalid tag format", shown(tag)))),
        None => name.or_latest(),
    };
    if name.digest().is_some() {
        return Err(Refusal::malformed("refusing to create a tag with a digest reference"));
    }
    Ok(Some(name))
}

fn set_target(query: &mut Query, target: &Reference) {
    query.set("repo", Param::Text(target.familiar_name()));
    query.set("tag", Param::Text(target.tag().unwrap_or("latest").to_owned()));
}

/// A name with what the parameter `tag` says: a tag or a digest.
fn tagged(name: Reference, tag: &str) -> Result<Reference, Refusal> {
    if reference::is_digest(tag) {
        Ok(name.with_digest(tag))
    } else if reference::is_tag(tag) {
        Ok(name.with_tag(tag))
    } else {
        Err(Refusal::malformed(format!("`{}`: invalid tag format", shown(tag))))
    }
}

fn max_archive(agent: &Agent) -> u64 {
    agent.policy.image.max_archive_bytes.unwrap_or(MAX_ARCHIVE)
}

fn forward(ask: Ask, path: &str) -> Permit {
    Permit::forward(&ask.route, ask.version, path.to_owned(), ask.query)
}

fn rewritten(mut permit: Permit) -> Permit {
    permit.rewritten = true;
    permit
}

fn encoded(name: &str) -> String {
    let mut out = String::new();
    percent_encode(name, "/:@", &mut out);
    out
}

fn shown(text: &str) -> String {
    text.chars().filter(|c| !c.is_control()).take(120).collect()
}

/// May an image with these labels be taken in? Own ones may (what was saved can be loaded again), and blanked ones.
///
/// # Errors
/// The label that tells of somebody else.
pub fn check_loaded_labels(object: &Object, agent: &Agent) -> Result<(), Refusal> {
    labels::bounded(object, "the labels of an image in the archive")?;
    for (key, value) in object.iter() {
        let own = key == OWNER_LABEL && value.as_str() == Some(agent.owner.as_str());
        if labels::reserved(key) && !own && !value.is_empty() {
            let what = format!("the label `{}` of an image in the archive", shown(key));
            return Err(Refusal::operation(what, "").hint("it tells whose an image is"));
        }
    }
    Ok(())
}

#[cfg(test)]
#[expect(clippy::unwrap_used, clippy::panic, reason = "tests")]
mod tests {
    use super::super::testing::{Fake, agent, wait};
    use super::*;
    use crate::query;
    use crate::route::{self, Route};

    const POLICY: &str = r#"image = { allow = ["read", "pull", "push", "build", "commit", "load", "import", "save", "tag", "remove", "search"],
        pull = ["docker.io/*", "reg.io/*"], push = ["reg.io/*"], registries = ["docker.io"], tags = ["*/*"] }
        system = { allow = ["distribution"] }"#;

    fn world() -> Fake {
        Fake::default()
            .image("alpine:latest", 'a', None)
            .image("acme/shared:latest", 'b', None)
            .image("mine:1", 'c', Some("me"))
            .image("reg.io/mine:1", 'c', Some("me"))
            .image("their/app:1", 'd', Some("they"))
            .container("box", Some("me"))
            .container("theirs", Some("they"))
    }

    /// The request that goes upstream, or the refusal's text.
    fn ask(line: &str, body: Option<&str>, world: &Fake, policy: &str) -> Result<String, String> {
        let agent = agent(policy);
        let (verb, target) = line.split_once(' ').unwrap();
        let (path, raw) = target.split_once('?').map_or((target, None), |(p, q)| (p, Some(q)));
        let verdict: Verdict = wait(async {
            let target = route::parse(&verb.parse().unwrap(), path)?;
            let query = query::parse(&target.route, raw)?;
            let Route::Images(route) = target.route.clone() else { panic!("{line}") };
            let body = body.map(|body| crate::json::parse(body.as_bytes()).unwrap());
            judge(
                route,
                Ask { route: target.route, version: None, query, body, registry_auth: Some("e30=".to_owned()) },
                &agent,
                world,
            )
            .await
        });
        match verdict.map_err(|refusal| refusal.message("test"))?.action {
            Action::Send(request) => {
                let body = match request.payload {
                    Payload::Json(value) => format!(" {value}"),
                    _ => String::new(),
                };
                let query = request.query.encode();
                let mark = if query.is_empty() { "" } else { "?" };
                Ok(format!("{} {}{mark}{query}{body}", request.method, request.path))
            }
            Action::Answer(status, value) => Ok(format!("{status} {value}")),
            Action::Progress(lines) => Ok(lines.iter().map(|line| format!("{line}\n")).collect()),
        }
    }

    fn full(digit: char) -> String {
        super::super::testing::id(digit).as_str().to_owned()
    }

    #[test]
    fn requests_go_upstream_with_what_was_checked() {
        let (a, c) = (full('a'), full('c'));
        let owner = "com.buildkite.sockguard.owner";
        for (line, sent) in [
            ("GET /images/alpine/json", format!("GET /images/{a}/json")),
            ("GET /images/docker.io/library/alpine/history", format!("GET /images/{a}/history")),
            ("GET /images/cccccccc/json", format!("GET /images/{c}/json")),
            ("GET /images/mine:1/get", "GET /images/mine:1/get".to_owned()),
            ("GET /images/alpine/get", "GET /images/alpine:latest/get".to_owned()),
            ("GET /images/get?names=mine:1&names=ccccccc", format!("GET /images/get?names=mine:1&names={c}")),
            ("POST /images/mine:1/tag?repo=new", format!("POST /images/{c}/tag?repo=new&tag=latest")),
            (
                "POST /images/mine:1/tag?repo=acme/shared&tag=latest",
                format!("POST /images/{c}/tag?repo=acme/shared&tag=latest"),
            ),
            ("POST /images/reg.io/mine:1/push", "POST /images/reg.io/mine/push?tag=1".to_owned()),
            ("DELETE /images/mine:1?force=1", "DELETE /images/mine:1?force=1".to_owned()),
            ("DELETE /images/cccccccc", format!("DELETE /images/{c}")),
            (
                "POST /images/create?fromImage=alpine&tag=3",
                "POST /images/create?fromImage=docker.io/library/alpine&tag=3".to_owned(),
            ),
            (
                "GET /images/json?filters={\"before\":[\"mine:1\"]}",
                format!("GET /images/json?filters=%7B%22before%22:%7B%22{c}%22:true%7D%7D"),
            ),
            (
                "POST /images/prune",
                format!("POST /images/prune?filters=%7B%22label%22:%7B%22{owner}%3Dme%22:true%7D%7D"),
            ),
            ("POST /build/prune?all=1", "200 OK {\"CachesDeleted\":null,\"SpaceReclaimed\":0}".to_owned()),
            (
                "POST /images/create?fromSrc=-&repo=new&changes=CMD+a",
                format!("POST /images/create?fromSrc=-&changes=LABEL%20{owner}%3Dme&changes=CMD%20a"),
            ),
            (
                "POST /commit?container=box&repo=new",
                format!(
                    "POST /commit?container=box-id {{\"Labels\":{{\"{owner}\":\"me\",\"com.buildkite.sockguard.seal\":\"\"}}}}"
                ),
            ),
            ("GET /distribution/alpine/json", "GET /distribution/alpine/json".to_owned()),
        ] {
            assert_eq!(ask(line, None, &world(), POLICY), Ok(sent), "{line}");
        }
    }

    #[test]
    fn refusals_name_what_is_wrong() {
        for (line, text) in [
            ("GET /images/their/app:1/json", "no such image: their/app:1: No such image: their/app:1"),
            ("GET /images/absent/json", "no such image: absent: No such image: absent:latest"),
            ("GET /images/their/app:1/history", "No such image: their/app:1"),
            ("GET /images/dddddddd/history", "No such image: dddddddd:latest"),
            ("GET /images/their/app:1/get", "reference does not exist"),
            ("GET /images/get?names=mine:1&names=their/app:1", "reference does not exist"),
            ("DELETE /images/their/app:1", "No such image: their/app:1"),
            ("POST /images/their/app:1/tag?repo=x", "No such image: their/app:1"),
            ("GET /images/json?filters={\"since\":[\"their/app:1\"]}", "No such image: their/app:1"),
            (
                "DELETE /images/alpine",
                "sockguard: removing `alpine` is not allowed (policy \"test\"): images that nobody owns are read-only",
            ),
            (
                "POST /images/mine:1/tag?repo=alpine",
                "sockguard: taking the tag `alpine:latest` is not allowed (policy \"test\", image.tags): an image that nobody owns holds it",
            ),
            (
                "POST /images/mine:1/tag?repo=index.docker.io/library/alpine&tag=latest",
                "sockguard: taking the tag `alpine:latest` is not allowed (policy \"test\", image.tags): an image that nobody owns holds it",
            ),
            (
                "POST /images/mine:1/tag?repo=their/app&tag=1",
                "sockguard: taking the tag `their/app:1` is not allowed (policy \"test\"): it is in use",
            ),
            (
                "POST /images/create?fromImage=their/app:1",
                "sockguard: pulling `their/app:1` is not allowed (policy \"test\"): the tag is in use",
            ),
            (
                "POST /images/create?fromImage=ghcr.io/x&tag=1",
                "sockguard: pulling `ghcr.io/x` is not allowed (policy \"test\", image.pull)",
            ),
            (
                "POST /images/create?fromImage=alpine",
                "sockguard: pulling every tag of `alpine` is not allowed (policy \"test\"): name the tag; the other tags of the repository may belong to others",
            ),
            (
                "POST /images/create?fromSrc=http://x/y",
                "sockguard: fromSrc `http://x/y` is not allowed (policy \"test\"): the engine would fetch it from the host; send the archive with `-`",
            ),
            (
                "POST /images/mine/push?tag=1",
                "sockguard: pushing `docker.io/library/mine` is not allowed (policy \"test\", image.push)",
            ),
            (
                "POST /images/reg.io/mine/push",
                "sockguard: pushing every tag of `reg.io/mine` is not allowed (policy \"test\"): name the tag; the other tags of the repository may belong to others",
            ),
            ("POST /images/reg.io/none/push?tag=1", "An image does not exist locally with the tag: reg.io/none"),
            ("POST /commit?container=theirs", "No such container: theirs"),
            (
                "GET /distribution/ghcr.io/a/json",
                "sockguard: the registry `ghcr.io` is not allowed (policy \"test\", image.registries)",
            ),
            (
                "GET /images/search?term=ghcr.io/a",
                "sockguard: the registry `ghcr.io` is not allowed (policy \"test\", image.registries)",
            ),
            ("POST /images/prune?filters={\"other\":[\"x\"]}", "invalid filter 'other'"),
        ] {
            assert_eq!(ask(line, None, &world(), POLICY), Err(text.to_owned()), "{line}");
        }
        let refused = ask("POST /images/create?fromImage=moby/buildkit&tag=x", None, &world(), POLICY).unwrap_err();
        assert!(refused.contains("DOCKER_BUILDKIT=0"), "{refused}");
    }

    #[test]
    fn an_owner_label_cannot_be_forged_by_changes() {
        let forged = [
            "LABEL com.buildkite.sockguard.owner=they",
            "label \"com.buildkite.sockguard.owner\"=they",
            "LABEL a=b 'com.buildkite.'sockguard.owner=they",
            "LABEL com.build\\kite.sockguard.owner they",
            "LABEL com.buildkite.\\\nsockguard.owner=they",
            "LABEL $X=they",
            "LABEL com.buildkite.${X}owner=they",
            "LABEL com.amazonaws.ecs.task-arn=x",
            "ONBUILD LABEL com.buildkite.sockguard.owner=they",
            "# escape=`\nLABEL com.build`kite.sockguard.owner=they",
            "FROM x",
            "RUN x",
        ];
        for change in forged {
            let mut query = String::new();
            percent_encode(change, "", &mut query);
            for line in [
                format!("POST /commit?container=box&changes={query}"),
                format!("POST /images/create?fromSrc=-&changes={query}"),
            ] {
                assert!(ask(&line, None, &world(), POLICY).is_err(), "{line}");
            }
        }
        for body in [
            r#"{"Labels":{"com.buildkite.sockguard.owner":"they"}}"#,
            r#"{"labels":{"com.buildkite.sockguard.binds":""}}"#,
            r#"{"OnBuild":["LABEL com.buildkite.sockguard.owner=they"]}"#,
            r#"{"Unknown":1}"#,
        ] {
            assert!(ask("POST /commit?container=box", Some(body), &world(), POLICY).is_err(), "{body}");
        }
        assert!(check_changes("LABEL org.acme.$X=1\nENV A=b\nONBUILD RUN make", &agent("")).is_ok());
    }

    #[test]
    fn without_a_grant_nothing_goes() {
        for line in [
            "GET /images/json",
            "GET /images/mine:1/json",
            "GET /images/mine:1/history",
            "GET /images/mine:1/get",
            "GET /images/get?names=mine:1",
            "POST /images/mine:1/push?tag=1",
            "POST /images/mine:1/tag?repo=x",
            "DELETE /images/mine:1",
            "POST /images/prune",
            "POST /images/create?fromImage=a:1",
            "POST /images/create?fromSrc=-",
            "POST /images/load",
            "POST /commit?container=box",
            "POST /build",
            "POST /build/prune",
            "POST /build/cancel",
            "GET /images/search?term=x",
            "GET /distribution/a/json",
        ] {
            let refused = ask(line, None, &world(), "").unwrap_err();
            assert!(refused.starts_with("sockguard: "), "{line}: {refused}");
        }
    }

    #[test]
    fn what_an_owner_brought_it_may_remove() {
        let mut world = world();
        world.images.get_mut("alpine:latest").unwrap().brought = true;
        assert!(ask("DELETE /images/alpine", None, &world, POLICY).is_ok());
        assert!(ask("POST /images/mine:1/tag?repo=alpine", None, &world, POLICY).is_ok());
    }

    #[test]
    fn what_the_registry_has_too_may_be_pulled_and_stays_the_others() {
        let digest = |digit: char| full(digit);
        let mut world = world();
        let line = "POST /images/create?fromImage=their/app:1";
        world.images.get_mut("their/app:1").unwrap().digests = vec![format!("their/app@{}", digest('1'))];
        let said = [
            r#"{"status":"Pulling from their/app","id":"1"}"#.to_owned(),
            format!(r#"{{"status":"Digest: {}"}}"#, digest('1')),
            r#"{"status":"Status: Image is up to date for their/app:1"}"#.to_owned(),
        ];
        assert!(ask(line, None, &world, POLICY).is_err(), "the registry does not say");
        world.served.insert("their/app:1".to_owned(), digest('2'));
        assert!(ask(line, None, &world, POLICY).is_err(), "another image");
        world.served.insert("their/app:1".to_owned(), digest('1'));
        assert_eq!(ask(line, None, &world, POLICY), Ok(said.map(|line| line + "\n").concat()));
        assert!(ask(&format!("{line}&platform=linux/arm64"), None, &world, POLICY).is_err());
        // Once pulled.
        world.images.get_mut("their/app:1").unwrap().pulled = true;
        assert!(ask("GET /images/their/app:1/json", None, &world, POLICY).is_ok());
        assert!(ask("DELETE /images/their/app:1", None, &world, POLICY).is_err());
        assert!(ask("POST /images/mine:1/tag?repo=their/app&tag=1", None, &world, POLICY).is_err());
        world.served.insert("their/app:1".to_owned(), digest('2'));
        assert!(ask(line, None, &world, POLICY).is_err(), "it would move the name");
    }

    #[test]
    fn what_was_pulled_may_be_used_whoever_built_it() {
        let mut world = world();
        world.images.get_mut("their/app:1").unwrap().brought = true;
        assert!(ask("GET /images/their/app:1/history", None, &world, POLICY).is_ok());
        assert!(ask("DELETE /images/their/app:1", None, &world, POLICY).is_ok());
        assert!(ask("DELETE /images/dddddddd", None, &world, POLICY).is_err());
        assert!(ask("POST /images/mine:1/tag?repo=their/app&tag=1", None, &world, POLICY).is_err());
    }
}
