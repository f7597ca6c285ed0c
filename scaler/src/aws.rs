//! The three calls to AWS: read the token's parameter, read the service, set the service's number.

use crate::config::Config;
use crate::failure::{Failure, Reason, Step};
use crate::secret::Secret;
use crate::sigv4::{Scope, sign};
use crate::web::{Endpoint, Web};
use serde::Deserialize;
use serde_json::{Value, json};
use std::time::SystemTime;
use ureq::http::Request;

/// The token of the queue's agents.
pub fn token(web: &Web, config: &Config) -> Result<Secret, Failure> {
    let body = json!({"Name": config.token_parameter, "WithDecryption": true});
    found(&Operation::GetParameter.call(web, config, &body)?)
}

/// How many agents were asked for last.
pub fn desired(web: &Web, config: &Config) -> Result<u32, Failure> {
    let body = json!({"cluster": config.cluster, "services": [config.service]});
    described(&Operation::DescribeServices.call(web, config, &body)?)
}

/// Asks for so many agents.
pub fn set_desired(web: &Web, config: &Config, number: u32) -> Result<(), Failure> {
    let body = json!({"cluster": config.cluster, "service": config.service, "desiredCount": number});
    Operation::UpdateService.call(web, config, &body).map(drop)
}

#[derive(Clone, Copy)]
enum Operation {
    GetParameter,
    DescribeServices,
    UpdateService,
}

impl Operation {
    fn step(self) -> Step {
        match self {
            Self::GetParameter => Step::Token,
            Self::DescribeServices => Step::Describe,
            Self::UpdateService => Step::Update,
        }
    }

    fn target(self) -> &'static str {
        match self {
            Self::GetParameter => "AmazonSSM.GetParameter",
            Self::DescribeServices => "AmazonEC2ContainerServiceV20141113.DescribeServices",
            Self::UpdateService => "AmazonEC2ContainerServiceV20141113.UpdateService",
        }
    }

    /// The service, as signatures name it, and where it is.
    fn service(self, config: &Config) -> (&'static str, &Endpoint) {
        match self {
            Self::GetParameter => ("ssm", &config.ssm),
            Self::DescribeServices | Self::UpdateService => ("ecs", &config.ecs),
        }
    }

    fn call(self, web: &Web, config: &Config, body: &Value) -> Result<Vec<u8>, Failure> {
        let (service, endpoint) = self.service(config);
        let body = body.to_string().into_bytes();
        let mut headers = vec![
            ("content-type", "application/x-amz-json-1.1".to_owned()),
            ("host", endpoint.host.clone()),
            ("x-amz-target", self.target().to_owned()),
        ];
        let scope = Scope { region: &config.region, service };
        sign(&config.credentials, scope, SystemTime::now(), &mut headers, &body);
        let request = headers
            .iter()
            .fold(Request::post(format!("{}/", endpoint.url)), |request, (name, value)| request.header(*name, value))
            .body(body)
            // The error of a header would show it.
            .map_err(|_| self.step().failed(Reason::Refused, "there is no request with these keys"))?;
        let answer = web.send(self.step(), request)?;
        match answer.status {
            200 => Ok(answer.body),
            status => Err(refused(self.step(), status, &answer.body)),
        }
    }
}

/// What an answer that says no says.
fn refused(step: Step, status: u16, body: &[u8]) -> Failure {
    // Some write one of the messages, some the other, some both.
    let read: Value = serde_json::from_slice(body).unwrap_or_default();
    let text = |name| read.get(name).and_then(Value::as_str);
    let code = text("__type").and_then(|code| code.rsplit('#').next()).unwrap_or_default();
    let message = text("message").or_else(|| text("Message")).unwrap_or_default();
    let reason = match code {
        "ThrottlingException" | "Throttling" | "TooManyRequestsException" | "RequestLimitExceeded" => Reason::Throttled,
        "AccessDeniedException"
        | "AccessDenied"
        | "UnrecognizedClientException"
        | "InvalidClientTokenId"
        | "SignatureDoesNotMatch"
        | "InvalidSignatureException"
        | "ExpiredTokenException" => Reason::Denied,
        "ServiceNotFoundException" | "ServiceNotActiveException" | "ClusterNotFoundException" => Reason::Service,
        _ => Reason::of_status(status),
    };
    step.failed(reason, format!("HTTP status {status} {code} {message}").trim_end())
}

fn found(answer: &[u8]) -> Result<Secret, Failure> {
    #[derive(Deserialize)]
    #[serde(rename_all = "PascalCase")]
    struct Found {
        parameter: Parameter,
    }
    #[derive(Deserialize)]
    #[serde(rename_all = "PascalCase")]
    struct Parameter {
        value: String,
    }
    // The parser's error could show the token.
    let found: Found = serde_json::from_slice(answer)
        .map_err(|_| Step::Token.failed(Reason::Answer, "the answer has no Parameter with a Value"))?;
    let wrong = "the parameter's value is no token: expected visible ASCII characters";
    Secret::new(found.parameter.value.trim()).ok_or_else(|| Step::Token.failed(Reason::Answer, wrong))
}

