//! Images: own and shared ones.

use super::labels::{self, Holder};
use super::scan::{self, Broken, Show};
use super::upstream::OwnContainers;
use crate::json::{self, Value};
use crate::lookup::Memory;
use crate::owner::{LABEL_PREFIX, Owner};
use std::borrow::Cow;

/// Is this element of a list the agent's or shared? One that was built for another owner and brought by this one is
/// shared; an image without a name that nobody owns is a step of somebody's
/// build.
///
/// # Errors
/// It cannot be understood.
pub fn visible(image: &[u8], me: &Owner, memory: &Memory) -> Result<bool, Broken> {
    Ok(match labels::read_in(image, "Labels", me)?.holder {
        Holder::Me => true,
        Holder::Other => memory.got(&scan::text_of(image, "Id")?),
        Holder::Nobody => named(image)?,
    })
}

/// Has it a tag or a digest? Older engines write `<none>:<none>` for an image without.
pub fn named(image: &[u8]) -> Result<bool, Broken> {
    for key in ["RepoTags", "RepoDigests"] {
        let Some(names) = scan::find(image, key)?.filter(|m| !scan::is_null(m.value)) else { continue };
        for name in scan::items(names.value) {
            if !scan::text(name?.value).unwrap_or(Cow::Borrowed("<none>")).starts_with("<none>") {
                return Ok(true);
            }
        }
    }
    Ok(false)
}

/// Does this element tell which containers use it, so that the agent's own have to be known?
///
/// # Errors
/// It cannot be understood.
pub fn counts_containers(image: &[u8]) -> Result<bool, Broken> {
    let used = scan::find(image, "Containers")?.and_then(|m| scan::int(m.value)).is_some_and(|n| n > 0);
    Ok(used || scan::find(image, "Manifests")?.is_some_and(|m| !scan::is_empty(m.value)))
}

/// Writes a visible element of a list (also of `system/df`). It counts own containers only.
///
/// # Errors
/// It cannot be understood.
pub fn element(image: &[u8], own: &OwnContainers, out: &mut Vec<u8>) -> Result<Show, Broken> {
    let id = scan::text_of(image, "Id")?;
    scan::each_member(image, out, |member, out| match member.key {
        b"Labels" => labels::strip(member.value, out),
        b"Containers" if scan::int(member.value).is_some_and(|n| n > 0) => {
            Ok(scan::pass(own.made_from(&id).to_string().as_bytes(), out))
        }
        b"Manifests" => manifests(member.value, own, out),
        _ => Ok(scan::pass(member.value, out)),
    })?;
    Ok(Show::Shown)
}

/// Writes an inspection. Where it tells of the step that sets sockguard's label, `step` stands in its place.
///
/// # Errors
/// It cannot be understood.
pub fn inspection(image: &[u8], own: &OwnContainers, step: &[u8], out: &mut Vec<u8>) -> Result<Show, Broken> {
    scan::each_member(image, out, |member, out| match member.key {
        b"Config" | b"ContainerConfig" if !scan::is_null(member.value) => {
            let of_container = member.key == b"ContainerConfig";
            scan::each_member(member.value, out, |member, out| match member.key {
                b"Labels" => {
                    let mark = out.len();
                    let shown = labels::strip(member.value, out)?;
                    // An image without labels has none rather than an empty set.
                    if out.get(mark..) == Some(b"{}") && member.value != b"{}" {
                        out.truncate(mark);
                        out.extend_from_slice(b"null");
                    }
                    Ok(shown)
                }
                // The classic builder keeps the step that made the image.
                b"Cmd" if of_container && is_label_step(member.value)? => Ok(scan::pass(step, out)),
                _ => Ok(scan::pass(member.value, out)),
            })?;
            Ok(Show::Shown)
        }
        b"Manifests" => manifests(member.value, own, out),
        _ => Ok(scan::pass(member.value, out)),
    })?;
    Ok(Show::Shown)
}

/// Writes an image's history without the step that sets sockguard's labels. The image's own ID and tags stand on the
/// newest step; if that one is left out, the next one gets them.
///
/// # Errors
/// It cannot be understood.
pub fn history(steps: &[u8], out: &mut Vec<u8>) -> Result<Show, Broken> {
    if scan::is_null(steps) {
        return Ok(scan::pass(steps, out));
    }
    let mut hidden: Option<&[u8]> = None;
    let mut first = true;
    let parts: Result<Vec<_>, Broken> = scan::items(steps).collect();
    out.push(b'[');
    let mut comma = scan::Comma::default();
    for step in parts? {
        let by = scan::text_of(step.value, "CreatedBy")?;
        let changed = without_our_labels(&by);
        if changed.as_deref().is_some_and(|by| by.trim_end().ends_with("LABEL")) {
            if first {
                hidden = hidden.or(Some(step.value));
            }
            continue;
        }
        comma.write(out);
        comma.written();
        let heir = if first { hidden } else { None };
        first = false;
        scan::each_member(step.value, out, |member, out| {
            let inherited = match (member.key, heir) {
                (b"Id", Some(top)) => scan::find(top, "Id")?,
                (b"Tags", Some(top)) => scan::find(top, "Tags")?,
                _ => None,
            };
            match (inherited, &changed, member.key) {
                (Some(top), _, _) => Ok(scan::pass(top.value, out)),
                (None, Some(by), b"CreatedBy") => Ok(scan::pass(Value::from(by.as_str()).to_string().as_bytes(), out)),
                (None, _, _) => Ok(scan::pass(member.value, out)),
            }
        })?;
    }
    out.push(b']');
    Ok(Show::Shown)
}

