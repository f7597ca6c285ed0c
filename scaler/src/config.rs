//! The settings, all from the environment. Every mistake is named with what was expected, all at once.

use crate::decide::{Bounds, Rule, Waiting};
use crate::secret::Secret;
use crate::sigv4::Credentials;
use crate::web::Endpoint;
use std::time::Duration;

/// Where Buildkite's agents register, where nothing else is said.
const BUILDKITE: &str = "https://agent.buildkite.com/v3";

/// No service has more tasks than this.
const MOST_AGENTS: u32 = 5000;

/// What the function does, for which queue and service.
#[derive(Debug)]
pub struct Config {
    pub queue: String,
    pub metrics: Endpoint,
    /// The name of the parameter in Systems Manager that has the token of the queue's agents.
    pub token_parameter: String,
    pub cluster: String,
    pub service: String,
    pub rule: Rule,
    pub poll_interval: Duration,
    /// How long one request may take.
    pub call_timeout: Duration,
    pub region: String,
    pub credentials: Credentials,
    pub ecs: Endpoint,
    pub ssm: Endpoint,
}

impl Config {
    /// Reads the environment; what is wrong comes as one line for each mistake.
    pub fn read(environment: impl Fn(&str) -> Option<String>) -> Result<Self, Vec<String>> {
        let mut reader = Reader { environment, problems: Vec::new() };
        let config = reader.config();
        match config {
            Some(config) if reader.problems.is_empty() => Ok(config),
            Some(_) | None => Err(reader.problems),
        }
    }
}

struct Reader<E> {
    environment: E,
    problems: Vec<String>,
}

impl<E: Fn(&str) -> Option<String>> Reader<E> {
    fn config(&mut self) -> Option<Config> {
        // All are read before the first that is missing ends it.
        let queue = self.required("BUILDKITE_QUEUE", "the queue's name", |text| {
            (text.len() <= 255 && !text.contains(char::is_control)).then(|| text.to_owned())
        });
        let metrics = self.read(
            "BUILDKITE_AGENT_ENDPOINT",
            Some(BUILDKITE),
            "an https:// URL without a query, such as \"https://agent.buildkite.com/v3\"",
            Endpoint::parse,
        );
        let token_parameter =
            self.required("BUILDKITE_TOKEN_PARAMETER", "the name of a parameter in Systems Manager", name);
        let cluster = self.required("ECS_CLUSTER", "the cluster's name or ARN", name);
        let service = self.required("ECS_SERVICE", "the service's name or ARN", name);
        let rule = self.rule();
        let poll_interval = self.duration("POLL_INTERVAL", "10s", ["10ms", "60s"]);
        let call_timeout = self.duration("CALL_TIMEOUT", "5s", ["10ms", "30s"]);

        let region = self.required("AWS_REGION", "a region such as \"eu-central-1\"", |text| {
            let fits = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
            text.bytes().all(fits).then(|| text.to_owned())
        });
        let access_key = self.required("AWS_ACCESS_KEY_ID", "an access key", |text| {
            text.bytes().all(|byte| byte.is_ascii_alphanumeric()).then(|| text.to_owned())
        });
        let secret_key = self.secret("AWS_SECRET_ACCESS_KEY", Need::Required);
        let session_token = self.secret("AWS_SESSION_TOKEN", Need::Optional);
        let ecs = self.aws_endpoint("AWS_ENDPOINT_URL_ECS", "ecs", region.as_deref());
        let ssm = self.aws_endpoint("AWS_ENDPOINT_URL_SSM", "ssm", region.as_deref());
        Some(Config {
            queue: queue?,
            metrics: metrics?,
            token_parameter: token_parameter?,
            cluster: cluster?,
            service: service?,
            rule: rule?,
            poll_interval: poll_interval?,
            call_timeout: call_timeout?,
            region: region?,
            credentials: Credentials { access_key: access_key?, secret_key: secret_key?, session_token },
            ecs: ecs?,
            ssm: ssm?,
        })
    }

