//! The runtime API of Lambda, by which the function gets its work and says what came of it. It is on this very machine.

use serde::Serialize;
use std::time::{Duration, SystemTime};
use ureq::http::Request;
use ureq::{Agent, Body};

/// An event is of no use here, but has to be read.
const LONGEST: u64 = 8 << 20;

/// The runtime API.
pub struct Runtime {
    agent: Agent,
    url: String,
}

/// Something to do.
pub struct Invocation {
    id: String,
    /// How long there is for it.
    pub time: Duration,
}

/// What goes wrong, for Lambda's log and its metric of errors.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Wrong<'a> {
    error_message: &'a str,
    error_type: &'a str,
}

impl Runtime {
    /// The one at `address`, host and port.
    pub fn new(address: &str) -> Self {
        // Nothing times out: the next event may be long in coming, and the function stands still until then.
        let config = Agent::config_builder().http_status_as_error(false).max_redirects(0).proxy(None);
        Self { agent: config.build().into(), url: format!("http://{address}/2018-06-01/runtime") }
    }

    /// Waits for something to do.
    pub fn next(&self) -> Result<Invocation, String> {
        let request = Request::get(format!("{}/invocation/next", self.url)).body(Vec::new());
        let mut answer = self.send(request)?;
        answer.body_mut().with_config().limit(LONGEST).read_to_vec().map_err(failed)?;
        let header = |name| answer.headers().get(name).and_then(|value| value.to_str().ok());
        let id = header("lambda-runtime-aws-request-id").filter(|id| is_plain(id));
        let deadline = header("lambda-runtime-deadline-ms").and_then(|text| text.parse().ok());
        let (Some(id), Some(deadline)) = (id, deadline) else {
            return Err("the runtime API gave an event without request ID or deadline".to_owned());
        };
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        Ok(Invocation { id: id.to_owned(), time: Duration::from_millis(deadline).saturating_sub(now) })
    }

    /// Says that it is done.
    pub fn done(&self, invocation: &Invocation, result: &impl Serialize) -> Result<(), String> {
        self.post(&format!("invocation/{}/response", invocation.id), result, None)
    }

    /// Says that it failed.
    pub fn failed(&self, invocation: &Invocation, kind: &str, message: &str) -> Result<(), String> {
        let wrong = Wrong { error_message: message, error_type: kind };
        self.post(&format!("invocation/{}/error", invocation.id), &wrong, Some(kind))
    }

    /// Says that the function cannot work at all.
    pub fn cannot_start(&self, kind: &str, message: &str) -> Result<(), String> {
        self.post("init/error", &Wrong { error_message: message, error_type: kind }, Some(kind))
    }

    fn post(&self, path: &str, body: &impl Serialize, kind: Option<&str>) -> Result<(), String> {
        let body = serde_json::to_vec(body).map_err(|error| error.to_string())?;
        let mut request = Request::post(format!("{}/{path}", self.url)).header("content-type", "application/json");
        if let Some(kind) = kind {
            request = request.header("lambda-runtime-function-error-type", kind);
        }
        self.send(request.body(body)).map(drop)
    }

    fn send(&self, request: ureq::http::Result<Request<Vec<u8>>>) -> Result<ureq::http::Response<Body>, String> {
        let request =
            request.map_err(|error| format!("AWS_LAMBDA_RUNTIME_API is wrong, expected host and port: {error}"))?;
        let answer = self.agent.run(request).map_err(failed)?;
        match answer.status().as_u16() {
            200..300 => Ok(answer),
            status => Err(format!("the runtime API answered with status {status}")),
        }
    }
}

fn failed(error: ureq::Error) -> String {
    format!("the runtime API does not answer: {error}")
}

/// Whether it can stand in a path as it is.
fn is_plain(id: &str) -> bool {
    !id.is_empty() && id.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
}
