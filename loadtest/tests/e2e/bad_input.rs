//! Every wrong input is named in the error, with the fix; nothing changes.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use crossfade_loadtest::crossfade::run_binary;
use crossfade_loadtest::process::{TempDir, free_port};
use crossfade_loadtest::rig::{MIGRATION, Rig};
use crossfade_loadtest::server::{Kind, RealServer, run};

/// A working configuration with one thing replaced.
fn serve_with(server_port: u16, from: &str, to: &str) -> (i32, String) {
    let directory = TempDir::make("config");
    let text = format!(
        "[admin]\nlisten = \"127.0.0.1:{}\"\n[data]\ndir = \"{}\"\n[endpoints.old]\nkind = \"redis\"\n\
         url = \"redis://127.0.0.1:{server_port}/0\"\n[interlays.orders]\nkind = \"redis\"\nlisten = \"127.0.0.1:{}\"\nsource = \"old\"\n",
        free_port(),
        directory.path().join("data").display(),
        free_port()
    );
    assert!(text.contains(from), "{from}");
    let file = directory.path().join("crossfade.toml");
    std::fs::write(&file, text.replacen(from, to, 1)).unwrap();
    let ran = run_binary(&["serve", "--config", &file.display().to_string()]);
    (ran.code, ran.stderr + &ran.stdout)
}

#[test]
fn a_wrong_configuration_names_file_line_and_key() {
    let server = RealServer::start(Kind::Redis);
    for (from, to, words) in [
        ("source = \"old\"", "sorce = \"old\"", &["crossfade.toml:", "sorce", "source"][..]),
        ("source = \"old\"", "source = \"older\"", &["crossfade.toml:", "older", "old"]),
        ("kind = \"redis\"", "kind = \"cassandra\"", &["crossfade.toml:", "kind", "redis"]),
        ("[data]", "[data", &["crossfade.toml:", "TOML"]),
    ] {
        let (code, text) = serve_with(server.port, from, to);
        assert_eq!(code, 1, "{to}: {text}");
        assert!(words.iter().all(|word| text.contains(word)), "{to}: {text}");
    }
    let ran = run_binary(&["serve", "--config", "/nonexistent/crossfade.toml"]);
    assert!(ran.code == 1 && ran.stderr.contains("/nonexistent/crossfade.toml"), "{ran:?}");
    let ran = run_binary(&["serve"]);
    assert_eq!(ran.code, 2, "{ran:?}");
    let ran = run_binary(&["no-such-command"]);
    assert_eq!(ran.code, 2, "{ran:?}");
}

#[test]
fn a_port_in_use_is_named() {
    let server = RealServer::start(Kind::Redis);
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let directory = TempDir::make("taken");
    for (admin, listen) in [
        (address.clone(), format!("127.0.0.1:{}", free_port())),
        (format!("127.0.0.1:{}", free_port()), address.clone()),
    ] {
        let text = format!(
            "[admin]\nlisten = \"{admin}\"\n[data]\ndir = \"{}\"\n[endpoints.old]\nkind = \"redis\"\n\
             url = \"redis://127.0.0.1:{}/0\"\n[interlays.orders]\nkind = \"redis\"\nlisten = \"{listen}\"\nsource = \"old\"\n",
            directory.path().join("data").display(),
            server.port
        );
        let file = directory.path().join("crossfade.toml");
        std::fs::write(&file, text).unwrap();
        let ran = run_binary(&["serve", "--config", &file.display().to_string()]);
        assert!(ran.code == 1 && ran.stderr.contains(&address), "{ran:?}");
    }
}

#[test]
fn a_wrong_password_is_named_and_not_shown() {
    let server = RealServer::start_with(Kind::Redis, &["--requirepass", "right"]);
    let directory = TempDir::make("password");
    let text = format!(
        "[admin]\nlisten = \"127.0.0.1:{}\"\n[data]\ndir = \"{}\"\n[endpoints.old]\nkind = \"redis\"\n\
         url = \"redis://:hunter2@127.0.0.1:{}/0\"\n[interlays.orders]\nkind = \"redis\"\nlisten = \"127.0.0.1:{}\"\nsource = \"old\"\n",
        free_port(),
        directory.path().join("data").display(),
        server.port,
        free_port()
    );
    let file = directory.path().join("crossfade.toml");
    std::fs::write(&file, text).unwrap();
    let ran = run_binary(&["check", "--config", &file.display().to_string()]);
    let said = ran.stderr.clone() + &ran.stdout;
    assert!(ran.code == 1 && said.contains("old") && said.to_lowercase().contains("login"), "{ran:?}");
    assert!(!said.contains("hunter2"), "{said}");
}

