//! What a request adds to that which an owner's quotas count: containers with their limits, volumes, networks. Whether
//! there is room for it is seen when it is sent (`quota.rs`).

use crate::json::{Object, Value};
use crate::policy::Quota;
use crate::refusal::Refusal;
use crate::world::Id;
use std::collections::BTreeSet;

/// What a request adds.
#[derive(Debug, Clone, PartialEq)]
pub enum Demand {
    /// A new container with these limits, and volumes that are made with it.
    Container {
        /// Its limits.
        limits: Limits,
        /// The volumes.
        volumes: NewVolumes,
    },
    /// A container starts.
    Start {
        /// The container.
        container: Id,
    },
    /// The limits of a container change.
    Update {
        /// The container.
        container: Id,
        /// The fields that change, with their values.
        changes: Vec<(&'static str, i64)>,
    },
    /// A new network.
    Network,
    /// A new volume.
    Volume(NewVolumes),
}

/// Volumes that a request makes, or may make.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct NewVolumes {
    /// So many without a name.
    pub unnamed: u64,
    /// Those with a name that are not there by then.
    pub named: BTreeSet<String>,
}

impl NewVolumes {
    /// Are there none?
    pub fn is_empty(&self) -> bool {
        self.unnamed == 0 && self.named.is_empty()
    }
}

/// The limits of a container, as far as quotas count them; 0 is none.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of memory.
    pub memory: u64,
    /// Billionths of a CPU.
    pub cpus: u64,
    /// Processes.
    pub pids: u64,
}

/// The fields that state limits, each with the key of the quota that counts it.
const FIELDS: [(&str, &str); 5] = [
    ("Memory", "quota.memory"),
    ("NanoCpus", "quota.cpus"),
    ("CpuPeriod", "quota.cpus"),
    ("CpuQuota", "quota.cpus"),
    ("PidsLimit", "quota.pids"),
];

/// The period of a CPU quota, in microseconds, where none is stated.
const PERIOD: u64 = 100_000;

/// The least CPU quota that the engine takes.
const LEAST_QUOTA: u64 = 1000;

/// The billionths of a CPU in one.
const NANO: u64 = 1_000_000_000;

impl Limits {
    /// What a `HostConfig` states.
    pub fn stated(host: &Object) -> Self {
        let number = |field| host.get(field).and_then(Value::as_i64).and_then(|n| u64::try_from(n).ok()).unwrap_or(0);
        let cpus = match (number("NanoCpus"), number("CpuQuota"), number("CpuPeriod")) {
            (0, quota, 0) => scaled(quota, NANO, PERIOD),
            (0, quota, period) => scaled(quota, NANO, period),
            (cpus, ..) => cpus,
        };
        Self { memory: number("Memory"), cpus, pids: number("PidsLimit") }
    }

    /// The same, with what a container is taken to have that states none: it was made before there was a quota.
    pub fn counted(self, quota: &Quota) -> Self {
        let or = |stated, total: Option<crate::policy::Total>| match stated {
            0 => total.map_or(0, |total| total.default),
            stated => stated,
        };
        Self { memory: or(self.memory, quota.memory), cpus: or(self.cpus, quota.cpus), pids: or(self.pids, quota.pids) }
    }

    /// Both together.
    pub fn and(self, other: Self) -> Self {
        Self {
            memory: self.memory.saturating_add(other.memory),
            cpus: self.cpus.saturating_add(other.cpus),
            pids: self.pids.saturating_add(other.pids),
        }
    }
}

/// `n * by / of`, rounded up.
fn scaled(n: u64, by: u64, of: u64) -> u64 {
    let exact = (u128::from(n) * u128::from(by)).div_ceil(u128::from(of.max(1)));
    u64::try_from(exact).unwrap_or(u64::MAX)
}

/// The quota that counts a field.
fn counts(quota: &Quota, key: &str) -> bool {
    match key {
        "quota.memory" => quota.memory.is_some(),
        "quota.cpus" => quota.cpus.is_some(),
        _ => quota.pids.is_some(),
    }
}

