//! What becomes of one request: the ten steps.

use crate::answer::known::Moment;
use crate::answer::{self, Viewer};
use crate::archive::{self, Passage, Written};
use crate::audit::Record;
use crate::body::{self, Body, Share};
use crate::engine::{self, Apart, Engine, Stream};
use crate::json::{self, Value};
use crate::judge::images::ArchiveForm;
use crate::judge::{self, Ask, BodyKind};
use crate::permit::{Action, Answer, Payload, Permit, RegistryAuth, Step};
use crate::query;
use crate::refusal::Refusal;
use crate::registry;
use crate::route::{self, Containers, Images, Route};
use crate::server::{Guard, Stranger};
use crate::steps;
use crate::tunnel::{Input, Tunnel};
use http_body_util::{BodyExt, Limited};
use hyper::body::Incoming;
use hyper::ext::ReasonPhrase;
use hyper::header::{self, HeaderMap, HeaderName, HeaderValue};
use hyper::http::request::Parts;
use hyper::{Method, Request, Response, StatusCode, Version};
use std::rc::Rc;

/// A JSON body of a client is at most this long.
const DOCUMENT_LIMIT: usize = 4 << 20;

/// A body where none belongs is read up to here, to see whether it says anything.
const EMPTY_LIMIT: usize = 64 << 10;

/// An upload of a client that stands still while it is answered is at most this long.
const GATHERED_LIMIT: usize = 16 << 20;

/// An answer that is read whole, because something has to be done that it names, is at most this long.
const ANSWER_LIMIT: usize = 1 << 20;

/// Registry credentials are at most this long.
const CREDENTIALS_LIMIT: usize = 96 << 10;

/// Why the engine's `ps` failed is not told.
const PS: &str = "ps: the processes cannot be listed with these ps_args";

/// What goes to the client.
pub enum Outcome {
    /// An answer.
    Answer(Response<Body>),
    /// The connection leaves HTTP.
    Tunnel(Box<Tunnel>),
}

/// Handles one request.
pub async fn handle(guard: &Rc<Guard>, request: Request<Incoming>) -> Outcome {
    let (head, body) = request.into_parts();
    let mut record = guard.audit.begin(&head.method);
    let mut body = Some(body);
    // Given back when the engine has answered.
    let mut room = Share::default();
    let outcome = match decide(guard, &head, &mut body, &mut room, &mut record).await {
        Ok((route, permit)) => perform(guard, head, &mut body, route, permit).await,
        Err(refusal) => Err(refusal),
    };
    // The client may still be writing: it has to come to the end before it reads the answer.
    if let Some(rest) = body {
        body::drain(rest);
    }
    let outcome = outcome.unwrap_or_else(|refusal| {
        record.refused(&refusal);
        Outcome::Answer(refused(&refusal, guard.policy()))
    });
    record.answered(outcome.status());
    outcome
}

/// Refuses a request of somebody who is not served.
pub fn turn_away(stranger: &Stranger, request: Request<Incoming>) -> Outcome {
    let (head, body) = request.into_parts();
    let mut record = stranger.audit.begin(&head.method);
    if let Ok(target) = route::parse(&head.method, head.uri.path()) {
        record.route(&target.route);
    }
    body::drain(body);
    record.refused(&stranger.refusal);
    let response = refused(&stranger.refusal, "");
    record.answered(response.status());
    Outcome::Answer(response)
}

