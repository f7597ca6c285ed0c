//! How many agents there should be: pure, so that every rule of it is a line in a table of tests.
//!
//! Up at once, down only after a cool-down in which there were too many all the time, and never below those that are busy.

use std::time::{Duration, Instant};

/// Too many agents seen longer ago than this are no sign that there were too many ever since: the function may have
/// stood still, or another copy of it may have worked in the meantime.
const STALE: Duration = Duration::from_secs(180);

/// The fewest and the most agents.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bounds {
    least: u32,
    most: u32,
}

impl Bounds {
    /// Bounds in order, or none.
    pub fn new(least: u32, most: u32) -> Option<Self> {
        (least <= most).then_some(Self { least, most })
    }

    /// The number of the bounds that is nearest.
    fn nearest(self, number: u64) -> u32 {
        u32::try_from(number).unwrap_or(u32::MAX).clamp(self.least, self.most)
    }
}

/// Whether jobs that wait for others to end count: with them the agents are there early, and idle until then.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Waiting {
    Count,
    Ignore,
}

/// What the stack's parameters say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rule {
    pub bounds: Bounds,
    /// Idle agents kept for the next jobs.
    pub buffer: u32,
    pub waiting: Waiting,
    /// How long there have to be too many agents until some go.
    pub cool_down: Duration,
}

impl Rule {
    /// How many agents the jobs want.
    fn want(&self, load: &Load) -> u32 {
        let waiting = match self.waiting {
            Waiting::Count => load.waiting,
            Waiting::Ignore => 0,
        };
        let jobs = load.scheduled.saturating_add(load.running).saturating_add(waiting);
        self.bounds.nearest(jobs.saturating_add(self.buffer.into()))
    }
}

/// What goes on in the queue. The numbers come from outside and may be anything.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Load {
    pub scheduled: u64,
    pub running: u64,
    pub waiting: u64,
    /// Agents that run a job.
    pub busy: u64,
}

/// There have been too many agents, poll by poll, since a point in time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Surplus {
    since: Instant,
    seen: Instant,
    /// The most agents that were needed since then.
    needed: u32,
}

impl Surplus {
    /// What is known now that so many are needed: it goes on, or begins.
    fn now(before: Option<Self>, needed: u32, now: Instant) -> Self {
        match before {
            Some(before) if now.saturating_duration_since(before.seen) <= STALE => {
                Self { since: before.since, seen: now, needed: needed.max(before.needed) }
            }
            Some(_) | None => Self { since: now, seen: now, needed },
        }
    }
}

/// What to do about the number of agents.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Decision {
    /// The number is right.
    Keep,
    /// The jobs want fewer, but these are busy.
    Busy,
    /// Fewer would do; to be seen at the next poll.
    CoolDown(Surplus),
    Up(u32),
    Down(u32),
}

/// Decides, from what was asked for last (`desired`) and the surplus of the last decision if that was a cool-down.
pub fn decide(rule: &Rule, load: &Load, desired: u32, before: Option<Surplus>, now: Instant) -> Decision {
    let want = rule.want(load);
    if want > desired {
        return Decision::Up(want);
    }
    // Busy agents that this service does not run may be in the queue as well: never a reason to start more.
    let busy = u32::try_from(load.busy).unwrap_or(u32::MAX).min(desired);
    let needed = want.max(busy);
    if needed == desired {
        return if want == desired { Decision::Keep } else { Decision::Busy };
    }
    let surplus = Surplus::now(before, needed, now);
    if now.saturating_duration_since(surplus.since) < rule.cool_down {
        return Decision::CoolDown(surplus);
    }
    // Somebody else may have set a number below what was needed in between.
    if surplus.needed < desired { Decision::Down(surplus.needed) } else { Decision::Keep }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, clippy::panic, reason = "tests")]
mod tests {
    use super::*;

    const COOL_DOWN: Duration = Duration::from_secs(60);

