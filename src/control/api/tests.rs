//! Raw requests over a real socket, right and wrong, and their answers.

use std::path::PathBuf;
use std::rc::Rc;
use std::sync::atomic::{AtomicU64, Ordering};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::LocalSet;

use super::types::{Migration, Problem};
use super::*;
use crate::reconcile::fake;

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
        let (running, handle) = fake::start_on(&dir.0, &alive).await;
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

/// Method and path, body, status, words of the problem.
const REFUSED: &[(&str, &str, u16, &str)] = &[
    ("POST /api/v1/migrations", "garbage", 400, "expected value at line 1"),
    ("POST /api/v1/migrations", "{}", 400, "missing field `id`"),
    ("POST /api/v1/migrations", "[1]", 400, "does not have the expected form"),
    ("POST /api/v1/migrations", "{\"id\": 7, \"interlay\": \"orders\"}", 400, "invalid type"),
    ("POST /api/v1/migrations", "{\"id\":\"m\",\"interlay\":\"orders\",\"speed\":1}", 400, "unknown field `speed`"),
    ("POST /api/v1/migrations", "{\"id\":\"../m\",\"interlay\":\"orders\"}", 400, "not a valid name"),
    ("POST /api/v1/migrations", "{\"id\":\"m\",\"interlay\":\"nobody\"}", 404, "the configuration has: orders"),
    ("POST /api/v1/migrations", "{\"id\":\"m\",\"interlay\":\"orders\",\"strategy\":\"x\"}", 400, "blue_green"),
    (
        "POST /api/v1/migrations",
        "{\"id\":\"m\",\"interlay\":\"orders\",\"strategy\":\"Canary\"}",
        422,
        "not supported yet",
    ),
    (
        "POST /api/v1/migrations",
        "{\"id\":\"m\",\"interlay\":\"orders\",\"feed\":\"pigeon\"}",
        400,
        "auto, replication, lane",
    ),
    (
        "POST /api/v1/migrations",
        "{\"id\":\"m\",\"interlay\":\"orders\",\"target\":\"old\"}",
        400,
        "both source and target",
    ),
    ("POST /api/v1/migrations/m/advance", "{}", 404, "no migration m"),
    ("POST /api/v1/migrations/m/explode", "{}", 404, "there is no path"),
    ("DELETE /api/v1/migrations", "", 405, "does not take this method"),
    ("GET /nowhere", "", 404, "there is no path /nowhere"),
    ("GET /api/v1/endpoints/none", "", 404, "the configuration has: old, new"),
    ("POST /api/v1/interlays/orders/drain", "", 501, "not supported yet"),
    ("GET /api/v1/events?after=x", "", 400, "after"),
    ("POST /api/v1/interlays/shop/pause", "{\"deadline\":1}", 400, "unknown field `deadline`"),
    ("POST /api/v1/interlays/shop/pause", "{\"deadline_ms\":26000}", 400, "deadline_ms must be from 1 to 25000"),
    ("POST /api/v1/interlays/shop/pause", "{\"hold_ms\":0}", 400, "hold_ms must be from 1 to 3600000"),
    ("POST /api/v1/interlays/none/pause", "", 404, "the configuration has: orders, shop"),
    ("POST /api/v1/interlays/orders/pause", "", 422, "a fence of their own"),
    ("POST /api/v1/interlays/shop/resume", "", 409, "is not paused"),
    ("GET /api/v1/interlays/orders/sessions", "", 422, "kind redis"),
    ("GET /api/v1/interlays/shop/policies", "", 422, "PostgreSQL has none yet"),
    ("GET /api/v1/filters/none", "", 404, "loaded are: builtin:compare-semantic"),
    ("DELETE /api/v1/filters/none", "", 404, "loaded are: builtin:compare-semantic"),
    ("DELETE /api/v1/filters/builtin:mirror-reads", "", 400, "is shipped with Crossfade and stays"),
    ("PUT /api/v1/filters/mine", "{}", 400, "missing field `module_base64`"),
    ("PUT /api/v1/filters/mine", "{\"module_base64\":\"?\"}", 400, "not base64"),
    ("PUT /api/v1/filters/mine", "{\"module_base64\":\"AGFzbQ==\"}", 422, "nothing was loaded"),
    ("PUT /api/v1/filters/-x", "{\"module_base64\":\"\"}", 400, "not a valid name"),
    ("POST /api/v1/filters/mine", "{}", 405, "does not take this method"),
    ("PUT /api/v1/migrations/m/policies/miror", "{\"filter\":\"none\"}", 400, "mirror, compare, rollback, records"),
    ("PUT /api/v1/migrations/m/policies/mirror", "{\"filter\":\"none\"}", 404, "no migration m"),
    (
        "POST /api/v1/migrations",
        "{\"id\":\"m\",\"interlay\":\"orders\",\"policies\":{\"mirror\":\"none-such\"}}",
        404,
        "there is no filter none-such",
    ),
    ("GET /api/v1/interlays/shop/analysis?limit=0", "", 400, "limit must be"),
    ("GET /api/v1/interlays/shop/analysis?top=1", "", 400, "top"),
    ("GET /api/v1/interlays/shop/analysis?target=new", "", 400, "of the same kind"),
    ("GET /api/v1/interlays/shop/analysis?target=pg", "", 400, "the source itself"),
    ("POST /api/v1/migrations", "{\"id\":\"m\",\"interlay\":\"shop\"}", 422, "migrations are not supported yet"),
    ("POST /api/v1/migrations", "{\"id\":\"m\",\"interlay\":\"orders\",\"target\":\"pg\"}", 400, "one kind"),
];