/// From the head and the body to a verdict.
async fn decide(
    guard: &Guard,
    head: &Parts,
    body: &mut Option<Incoming>,
    room: &mut Share,
    record: &mut Record,
) -> Result<(Route, Permit), Refusal> {
    if guard.ended() {
        return Err(Refusal::Stranger { message: "the agent's container has ended".to_owned() });
    }
    well_formed(head)?;
    let target = route::parse(&head.method, head.uri.path())?;
    record.route(&target.route);
    let query = query::parse(&target.route, head.uri.query())?;
    let document = match judge::body_kind(&target.route) {
        // What is refused or answered without the engine takes any body.
        BodyKind::Empty if matches!(target.route, Route::Lacking(_)) => None,
        BodyKind::Empty => nothing(guard, body).await?,
        BodyKind::Unread => {
            body::read(body, EMPTY_LIMIT, &guard.world.memory.allowance).await?;
            None
        }
        BodyKind::Json => document(guard, head, body, room).await?,
        BodyKind::Stream => None,
    };
    let registry_auth = match target.route {
        Route::Images(Images::Create) => credentials(head, registry::AUTH)?.and_then(|value| value.to_str().ok()),
        _ => None,
    };
    let registry_auth = registry_auth.map(str::to_owned);
    let ask = Ask { route: target.route.clone(), version: target.version, query, body: document, registry_auth };
    let permit = judge::judge(ask, &guard.world.agent, &*guard.world).await?;
    record.permitted(permit.rewritten);
    Ok((target.route, permit))
}

/// Does what a permit allows.
async fn perform(
    guard: &Rc<Guard>,
    head: Parts,
    body: &mut Option<Incoming>,
    route: Route,
    permit: Permit,
) -> Result<Outcome, Refusal> {
    let Permit { before, action, mut after, mut answer, rewritten: _ } = permit;
    let mut permitted = match action {
        Action::Answer(status, value) => return Ok(Outcome::Answer(json(status, &value))),
        Action::Progress(lines) => {
            steps::after(&guard.world, &after, Moment::now(), b"").await?;
            return Ok(Outcome::Answer(progress(&lines)));
        }
        Action::Send(request) => request,
    };
    if answer == Answer::Hijack {
        let request = upstream(&head, permitted, body)?;
        let _held = steps::before(&guard.world, &before).await?;
        return hijack(guard, &head, &route, request).await;
    }
    let inspected = inspected(guard, &head, &mut permitted, body, &mut answer).await?;
    let checks = before.iter().any(|step| matches!(step, Step::HoldBinds { .. }));
    let gathered = match checks && guard.world.agent.caller.is_some() {
        true => Some(gather(guard, body).await?.into_parts()),
        false => None,
    };
    let mut request = upstream(&head, permitted, body)?;
    let gathered = gathered.map(|(bytes, share)| {
        *request.body_mut() = if bytes.is_empty() { Body::Empty } else { Body::full(bytes) };
        share
    });
    let passage = inspected.and_then(|(payload, passage)| {
        *request.body_mut() = payload;
        passage
    });
    // Older clients know of no chunks.
    let follows = answer == Answer::Follow && head.version == Version::HTTP_11;
    if follows {
        request.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
    }
    let of_processes = matches!(route, Route::Containers(Containers::Top(_)));
    let renamed = Renamed::of(&route, request.uri().path());
    let guard = Rc::clone(guard);
    let plain = before.is_empty() && after.is_empty() && !matches!(answer, Answer::Created { seen_again: Some(_), .. });
    let exchange = async move {
        let held = steps::before(&guard.world, &before).await?;
        for step in &mut after {
            if let Step::Brought { known, .. } = step {
                *known = guard.world.image_ids().await?;
            }
        }
        let sent = Moment::now();
        let response = match follows {
            true => match guard.world.engine.send_apart(request, chunked).await? {
                Apart::Stream(stream) => return Ok(tunnel(stream, Form::Chunks)),
                Apart::Answer(response) => Ok(response),
            },
            false => guard.world.engine.send(request).await,
        };
        drop(gathered);
        if let Some(passage) = &passage
            && let Some(refusal) = passage.refusal()
        {
            // The engine was not given the end of the body; what it makes of that does not matter.
            if let Some(rest) = passage.take_rest() {
                body::drain(rest);
            }
            return Err(refusal);
        }
        let response = response?;
        held.end().await;
        let response = if response.status().is_success() {
            let written = passage.map(|passage| passage.written()).unwrap_or_default();
            let response = show(&guard, response, answer, after, sent, &written).await?;
            response.map(|body| archive::output::named(body, written.names))
        } else {
            let response = failure(&guard, response).await;
            match response.status() {
                // The engine tells what `ps` says, and what it read of its output, which is of all processes.
                StatusCode::INTERNAL_SERVER_ERROR if of_processes => response.map(|_| Body::full(message_body(PS))),
                _ => renamed.back(response),
            }
        };
        Ok(Outcome::Answer(for_client(response)))
    };
    if plain {
        return exchange.await;
    }
    // What has to be done around a request is not left half done when the client goes away.
    tokio::task::spawn_local(Box::pin(exchange))
        .await
        .unwrap_or_else(|_| Err(Refusal::Engine { message: "the request was cut short".to_owned() }))
}

