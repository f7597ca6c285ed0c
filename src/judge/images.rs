//! (to come)
use super::{Agent, Ask};
use crate::permit::Verdict;
use crate::refusal::Refusal;
use crate::route::Images;
use crate::world::World;

/// Judges a request.
pub async fn judge(route: Images, ask: Ask, agent: &Agent, world: &impl World) -> Verdict {
    let _ = (route, ask, agent, world);
    Err(Refusal::unknown("this endpoint"))
}

/// What an image archive must keep to.
#[derive(Debug, Clone, PartialEq)]
pub struct ArchiveRules {}

/// The engine's words for an image that it does not have.
pub fn absent_image(reference: &str) -> String {
    format!("No such image: {reference}")
}
