//! One look at a PostgreSQL server and at one database of it. Reads only. Lives on the movers' thread.

use std::collections::BTreeMap;
use std::time::{SystemTime, UNIX_EPOCH};

use tokio::time::Instant;

use super::client::{PostgresClient, Row};
use crate::error::JobError;
use base::model::{Endpoint, Secret};

/// Settings that are compared between two servers, beside those with a field of their own.
const SETTINGS: &str = "'standard_conforming_strings','DateStyle','IntervalStyle','TimeZone','default_transaction_isolation',\
    'bytea_output','extra_float_digits','lc_messages','lc_monetary','lc_numeric','lc_time','max_prepared_transactions',\
    'max_connections','password_encryption','wal_level','max_locks_per_transaction','max_replication_slots','max_wal_senders'";

/// What one look at a server found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PostgresFacts {
    /// As "15.14 (Debian 15.14-0+deb12u1)".
    pub version: String,
    /// As 150014.
    pub version_number: u32,
    /// The same for every copy of one cluster; absent when this user may not ask.
    pub system_identifier: Option<String>,
    pub started_at: String,
    pub database: String,
    pub database_bytes: u64,
    pub encoding: String,
    pub collate: String,
    pub ctype: String,
    /// "libc", "icu" or "builtin"; before PostgreSQL 15 always "libc".
    pub locale_provider: String,
    pub collation_version: Option<String>,
    pub user: String,
    pub superuser: bool,
    pub createdb: bool,
    pub createrole: bool,
    pub replication: bool,
    /// A standby takes no writes.
    pub in_recovery: bool,
    pub tls: bool,
    pub client_connections: u64,
    /// By their names in pg_settings.
    pub settings: BTreeMap<String, String>,
    /// Installed in this database, with versions.
    pub extensions: BTreeMap<String, String>,
    /// That could be installed, with the version CREATE EXTENSION would choose.
    pub extensions_available: BTreeMap<String, String>,
    /// Roles that may log in.
    pub login_roles: Vec<String>,
    /// Their stored secrets, as far as this user may read them.
    pub verifiers: Option<BTreeMap<String, Option<Secret>>>,
    pub large_objects: u64,
    pub unlogged_tables: u64,
    pub sequences: u64,
    pub tables: u64,
    /// Tables whose updates logical replication could not carry.
    pub tables_without_identity: u64,
    pub ping_us: u64,
    /// Local clock minus server clock, milliseconds.
    pub clock_skew_ms: i64,
}

impl PostgresFacts {
    /// Empty when the server does not have it.
    #[must_use]
    pub fn setting(&self, name: &str) -> &str {
        self.settings.get(name).map_or("", String::as_str)
    }

    #[must_use]
    pub fn max_connections(&self) -> u64 {
        self.setting("max_connections").parse().unwrap_or(0)
    }
}

fn text(row: &Row, column: usize) -> String {
    row.get(column).cloned().flatten().unwrap_or_default()
}

fn number<T: std::str::FromStr + Default>(row: &Row, column: usize) -> T {
    text(row, column).parse().unwrap_or_default()
}

fn flag(row: &Row, column: usize) -> bool {
    text(row, column) == "t"
}

/// # Errors
/// [`JobError::Server`] naming the endpoint and what to do (unreachable, wrong password, not a PostgreSQL).
pub async fn check(endpoint: &Endpoint) -> Result<PostgresFacts, JobError> {
    let client = PostgresClient::connect(endpoint).await?;
    let mut facts = PostgresFacts::default();
    server(&client, &mut facts).await?;
    database(&client, &mut facts).await?;
    roles(&client, &mut facts).await?;
    contents(&client, &mut facts).await?;
    (facts.ping_us, facts.clock_skew_ms) = measure(&client).await?;
    Ok(facts)
}

async fn server(client: &PostgresClient, facts: &mut PostgresFacts) -> Result<(), JobError> {
    let sql = "SELECT current_setting('server_version'), current_setting('server_version_num'), pg_is_in_recovery(), \
               pg_postmaster_start_time(), coalesce((SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()), false), \
               (SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'client backend')";
    if let Some(row) = client.rows(sql).await?.first() {
        facts.version = text(row, 0);
        facts.version_number = number(row, 1);
        facts.in_recovery = flag(row, 2);
        facts.started_at = text(row, 3);
        facts.tls = flag(row, 4);
        facts.client_connections = number(row, 5);
    }
    let identifier = client.rows_if_allowed("SELECT system_identifier FROM pg_control_system()").await?;
    facts.system_identifier = identifier.and_then(|rows| rows.first().map(|row| text(row, 0)));
    let sql = format!("SELECT name, coalesce(reset_val, setting) FROM pg_settings WHERE name IN ({SETTINGS})");
    facts.settings = pairs(&client.rows(&sql).await?);
    Ok(())
}

