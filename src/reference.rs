//! Image references, read as the engine's clients and the engine itself read them: `alpine`, `library/alpine` and
//! `docker.io/library/alpine:latest` are one image.

use std::fmt;

const DEFAULT_DOMAIN: &str = "docker.io";
const LEGACY_DOMAIN: &str = "index.docker.io";
const OFFICIAL: &str = "library/";

/// A normalised reference to an image by name.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Reference {
    domain: String,
    path: String,
    tag: Option<String>,
    digest: Option<String>,
}

/// What a client may write where an image is expected.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Parsed {
    /// A full ID, with `sha256:`.
    Id(String),
    /// A name. It may still be a prefix of an ID: the engine tries names first.
    Name(Reference),
}

/// Reads a reference or an ID.
///
/// # Errors
/// The engine's words for what is neither.
pub fn parse_any(text: &str) -> Result<Parsed, &'static str> {
    if is_hex(text, 64) {
        return Ok(Parsed::Id(format!("sha256:{text}")));
    }
    if text.strip_prefix("sha256:").is_some_and(|hex| is_hex(hex, 64)) {
        return Ok(Parsed::Id(text.to_owned()));
    }
    Reference::parse(text).map(Parsed::Name)
}

/// Is this part of a tag's name possible?
pub fn is_tag(text: &str) -> bool {
    let mut chars = text.chars();
    let first = chars.next().is_some_and(|c| c.is_ascii_alphanumeric() || c == '_');
    first && text.len() <= 128 && chars.all(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '-'))
}

/// Is this a digest?
pub fn is_digest(text: &str) -> bool {
    match text.split_once(':') {
        Some(("sha256", hex)) => is_hex(hex, 64),
        Some(("sha384", hex)) => is_hex(hex, 96),
        Some(("sha512", hex)) => is_hex(hex, 128),
        _ => false,
    }
}

fn is_hex(text: &str, length: usize) -> bool {
    text.len() == length && text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
}

/// The domain of a repository's name, and the rest.
pub fn split_domain(name: &str) -> (&str, &str) {
    match name.split_once('/') {
        Some((first, rest)) if first.contains(['.', ':']) || first == "localhost" => (first, rest),
        _ => (DEFAULT_DOMAIN, name),
    }
}

impl Reference {
    /// Reads a name with an optional tag or digest.
    ///
    /// # Errors
    /// The engine's words for a reference that is none.
    pub fn parse(text: &str) -> Result<Self, &'static str> {
        const INVALID: &str = "invalid reference format";
        if is_hex(text, 64) {
            return Err("invalid repository name, cannot specify 64-byte hexadecimal strings");
        }
        let (domain, rest) = split_domain(text);
        let (rest, digest) = match rest.split_once('@') {
            Some((rest, digest)) if is_digest(digest) => (rest, Some(digest.to_owned())),
            Some(_) => return Err(INVALID),
            None => (rest, None),
        };
        let (path, tag) = match rest.split_once(':') {
            Some((path, tag)) if is_tag(tag) => (path, Some(tag.to_owned())),
            Some(_) => return Err(INVALID),
            None => (rest, None),
        };
        if path.chars().any(|c| c.is_ascii_uppercase()) {
            return Err("invalid reference format: repository name must be lowercase");
        }
        if !is_domain(domain) || !path.split('/').all(is_component) {
            return Err(INVALID);
        }
        let domain = if domain == LEGACY_DOMAIN { DEFAULT_DOMAIN } else { domain };
        let path =
            if domain == DEFAULT_DOMAIN && !path.contains('/') { format!("{OFFICIAL}{path}") } else { path.to_owned() };
        if domain.len() + 1 + path.len() > 255 {
            return Err("repository name must not be more than 255 characters");
        }
        Ok(Self { domain: domain.to_owned(), path, tag, digest })
    }

    /// The registry's domain, such as `docker.io`.
    pub fn domain(&self) -> &str {
        &self.domain
    }

    /// The tag that was given.
    pub fn tag(&self) -> Option<&str> {
        self.tag.as_deref()
    }

    /// The digest that was given.
    pub fn digest(&self) -> Option<&str> {
        self.digest.as_deref()
    }

    /// The full name without tag, such as `docker.io/library/alpine`.
    pub fn full_name(&self) -> String {
        format!("{}/{}", self.domain, self.path)
    }

    /// The repository within its registry, such as `library/alpine`.
    pub fn path(&self) -> &str {
        &self.path
    }

    /// The name without tag as people write it, such as `alpine`.
    pub fn familiar_name(&self) -> String {
        if self.domain != DEFAULT_DOMAIN {
            return self.full_name();
        }
        match self.path.strip_prefix(OFFICIAL) {
            Some(name) if !name.contains('/') => name.to_owned(),
            _ => self.path.clone(),
        }
    }

    /// With `latest` where neither tag nor digest was given.
    #[must_use]
    pub fn or_latest(mut self) -> Self {
        if self.tag.is_none() && self.digest.is_none() {
            self.tag = Some("latest".to_owned());
        }
        self
    }

    /// With this tag in place of what was given.
    #[must_use]
    pub fn with_tag(mut self, tag: &str) -> Self {
        self.tag = Some(tag.to_owned());
        self.digest = None;
        self
    }

    /// With this digest in place of what was given.
    #[must_use]
    pub fn with_digest(mut self, digest: &str) -> Self {
        self.digest = Some(digest.to_owned());
        self.tag = None;
        self
    }
}