impl Outcome {
    fn status(&self) -> StatusCode {
        match self {
            Self::Answer(response) => response.status(),
            Self::Tunnel(tunnel) => tunnel.status,
        }
    }
}

// Reading the request.

/// Refuses what an HTTP server could read in another way than the engine does.
fn well_formed(head: &Parts) -> Result<(), Refusal> {
    if head.uri.scheme().is_some() || head.uri.authority().is_some() || head.method == Method::CONNECT {
        return Err(Refusal::malformed("the request's target is not a path"));
    }
    if head.headers.get_all(header::HOST).iter().count() > 1 {
        return Err(Refusal::malformed("the request has more than one `Host`"));
    }
    for kind in head.headers.get_all(header::CONTENT_TYPE) {
        // The engine takes parameters from such bodies, before those of the query.
        let kind = kind.as_bytes().trim_ascii_start().to_ascii_lowercase();
        if kind.starts_with(b"application/x-www-form-urlencoded") || kind.starts_with(b"multipart/") {
            return Err(Refusal::operation("a form as the request's body", "").hint("send parameters in the query"));
        }
    }
    Ok(())
}

/// Reads a body where none belongs.
async fn nothing(guard: &Guard, body: &mut Option<Incoming>) -> Result<Option<Value>, Refusal> {
    let bytes = body::read(body, EMPTY_LIMIT, &guard.world.memory.allowance).await?;
    match bytes.trim_ascii() {
        b"" | b"null" | b"{}" => Ok(None),
        _ => Err(Refusal::malformed("this endpoint takes no body")),
    }
}

/// Reads a JSON body. The engine takes none of another type.
async fn document(
    guard: &Guard,
    head: &Parts,
    body: &mut Option<Incoming>,
    room: &mut Share,
) -> Result<Option<Value>, Refusal> {
    let allowance = &guard.world.memory.allowance;
    let bytes = body::read(body, DOCUMENT_LIMIT, allowance).await?;
    if bytes.trim_ascii().is_empty() {
        return Ok(None);
    }
    let kind = head.headers.get(header::CONTENT_TYPE).map(|kind| kind.to_str().unwrap_or_default());
    if let Some(kind) = kind
        && !kind.split(';').next().unwrap_or_default().trim().eq_ignore_ascii_case("application/json")
    {
        let kind: String = kind.chars().take(80).collect();
        return Err(Refusal::rejected(format!("Content-Type specified ({kind}) must be 'application/json'")));
    }
    *room = bytes.room_for_document(allowance).await?;
    json::parse(&bytes)
        .map(Some)
        .map_err(|e| Refusal::malformed(format!("the body is not the JSON that can be read in one way: {e}")))
}

/// Reads the upload of a client that is about to stand still, and so could not go on with it.
async fn gather(guard: &Guard, body: &mut Option<Incoming>) -> Result<body::Whole, Refusal> {
    body::read(body, GATHERED_LIMIT, &guard.world.memory.allowance).await.map_err(|refusal| match refusal {
        Refusal::TooLarge { message } => {
            let why = "this is all that is copied at once into a container whose binds are checked";
            Refusal::TooLarge { message: format!("{message}: {why}") }
        }
        other => other,
    })
}

// Making the request to the engine.