/// Gives a new container the policy's limits where it states none and a quota counts them, and says what it has then.
///
/// # Errors
/// It asks for no limit.
pub fn impose(host: &mut Object, quota: &Quota) -> Result<Limits, Refusal> {
    for (field, key) in FIELDS {
        if let Some(value) = host.get(field).filter(|value| value.as_i64().is_some_and(|n| n < 0)) {
            refuse_unlimited(format!("HostConfig.{field}"), value, key, quota)?;
        }
    }
    let number = |n: u64| Value::from(i64::try_from(n).unwrap_or(i64::MAX));
    let stated = Limits::stated(host);
    if let (0, Some(total)) = (stated.memory, quota.memory) {
        host.set("Memory", number(total.default));
    }
    if let (0, Some(total)) = (stated.pids, quota.pids) {
        host.set("PidsLimit", number(total.default));
    }
    if let (0, Some(total)) = (stated.cpus, quota.cpus) {
        // The engine takes either a number of CPUs or a quota for each period.
        match host.get("CpuPeriod").and_then(Value::as_i64).and_then(|period| u64::try_from(period).ok()) {
            None | Some(0) => host.set("NanoCpus", number(total.default)),
            Some(period) => host.set("CpuQuota", number(scaled(total.default, period, NANO).max(LEAST_QUOTA))),
        }
    }
    Ok(Limits::stated(host))
}

/// What an update changes of a container's limits. A zero leaves a limit as it is, but for that of processes.
///
/// # Errors
/// It takes away a limit that a quota counts.
pub fn changes(body: &Object, quota: &Quota) -> Result<Vec<(&'static str, i64)>, Refusal> {
    let mut changes = Vec::new();
    for (field, key) in FIELDS {
        let Some(value) = body.get(field) else { continue };
        let Some(number) = value.as_i64() else { continue };
        if number < 0 || (number == 0 && field == "PidsLimit") {
            refuse_unlimited(field.to_owned(), value, key, quota)?;
        }
        if number != 0 {
            changes.push((field, number));
        }
    }
    Ok(changes)
}

fn refuse_unlimited(field: String, value: &Value, key: &'static str, quota: &Quota) -> Result<(), Refusal> {
    if !counts(quota, key) {
        return Ok(());
    }
    Err(Refusal::not_allowed(field, value, key).hint("it takes the limit away that every container has to have"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::Total;

    fn quota() -> Quota {
        let total = |all, default| Some(Total { all, default });
        Quota { memory: total(1000, 100), cpus: total(4 * NANO, NANO / 2), pids: total(50, 5), ..Quota::default() }
    }

    fn host(fields: &[(&str, i64)]) -> Object {
        fields.iter().map(|(field, number)| ((*field).to_owned(), Value::from(*number))).collect()
    }

    #[test]
    fn what_states_no_limit_gets_one() {
        let mut bare = host(&[("Memory", 0)]);
        let limits = impose(&mut bare, &quota());
        assert_eq!(limits, Ok(Limits { memory: 100, cpus: NANO / 2, pids: 5 }));
        assert_eq!(bare, host(&[("Memory", 100), ("PidsLimit", 5), ("NanoCpus", 500_000_000)]));
        let stated = [("Memory", 7), ("PidsLimit", 8), ("CpuQuota", 150_000)];
        let mut own = host(&stated);
        assert_eq!(impose(&mut own, &quota()), Ok(Limits { memory: 7, cpus: 1_500_000_000, pids: 8 }));
        assert_eq!(own, host(&stated));
        let mut period = host(&[("CpuPeriod", 50_000), ("Memory", 7), ("PidsLimit", 8)]);
        assert_eq!(impose(&mut period, &quota()).map(|limits| limits.cpus), Ok(NANO / 2));
        assert_eq!(period.get("CpuQuota").and_then(Value::as_i64), Some(25_000));
        let mut free = host(&[]);
        assert_eq!(impose(&mut free, &Quota::default()), Ok(Limits::default()));
        assert_eq!(free, host(&[]));
    }

    #[test]
    fn no_limit_at_all_cannot_be_had() {
        for (field, number) in [("Memory", -1), ("PidsLimit", -1), ("CpuQuota", -1), ("NanoCpus", -1)] {
            assert!(impose(&mut host(&[(field, number)]), &quota()).is_err(), "{field}");
            assert!(changes(&host(&[(field, number)]), &quota()).is_err(), "{field}");
            assert_eq!(impose(&mut host(&[(field, number)]), &Quota::default()), Ok(Limits::default()), "{field}");
        }
        assert!(changes(&host(&[("PidsLimit", 0)]), &quota()).is_err());
        assert_eq!(changes(&host(&[("Memory", 0), ("CpuQuota", 9)]), &quota()), Ok(vec![("CpuQuota", 9)]));
    }

    #[test]
    fn a_container_without_limits_counts_as_one_with_the_usual() {
        let old = Limits { memory: 0, cpus: 1, pids: 0 };
        assert_eq!(old.counted(&quota()), Limits { memory: 100, cpus: 1, pids: 5 });
        assert_eq!(old.counted(&Quota::default()), old);
        assert_eq!(Limits::stated(&host(&[("CpuQuota", 1), ("CpuPeriod", 3)])).cpus, 333_333_334);
        assert_eq!(Limits::stated(&host(&[("Memory", -1)])).memory, 0);
    }
}
