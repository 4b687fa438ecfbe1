//! The application of the demo: connections that move balances and insert unique tokens, and remember what was acknowledged.
//!
//! Its own thread with a runtime of its own. Half of the workers wait for each reply, half send a whole transaction at once.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use tokio::sync::watch;
use tokio::time::timeout;
use tokio_postgres::types::ToSql;
use tokio_postgres::{Client, Statement};

use super::super::random::Random;
use super::client::{Login, PATIENCE, Sql, connect, describe};

pub const WORKERS: usize = 4;
const ACCOUNTS: i64 = 20;
const OPENING_BALANCE: i64 = 1_000;
/// Pause between two transactions of a worker: a steady application, not a benchmark.
const PACE: Duration = Duration::from_millis(2);
/// Errors kept as text; the rest are counted.
const NOTES_MAX: usize = 5;

/// No unique index on the tokens, so that a token inserted twice is found.
const TABLES: &str = "CREATE TABLE ledger_accounts (id bigint PRIMARY KEY, balance bigint NOT NULL); \
    CREATE TABLE ledger_tokens (token bigint NOT NULL)";
pub const INSERT: &str = "INSERT INTO ledger_tokens (token) VALUES ($1)";
const MOVE: &str = "UPDATE ledger_accounts SET balance = balance + $2 WHERE id = $1";

/// Counters of all workers, shown live.
#[derive(Debug, Default)]
pub struct Tally {
    pub acknowledged: AtomicU64,
    pub errors: AtomicU64,
    /// Longest time between a request and its reply.
    pub longest_wait_us: AtomicU64,
}

/// What the workers know at the end.
#[derive(Debug, Default)]
pub struct Known {
    pub acknowledged: Vec<i64>,
    /// No reply to COMMIT arrived: the token may or may not be there.
    pub unknown: Vec<i64>,
    /// The change of each account by acknowledged transactions.
    pub moved: BTreeMap<i64, i64>,
    pub notes: Vec<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Course {
    Run,
    /// Stop after the transaction under way.
    Finish,
    /// Stop at once: the result is not needed.
    Abandon,
}

/// The running workers; stopped when dropped.
#[derive(Debug)]
pub struct Ledger {
    course: watch::Sender<Course>,
    pub tally: Arc<Tally>,
    thread: Option<JoinHandle<Result<Known, String>>>,
}

/// Makes the tables, as the application would.
pub fn prepare(login: &Login) -> Result<(), String> {
    let sql = Sql::open(login, "ledger")?;
    sql.rows(TABLES)?;
    let fill =
        format!("INSERT INTO ledger_accounts SELECT id, {OPENING_BALANCE} FROM generate_series(1, {ACCOUNTS}) AS id");
    sql.rows(&fill).map(drop)
}

impl Ledger {
    pub fn start(login: &Login, seed: u64) -> Result<Self, String> {
        let (course, watched) = watch::channel(Course::Run);
        let tally = Arc::new(Tally::default());
        let (login, counted) = (login.clone(), Arc::clone(&tally));
        let (ready, is_ready) = std::sync::mpsc::channel();
        let thread = std::thread::Builder::new().name("ledger".to_owned());
        let thread = thread.spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            let runtime = runtime.map_err(|error| format!("runtime: {error}"))?;
            runtime.block_on(async {
                let mut workers = Vec::new();
                for number in 0..WORKERS {
                    workers.push(Worker::log_in(&login, number, seed, &counted).await?);
                }
                let _ = ready.send(());
                let running = workers.into_iter().map(|worker| tokio::spawn(worker.run(watched.clone())));
                let mut all = Known::default();
                for worker in running.collect::<Vec<_>>() {
                    all.add(worker.await.map_err(|error| format!("a worker of the ledger: {error}"))?);
                }
                Ok(all)
            })
        });
        let thread = thread.map_err(|error| format!("ledger: {error}"))?;
        let mut ledger = Self { course, tally, thread: Some(thread) };
        match is_ready.recv() {
            Ok(()) => Ok(ledger),
            Err(_) => Err(ledger.end(Course::Finish).err().unwrap_or_else(|| "the ledger ended at once".to_owned())),
        }
    }

    /// Stops after the transactions under way.
    pub fn finish(mut self) -> Result<Known, String> {
        self.end(Course::Finish)
    }

    fn end(&mut self, course: Course) -> Result<Known, String> {
        // Without a receiver the workers have already ended.
        let _ = self.course.send(course);
        match self.thread.take().map(JoinHandle::join) {
            Some(Ok(result)) => result,
            Some(Err(_)) => Err("the ledger's thread panicked".to_owned()),
            None => Ok(Known::default()),
        }
    }
}

