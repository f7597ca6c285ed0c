//! Requests and answers.

use super::fake::{OWN, Peer, fine, guard_alone, guarded, json, run};
use std::time::Duration;

const PING: &str = "GET /_ping HTTP/1.1\r\nHost: d\r\n\r\n";

fn message(body: &str) -> String {
    sockguard::json::parse(body.as_bytes()).unwrap().at(&["message"]).unwrap().as_str().unwrap().to_owned()
}

#[test]
fn a_connection_serves_one_request_after_another_over_one_connection_to_the_engine() {
    run(async || {
        let setup = guarded(fine).await;
        let mut client = setup.client().await;
        for _ in 0..3 {
            client.send(PING).await;
            let answer = client.message().await.unwrap();
            assert_eq!((answer.status(), answer.body.as_str()), ("200", "OK"));
            assert_eq!(answer.header("api-version"), Some("1.41"));
            assert_eq!(answer.header("x-secret"), None);
            assert!(answer.head.contains("Content-Type: "), "{}", answer.head);
        }
        assert_eq!(setup.fake().connections.get(), 1);
    });
}

#[test]
fn pipelined_requests_are_answered_in_order() {
    run(async || {
        let setup = guarded(async |request: super::fake::Message, mut peer: Peer| {
            let path = request.head.split(' ').nth(1).unwrap().to_owned();
            peer.send(json("200 OK", &format!("{path:?}"))).await;
            Some(peer)
        })
        .await;
        let mut client = setup.client().await;
        client.send("GET /_ping HTTP/1.1\r\nHost:\r\n\r\nGET /version HTTP/1.1\r\nHost: \r\n\r\nGET /v1.41/_ping HTTP/1.1\r\nHost: d\r\n\r\n").await;
        for path in ["/_ping", "/version", "/v1.41/_ping"] {
            assert_eq!(client.message().await.unwrap().body, format!("{path:?}"));
        }
    });
}

#[test]
fn an_answer_to_head_has_no_body() {
    run(async || {
        let setup = guarded(async |_, mut peer: Peer| {
            peer.send("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n").await;
            Some(peer)
        })
        .await;
        let mut client = setup.client().await;
        client.send("HEAD /_ping HTTP/1.1\r\nHost: d\r\n\r\nHEAD /_ping HTTP/1.1\r\nHost: d\r\n\r\n").await;
        for _ in 0..2 {
            let head = client.until("\r\n\r\n").await.unwrap();
            assert!(head.starts_with("HTTP/1.1 200 OK\r\n") && head.contains("Content-Length: 5\r\n"), "{head}");
        }
        assert!(client.is_silent().await);
    });
}

