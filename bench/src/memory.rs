//! What a process holds: idle, with idle connections, with open streams, with a long list passing.

use std::io::Result;

use crate::bulk::{attach, ping_pong};
use crate::cases::LIST;
use crate::load::{PING, answer};
use crate::target::{Kind, Place};
use crate::wire::{Wire, bad};

const MANY: usize = 1000;

/// All in KiB: at rest; with many idle connections; with many open streams; for each of these; the most that one long
/// list adds.
pub async fn measure(place: &Place, kind: Kind) -> Result<Vec<f64>> {
    let target = place.start(kind).await?;
    let idle = target.process.resident()?;

    let mut connections = Vec::new();
    for _ in 0..MANY {
        let mut wire = Wire::connect(&target.socket).await?;
        answer(&mut wire, PING, |_| ()).await?;
        connections.push(wire);
    }
    let connected = target.process.resident()?;
    drop(connections);
    drop(target);

    // A process of its own, so that what the connections left behind does not count.
    let target = place.start(kind).await?;
    drop(attach(&target.socket).await?);
    let before = target.process.resident()?;
    let mut streams = Vec::new();
    for _ in 0..MANY {
        let mut wire = attach(&target.socket).await?;
        ping_pong(&mut wire).await?;
        streams.push(wire);
    }
    let attached = target.process.resident()?;
    for wire in &mut streams {
        ping_pong(wire).await?;
    }
    drop(streams);
    drop(target);

    let target = place.start(kind).await?;
    let before_list = target.process.resident()?;
    target.process.forget_peak()?;
    let mut wire = Wire::connect(&target.socket).await?;
    let (status, _, _) = answer(&mut wire, LIST.as_bytes(), |_| ()).await?;
    if status != 200 {
        return Err(bad(format!("the list was answered {status}")));
    }
    let listed = target.process.peak()? - before_list;
    Ok(vec![idle, connected, attached, (attached - before) / MANY as f64, listed])
}

/// Milliseconds from the start of a fresh process to its first answer.
pub async fn start_up(place: &Place, kind: Kind) -> Result<Vec<f64>> {
    Ok(vec![place.start(kind).await?.start_up.as_secs_f64() * 1e3])
}