impl Drop for Ledger {
    fn drop(&mut self) {
        let _ = self.end(Course::Abandon);
    }
}

impl Known {
    fn add(&mut self, other: Self) {
        self.acknowledged.extend(other.acknowledged);
        self.unknown.extend(other.unknown);
        self.notes.extend(other.notes);
        for (account, amount) in other.moved {
            *self.moved.entry(account).or_default() += amount;
        }
    }
}

/// One transaction: a token, and an amount from one account to another.
#[derive(Debug, Clone, Copy)]
struct Transfer {
    token: i64,
    /// Account and change; in ascending order of accounts, so that transfers never deadlock.
    legs: [(i64, i64); 2],
}

struct Worker {
    number: usize,
    client: Client,
    insert: Statement,
    change: Statement,
    random: Random,
    tally: Arc<Tally>,
    known: Known,
}

/// How a transaction failed.
enum Failure {
    /// Before COMMIT: no effect is possible.
    Before(String),
    /// COMMIT was sent: the outcome is unknown.
    Unknown(String),
}

impl Worker {
    async fn log_in(login: &Login, number: usize, seed: u64, tally: &Arc<Tally>) -> Result<Self, String> {
        let (client, _driver) = connect(login, "ledger").await?;
        let insert = client.prepare(INSERT).await.map_err(|error| describe(&error))?;
        let change = client.prepare(MOVE).await.map_err(|error| describe(&error))?;
        let random = Random::new(seed + number as u64);
        Ok(Self { number, client, insert, change, random, tally: Arc::clone(tally), known: Known::default() })
    }

    async fn run(mut self, mut course: watch::Receiver<Course>) -> Known {
        let mut sequence = 0;
        while *course.borrow() == Course::Run {
            sequence += 1;
            let transfer = self.draw(sequence);
            let ended = tokio::select! {
                ended = self.transact(transfer) => ended,
                _ = course.wait_for(|course| *course == Course::Abandon) => return self.known,
            };
            match ended {
                Ok(()) => {
                    self.known.acknowledged.push(transfer.token);
                    for (account, amount) in transfer.legs {
                        *self.known.moved.entry(account).or_default() += amount;
                    }
                    self.tally.acknowledged.fetch_add(1, Ordering::Relaxed);
                }
                Err(failure) => {
                    // The state of the connection is unknown too, so this worker ends.
                    self.failed(transfer, failure);
                    break;
                }
            }
            tokio::time::sleep(PACE).await;
        }
        self.known
    }

    fn failed(&mut self, transfer: Transfer, failure: Failure) {
        self.tally.errors.fetch_add(1, Ordering::Relaxed);
        let why = match failure {
            Failure::Before(why) => why,
            Failure::Unknown(why) => {
                self.known.unknown.push(transfer.token);
                why
            }
        };
        if self.known.notes.len() < NOTES_MAX {
            self.known.notes.push(format!("ledger {}: {why}", self.number));
        }
    }

    fn draw(&mut self, sequence: i64) -> Transfer {
        let first = self.random.below(ACCOUNTS as u64) as i64 + 1;
        let second = (first + self.random.below(ACCOUNTS as u64 - 1) as i64) % ACCOUNTS + 1;
        let amount = self.random.below(100) as i64 + 1;
        let mut legs = [(first, -amount), (second, amount)];
        legs.sort_unstable();
        Transfer { token: ((self.number as i64) << 40) | sequence, legs }
    }

