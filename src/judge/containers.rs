//! Containers: own ones only. What a new one may be given is in `create.rs`.

use super::limits::{self, Demand};
use super::system::{known_filters, own_containers_only};
use super::{Agent, Ask, bodies, bridge, create, exec};
use crate::json::{Object, Value};
use crate::owner::Standing;
use crate::permit::{Answer, Payload, Permit, Step, Verdict, View};
use crate::policy::ContainerOperation as Operation;
use crate::query::{Param, Query};
use crate::refusal::Refusal;
use crate::route::{Containers, Name};
use crate::schema;
use crate::world::{Container, World};

/// From this API version on the engine's messages begin in lower case.
const LOWER_CASE: (u32, u32) = (1, 44);

/// Judges a request on containers.
pub async fn judge(route: Containers, mut ask: Ask, agent: &Agent, world: &impl World) -> Verdict {
    use Containers as C;
    granted(operation(&route), agent)?;
    match &route {
        C::List => {
            list_filters(&mut ask.query, agent, world).await?;
            own_containers_only(&mut ask.query, agent);
            Ok(forward(ask, "/containers/json".to_owned()).showing(Answer::View(View::ContainerList)))
        }
        C::Create => create::judge(ask, agent, world).await,
        C::Prune => {
            known_filters(&ask.query, &["label", "label!", "until"])?;
            own_containers_only(&mut ask.query, agent);
            Ok(forward(ask, "/containers/prune".to_owned()))
        }
        C::Inspect(name) => {
            let permit = on(name, "json", ask, agent, world).await?;
            Ok(permit.showing(Answer::View(View::Container)))
        }
        C::Top(name) => {
            if let Some(args) = ask.query.text("ps_args").filter(|args| !ps_args(args)) {
                return Err(Refusal::never(
                    "ps_args",
                    &Value::from(args),
                    "use -ef, aux, or -o with pid before the command",
                ));
            }
            on(name, "top", ask, agent, world).await
        }
        C::Logs(name) => {
            let follow = ask.query.bool("follow");
            let permit = on(name, "logs", ask, agent, world).await?;
            Ok(if follow { permit.showing(Answer::Follow) } else { permit })
        }
        C::Changes(name) => on(name, "changes", ask, agent, world).await,
        C::Export(name) => on(name, "export", ask, agent, world).await,
        C::Stats(name) => on(name, "stats", ask, agent, world).await,
        C::Resize(name) => on(name, "resize", ask, agent, world).await,
        C::Stop(name) => on(name, "stop", ask, agent, world).await,
        C::Kill(name) => match on(name, "kill", ask, agent, world).await {
            Err(Refusal::Absent { message }) => {
                let word = if world.api_version().await? < LOWER_CASE { "Cannot" } else { "cannot" };
                Err(Refusal::absent(format!("{word} kill container: {name}: {message}")))
            }
            verdict => verdict,
        },
        C::Pause(name) => on(name, "pause", ask, agent, world).await,
        C::Unpause(name) => on(name, "unpause", ask, agent, world).await.map(sharing_binds),
        C::Wait(name) => on(name, "wait", ask, agent, world).await,
        C::ArchiveStat(name) | C::ArchiveGet(name) => copy(name, ask, agent, world).await,
        C::ArchivePut(name) => {
            let permit = copy(name, ask, agent, world).await?.with(Payload::Stream);
            Ok(if permit.before.is_empty() { sharing_binds(permit) } else { permit })
        }
        C::Attach(name) => Ok(on(name, "attach", ask, agent, world).await?.showing(Answer::Hijack)),
        C::AttachWebsocket(name) => Ok(on(name, "attach/ws", ask, agent, world).await?.showing(Answer::Hijack)),
        C::Rename(name) => {
            if let Some(new) = ask.query.text("name") {
                create::container_name("name", new)?;
            }
            on(name, "rename", ask, agent, world).await
        }
        C::Delete(name) => {
            let container = own(name, agent, world).await?;
            if ask.query.bool("link") {
                return Err(Refusal::operation("removing a link", "").hint("remove the container instead"));
            }
            Ok(forward(ask, format!("/containers/{}", container.id)))
        }
        C::Start(name) => {
            let container = own(name, agent, world).await?;
            let binds = create::checked_binds(&container);
            let mut permit = starting(&container, agent, forward(ask, format!("/containers/{}/start", container.id)));
            permit.before.extend(bridge::needed_by(&container.id, agent));
            permit.before.push(if binds.is_empty() { Step::ShareBinds } else { Step::HoldBinds { binds } });
            Ok(permit)
        }
        C::Restart(name) => {
            let container = own(name, agent, world).await?;
            let binds = create::checked_binds(&container);
            if binds.is_empty() {
                let permit = forward(ask, format!("/containers/{}/restart", container.id));
                let mut permit = starting(&container, agent, permit);
                permit.before.extend(bridge::needed_by(&container.id, agent));
                return Ok(sharing_binds(permit));
            }
            // A restart is a stop and a start, between which the binds are looked at.
            let mut permit = starting(&container, agent, forward(ask, format!("/containers/{}/start", container.id)));
            if let crate::permit::Action::Send(request) = &mut permit.action {
                permit
                    .before
                    .push(Step::Stop { container: container.id.clone(), query: std::mem::take(&mut request.query) });
            }
            permit.before.extend(bridge::needed_by(&container.id, agent));
            permit.before.push(Step::HoldBinds { binds });
            permit.rewritten = true;
            Ok(permit)
        }
        C::Update(name) => {
            let container = own(name, agent, world).await?;
            let mut body =
                schema::check(bodies::CONTAINER_UPDATE, ask.body.take().unwrap_or(Value::Object(Object::new())))?;
            create::ulimits("Ulimits", body.get("Ulimits"))?;
            if let Some(policy) = body.get_mut("RestartPolicy").and_then(Value::as_object_mut) {
                create::restart_policy(policy)?;
                if !create::checked_binds(&container).is_empty() && create::restarts(policy) {
                    return Err(Refusal::never("RestartPolicy", &Value::Object(policy.clone()), create::NO_RESTART));
                }
            }
            let changes = limits::changes(&body, &agent.policy.quota)?;
            let mut permit =
                forward(ask, format!("/containers/{}/update", container.id)).with(Payload::Json(body.into()));
            // Also without a quota here: what is remembered of its limits may be another policy's of the same owner.
            if !changes.is_empty() {
                permit.before.push(Step::Quota(Demand::Update { container: container.id, changes }));
            }
            Ok(permit)
        }
        C::ExecCreate(name) => {
            let container = own(name, agent, world).await?;
            exec::create(&container, ask, agent)
        }
    }
}