/// As people write it, with the tag and digest that it has.
impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.familiar_name())?;
        if let Some(tag) = &self.tag {
            write!(f, ":{tag}")?;
        }
        if let Some(digest) = &self.digest {
            write!(f, "@{digest}")?;
        }
        Ok(())
    }
}

/// Labels of letters, digits and inner dashes between dots, and a port.
fn is_domain(text: &str) -> bool {
    let (host, port) = text.split_once(':').map_or((text, None), |(host, port)| (host, Some(port)));
    let label = |part: &str| {
        let edge = |c: Option<char>| c.is_some_and(|c| c.is_ascii_alphanumeric());
        edge(part.chars().next())
            && edge(part.chars().last())
            && part.chars().all(|c| c.is_ascii_alphanumeric() || c == '-')
    };
    host.split('.').all(label) && port.is_none_or(|port| !port.is_empty() && port.bytes().all(|b| b.is_ascii_digit()))
}

/// Runs of letters and digits, parted by one dot, one or two underscores, or dashes.
fn is_component(part: &str) -> bool {
    let alphanumeric = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
    let edges = part.starts_with(alphanumeric) && part.ends_with(alphanumeric);
    edges && part.split(alphanumeric).all(|gap| matches!(gap, "" | "." | "_" | "__") || gap.bytes().all(|b| b == b'-'))
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    #[test]
    fn one_image_has_many_spellings() {
        for text in [
            "alpine",
            "library/alpine",
            "docker.io/alpine",
            "docker.io/library/alpine",
            "index.docker.io/alpine",
            "index.docker.io/library/alpine",
            "alpine:latest",
        ] {
            let reference = Reference::parse(text).unwrap().or_latest();
            assert_eq!(reference.full_name(), "docker.io/library/alpine", "{text}");
            assert_eq!(reference.familiar_name(), "alpine", "{text}");
            assert_eq!(reference.to_string(), "alpine:latest", "{text}");
        }
    }

    #[test]
    fn names_are_split_as_the_engine_splits_them() {
        let hex = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
        for (text, full, shown) in [
            ("acme/app", "docker.io/acme/app", "acme/app:latest"),
            ("library/a/b", "docker.io/library/a/b", "library/a/b:latest"),
            ("localhost/app:1", "localhost/app", "localhost/app:1"),
            ("127.0.0.1:5000/a/b:1", "127.0.0.1:5000/a/b", "127.0.0.1:5000/a/b:1"),
            ("Reg.IO:443/a__b/c--d.e", "Reg.IO:443/a__b/c--d.e", "Reg.IO:443/a__b/c--d.e:latest"),
            (&format!("alpine:3@sha256:{hex}"), "docker.io/library/alpine", &format!("alpine:3@sha256:{hex}")),
        ] {
            let reference = Reference::parse(text).unwrap().or_latest();
            assert_eq!(reference.full_name(), full, "{text}");
            assert_eq!(reference.to_string(), shown, "{text}");
        }
        assert_eq!(parse_any(hex), Ok(Parsed::Id(format!("sha256:{hex}"))));
        assert_eq!(parse_any(&format!("sha256:{hex}")), Ok(Parsed::Id(format!("sha256:{hex}"))));
    }

    #[test]
    fn what_the_engine_would_not_take_is_no_reference() {
        let hex = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
        for text in [
            "",
            "Alpine",
            "a..b",
            "a___b",
            "-a",
            "a-",
            "a//b",
            "a:",
            "a:b:c",
            "a@sha256:abc",
            "a@b",
            ":a",
            "a/b:-x",
            "a b",
            "foo:bar/baz",
            "Foo/bar",
            hex,
            "a.b:x/c",
            "reg.io/",
            "/a",
        ] {
            assert!(Reference::parse(text).is_err(), "{text}");
        }
    }
}
