//! Containers: own ones, with their labels and mounts as the client set them.

use super::labels::{self, Labels};
use super::restore::Asked;
use super::scan::{self, Broken, Show};
use crate::json::Value;
use crate::judge::Agent;
use crate::lookup::Memory;
use crate::owner::Owner;
use crate::policy::{self, Glob};

/// What stands in place of a value that the policy redacts.
const REDACTED: &str = "redacted";

/// Writes an element of a list (also of `system/df`), if it is the agent's.
///
/// # Errors
/// It cannot be understood.
pub fn element(container: &[u8], me: &Owner, memory: &Memory, out: &mut Vec<u8>) -> Result<Show, Broken> {
    let mut image = None;
    let place = scan::place(container, "Labels", |member| {
        if member.key == b"ImageID" {
            image = image.or(Some(member.value));
        }
    })?;
    let mark = out.len();
    let Some((labels, behind)) = until_labels(container, place, me, out)? else { return Ok(Show::Hidden) };
    let image = || match image {
        Some(image) => Ok(scan::text(image).unwrap_or_default()),
        None => scan::text_of(container, "ImageID"),
    };
    // One that was made from another image than the judged one would show what that one says, unless that one was looked
    // at when it was used.
    let usable = || -> Result<bool, Broken> {
        Ok(labels.image.as_ref() == Some(&image()?) || memory.knows(&scan::text_of(container, "Id")?))
    };
    if !labels.my_container() || !usable()? {
        return Ok(Show::Hidden);
    }
    let Some(asked) = labels.binds.and_then(Asked::read) else {
        // The common case: all but the labels is passed as it is.
        out.extend_from_slice(behind);
        return Ok(Show::Shown);
    };
    out.truncate(mark);
    scan::each_member(container, out, |member, out| match member.key {
        b"Labels" => labels::strip(member.value, out),
        b"Mounts" => asked.mount_points(member.value, out),
        _ => Ok(scan::pass(member.value, out)),
    })?;
    Ok(Show::Shown)
}

/// Writes the inspection of a container, if it is the agent's, without the values that the policy redacts.
///
/// # Errors
/// It cannot be understood.
pub fn inspection(container: &[u8], agent: &Agent, out: &mut Vec<u8>) -> Result<Show, Broken> {
    // Read to its end, so that a document that was cut short is not passed for a whole one.
    let mut config = None;
    for member in scan::members(container) {
        let member = member?;
        if member.key == b"Config" {
            config = Some(member);
        }
    }
    let Some(config) = config else { return Ok(Show::Hidden) };
    let place = scan::place(config.value, "Labels", |_| {})?.map(|at| config.at + at);
    let mark = out.len();
    let Some((labels, behind)) = until_labels(container, place, &agent.owner, out)? else { return Ok(Show::Hidden) };
    if !labels.my_container() {
        return Ok(Show::Hidden);
    }
    let asked = labels.binds.and_then(Asked::read);
    let env = redacted(config.value, &agent.policy.container.redact_env)?;
    if asked.is_none() && env.is_none() {
        // The common case, as in a list.
        out.extend_from_slice(behind);
        return Ok(Show::Shown);
    }
    out.truncate(mark);
    scan::each_member(container, out, |member, out| match (member.key, &asked) {
        (b"Config", _) => scan::each_member(member.value, out, |member, out| match (member.key, &env) {
            (b"Labels", _) => labels::strip(member.value, out),
            (b"Env", Some(env)) => Ok(scan::pass(env, out)),
            _ => Ok(scan::pass(member.value, out)),
        })
        .map(|_| Show::Shown),
        (b"HostConfig", Some(asked)) => asked.host_config(member.value, out),
        (b"Mounts", Some(asked)) => asked.mount_points(member.value, out),
        _ => Ok(scan::pass(member.value, out)),
    })?;
    Ok(Show::Shown)
}

/// Writes a container to the end of its labels, which stand at `place`, without sockguard's own. Gives what they say, and what
/// stands behind them; nothing where it has none.
fn until_labels<'c>(
    container: &'c [u8],
    place: Option<usize>,
    me: &Owner,
    out: &mut Vec<u8>,
) -> Result<Option<(Labels<'c>, &'c [u8])>, Broken> {
    let Some((before, rest)) = place.and_then(|at| container.split_at_checked(at)) else { return Ok(None) };
    if rest.starts_with(b"null") {
        return Ok(None);
    }
    out.extend_from_slice(before);
    labels::read_and_strip(rest, me, out).map(Some)
}