#[test]
fn a_bad_request_is_answered_with_a_problem_that_names_the_error() {
    serving(async |port| {
        let large = format!("{{\"id\":\"{}\"}}", "x".repeat(limits::ADMIN_BODY_BYTES_MAX));
        let large = ("POST /api/v1/migrations", large.as_str(), 413, "larger than");
        for (head, body, status, words) in REFUSED.iter().copied().chain([large]) {
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
        let create = "{\"id\":\"m\",\"interlay\":\"orders\",\"strategy\":\"BlueGreen\",\"feed\":\"Replication\"}";
        assert_eq!(ask(port, "POST /api/v1/migrations", create).await.0, 201);
        assert_eq!(ask(port, "POST /api/v1/migrations", create).await.0, 409);
        let (status, _, text) = ask(port, "GET /api/v1/migrations/m", "").await;
        let shown: Migration = serde_json::from_str(&text).unwrap();
        assert_eq!((status, shown.phase.as_str(), shown.authority.as_str()), (200, "pre-test", "source"));
        assert_eq!((shown.decisions.feed.as_str(), shown.feed), ("replication", None));
        assert_eq!(shown.feed_reason.as_deref(), Some("not measured yet"), "nothing listens there");
        let (status, _, text) = ask(port, "POST /api/v1/migrations/m/advance", "{\"to\":\"analyze\"}").await;
        let problem: Problem = serde_json::from_str(&text).unwrap();
        let names: Vec<_> = problem.gates.iter().map(|gate| gate.name.as_str()).collect();
        assert!(status == 409 && names.contains(&"target_reachable"), "{text}");
        let (_, _, text) = ask(port, "POST /api/v1/migrations/m/advance", "{\"to\":\"nirvana\"}").await;
        assert!(text.contains("pre-test, analyze, compare"), "{text}");
        let (status, _, text) = ask(port, "GET /api/v1/migrations/m/report", "").await;
        assert!(status == 200 && text.contains("# Migration m: old to new"), "{text}");
        assert!(text.contains("| feed | not chosen (asked for: replication): not measured yet |"), "{text}");
    });
}

#[test]
fn a_filter_is_loaded_chosen_shown_and_unloaded() {
    use base64::Engine;
    let module =
        base64::engine::general_purpose::STANDARD.encode(include_bytes!("../../../filters/dist/deny_dangerous.wasm"));
    let cases = include_str!("../../../filters/dist/deny_dangerous.cases.jsonl");
    let body = |cases: &str| {
        serde_json::json!({"module_base64": module, "cases": cases, "file": "deny_dangerous.wasm"}).to_string()
    };
    serving(async |port| {
        // Longer than the limit of all other bodies.
        let padded = format!("{cases}\n// {}\n", "x".repeat(2 * limits::ADMIN_BODY_BYTES_MAX));
        let (status, _, text) = ask(port, "PUT /api/v1/filters/deny", &body(&padded)).await;
        let loaded: types::Filter = serde_json::from_str(&text).unwrap();
        assert_eq!((status, loaded.generation, loaded.hooks.as_slice()), (200, 1, &["request".to_owned()][..]));
        assert!(loaded.cases.is_some_and(|cases| cases > 0) && loaded.warnings.is_empty(), "{text}");
        let wrong = cases.replacen("\"refuse\"", "\"forward\"", 1);
        let (status, _, text) = ask(port, "PUT /api/v1/filters/deny", &body(&wrong)).await;
        let problem: Problem = serde_json::from_str(&text).unwrap();
        assert_eq!((status, problem.kind.as_str()), (422, "urn:crossfade:problem:filter-refused"), "{text}");
        assert!(problem.detail.contains("generation 1 of deny stays in use"), "{text}");
        let large = body(&"x".repeat(limits::FILTER_BODY_BYTES_MAX));
        assert_eq!(ask(port, "PUT /api/v1/filters/deny", &large).await.0, 413);

        let create =
            "{\"id\":\"m\",\"interlay\":\"orders\",\"policies\":{\"mirror\":{\"filter\":\"deny\",\"mode\":\"block\"}}}";
        let (status, _, text) = ask(port, "POST /api/v1/migrations", create).await;
        let created: Migration = serde_json::from_str(&text).unwrap();
        assert_eq!((status, created.policies["mirror"].mode.as_deref()), (201, Some("block")), "{text}");
        let policies = async || -> types::InterlayPolicies {
            serde_json::from_str(&ask(port, "GET /api/v1/interlays/orders/policies", "").await.2).unwrap()
        };
        let shown = policies().await;
        let mirror = &shown.slots[0];
        assert_eq!((mirror.policy.filter.as_str(), mirror.chosen_by.as_str()), ("deny", "migration"));
        assert!(shown.adopted && shown.generation == 2 && mirror.filter_generation == Some(1));

        let path = "/api/v1/migrations/m/policies/mirror";
        let refused = "{\"filter\":\"deny\",\"config\":{\"commands\":7}}";
        let (status, _, text) = ask(port, &format!("PUT {path}"), refused).await;
        assert!(status == 422 && text.contains("commands") && text.contains("nothing changed"), "{text}");
        assert_eq!(policies().await.generation, 2);
        let (status, _, text) = ask(port, &format!("PUT {path}"), "{\"filter\":\"none\"}").await;
        assert!(status == 200 && text.contains("\"filter\":\"none\""), "{text}");
        let (status, _, text) = ask(port, &format!("DELETE {path}"), "").await;
        assert!(status == 200 && text.contains("\"policies\":{}"), "{text}");
        assert_eq!(policies().await.slots[0].chosen_by, "shipped");
        let (status, _, text) = ask(port, "GET /api/v1/events?after=0&past_only=true&migration=m", "").await;
        assert!(
            status == 200 && text.contains("event: policy_set") && text.contains("event: policies_changed"),
            "{text}"
        );

        assert_eq!(ask(port, "DELETE /api/v1/filters/deny", "").await.0, 200);
        assert_eq!(ask(port, "GET /api/v1/filters/deny", "").await.0, 404);
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
            "/api/v1/interlays/orders/policies",
            "/api/v1/filters",
            "/api/v1/filters/builtin:mirror-reads",
            "/api/v1/interlays/shop/sessions",
            "/api/v1/interlays/shop/analysis",
            "/api/v1/endpoints/pg",
            "/api/v1/migrations",
            "/api/v1/migrations/m/divergences",
            "/api/v1/events?after=0&past_only=true",
        ] {
            let (status, _, text) = ask(port, &format!("GET {path}"), "").await;
            assert!(status == 200 && !text.contains("hunter2"), "{path}: {status} {text}");
        }
        let (_, _, text) = ask(port, "GET /metrics", "").await;
        for line in text.lines().filter(|line| !line.is_empty() && !line.starts_with('#')) {
            assert!(
                line.starts_with("crossfade_") && line.rsplit(' ').next().unwrap().parse::<u64>().is_ok(),
                "{line}"
            );
        }
        let (_, kind, text) = ask(port, "GET /api/v1/events?after=0&past_only=true&migration=m", "").await;
        assert!(kind.starts_with("text/event-stream") && text.contains("event: migration_created"), "{text}");
    });
}

