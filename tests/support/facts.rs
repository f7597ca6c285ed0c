//! What a case says that the engine and the host have, and how the engine finds it.

use super::case::Fields;
use sockguard::json::Value;
use sockguard::owner::{IMAGE_LABEL, OWNER_LABEL, Owner, SEAL_LABEL};
use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash, Hasher};

/// Labels.
pub type Labels = BTreeMap<String, String>;

/// What the engine has.
#[derive(Default, Clone)]
pub struct Facts {
    /// Its API version.
    pub api_version: (u32, u32),
    /// Is it away?
    pub down: bool,
    /// Its containers.
    pub containers: Vec<Container>,
    /// Its images.
    pub images: Vec<Image>,
    /// Its networks.
    pub networks: Vec<Network>,
    /// Its volumes.
    pub volumes: Vec<Volume>,
    /// Its execs.
    pub execs: Vec<Exec>,
    /// What registries have.
    pub registry: Vec<Image>,
}

/// A container.
#[derive(Clone)]
pub struct Container {
    /// Its name.
    pub name: String,
    /// Its full ID.
    pub id: String,
    /// Its labels.
    pub labels: Labels,
    /// Does it run?
    pub running: bool,
    /// Can it write outside of itself?
    pub writes: bool,
}

/// An image.
#[derive(Clone)]
pub struct Image {
    /// Its names with tag; none where it is untagged.
    pub names: Vec<String>,
    /// How the case calls it.
    pub reference: String,
    /// Its full ID.
    pub id: String,
    /// The labels of its config.
    pub labels: Labels,
    /// The paths that it declares as volumes.
    pub volumes: Vec<String>,
    /// The ports that it exposes, such as `80/tcp`.
    pub exposes: Vec<String>,
    /// Its `ONBUILD` triggers.
    pub on_build: Vec<String>,
    /// Did the owner bring it?
    pub brought: bool,
    /// Its digest in the registries of its names.
    pub digest: Option<String>,
    /// The digest that the registries have under its names by now, for clients with credentials.
    pub served: Option<String>,
}

/// A network.
#[derive(Clone)]
pub struct Network {
    /// How the case calls it.
    pub reference: String,
    /// Its name.
    pub name: String,
    /// Its full ID.
    pub id: String,
    /// Its labels.
    pub labels: Labels,
}

/// A volume.
#[derive(Clone)]
pub struct Volume {
    /// Its name.
    pub name: String,
    /// Its labels.
    pub labels: Labels,
    /// Its options.
    pub options: Labels,
}

/// An exec.
#[derive(Clone)]
pub struct Exec {
    /// How the case calls it.
    pub reference: String,
    /// Its full ID.
    pub id: String,
    /// The full ID of its container.
    pub container: String,
}

/// What is at a host path.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum PathIs {
    /// A directory.
    Fine,
    /// Nothing.
    Missing,
    /// A symbolic link that leads out.
    Link,
    /// Sockguard cannot see it.
    Unseen,
}

impl PathIs {
    /// Reads the word.
    pub fn read(value: &Value) -> Result<Self, String> {
        match value.as_str() {
            Some("fine") => Ok(Self::Fine),
            Some("missing") => Ok(Self::Missing),
            Some("link") => Ok(Self::Link),
            Some("unseen") => Ok(Self::Unseen),
            _ => Err(format!("a host path is fine, missing, link or unseen, not {value}")),
        }
    }
}

/// 64 hexadecimal digits that depend on these words.
pub fn digits(words: &[&str]) -> String {
    let part = |salt: u8| {
        let mut hasher = DefaultHasher::new();
        (salt, words).hash(&mut hasher);
        format!("{:016x}", hasher.finish())
    };
    (0..4).map(part).collect()
}

fn texts(fields: &mut Fields, key: &str) -> Result<Labels, String> {
    let text = |value: Value| value.as_str().map(str::to_owned).ok_or(format!("{key} are texts"));
    fields.members(key)?.into_iter().map(|(name, value)| Ok((name, text(value)?))).collect()
}

fn labels(fields: &mut Fields) -> Result<Labels, String> {
    let mut out = texts(fields, "labels")?;
    if let Some(owner) = fields.text("owner")? {
        out.insert(OWNER_LABEL.to_owned(), owner);
    }
    Ok(out)
}