/// The body of a request that is inspected on its way, and what is known of it then.
async fn inspected(
    guard: &Guard,
    head: &Parts,
    permitted: &mut crate::permit::Request,
    body: &mut Option<Incoming>,
    answer: &mut Answer,
) -> Result<Option<(Body, Option<Passage<Incoming>>)>, Refusal> {
    let world = &guard.world;
    match std::mem::replace(&mut permitted.payload, Payload::Empty) {
        Payload::Context(rules) => {
            let config = credentials(head, registry::CONFIG)?.and_then(|value| value.to_str().ok()).map(str::to_owned);
            permitted.payload = Payload::Context(rules.clone());
            let agent = Rc::clone(&world.agent);
            let passed = body.take().map(|body| archive::context(rules, config, agent, Rc::clone(world), body));
            Ok(passed.map(|(body, passage)| (body, Some(passage))))
        }
        Payload::Archive(rules) => {
            permitted.payload = Payload::Archive(rules.clone());
            let Some(client) = body.take() else { return Ok(None) };
            match rules.form {
                ArchiveForm::FileSystem => {
                    let (body, passage) = archive::limited(rules.max_bytes, client);
                    Ok(Some((body, Some(passage))))
                }
                ArchiveForm::Images => {
                    let turn = world.memory.allowance.archives.acquire().await;
                    let (judged, rest) =
                        archive::images::receive(rules.max_bytes, &world.agent, &**world, client).await;
                    // It may not have been read to its end.
                    *body = Some(rest);
                    let judged = judged?;
                    drop(turn);
                    *answer = Answer::Loaded { loads: judged.loads, known: world.image_ids().await? };
                    Ok(Some((judged.body, None)))
                }
            }
        }
        payload @ (Payload::Empty | Payload::Json(_) | Payload::Stream) => {
            permitted.payload = payload;
            Ok(None)
        }
    }
}

/// Rebuilds a request from its permit. Of the client's headers only those that the permit names go along.
fn upstream(
    head: &Parts,
    permitted: crate::permit::Request,
    body: &mut Option<Incoming>,
) -> Result<Request<Body>, Refusal> {
    let mut target = String::with_capacity(128);
    if let Some(version) = permitted.version {
        target.push('/');
        target.push_str(&version.to_string());
    }
    target.push_str(&permitted.path);
    let query = permitted.query.encode();
    if !query.is_empty() {
        target.push('?');
        target.push_str(&query);
    }
    let (payload, kind) = match permitted.payload {
        Payload::Empty => (Body::Empty, None),
        Payload::Json(value) => (Body::full(value.encoded()), Some("application/json")),
        Payload::Stream => (body.take().map_or(Body::Empty, Body::Incoming), Some("application/x-tar")),
        // What is inspected on its way takes the place of this body.
        Payload::Context(_) | Payload::Archive(_) => (Body::Empty, Some("application/x-tar")),
    };
    let mut request = Request::new(payload);
    *request.method_mut() = permitted.method;
    *request.uri_mut() = target.try_into().map_err(|_| Refusal::malformed("the request's parameters are too long"))?;
    let headers = request.headers_mut();
    engine::introduce(headers);
    if let Some(kind) = kind {
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
    }
    let name = match permitted.registry_auth {
        RegistryAuth::None => return Ok(request),
        RegistryAuth::Auth | RegistryAuth::Push => registry::AUTH,
        RegistryAuth::Config => registry::CONFIG,
    };
    let nobody = HeaderValue::from_static(registry::NOBODY);
    let nobody = (permitted.registry_auth == RegistryAuth::Push).then_some(&nobody);
    if let Some(value) = credentials(head, name)?.or(nobody) {
        headers.insert(name, value.clone());
    }
    Ok(request)
}

/// The client's credentials for registries.
fn credentials<'a>(head: &'a Parts, name: &'static str) -> Result<Option<&'a HeaderValue>, Refusal> {
    let base64 = |b: &u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'=' | b'+' | b'/');
    match head.headers.get(name).filter(|value| !value.is_empty()) {
        Some(value) if value.len() > CREDENTIALS_LIMIT || !value.as_bytes().iter().all(base64) => {
            Err(Refusal::malformed(format!("the header `{name}` is not base64")))
        }
        value => Ok(value),
    }
}