/// The environment of a container's configuration, where the policy redacts a part of it.
fn redacted(config: &[u8], names: &[Glob]) -> Result<Option<Vec<u8>>, Broken> {
    if names.is_empty() {
        return Ok(None);
    }
    let Some(env) = scan::find(config, "Env")?.filter(|env| !scan::is_null(env.value)) else { return Ok(None) };
    let (mut out, mut some) = (Vec::with_capacity(env.value.len()), false);
    scan::each_item(env.value, &mut out, |item, out| {
        let text = scan::text(item).ok_or(Broken("a variable is no text"))?;
        match text.split_once('=') {
            Some((name, _)) if policy::any(names, name) => {
                some = true;
                Ok(scan::pass(Value::from(format!("{name}={REDACTED}")).to_string().as_bytes(), out))
            }
            Some(_) | None => Ok(scan::pass(item, out)),
        }
    })?;
    Ok(some.then_some(out))
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;
    use crate::owner::{IMAGE_LABEL, OWNER_LABEL, SEAL_LABEL};
    use crate::policy::Policy;
    use std::rc::Rc;

    /// What is shown of a container with this environment and this in its other labels.
    fn shown(env: &str, label: &str) -> Result<String, Broken> {
        let policy = "[container]\nallow = [\"read\"]\nredact-env = [\"*_TOKEN\", \"A<B\"]\n";
        let policy = Rc::new(Policy::parse("test", "test.toml", policy).unwrap());
        let owner = Owner::new("me").unwrap();
        let labels = format!(r#"{{"{OWNER_LABEL}":"me","{SEAL_LABEL}":"{}"{label}}}"#, owner.seal());
        let container =
            format!(r#"{{ "Id":"1", "Config":{{"A" :1,"Env": {env} ,"Labels":{labels}}},"HostConfig":{{}}}}"#);
        let mut out = Vec::new();
        inspection(container.as_bytes(), &Agent { owner, policy, caller: None }, &mut out)?;
        Ok(String::from_utf8(out).unwrap())
    }

    #[test]
    fn values_of_redacted_names_are_not_shown() {
        let compact =
            |env: &str| format!(r#"{{"Id":"1","Config":{{"A":1,"Env":{env},"Labels":{{}}}},"HostConfig":{{}}}}"#);
        for (env, expected) in [
            (r#"["A=1","B_TOKEN=geheim"]"#, r#"["A=1","B_TOKEN=redacted"]"#),
            // As it is compared it is decoded.
            (r#"["B\u005fTOKEN\u003dgeheim","A\u003cB=x=y"]"#, r#"["B_TOKEN=redacted","A<B=redacted"]"#),
            (r#"["B_TOKEN=","B_TOKEN","_TOKEN=a\nb"]"#, r#"["B_TOKEN=redacted","B_TOKEN","_TOKEN=redacted"]"#),
        ] {
            assert_eq!(shown(env, ""), Ok(compact(env).replace(env, expected)), "{env}");
        }
        let binds = format!(r#","{}":"{{\"Binds\":[]}}""#, crate::owner::BINDS_LABEL);
        assert_eq!(shown(r#"["B_TOKEN=geheim"]"#, &binds), Ok(compact(r#"["B_TOKEN=redacted"]"#)));
    }

    #[test]
    fn of_a_list_those_are_shown_whose_labels_say_so_wherever_these_stand() {
        let owner = Owner::new("me").unwrap();
        let ours = format!(r#""{OWNER_LABEL}":"me","{SEAL_LABEL}":"{}","{IMAGE_LABEL}":"sha256:1""#, owner.seal());
        let labels = format!(r#"{{"a":"}}\"",{ours},"z":"é"}}"#);
        let shown = |container: &str, labels: &str| {
            let mut out = Vec::new();
            let shown = element(container.replace("LABELS", labels).as_bytes(), &owner, &Memory::default(), &mut out)?;
            Ok::<_, Broken>((shown == Show::Shown).then(|| String::from_utf8(out).unwrap()))
        };
        for (container, visible) in [
            (r#"{"ImageID":"sha256:1","Labels":LABELS,"Names":["/x"]}"#, true),
            (r#"{ "Labels" : LABELS, "ImageID" : "sha256:1" }"#, true),
            (r#"{"Ports":[{"Labels":null,"ImageID":"sha256:2"}],"Labels":LABELS,"ImageID":"sha256:1"}"#, true),
            (r#"{"ImageID":"sha256:2","Labels":LABELS,"ImageID":"sha256:1"}"#, false),
            (r#"{"ImageID":"sha256:2","Labels":LABELS}"#, false),
            (r#"{"Labels":LABELS}"#, false),
            (r#"{"ImageID":"sha256:1","Names":["/x"]}"#, false),
        ] {
            let stripped = container.replace("LABELS", r#"{"a":"}\"","z":"é"}"#);
            assert_eq!(shown(container, &labels), Ok(visible.then_some(stripped)), "{container}");
            for foreign in ["null", "{}", r#"{"a":"b"}"#] {
                assert_eq!(shown(container, foreign), Ok(None), "{container}");
            }
        }
        assert!(shown(r#"{"ImageID":"sha256:1","Labels":LABELS}"#, "[]").is_err());
        assert!(shown(r#"{"ImageID":"sha256:1","Labels":LABELS}"#, &format!("{{{ours}]")).is_err());
    }

    #[test]
    fn what_is_not_redacted_is_shown_as_the_engine_wrote_it() {
        for env in [r#"["B_TOKENS=1" , "A\u003d1","B_token=2"]"#, "null", "[]"] {
            let expected =
                format!(r#"{{ "Id":"1", "Config":{{"A" :1,"Env": {env} ,"Labels":{{}}}},"HostConfig":{{}}}}"#);
            assert_eq!(shown(env, "").as_deref(), Ok(expected.as_str()));
        }
        assert!(shown("[1]", "").is_err());
    }
}
