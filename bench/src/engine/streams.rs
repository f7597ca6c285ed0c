//! The fake engine's long answers: export, upload, a followed log, a hijacked echo.

use std::io::Result;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::archive::frame;
use crate::clock;
use crate::wire::{Head, Wire};

/// What `io.Copy` in the real engine writes at once.
const CHUNK: u64 = 32 * 1024;
const LOG_PAUSE: Duration = Duration::from_millis(2);

pub async fn export(wire: &mut Wire, bulk: u64) -> Result<()> {
    wire.send(b"HTTP/1.1 200 OK\r\nContent-Type: application/octet-stream\r\nTransfer-Encoding: chunked\r\n\r\n")
        .await?;
    let chunk = frame(&vec![b'x'; CHUNK as usize]);
    for _ in 0..bulk / CHUNK {
        wire.send(&chunk).await?;
    }
    wire.send(b"0\r\n\r\n").await
}

pub async fn sink(wire: &mut Wire, head: &Head) -> Result<u64> {
    match head.framing {
        Some(framing) => wire.body(framing, |_| ()).await,
        None => Ok(0),
    }
}

/// One line every pause, each saying when it was sent, until the reader goes away.
pub async fn logs(wire: &mut Wire) -> Result<()> {
    let kind = "application/vnd.docker.multiplexed-stream";
    let head = format!("HTTP/1.1 200 OK\r\nContent-Type: {kind}\r\nTransfer-Encoding: chunked\r\n\r\n");
    wire.send(head.as_bytes()).await?;
    loop {
        tokio::time::sleep(LOG_PAUSE).await;
        let line = format!("{}\n", clock::now().as_nanos());
        let mut message = vec![1, 0, 0, 0, 0, 0, 0, line.len() as u8];
        message.extend_from_slice(line.as_bytes());
        wire.send(&frame(&message)).await?;
    }
}

pub async fn echo(wire: &mut Wire) -> Result<()> {
    wire.send(
        b"HTTP/1.1 101 UPGRADED\r\nContent-Type: application/vnd.docker.raw-stream\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n\r\n",
    )
    .await?;
    let (mut read, mut write, ahead) = wire.split();
    write.write_all(&ahead).await?;
    let mut buffer = vec![0; 64 * 1024];
    loop {
        let length = read.read(&mut buffer).await?;
        if length == 0 {
            return write.shutdown().await;
        }
        write.write_all(&buffer[..length]).await?;
    }
}