#[test]
fn http_1_0_gets_its_answer_and_the_end() {
    run(async || {
        let setup = guarded(async |_, mut peer: Peer| {
            peer.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nOK\r\n0\r\n\r\n").await;
            Some(peer)
        })
        .await;
        let mut client = setup.client().await;
        client.send("GET /_ping HTTP/1.0\r\n\r\n").await;
        let answer = String::from_utf8(client.rest().await).unwrap();
        assert!(answer.starts_with("HTTP/1.0 200 OK\r\n") || answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");
        assert!(answer.ends_with("\r\n\r\nOK"), "{answer}");
    });
}

#[test]
fn a_client_that_waits_to_be_told_to_go_on_is_told() {
    run(async || {
        let setup = guarded(async |_, mut peer: Peer| {
            peer.send(json("201 Created", r#"{"Id":"abc"}"#)).await;
            Some(peer)
        })
        .await;
        let mut client = setup.client().await;
        let body = r#"{"Cmd":["true"]}"#;
        client.send(format!("POST /containers/own/exec HTTP/1.1\r\nHost: d\r\nContent-Type: application/json\r\nContent-Length: {}\r\nExpect: 100-continue\r\n\r\n", body.len())).await;
        assert_eq!(client.until("\r\n\r\n").await.unwrap(), "HTTP/1.1 100 Continue\r\n\r\n");
        client.send(body).await;
        let answer = client.message().await.unwrap();
        assert_eq!((answer.status(), answer.body.as_str()), ("201", r#"{"Id":"abc"}"#));
        assert_eq!(setup.seen(), [format!("POST /containers/{OWN}/exec HTTP/1.1")]);
        assert_eq!(setup.fake().seen.borrow()[0].header("expect"), None);
    });
}

#[test]
fn what_is_no_request_gets_an_answer_in_dockers_shape_and_leaves_no_trace() {
    run(async || {
        let setup = guarded(fine).await;
        let long = format!("GET /_ping HTTP/1.1\r\nHost: d\r\nX-Long: {}\r\n\r\n", "a".repeat(200 << 10));
        let many = format!("GET /_ping HTTP/1.1\r\n{}\r\n", "X-A: b\r\n".repeat(2000));
        for (request, status) in [
            ("GET /_ping\r\n\r\n", "400"),
            ("nonsense\r\n\r\n", "400"),
            ("GET /_ping HTTP/1.1\r\nbad header\r\n\r\n", "400"),
            ("GET /_ping HTTP/1.1\r\nHost: d\r\nX: a\0b\r\n\r\n", "400"),
            ("GET http://d/_ping HTTP/1.1\r\nHost: d\r\n\r\n", "400"),
            ("CONNECT d:80 HTTP/1.1\r\nHost: d\r\n\r\n", "400"),
            ("OPTIONS * HTTP/1.1\r\nHost: d\r\n\r\n", "400"),
            ("GET /_ping HTTP/1.1\r\nContent-Length: 3\r\nContent-Length: 4\r\n\r\nabcd", "400"),
            ("GET /_ping HTTP/1.1\r\nTransfer-Encoding: gzip\r\n\r\n", "400"),
            ("GET //_ping HTTP/1.1\r\nHost: d\r\n\r\n", "403"),
            ("GET /nothing HTTP/1.1\r\nHost: d\r\n\r\n", "403"),
            ("POST /grpc HTTP/1.1\r\nHost:\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n\r\n", "403"),
            (long.as_str(), "431"),
            (many.as_str(), "431"),
        ] {
            let mut client = setup.client().await;
            // The answer may come before all is sent.
            drop(tokio::io::AsyncWriteExt::write_all(&mut client.stream, request.as_bytes()).await);
            let answer = client.message().await.unwrap_or_else(|| panic!("no answer to {:.60}", request));
            assert_eq!(answer.status(), status, "{request:.60}: {answer:?}");
            assert_eq!(answer.header("content-type"), Some("application/json"), "{request:.60}");
            assert!(message(&answer.body).starts_with("sockguard: "), "{}", answer.body);
        }
        assert!(setup.seen().is_empty(), "{:?}", setup.seen());
        assert_eq!(setup.fake().connections.get(), 0);
    });
}

#[test]
fn of_two_framings_the_chunks_count_and_nothing_rides_behind_them() {
    run(async || {
        let setup = guarded(fine).await;
        for framing in
            ["Content-Length: 45\r\nTransfer-Encoding: chunked", "Transfer-Encoding: chunked\r\nContent-Length: 45"]
        {
            let mut client = setup.client().await;
            client.send(format!("POST /containers/own/stop HTTP/1.1\r\nHost: d\r\n{framing}\r\n\r\n0\r\n\r\nGET /version HTTP/1.1\r\nHost: d\r\n\r\n")).await;
            assert_eq!(client.message().await.unwrap().header("connection"), Some("close"));
            assert!(client.rest().await.is_empty());
        }
        assert_eq!(
            setup.seen(),
            [format!("POST /containers/{OWN}/stop HTTP/1.1"), format!("POST /containers/{OWN}/stop HTTP/1.1")]
        );
    });
}

#[test]
fn a_bad_head_behind_a_good_request_is_answered_after_it() {
    run(async || {
        let setup = guarded(fine).await;
        let mut client = setup.client().await;
        client.send(format!("{PING}nonsense\r\n\r\n")).await;
        assert_eq!(client.message().await.unwrap().body, "OK");
        let second = client.message().await.unwrap();
        assert_eq!(second.status(), "400");
        assert_eq!(second.header("connection"), Some("close"));
        assert!(client.rest().await.is_empty());
    });
}

#[test]
fn http_2_ends_the_connection_and_never_reaches_the_engine() {
    run(async || {
        let setup = guarded(fine).await;
        let mut client = setup.client().await;
        client.send("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0").await;
        client.rest().await;
        assert_eq!(setup.fake().connections.get(), 0);
    });
}

#[test]
fn forms_are_refused_whatever_the_endpoint() {
    run(async || {
        let setup = guarded(fine).await;
        for kind in [
            "application/x-www-form-urlencoded",
            "Multipart/Form-Data; boundary=x",
            " application/x-www-form-urlencoded; charset=utf-8",
        ] {
            let mut client = setup.client().await;
            client.send(format!("POST /containers/own/start HTTP/1.1\r\nHost: d\r\nContent-Type: {kind}\r\nContent-Length: 3\r\n\r\na=b{PING}")).await;
            let answer = client.message().await.unwrap();
            assert_eq!(answer.status(), "403");
            assert!(answer.body.contains("form"), "{}", answer.body);
            assert_eq!(client.message().await.unwrap().body, "OK");
        }
    });
}

#[test]
fn a_body_where_none_belongs_is_refused_or_dropped() {
    run(async || {
        let setup = guarded(fine).await;
        let said = r#"{"HostConfig":{}}"#;
        for (operation, body, status) in [
            ("start", "", "200"),
            ("start", "null", "200"),
            ("start", "{}\n", "200"),
            ("start", said, "400"),
            ("stop", said, "200"),
        ] {
            let mut client = setup.client().await;
            client
                .send(format!(
                    "POST /containers/own/{operation} HTTP/1.1\r\nHost: d\r\nContent-Length: {}\r\n\r\n{body}",
                    body.len()
                ))
                .await;
            assert_eq!(client.message().await.unwrap().status(), status, "{body}");
        }
        assert!(setup.fake().seen.borrow().iter().all(|request| request.body.is_empty()));
    });
}

#[test]
fn a_refused_body_is_heard_out_so_that_its_sender_reads_the_answer() {
    run(async || {
        let setup = guarded(fine).await;
        for head in ["Content-Length: 67108864\r\n", "Transfer-Encoding: chunked\r\n"] {
            let mut client = setup.client().await;
            client.send(format!("POST /containers/foreign/nothing HTTP/1.1\r\nHost: d\r\n{head}\r\n")).await;
            let megabyte = vec![b'a'; 1 << 20];
            for _ in 0..64 {
                if head.starts_with('T') {
                    client.send("100000\r\n").await;
                }
                client.send(&megabyte).await;
                if head.starts_with('T') {
                    client.send("\r\n").await;
                }
            }
            if head.starts_with('T') {
                client.send("0\r\n\r\n").await;
            }
            assert_eq!(client.message().await.unwrap().status(), "403");
            client.send(PING).await;
            assert_eq!(client.message().await.unwrap().body, "OK");
        }
    });
}

#[test]
fn a_document_that_is_too_long_is_refused_with_413() {
    run(async || {
        let setup = guarded(fine).await;
        let mut client = setup.client().await;
        let body = vec![b' '; 5 << 20];
        client
            .send("POST /containers/create HTTP/1.1\r\nHost: d\r\nTransfer-Encoding: chunked\r\n\r\n500000\r\n")
            .await;
        client.send(&body).await;
        client.send("\r\n0\r\n\r\n").await;
        assert_eq!(client.message().await.unwrap().status(), "413");
        assert!(setup.seen().is_empty());
    });
}

#[test]
fn only_headers_that_are_known_go_to_the_engine() {
    run(async || {
        let setup = guarded(fine).await;
        let mut client = setup.client().await;
        client.send("GET /_ping HTTP/1.1\r\nHost: evil\r\nConnection: X-Hop, Upgrade\r\nUpgrade: h2c\r\nX-Hop: 1\r\nCookie: a\r\nX-Registry-Auth: e30=\r\nUser-Agent: curl\r\nTE: trailers\r\n\r\n").await;
        assert_eq!(client.message().await.unwrap().status(), "200");
        let seen = setup.fake().seen.borrow();
        let mut names: Vec<_> = seen[0].head.lines().skip(1).filter_map(|line| line.split_once(": ")).collect();
        names.sort_unstable();
        assert_eq!(names, [("Host", "docker"), ("User-Agent", concat!("sockguard/", env!("CARGO_PKG_VERSION")))]);
    });
}

#[test]
fn without_an_engine_the_answer_names_the_socket_and_with_one_again_all_is_well() {
    run(async || {
        let mut setup = guard_alone(Duration::from_secs(1)).await;
        let mut client = setup.client().await;
        client.send(PING).await;
        let answer = client.message().await.unwrap();
        assert_eq!(answer.status(), "502");
        let words = message(&answer.body);
        assert!(words.contains(setup.upstream.to_str().unwrap()) && words.contains("no such file"), "{words}");
        for _ in 0..3 {
            setup.start(fine);
            client.send(PING).await;
            assert_eq!(client.message().await.unwrap().body, "OK");
            // Its connections end with it.
            setup.fake = None;
            tokio::time::sleep(Duration::from_millis(20)).await;
            client.send(PING).await;
            assert!(message(&client.message().await.unwrap().body).contains("connection refused"));
        }
    });
}

#[test]
fn a_request_is_repeated_only_if_that_can_do_no_harm() {
    run(async || {
        // Closes each connection when it reads the second request on it.
        let setup = guarded(async |_, mut peer: Peer| {
            peer.send("HTTP/1.1 204 No Content\r\n\r\n").await;
            peer.until("\r\n\r\n").await?;
            None
        })
        .await;
        let mut client = setup.client().await;
        for _ in 0..3 {
            client.send(PING).await;
            assert_eq!(client.message().await.unwrap().status(), "204");
        }
        assert_eq!(setup.fake().connections.get(), 3);
        client.send("POST /containers/prune HTTP/1.1\r\nHost: d\r\n\r\n").await;
        let answer = client.message().await.unwrap();
        assert_eq!(answer.status(), "502", "{answer:?}");
    });
}

#[test]
fn a_cut_is_not_an_end() {
    run(async || {
        let setup = guarded(async |request: super::fake::Message, mut peer: Peer| {
            let sized = request.head.contains("stdout=1");
            let framing = if sized { "Content-Length: 100" } else { "Transfer-Encoding: chunked" };
            peer.send(format!("HTTP/1.1 200 OK\r\n{framing}\r\n\r\n5\r\nfirst\r\n")).await;
            tokio::time::sleep(Duration::from_millis(50)).await;
            None
        })
        .await;
        for query in ["stdout=1", "stderr=1"] {
            let mut client = setup.client().await;
            client.send(format!("GET /containers/own/logs?{query} HTTP/1.1\r\nHost: d\r\n\r\n")).await;
            assert!(client.until("first").await.is_some());
            let rest = String::from_utf8(client.rest().await).unwrap();
            assert!(!rest.contains("0\r\n\r\n"), "{rest:?}");
        }
    });
}

#[test]
fn answers_stream_while_requests_still_do() {
    run(async || {
        let setup = guarded(async |_, mut peer: Peer| {
            // The body is chunked; its first piece is answered before its last is sent.
            peer.until("first\r\n").await?;
            peer.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nheard\r\n").await;
            peer.until("0\r\n\r\n").await?;
            peer.send("0\r\n\r\n").await;
            Some(peer)
        })
        .await;
        let mut client = setup.client().await;
        client.send("PUT /containers/own/archive?path=/ HTTP/1.1\r\nHost: d\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nfirst\r\n").await;
        assert!(client.until("heard\r\n").await.is_some());
        client.send("4\r\nlast\r\n0\r\n\r\n").await;
        assert_eq!(client.until("0\r\n\r\n").await.unwrap(), "0\r\n\r\n");
        client.send(PING.replace("_ping", "nothing")).await;
        assert_eq!(client.message().await.unwrap().status(), "403");
    });
}