fn pairs(rows: &[Row]) -> BTreeMap<String, String> {
    rows.iter().map(|row| (text(row, 0), text(row, 1))).collect()
}

async fn database(client: &PostgresClient, facts: &mut PostgresFacts) -> Result<(), JobError> {
    let provider = match facts.version_number {
        150_000.. => "CASE datlocprovider WHEN 'i' THEN 'icu' WHEN 'b' THEN 'builtin' ELSE 'libc' END, datcollversion",
        _ => "'libc', NULL",
    };
    let sql = format!(
        "SELECT datname, pg_database_size(oid), pg_encoding_to_char(encoding), datcollate, datctype, {provider} \
         FROM pg_database WHERE datname = current_database()"
    );
    if let Some(row) = client.rows(&sql).await?.first() {
        facts.database = text(row, 0);
        facts.database_bytes = number(row, 1);
        facts.encoding = text(row, 2);
        facts.collate = text(row, 3);
        facts.ctype = text(row, 4);
        facts.locale_provider = text(row, 5);
        facts.collation_version = row.get(6).cloned().flatten();
    }
    facts.extensions = pairs(&client.rows("SELECT extname, extversion FROM pg_extension").await?);
    let available = "SELECT name, coalesce(default_version, '') FROM pg_available_extensions";
    facts.extensions_available = pairs(&client.rows(available).await?);
    Ok(())
}

async fn roles(client: &PostgresClient, facts: &mut PostgresFacts) -> Result<(), JobError> {
    let sql = "SELECT rolname, rolsuper, rolcreatedb, rolcreaterole, rolreplication FROM pg_roles WHERE rolname = current_user";
    if let Some(row) = client.rows(sql).await?.first() {
        facts.user = text(row, 0);
        facts.superuser = flag(row, 1);
        facts.createdb = flag(row, 2);
        facts.createrole = flag(row, 3);
        facts.replication = flag(row, 4);
    }
    let roles = client.rows("SELECT rolname FROM pg_roles WHERE rolcanlogin ORDER BY rolname").await?;
    facts.login_roles = roles.iter().map(|row| text(row, 0)).collect();
    let secrets = client.rows_if_allowed("SELECT rolname, rolpassword FROM pg_authid WHERE rolcanlogin").await?;
    let secret = |row: &Row| {
        let secret = row.get(1).cloned().flatten().map(|secret| Secret::new(secret.as_bytes()));
        (text(row, 0), secret)
    };
    facts.verifiers = secrets.map(|rows| rows.iter().map(secret).collect());
    Ok(())
}

async fn contents(client: &PostgresClient, facts: &mut PostgresFacts) -> Result<(), JobError> {
    let own = "n.nspname NOT LIKE 'pg\\_%' AND n.nspname <> 'information_schema'";
    let sql = format!(
        "SELECT (SELECT count(*) FROM pg_largeobject_metadata), \
         count(*) FILTER (WHERE c.relkind = 'r' AND c.relpersistence = 'u'), \
         count(*) FILTER (WHERE c.relkind = 'S'), \
         count(*) FILTER (WHERE c.relkind IN ('r', 'p')), \
         count(*) FILTER (WHERE c.relkind = 'r' AND c.relpersistence = 'p' AND (c.relreplident = 'n' OR c.relreplident = 'd' \
            AND NOT EXISTS (SELECT 1 FROM pg_index i WHERE i.indrelid = c.oid AND i.indisprimary))) \
         FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace WHERE {own}"
    );
    if let Some(row) = client.rows(&sql).await?.first() {
        facts.large_objects = number(row, 0);
        facts.unlogged_tables = number(row, 1);
        facts.sequences = number(row, 2);
        facts.tables = number(row, 3);
        facts.tables_without_identity = number(row, 4);
    }
    Ok(())
}

/// The best of a few round trips, and the clock difference seen in the quickest.
async fn measure(client: &PostgresClient) -> Result<(u64, i64), JobError> {
    let (mut ping_us, mut skew) = (u64::MAX, 0);
    for _ in 0..5 {
        let started = Instant::now();
        let rows = client.rows("SELECT (extract(epoch FROM clock_timestamp()) * 1000)::bigint").await?;
        let took_us = u64::try_from(started.elapsed().as_micros()).unwrap_or(u64::MAX);
        if took_us < ping_us {
            ping_us = took_us;
            let here = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_millis();
            let here = i64::try_from(here).unwrap_or(i64::MAX);
            let half = i64::try_from(took_us / 2000).unwrap_or(0);
            skew = rows.first().map_or(0, |row| here - half - number::<i64>(row, 0));
        }
    }
    Ok((ping_us, skew))
}
