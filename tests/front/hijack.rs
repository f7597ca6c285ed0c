//! Connections that leave HTTP.

use super::fake::{EXEC, Message, OWN, PATIENCE, Peer, Setup, guarded, json, run, until};
use std::cell::RefCell;
use std::rc::Rc;
use std::time::Duration;
use tokio::io::AsyncWriteExt;

const ATTACH: &str = "POST /v1.41/containers/own/attach?stream=1&stdin=1&stdout=1 HTTP/1.1\r\nHost: d\r\n";
const UPGRADE: &str = "Connection: Upgrade\r\nUpgrade: tcp\r\nContent-Length: 0\r\n\r\n";
const TAKEN: &str = "HTTP/1.1 101 UPGRADED\r\nContent-Type: application/vnd.docker.multiplexed-stream\r\nConnection: Upgrade\r\nUpgrade: tcp\r\nApi-Version: 1.41\r\nX-Secret: no\r\n\r\n";

/// Answers 101 after a while and echoes what comes behind it, in capitals; then says goodbye.
async fn echo(request: Message, mut peer: Peer) -> Option<Peer> {
    if request.head.contains("/_ping") {
        return super::fake::fine(request, peer).await;
    }
    tokio::time::sleep(Duration::from_millis(50)).await;
    // A direct engine loses what comes before its 101.
    assert!(peer.is_silent().await, "bytes behind the head before the 101");
    peer.send(TAKEN).await;
    loop {
        if peer.ahead.is_empty()
            && tokio::io::AsyncReadExt::read_buf(&mut peer.stream, &mut peer.ahead).await.unwrap_or(0) == 0
        {
            break;
        }
        let loud = std::mem::take(&mut peer.ahead).to_ascii_uppercase();
        if peer.stream.write_all(&loud).await.is_err() {
            break;
        }
    }
    drop(peer.stream.write_all(b"bye").await);
    None
}

#[test]
fn an_upgraded_attach_is_a_stream_both_ways_with_half_close() {
    run(async || {
        let setup = guarded(echo).await;
        let mut client = setup.client().await;
        client.send(format!("{ATTACH}{UPGRADE}")).await;
        let head = client.until("\r\n\r\n").await.unwrap();
        assert!(head.starts_with("HTTP/1.1 101 UPGRADED\r\n"), "{head}");
        assert!(
            head.contains("Connection: Upgrade\r\n")
                && head.contains("Upgrade: tcp\r\n")
                && head.contains("Api-Version: 1.41\r\n"),
            "{head}"
        );
        assert!(
            head.contains("Content-Type: application/vnd.docker.multiplexed-stream\r\n") && !head.contains("X-Secret"),
            "{head}"
        );
        client.send("hello").await;
        assert_eq!(client.exactly(5).await, b"HELLO");
        client.send("there").await;
        client.stream.shutdown().await.unwrap();
        assert_eq!(client.rest().await, b"THEREbye");
        let seen = setup.fake().seen.borrow();
        assert_eq!(
            seen[0].first_line(),
            format!("POST /v1.41/containers/{OWN}/attach?stream=1&stdin=1&stdout=1 HTTP/1.1")
        );
        assert_eq!(seen[0].header("upgrade"), Some("tcp"));
    });
}

#[test]
fn without_an_upgrade_the_old_form_is_spoken() {
    run(async || {
        let setup = guarded(echo).await;
        let mut client = setup.client().await;
        client.send(format!("{ATTACH}Content-Length: 0\r\n\r\n")).await;
        let head = client.until("\r\n\r\n").await.unwrap();
        assert!(head.starts_with("HTTP/1.1 200 OK\r\nContent-Type: application/vnd.docker.raw-stream\r\n"), "{head}");
        assert!(
            !head.contains("multiplexed") && !head.contains("Content-Length") && !head.contains("Upgrade"),
            "{head}"
        );
        client.send("hello").await;
        client.stream.shutdown().await.unwrap();
        assert_eq!(client.rest().await, b"HELLObye");
        assert_eq!(setup.fake().seen.borrow()[0].header("upgrade"), Some("tcp"));
    });
}

#[test]
fn early_input_comes_behind_the_answer() {
    run(async || {
        let setup = guarded(echo).await;
        for behind in [UPGRADE, "\r\n"] {
            let mut client = setup.client().await;
            client.send(format!("{ATTACH}{behind}early ")).await;
            client.until("\r\n\r\n").await.unwrap();
            client.send("late").await;
            client.stream.shutdown().await.unwrap();
            assert_eq!(client.rest().await, b"EARLY LATEbye");
        }
    });
}

