//! One connection to a PostgreSQL server for a job: every wait bounded, every error names the endpoint and what to look at.

use std::error::Error as _;
use std::time::Duration;

use tokio::task::JoinHandle;
use tokio::time::timeout;
use tokio_postgres::config::SslMode;
use tokio_postgres::error::SqlState;
use tokio_postgres::{Client, Config, SimpleQueryMessage};
use tokio_postgres_rustls::MakeRustlsConnect;

use crate::error::{JobError, ServerFault};
use ::tls;
use base::model::{Address, Endpoint, EndpointProtocol, TlsMode, limits};

/// Values of one row, in order; `None` = NULL.
pub type Row = Vec<Option<String>>;

/// Closed when dropped.
#[derive(Debug)]
pub struct PostgresClient {
    client: Client,
    driver: JoinHandle<()>,
    who: String,
}

impl Drop for PostgresClient {
    fn drop(&mut self) {
        self.driver.abort();
    }
}

impl PostgresClient {
    /// # Errors
    /// [`JobError::Server`] naming the endpoint, the reason and what to do; never the password.
    pub async fn connect(endpoint: &Endpoint) -> Result<Self, JobError> {
        let who = format!("endpoint {} ({})", endpoint.name, endpoint.address);
        let EndpointProtocol::Postgres { dbname } = &endpoint.protocol else {
            let kind = endpoint.kind().as_str();
            let why = format!("it is of kind {kind}, and this is done on PostgreSQL servers only");
            return Err(JobError::server(who, ServerFault::Kind(why)));
        };
        let unfit = |why: String| JobError::server(&who, ServerFault::Settings(why));
        let config = config(endpoint, dbname.as_deref()).map_err(unfit)?;
        let tls = tls::client_config(&endpoint.tls).map_err(|why| unfit(why.to_string()))?;
        let connecting = config.connect(MakeRustlsConnect::new(tls));
        let (client, connection) = match within(limits::JOB_CONNECT_TIMEOUT, connecting, &who).await? {
            Ok(connected) => connected,
            Err(error) => {
                let why = format!("{}{}", describe(&error), hint(&error, endpoint));
                return Err(JobError::server(who, ServerFault::Connect(why)));
            }
        };
        // How it ends is told by the next query.
        let driver = tokio::spawn(async move { drop(connection.await) });
        Ok(Self { client, driver, who })
    }

    /// The rows of one statement without parameters.
    ///
    /// # Errors
    /// [`JobError::Server`] with the server's words.
    pub async fn rows(&self, sql: &str) -> Result<Vec<Row>, JobError> {
        let answer = within(limits::JOB_REPLY_TIMEOUT, self.client.simple_query(sql), &self.who).await?;
        let messages = answer.map_err(|error| {
            let why = format!("{}; the statement was: {sql}", describe(&error));
            JobError::server(&self.who, ServerFault::Refused(why))
        })?;
        let row = |message: &SimpleQueryMessage| match message {
            SimpleQueryMessage::Row(row) => {
                Some((0..row.len()).map(|column| row.get(column).map(str::to_owned)).collect())
            }
            _ => None,
        };
        Ok(messages.iter().filter_map(row).collect())
    }

    /// As [`Self::rows`]; `None` when this user may not, or the server does not know what is asked for.
    ///
    /// # Errors
    /// [`JobError::Server`] when the server is lost.
    pub async fn rows_if_allowed(&self, sql: &str) -> Result<Option<Vec<Row>>, JobError> {
        match self.rows(sql).await {
            Ok(rows) => Ok(Some(rows)),
            Err(error) if self.client.is_closed() => Err(error),
            Err(_) => Ok(None),
        }
    }
}

async fn within<T>(time: Duration, what: impl Future<Output = T>, who: &str) -> Result<T, JobError> {
    timeout(time, what).await.map_err(|_| JobError::server(who, ServerFault::ConnectTimeout(time)))
}

fn config(endpoint: &Endpoint, dbname: Option<&str>) -> Result<Config, String> {
    let mut config = Config::new();
    config.application_name("crossfade").connect_timeout(limits::JOB_CONNECT_TIMEOUT);
    match &endpoint.address {
        Address::Tcp { host, port } => {
            config.host(host).port(*port);
        }
        Address::Unix(path) => {
            let port = path.file_name().and_then(|name| name.to_str()?.strip_prefix(".s.PGSQL.")?.parse::<u16>().ok());
            let (Some(port), Some(directory)) = (port, path.parent()) else {
                return Err(format!("{} is not the socket of a PostgreSQL server", path.display()));
            };
            config.host_path(directory).port(port);
        }
    }
    if let Some(login) = &endpoint.credentials {
        if let Some(user) = &login.user {
            config.user(user);
        }
        if !login.password.expose().is_empty() {
            config.password(login.password.expose());
        }
    }
    if let Some(dbname) = dbname {
        config.dbname(dbname);
    }
    config.ssl_mode(match endpoint.tls.mode {
        TlsMode::Disable => SslMode::Disable,
        TlsMode::Prefer => SslMode::Prefer,
        TlsMode::Require | TlsMode::VerifyCa | TlsMode::VerifyFull => SslMode::Require,
    });
    Ok(config)
}

/// The server's own words, or every cause in a row: the driver's errors say little by themselves.
fn describe(error: &tokio_postgres::Error) -> String {
    if let Some(error) = error.as_db_error() {
        return format!("{}: {} (SQLSTATE {})", error.severity(), error.message(), error.code().code());
    }
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let more = error.to_string();
        if !text.contains(&more) {
            text = format!("{text}: {more}");
        }
        cause = error.source();
    }
    text
}

fn hint(error: &tokio_postgres::Error, endpoint: &Endpoint) -> &'static str {
    match error.code() {
        Some(&SqlState::INVALID_PASSWORD | &SqlState::INVALID_AUTHORIZATION_SPECIFICATION) => {
            ": look at user and password in the endpoint's url, and at pg_hba.conf on the server"
        }
        Some(&SqlState::INVALID_CATALOG_NAME) => ": name an existing database at the end of the endpoint's url",
        Some(_) => "",
        None => match endpoint.tls.mode {
            TlsMode::Disable | TlsMode::Prefer => "",
            TlsMode::Require | TlsMode::VerifyCa | TlsMode::VerifyFull => {
                " (the url asks for TLS: sslmode and sslrootcert must fit the server's certificate)"
            }
        },
    }
}