#[test]
fn an_interlay_is_paused_and_resumed_and_a_pause_held_up_names_its_sessions() {
    serving(async |port| {
        let (status, _, text) = ask(port, "POST /api/v1/interlays/shop/pause", "{\"deadline_ms\":2000}").await;
        let paused: types::Paused = serde_json::from_str(&text).unwrap();
        assert!(status == 200 && paused.paused && paused.resumes_at - paused.paused_at == 600_000, "{text}");
        let (_, _, text) = ask(port, "GET /api/v1/interlays/shop", "").await;
        let shown: types::Interlay = serde_json::from_str(&text).unwrap();
        assert_eq!(shown.pause.unwrap().state, "paused");
        let (_, _, text) = ask(port, "GET /metrics", "").await;
        for line in [
            "interlay_paused{interlay=\"shop\"} 1",
            "interlay_paused{interlay=\"orders\"} 0",
            "pauses_total{interlay=\"shop\"} 1",
        ] {
            assert!(text.contains(&format!("\ncrossfade_{line}\n")), "{line}: {text}");
        }
        let (status, _, text) = ask(port, "GET /readyz", "").await;
        assert!(status == 200 && text.contains("interlay shop is paused"), "{text}");
        assert_eq!(ask(port, "POST /api/v1/interlays/shop/pause", "").await.0, 409);
        let (status, _, text) = ask(port, "POST /api/v1/interlays/shop/resume", "").await;
        let resumed: types::Resumed = serde_json::from_str(&text).unwrap();
        assert_eq!((status, resumed.held_clients, resumed.longest_hold_us, resumed.paused), (200, 3, 1500, false));

        let (status, kind, text) = ask(port, "POST /api/v1/interlays/stuck/pause", "{\"deadline_ms\":20}").await;
        let problem: Problem = serde_json::from_str(&text).unwrap();
        assert_eq!((status, kind.as_str()), (409, "application/problem+json"));
        assert_eq!(problem.kind, "urn:crossfade:problem:pause-held-up");
        let session = &problem.sessions[0];
        assert_eq!((session.id, session.state.as_str(), session.age_ms), (12, "idle in transaction", 3200));
        assert!(problem.detail.contains("id 12 user app on db (psql)"), "{text}");
        let (_, _, text) = ask(port, "GET /api/v1/interlays/stuck/sessions", "").await;
        let sessions: types::Sessions = serde_json::from_str(&text).unwrap();
        assert_eq!(
            (sessions.total, sessions.busy, sessions.sessions[0].keeps.as_slice()),
            (1, 1, &["listen".to_owned()][..])
        );
    });
}

