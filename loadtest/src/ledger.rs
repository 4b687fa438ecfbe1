//! Clients that count: each puts unique tokens and a counter into one transaction and remembers what was acknowledged. Afterwards
//! every acknowledged token must be there exactly once, and nothing more than what has an unknown outcome.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use tokio_postgres::{Client, Error, Statement};

use crate::pg_client::Login;
use crate::pg_rust::connect;

/// What one client has recorded at the end.
#[derive(Debug, Default)]
pub struct Known {
    pub client: usize,
    pub acknowledged: Vec<String>,
    /// Tokens whose reply never arrived: each may be there once or not at all.
    pub unknown: Vec<String>,
    /// The first few errors.
    pub messages: Vec<String>,
    pub latency_max: Duration,
}

/// Running clients, until [`Ledger::finish`] or until dropped.
#[derive(Debug)]
pub struct Ledger {
    stop: Arc<AtomicBool>,
    pub acknowledged: Arc<AtomicU64>,
    pub errors: Arc<AtomicU64>,
    clients: u64,
    /// Clients that have had a token acknowledged.
    begun: Arc<AtomicU64>,
    thread: Option<JoinHandle<Vec<Known>>>,
}

/// How a client writes; every way must be safe.
#[derive(Debug, Clone, Copy)]
enum Way {
    /// BEGIN, prepared statements, COMMIT, each with a reply of its own.
    Block,
    /// BEGIN to COMMIT in one simple query.
    OneQuery,
    /// Two statements in one simple query without BEGIN.
    Implicit,
    /// One prepared statement that commits itself.
    Alone,
    /// Four of those, sent before the first reply.
    Pipelined,
}

const WAYS: [Way; 5] = [Way::Block, Way::OneQuery, Way::Implicit, Way::Alone, Way::Pipelined];

/// One statement, so that insert and count are one transaction without a block.
const TOGETHER: &str = "WITH counted AS (UPDATE ledger_counters SET n = n + 1 WHERE client = $1::int8) \
    INSERT INTO ledger_tokens (client, token) VALUES ($1::int8, $2::text)";

/// The tables, empty; no unique index, so that a token inserted twice is found.
pub fn prepare(login: &Login, clients: usize) {
    login.execute(&format!(
        "DROP TABLE IF EXISTS ledger_tokens, ledger_counters; CREATE TABLE ledger_tokens (client int8, token text); \
         CREATE TABLE ledger_counters (client int8 PRIMARY KEY, n int8 NOT NULL); \
         INSERT INTO ledger_counters SELECT c, 0 FROM generate_series(0, {clients} - 1) c"
    ));
}

impl Ledger {
    /// # Panics
    /// When the runtime cannot be made.
    #[must_use]
    pub fn start(login: &Login, clients: usize) -> Self {
        let begun: Arc<AtomicU64> = Arc::default();
        let (stop, acknowledged, errors) = (Arc::default(), Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
        let shared = Shared {
            login: login.clone(),
            stop: Arc::clone(&stop),
            acknowledged: Arc::clone(&acknowledged),
            errors: Arc::clone(&errors),
            begun: Arc::clone(&begun),
        };
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
            runtime.block_on(async {
                let all: Vec<_> = (0..clients).map(|client| tokio::spawn(run(client, shared.clone()))).collect();
                let mut known = Vec::new();
                for one in all {
                    known.push(one.await.expect("a client does not panic"));
                }
                known
            })
        });
        Self { stop, acknowledged, errors, clients: clients as u64, begun, thread: Some(thread) }
    }

    /// Waits until this many more tokens, and at least one of each client, were acknowledged.
    pub fn progress(&self, more: u64) {
        let goal = self.acknowledged.load(Ordering::Relaxed) + more;
        crate::wait::until("acknowledged tokens", Duration::from_secs(60), || {
            let (now, begun) = (self.acknowledged.load(Ordering::Relaxed), self.begun.load(Ordering::Relaxed));
            let there = now >= goal && begun == self.clients;
            if there { Ok(()) } else { Err(format!("{now} of {goal} by {begun} of {} clients", self.clients)) }
        });
    }

    /// # Panics
    /// When a client panicked.
    #[must_use]
    pub fn finish(mut self) -> Vec<Known> {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.take().expect("not finished yet").join().expect("the clients")
    }
}

