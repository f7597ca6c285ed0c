//! Query parameters: which ones each endpoint has, read once into typed values and encoded anew for the engine.

use crate::json::{self, Object, Value};
use crate::judge;
use crate::refusal::Refusal;
use crate::route::{Route, percent_decode, percent_encode};
use hyper::Method;
use std::collections::BTreeMap;

/// How a parameter is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// As the engine reads booleans: empty, `0`, `no`, `false`, `none` are false, all else is true.
    Bool,
    /// A decimal integer.
    Int,
    /// Text without control characters.
    Text,
    /// Text that may stand several times.
    List,
    /// A JSON document of the `filters` form.
    Filters,
    /// Another JSON document.
    Json,
    /// A parameter that sockguard does not let through; the reason says why or what instead.
    Refused(&'static str),
    /// What no engine reads, but some client sends: dropped.
    Dropped,
}

/// A value that was read.
#[derive(Debug, Clone, PartialEq)]
pub enum Param {
    /// Of `Kind::Bool`.
    Bool(bool),
    /// Of `Kind::Int`.
    Int(i64),
    /// Of `Kind::Text`.
    Text(String),
    /// Of `Kind::List`.
    List(Vec<String>),
    /// Of `Kind::Filters`.
    Filters(Filters),
    /// Of `Kind::Json`.
    Json(Value),
}

/// The parameters of a request: known ones, each at most once.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Query(Vec<(&'static str, Param)>);

/// The client's `filters`: for each key the values, in the form that all engines take.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Filters(BTreeMap<String, Vec<String>>);

