//! Clients that go away, and the end of the server.

use super::fake::{Message, OWN, Peer, fine, guard_alone, guarded, json, run, until};
use sockguard::owner::{AGENT_LABEL, BINDS_LABEL, IMAGE_LABEL, OWNER_LABEL, Owner, SEAL_LABEL};
use std::time::Duration;

async fn follow(_: Message, mut peer: Peer) -> Option<Peer> {
    peer.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nline\r\n").await;
    peer.rest().await;
    None
}

#[test]
fn when_a_client_goes_away_the_engines_side_goes_away() {
    run(async || {
        let setup = guarded(follow).await;
        let mut clients = Vec::new();
        for _ in 0..5 {
            let mut client = setup.client().await;
            client.send("GET /containers/own/logs?follow=1&stdout=1 HTTP/1.1\r\nHost: d\r\n\r\n").await;
            client.until("line").await.unwrap();
            clients.push(client);
        }
        assert!(setup.fake().open.get() >= 5);
        drop(clients);
        // One may be kept for the next request: the one on which the container was looked up.
        until(|| setup.fake().open.get() <= 1).await;
    });
}

#[test]
fn when_a_client_goes_away_before_the_answer_begins_the_engines_side_goes_away() {
    run(async || {
        let setup = guarded(async |_, mut peer: Peer| {
            peer.rest().await;
            None
        })
        .await;
        let mut client = setup.client().await;
        client.send("POST /containers/own/wait HTTP/1.1\r\nHost: d\r\n\r\n").await;
        until(|| setup.seen().iter().any(|line| line.contains("/wait"))).await;
        let open = setup.fake().open.get();
        drop(client);
        until(|| setup.fake().open.get() < open).await;
    });
}