/// The number in the answer, if that is about one active service and nothing failed.
fn described(answer: &[u8]) -> Result<u32, Failure> {
    #[derive(Deserialize)]
    struct Described {
        services: Vec<Service>,
        #[serde(default)]
        failures: Vec<Missing>,
    }
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Service {
        status: String,
        desired_count: u32,
    }
    #[derive(Deserialize)]
    struct Missing {
        #[serde(default)]
        reason: String,
    }
    let failed = |reason, detail: &str| Err(Step::Describe.failed(reason, detail));
    let read: Described = match serde_json::from_slice(answer) {
        Ok(read) => read,
        Err(error) => return failed(Reason::Answer, &error.to_string()),
    };
    match (read.services.as_slice(), read.failures.as_slice()) {
        ([service], []) if service.status == "ACTIVE" => Ok(service.desired_count),
        ([service], []) => failed(Reason::Service, &format!("it is {}", service.status)),
        (_, [missing, ..]) => failed(Reason::Service, &format!("the answer has a failure: {}", missing.reason)),
        (services, []) => failed(Reason::Service, &format!("the answer has {} services", services.len())),
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    #[test]
    fn services() {
        let one = r#"{"services":[{"status":"ACTIVE","desiredCount":3,"runningCount":1}],"failures":[]}"#;
        assert_eq!(described(one.as_bytes()), Ok(3));
        for (answer, reason) in [
            (r#"{"services":[],"failures":[{"arn":"a","reason":"MISSING"}]}"#, Reason::Service),
            (r#"{"services":[{"status":"ACTIVE","desiredCount":3}],"failures":[{"arn":"a"}]}"#, Reason::Service),
            (r#"{"services":[],"failures":[]}"#, Reason::Service),
            (r#"{"services":[{"status":"DRAINING","desiredCount":0}],"failures":[]}"#, Reason::Service),
            (r#"{"services":[{"status":"INACTIVE","desiredCount":0}]}"#, Reason::Service),
            (
                r#"{"services":[{"status":"ACTIVE","desiredCount":1},{"status":"ACTIVE","desiredCount":2}]}"#,
                Reason::Service,
            ),
            (r#"{"services":[{"status":"ACTIVE"}]}"#, Reason::Answer),
            (r#"{"services":[{"status":"ACTIVE","desiredCount":-1}]}"#, Reason::Answer),
            (r#"{"services":[{"status":"ACTIVE","desiredCount":"1"}]}"#, Reason::Answer),
            ("{}", Reason::Answer),
            ("", Reason::Answer),
        ] {
            assert_eq!(described(answer.as_bytes()).unwrap_err().reason, reason, "{answer}");
        }
    }

    #[test]
    fn refusals() {
        for (status, body, reason, detail) in [
            (
                400,
                r#"{"__type":"ThrottlingException","message":"Rate exceeded"}"#,
                Reason::Throttled,
                "HTTP status 400 ThrottlingException Rate exceeded",
            ),
            (
                400,
                r#"{"__type":"com.amazonaws.ecs#AccessDeniedException","Message":"no"}"#,
                Reason::Denied,
                "HTTP status 400 AccessDeniedException no",
            ),
            (
                400,
                r#"{"__type":"ServiceNotFoundException"}"#,
                Reason::Service,
                "HTTP status 400 ServiceNotFoundException",
            ),
            (
                400,
                r#"{"__type":"ParameterNotFound","message":"no","Message":"No"}"#,
                Reason::Refused,
                "HTTP status 400 ParameterNotFound no",
            ),
            (400, r#"{"__type":"Throttling","message":null}"#, Reason::Throttled, "HTTP status 400 Throttling"),
            (403, "<xml>", Reason::Denied, "HTTP status 403"),
            (429, "", Reason::Throttled, "HTTP status 429"),
            (503, "", Reason::Unavailable, "HTTP status 503"),
            (301, "", Reason::Refused, "HTTP status 301"),
        ] {
            let failure = refused(Step::Update, status, body.as_bytes());
            assert_eq!((failure.reason, failure.detail.as_str()), (reason, detail), "{body}");
        }
        let long = format!(r#"{{"__type":"X","message":"{}"}}"#, "ü".repeat(9000));
        assert_eq!(refused(Step::Update, 400, long.as_bytes()).detail.chars().count(), 200);
    }

    #[test]
    fn a_token_is_read_and_never_shown() {
        let token = found(br#"{"Parameter":{"Name":"/t","Type":"SecureString","Value":"s3cret\n"}}"#).unwrap();
        assert_eq!(token.expose(), "s3cret");
        for answer in [
            r#"{"Parameter":{"Name":"/t","Value":"s3cret s3cret"}}"#,
            r#"{"Parameter":{"Name":"/t","Value":"s3cret\r\nX: y"}}"#,
            r#"{"Parameter":{"Name":"/t","Value":""}}"#,
            r#"{"Parameter":{"Name":"/t","Value":["s3cret"]}}"#,
            r#"{"Parameter":"s3cret"}"#,
            "s3cret",
        ] {
            let failure = found(answer.as_bytes()).unwrap_err();
            assert_eq!(failure.reason, Reason::Answer, "{answer}");
            assert!(!failure.detail.contains("s3cret"), "{answer}");
        }
    }
}