fn image(reference: String, value: Value) -> Result<Image, String> {
    let id = format!("sha256:{}", digits(&["image", &reference, &value.to_string()]));
    let mut fields = Fields::of(&reference, value)?;
    let mut names: Vec<String> = fields.texts("also")?.iter().map(|name| full_name(name)).collect();
    if fields.truth("tagged", true)? {
        names.insert(0, full_name(&reference));
    }
    let image = Image {
        labels: labels(&mut fields)?,
        volumes: fields.texts("volumes")?,
        exposes: fields.texts("exposes")?,
        on_build: fields.texts("on_build")?,
        brought: fields.truth("brought", false)?,
        digest: fields.text("digest")?,
        served: fields.text("served")?,
        names,
        reference,
        id,
    };
    fields.end()?;
    Ok(image)
}

/// The image of the containers that are there: nothing is known of it but that it carries no labels.
pub fn plain_image() -> String {
    format!("sha256:{}", "0".repeat(64))
}

/// A name with its tag, without the default registry.
pub fn full_name(reference: &str) -> String {
    let short = reference.strip_prefix("docker.io/").unwrap_or(reference);
    let short = short.strip_prefix("library/").unwrap_or(short);
    let last = short.rsplit('/').next().unwrap_or_default();
    if last.contains([':', '@']) { short.to_owned() } else { format!("{short}:latest") }
}

impl Image {
    /// Its names by digest.
    pub fn digests(&self) -> impl Iterator<Item = String> {
        let repository =
            |name: &String| name.rsplit_once(':').map_or(name.clone(), |(repository, _)| repository.into());
        self.digest
            .iter()
            .flat_map(move |digest| self.names.iter().map(move |name| format!("{}@{digest}", repository(name))))
    }
}

impl Facts {
    /// Reads the `engine` of a case.
    pub fn read(value: Value) -> Result<Self, String> {
        let mut fields = Fields::of("engine", value)?;
        let version = fields.text("api_version")?.unwrap_or_else(|| "1.41".to_owned());
        let api_version = version.split_once('.').and_then(|(a, b)| Some((a.parse().ok()?, b.parse().ok()?)));
        let mut out = Self { api_version: api_version.ok_or("engine.api_version")?, ..Self::default() };
        out.down = fields.truth("down", false)?;
        for (name, value) in fields.members("containers")? {
            let id = digits(&["container", &name, &value.to_string()]);
            let mut fields = Fields::of(&name, value)?;
            let mut labels = labels(&mut fields)?;
            // One that its owner created through sockguard, unless the case says that it only inherits the label.
            if !fields.truth("inherited", false)?
                && let Some(owner) = labels.get(OWNER_LABEL)
            {
                labels.insert(SEAL_LABEL.to_owned(), Owner::new(owner)?.seal().to_owned());
                labels.insert(IMAGE_LABEL.to_owned(), plain_image());
            }
            out.containers.push(Container {
                labels,
                running: fields.truth("running", false)?,
                writes: fields.truth("writes", false)?,
                name,
                id,
            });
            fields.end()?;
        }
        for (reference, value) in fields.members("images")? {
            out.images.push(image(reference, value)?);
        }
        for (reference, value) in fields.members("registry")? {
            out.registry.push(image(reference, value)?);
        }
        for (reference, value) in fields.members("networks")? {
            let id = digits(&["network", &reference, &value.to_string()]);
            let mut fields = Fields::of(&reference, value)?;
            let name = fields.text("name")?.unwrap_or_else(|| reference.clone());
            out.networks.push(Network { labels: labels(&mut fields)?, name, reference, id });
            fields.end()?;
        }
        for name in ["bridge", "host", "none"] {
            let id = digits(&["network", name]);
            out.networks.push(Network { labels: Labels::new(), name: name.to_owned(), reference: name.to_owned(), id });
        }
        for (name, value) in fields.members("volumes")? {
            let mut fields = Fields::of(&name, value)?;
            let options = texts(&mut fields, "options")?;
            out.volumes.push(Volume { labels: labels(&mut fields)?, name, options });
            fields.end()?;
        }
        for (reference, value) in fields.members("execs")? {
            let mut fields = Fields::of(&reference, value)?;
            let name = fields.text("container")?.ok_or("an exec has a container")?;
            fields.end()?;
            let container = out.container(&name).ok_or("an exec's container is among the containers")?.id.clone();
            out.execs.push(Exec { id: digits(&["exec", &reference, &container]), reference, container });
        }
        fields.end()?;
        out.names_are_apart()?;
        Ok(out)
    }