    fn rule(&mut self) -> Option<Rule> {
        let least = self.number("MIN_AGENTS", Some("0"));
        let most = self.number("MAX_AGENTS", None);
        let buffer = self.number("IDLE_BUFFER", Some("0"));
        let waiting = self.read("WAITING_JOBS", Some("ignore"), "\"count\" or \"ignore\"", |text| match text {
            "count" => Some(Waiting::Count),
            "ignore" => Some(Waiting::Ignore),
            _ => None,
        });
        let cool_down = self.duration("COOL_DOWN", "5m", ["0s", "24h"]);
        let (least, most) = (least?, most?);
        let bounds = Bounds::new(least, most);
        if bounds.is_none() {
            self.problems.push(format!("MIN_AGENTS `{least}` is more than MAX_AGENTS `{most}`"));
        }
        Some(Rule { bounds: bounds?, buffer: buffer?, waiting: waiting?, cool_down: cool_down? })
    }

    /// The value of a variable, or what stands for it. One that is empty is one that is not set, as in a template.
    fn read<T>(
        &mut self,
        name: &str,
        default: Option<&str>,
        expected: &str,
        parse: impl Fn(&str) -> Option<T>,
    ) -> Option<T> {
        let given = (self.environment)(name).filter(|text| !text.is_empty());
        let Some(text) = given.as_deref().or(default) else {
            self.problems.push(format!("{name} is not set: expected {expected}"));
            return None;
        };
        let read = parse(text);
        if read.is_none() {
            let shown: String = text.escape_debug().take(80).collect();
            self.problems.push(format!("{name} `{shown}` is wrong: expected {expected}"));
        }
        read
    }

    fn required<T>(&mut self, name: &str, expected: &str, parse: impl Fn(&str) -> Option<T>) -> Option<T> {
        self.read(name, None, expected, parse)
    }

    fn number(&mut self, name: &str, default: Option<&str>) -> Option<u32> {
        self.read(name, default, &format!("a number from 0 to {MOST_AGENTS}"), |text| {
            let digits = text.bytes().all(|byte| byte.is_ascii_digit());
            digits.then(|| text.parse().ok()).flatten().filter(|number| *number <= MOST_AGENTS)
        })
    }

    fn duration(&mut self, name: &str, default: &str, [least, most]: [&str; 2]) -> Option<Duration> {
        let expected = format!("a duration from {least} to {most}, such as \"500ms\", \"30s\" or \"5m\"");
        let within = duration(least)?..=duration(most)?;
        self.read(name, Some(default), &expected, |text| duration(text).filter(|read| within.contains(read)))
    }

    /// A secret, which no line shows.
    fn secret(&mut self, name: &str, need: Need) -> Option<Secret> {
        let given = (self.environment)(name).filter(|text| !text.is_empty());
        let problem = match (given.as_deref().map(Secret::new), need) {
            (Some(Some(secret)), _) => return Some(secret),
            (None, Need::Optional) => return None,
            (Some(None), _) => "is wrong",
            (None, Need::Required) => "is not set",
        };
        self.problems.push(format!("{name} {problem}: expected visible ASCII characters"));
        None
    }

    /// As AWS's own clients find it: the service's own variable, the common one, the region's usual name.
    fn aws_endpoint(&mut self, variable: &str, service: &str, region: Option<&str>) -> Option<Endpoint> {
        let domain = if region?.starts_with("cn-") { "amazonaws.com.cn" } else { "amazonaws.com" };
        let usual = format!("https://{service}.{}.{domain}", region?);
        let set = |name: &&str| (self.environment)(name).is_some_and(|text| !text.is_empty());
        let name = [variable, "AWS_ENDPOINT_URL"].into_iter().find(set).unwrap_or(variable);
        self.read(name, Some(&usual), "an https:// URL without a path", |text| {
            Endpoint::parse(text).filter(Endpoint::is_bare)
        })
    }
}

