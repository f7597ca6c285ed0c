//! (to come)
use super::{Agent, Ask};
use crate::permit::Verdict;
use crate::refusal::Refusal;
use crate::route::Exec;
use crate::world::World;

/// Judges a request.
pub async fn judge(route: Exec, ask: Ask, agent: &Agent, world: &impl World) -> Verdict {
    let _ = (route, ask, agent, world);
    Err(Refusal::unknown("this endpoint"))
}