/// The parameters of an endpoint. Endpoints that sockguard answers itself have none that matter, so none is known and
/// an unknown one is refused like everywhere.
pub fn parameters(method: &Method, pattern: &str) -> &'static [(&'static str, Kind)] {
    use Kind::*;
    match (method.as_str(), pattern) {
        ("GET", "/containers/json") => {
            // docker-py sends `trunc_cmd`.
            &[
                ("all", Bool),
                ("limit", Int),
                ("size", Bool),
                ("filters", Filters),
                ("since", Text),
                ("before", Text),
                ("trunc_cmd", Dropped),
            ]
        }
        ("POST", "/containers/create") => &[("name", Text), ("platform", Text)],
        ("POST", "/containers/prune") => &[("filters", Filters)],
        ("GET", "/containers/{id}/json") => &[("size", Bool)],
        ("GET", "/containers/{id}/top") => &[("ps_args", Text)],
        ("GET", "/containers/{id}/logs") => &[
            ("follow", Bool),
            ("stdout", Bool),
            ("stderr", Bool),
            ("since", Text),
            ("until", Text),
            ("timestamps", Bool),
            ("tail", Text),
            ("details", Bool),
            ("format", Text),
        ],
        ("GET", "/containers/{id}/stats") => &[("stream", Bool), ("one-shot", Bool)],
        ("POST", "/containers/{id}/resize") | ("POST", "/exec/{id}/resize") => &[("h", Int), ("w", Int)],
        ("POST", "/containers/{id}/start") => &[
            ("detachKeys", Text),
            ("checkpoint", Refused("checkpoints are not served")),
            ("checkpoint-dir", Refused("checkpoints are not served")),
        ],
        ("POST", "/containers/{id}/stop") | ("POST", "/containers/{id}/restart") => &[("t", Int), ("signal", Text)],
        ("POST", "/containers/{id}/kill") => &[("signal", Text)],
        ("POST", "/containers/{id}/rename") => &[("name", Text)],
        ("POST", "/containers/{id}/attach") | ("GET", "/containers/{id}/attach/ws") => &[
            ("detachKeys", Text),
            ("logs", Bool),
            ("stream", Bool),
            ("stdin", Bool),
            ("stdout", Bool),
            ("stderr", Bool),
            // dockerode sends it.
            ("hijack", Dropped),
        ],
        ("POST", "/containers/{id}/wait") => &[("condition", Text)],
        ("DELETE", "/containers/{id}") => &[("v", Bool), ("force", Bool), ("link", Bool)],
        ("HEAD" | "GET", "/containers/{id}/archive") => &[("path", Text)],
        ("PUT", "/containers/{id}/archive") => &[("path", Text), ("noOverwriteDirNonDir", Text), ("copyUIDGID", Text)],
        ("GET", "/images/json") => &[
            ("all", Bool),
            ("filters", Filters),
            ("shared-size", Bool),
            ("digests", Bool),
            ("manifests", Bool),
            ("identity", Bool),
            // Before API 1.41 the list took a name here.
            ("filter", Text),
            // docker-py sends it.
            ("only_ids", Dropped),
        ],
        ("POST", "/build") => &[
            ("dockerfile", Text),
            ("t", List),
            ("extrahosts", List),
            ("remote", Text),
            ("q", Bool),
            ("nocache", Bool),
            ("cachefrom", Json),
            ("pull", Text),
            ("rm", Bool),
            ("forcerm", Bool),
            ("memory", Int),
            ("memswap", Int),
            ("cpushares", Int),
            ("cpusetcpus", Text),
            ("cpusetmems", Text),
            ("cpuperiod", Int),
            ("cpuquota", Int),
            ("cgroupparent", Text),
            ("buildargs", Json),
            ("shmsize", Int),
            ("squash", Bool),
            ("labels", Json),
            ("networkmode", Text),
            ("platform", Text),
            ("target", Text),
            ("outputs", Json),
            ("version", Text),
            ("session", Text),
            ("buildid", Text),
            ("ulimits", Json),
            ("securityopt", Json),
            ("isolation", Text),
        ],
        ("POST", "/build/prune") => &[
            ("keep-storage", Int),
            ("reserved-space", Int),
            ("max-used-space", Int),
            ("min-free-space", Int),
            ("all", Bool),
            ("filters", Filters),
        ],
        ("POST", "/build/cancel") => &[("id", Text)],
        ("POST", "/images/create") => &[
            ("fromImage", Text),
            ("fromSrc", Text),
            ("repo", Text),
            ("tag", Text),
            ("message", Text),
            ("changes", List),
            ("platform", Text),
        ],
        ("GET", "/images/{name}/json") => &[("manifests", Bool), ("platform", Json)],
        ("GET", "/images/{name}/attestations") => &[("platform", Json), ("type", List), ("statement", Bool)],
        ("GET", "/images/{name}/history") => &[("platform", Json)],
        ("POST", "/images/{name}/push") => &[("tag", Text), ("platform", Json)],
        ("POST", "/images/{name}/tag") => &[("repo", Text), ("tag", Text), ("force", Bool)],
        ("DELETE", "/images/{name}") => &[("force", Bool), ("noprune", Bool), ("platforms", List)],
        ("GET", "/images/search") => &[("term", Text), ("limit", Int), ("filters", Filters)],
        ("POST", "/images/prune") => &[("filters", Filters)],
        ("POST", "/commit") => &[
            ("container", Text),
            ("repo", Text),
            ("tag", Text),
            ("comment", Text),
            ("author", Text),
            ("pause", Bool),
            ("changes", List),
        ],
        ("GET", "/images/{name}/get") => &[("platform", List)],
        ("GET", "/images/get") => &[("names", List), ("platform", List)],
        ("POST", "/images/load") => &[("quiet", Bool), ("platform", List)],
        ("GET", "/events") => &[("since", Text), ("until", Text), ("filters", Filters)],
        ("GET", "/system/df") => &[("type", List), ("verbose", Bool)],
        ("GET", "/networks") => &[("filters", Filters)],
        ("GET", "/networks/{id}") => &[("verbose", Bool), ("scope", Text)],
        ("POST", "/networks/prune") => &[("filters", Filters)],
        ("GET", "/volumes") => &[("filters", Filters)],
        ("PUT", "/volumes/{name}") => &[("version", Int)],
        ("DELETE", "/volumes/{name}") => &[("force", Bool)],
        ("POST", "/volumes/prune") => &[("filters", Filters)],
        _ => &[],
    }
}

