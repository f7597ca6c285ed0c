//! The owner's own bridge: where the policy isolates owners, it stands in the place of the engine's default network,
//! which all containers share.

use super::{Agent, labels};
use crate::owner::{BRIDGE_LABEL, Owner, Standing};
use crate::permit::Step;
use crate::refusal::Refusal;
use crate::world::{Id, World};
use sha2::{Digest, Sha256};
use std::fmt::Write as _;

const PREFIX: &str = "sockguard-";

/// So many bytes of the owner's hash are in the name.
const HASH: usize = 8;

/// The name of an owner's bridge. Nobody else can have it, so containers are put on it by name: an ID would bind them to a
/// network that is another one after a prune.
pub fn name(owner: &Owner) -> String {
    let mut name = PREFIX.to_owned();
    for byte in Sha256::digest(owner.as_str()).iter().take(HASH) {
        // Writing to a string cannot fail.
        let _ = write!(name, "{byte:02x}");
    }
    name
}

/// Has a network's name the form of such a name?
pub fn reserved(name: &str) -> bool {
    let hex = |rest: &str| rest.len() == 2 * HASH && rest.bytes().all(|b| b.is_ascii_hexdigit());
    name.strip_prefix(PREFIX).is_some_and(hex)
}

/// The name of the owner's bridge, where a reference to a network means it: as the engine's default network, or as itself.
///
/// # Errors
/// When the engine cannot be asked.
pub async fn meant(reference: &str, agent: &Agent, world: &impl World) -> Result<Option<String>, Refusal> {
    if !agent.policy.network.isolated {
        return Ok(None);
    }
    let own = name(&agent.owner);
    let means = match reference {
        "" | "default" | "bridge" => true,
        reference if reference == own => true,
        id if id.bytes().all(|b| b.is_ascii_hexdigit()) => {
            world.network(id).await?.is_some_and(|network| match network.standing(&agent.owner) {
                Standing::Own => network.name == own,
                Standing::Shared => network.name == "bridge",
                Standing::Foreign => false,
            })
        }
        _ => false,
    };
    Ok(means.then_some(own))
}

/// Makes the owner's bridge, if it is not there, before a request that puts something on it.
pub fn needed(agent: &Agent) -> Step {
    let (name, labels) = made(agent);
    Step::Bridge { name, labels }
}

/// The same before a container's start, if it is on the bridge; nothing where owners are not isolated.
pub fn needed_by(container: &Id, agent: &Agent) -> Option<Step> {
    let (name, labels) = made(agent);
    agent.policy.network.isolated.then(|| Step::Rejoin { container: container.clone(), name, labels })
}

fn made(agent: &Agent) -> (String, Vec<(String, String)>) {
    let mut labels = labels::of_object(agent);
    labels.push((BRIDGE_LABEL.to_owned(), "1".to_owned()));
    (name(&agent.owner), labels)
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    #[test]
    fn each_owner_has_a_name_of_its_own_that_nobody_else_can_take() {
        let [a, b] = ["a", "arn:aws:ecs:eu-west-1:1:task/x/y"].map(|owner| name(&Owner::new(owner).unwrap()));
        assert_eq!(a, "sockguard-ca978112ca1bbdca");
        assert_ne!(a, b);
        assert!(reserved(&a) && reserved(&b));
        for other in ["sockguard", "sockguard-", "sockguard-e2e_default", "sockguard-ca978112ca1bbdca_x", "bridge"] {
            assert!(!reserved(other), "{other}");
        }
    }
}