    fn rule(least: u32, most: u32, buffer: u32) -> Rule {
        let bounds = Bounds::new(least, most).unwrap();
        Rule { bounds, buffer, waiting: Waiting::Ignore, cool_down: COOL_DOWN }
    }

    fn load(scheduled: u64, running: u64, waiting: u64, busy: u64) -> Load {
        Load { scheduled, running, waiting, busy }
    }

    /// What is decided where there have been too many for the whole cool-down.
    fn after_cool_down(rule: &Rule, load: &Load, desired: u32) -> Decision {
        let begin = Instant::now();
        match decide(rule, load, desired, None, begin) {
            Decision::CoolDown(surplus) => decide(rule, load, desired, Some(surplus), begin + rule.cool_down),
            at_once => at_once,
        }
    }

    #[test]
    fn the_table() {
        use Decision::{Busy, Down, Keep, Up};
        let cases = [
            // bounds and buffer, jobs, agents asked for now, decision
            (rule(0, 10, 0), load(0, 0, 0, 0), 0, Keep),
            (rule(0, 10, 0), load(3, 0, 0, 0), 0, Up(3)),
            (rule(0, 10, 0), load(3, 2, 0, 2), 2, Up(5)),
            (rule(0, 10, 0), load(2, 3, 0, 3), 5, Keep),
            (rule(0, 10, 0), load(0, 0, 5, 0), 0, Keep),
            (Rule { waiting: Waiting::Count, ..rule(0, 10, 0) }, load(1, 1, 5, 1), 2, Up(7)),
            (rule(0, 10, 2), load(1, 1, 0, 1), 2, Up(4)),
            (rule(0, 10, 2), load(0, 0, 0, 0), 5, Down(2)),
            (rule(2, 10, 0), load(0, 0, 0, 0), 0, Up(2)),
            (rule(2, 10, 0), load(0, 0, 0, 0), 9, Down(2)),
            (rule(0, 10, 5), load(9, 0, 0, 0), 3, Up(10)),
            (rule(0, 10, 0), load(99, 0, 0, 0), 10, Keep),
            (rule(0, 0, 9), load(99, 9, 9, 9), 0, Keep),
            // the bound was lowered: down to it, but not below the busy ones
            (rule(0, 4, 0), load(99, 0, 0, 0), 8, Down(4)),
            (rule(0, 4, 0), load(99, 6, 0, 6), 8, Down(6)),
            (rule(0, 4, 0), load(99, 8, 0, 8), 8, Busy),
            // busy ones, that the metrics' jobs do not show (any more)
            (rule(0, 10, 0), load(0, 0, 0, 5), 5, Busy),
            (rule(0, 10, 0), load(0, 1, 0, 5), 7, Down(5)),
            // busy ones that another service runs
            (rule(0, 10, 0), load(0, 0, 0, 50), 5, Busy),
            (rule(0, 10, 0), load(0, 0, 0, 50), 0, Keep),
            // numbers that cannot be
            (rule(0, 10, 1), load(u64::MAX, u64::MAX, u64::MAX, 0), 3, Up(10)),
            (rule(0, 10, u32::MAX), load(u64::MAX, 0, 0, 0), 10, Keep),
            (rule(0, 10, 0), load(0, 0, 0, u64::MAX), 10, Busy),
            (rule(0, u32::MAX, u32::MAX), load(u64::MAX, 0, 0, 0), u32::MAX, Keep),
        ];
        for (rule, load, desired, expected) in cases {
            assert_eq!(after_cool_down(&rule, &load, desired), expected, "{rule:?} {load:?} {desired}");
        }
    }