/// Reads the query of a request.
///
/// # Errors
/// A parameter that the endpoint does not have and that is not empty, one that stands twice, a value of the wrong form,
/// bad escapes, `;` (the engine drops such a pair silently).
pub fn parse(route: &Route, raw: Option<&str>) -> Result<Query, Refusal> {
    let mut query = Query::default();
    let Some(raw) = raw.filter(|raw| !raw.is_empty()) else { return Ok(query) };
    if let Route::Lacking(_) = route {
        // Whatever it asks for, it is answered here and goes no further.
        return Ok(query);
    }
    let known = parameters(&route.method(), route.pattern());
    // dockerode sends the fields of the body in the query too, where no engine reads them.
    let fields = judge::body_fields(&route.method(), route.pattern()).unwrap_or_default();
    if raw.contains(';') {
        return Err(Refusal::malformed("the query has a `;`, which the engine reads in another way than others"));
    }
    for pair in raw.split('&').filter(|pair| !pair.is_empty()) {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        let (name, value) = (percent_decode(name, true)?, percent_decode(value, true)?);
        let Some((name, kind)) = known.iter().find(|(known, _)| *known == name) else {
            if value.is_empty() || fields.iter().any(|field| field.name == name) {
                continue;
            }
            return Err(Refusal::unknown(format!("the query parameter `{}` of {}", safe(&name), route.pattern())));
        };
        if *kind == Kind::Dropped {
            continue;
        }
        if *kind == Kind::List {
            match query.0.iter_mut().find(|(n, _)| n == name) {
                Some((_, Param::List(values))) => values.push(text(name, value)?),
                _ => query.0.push((name, Param::List(vec![text(name, value)?]))),
            }
            continue;
        }
        if query.0.iter().any(|(n, _)| n == name) {
            return Err(Refusal::malformed(format!("the query parameter `{name}` stands twice")));
        }
        let param = match kind {
            // A boolean that is there but empty is false, which differs from one that is absent (`stream` of stats).
            Kind::Bool => Param::Bool(boolean(&value)),
            Kind::Dropped => continue,
            _ if value.is_empty() => continue,
            Kind::Int => Param::Int(value.parse().map_err(|_| {
                Refusal::malformed(format!("the query parameter `{name}` is no integer: `{}`", safe(&value)))
            })?),
            Kind::Text | Kind::List => Param::Text(text(name, value)?),
            Kind::Filters => Param::Filters(filters(&value)?),
            Kind::Json => Param::Json(document(name, &value)?),
            Kind::Refused(hint) => {
                return Err(Refusal::never(format!("the query parameter {name}"), &Value::from(value), *hint));
            }
        };
        query.0.push((name, param));
    }
    Ok(query)
}

fn boolean(value: &str) -> bool {
    // As `httputils.BoolValue` of the engine.
    !matches!(value.trim().to_ascii_lowercase().as_str(), "" | "0" | "no" | "false" | "none")
}

fn text(name: &str, value: String) -> Result<String, Refusal> {
    // `changes` holds Dockerfile instructions, which may go over lines.
    if value.chars().any(|c| c.is_control() && !matches!(c, '\t' | '\n')) || (name != "changes" && value.contains('\n'))
    {
        return Err(Refusal::malformed(format!("the query parameter `{name}` has control characters")));
    }
    Ok(value)
}

fn safe(text: &str) -> String {
    text.chars().filter(|c| !c.is_control()).take(120).collect()
}

fn document(name: &str, value: &str) -> Result<Value, Refusal> {
    json::parse(value.as_bytes())
        .map_err(|e| Refusal::malformed(format!("the query parameter `{name}` is no JSON document: {e}")))
}