fn operation(route: &Containers) -> Operation {
    use Containers as C;
    match route {
        C::List | C::Inspect(_) | C::Top(_) | C::Changes(_) | C::Stats(_) => Operation::Read,
        C::Logs(_) => Operation::Logs,
        C::Create => Operation::Create,
        C::Start(_)
        | C::Stop(_)
        | C::Restart(_)
        | C::Kill(_)
        | C::Update(_)
        | C::Rename(_)
        | C::Pause(_)
        | C::Unpause(_)
        | C::Resize(_)
        | C::Wait(_) => Operation::Run,
        C::Attach(_) | C::AttachWebsocket(_) => Operation::Attach,
        C::ExecCreate(_) => Operation::Exec,
        C::ArchiveStat(_) | C::ArchiveGet(_) | C::ArchivePut(_) => Operation::Copy,
        C::Export(_) => Operation::Export,
        C::Delete(_) | C::Prune => Operation::Remove,
    }
}

fn granted(operation: Operation, agent: &Agent) -> Result<(), Refusal> {
    let (what, key) = match operation {
        Operation::Read => ("reading containers", "container.allow: \"read\""),
        Operation::Logs => ("reading the output of containers", "container.allow: \"logs\""),
        Operation::Create => ("creating containers", "container.allow: \"create\""),
        Operation::Run => ("starting, stopping or changing containers", "container.allow: \"run\""),
        Operation::Attach => ("attaching to containers", "container.allow: \"attach\""),
        Operation::Exec => ("running a command in a container", "container.allow: \"exec\""),
        Operation::Copy => ("copying files of containers", "container.allow: \"copy\""),
        Operation::Export => ("exporting containers", "container.allow: \"export\""),
        Operation::Remove => ("removing containers", "container.allow: \"remove\""),
    };
    if agent.policy.container.grants(operation) { Ok(()) } else { Err(Refusal::operation(what, key)) }
}

fn forward(ask: Ask, path: String) -> Permit {
    Permit::forward(&ask.route, ask.version, path, ask.query)
}

async fn on(name: &Name, operation: &str, ask: Ask, agent: &Agent, world: &impl World) -> Verdict {
    let container = own(name, agent, world).await?;
    Ok(forward(ask, format!("/containers/{}/{operation}", container.id)))
}