    fn names_are_apart(&self) -> Result<(), String> {
        let mut all: Vec<&str> = self.ids().into_iter().map(|(name, _)| name).collect();
        all.sort_unstable();
        match all.windows(2).find(|pair| pair[0] == pair[1]) {
            None => Ok(()),
            Some(pair) => Err(format!("two objects of the case are called `{}`", pair[0])),
        }
    }

    /// Names and IDs of all that has one.
    fn ids(&self) -> Vec<(&str, &str)> {
        let containers = self.containers.iter().map(|c| (c.name.as_str(), c.id.as_str()));
        let images = self.images.iter().filter(|image| image.reference != "new");
        // What was pulled is still what the registry has.
        let images = images.filter(|i| self.registry.iter().all(|r| r.id != i.id)).chain(&self.registry);
        let images = images.map(|i| (i.reference.as_str(), i.id.as_str()));
        let networks = self.networks.iter().map(|n| (n.reference.as_str(), n.id.as_str()));
        let execs = self.execs.iter().map(|e| (e.reference.as_str(), e.id.as_str()));
        containers.chain(images).chain(networks).chain(execs).collect()
    }

    /// Puts IDs in the place of `{name}` (the full one) and `{name:12}` (the short one).
    pub fn expand(&self, text: &str) -> String {
        self.ids().into_iter().fold(text.to_owned(), |text, (name, id)| {
            let bare = id.trim_start_matches("sha256:");
            text.replace(&format!("{{{name}}}"), id).replace(&format!("{{{name}:12}}"), &bare[..12])
        })
    }

    /// Puts `{name}` in the place of IDs.
    pub fn contract(&self, text: &str) -> String {
        self.ids().into_iter().fold(text.to_owned(), |text, (name, id)| {
            let bare = id.trim_start_matches("sha256:");
            let encoded = id.replace(':', "%3A");
            let name_of = |suffix: &str| format!("{{{name}{suffix}}}");
            let text = text.replace(id, &name_of("")).replace(&encoded, &name_of(""));
            text.replace(bare, &name_of(":64")).replace(&bare[..12], &name_of(":12"))
        })
    }

    /// The container that the engine finds under a reference.
    pub fn container(&self, reference: &str) -> Option<&Container> {
        let plain = reference.strip_prefix('/').unwrap_or(reference);
        let all = || self.containers.iter();
        let short = |c: &&Container| plain.len() >= 4 && c.id.starts_with(plain);
        all().find(|c| c.id == plain).or_else(|| all().find(|c| c.name == plain)).or_else(|| all().find(short))
    }

    /// The image that the engine finds under a reference.
    pub fn image(&self, reference: &str) -> Option<&Image> {
        let bare = reference.strip_prefix("sha256:").unwrap_or(reference);
        let name = full_name(reference);
        let by_id = |image: &&Image| bare.len() >= 6 && image.id.trim_start_matches("sha256:").starts_with(bare);
        self.images
            .iter()
            .find(|i| i.names.contains(&name) || i.digests().any(|digest| digest == name))
            .or_else(|| self.images.iter().find(by_id))
    }

    /// What a registry has under a name.
    pub fn pulled(&self, name: &str, tag: &str) -> Option<Image> {
        let separator = if tag.contains(':') { '@' } else { ':' };
        let name = full_name(&format!("{name}{separator}{tag}"));
        self.registry.iter().find(|image| image.names.contains(&name)).cloned()
    }

    /// The digest that a registry has under a name.
    pub fn served(&self, name: &str) -> Option<String> {
        let name = full_name(name);
        let of_name = |image: &&Image| image.names.contains(&name) || image.digests().any(|digest| digest == name);
        self.images.iter().find(of_name)?.served.clone()
    }

    /// The network that the engine finds under a reference.
    pub fn network(&self, reference: &str) -> Option<&Network> {
        find_network(self.networks.iter(), reference)
    }

    /// The volume of this name.
    pub fn volume(&self, name: &str) -> Option<&Volume> {
        self.volumes.iter().find(|volume| volume.name == name)
    }

    /// The exec of this ID.
    pub fn exec(&self, id: &str) -> Option<&Exec> {
        self.execs.iter().find(|exec| exec.id == id)
    }
}

/// The network among these that a reference names: by ID, name, or the beginning of an ID.
pub fn find_network<'a>(networks: impl Iterator<Item = &'a Network> + Clone, reference: &str) -> Option<&'a Network> {
    let short = |n: &&Network| reference.len() >= 4 && n.id.starts_with(reference);
    let all = || networks.clone();
    all().find(|n| n.id == reference).or_else(|| all().find(|n| n.name == reference)).or_else(|| all().find(short))
}