/// Reads `{"label":{"a=b":true}}` (what clients send today) and `{"label":["a=b"]}` (what they sent before API 1.22,
/// and some still do).
fn filters(value: &str) -> Result<Filters, Refusal> {
    let bad = |what: &str| Refusal::malformed(format!("the query parameter `filters` {what}"));
    let mut out = BTreeMap::new();
    let Value::Object(object) = document("filters", value)? else { return Err(bad("is no JSON object")) };
    for (key, values) in object {
        if key.chars().any(char::is_control) {
            return Err(bad("has control characters"));
        }
        let values: Vec<String> = match values {
            Value::Null => continue,
            Value::String(value) => vec![value],
            Value::Array(items) => items
                .into_iter()
                .map(|item| match item {
                    Value::String(value) => Ok(value),
                    Value::Bool(_) | Value::Number(_) | Value::Null | Value::Array(_) | Value::Object(_) => {
                        Err(bad("has a list of something else than strings"))
                    }
                })
                .collect::<Result<_, _>>()?,
            // A value that is set to false is still a value to the engine.
            Value::Object(members) => members
                .into_iter()
                .map(|(value, on)| {
                    if on.as_bool().is_some() {
                        Ok(value.into())
                    } else {
                        Err(bad("has a value that is neither true nor false"))
                    }
                })
                .collect::<Result<_, _>>()?,
            Value::Bool(_) | Value::Number(_) => return Err(bad("has a key without a list of values")),
        };
        out.insert(key.into(), values);
    }
    Ok(Filters(out))
}

impl Query {
    /// A query of these parameters.
    pub fn of(params: impl IntoIterator<Item = (&'static str, Param)>) -> Self {
        Self(params.into_iter().collect())
    }

    /// The value of a parameter.
    pub fn get(&self, name: &str) -> Option<&Param> {
        self.0.iter().find(|(n, _)| *n == name).map(|(_, param)| param)
    }

    /// The text of a parameter, or nothing.
    pub fn text(&self, name: &str) -> Option<&str> {
        match self.get(name) {
            Some(Param::Text(text)) => Some(text),
            _ => None,
        }
    }

    /// The values of a parameter that may stand several times.
    pub fn list(&self, name: &str) -> &[String] {
        match self.get(name) {
            Some(Param::List(values)) => values,
            _ => &[],
        }
    }

    /// The truth of a parameter; false where it is absent.
    pub fn bool(&self, name: &str) -> bool {
        matches!(self.get(name), Some(Param::Bool(true)))
    }

    /// The document of a parameter.
    pub fn json(&self, name: &str) -> Option<&Value> {
        match self.get(name) {
            Some(Param::Json(value)) => Some(value),
            _ => None,
        }
    }

    /// The client's filters; none where there are none.
    pub fn filters(&self) -> Filters {
        match self.get("filters") {
            Some(Param::Filters(filters)) => filters.clone(),
            _ => Filters::default(),
        }
    }

    /// Sets a parameter, replacing what was there.
    pub fn set(&mut self, name: &'static str, param: Param) {
        match self.0.iter_mut().find(|(n, _)| *n == name) {
            Some((_, slot)) => *slot = param,
            None => self.0.push((name, param)),
        }
    }

    /// Takes a parameter out.
    pub fn remove(&mut self, name: &str) -> Option<Param> {
        let place = self.0.iter().position(|(n, _)| *n == name)?;
        Some(self.0.remove(place).1)
    }

    /// The parameters that were given.
    pub fn names(&self) -> impl Iterator<Item = &'static str> + '_ {
        self.0.iter().map(|(name, _)| *name)
    }

    /// The encoding that is sent: without `?`, empty where there are no parameters.
    pub fn encode(&self) -> String {
        let mut out = String::new();
        let mut pair = |name: &str, value: &str| {
            if !out.is_empty() {
                out.push('&');
            }
            out.push_str(name);
            out.push('=');
            percent_encode(value, "/:,", &mut out);
        };
        for (name, param) in &self.0 {
            match param {
                Param::Bool(true) => pair(name, "1"),
                Param::Bool(false) => pair(name, "0"),
                Param::Int(n) => pair(name, &n.to_string()),
                Param::Text(text) => pair(name, text),
                Param::List(values) => values.iter().for_each(|value| pair(name, value)),
                Param::Filters(filters) => pair(name, &filters.to_json().encoded()),
                Param::Json(value) => pair(name, &value.encoded()),
            }
        }
        out
    }
}

impl Filters {
    /// Adds a value to a key.
    pub fn add(&mut self, key: &str, value: impl Into<String>) {
        self.0.entry(key.to_owned()).or_default().push(value.into());
    }