#[test]
fn an_analysis_shows_forms_and_no_literals() {
    serving(async |port| {
        let (analysis, text) = loop {
            let (status, _, text) = ask(port, "GET /api/v1/interlays/shop/analysis?limit=5", "").await;
            let analysis: types::Analysis = serde_json::from_str(&text).unwrap();
            assert_eq!(status, 200);
            if analysis.samples > 0 {
                break (analysis, text);
            }
        };
        assert_eq!((analysis.fingerprints[0].text.as_str(), analysis.kinds[0].kind.as_str()), ("SELECT ?", "SELECT"));
        assert_eq!((analysis.fingerprints[0].share, analysis.target.as_deref()), (1.0, Some("pg-new")));
        assert!(analysis.findings_problem.unwrap().contains("endpoint pg "), "{text}");
        assert!(!text.contains("hunter2"), "{text}");
    });
}

/// The rows of the page's table of paths, made from the document.
fn paths(document: &serde_json::Value) -> String {
    use std::fmt::Write as _;
    let name = |schema: &serde_json::Value| -> String {
        let reference =
            |of: &serde_json::Value| of["$ref"].as_str().and_then(|text| text.rsplit('/').next()).map(str::to_owned);
        match (reference(schema), reference(&schema["items"])) {
            (Some(name), _) => format!("`{name}`"),
            (None, Some(name)) => format!("list of `{name}`"),
            (None, None) => String::new(),
        }
    };
    let mut out = String::from("| method and path | query | body | answer | |\n|---|---|---|---|---|\n");
    for (path, methods) in document["paths"].as_object().expect("paths") {
        for (method, what) in methods.as_object().expect("methods") {
            let query: Vec<String> = what["parameters"]
                .as_array()
                .into_iter()
                .flatten()
                .filter(|parameter| parameter["in"] == "query")
                .filter_map(|parameter| parameter["name"].as_str().map(|name| format!("`{name}`")))
                .collect();
            let body = name(&what["requestBody"]["content"]["application/json"]["schema"]);
            let good = what["responses"].as_object().expect("responses").iter().next().expect("a response");
            let answer = name(&good.1["content"]["application/json"]["schema"]);
            let status = if good.0 == "200" { String::new() } else { format!("{} ", good.0) };
            let _ = writeln!(
                out,
                "| `{} {path}` | {} | {body} | {status}{answer} | {} |",
                method.to_uppercase(),
                query.join(", "),
                what["summary"].as_str().expect("a summary")
            );
        }
    }
    out
}