impl Drop for Ledger {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

#[derive(Debug, Clone)]
struct Shared {
    login: Login,
    stop: Arc<AtomicBool>,
    acknowledged: Arc<AtomicU64>,
    errors: Arc<AtomicU64>,
    begun: Arc<AtomicU64>,
}

struct Open {
    client: Client,
    insert: Statement,
    count: Statement,
    together: Statement,
}

async fn open(number: usize, login: &Login) -> Result<Open, Error> {
    let (client, _notices) = connect(login, &format!("ledger-{number}")).await?;
    let insert = client.prepare("INSERT INTO ledger_tokens (client, token) VALUES ($1::int8, $2::text)").await?;
    let count = client.prepare("UPDATE ledger_counters SET n = n + 1 WHERE client = $1::int8").await?;
    let together = client.prepare(TOGETHER).await?;
    Ok(Open { client, insert, count, together })
}

async fn run(number: usize, shared: Shared) -> Known {
    let mut known = Known { client: number, ..Known::default() };
    let way = WAYS[number % WAYS.len()];
    let mut connection: Option<Open> = None;
    let mut next = 0u64;
    while !shared.stop.load(Ordering::Relaxed) {
        let Some(there) = &mut connection else {
            match open(number, &shared.login).await {
                Ok(opened) => connection = Some(opened),
                Err(error) => {
                    failed(&mut known, &shared, &error);
                    tokio::time::sleep(Duration::from_millis(10)).await;
                }
            }
            continue;
        };
        let tokens: Vec<String> = match way {
            Way::Pipelined => (next..next + 4).map(|n| format!("{number}-{n}")).collect(),
            _ => vec![format!("{number}-{next}")],
        };
        next += tokens.len() as u64;
        let began = Instant::now();
        let outcomes = write(way, there, number as i64, &tokens).await;
        known.latency_max = known.latency_max.max(began.elapsed());
        for (token, outcome) in tokens.into_iter().zip(outcomes) {
            match outcome {
                Ok(()) => {
                    shared.acknowledged.fetch_add(1, Ordering::Relaxed);
                    if known.acknowledged.is_empty() {
                        shared.begun.fetch_add(1, Ordering::Relaxed);
                    }
                    known.acknowledged.push(token);
                }
                Err(error) => {
                    known.unknown.push(token);
                    failed(&mut known, &shared, &error);
                    connection = None;
                }
            }
        }
    }
    known
}

fn failed(known: &mut Known, shared: &Shared, error: &Error) {
    shared.errors.fetch_add(1, Ordering::Relaxed);
    if known.messages.len() < 5 {
        let told = error.as_db_error().map_or_else(|| error.to_string(), ToString::to_string);
        known.messages.push(told);
    }
}

/// One outcome for each token.
async fn write(way: Way, open: &mut Open, client: i64, tokens: &[String]) -> Vec<Result<(), Error>> {
    let token = &tokens[0];
    let insert = format!("INSERT INTO ledger_tokens (client, token) VALUES ({client}, '{token}')");
    let count = format!("UPDATE ledger_counters SET n = n + 1 WHERE client = {client}");
    match way {
        Way::Block => vec![block(open, client, token).await],
        Way::OneQuery => vec![open.client.batch_execute(&format!("BEGIN; {insert}; {count}; COMMIT")).await],
        Way::Implicit => vec![open.client.batch_execute(&format!("{insert}; {count}")).await],
        Way::Alone => vec![open.client.execute(&open.together, &[&client, token]).await.map(drop)],
        Way::Pipelined => {
            let sent = tokens.iter().map(|token| {
                let (asked, statement) = (&open.client, &open.together);
                async move { asked.execute(statement, &[&client, token]).await.map(drop) }
            });
            futures_util::future::join_all(sent).await
        }
    }
}

async fn block(open: &mut Open, client: i64, token: &String) -> Result<(), Error> {
    let transaction = open.client.transaction().await?;
    transaction.execute(&open.insert, &[&client, token]).await?;
    transaction.execute(&open.count, &[&client]).await?;
    transaction.commit().await
}

/// Acknowledged tokens that are not there exactly once, and surplus tokens, as sentences. `login` should lead to the server itself.
#[must_use]
pub fn losses(login: &Login, known: &[Known]) -> Vec<String> {
    let mut wrong = Vec::new();
    let listing = login.sql("SELECT token, count(*) FROM ledger_tokens GROUP BY token");
    let mut found: BTreeMap<&str, &str> = listing.lines().filter_map(|line| line.split_once('|')).collect();
    let counters = login.sql(
        "SELECT client, n, (SELECT count(*) FROM ledger_tokens t WHERE t.client = c.client) FROM ledger_counters c",
    );
    for line in counters.lines() {
        let numbers: Vec<&str> = line.split('|').collect();
        if numbers[1] != numbers[2] {
            wrong.push(format!("client {}: counter {}, tokens {}", numbers[0], numbers[1], numbers[2]));
        }
    }
    for client in known {
        for token in &client.acknowledged {
            match found.remove(token.as_str()) {
                Some("1") => {}
                Some(times) => wrong.push(format!("token {token} is there {times} times")),
                None => wrong.push(format!("token {token} was acknowledged and is lost")),
            }
        }
        for token in &client.unknown {
            if let Some(times) = found.remove(token.as_str()).filter(|times| *times != "1") {
                wrong.push(format!("token {token} (unknown outcome) is there {times} times"));
            }
        }
    }
    wrong.extend(found.keys().map(|token| format!("token {token} was never written by a client")));
    wrong
}