    /// The values of a key.
    pub fn values(&self, key: &str) -> &[String] {
        self.0.get(key).map_or(&[], Vec::as_slice)
    }

    /// Replaces the values of a key.
    pub fn set(&mut self, key: &str, values: Vec<String>) {
        self.0.insert(key.to_owned(), values);
    }

    /// The keys.
    pub fn keys(&self) -> impl Iterator<Item = &str> {
        self.0.keys().map(String::as_str)
    }

    fn to_json(&self) -> Value {
        let members = |values: &[String]| -> Object { values.iter().map(|v| (v.clone(), Value::Bool(true))).collect() };
        Value::Object(self.0.iter().map(|(key, values)| (key.clone(), Value::Object(members(values)))).collect())
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;
    use crate::route;

    fn read(line: &str) -> Result<String, Refusal> {
        let (method, target) = line.split_once(' ').unwrap();
        let (path, query) = target.split_once('?').map_or((target, None), |(p, q)| (p, Some(q)));
        let target = route::parse(&Method::from_bytes(method.as_bytes()).unwrap(), path)?;
        parse(&target.route, query).map(|query| query.encode())
    }

    #[test]
    fn parameters_are_read_and_encoded_anew() {
        assert_eq!(read("GET /containers/json?all=True&limit=5&size=no").unwrap(), "all=1&limit=5&size=0");
        assert_eq!(
            read("GET /containers/json?filters=%7B%22label%22%3A%5B%22a%3Db%22%5D%7D").unwrap(),
            read("GET /containers/json?filters=%7B%22label%22%3A%7B%22a%3Db%22%3Atrue%7D%7D").unwrap()
        );
        assert_eq!(read("GET /containers/json?filters=").unwrap(), "");
        assert_eq!(read("GET /containers/x/archive?path=/a+b%26c").unwrap(), "path=/a%20b%26c");
        assert_eq!(read("GET /containers/x/archive?path=%C3%A9%e2%98%83%25~/").unwrap(), "path=%C3%A9%E2%98%83%25~/");
        assert_eq!(read("POST /build?t=a&t=b:1").unwrap(), "t=a&t=b:1");
        assert_eq!(read("GET /containers/x/stats?stream=").unwrap(), "stream=0");
        assert_eq!(read("GET /containers/json?unknown=").unwrap(), "");
    }

    #[test]
    fn what_could_be_read_in_two_ways_is_refused() {
        for line in [
            "GET /containers/json?all=1&all=0",
            "GET /containers/json?all=1;limit=2",
            "GET /containers/json?limit=%zz",
            "GET /containers/json?limit=ten",
            "GET /containers/json?unknown=1",
            "GET /containers/json?filters=[]",
            "GET /containers/json?filters={\"label\":3}",
            "GET /containers/json?filters={\"label\":[],\"label\":[]}",
            "POST /containers/x/start?checkpoint=c",
            "GET /containers/x/archive?path=%00",
        ] {
            assert!(read(line).is_err(), "{line}");
        }
    }
}
