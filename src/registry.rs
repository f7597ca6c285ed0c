//! Registry credentials as clients send them along: for a build those of every registry, for a pull one's.

use crate::json::{self, Object, Value};
use crate::reference::Reference;

/// The header with the credentials of one registry.
pub const AUTH: &str = "x-registry-auth";

/// The header with the credentials of all registries, of a build.
pub const CONFIG: &str = "x-registry-config";

/// The value of the former for a client that has none: an empty document.
pub const NOBODY: &str = "e30=";

/// Under which name clients keep the credentials of Docker's own registry.
const INDEX: &str = "https://index.docker.io/v1/";

/// A URL for messages: without user, password and query.
pub fn without_secrets(url: &str) -> String {
    let (scheme, rest) = url.split_once("://").map_or(("", url), |(scheme, rest)| (scheme, rest));
    let host = rest.rsplit('@').next().unwrap_or_default();
    let path = host.split(['?', '#']).next().unwrap_or_default();
    if scheme.is_empty() { path.to_owned() } else { format!("{scheme}://{path}") }
}

/// The `X-Registry-Auth` of a reference's registry, from a build's `X-Registry-Config`. Nothing where there are none.
pub fn auth(config: &str, reference: &Reference) -> Option<String> {
    let document = json::parse(&decode(config)?).ok()?;
    let all = document.as_object()?;
    let wanted = if reference.domain() == "docker.io" { INDEX } else { reference.domain() };
    let host = |key: &str| -> String {
        let bare = key.strip_prefix("https://").or_else(|| key.strip_prefix("http://")).unwrap_or(key);
        bare.split('/').next().unwrap_or_default().to_owned()
    };
    let by_host = |object: &Object| object.iter().find(|(key, _)| host(key) == wanted).map(|(_, value)| value.clone());
    let found: Value = all.get(wanted).cloned().or_else(|| by_host(all))?;
    Some(encode(found.to_string().as_bytes()))
}

const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";

/// Base64 for URLs, padded.
fn encode(bytes: &[u8]) -> String {
    let mut out = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for chunk in bytes.chunks(3) {
        let bits = chunk.iter().fold(0u32, |bits, byte| bits << 8 | u32::from(*byte)) << (8 * (3 - chunk.len()));
        for place in 0..4 {
            let index = usize::try_from(bits >> (18 - 6 * place) & 63).unwrap_or_default();
            out.push(if place <= chunk.len() { ALPHABET.get(index).map_or('=', |b| char::from(*b)) } else { '=' });
        }
    }
    out
}

/// Either alphabet of base64, with or without padding.
fn decode(text: &str) -> Option<Vec<u8>> {
    let mut out = Vec::with_capacity(text.len() / 4 * 3);
    let (mut bits, mut count) = (0u32, 0);
    for byte in text.trim_end_matches('=').bytes() {
        let byte = match byte {
            b'+' => b'-',
            b'/' => b'_',
            byte => byte,
        };
        let value = ALPHABET.iter().position(|b| *b == byte)?;
        bits = bits << 6 | u32::try_from(value).ok()?;
        count += 6;
        if count >= 8 {
            count -= 8;
            out.push(u8::try_from(bits >> count & 255).ok()?);
        }
    }
    Some(out)
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    #[test]
    fn urls_are_shown_without_secrets() {
        for (url, shown) in [
            ("https://u:p@host/x.git", "https://host/x.git"),
            ("https://u:p/@?q@host/x?token=1#f", "https://host/x"),
            ("git@host:x/y", "host:x/y"),
            ("http://host/", "http://host/"),
            ("https://${T}@host/", "https://host/"),
        ] {
            assert_eq!(without_secrets(url), shown);
        }
    }

    #[test]
    fn base64_goes_both_ways() {
        for text in ["", "a", "ab", "abc", "abcd", "{\"k\":\"?>\u{7f}~\"}"] {
            assert_eq!(decode(&encode(text.as_bytes())).unwrap(), text.as_bytes());
        }
        assert_eq!(encode(b"any carnal pleas"), "YW55IGNhcm5hbCBwbGVhcw==");
        assert_eq!(decode("_-8"), decode("/+8="));
        assert_eq!(decode("a b"), None);
    }

    #[test]
    fn the_credentials_of_one_registry_are_picked() {
        let config =
            encode(br#"{"https://index.docker.io/v1/":{"username":"hub"},"https://reg.io/v2/":{"username":"reg"}}"#);
        let of = |name: &str| {
            auth(&config, &Reference::parse(name).unwrap())
                .map(|text| String::from_utf8(decode(&text).unwrap()).unwrap())
        };
        assert_eq!(of("alpine").unwrap(), r#"{"username":"hub"}"#);
        assert_eq!(of("reg.io/a").unwrap(), r#"{"username":"reg"}"#);
        assert_eq!(of("other.io/a"), None);
    }
}
