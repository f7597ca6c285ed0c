//! The floor that sockguard is measured against: copies bytes between two sockets and looks at nothing.

use std::io::Result;
use std::path::{Path, PathBuf};

use futures_util::future::try_join;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{UnixListener, UnixStream};

const BUFFER: usize = 64 * 1024;

pub fn run(socket: PathBuf, upstream: PathBuf, threads: usize) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(threads).enable_all().build()?;
    // Spawned, so that accepting happens on the workers too and not on a thread of its own.
    runtime.block_on(async move { tokio::spawn(accept(socket, upstream)).await })?
}

async fn accept(socket: PathBuf, upstream: PathBuf) -> Result<()> {
    let listener = UnixListener::bind(socket)?;
    loop {
        let (client, _) = listener.accept().await?;
        let upstream = upstream.clone();
        tokio::spawn(async move {
            // A client that goes away is no failure of the relay.
            let _ = join(client, &upstream).await;
        });
    }
}

async fn join(client: UnixStream, upstream: &Path) -> Result<()> {
    let engine = UnixStream::connect(upstream).await?;
    let (from_client, to_client) = client.into_split();
    let (from_engine, to_engine) = engine.into_split();
    try_join(copy(from_client, to_engine), copy(from_engine, to_client)).await?;
    Ok(())
}

/// Dropping the write half at the end passes the half-close on.
async fn copy(mut from: OwnedReadHalf, mut to: OwnedWriteHalf) -> Result<()> {
    let mut buffer = vec![0; BUFFER];
    loop {
        let length = from.read(&mut buffer).await?;
        if length == 0 {
            return Ok(());
        }
        to.write_all(&buffer[..length]).await?;
    }
}