/// Asks the engine to leave HTTP on a connection of its own. It always leaves by `101`: whatever else it answers is an
/// ordinary answer, and the connection one on which it still reads requests.
async fn hijack(guard: &Guard, head: &Parts, route: &Route, mut request: Request<Body>) -> Result<Outcome, Refusal> {
    let headers = request.headers_mut();
    headers.insert(header::CONNECTION, HeaderValue::from_static("Upgrade"));
    if let Route::Containers(Containers::AttachWebsocket(_)) = route {
        websocket(&head.headers, headers)?;
    } else {
        headers.insert(header::UPGRADE, HeaderValue::from_static("tcp"));
    }
    let upgraded = |response: &Response<Incoming>| response.status() == StatusCode::SWITCHING_PROTOCOLS;
    match guard.world.engine.send_apart(request, upgraded).await? {
        Apart::Stream(stream) => {
            let asked = head.headers.contains_key(header::UPGRADE);
            Ok(tunnel(stream, if asked { Form::Upgrade } else { Form::Raw }))
        }
        Apart::Answer(response) => Ok(Outcome::Answer(for_client(failure(guard, response).await))),
    }
}

/// Is this a stream of chunks that ends with the connection? The client can have it as the engine framed it.
fn chunked(response: &Response<Incoming>) -> bool {
    let mut encodings = response.headers().get_all(header::TRANSFER_ENCODING).iter();
    let chunked = |encoding: &HeaderValue| encoding.as_bytes().eq_ignore_ascii_case(b"chunked");
    response.status() == StatusCode::OK
        && response.version() == Version::HTTP_11
        && encodings.next().is_some_and(chunked)
        && encodings.next().is_none()
}

/// What the client is answered when a connection has left HTTP.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Form {
    /// A raw stream by upgrade.
    Upgrade,
    /// The old form for clients that did not ask for an upgrade: a `200` without length behind which the raw stream begins.
    Raw,
    /// Chunks as the engine cuts them, and then the connection's end.
    Chunks,
}

/// Gives the engine's connection to the client.
fn tunnel(stream: Stream, form: Form) -> Outcome {
    let Stream { head, engine, early_output } = stream;
    let (status, input) = match form {
        Form::Upgrade => (StatusCode::SWITCHING_PROTOCOLS, Input::Taken),
        Form::Raw => (StatusCode::OK, Input::Taken),
        Form::Chunks => (StatusCode::OK, Input::Dropped),
    };
    Outcome::Tunnel(Box::new(Tunnel { status, head: tunnel_head(form, &head), engine, early_output, input }))
}

/// The headers of a WebSocket's handshake.
fn websocket(from: &HeaderMap, to: &mut HeaderMap) -> Result<(), Refusal> {
    let upgrade = from.get(header::UPGRADE).is_some_and(|value| value.as_bytes().eq_ignore_ascii_case(b"websocket"));
    let token = |b: &u8| b.is_ascii_alphanumeric() || b"+/=-_., ".contains(b);
    let mut carry = |name: HeaderName| match from.get(&name) {
        Some(value) if value.len() <= 256 && value.as_bytes().iter().all(token) => {
            to.insert(name, value.clone());
            true
        }
        _ => false,
    };
    let key = carry(header::SEC_WEBSOCKET_KEY) && carry(header::SEC_WEBSOCKET_VERSION);
    carry(header::SEC_WEBSOCKET_PROTOCOL);
    if !upgrade || !key {
        return Err(Refusal::malformed("this endpoint speaks WebSocket, which the request does not ask for"));
    }
    to.insert(header::UPGRADE, HeaderValue::from_static("websocket"));
    Ok(())
}