    async fn transact(&self, transfer: Transfer) -> Result<(), Failure> {
        let [(first, out), (second, into)] = transfer.legs;
        let client = &self.client;
        if self.number % 2 == 1 {
            let token: [&(dyn ToSql + Sync); 1] = [&transfer.token];
            let one: [&(dyn ToSql + Sync); 2] = [&first, &out];
            let two: [&(dyn ToSql + Sync); 2] = [&second, &into];
            let whole = async {
                // These are polled, and so sent, in this order before the first reply arrives.
                tokio::try_join!(
                    biased;
                    client.batch_execute("BEGIN"),
                    client.execute(&self.insert, &token),
                    client.execute(&self.change, &one),
                    client.execute(&self.change, &two),
                    client.batch_execute("COMMIT"),
                )
            };
            let (_, inserted, one, two, _) = self.timed(whole).await.map_err(Failure::Unknown)?;
            return counted([inserted, one, two]).map_err(Failure::Unknown);
        }
        self.timed(client.batch_execute("BEGIN")).await.map_err(Failure::Before)?;
        let inserted = self.timed(client.execute(&self.insert, &[&transfer.token])).await.map_err(Failure::Before)?;
        let one = self.timed(client.execute(&self.change, &[&first, &out])).await.map_err(Failure::Before)?;
        let two = self.timed(client.execute(&self.change, &[&second, &into])).await.map_err(Failure::Before)?;
        counted([inserted, one, two]).map_err(Failure::Before)?;
        self.timed(client.batch_execute("COMMIT")).await.map_err(Failure::Unknown)
    }

    /// Waits for a reply and records how long it took.
    async fn timed<T>(&self, what: impl Future<Output = Result<T, tokio_postgres::Error>>) -> Result<T, String> {
        let since = Instant::now();
        let answer = timeout(PATIENCE, what).await;
        let waited = u64::try_from(since.elapsed().as_micros()).unwrap_or(u64::MAX);
        self.tally.longest_wait_us.fetch_max(waited, Ordering::Relaxed);
        match answer {
            Ok(answer) => answer.map_err(|error| describe(&error)),
            Err(_) => Err(format!("no answer within {} s", PATIENCE.as_secs())),
        }
    }
}

/// Each statement must have touched one row.
fn counted(rows: [u64; 3]) -> Result<(), String> {
    if rows == [1; 3] { Ok(()) } else { Err(format!("statements touched {rows:?} rows instead of one each")) }
}

/// The server's contents compared with what was acknowledged.
#[derive(Debug, Default)]
pub struct Audit {
    pub found: u64,
    pub lost: u64,
    pub doubled: u64,
    /// Tokens that are there but were neither acknowledged nor of unknown outcome.
    pub surplus: u64,
    pub balance_sum: i64,
    pub balance_sum_expected: i64,
    /// Accounts whose balance does not match the acknowledged transfers.
    pub balances_wrong: u64,
}

/// Reads the server directly.
pub fn audit(direct: &Sql, known: &Known) -> Result<Audit, String> {
    let number = |text: &String| text.parse::<i64>().map_err(|_| format!("{text:?} is not a number"));
    let mut there = BTreeMap::new();
    for row in direct.rows("SELECT token, count(*) FROM ledger_tokens GROUP BY token")? {
        there.insert(number(&row[0])?, number(&row[1])?);
    }
    let mut audit = Audit { balance_sum_expected: ACCOUNTS * OPENING_BALANCE, ..Audit::default() };
    for token in &known.acknowledged {
        match there.remove(token) {
            None => audit.lost += 1,
            Some(1) => audit.found += 1,
            Some(_) => audit.doubled += 1,
        }
    }
    for token in &known.unknown {
        audit.doubled += u64::from(there.remove(token).is_some_and(|count| count > 1));
    }
    audit.surplus = there.len() as u64;
    for row in direct.rows("SELECT id, balance FROM ledger_accounts")? {
        let (account, balance) = (number(&row[0])?, number(&row[1])?);
        audit.balance_sum += balance;
        // With a transaction of unknown outcome, single accounts cannot be checked.
        let moved = known.moved.get(&account).copied().unwrap_or(0);
        audit.balances_wrong += u64::from(known.unknown.is_empty() && balance != OPENING_BALANCE + moved);
    }
    Ok(audit)
}