/// A raw request, so that no client library corrects it.
fn http(port: u16, text: &str) -> String {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    stream.write_all(text.as_bytes()).unwrap();
    let mut answer = String::new();
    let _ = stream.read_to_string(&mut answer);
    answer
}

fn post(port: u16, path: &str, body: &str) -> String {
    let length = body.len();
    http(
        port,
        &format!(
            "POST {path} HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n{body}"
        ),
    )
}

#[test]
fn a_garbage_request_is_a_problem_document_and_changes_nothing() {
    let mut rig = Rig::start(Kind::Redis);
    for (path, body) in [
        ("/api/v1/migrations", "garbage"),
        ("/api/v1/migrations", "{}"),
        ("/api/v1/migrations", "{\"id\": 7, \"interlay\": \"orders\"}"),
        ("/api/v1/migrations", "{\"id\": \"m\", \"interlay\": \"nobody\"}"),
        ("/api/v1/migrations", "{\"id\": \"m\", \"interlay\": \"orders\", \"strategy\": \"prayer\"}"),
        ("/api/v1/migrations", "{\"id\": \"m\", \"interlay\": \"orders\", \"speed\": 11}"),
        ("/api/v1/migrations", "{\"id\": \"../m\", \"interlay\": \"orders\"}"),
        ("/api/v1/migrations/m/advance", "{}"),
        ("/api/v1/migrations/m/explode", "{}"),
    ] {
        let answer = post(rig.proxy.admin_port, path, body);
        let status = answer.split(' ').nth(1).unwrap_or_default();
        assert!(status.starts_with('4'), "{path} {body}: {answer}");
    }
    let answer = post(rig.proxy.admin_port, "/api/v1/migrations", "garbage");
    assert!(answer.contains("application/problem+json") && answer.contains("detail"), "{answer}");
    let list = rig.proxy.must(&["--output", "json", "migration", "list"]);
    assert!(!list.stdout.contains("\"m\""), "{}", list.stdout);
    assert!(rig.proxy.alive());
    run::<String>(&mut rig.proxy.connection(), "SET still works");
}

#[test]
fn creating_twice_and_advancing_past_a_gate_are_refused() {
    let rig = Rig::start(Kind::Redis);
    rig.create();
    let again = rig.proxy.cli(&["migration", "create", "--id", MIGRATION, "--interlay", "orders"]);
    assert!(again.code == 1 && again.stderr.contains(MIGRATION), "{again:?}");
    let second = rig.proxy.cli(&["migration", "create", "--id", "other", "--interlay", "orders"]);
    assert!(second.code == 1 && second.stderr.contains("orders"), "{second:?}");
    let before = rig.proxy.show(MIGRATION);
    for (args, words) in [
        (&["migration", "advance", MIGRATION, "--to", "migrate"][..], "migrate"),
        (&["migration", "commit", MIGRATION], "commit"),
        (&["migration", "advance", MIGRATION, "--to", "nirvana"], "nirvana"),
        (&["migration", "show", "nobody"], "nobody"),
        (&["migration", "rollback", MIGRATION, "--reason", "x"], "pre-test"),
    ] {
        let ran = rig.proxy.cli(args);
        assert!((ran.code == 1 || ran.code == 2) && ran.stderr.contains(words), "{args:?}: {ran:?}");
    }
    let after = rig.proxy.show(MIGRATION);
    assert_eq!((&before["phase"], &before["epoch"]), (&after["phase"], &after["epoch"]));
}

#[test]
fn broken_frames_get_a_redis_error_and_affect_no_other_client() {
    let server = RealServer::start(Kind::Redis);
    let proxy = crossfade_loadtest::crossfade::Crossfade::start(&server.url(), None);
    let mut other = proxy.connection();
    for bad in ["*1\r\n$abc\r\n", "*-5\r\n$1\r\nx\r\n*x\r\n", "*2\r\n+bad\r\n", "*1\r\n$99999999999\r\n"] {
        let mut stream = TcpStream::connect(("127.0.0.1", proxy.port)).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        stream.write_all(bad.as_bytes()).unwrap();
        let mut answer = String::new();
        let _ = stream.read_to_string(&mut answer);
        assert!(answer.starts_with("-ERR"), "{bad:?}: {answer:?}");
        assert_eq!(run::<String>(&mut other, "PING"), "PONG");
    }
}