/// A `LABEL` step without sockguard's labels; nothing where it has none of them. The classic builder writes
/// `/bin/sh -c #(nop)  LABEL a=b`, BuildKit `LABEL a=b`.
fn without_our_labels(step: &str) -> Option<String> {
    if !step.contains(LABEL_PREFIX) || !step.split(' ').any(|word| word == "LABEL") {
        return None;
    }
    let kept: Vec<&str> = step.split(' ').filter(|word| !word.starts_with(LABEL_PREFIX)).collect();
    Some(kept.join(" "))
}

/// Does this image tell that it was made by the step that sets sockguard's label?
///
/// # Errors
/// It cannot be understood.
pub fn made_by_label(image: &[u8]) -> Result<bool, Broken> {
    let config = scan::find(image, "ContainerConfig")?.filter(|m| !scan::is_null(m.value));
    match config.map(|m| scan::find(m.value, "Cmd")).transpose()?.flatten() {
        Some(command) => is_label_step(command.value),
        None => Ok(false),
    }
}

/// The command of the newest step of a history that is not sockguard's own, as the classic builder has it in an image.
///
/// # Errors
/// It cannot be understood.
pub fn last_step(history: &[u8]) -> Result<Value, Broken> {
    for step in scan::items(history) {
        let by = scan::text_of(step?.value, "CreatedBy")?;
        if without_our_labels(&by).is_some() {
            continue;
        }
        let words: &[&str] = match (by.strip_prefix("/bin/sh -c #(nop)  "), by.strip_prefix("/bin/sh -c ")) {
            (Some(rest), _) => &["/bin/sh", "-c", "#(nop) ", rest],
            (None, Some(rest)) => &["/bin/sh", "-c", rest],
            // In another shell, or not in a build: where it is parted is not known.
            (None, None) => return Ok(Value::Null),
        };
        return Ok(words.iter().copied().collect());
    }
    Ok(Value::Null)
}

/// Is this command of a build's container the step that sets sockguard's label?
fn is_label_step(command: &[u8]) -> Result<bool, Broken> {
    if scan::is_null(command) {
        return Ok(false);
    }
    for word in scan::items(command) {
        if scan::text(word?.value).is_some_and(|word| without_our_labels(&word).is_some()) {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Manifests name the containers that use them. They are few, and only there when asked for.
fn manifests(value: &[u8], own: &OwnContainers, out: &mut Vec<u8>) -> Result<Show, Broken> {
    let mut tree = json::parse(value).map_err(|_| Broken("an image's manifests are no JSON"))?;
    let data = tree.as_array_mut().into_iter().flatten();
    let data = data.filter_map(|m| m.as_object_mut()?.get_mut("ImageData")?.as_object_mut());
    for data in data {
        if let Some(Value::Array(ids)) = data.get_mut("Containers") {
            ids.retain(|id| id.as_str().is_some_and(|id| own.has(id)));
        }
    }
    Ok(scan::pass(tree.to_string().as_bytes(), out))
}

#[cfg(test)]
#[expect(clippy::expect_used, reason = "tests")]
mod tests {
    use super::*;

    #[test]
    fn the_last_step_is_the_one_before_the_label() {
        let label = r#"{"CreatedBy":"/bin/sh -c #(nop)  LABEL com.buildkite.sockguard.owner=me"}"#;
        for (below, step) in [
            (r#"/bin/sh -c #(nop)  CMD [\"sh\"]"#, r##"["/bin/sh","-c","#(nop) ","CMD [\"sh\"]"]"##),
            ("/bin/sh -c #(nop) COPY file:0 in / ", r##"["/bin/sh","-c","#(nop) COPY file:0 in / "]"##),
            ("/bin/sh -c true && false", r#"["/bin/sh","-c","true && false"]"#),
            ("|1 a=b /bin/sh -c true", "null"),
            ("", "null"),
        ] {
            let history = format!("[{label},{label},{{\"CreatedBy\":\"{below}\"}},{{\"CreatedBy\":\"x\"}}]");
            assert_eq!(last_step(history.as_bytes()).expect(below).to_string(), step);
        }
        assert_eq!(last_step(format!("[{label}]").as_bytes()), Ok(Value::Null));
        let image = r##"{"ContainerConfig":{"Cmd":["/bin/sh","-c","#(nop) ","LABEL com.buildkite.sockguard.owner=me"]},"Config":{"Cmd":["LABEL com.buildkite.sockguard.x"]}}"##;
        assert_eq!(made_by_label(image.as_bytes()), Ok(true));
        let mut out = Vec::new();
        inspection(image.as_bytes(), &OwnContainers::default(), b"[\"x\"]", &mut out).expect("an image");
        assert_eq!(
            String::from_utf8_lossy(&out),
            r#"{"ContainerConfig":{"Cmd":["x"]},"Config":{"Cmd":["LABEL com.buildkite.sockguard.x"]}}"#
        );
        for other in [
            "{}",
            r#"{"ContainerConfig":null}"#,
            r#"{"ContainerConfig":{"Cmd":null}}"#,
            r#"{"ContainerConfig":{"Cmd":["sh"]}}"#,
        ] {
            assert_eq!(made_by_label(other.as_bytes()), Ok(false), "{other}");
        }
    }
}
