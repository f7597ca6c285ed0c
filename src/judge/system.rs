//! (to come)
use super::{Agent, Ask};
use crate::permit::Verdict;
use crate::refusal::Refusal;
use crate::route::{Lacking, System};

/// Judges a request.
pub async fn judge(route: System, ask: Ask, agent: &Agent) -> Verdict {
    let _ = (route, ask, agent);
    Err(Refusal::unknown("this endpoint"))
}

/// Answers as an engine that lacks the feature.
pub fn lacking(route: Lacking) -> Verdict {
    let _ = route;
    Err(Refusal::unknown("this endpoint"))
}
