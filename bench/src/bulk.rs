//! Streams: bulk in each direction, hijacked connections, followed logs.

use std::io::Result;
use std::path::Path;
use std::time::{Duration, Instant};

use futures_util::future::try_join;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::archive;
use crate::clock;
use crate::engine::world::CONTAINER;
use crate::load::{cpu_of, micros, percentile};
use crate::target::Target;
use crate::wire::{Framing, Wire, bad};

const PIECE: usize = 32 * 1024;
const GIB: f64 = (1u64 << 30) as f64;
const MIB: f64 = (1u64 << 20) as f64;

/// MiB per second, CPU seconds per GiB, and the most memory held meanwhile in KiB.
async fn rate(target: &Target, bytes: u64, work: impl Future<Output = Result<()>>) -> Result<Vec<f64>> {
    target.process.forget_peak()?;
    let (took, cpu) = cpu_of(target, async {
        let began = Instant::now();
        work.await?;
        Ok(began.elapsed())
    })
    .await?;
    let bytes = bytes as f64;
    Ok(vec![bytes / MIB / took.as_secs_f64(), cpu.as_secs_f64() / bytes * GIB, target.process.peak()?])
}

pub async fn down(target: &Target, bulk: u64) -> Result<Vec<f64>> {
    rate(target, bulk, async {
        let mut wire = ask(&target.socket, "GET", "export", "").await?;
        let framing = expect(&mut wire, 200).await?;
        let got = wire.body(framing, |_| ()).await?;
        if got != bulk { Err(bad(format!("an export of {got} bytes"))) } else { Ok(()) }
    })
    .await
}

pub async fn up(target: &Target, bulk: u64) -> Result<Vec<f64>> {
    rate(target, bulk, async {
        let headers = "Content-Type: application/x-tar\r\nTransfer-Encoding: chunked\r\n";
        let mut wire = ask(&target.socket, "PUT", "archive?path=%2Fw", headers).await?;
        let sent = send_archive(&mut wire, bulk).await;
        // An answer explains more than a send that failed.
        expect(&mut wire, 200).await?;
        sent
    })
    .await
}

async fn send_archive(wire: &mut Wire, bulk: u64) -> Result<()> {
    wire.send(&archive::frame(&archive::header(bulk))).await?;
    let piece = archive::frame(&vec![0; PIECE]);
    for _ in 0..bulk / PIECE as u64 {
        wire.send(&piece).await?;
    }
    wire.send(&archive::frame(&archive::end())).await?;
    wire.send(b"0\r\n\r\n").await
}

/// A hijacked connection, full both ways; half of `bulk` in each.
pub async fn both_ways(target: &Target, bulk: u64) -> Result<Vec<f64>> {
    rate(target, bulk, async {
        let mut wire = attach(&target.socket).await?;
        let (mut read, mut write, ahead) = wire.split();
        let piece = vec![b'x'; PIECE];
        let pieces = bulk / 2 / PIECE as u64;
        let send = async {
            for _ in 0..pieces {
                write.write_all(&piece).await?;
            }
            write.shutdown().await
        };
        let receive = async {
            let mut buffer = vec![0; 64 * 1024];
            let mut got = ahead.len() as u64;
            loop {
                match read.read(&mut buffer).await? {
                    0 => return Ok(got),
                    length => got += length as u64,
                }
            }
        };
        let ((), got) = try_join(send, receive).await?;
        if got != pieces * PIECE as u64 { Err(bad(format!("an echo of {got} bytes"))) } else { Ok(()) }
    })
    .await
}

/// p50 and p99 of a 64-byte round trip, and CPU time for each, in microseconds.
pub async fn echo(target: &Target, time: Duration) -> Result<Vec<f64>> {
    let mut wire = attach(&target.socket).await?;
    let until = Instant::now() + time;
    let (mut trips, cpu) = cpu_of(target, async {
        let mut trips = Vec::new();
        while Instant::now() < until {
            let began = Instant::now();
            ping_pong(&mut wire).await?;
            trips.push(began.elapsed());
        }
        Ok(trips)
    })
    .await?;
    let each = micros(cpu) / trips.len() as f64;
    Ok(vec![micros(percentile(&mut trips, 50)), micros(percentile(&mut trips, 99)), each])
}

pub async fn ping_pong(wire: &mut Wire) -> Result<()> {
    let (mut read, mut write, _) = wire.split();
    let sent = [7; 64];
    let mut got = [0; 64];
    write.write_all(&sent).await?;
    read.read_exact(&mut got).await?;
    if got == sent { Ok(()) } else { Err(bad("another echo than what was sent".into())) }
}

/// p50 and p99 of the way of a followed log's line from the engine to the client, and CPU time for each, in
/// microseconds.
pub async fn log_line(target: &Target, time: Duration) -> Result<Vec<f64>> {
    let mut wire = ask(&target.socket, "GET", "logs?follow=1&stdout=1", "").await?;
    expect(&mut wire, 200).await?;
    let until = Instant::now() + time;
    let before = target.process.cpu()?;
    let mut waits = Vec::new();
    while Instant::now() < until {
        let line = wire.chunk().await?;
        let arrived = clock::now();
        let text = line.get(8..).and_then(|text| std::str::from_utf8(text).ok()).unwrap_or_default();
        let sent = text.trim().parse().map_err(|_| bad(format!("log line `{}`", text.escape_debug())))?;
        waits.push(arrived.saturating_sub(Duration::from_nanos(sent)));
    }
    let each = micros(target.process.cpu()? - before) / waits.len() as f64;
    Ok(vec![micros(percentile(&mut waits, 50)), micros(percentile(&mut waits, 99)), each])
}

/// An attached stream, hijacked.
pub async fn attach(socket: &Path) -> Result<Wire> {
    let headers = "Connection: Upgrade\r\nUpgrade: tcp\r\nContent-Length: 0\r\n";
    let mut wire = ask(socket, "POST", "attach?stdin=1&stdout=1&stream=1", headers).await?;
    expect(&mut wire, 101).await?;
    Ok(wire)
}

async fn ask(socket: &Path, method: &str, what: &str, headers: &str) -> Result<Wire> {
    let mut wire = Wire::connect(socket).await?;
    let line = format!("{method} /v1.47/containers/{CONTAINER}/{what} HTTP/1.1\r\nHost: docker\r\n{headers}\r\n");
    wire.send(line.as_bytes()).await?;
    Ok(wire)
}

async fn expect(wire: &mut Wire, status: u16) -> Result<Framing> {
    let head = wire.head().await?.ok_or_else(|| bad("connection closed without an answer".into()))?;
    let framing = head.framing.unwrap_or(Framing::ToEnd);
    if head.status()? == status {
        return Ok(framing);
    }
    let mut body = Vec::new();
    wire.body(framing, |piece| body.extend_from_slice(piece)).await?;
    Err(bad(format!("`{}`: {}", head.line, String::from_utf8_lossy(&body))))
}
