//! pgbench through the proxy: every mode, and the sums that must agree afterwards.

use crossfade_loadtest::pg_client::Login;
use crossfade_loadtest::pg_rig::PgRig;
use crossfade_loadtest::postgres::{Postgres, versions};

/// Branch, teller, account and history sums agree in every state pgbench's TPC-B script can leave.
pub fn assert_balanced(server: &Postgres) {
    let sums = server.login().sql(
        "SELECT (SELECT coalesce(sum(abalance), 0) FROM pgbench_accounts), (SELECT coalesce(sum(bbalance), 0) FROM pgbench_branches), \
         (SELECT coalesce(sum(tbalance), 0) FROM pgbench_tellers), (SELECT coalesce(sum(delta), 0) FROM pgbench_history), \
         (SELECT count(*) FROM pgbench_accounts)",
    );
    let sums: Vec<&str> = sums.split('|').collect();
    assert!(sums[..4].iter().all(|sum| *sum == sums[0]), "accounts, branches, tellers, history: {sums:?}");
    assert!(sums[4].parse::<u64>().unwrap() >= 100_000, "{sums:?}");
}

pub fn initialise(login: &Login, scale: u32) {
    let ran = login.pgbench(&["-i", "-q", "-s", &scale.to_string()]);
    assert_eq!(ran.code, 0, "{} {}", ran.stdout, ran.stderr);
}

/// Checks that nothing failed and that stderr has only greetings; returns the number of transactions.
pub fn judge(ran: &crossfade_loadtest::crossfade::Ran, what: &str) -> u64 {
    let complaint = ran.stderr.lines().find(|line| {
        let line = line.to_lowercase();
        ["error", "fatal", "aborted", "failed", "warning", "could not"].iter().any(|word| line.contains(word))
    });
    assert!(ran.code == 0 && complaint.is_none(), "{what}: {} {}", ran.stdout, ran.stderr);
    assert!(ran.stdout.contains("number of failed transactions: 0 (0.000%)"), "{what}: {}", ran.stdout);
    let line = ran.stdout.lines().find(|line| line.starts_with("number of transactions actually processed"));
    let count = line.and_then(|line| line.rsplit(": ").next()).and_then(|count| count.split('/').next());
    count.and_then(|count| count.trim().parse().ok()).unwrap_or_else(|| panic!("{what}: {}", ran.stdout))
}

#[test]
fn pgbench_in_every_mode() {
    let seconds = std::env::var("PGBENCH_SECONDS").unwrap_or_else(|_| "3".to_owned());
    for version in versions() {
        let rig = PgRig::start(version);
        let login = rig.through();
        initialise(&login, 10);
        for mode in ["simple", "extended", "prepared"] {
            for script in ["tpcb-like", "select-only"] {
                let what = format!("PostgreSQL {} {script} -M {mode}", version.number());
                // -n: a vacuum would empty the history, whose sum is compared below.
                let ran = login.pgbench(&["-n", "-c", "16", "-j", "2", "-T", &seconds, "-M", mode, "-b", script]);
                let count = judge(&ran, &what);
                assert!(count > 16, "{what}: {count} transactions; {}", rig.proxy_says());
                eprintln!("{what}: {count} transactions");
            }
        }
        assert_balanced(&rig.server);
    }
}

/// Connections that come and go, and a script that mixes COPY, LISTEN, cursors and errors that are caught.
#[test]
fn pgbench_reconnects_and_runs_a_script_of_everything() {
    for version in versions() {
        let rig = PgRig::start(version);
        let login = rig.through();
        initialise(&login, 1);
        let ran = login.pgbench(&["-n", "-C", "-c", "8", "-j", "2", "-t", "25", "-S"]);
        assert_eq!(judge(&ran, "with -C"), 200);
        let script = rig.server.directory().join("everything.sql");
        std::fs::write(
            &script,
            "\\set aid random(1, 100000)\nLISTEN somewhere;\nNOTIFY somewhere, 'x';\nBEGIN;\n\
             DECLARE c CURSOR FOR SELECT * FROM pgbench_accounts WHERE aid > :aid ORDER BY aid;\nFETCH 3 FROM c;\nMOVE 2 IN c;\n\
             SAVEPOINT s;\nUPDATE pgbench_accounts SET abalance = abalance + 1 WHERE aid = :aid;\nROLLBACK TO s;\nCOMMIT;\n\
             \\startpipeline\nSELECT 1;\nSELECT abalance FROM pgbench_accounts WHERE aid = :aid;\nSELECT repeat('x', 20000);\n\\endpipeline\n\
             UNLISTEN *;\n",
        )
        .unwrap();
        let file = script.display().to_string();
        let ran = login.pgbench(&["-n", "-c", "8", "-j", "2", "-t", "50", "-M", "extended", "-f", &file]);
        assert_eq!(judge(&ran, "the script"), 400);
        // Several statements in one query, and a block that a query opens and the next closes.
        std::fs::write(&script, "SELECT 1 \\; SELECT 2 \\; BEGIN \\; SELECT 3;\nSELECT 4 \\; COMMIT;\n").unwrap();
        let ran = login.pgbench(&["-n", "-c", "8", "-j", "2", "-t", "50", "-M", "simple", "-f", &file]);
        assert_eq!(judge(&ran, "several statements in one query"), 400);
        assert_balanced(&rig.server);
    }
}
