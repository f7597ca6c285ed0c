//! (to come)
use super::{Agent, Ask};
use crate::permit::Verdict;
use crate::refusal::Refusal;
use crate::route::Containers;
use crate::world::World;

/// Judges a request.
pub async fn judge(route: Containers, ask: Ask, agent: &Agent, world: &impl World) -> Verdict {
    let _ = (route, ask, agent, world);
    Err(Refusal::unknown("this endpoint"))
}