/// Are these words for `ps` that show nothing of other processes? The engine runs the host's `ps` with them, takes the
/// lines that have one of the container's processes in the column under `PID`, and tells what else it finds there. So
/// that column must be what it says it is: no column before it may hold a space, nor bear its name.
fn ps_args(args: &str) -> bool {
    const FORMS: &[&str] = &[
        "-e", "-f", "-F", "-l", "-A", "-a", "-ef", "-eF", "-el", "-ely", "-efl", "-Af", "-efww", "ax", "axu", "aux",
        "-aux", "auxw", "auxww", "-ww", "-w",
    ];
    const COLUMNS: &[&str] = &[
        "pid", "ppid", "pgid", "sid", "tid", "lwp", "nlwp", "uid", "gid", "user", "group", "ruser", "euser", "pcpu",
        "pmem", "%cpu", "%mem", "vsz", "rss", "rssize", "sz", "tty", "tt", "stat", "state", "s", "time", "cputime",
        "etime", "etimes", "times", "ni", "nice", "pri", "psr", "cls", "maj_flt", "min_flt", "stime",
    ];
    const LAST: &[&str] = &["cmd", "args", "command", "comm", "ucmd"];
    let columns = |list: &str| {
        let names: Vec<&str> = list.split(',').collect();
        let (last, before) = names.split_last().map_or(("", &[][..]), |(last, before)| (*last, before));
        names.contains(&"pid")
            && before.iter().all(|name| COLUMNS.contains(name))
            && (COLUMNS.contains(&last) || LAST.contains(&last))
    };
    let mut words = args.split_ascii_whitespace();
    while let Some(word) = words.next() {
        let list = ["-eo", "-Ao", "-o"].iter().find_map(|flag| word.strip_prefix(flag));
        let fine = match list {
            Some("") => words.next().is_some_and(columns),
            Some(list) => columns(list),
            None => FORMS.contains(&word),
        };
        if !fine {
            return false;
        }
    }
    true
}

/// A copy out of or into a container. The engine mounts its binds again for each.
async fn copy(name: &Name, ask: Ask, agent: &Agent, world: &impl World) -> Verdict {
    let container = own(name, agent, world).await?;
    let binds = create::checked_binds(&container);
    let mut permit = forward(ask, format!("/containers/{}/archive", container.id));
    if !binds.is_empty() {
        permit.before.push(Step::HoldBinds { binds });
    }
    Ok(permit)
}

/// A request after which the container runs.
fn starting(container: &Container, agent: &Agent, mut permit: Permit) -> Permit {
    if agent.policy.quota.running.is_some() {
        permit.before.push(Step::Quota(Demand::Start { container: container.id.clone() }));
    }
    permit
}

fn sharing_binds(mut permit: Permit) -> Permit {
    permit.before.push(Step::ShareBinds);
    permit
}

async fn own(name: &Name, agent: &Agent, world: &impl World) -> Result<Container, Refusal> {
    find(name.as_str(), agent, world).await?.ok_or_else(|| Refusal::absent(format!("No such container: {name}")))
}

/// The container, if it is the agent's.
///
/// # Errors
/// When the engine cannot be asked.
pub async fn find(reference: &str, agent: &Agent, world: &impl World) -> Result<Option<Container>, Refusal> {
    let container = world.container(reference).await?;
    Ok(container.filter(|container| container.standing(&agent.owner) == Standing::Own))
}

/// The own container that a field names.
///
/// # Errors
/// A name of the wrong form; the engine's words for an absent container.
pub async fn by_reference(field: &str, name: &str, agent: &Agent, world: &impl World) -> Result<Container, Refusal> {
    let plain = name.strip_prefix('/').unwrap_or(name);
    let fine = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '-');
    if plain.is_empty() || !plain.chars().all(fine) {
        return Err(Refusal::malformed(format!("{field} names no container: {}", Value::from(name).shown())));
    }
    find(plain, agent, world).await?.ok_or_else(|| Refusal::absent(format!("No such container: {plain}")))
}

/// A link `CONTAINER[:ALIAS]` to an own container, by its ID.
///
/// # Errors
/// As [`by_reference`].
pub async fn pin_link(field: &str, link: &Value, agent: &Agent, world: &impl World) -> Result<String, Refusal> {
    let text = link.as_str().unwrap_or_default();
    let (name, alias) = text.split_once(':').unwrap_or((text, text));
    let container = match by_reference(field, name, agent, world).await {
        Err(Refusal::Absent { message }) => {
            return Err(Refusal::absent(format!("could not get container for {name}: {message}")));
        }
        container => container?,
    };
    Ok(format!("{}:{}", container.id, alias.trim_start_matches('/')))
}

/// Filters that name other objects name own ones, or the answer of the engine would tell of foreign ones.
async fn list_filters(query: &mut Query, agent: &Agent, world: &impl World) -> Result<(), Refusal> {
    known_filters(
        query,
        &[
            "ancestor",
            "annotation",
            "before",
            "exited",
            "expose",
            "health",
            "id",
            "is-task",
            "isolation",
            "label",
            "name",
            "network",
            "publish",
            "since",
            "status",
            "volume",
        ],
    )?;
    let mut filters = query.filters();
    for key in ["before", "since"] {
        let mut pinned = Vec::new();
        for name in filters.values(key) {
            pinned.push(by_reference(key, name, agent, world).await?.id.to_string());
        }
        if !pinned.is_empty() {
            filters.set(key, pinned);
            query.set("filters", Param::Filters(filters.clone()));
        }
    }
    for key in ["before", "since"] {
        if let Some(name) = query.text(key).map(str::to_owned) {
            let id = by_reference(key, &name, agent, world).await?.id.to_string();
            query.set(key, Param::Text(id));
        }
    }
    Ok(())
}