/// The head of the answer to a client whose connection leaves HTTP.
fn tunnel_head(form: Form, response: &Response<()>) -> Vec<u8> {
    let reason =
        response.extensions().get::<ReasonPhrase>().map_or(&b"Switching Protocols"[..], ReasonPhrase::as_bytes);
    let mut out = Vec::with_capacity(512);
    let mut line = |name: &[u8], value: &[u8]| {
        out.extend_from_slice(name);
        out.extend_from_slice(value);
        out.extend_from_slice(b"\r\n");
    };
    match form {
        Form::Upgrade => {
            line(b"HTTP/1.1 101 ", reason);
            line(b"Connection: ", b"Upgrade");
            for value in response.headers().get_all(header::UPGRADE) {
                line(b"Upgrade: ", value.as_bytes());
            }
        }
        Form::Raw => {
            line(b"HTTP/1.1 200 OK", b"");
            line(b"Content-Type: ", b"application/vnd.docker.raw-stream");
        }
        Form::Chunks => {
            line(b"HTTP/1.1 200 OK", b"");
            line(b"Connection: ", b"close");
            line(b"Transfer-Encoding: ", b"chunked");
        }
    }
    for (name, value) in response.headers() {
        let skipped = form == Form::Raw && name == header::CONTENT_TYPE || name == header::CONTENT_LENGTH;
        let websocket =
            matches!(name.as_str(), "sec-websocket-accept" | "sec-websocket-protocol") && form == Form::Upgrade;
        if !skipped && (websocket || answer_header(name)) {
            let mut titled = title_case(name.as_str());
            titled.extend_from_slice(b": ");
            line(&titled, value.as_bytes());
        }
    }
    out.extend_from_slice(b"\r\n");
    out
}

fn title_case(name: &str) -> Vec<u8> {
    let mut first = true;
    let letter = |b: u8| {
        let out = if first { b.to_ascii_uppercase() } else { b };
        first = b == b'-';
        out
    };
    name.bytes().map(letter).collect()
}

// Answering the client.

/// An answer of success as the permit shows it, after what has to be done then.
async fn show(
    guard: &Guard,
    response: Response<Incoming>,
    answer: Answer,
    after: Vec<Step>,
    sent: Moment,
    written: &Written,
) -> Result<Response<Body>, Refusal> {
    match answer {
        Answer::Pass | Answer::Follow | Answer::Hijack => {
            finish(guard, response.map(Body::Incoming), after, sent).await
        }
        Answer::View(view) => {
            let shown = answer::view(view, &viewer(guard), sent, response).await?;
            finish(guard, shown, after, sent).await
        }
        Answer::Named { names, from } => Ok(answer::named(&guard.world, names, from, written.labels, response)),
        Answer::Loaded { loads, known } => Ok(answer::loaded(&guard.world, loads, known, response)),
        Answer::Created { warnings, seen_again } => {
            let made = answer::created(&viewer(guard), sent, response, &warnings, seen_again.as_ref()).await;
            let (response, container) = made?;
            if let Some(container) = container {
                guard.world.memory.container(container);
            }
            Ok(response)
        }
    }
}

/// Does what has to be done when the engine has answered with success: before the client can know that it has.
async fn finish(
    guard: &Guard,
    response: Response<Body>,
    after: Vec<Step>,
    sent: Moment,
) -> Result<Response<Body>, Refusal> {
    if after.is_empty() {
        return Ok(response);
    }
    if after.iter().all(|step| matches!(step, Step::Brought { .. })) {
        // The answer is the progress of a transfer, at whose end the image is there.
        let world = Rc::clone(&guard.world);
        return Ok(response.map(|body| {
            body::before_end(body, async move |last| {
                if let Err(why) = steps::after(&world, &after, sent, &last).await {
                    tracing::warn!("{}", why.message(&world.agent.policy.name));
                }
            })
        }));
    }
    let (head, body) = response.into_parts();
    let whole = Limited::new(body, ANSWER_LIMIT).collect().await;
    let whole =
        whole.map_err(|e| Refusal::Engine { message: format!("the Docker Engine broke off its answer: {e}") })?;
    let whole = whole.to_bytes();
    steps::after(&guard.world, &after, sent, &whole).await?;
    Ok(Response::from_parts(head, Body::full(whole)))
}

