//! What is measured, what a right answer is, and the limits.

use serde_json::{Value, json};

use crate::engine::world::{CONTAINER, CONTAINERS, OWNER_LABEL};
use crate::load::{Answer, Connections, PING, Requests};
use crate::report::Limit::{self, AtMost, Open, TimesRelay, TimesRelayAndFixed};
use crate::report::Measure;
use crate::target::Kind;

pub const LIST: &str = "GET /v1.47/containers/json?all=1 HTTP/1.1\r\nHost: docker\r\n\r\n";
const SHORT_LIST: &str = "GET /v1.47/containers/json?all=1&limit=2 HTTP/1.1\r\nHost: docker\r\n\r\n";
const CREATE_BODY: usize = 4096;
/// 52 µs of CPU on a machine where the relay, which has one worker thread as sockguard, takes 49.
const NEW_CONNECTION: f64 = 1.06;

pub enum Work {
    Requests(Requests),
    Down,
    Up,
    BothWays,
    Echo,
    LogLine,
}

pub struct Case {
    pub name: &'static str,
    pub work: Work,
    pub measures: Vec<Measure>,
    /// Is it measured where peers are told apart, too? The fake engine's containers are sealed with another key.
    pub peers: bool,
}

impl Case {
    fn also_peers(self) -> Self {
        Self { peers: true, ..self }
    }
}

pub fn all() -> Vec<Case> {
    use Connections::{Kept, New};
    let get = |line: &str| line.as_bytes().to_vec();
    let inspect = format!("GET /v1.47/containers/{CONTAINER}/json HTTP/1.1\r\nHost: docker\r\n\r\n");
    let swarm = post("/v1.47/swarm/init", &json!({"ListenAddr": "0.0.0.0:2377"}));
    let create = post("/v1.47/containers/create?name=build", &create_body(false));
    let privileged = post("/v1.47/containers/create?name=build", &create_body(true));
    vec![
        requests("ping", PING.to_vec(), Kept(1), ping, TimesRelayAndFixed(3.0, 1.05)).also_peers(),
        requests("ping, 16 connections", PING.to_vec(), Kept(16), ping, TimesRelayAndFixed(3.0, 1.05)).also_peers(),
        requests("ping, new connections", PING.to_vec(), New, ping, TimesRelay(NEW_CONNECTION)).also_peers(),
        requests("list of 2 KiB", get(SHORT_LIST), Kept(1), |kind, answer| list(kind, answer, 2), TimesRelay(3.0)),
        requests("inspect, own by ID", get(&inspect), Kept(1), inspected, TimesRelay(3.0)),
        requests("list of 1 MiB", get(LIST), Kept(1), |kind, answer| list(kind, answer, CONTAINERS), AtMost(4000.0)),
        requests(
            "list of 1 MiB, 16 connections",
            get(LIST),
            Kept(16),
            |kind, answer| list(kind, answer, CONTAINERS),
            AtMost(4000.0),
        ),
        requests("create, body of 4 KiB", create, Kept(1), created, TimesRelay(6.0)),
        requests("refused by path", swarm, Kept(1), |kind, answer| refused(kind, answer, 200), TimesRelay(1.5))
            .also_peers(),
        requests("refused by body", privileged, Kept(1), |kind, answer| refused(kind, answer, 201), TimesRelay(4.0))
            .also_peers(),
        bulk("export, 1 way down", Work::Down),
        bulk("archive, 1 way up", Work::Up),
        bulk("hijacked, both ways", Work::BothWays),
        Case {
            name: "hijacked echo of 64 bytes",
            work: Work::Echo,
            measures: vec![
                Measure::Seen("p50, µs", TimesRelay(1.1)),
                Measure::Seen("p99, µs", Open),
                Measure::Taken("CPU, µs", Open),
            ],
            peers: false,
        },
        Case {
            name: "line of a followed log",
            work: Work::LogLine,
            measures: vec![
                Measure::Seen("p50, µs", TimesRelay(1.1)),
                Measure::Seen("p99, µs", Open),
                Measure::Taken("CPU, µs", Open),
            ],
            peers: false,
        },
    ]
}

