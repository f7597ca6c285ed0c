//! The labels of an object: whose it is, and the same without those that are sockguard's own.

use super::scan::{self, Broken, Member, Show};
use crate::owner::{BINDS_LABEL, IMAGE_LABEL, LABEL_PREFIX, OWNER_LABEL, Owner, PAUSED_LABEL, ROOT_LABEL, SEAL_LABEL};
use std::borrow::Cow;

/// Whose an object is, by its labels.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Holder {
    /// The agent's.
    Me,
    /// Another owner's.
    Other,
    /// Nobody's.
    Nobody,
}

/// What labels say.
#[derive(Debug)]
pub struct Labels<'a> {
    /// Whose the object is.
    pub holder: Holder,
    /// Does it carry the agent's seal?
    pub sealed: bool,
    /// The image that was judged, of a container.
    pub image: Option<Cow<'a, str>>,
    /// The binds as they were asked for, as the encoded string.
    pub binds: Option<&'a [u8]>,
    /// What the volume is for, if it is sockguard's: it stands for a bind root, or says what is paused.
    pub root: Option<Cow<'a, str>>,
    /// Is any of them sockguard's own?
    pub ours: bool,
}

impl<'a> Labels<'a> {
    fn none() -> Self {
        Self { holder: Holder::Nobody, sealed: false, image: None, binds: None, root: None, ours: false }
    }

    /// Is this a container of the agent's? One that only inherits the owner label from its image has no seal.
    pub fn my_container(&self) -> bool {
        self.holder == Holder::Me && self.sealed
    }

    /// Reads one of them. Sockguard's own are not shown.
    fn read(&mut self, member: &Member<'a>, me: &Owner) -> Result<Show, Broken> {
        let Some(key) = our_key(member.key)? else { return Ok(Show::Shown) };
        self.ours = true;
        match &*key {
            OWNER_LABEL => {
                let owner = scan::text(member.value).ok_or(Broken("an owner is no text"))?;
                self.holder = if owner == me.as_str() { Holder::Me } else { Holder::Other };
            }
            SEAL_LABEL => self.sealed = scan::text(member.value).is_some_and(|seal| seal == me.seal()),
            IMAGE_LABEL => self.image = scan::text(member.value),
            BINDS_LABEL => self.binds = Some(member.value),
            ROOT_LABEL | PAUSED_LABEL => self.root = scan::text(member.value),
            _ => {}
        }
        Ok(Show::Hidden)
    }
}

/// Reads the labels of an object (`null` for none). Attributes of events are labels too.
///
/// # Errors
/// It is no object.
pub fn read<'a>(value: &'a [u8], me: &Owner) -> Result<Labels<'a>, Broken> {
    let mut labels = Labels::none();
    if !scan::is_null(value) {
        for member in scan::members(value) {
            labels.read(&member?, me)?;
        }
    }
    Ok(labels)
}

/// Reads the labels that the text begins with, and writes them without sockguard's own. Gives what stands behind them as
/// well.
///
/// # Errors
/// It is no object.
pub fn read_and_strip<'a>(text: &'a [u8], me: &Owner, out: &mut Vec<u8>) -> Result<(Labels<'a>, &'a [u8]), Broken> {
    let mut labels = Labels::none();
    let behind = scan::each_member(text, out, |member, out| {
        let shown = labels.read(member, me)?;
        Ok(if shown == Show::Shown { scan::pass(member.value, out) } else { shown })
    })?;
    Ok((labels, behind))
}

/// Reads the labels that are the member `key` of an object.
///
/// # Errors
/// It is no object.
pub fn read_in<'a>(object: &'a [u8], key: &str, me: &Owner) -> Result<Labels<'a>, Broken> {
    match scan::find(object, key)? {
        Some(member) => read(member.value, me),
        None => read(b"null", me),
    }
}

/// Writes labels without sockguard's own.
///
/// # Errors
/// It is no object.
pub fn strip(value: &[u8], out: &mut Vec<u8>) -> Result<Show, Broken> {
    if scan::is_empty(value) {
        return Ok(scan::pass(value, out));
    }
    scan::each_member(value, out, |member, out| match our_key(member.key)? {
        Some(_) => Ok(Show::Hidden),
        None => Ok(scan::pass(member.value, out)),
    })?;
    Ok(Show::Shown)
}

/// The decoded key, if it is one of sockguard's. Before its first escape a key is compared as it is.
fn our_key(key: &[u8]) -> Result<Option<Cow<'_, str>>, Broken> {
    let same = key.iter().zip(LABEL_PREFIX.as_bytes()).take_while(|(one, other)| one == other).count();
    if same < LABEL_PREFIX.len() && key.get(same) != Some(&b'\\') {
        return Ok(None);
    }
    let key = scan::decoded(key).ok_or(Broken("a label's key is no text"))?;
    Ok(key.starts_with(LABEL_PREFIX).then_some(key))
}

#[cfg(test)]
#[expect(clippy::expect_used, reason = "tests")]
mod tests {
    use super::*;

    fn me() -> Owner {
        Owner::new("me<1>").expect("an owner")
    }

    #[test]
    fn owners_are_compared_decoded() {
        for (labels, holder) in [
            (r#"{"com.buildkite.sockguard.owner":"me<1>"}"#, Holder::Me),
            (r#"{"com.buildkite.sockguard.owner":"me\u003c1\u003e"}"#, Holder::Me),
            (r#"{"\u0063om.buildkite.sockguard.owner":"me<1>"}"#, Holder::Me),
            (r#"{"com.buildkite.sockguard.owner":"me<1"}"#, Holder::Other),
            (r#"{"com.buildkite.sockguard.owner":""}"#, Holder::Other),
            (r#"{"com.buildkite.sockguard.ownerx":"me<1>"}"#, Holder::Nobody),
            (r#"{"x":"com.buildkite.sockguard.owner"}"#, Holder::Nobody),
            ("{}", Holder::Nobody),
            ("null", Holder::Nobody),
        ] {
            assert_eq!(read(labels.as_bytes(), &me()).expect(labels).holder, holder, "{labels}");
        }
        assert!(read(br#"{"com.buildkite.sockguard.owner":1}"#, &me()).is_err());
        assert!(read(b"[]", &me()).is_err());
    }

    #[test]
    fn only_our_labels_are_cut() {
        for (labels, left) in [
            (r#"{"a":"b","com.buildkite.sockguard.owner":"x","z":"\u0026"}"#, r#"{"a":"b","z":"\u0026"}"#),
            (r#"{"com.buildkite.sockguard.owner":"x","com.buildkite.sockguard.binds":"{}"}"#, "{}"),
            (r#"{"com.buildkite.sockguard":"x"}"#, r#"{"com.buildkite.sockguard":"x"}"#),
            (r#"{"a\"":"com.buildkite.sockguard.owner\":"}"#, r#"{"a\"":"com.buildkite.sockguard.owner\":"}"#),
            (r#"{"\u0063om.buildkite.sockguard.x":"x"}"#, "{}"),
            ("null", "null"),
        ] {
            let mut out = Vec::new();
            strip(labels.as_bytes(), &mut out).expect(labels);
            assert_eq!(String::from_utf8_lossy(&out), left);
        }
    }
}