/// An answer of failure.
async fn failure(guard: &Guard, response: Response<Incoming>) -> Response<Body> {
    answer::error(&viewer(guard), response).await
}

/// Who sees answers.
fn viewer(guard: &Guard) -> Viewer<Engine> {
    let world = &guard.world;
    Viewer { agent: Rc::clone(&world.agent), upstream: Rc::clone(&world.engine), memory: Rc::clone(&world.memory) }
}

/// The name by which the client knows the container that goes upstream by its ID: the engine's errors say what it was
/// asked for.
struct Renamed(Option<(String, String)>);

impl Renamed {
    fn of(route: &Route, upstream: &str) -> Self {
        let id = match route {
            Route::Containers(_) => upstream.split('/').find(|part| part.len() == 64),
            _ => None,
        };
        let names = id.zip(route.object()).filter(|(id, name)| id != name);
        Self(names.map(|(id, name)| (id.to_owned(), name.to_owned())))
    }

    fn back(self, response: Response<Body>) -> Response<Body> {
        let Some((id, name)) = self.0 else { return response };
        response.map(|body| match body {
            Body::Full(Some(text)) => match std::str::from_utf8(&text) {
                // Elsewhere the engine says whose trouble it is, and there it says the ID itself.
                Ok(text) => {
                    let said = text.replace(&format!(": {id}"), &format!(": {name}"));
                    let said = said.replace(&format!(" in container {id}"), &format!(" in container {name}"));
                    Body::full(said.replace(&format!("{id} is paused, unpause"), &format!("{name} is paused, unpause")))
                }
                Err(_) => Body::Full(Some(text)),
            },
            other => other,
        })
    }
}

/// Keeps the headers that clients know, and drops what belongs to the engine's connection.
fn for_client(mut response: Response<Body>) -> Response<Body> {
    let unwanted: Vec<HeaderName> = response.headers().keys().filter(|name| !answer_header(name)).cloned().collect();
    for name in unwanted {
        response.headers_mut().remove(name);
    }
    if matches!(response.body(), Body::Edited(_) | Body::Full(_)) {
        response.headers_mut().remove(header::CONTENT_LENGTH);
    }
    *response.version_mut() = Version::HTTP_11;
    response
}

fn answer_header(name: &HeaderName) -> bool {
    matches!(
        name.as_str(),
        "api-version"
            | "builder-version"
            | "docker-experimental"
            | "ostype"
            | "swarm"
            | "server"
            | "content-type"
            | "content-length"
            | "content-disposition"
            | "date"
            | "cache-control"
            | "pragma"
            | "warning"
            | "x-docker-container-path-stat"
    )
}

/// An answer of our own.
pub fn json(status: StatusCode, value: &Value) -> Response<Body> {
    let empty = status == StatusCode::NO_CONTENT;
    let mut response = Response::new(if empty { Body::Empty } else { Body::full(value.to_string()) });
    *response.status_mut() = status;
    if empty {
        return response;
    }
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

/// An error in the shape that the engine gives its own.
pub fn message(status: StatusCode, text: &str) -> Response<Body> {
    json(status, &Value::from([("message", Value::from(text))]))
}

/// The answer to what is refused.
fn refused(refusal: &Refusal, policy: &str) -> Response<Body> {
    let text = refusal.message(policy);
    let Refusal::Reported { begun, message: _ } = refusal else { return message(refusal.status(), &text) };
    let failed = Value::from([
        ("errorDetail", Value::from([("message", Value::from(text.as_str()))])),
        ("error", Value::from(text.as_str())),
    ]);
    progress(&[Value::from([("status", Value::from(begun.as_str()))]), failed])
}

/// A progress of our own.
fn progress(lines: &[Value]) -> Response<Body> {
    let body: String = lines.iter().map(|line| format!("{line}\r\n")).collect();
    json(StatusCode::OK, &Value::Null).map(|_| Body::full(body))
}

/// The body of an error.
pub fn message_body(text: &str) -> String {
    Value::from([("message", Value::from(text))]).to_string()
}
