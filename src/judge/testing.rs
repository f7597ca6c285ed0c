//! A small world for unit tests: what the engine would have, by name.

use super::Agent;
use crate::owner::{OWNER_LABEL, Owner, SEAL_LABEL};
use crate::policy::Policy;
use crate::reference::Reference;
use crate::refusal::Refusal;
use crate::world::{Container, Id, Image, Network, PathFact, Sockets, Volume, World};
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::path::Path;
use std::rc::Rc;

/// A world of these objects.
#[derive(Debug, Default)]
pub struct Fake {
    /// Images under each name they have.
    pub images: BTreeMap<String, Image>,
    /// Images that a registry has, under their names.
    pub registry: BTreeMap<String, Image>,
    /// The digests that registries have, under names with tag or digest.
    pub served: BTreeMap<String, String>,
    /// Images that were pulled.
    pub pulled: RefCell<BTreeMap<String, Image>>,
    /// Containers by name.
    pub containers: BTreeMap<String, Container>,
    /// Networks by name.
    pub networks: BTreeMap<String, Network>,
    /// Volumes by name.
    pub volumes: BTreeMap<String, Volume>,
    /// Execs and their containers.
    pub execs: BTreeMap<String, Id>,
    /// The API version; 1.41 where none is set.
    pub version: Option<(u32, u32)>,
}

/// Labels with this owner's, or none.
pub fn labels(owner: Option<&str>) -> BTreeMap<String, String> {
    owner.map(|owner| (OWNER_LABEL.to_owned(), owner.to_owned())).into_iter().collect()
}

/// An ID made of one digit.
pub fn id(digit: char) -> Id {
    Id::new(format!("sha256:{}", digit.to_string().repeat(64)))
}

/// The agent `me` with a policy of this text.
pub fn agent(policy: &str) -> Agent {
    #[expect(clippy::unwrap_used, reason = "tests")]
    let (policy, owner): (Policy, Owner) =
        (Policy::parse("test", "test.toml", policy).unwrap(), Owner::new("me").unwrap());
    Agent { owner, policy: Rc::new(policy), caller: None }
}

/// What a judgement comes to.
pub fn wait<T>(judgement: impl Future<Output = T>) -> T {
    #[expect(clippy::unwrap_used, reason = "tests")]
    tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(judgement)
}

impl Fake {
    /// With an image under this name, whose ID is made of this digit.
    pub fn image(mut self, name: &str, digit: char, owner: Option<&str>) -> Self {
        let (labels, platform) = (labels(owner), "linux/amd64".to_owned());
        let image = Image { labels, tagged: true, platform, ..Image::of(id(digit)) };
        self.images.insert(name.to_owned(), image);
        self
    }

    /// With a container of this name.
    pub fn container(mut self, name: &str, owner: Option<&str>) -> Self {
        let id = Id::new(format!("{name}-id"));
        let mut labels = labels(owner);
        if let Some(owner) = owner.and_then(|owner| Owner::new(owner).ok()) {
            labels.insert(SEAL_LABEL.to_owned(), owner.seal().to_owned());
        }
        self.containers.insert(name.to_owned(), Container { id, labels });
        self
    }

    /// With a network of this name.
    pub fn network(mut self, name: &str, owner: Option<&str>) -> Self {
        let id = Id::new(format!("{name}-id"));
        self.networks.insert(name.to_owned(), Network { id, name: name.to_owned(), labels: labels(owner) });
        self
    }
}

impl World for Fake {
    async fn container(&self, reference: &str) -> Result<Option<Container>, Refusal> {
        Ok(self
            .containers
            .get(reference)
            .or_else(|| self.containers.values().find(|c| c.id.as_str() == reference))
            .cloned())
    }

    async fn image(&self, reference: &str) -> Result<Option<Image>, Refusal> {
        let name = crate::reference::Reference::parse(reference).map(|r| r.or_latest().to_string()).unwrap_or_default();
        let by_id = |image: &&Image| {
            let bare = reference.strip_prefix("sha256:").unwrap_or(reference);
            bare.len() >= 6 && image.id.as_str().trim_start_matches("sha256:").starts_with(bare)
        };
        if let Some(pulled) = self.pulled.borrow().get(&name) {
            return Ok(Some(pulled.clone()));
        }
        Ok(self.images.get(&name).or_else(|| self.images.values().find(by_id)).cloned())
    }

    async fn pull(
        &self,
        reference: &Reference,
        _platform: Option<&str>,
        _credentials: Option<&str>,
    ) -> Result<(), Refusal> {
        match self.registry.get(&reference.to_string()) {
            Some(image) => {
                self.pulled.borrow_mut().insert(reference.to_string(), image.clone());
                Ok(())
            }
            None => Err(Refusal::absent(format!("pull access denied for {}", reference.familiar_name()))),
        }
    }

    async fn registry_digest(&self, name: &Reference, _credentials: Option<&str>) -> Result<Option<String>, Refusal> {
        Ok(self.served.get(&name.to_string()).cloned())
    }

    async fn network(&self, reference: &str) -> Result<Option<Network>, Refusal> {
        Ok(self
            .networks
            .get(reference)
            .or_else(|| self.networks.values().find(|n| n.id.as_str() == reference))
            .cloned())
    }

    async fn volume(&self, name: &str) -> Result<Option<Volume>, Refusal> {
        Ok(self.volumes.get(name).cloned())
    }

    async fn exec(&self, id: &str) -> Result<Option<Id>, Refusal> {
        Ok(self.execs.get(id).cloned())
    }

    async fn path(&self, _root: &Path, _below: &Path) -> PathFact {
        PathFact::Fine
    }

    async fn api_version(&self) -> Result<(u32, u32), Refusal> {
        Ok(self.version.unwrap_or((1, 41)))
    }

    fn sockets(&self) -> Sockets {
        Sockets { guarded: "/run/sockguard/guarded.sock".into(), engine: vec!["/var/run/docker.sock".into()] }
    }
}