/// The image's name stands for another's by the time the container is made, which nobody has judged. It has a volume, so it
/// is looked at before anybody hears of it.
#[test]
fn a_creation_is_confirmed_to_its_end_when_its_client_goes_away() {
    run(async || {
        let (judged, other, made) = ("1".repeat(64), "2".repeat(64), "c".repeat(64));
        let gone = std::rc::Rc::new(tokio::sync::Notify::new());
        let go_on = std::rc::Rc::clone(&gone);
        let setup = guarded(move |request, mut peer: Peer| {
            let gone = std::rc::Rc::clone(&go_on);
            let image = format!(r#"{{"Id":"sha256:{judged}","RepoTags":["name:latest"],"Config":{{}}}}"#);
            let container =
                format!(r#"{{"Id":"{made}","Image":"sha256:{other}","Config":{{}},"HostConfig":{{}},"Mounts":[]}}"#);
            let answer = match request.first_line() {
                line if line.starts_with("POST /containers/create") => {
                    json("201 Created", &format!(r#"{{"Id":"{made}"}}"#))
                }
                line if line.starts_with("DELETE") => json("204 No Content", ""),
                line if line.starts_with(&format!("GET /containers/{made}/json")) => json("200 OK", &container),
                line if line.starts_with("GET /images/") => json("200 OK", &image),
                line if line.contains("/wait") => String::new(),
                line => unreachable!("{line}"),
            };
            async move {
                match request.first_line() {
                    line if line.contains("/wait") => {
                        peer.rest().await;
                        return None;
                    }
                    line if line.starts_with("POST") => gone.notified().await,
                    _ => (),
                }
                peer.send(answer).await;
                Some(peer)
            }
        })
        .await;
        let (mut client, mut later) = (setup.client().await, setup.client().await);
        let head = "POST /containers/create HTTP/1.1\r\nHost: d\r\nContent-Type: application/json";
        client
            .send(format!("{head}\r\nContent-Length: 36\r\n\r\n{{\"Image\":\"name\",\"Volumes\":{{\"/v\":{{}}}}}}"))
            .await;
        until(|| setup.seen().iter().any(|line| line.starts_with("POST"))).await;
        later.send("POST /containers/own/wait HTTP/1.1\r\nHost: d\r\n\r\n").await;
        until(|| setup.seen().iter().any(|line| line.contains("/wait"))).await;
        // That the later one's client has gone is noticed after the creation's, and has nothing to be done for.
        let open = setup.fake().open.get();
        drop((client, later));
        until(|| setup.fake().open.get() < open).await;
        gone.notify_one();
        until(|| setup.seen().iter().any(|line| line.starts_with(&format!("DELETE /containers/{}", "c".repeat(64)))))
            .await;
    });
}

/// What mounts nothing is looked at when it is used for the first time. Of an image that nobody has judged, it inherits what
/// is blanked otherwise.
#[test]
fn a_container_of_another_image_than_the_judged_one_is_used_only_if_that_image_brings_nothing_along() {
    run(async || {
        for (config, found) in [
            (r#"{}"#.to_owned(), true),
            (r#"{"Labels":{"a":"b"},"ExposedPorts":{"80/tcp":{}}}"#.to_owned(), true),
            (format!(r#"{{"Labels":{{"{OWNER_LABEL}":"me","{SEAL_LABEL}":"","com.amazonaws.ecs.x":""}}}}"#), true),
            (format!(r#"{{"Labels":{{"{OWNER_LABEL}":"other"}}}}"#), false),
            (format!(r#"{{"Labels":{{"{SEAL_LABEL}":"x"}}}}"#), false),
            (format!(r#"{{"Labels":{{"{AGENT_LABEL}":"{OWN}"}}}}"#), false),
            (format!(r#"{{"Labels":{{"{BINDS_LABEL}":"{{}}"}}}}"#), false),
            (r#"{"Labels":{"com.amazonaws.ecs.task-arn":"x"}}"#.to_owned(), false),
            (r#"{"Volumes":{"/v":{}}}"#.to_owned(), false),
            (r#"{"ExposedPorts":{"1-65000/tcp":{}}}"#.to_owned(), false),
        ] {
            let (judged, other, made) = ("1".repeat(64), "2".repeat(64), "c".repeat(64));
            let seal = Owner::new("me").unwrap().seal().to_owned();
            let labels =
                format!(r#"{{"{OWNER_LABEL}":"me","{SEAL_LABEL}":"{seal}","{IMAGE_LABEL}":"sha256:{judged}"}}"#);
            let container = format!(r#"{{"Id":"{made}","Image":"sha256:{other}","Config":{{"Labels":{labels}}}}}"#);
            let image = format!(r#"{{"Id":"sha256:{other}","RepoTags":["name:latest"],"Config":{config}}}"#);
            let setup = guarded(move |request, mut peer: Peer| {
                let answer = match request.first_line() {
                    line if line.starts_with("GET /containers/") => json("200 OK", &container),
                    line if line.starts_with("GET /images/") => json("200 OK", &image),
                    line => unreachable!("{line}"),
                };
                async move {
                    peer.send(answer).await;
                    Some(peer)
                }
            })
            .await;
            let mut client = setup.client().await;
            client.send("GET /containers/raced/json HTTP/1.1\r\nHost: d\r\n\r\n").await;
            let answer = client.message().await.unwrap();
            assert_eq!(answer.status(), if found { "200" } else { "404" }, "{config}");
        }
    });
}

#[test]
fn a_client_that_only_ends_its_own_side_is_answered() {
    run(async || {
        let setup = guarded(async |_, mut peer: Peer| {
            peer.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nline\r\n").await;
            tokio::time::sleep(Duration::from_millis(1500)).await;
            peer.send("4\r\nlast\r\n0\r\n\r\n").await;
            None
        })
        .await;
        let mut client = setup.client().await;
        client.send("GET /containers/own/logs?follow=1&stdout=1 HTTP/1.1\r\nHost: d\r\n\r\n").await;
        tokio::io::AsyncWriteExt::shutdown(&mut client.stream).await.unwrap();
        let before = cpu();
        let all = String::from_utf8(client.rest().await).unwrap();
        assert!(all.contains("line") && all.ends_with("4\r\nlast\r\n0\r\n\r\n"), "{all}");
        assert!(cpu() - before < Duration::from_millis(300), "waiting was busy");
    });
}

fn cpu() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    Duration::new(u64::try_from(time.tv_sec).unwrap(), u32::try_from(time.tv_nsec).unwrap())
}

#[test]
fn a_client_that_breaks_off_its_upload_breaks_it_off_at_the_engine() {
    run(async || {
        let ended = std::rc::Rc::new(std::cell::RefCell::new(String::new()));
        let told = std::rc::Rc::clone(&ended);
        let setup = guarded(move |_, mut peer: Peer| {
            let told = std::rc::Rc::clone(&told);
            async move {
                *told.borrow_mut() = String::from_utf8(peer.rest().await).unwrap();
                None
            }
        })
        .await;
        let mut client = setup.client().await;
        client.send("PUT /containers/own/archive?path=/ HTTP/1.1\r\nHost: d\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nfirst\r\n").await;
        tokio::time::sleep(Duration::from_millis(100)).await;
        drop(client);
        until(|| !ended.borrow().is_empty()).await;
        assert!(ended.borrow().contains("first") && !ended.borrow().contains("0\r\n\r\n"), "{:?}", ended.borrow());
    });
}

#[test]
fn at_the_end_running_requests_are_answered_and_followed_streams_are_cut() {
    run(async || {
        let mut setup = guard_alone(Duration::from_secs(3)).await;
        setup.start(async |request: Message, mut peer: Peer| {
            if request.head.contains("logs") {
                return follow(request, peer).await;
            }
            tokio::time::sleep(Duration::from_millis(300)).await;
            peer.send("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nOK").await;
            Some(peer)
        });
        let (mut idle, mut slow, mut stream) = (setup.client().await, setup.client().await, setup.client().await);
        slow.send("GET /_ping HTTP/1.1\r\nHost: d\r\n\r\n").await;
        stream.send("GET /containers/own/logs?follow=1&stdout=1 HTTP/1.1\r\nHost: d\r\n\r\n").await;
        stream.until("line").await.unwrap();
        setup.stop.take().unwrap().send(()).unwrap();
        let begun = std::time::Instant::now();
        assert!(idle.rest().await.is_empty());
        assert!(begun.elapsed() < Duration::from_millis(2500));
        assert_eq!(slow.message().await.unwrap().body, "OK");
        assert_eq!(String::from_utf8(stream.rest().await).unwrap(), "\r\n");
        assert!(begun.elapsed() > Duration::from_millis(2500));
        (&mut setup.server).await.unwrap().unwrap();
        assert!(tokio::net::UnixStream::connect(&setup.socket).await.is_err());
    });
}

#[test]
fn an_idle_server_ends_at_once() {
    run(async || {
        let mut setup = guarded(fine).await;
        let mut client = setup.client().await;
        client.send("GET /_ping HTTP/1.1\r\nHost: d\r\n\r\n").await;
        client.message().await.unwrap();
        let begun = std::time::Instant::now();
        setup.stop.take().unwrap().send(()).unwrap();
        (&mut setup.server).await.unwrap().unwrap();
        // It does not wait the ten seconds that it gives requests.
        assert!(begun.elapsed() < Duration::from_secs(9), "{:?}", begun.elapsed());
    });
}

#[test]
fn many_connections_at_once_are_served() {
    run(async || {
        let setup = guarded(fine).await;
        let mut clients = Vec::new();
        for _ in 0..300 {
            clients.push(setup.client().await);
        }
        for client in &mut clients {
            client.send("GET /_ping HTTP/1.1\r\nHost: d\r\n\r\n").await;
        }
        for client in &mut clients {
            assert_eq!(client.message().await.unwrap().body, "OK");
        }
    });
}
