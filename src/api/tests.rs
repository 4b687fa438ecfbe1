//! Raw requests over a real socket: what a stranger may send, and what comes back.

use std::path::PathBuf;
use std::rc::Rc;
use std::sync::atomic::{AtomicU64, Ordering};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::LocalSet;

use super::types::{Migration, Problem};
use super::*;
use crate::control::fake;

struct Scratch(PathBuf);

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// Serves one test on a port the system chose; a fake core acks every plan.
fn serving(test: impl AsyncFnOnce(u16)) {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    let dir = Scratch(std::env::temp_dir().join(format!("crossfade-api-{}-{number}", std::process::id())));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    LocalSet::new().block_on(&runtime, async {
        let alive = Rc::new(());
        let (running, handle) = fake::start_on(&dir.0, &alive);
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        tokio::task::spawn_local(serve(listener, handle));
        test(port).await;
        drop((alive, running));
    });
}

/// (status, content type, body)
async fn ask(port: u16, head: &str, body: &str) -> (u16, String, String) {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
    let length = body.len();
    let request = format!("{head} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: {length}\r\n\r\n{body}");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    let (headers, body) = answer.split_once("\r\n\r\n").expect("an HTTP answer");
    let status = headers.split(' ').nth(1).and_then(|status| status.parse().ok()).expect("a status");
    let kind = headers.lines().find_map(|line| line.to_lowercase().strip_prefix("content-type: ").map(str::to_owned));
    (status, kind.unwrap_or_default(), body.to_owned())
}

#[test]
fn what_is_wrong_is_answered_with_a_problem_that_says_what() {
    serving(async |port| {
        let large = format!("{{\"id\":\"{}\"}}", "x".repeat(limits::ADMIN_BODY_BYTES_MAX));
        let cases = [
            ("POST /api/v1/migrations", "garbage", 400, "expected value at line 1"),
            ("POST /api/v1/migrations", "{}", 400, "missing field `id`"),
            ("POST /api/v1/migrations", "[1]", 400, "not what is expected"),
            ("POST /api/v1/migrations", "{\"id\": 7, \"interlay\": \"orders\"}", 400, "invalid type"),
            (
                "POST /api/v1/migrations",
                "{\"id\":\"m\",\"interlay\":\"orders\",\"speed\":1}",
                400,
                "unknown field `speed`",
            ),
            ("POST /api/v1/migrations", "{\"id\":\"../m\",\"interlay\":\"orders\"}", 400, "not a valid name"),
            ("POST /api/v1/migrations", "{\"id\":\"m\",\"interlay\":\"nobody\"}", 404, "the configuration has: orders"),
            ("POST /api/v1/migrations", "{\"id\":\"m\",\"interlay\":\"orders\",\"strategy\":\"x\"}", 400, "blue_green"),
            (
                "POST /api/v1/migrations",
                "{\"id\":\"m\",\"interlay\":\"orders\",\"strategy\":\"Canary\"}",
                422,
                "not carried yet",
            ),
            (
                "POST /api/v1/migrations",
                "{\"id\":\"m\",\"interlay\":\"orders\",\"target\":\"old\"}",
                400,
                "both source and target",
            ),
            ("POST /api/v1/migrations", large.as_str(), 413, "larger than"),
            ("POST /api/v1/migrations/m/advance", "{}", 404, "no migration m"),
            ("POST /api/v1/migrations/m/explode", "{}", 404, "there is no path"),
            ("DELETE /api/v1/migrations", "", 405, "does not take this method"),
            ("GET /nowhere", "", 404, "there is no path /nowhere"),
            ("GET /api/v1/endpoints/none", "", 404, "the configuration has: old, new"),
            ("POST /api/v1/interlays/orders/drain", "", 501, "not carried yet"),
            ("GET /api/v1/events?after=x", "", 400, "after"),
        ];
        for (head, body, status, words) in cases {
            let (got, kind, text) = ask(port, head, body).await;
            assert_eq!((got, kind.as_str()), (status, "application/problem+json"), "{head} {text}");
            let problem: Problem = serde_json::from_str(&text).unwrap();
            assert!(problem.detail.contains(words) && problem.status == status, "{head}: {text}");
        }
        assert_eq!(ask(port, "GET /api/v1/migrations", "").await.2, "[]", "nothing changed");
    });
}

#[test]
fn a_migration_is_created_shown_and_refused_by_its_gates() {
    serving(async |port| {
        let create = "{\"id\":\"m\",\"interlay\":\"orders\",\"strategy\":\"BlueGreen\"}";
        assert_eq!(ask(port, "POST /api/v1/migrations", create).await.0, 201);
        assert_eq!(ask(port, "POST /api/v1/migrations", create).await.0, 409);
        let (status, _, text) = ask(port, "GET /api/v1/migrations/m", "").await;
        let shown: Migration = serde_json::from_str(&text).unwrap();
        assert_eq!((status, shown.phase.as_str(), shown.authority.as_str()), (200, "pre-test", "source"));
        let (status, _, text) = ask(port, "POST /api/v1/migrations/m/advance", "{\"to\":\"analyze\"}").await;
        let problem: Problem = serde_json::from_str(&text).unwrap();
        let names: Vec<_> = problem.gates.iter().map(|gate| gate.name.as_str()).collect();
        assert!(status == 409 && names.contains(&"target_reachable"), "{text}");
        let (_, _, text) = ask(port, "POST /api/v1/migrations/m/advance", "{\"to\":\"nirvana\"}").await;
        assert!(text.contains("pre-test, analyze, compare"), "{text}");
        let (status, _, text) = ask(port, "GET /api/v1/migrations/m/report", "").await;
        assert!(status == 200 && text.contains("# Migration m: old to new"), "{text}");
    });
}

#[test]
fn every_view_answers_and_none_shows_a_password() {
    serving(async |port| {
        ask(port, "POST /api/v1/migrations", "{\"id\":\"m\",\"interlay\":\"orders\"}").await;
        for path in [
            "/",
            "/healthz",
            "/readyz",
            "/metrics",
            "/api/v1/status",
            "/api/v1/endpoints",
            "/api/v1/endpoints/old",
            "/api/v1/interlays",
            "/api/v1/interlays/orders",
            "/api/v1/migrations",
            "/api/v1/migrations/m/divergences",
            "/api/v1/events?after=0&past_only=true",
        ] {
            let (status, _, text) = ask(port, &format!("GET {path}"), "").await;
            assert!(status == 200 && !text.contains("hunter2"), "{path}: {status} {text}");
        }
        let (_, _, text) = ask(port, "GET /metrics", "").await;
        for line in text.lines().filter(|line| !line.starts_with('#')) {
            assert!(
                line.starts_with("crossfade_") && line.rsplit(' ').next().unwrap().parse::<u64>().is_ok(),
                "{line}"
            );
        }
        let (_, kind, text) = ask(port, "GET /api/v1/events?after=0&past_only=true&migration=m", "").await;
        assert!(kind.starts_with("text/event-stream") && text.contains("event: migration_created"), "{text}");
    });
}
