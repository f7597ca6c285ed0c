//! Requests in a loop: how many, how fast, and what they cost the proxy.

use std::cell::RefCell;
use std::io::Result;
use std::time::{Duration, Instant};

use futures_util::future::try_join_all;

use crate::target::{Kind, Target};
use crate::wire::{Framing, Wire, bad};

pub const PING: &[u8] = b"GET /_ping HTTP/1.1\r\nHost: docker\r\nUser-Agent: Docker-Client/28.2.2 (linux)\r\n\r\n";
/// Left to a process to finish what it does behind an answer.
const SETTLE: Duration = Duration::from_millis(10);

#[derive(Clone, Copy)]
pub enum Connections {
    Kept(usize),
    New,
}

pub type Check = fn(Kind, &Answer) -> std::result::Result<(), String>;

pub struct Requests {
    pub request: Vec<u8>,
    pub connections: Connections,
    pub check: Check,
}

pub struct Answer {
    pub status: u16,
    pub body: Vec<u8>,
}

/// CPU time that `target` needs for `work`.
pub async fn cpu_of<T>(target: &Target, work: impl Future<Output = Result<T>>) -> Result<(T, Duration)> {
    tokio::time::sleep(SETTLE).await;
    let before = target.process.cpu()?;
    let done = work.await?;
    tokio::time::sleep(SETTLE).await;
    Ok((done, target.process.cpu()? - before))
}

impl Requests {
    /// Rate per second, p50, p99 and CPU time per request in microseconds.
    pub async fn measure(&self, target: &Target, time: Duration) -> Result<Vec<f64>> {
        let waits = RefCell::new(Vec::new());
        let until = Instant::now() + SETTLE + time;
        let (took, cpu) = cpu_of(target, async {
            let began = Instant::now();
            let width = match self.connections {
                Connections::Kept(width) => width,
                Connections::New => 1,
            };
            try_join_all((0..width).map(|_| self.client(target, until, &waits))).await?;
            Ok(began.elapsed())
        })
        .await?;
        let mut waits = waits.into_inner();
        let count = waits.len() as f64;
        let rate = count / took.as_secs_f64();
        Ok(vec![rate, micros(percentile(&mut waits, 50)), micros(percentile(&mut waits, 99)), micros(cpu) / count])
    }

    async fn client(&self, target: &Target, until: Instant, waits: &RefCell<Vec<Duration>>) -> Result<()> {
        let mut kept = None;
        let mut first = None;
        loop {
            let began = Instant::now();
            let mut wire = match kept.take() {
                Some(wire) => wire,
                None => Wire::connect(&target.socket).await?,
            };
            // The first answer is read whole and checked; the others must then look the same.
            let mut body = Vec::new();
            let (status, length, closes) = answer(&mut wire, &self.request, |piece| {
                if first.is_none() {
                    body.extend_from_slice(piece);
                }
            })
            .await?;
            waits.borrow_mut().push(began.elapsed());
            match first {
                None => {
                    let answer = Answer { status, body };
                    (self.check)(target.kind, &answer)
                        .map_err(|why| bad(format!("{why}: {status} {}", shown(&answer.body))))?;
                    first = Some((status, length));
                }
                Some(first) if first == (status, length) => {}
                Some(first) => {
                    return Err(bad(format!("an answer of {status} and {length} bytes after {first:?}")));
                }
            }
            if !closes && matches!(self.connections, Connections::Kept(_)) {
                kept = Some(wire);
            }
            if Instant::now() >= until {
                return Ok(());
            }
        }
    }
}

/// Sends one request and reads its answer: status, length of the body, whether the connection ends.
pub async fn answer(wire: &mut Wire, request: &[u8], piece: impl FnMut(&[u8])) -> Result<(u16, u64, bool)> {
    wire.send(request).await?;
    let head = wire.head().await?.ok_or_else(|| bad("connection closed without an answer".into()))?;
    let length = wire.body(head.framing.unwrap_or(Framing::ToEnd), piece).await?;
    Ok((head.status()?, length, head.closes))
}

fn shown(body: &[u8]) -> String {
    String::from_utf8_lossy(&body[..body.len().min(160)]).into_owned()
}

pub fn percentile(waits: &mut [Duration], percent: usize) -> Duration {
    waits.sort_unstable();
    waits.get(waits.len() * percent / 100).copied().unwrap_or_default()
}

pub fn micros(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e6
}