    #[test]
    fn no_number_is_ever_out_of_bounds_or_below_the_busy() {
        let numbers = [0, 1, 2, 5, 9, 10, 11, u64::from(u32::MAX), u64::MAX];
        let rule = rule(1, 10, 1);
        for scheduled in numbers {
            for running in numbers {
                for busy in numbers {
                    for desired in [0, 1, 5, 10, 11, 40] {
                        match after_cool_down(&rule, &load(scheduled, running, 0, busy), desired) {
                            Decision::Up(to) => assert!(to > desired && (1..=10).contains(&to)),
                            Decision::Down(to) => {
                                assert!(to < desired && to >= 1 && (u64::from(to) >= busy.min(desired.into())));
                            }
                            Decision::Keep | Decision::Busy => (),
                            Decision::CoolDown(_) => panic!("the cool-down is over"),
                        }
                    }
                }
            }
        }
    }

    /// What comes of polls: seconds since the first, jobs that run, and the agents asked for after it.
    fn run(rule: &Rule, mut desired: u32, polls: &[(u64, u64, u32)]) {
        let begin = Instant::now();
        let mut surplus = None;
        for (seconds, running, expected) in polls {
            let load = load(0, *running, 0, *running);
            let decision = decide(rule, &load, desired, surplus, begin + Duration::from_secs(*seconds));
            surplus = None;
            match decision {
                Decision::Up(to) | Decision::Down(to) => desired = to,
                Decision::CoolDown(on) => surplus = Some(on),
                Decision::Keep | Decision::Busy => (),
            }
            assert_eq!(desired, *expected, "after {seconds} s");
        }
    }

    #[test]
    fn down_takes_a_cool_down_of_its_own_each_time() {
        run(&rule(0, 10, 0), 5, &[(0, 2, 5), (30, 2, 5), (59, 2, 5), (60, 2, 2), (61, 0, 2), (120, 0, 2), (121, 0, 0)]);
    }

    #[test]
    fn what_was_needed_in_the_cool_down_stays() {
        run(&rule(0, 10, 0), 5, &[(0, 0, 5), (20, 4, 5), (40, 1, 5), (60, 0, 4), (70, 0, 4), (130, 0, 0)]);
    }

    #[test]
    fn a_peak_ends_the_cool_down() {
        run(&rule(0, 10, 0), 5, &[(0, 0, 5), (50, 5, 5), (60, 0, 5), (119, 0, 5), (120, 0, 0)]);
        run(&rule(0, 10, 0), 5, &[(0, 0, 5), (50, 8, 8), (60, 0, 8), (119, 0, 8), (120, 0, 0)]);
    }

    #[test]
    fn a_surplus_that_was_not_seen_for_long_counts_no_more() {
        run(&rule(0, 10, 0), 5, &[(0, 0, 5), (180, 0, 0)]);
        run(&rule(0, 10, 0), 5, &[(0, 0, 5), (181, 0, 5), (240, 0, 5), (241, 0, 0)]);
    }

    #[test]
    fn no_cool_down_is_down_at_once() {
        run(&Rule { cool_down: Duration::ZERO, ..rule(0, 10, 0) }, 5, &[(0, 2, 2)]);
    }

    #[test]
    fn a_number_that_somebody_else_set_is_never_raised_on_the_way_down() {
        let (rule, begin) = (rule(0, 10, 0), Instant::now());
        let Decision::CoolDown(surplus) = decide(&rule, &load(0, 6, 0, 6), 9, None, begin) else { panic!() };
        assert_eq!(decide(&rule, &load(0, 1, 0, 1), 4, Some(surplus), begin + COOL_DOWN), Decision::Keep);
    }

    #[test]
    fn time_that_runs_backwards_ends_no_cool_down() {
        let (rule, begin) = (rule(0, 10, 0), Instant::now() + COOL_DOWN);
        let Decision::CoolDown(surplus) = decide(&rule, &load(0, 0, 0, 0), 9, None, begin) else { panic!() };
        let before = begin - Duration::from_secs(30);
        assert!(matches!(decide(&rule, &load(0, 0, 0, 0), 9, Some(surplus), before), Decision::CoolDown(_)));
    }
}