#[test]
fn the_last_of_several_requests_may_leave_http() {
    run(async || {
        let setup = guarded(echo).await;
        let ping = "GET /_ping HTTP/1.1\r\nHost: d\r\n\r\n";
        let mut client = setup.client().await;
        client.send(ping).await;
        assert_eq!(client.message().await.unwrap().body, "OK");
        client.send(format!("{ping}{ATTACH}{UPGRADE}x")).await;
        assert_eq!(client.message().await.unwrap().body, "OK");
        client.until("\r\n\r\n").await.unwrap();
        client.stream.shutdown().await.unwrap();
        assert_eq!(client.rest().await, b"Xbye");
    });
}

#[test]
fn an_exec_starts_with_its_document_however_it_is_framed() {
    run(async || {
        let setup = guarded(echo).await;
        let body = r#"{"Detach":false,"Tty":true}"#;
        for framed in [
            format!("Content-Length: {}\r\n\r\n{body}", body.len()),
            format!("Transfer-Encoding: chunked\r\n\r\n{:x}\r\n{body}\r\n0\r\n\r\n", body.len()),
        ] {
            let mut client = setup.client().await;
            client
                .send(format!(
                    "POST /exec/{EXEC}/start HTTP/1.1\r\nHost: d\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n{framed}in"
                ))
                .await;
            client.until("\r\n\r\n").await.unwrap();
            client.stream.shutdown().await.unwrap();
            assert_eq!(client.rest().await, b"INbye");
        }
        for request in setup.fake().seen.borrow().iter() {
            assert!(request.body.contains(r#""Tty":true"#), "{}", request.body);
            assert_eq!(request.header("content-type"), Some("application/json"));
        }
    });
}

#[test]
fn a_detached_exec_is_an_ordinary_request_and_nothing_rides_behind_it() {
    run(async || {
        let setup = guarded(async |request: Message, mut peer: Peer| {
            assert_eq!(request.header("upgrade"), None);
            peer.send(json("200 OK", "")).await;
            Some(peer)
        })
        .await;
        let mut client = setup.client().await;
        let body = r#"{"Detach":true}"#;
        client.send(format!("POST /exec/{EXEC}/start HTTP/1.1\r\nHost: d\r\nConnection: Upgrade\r\nUpgrade: tcp\r\nContent-Length: {}\r\n\r\n{body}GET /secrets/x HTTP/1.1\r\nHost: d\r\n\r\nGET /nothing HTTP/1.1\r\nHost: d\r\n\r\n", body.len())).await;
        assert_eq!(client.message().await.unwrap().status(), "200");
        // What comes behind it is judged as the next requests.
        assert_eq!(client.message().await.unwrap().status(), "503");
        assert_eq!(client.message().await.unwrap().status(), "403");
        assert_eq!(setup.seen(), [format!("POST /exec/{EXEC}/start HTTP/1.1")]);
    });
}

#[test]
fn what_is_not_a_101_is_an_ordinary_answer_and_is_never_joined() {
    run(async || {
        for answer in [
            json("409 Conflict", r#"{"message":"container is not running"}"#),
            json("200 OK", r#"{"message":"nonsense"}"#),
            "HTTP/1.1 200 OK\r\nContent-Type: application/vnd.docker.raw-stream\r\n\r\n".to_owned(),
        ] {
            let raw = answer.contains("raw-stream");
            let setup = guarded(move |_, mut peer: Peer| {
                let answer = answer.clone();
                async move {
                    peer.send(answer).await;
                    if raw {
                        return None;
                    }
                    Some(peer)
                }
            })
            .await;
            let mut client = setup.client().await;
            client.send(format!("{ATTACH}{UPGRADE}")).await;
            let status = client.until("\r\n\r\n").await.unwrap();
            assert!(!status.contains("101"), "{status}");
            drop(client.stream.write_all(b"GET /nothing HTTP/1.1\r\nHost: d\r\n\r\n").await);
            tokio::time::sleep(Duration::from_millis(200)).await;
            assert_eq!(setup.seen().len(), 1, "{:?}", setup.seen());
        }
    });
}

#[test]
fn a_refused_attach_is_a_plain_answer_and_the_connection_goes_on() {
    run(async || {
        let setup = guarded(async |request: Message, mut peer: Peer| {
            if request.head.contains("foreign") {
                peer.send(json("404 Not Found", r#"{"message":"No such container: foreign"}"#)).await;
                return Some(peer);
            }
            super::fake::fine(request, peer).await
        })
        .await;
        let mut client = setup.client().await;
        client.send(format!("{}{UPGRADE}", ATTACH.replace("own", "foreign"))).await;
        let answer = client.message().await.unwrap();
        assert_eq!(answer.status(), "404");
        assert_eq!(answer.body.trim(), r#"{"message":"No such container: foreign"}"#);
        client.send("GET /_ping HTTP/1.1\r\nHost: d\r\n\r\n").await;
        assert_eq!(client.message().await.unwrap().body, "OK");
    });
}

#[test]
fn when_the_engine_ends_the_client_is_told_though_it_never_ends_its_own_side() {
    run(async || {
        let setup = guarded(async |_, mut peer: Peer| {
            peer.send(format!("{TAKEN}last words")).await;
            None
        })
        .await;
        let mut client = setup.client().await;
        client.send(format!("{ATTACH}{UPGRADE}unread input")).await;
        client.until("\r\n\r\n").await.unwrap();
        assert_eq!(client.rest().await, b"last words");
        until(|| setup.fake().open.get() <= 1).await;
    });
}

/// A guard whose engine gives this answer and never says another word: only the closing of the other side can end it. And
/// what it has heard by then.
async fn listening(answer: &'static str) -> (Setup, Rc<RefCell<Vec<u8>>>) {
    let heard = Rc::new(RefCell::new(Vec::new()));
    let told = Rc::clone(&heard);
    let setup = guarded(move |_, mut peer: Peer| {
        let told = Rc::clone(&told);
        async move {
            peer.send(answer).await;
            tokio::time::sleep(Duration::from_millis(300)).await;
            let all = peer.rest().await;
            told.borrow_mut().extend_from_slice(&all);
            None
        }
    })
    .await;
    (setup, heard)
}

#[test]
fn what_a_killed_client_had_sent_arrives_and_then_the_engines_side_closes() {
    run(async || {
        let (setup, heard) = listening(TAKEN).await;
        let mut client = setup.client().await;
        client.send(format!("{ATTACH}{UPGRADE}")).await;
        client.until("\r\n\r\n").await.unwrap();
        client.send(vec![b'x'; 100_000]).await;
        drop(client);
        until(|| setup.fake().open.get() <= 1).await;
        assert_eq!(heard.borrow().len(), 100_000);
    });
}

#[test]
fn a_client_that_ends_its_side_and_then_vanishes_leaks_nothing() {
    run(async || {
        let setup = guarded(async |_, mut peer: Peer| {
            peer.send(TAKEN).await;
            let closed = crate::fake::hung_up(&peer.stream);
            tokio::time::timeout(PATIENCE, closed).await.expect("the engine's side stays open");
            None
        })
        .await;
        let mut client = setup.client().await;
        client.send(format!("{ATTACH}{UPGRADE}")).await;
        client.until("\r\n\r\n").await.unwrap();
        client.stream.shutdown().await.unwrap();
        tokio::time::sleep(Duration::from_millis(200)).await;
        assert_eq!(setup.fake().open.get(), 2);
        drop(client);
        until(|| setup.fake().open.get() <= 1).await;
    });
}

#[test]
fn much_goes_both_ways_at_once_unchanged() {
    run(async || {
        let setup = guarded(echo).await;
        let mut client = setup.client().await;
        client.send(format!("{ATTACH}{UPGRADE}")).await;
        client.until("\r\n\r\n").await.unwrap();
        let sent: Vec<u8> = (0..3_000_000_u32).map(|n| b'a' + u8::try_from(n % 23).unwrap()).collect();
        let expected = [sent.to_ascii_uppercase(), b"bye".to_vec()].concat();
        let (mut read, mut write) = client.stream.split();
        let mut got = Vec::new();
        let sending = async {
            write.write_all(&sent).await.unwrap();
            write.shutdown().await.unwrap();
        };
        let ((), result) = tokio::join!(sending, tokio::io::AsyncReadExt::read_to_end(&mut read, &mut got));
        result.unwrap();
        assert!(got == expected, "{} bytes", got.len());
    });
}

#[test]
fn a_websocket_is_joined_with_its_own_handshake() {
    run(async || {
        let setup = guarded(async |request: Message, mut peer: Peer| {
            assert_eq!(request.header("upgrade"), Some("websocket"));
            assert_eq!(request.header("sec-websocket-key"), Some("dGhlIHNhbXBsZSBub25jZQ=="));
            assert_eq!(request.header("sec-websocket-extensions"), None);
            peer.send("HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n").await;
            let heard = peer.exactly(3).await;
            peer.send(heard).await;
            None
        })
        .await;
        let mut client = setup.client().await;
        client.send("GET /containers/own/attach/ws?stream=1 HTTP/1.1\r\nHost: d\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Extensions: permessage-deflate\r\n\r\n").await;
        let head = client.until("\r\n\r\n").await.unwrap();
        assert!(
            head.starts_with("HTTP/1.1 101 Switching Protocols\r\n") && head.contains("s3pPLMBiTxaQ9kYGzzhZRbK+xOo="),
            "{head}"
        );
        client.send("abc").await;
        assert_eq!(client.rest().await, b"abc");
        let mut client = setup.client().await;
        client.send("GET /containers/own/attach/ws?stream=1 HTTP/1.1\r\nHost: d\r\n\r\n").await;
        assert_eq!(client.message().await.unwrap().status(), "400");
    });
}

const LOGS: &str = "GET /containers/own/logs?follow=1&stdout=1 HTTP/1.1\r\nHost: d\r\n\r\n";
const LINES: &str = "HTTP/1.1 200 OK\r\nApi-Version: 1.41\r\nContent-Type: application/vnd.docker.multiplexed-stream\r\nTransfer-Encoding: chunked\r\nX-Secret: no\r\n\r\n";

#[test]
fn followed_logs_come_as_the_engine_cuts_them_and_end_with_the_connection() {
    run(async || {
        let setup = guarded(async |request: Message, mut peer: Peer| {
            assert_eq!(request.header("connection"), Some("close"));
            // Its head in pieces, and the beginning of a chunk in the last of them.
            let (status, headers) = LINES.trim_end().split_once("\r\n").unwrap();
            for piece in [status, "\r\n", headers, "\r\n", "\r\n5\r\nfi"] {
                peer.send(piece).await;
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            peer.send("rst\r\n").await;
            tokio::time::sleep(Duration::from_millis(50)).await;
            peer.send("6;x=y\r\nsecond\r\n0\r\n\r\n").await;
            None
        })
        .await;
        let mut client = setup.client().await;
        client.send("GET /nothing HTTP/1.1\r\nHost: d\r\n\r\n").await;
        assert_eq!(client.message().await.unwrap().status(), "403");
        client.send(LOGS).await;
        let head = client.until("\r\n\r\n").await.unwrap();
        assert!(head.starts_with("HTTP/1.1 200 OK\r\n") && !head.contains("X-Secret"), "{head}");
        for line in ["Connection: close", "Transfer-Encoding: chunked", "Api-Version: 1.41", "multiplexed-stream"] {
            assert!(head.contains(&format!("{line}\r\n")), "{head}");
        }
        assert_eq!(client.rest().await, b"5\r\nfirst\r\n6;x=y\r\nsecond\r\n0\r\n\r\n");
        until(|| setup.fake().open.get() <= 1).await;
    });
}

#[test]
fn what_comes_behind_a_request_for_followed_logs_reaches_nobody() {
    run(async || {
        let (setup, heard) = listening(LINES).await;
        let smuggled = "POST /containers/foreign/kill HTTP/1.1\r\nHost: d\r\n\r\n";
        let mut client = setup.client().await;
        client.send(format!("{LOGS}{smuggled}")).await;
        client.until("\r\n\r\n").await.unwrap();
        client.send(smuggled).await;
        client.send(vec![b'x'; 50_000]).await;
        assert!(client.is_silent().await);
        drop(client);
        until(|| setup.fake().open.get() <= 1).await;
        assert_eq!(*heard.borrow(), b"");
        assert_eq!(setup.seen().len(), 1, "{:?}", setup.seen());
    });
}

#[test]
fn followed_logs_that_are_no_chunks_are_an_ordinary_answer() {
    run(async || {
        let missing = json("404 Not Found", &format!(r#"{{"message":"No such container: {OWN}"}}"#));
        let cut = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n";
        for (answer, status, body) in [
            (missing.as_str(), "404", r#"{"message":"No such container: own"}"#),
            ("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nlines", "200", "lines"),
            (cut, "502", ""),
            ("", "502", ""),
            (&format!("{cut}X: {}\r\n", "x".repeat(200_000)), "502", ""),
        ] {
            let answer = answer.to_owned();
            let setup = guarded(move |_, mut peer: Peer| {
                let answer = answer.clone();
                async move {
                    drop(peer.stream.write_all(answer.as_bytes()).await);
                    None
                }
            })
            .await;
            let mut client = setup.client().await;
            client.send(LOGS).await;
            let answer = client.message().await.unwrap();
            assert_eq!(answer.status(), status);
            if status == "502" {
                assert!(answer.body.contains("the Docker Engine at"), "{}", answer.body);
            } else {
                assert_eq!(answer.body.trim(), body);
            }
            // The connection stays.
            client.send("GET /nothing HTTP/1.1\r\nHost: d\r\n\r\n").await;
            assert_eq!(client.message().await.unwrap().status(), "403");
        }
    });
}

#[test]
fn an_older_client_gets_followed_logs_without_chunks() {
    run(async || {
        let setup = guarded(async |_, mut peer: Peer| {
            peer.send(format!("{LINES}5\r\nfirst\r\n6\r\nsecond\r\n0\r\n\r\n")).await;
            Some(peer)
        })
        .await;
        let mut client = setup.client().await;
        client.send(LOGS.replace("HTTP/1.1", "HTTP/1.0")).await;
        let head = client.until("\r\n\r\n").await.unwrap();
        assert!(!head.contains("chunked"), "{head}");
        assert_eq!(client.rest().await, b"firstsecond");
    });
}

#[test]
fn who_reads_followed_logs_late_gets_all_of_them() {
    run(async || {
        let chunk = |n: usize| format!("{:x}\r\n{}\r\n", 4000, n.to_string().repeat(4000));
        let setup = guarded(move |_, mut peer: Peer| async move {
            peer.send(LINES).await;
            for n in 0..500 {
                peer.send(chunk(n % 10)).await;
            }
            peer.send("0\r\n\r\n").await;
            None
        })
        .await;
        let mut client = setup.client().await;
        client.send(LOGS).await;
        tokio::time::sleep(Duration::from_millis(300)).await;
        client.until("\r\n\r\n").await.unwrap();
        let expected: String = (0..500).map(|n| chunk(n % 10)).collect();
        assert!(client.rest().await == format!("{expected}0\r\n\r\n").into_bytes());
    });
}

#[test]
fn what_says_that_an_answer_will_come_is_none() {
    run(async || {
        for interim in
            ["HTTP/1.1 100 Continue\r\n\r\n", "HTTP/1.1 102 Processing\r\nX: y\r\n\r\nHTTP/1.1 103 Hints\r\n\r\n"]
        {
            let setup = guarded(move |request: Message, mut peer: Peer| async move {
                peer.send(interim).await;
                tokio::time::sleep(Duration::from_millis(20)).await;
                peer.send(if request.head.contains("/attach") { TAKEN } else { LINES }).await;
                peer.send("5\r\nfirst\r\n0\r\n\r\n").await;
                None
            })
            .await;
            for asked in [LOGS.to_owned(), format!("{ATTACH}{UPGRADE}")] {
                let mut client = setup.client().await;
                client.send(asked).await;
                let head = client.until("\r\n\r\n").await.unwrap();
                assert!(head.starts_with("HTTP/1.1 200 OK\r\n") || head.starts_with("HTTP/1.1 101 UPGRADED"), "{head}");
                assert_eq!(client.rest().await, b"5\r\nfirst\r\n0\r\n\r\n");
            }
        }
    });
}

#[test]
fn behind_a_long_head_nothing_is_lost() {
    run(async || {
        let setup = guarded(async |_, mut peer: Peer| {
            let (status, headers) = LINES.split_once("\r\n").unwrap();
            // The last read of the head goes beyond what hyper would buffer of it.
            let pad = "p".repeat((128 << 10) - 30 - LINES.len());
            let behind = format!("{:x}\r\n{}\r\n0\r\n\r\n", 3000, "x".repeat(3000));
            let all = format!("{status}\r\nX-Pad: {pad}\r\n{headers}{behind}");
            let (first, rest) = all.split_at(100);
            peer.send(first).await;
            tokio::time::sleep(Duration::from_millis(50)).await;
            peer.send(rest).await;
            None
        })
        .await;
        let mut client = setup.client().await;
        client.send(LOGS).await;
        client.until("\r\n\r\n").await.unwrap();
        assert_eq!(client.rest().await.len(), "bb8\r\n\r\n0\r\n\r\n".len() + 3000);
    });
}
