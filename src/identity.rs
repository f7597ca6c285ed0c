//! Which agent a connection comes from, where several agents share a listener.
//!
//! The kernel says which process connected ([`crate::peer`]), its cgroups name its container ([`crate::cgroups`]), and
//! the engine says what that container is: one that was created through sockguard acts as its owner; another is the
//! agent that the first matching rule makes of it. Nothing that a client says counts, nor what a container inherits from
//! its image: labels that its image has too are as good as absent.

use crate::owner::{LABEL_PREFIX, Owner, SealKey};
use crate::policy::{Glob, Policy};
use std::collections::BTreeMap;
use std::fmt;
use std::rc::Rc;

/// A rule that makes an agent of who connects: the first that matches counts.
#[derive(Debug, Clone)]
pub struct Rule {
    /// Who is meant. All of it has to be so.
    pub who: Who,
    /// How its owner is called.
    pub owner: OwnerTemplate,
    /// What it may do.
    pub policy: Rc<Policy>,
}

/// Whom a rule means.
#[derive(Debug, Clone)]
pub enum Who {
    /// A container that carries all of these labels, of an image of this name.
    Container {
        /// Label keys, with what their values look like.
        labels: Vec<(String, Glob)>,
        /// The image as the container's creator named it (`Config.Image`).
        image: Option<Glob>,
    },
    /// A process of the host, by its user.
    User(u32),
}

/// The text of which an owner's name is made: `{label:KEY}`, `{container.id}`, `{container.name}` and `{uid}` stand for
/// what the one who connects has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OwnerTemplate(Vec<Part>);

#[derive(Debug, Clone, PartialEq, Eq)]
enum Part {
    Text(String),
    Label(String),
    ContainerId,
    ContainerName,
    Uid,
}

impl OwnerTemplate {
    /// Reads a template.
    ///
    /// # Errors
    /// One sentence that says what is wrong.
    pub fn parse(text: &str) -> Result<Self, String> {
        let mut parts = Vec::new();
        let mut rest = text;
        while let Some((before, after)) = rest.split_once('{') {
            let (name, after) = after.split_once('}').ok_or_else(|| format!("`{text}`: a `{{` is not closed"))?;
            if !before.is_empty() {
                parts.push(Part::Text(before.to_owned()));
            }
            parts.push(match name.split_once(':') {
                Some(("label", key)) => Part::Label(label_key(key)?),
                _ => match name {
                    "container.id" => Part::ContainerId,
                    "container.name" => Part::ContainerName,
                    "uid" => Part::Uid,
                    other => {
                        return Err(format!(
                            "`{{{other}}}` is not known: there are {{label:KEY}}, {{container.id}}, {{container.name}} and {{uid}}"
                        ));
                    }
                },
            });
            rest = after;
        }
        if !rest.is_empty() {
            parts.push(Part::Text(rest.to_owned()));
        }
        let text_of = |part: &Part| match part {
            Part::Text(text) => text.clone(),
            Part::Label(_) | Part::ContainerId | Part::ContainerName | Part::Uid => "x".to_owned(),
        };
        Owner::new(&parts.iter().map(text_of).collect::<String>())?;
        Ok(Self(parts))
    }

    /// Does it need something that only containers have?
    pub fn needs_container(&self) -> bool {
        self.0.iter().any(|part| matches!(part, Part::Label(_) | Part::ContainerId | Part::ContainerName))
    }

    /// Does it need something that only processes of the host have?
    pub fn needs_user(&self) -> bool {
        self.0.contains(&Part::Uid)
    }

    /// The owner's name for this container.
    ///
    /// # Errors
    /// A label that it does not have, or that has no value.
    fn of_container(&self, container: &Facts) -> Result<String, String> {
        let mut name = String::new();
        for part in &self.0 {
            match part {
                Part::Text(text) => name.push_str(text),
                Part::Label(key) => match container.labels.get(key).filter(|value| !value.is_empty()) {
                    Some(value) => name.push_str(value),
                    None => return Err(format!("it has no label {key} of its own, of which its owner is made")),
                },
                Part::ContainerId => name.push_str(&container.id),
                Part::ContainerName => name.push_str(&container.name),
                Part::Uid => {
                    return Err("its owner is made of a user ID, which only processes of the host have".to_owned());
                }
            }
        }
        Ok(name)
    }

    /// The owner's name for a user of the host.
    fn of_user(&self, uid: u32) -> Result<String, String> {
        let mut name = String::new();
        for part in &self.0 {
            match part {
                Part::Text(text) => name.push_str(text),
                Part::Uid => name.push_str(&uid.to_string()),
                Part::Label(_) | Part::ContainerId | Part::ContainerName => {
                    return Err("its owner is made of what only containers have".to_owned());
                }
            }
        }
        Ok(name)
    }
}

/// Checks the key of a label that rules look at.
///
/// # Errors
/// One sentence.
pub fn label_key(key: &str) -> Result<String, String> {
    let fine = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_' | '/');
    if key.is_empty() || !key.chars().all(fine) {
        return Err(format!("`{key}` is no key of a label: expected letters, digits, `.`, `-`, `_` and `/`"));
    }
    if key.starts_with(LABEL_PREFIX) {
        return Err(format!("`{key}` is sockguard's own: a container that carries it is no agent"));
    }
    Ok(key.to_owned())
}

/// What is known of a container that connects.
#[derive(Debug, Clone, Default)]
struct Facts {
    id: String,
    name: String,
    image: String,
    /// Without those that its image has too.
    labels: BTreeMap<String, String>,
}