fn requests(
    name: &'static str,
    request: Vec<u8>,
    connections: Connections,
    check: crate::load::Check,
    cpu: Limit,
) -> Case {
    Case {
        name,
        work: Work::Requests(Requests { request, connections, check }),
        measures: vec![
            Measure::Seen("rate, 1/s", Open),
            Measure::Seen("p50, µs", Open),
            Measure::Seen("p99, µs", Open),
            Measure::Taken("CPU, µs", cpu),
        ],
        peers: false,
    }
}

fn bulk(name: &'static str, work: Work) -> Case {
    Case {
        name,
        work,
        measures: vec![
            Measure::Seen("rate, MiB/s", Open),
            Measure::Taken("CPU, s/GiB", TimesRelay(1.2)),
            Measure::Taken("peak, KiB", AtMost(32.0 * 1024.0)),
        ],
        peers: false,
    }
}

fn post(target: &str, body: &Value) -> Vec<u8> {
    let body = body.to_string();
    let length = body.len();
    let head = format!("POST {target} HTTP/1.1\r\nHost: docker\r\nUser-Agent: Docker-Client/28.2.2 (linux)\r\n");
    format!("{head}Content-Type: application/json\r\nContent-Length: {length}\r\n\r\n{body}").into_bytes()
}

/// The fields that the docker CLI sends, and an environment that fills it up.
fn create_body(privileged: bool) -> Value {
    let mut body: Value = serde_json::from_str(include_str!("create.json")).unwrap_or_default();
    body["HostConfig"]["Privileged"] = json!(privileged);
    let mut variables = Vec::new();
    while body.to_string().len() < CREATE_BODY - 40 {
        variables.push(format!("BUILD_VARIABLE_{:02}=a value as builds set", variables.len()));
        body["Env"] = json!(variables);
    }
    body
}

fn ping(_: Kind, answer: &Answer) -> Result<(), String> {
    wants(answer.status == 200 && answer.body == b"OK", "not a ping's answer")
}

fn list(kind: Kind, answer: &Answer, entries: usize) -> Result<(), String> {
    let list: Value = document(answer)?;
    let got = list.as_array().map(Vec::len);
    wants(answer.status == 200 && got == Some(entries), "not the list of all entries")?;
    labels(kind, answer)
}

fn inspected(kind: Kind, answer: &Answer) -> Result<(), String> {
    let container = document(answer)?;
    wants(answer.status == 200 && container["Id"] == CONTAINER, "not the container")?;
    labels(kind, answer)
}

/// The owner label is the engine's and sockguard's business; a client's own labels stay.
fn labels(kind: Kind, answer: &Answer) -> Result<(), String> {
    let text = String::from_utf8_lossy(&answer.body);
    wants(text.contains("com.docker.compose.project"), "a label is lost")?;
    wants(text.contains(OWNER_LABEL) != kind.is_guarded(), "the owner label is where it should not be")
}

fn created(kind: Kind, answer: &Answer) -> Result<(), String> {
    let created = document(answer)?;
    wants(answer.status == 201 && created["Id"].as_str().is_some_and(|id| id.len() == 64), "nothing was created")?;
    let warning = if kind.is_guarded() { "labelled" } else { "unlabelled" };
    let warnings = created["Warnings"].as_array();
    wants(
        warnings.is_some_and(|all| all.contains(&json!(warning))),
        "the owner label did not reach the engine, or it did unasked",
    )
}

fn refused(kind: Kind, answer: &Answer, bare: u16) -> Result<(), String> {
    if !kind.is_guarded() {
        return wants(answer.status == bare, "the bare engine would not do it");
    }
    let message = document(answer)?;
    let teaches = message["message"].as_str().is_some_and(|message| message.contains("sockguard"));
    wants(answer.status == 403 && teaches, "not refused")
}

fn document(answer: &Answer) -> Result<Value, String> {
    serde_json::from_slice(&answer.body).map_err(|why| format!("no JSON ({why})"))
}

fn wants(right: bool, otherwise: &str) -> Result<(), String> {
    if right { Ok(()) } else { Err(otherwise.to_string()) }
}
