//! Builds: the classic builder. The query is judged here, and says what the context must keep to; the Dockerfile is judged
//! when it passes in the context, by the rules of [`super::dockerfile`].

use super::images::{granted, may_take, named};
use super::system::BUILDKIT;
use super::{Agent, Ask, bridge, env, labels};
use crate::json::{Object, Value};
use crate::owner::Standing;
use crate::permit::{Answer, Payload, Permit, Progress, RegistryAuth, Step, Verdict};
use crate::policy::ImageOperation as Operation;
use crate::query::{Param, Query};
use crate::refusal::Refusal;
use crate::registry;
use crate::schema::{self, Field, Shape, Treat, field};
use crate::world::World;
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
    let network = network(query, agent, world).await?;

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
        super::create::ulimits("the query parameter ulimits", Some(ulimits))?;
    }
    // Containers of a build carry no owner label: none may stay behind.
    query.set("rm", Param::Bool(true));
    query.set("forcerm", Param::Bool(true));
    // The owner's images are in the cache anyway. From API 1.52 on a build fails at a step without a layer (`ENV`) that is
    // to be taken from an image of this list because it was made elsewhere since: "failed to restore cached image".
    query.remove("cachefrom");

    let rules = ContextRules {
        dockerfile: dockerfile_path(query.text("dockerfile").unwrap_or(DOCKERFILE))?,
        args: arguments(query, agent)?,
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
    permit.before.extend(network);
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
        let remote = Value::from(registry::without_secrets(remote));
        return Err(Refusal::never("the query parameter remote", &remote, hint));
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
    match (agent.cgroup_parent(), query.text("cgroupparent")) {
        (Some(parent), _) => query.set("cgroupparent", Param::Text(parent.to_owned())),
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

/// The network that `RUN` steps have, and what has to be done before they can have it.
async fn network(query: &mut Query, agent: &Agent, world: &impl World) -> Result<Option<Step>, Refusal> {
    let mode = query.text("networkmode").unwrap_or_default().to_owned();
    if let Some(own) = bridge::meant(&mode, agent, world).await? {
        query.set("networkmode", Param::Text(own));
        return Ok(Some(bridge::needed(agent)));
    }
    let host = || {
        if agent.policy.image.build_host_network {
            return Ok(None);
        }
        Err(Refusal::not_allowed("the query parameter networkmode", &Value::from("host"), "image.build-host-network"))
    };
    match mode.as_str() {
        "" | "default" | "bridge" | "none" => return Ok(None),
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
    Ok(None)
}

/// The arguments of a build. They stay in the image's history.
fn arguments(query: &Query, agent: &Agent) -> Result<BTreeMap<String, Option<String>>, Refusal> {
    let wrong = || Refusal::malformed("the query parameter buildargs is no JSON object of strings");
    match query.json("buildargs") {
        None | Some(Value::Null) => Ok(BTreeMap::new()),
        Some(Value::Object(args)) => args
            .iter()
            .map(|(name, value)| {
                env::name("the query parameter buildargs", name, agent)?;
                match value {
                    Value::Null => Ok((name.to_owned(), None)),
                    Value::String(value) => Ok((name.to_owned(), Some(value.clone()))),
                    Value::Bool(_) | Value::Number(_) | Value::Array(_) | Value::Object(_) => Err(wrong()),
                }
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

#[cfg(test)]
#[expect(clippy::unwrap_used, clippy::panic, reason = "tests")]
mod tests {
    use super::super::testing::{Fake, agent, wait};
    use super::*;
    use crate::permit::Action;
    use crate::query;
    use crate::route::{self, Route};

    const POLICY: &str = r#"image = { allow = ["build", "pull"], pull = ["docker.io/*"], tags = ["*/*"] }"#;

    fn world() -> Fake {
        Fake::default()
            .image("alpine:latest", 'a', None)
            .image("mine:1", 'c', Some("me"))
            .image("their/app:1", 'd', Some("they"))
            .container("box", Some("me"))
            .container("theirs", Some("they"))
            .network("net", Some("me"))
            .network("theirnet", Some("they"))
            .network("host", None)
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

    #[test]
    fn refusals_show_no_secret() {
        let why = ask("remote=https://u:hunter2@host/x.git?token=hunter2", &world(), POLICY).unwrap_err();
        assert!(why.contains("https://host/x.git") && !why.contains("hunter2"), "{why}");
        let label = "labels={\"com.buildkite.sockguard.owner\":\"hunter2\"}";
        assert!(!ask(label, &world(), POLICY).unwrap_err().contains("hunter2"));
    }
}