#[derive(Clone, Copy)]
enum Need {
    Required,
    Optional,
}

/// A name or ARN.
fn name(text: &str) -> Option<String> {
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || b"-_./:".contains(&byte);
    (text.len() <= 2048 && text.bytes().all(fits)).then(|| text.to_owned())
}

/// A number with its unit.
fn duration(text: &str) -> Option<Duration> {
    [("ms", 1), ("s", 1000), ("m", 60_000), ("h", 3_600_000)].iter().find_map(|(unit, milliseconds)| {
        let number = text.strip_suffix(unit).filter(|number| number.bytes().all(|digit| digit.is_ascii_digit()))?;
        Some(Duration::from_millis(number.parse::<u64>().ok()?.checked_mul(*milliseconds)?))
    })
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    const REQUIRED: [(&str, &str); 8] = [
        ("BUILDKITE_QUEUE", "default"),
        ("BUILDKITE_TOKEN_PARAMETER", "/buildkite/token"),
        ("ECS_CLUSTER", "agents"),
        ("ECS_SERVICE", "buildkite-agent-default"),
        ("MAX_AGENTS", "10"),
        ("AWS_REGION", "eu-central-1"),
        ("AWS_ACCESS_KEY_ID", "AKIDEXAMPLE"),
        ("AWS_SECRET_ACCESS_KEY", "s3cret"),
    ];

    fn read(changes: &[(&str, &str)]) -> Result<Config, Vec<String>> {
        let set: BTreeMap<_, _> = REQUIRED.iter().chain(changes).copied().collect();
        Config::read(|name| set.get(name).map(|text| (*text).to_owned()))
    }

    #[test]
    fn what_is_not_set_has_a_usual_value() {
        let config = read(&[]).unwrap();
        assert_eq!(config.metrics.url, "https://agent.buildkite.com/v3");
        assert_eq!(config.ecs.url, "https://ecs.eu-central-1.amazonaws.com");
        assert_eq!(config.ssm.url, "https://ssm.eu-central-1.amazonaws.com");
        assert_eq!(config.rule.bounds, Bounds::new(0, 10).unwrap());
        assert_eq!((config.rule.buffer, config.rule.waiting), (0, Waiting::Ignore));
        assert_eq!(config.rule.cool_down, Duration::from_secs(300));
        assert_eq!(config.poll_interval, Duration::from_secs(10));
        assert_eq!(config.call_timeout, Duration::from_secs(5));
        assert_eq!(config.credentials.session_token, None);
    }

    #[test]
    fn all_can_be_set() {
        let config = read(&[
            ("BUILDKITE_AGENT_ENDPOINT", "https://agent.example.com/v3/"),
            ("MIN_AGENTS", "2"),
            ("IDLE_BUFFER", "1"),
            ("WAITING_JOBS", "count"),
            ("COOL_DOWN", "0s"),
            ("POLL_INTERVAL", "50ms"),
            ("CALL_TIMEOUT", "1s"),
            ("AWS_SESSION_TOKEN", "t0ken"),
            ("AWS_ENDPOINT_URL", "http://127.0.0.1:5000"),
            ("AWS_ENDPOINT_URL_SSM", "http://127.0.0.1:5001/"),
        ])
        .unwrap();
        assert_eq!(config.metrics.url, "https://agent.example.com/v3");
        assert_eq!(config.rule.bounds, Bounds::new(2, 10).unwrap());
        assert_eq!((config.rule.buffer, config.rule.waiting), (1, Waiting::Count));
        assert_eq!(config.rule.cool_down, Duration::ZERO);
        assert_eq!(config.poll_interval, Duration::from_millis(50));
        assert_eq!(config.call_timeout, Duration::from_secs(1));
        assert_eq!(config.credentials.session_token.unwrap().expose(), "t0ken");
        assert_eq!(config.ecs.host, "127.0.0.1:5000");
        assert_eq!(config.ssm.host, "127.0.0.1:5001");
        assert_eq!(read(&[("AWS_REGION", "cn-north-1")]).unwrap().ecs.host, "ecs.cn-north-1.amazonaws.com.cn");
    }

    #[test]
    fn each_mistake_is_named_with_what_was_expected() {
        for (name, value, expected) in [
            ("BUILDKITE_QUEUE", "", "BUILDKITE_QUEUE is not set: expected the queue's name"),
            ("BUILDKITE_QUEUE", "a\nb", "BUILDKITE_QUEUE `a\\nb` is wrong: expected the queue's name"),
            (
                "BUILDKITE_TOKEN_PARAMETER",
                "a b",
                "BUILDKITE_TOKEN_PARAMETER `a b` is wrong: expected the name of a parameter",
            ),
            ("ECS_CLUSTER", "", "ECS_CLUSTER is not set"),
            ("ECS_SERVICE", "a*", "ECS_SERVICE `a*` is wrong"),
            ("MAX_AGENTS", "", "MAX_AGENTS is not set: expected a number from 0 to 5000"),
            ("MAX_AGENTS", "ten", "MAX_AGENTS `ten` is wrong: expected a number from 0 to 5000"),
            ("MAX_AGENTS", "5001", "MAX_AGENTS `5001` is wrong"),
            ("MAX_AGENTS", "+5", "MAX_AGENTS `+5` is wrong"),
            ("MIN_AGENTS", "-1", "MIN_AGENTS `-1` is wrong"),
            ("MIN_AGENTS", "11", "MIN_AGENTS `11` is more than MAX_AGENTS `10`"),
            ("IDLE_BUFFER", "1.5", "IDLE_BUFFER `1.5` is wrong"),
            ("WAITING_JOBS", "true", "WAITING_JOBS `true` is wrong: expected \"count\" or \"ignore\""),
            ("COOL_DOWN", "300", "COOL_DOWN `300` is wrong: expected a duration from 0s to 24h, such as"),
            ("COOL_DOWN", "25h", "COOL_DOWN `25h` is wrong"),
            ("POLL_INTERVAL", "0s", "POLL_INTERVAL `0s` is wrong: expected a duration from 10ms to 60s"),
            ("POLL_INTERVAL", "99999999999999999999h", "POLL_INTERVAL `99999999999999999999h` is wrong"),
            ("CALL_TIMEOUT", "s", "CALL_TIMEOUT `s` is wrong"),
            ("BUILDKITE_AGENT_ENDPOINT", "http://agent.buildkite.com/v3", "is wrong: expected an https:// URL"),
            ("AWS_ENDPOINT_URL", "https://example.com/path", "AWS_ENDPOINT_URL `https://example.com/path` is wrong"),
            ("AWS_REGION", "", "AWS_REGION is not set: expected a region such as"),
            ("AWS_REGION", "a.example.com/", "AWS_REGION `a.example.com/` is wrong"),
            ("AWS_ACCESS_KEY_ID", "a/b", "AWS_ACCESS_KEY_ID `a/b` is wrong"),
            ("AWS_SECRET_ACCESS_KEY", "", "AWS_SECRET_ACCESS_KEY is not set"),
        ] {
            let problems = read(&[(name, value)]).unwrap_err();
            assert!(problems.iter().any(|line| line.contains(expected)), "{expected}: {problems:?}");
        }
    }

    #[test]
    fn all_mistakes_come_at_once() {
        let problems = Config::read(|_| None).unwrap_err();
        for (name, _) in REQUIRED {
            assert_eq!(problems.iter().filter(|line| line.starts_with(&format!("{name} is not set"))).count(), 1);
        }
        assert_eq!(problems.len(), REQUIRED.len());
    }

    #[test]
    fn a_secret_that_is_wrong_is_not_shown() {
        for name in ["AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN"] {
            let problems = read(&[(name, "s3cret s3cret")]).unwrap_err();
            assert_eq!(problems, [format!("{name} is wrong: expected visible ASCII characters")]);
        }
    }
}
