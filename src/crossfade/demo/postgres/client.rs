//! The demo's own PostgreSQL clients: an application's driver, used as an application would.

use std::error::Error as _;
use std::time::Duration;

use tokio::runtime::Runtime;
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tokio_postgres::{Client, NoTls, SimpleQueryMessage};

/// Longer than any statement of a healthy demo takes.
pub const PATIENCE: Duration = Duration::from_secs(30);
const CONNECT_PATIENCE: Duration = Duration::from_secs(10);

/// A user and the address to log in to.
#[derive(Debug, Clone)]
pub struct Login {
    pub port: u16,
    pub user: String,
    pub password: String,
    pub database: String,
}

/// Connects. The driver task ends with its runtime, or when the client is dropped.
pub async fn connect(login: &Login, application: &str) -> Result<(Client, JoinHandle<()>), String> {
    let mut config = tokio_postgres::Config::new();
    config.host("127.0.0.1").port(login.port).user(&login.user).password(&login.password).dbname(&login.database);
    config.application_name(application);
    let connecting = timeout(CONNECT_PATIENCE, config.connect(NoTls)).await;
    let (client, connection) = connecting
        .map_err(|_| format!("no answer at log-in within {} s", CONNECT_PATIENCE.as_secs()))?
        .map_err(|error| describe(&error))?;
    // An error of the connection is returned by the next statement.
    let driver = tokio::spawn(async move { drop(connection.await) });
    Ok((client, driver))
}

/// The server's error text, or all causes in a row.
pub fn describe(error: &tokio_postgres::Error) -> String {
    if let Some(error) = error.as_db_error() {
        return format!("{}: {} (SQLSTATE {})", error.severity(), error.message(), error.code().code());
    }
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}

/// A connection for one thread, one statement at a time; every wait bounded.
#[derive(Debug)]
pub struct Sql {
    client: Client,
    runtime: Runtime,
}

impl Sql {
    pub fn open(login: &Login, application: &str) -> Result<Self, String> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let runtime = runtime.map_err(|error| format!("runtime: {error}"))?;
        let (client, _driver) = runtime.block_on(connect(login, application))?;
        Ok(Self { client, runtime })
    }

    /// The rows of the last result of `sql`; NULL is an empty text.
    pub fn rows(&self, sql: &str) -> Result<Vec<Vec<String>>, String> {
        let asked = self.runtime.block_on(async { timeout(PATIENCE, self.client.simple_query(sql)).await });
        let answer = asked
            .map_err(|_| format!("no answer within {} s to {sql}", PATIENCE.as_secs()))?
            .map_err(|error| format!("{}: statement: {sql}", describe(&error)))?;
        let row = |message: &SimpleQueryMessage| match message {
            SimpleQueryMessage::Row(row) => {
                Some((0..row.len()).map(|column| row.get(column).unwrap_or_default().to_owned()).collect())
            }
            _ => None,
        };
        Ok(answer.iter().filter_map(row).collect())
    }

    /// As [`Sql::rows`], for statements that answer one row of whole numbers.
    pub fn numbers(&self, sql: &str) -> Result<Vec<i64>, String> {
        let rows = self.rows(sql)?;
        let row = rows.first().ok_or_else(|| format!("no row: statement: {sql}"))?;
        row.iter().map(|text| text.parse().map_err(|_| format!("{text:?} is not a number: statement: {sql}"))).collect()
    }
}