#[test]
fn the_page_of_the_api_lists_the_paths_of_the_openapi_document() {
    let document: serde_json::Value = serde_json::from_str(&openapi()).expect("JSON");
    crate::testing::document_part("docs/API.md", "paths", &paths(&document));
}

#[test]
fn the_openapi_document_is_served_and_describes_what_is_answered() {
    serving(async |port| {
        let (status, kind, body) = ask(port, "GET /api/v1/openapi.json", "").await;
        assert_eq!((status, kind.as_str()), (200, "application/json"));
        let document: serde_json::Value = serde_json::from_str(&body).expect("JSON");
        assert!(document["openapi"].as_str().is_some_and(|version| version.starts_with("3.")), "{document}");
        for (path, _) in document["paths"].as_object().expect("paths") {
            let concrete = path.replace("{name}", "orders").replace("{id}", "m").replace("{slot}", "mirror");
            if concrete == "/api/v1/events" {
                continue; // its response never ends
            }
            // No route takes OPTIONS: an existing path answers so, any other is not found.
            let (status, _, text) = ask(port, &format!("OPTIONS {concrete}"), "").await;
            assert_eq!(status, 405, "{concrete}: {text}");
        }
        let (_, _, body) = ask(port, "GET /api/v1/status", "").await;
        let status: serde_json::Value = serde_json::from_str(&body).expect("JSON");
        let described = &document["components"]["schemas"]["Status"]["properties"];
        let (answered, described) = (status.as_object().expect("an object"), described.as_object().expect("described"));
        assert_eq!(answered.keys().collect::<Vec<_>>(), described.keys().collect::<Vec<_>>());
    });
}
