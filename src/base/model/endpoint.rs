//! One database server Crossfade can connect to, and how its URL is read.

use std::fmt;
use std::path::PathBuf;

use super::ids::EndpointName;
use super::plan::ProtocolKind;
use super::postgres_url;
use super::tls::ClientTls;

/// A password. Never printed: its `Debug` and `Display` show stars.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Secret(Vec<u8>);

impl Secret {
    #[must_use]
    pub fn new(bytes: &[u8]) -> Self {
        Self(bytes.to_vec())
    }

    /// The bytes themselves, for a handshake and for nothing else.
    #[must_use]
    pub fn expose(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

/// What a login needs. `user` is absent for the server's default user (Redis only). For PostgreSQL an empty password means that there
/// is none: the server must let the user in without (trust, peer, a certificate).
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Credentials {
    pub user: Option<String>,
    pub password: Secret,
}

/// Where the server listens.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Address {
    Tcp { host: String, port: u16 },
    Unix(PathBuf),
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp { host, port } => write!(f, "{host}:{port}"),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

/// One server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Endpoint {
    pub name: EndpointName,
    pub protocol: EndpointProtocol,
    pub address: Address,
    pub credentials: Option<Credentials>,
    pub tls: ClientTls,
}

/// What a server speaks, with what only a server of that kind has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum EndpointProtocol {
    Redis {
        /// The logical database that Crossfade's own connections select, 0 to 15.
        database: u32,
    },
    Postgres {
        /// The database of Crossfade's own connections; `None` = the one named like the user, as in libpq.
        dbname: Option<String>,
    },
}

impl EndpointProtocol {
    #[must_use]
    pub fn kind(&self) -> ProtocolKind {
        match self {
            Self::Redis { .. } => ProtocolKind::Redis,
            Self::Postgres { .. } => ProtocolKind::Postgres,
        }
    }
}

/// Why an endpoint URL was refused. Never contains the URL itself, which may hold a password.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UrlError(pub(super) String);

impl fmt::Display for UrlError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for UrlError {}

pub(super) fn refuse<T>(why: impl Into<String>) -> Result<T, UrlError> {
    Err(UrlError(why.into()))
}

impl Endpoint {
    #[must_use]
    pub fn kind(&self) -> ProtocolKind {
        self.protocol.kind()
    }

    /// Reads `redis://[user][:password]@host[:port][/db]` and `unix:///path[?db=N]` (`redis+unix` too); for PostgreSQL what libpq
    /// reads: `postgres://user[:password]@host[:port]/dbname?sslmode=...&sslrootcert=...` (`postgresql://` too; see `postgres_url.rs`).
    ///
    /// # Errors
    /// [`UrlError`] naming the part that is wrong and the form expected; never the password.
    pub fn from_url(name: EndpointName, kind: ProtocolKind, url: &str) -> Result<Self, UrlError> {
        let Some((scheme, rest)) = url.split_once("://") else {
            return refuse(match kind {
                ProtocolKind::Redis => "the url has no scheme: write redis://host:port/0 or unix:///path",
                ProtocolKind::Postgres => "the url has no scheme: write postgres://user:password@host:5432/dbname",
            });
        };
        match (kind, scheme) {
            (ProtocolKind::Redis, "redis") => Self::from_tcp(name, rest),
            (ProtocolKind::Redis, "unix" | "redis+unix") => Self::from_unix(name, rest),
            (ProtocolKind::Redis, "rediss") => {
                refuse("TLS (rediss://) is not carried yet: use redis:// over a trusted network or a local TLS tunnel")
            }
            (ProtocolKind::Postgres, "postgres" | "postgresql") => postgres_url::read(name, rest),
            (ProtocolKind::Postgres, other) => {
                refuse(format!("scheme {other:?} does not fit kind \"postgres\": use postgres:// or postgresql://"))
            }
            (ProtocolKind::Redis, other) => {
                refuse(format!("scheme {other:?} does not fit kind \"redis\": use redis:// or unix://"))
            }
        }
    }

    fn from_tcp(name: EndpointName, rest: &str) -> Result<Self, UrlError> {
        let (authority, path) = rest.split_once('/').unwrap_or((rest, ""));
        let (login, place) = match authority.rsplit_once('@') {
            Some((login, place)) => (Some(login), place),
            None => (None, authority),
        };
        let (host, port) = split_host_port(place, "6379", "redis://host:port/0")?;
        let database = if path.is_empty() { 0 } else { parse_database(path)? };
        let credentials = login.map(parse_login).transpose()?.flatten();
        Ok(Self {
            name,
            protocol: EndpointProtocol::Redis { database },
            address: Address::Tcp { host, port },
            credentials,
            tls: ClientTls::disabled(),
        })
    }

    fn from_unix(name: EndpointName, rest: &str) -> Result<Self, UrlError> {
        let (path, query) = rest.split_once('?').unwrap_or((rest, ""));
        if !path.starts_with('/') {
            return refuse("a unix url needs an absolute path: unix:///run/redis.sock");
        }
        let database = match query.strip_prefix("db=") {
            Some(db) => parse_database(db)?,
            None if query.is_empty() => 0,
            None => return refuse("a unix url takes only ?db=N"),
        };
        Ok(Self {
            name,
            protocol: EndpointProtocol::Redis { database },
            address: Address::Unix(PathBuf::from(path)),
            credentials: None,
            tls: ClientTls::disabled(),
        })
    }
}

/// `default_port` when the url has none; `example` for the error.
pub(super) fn split_host_port(place: &str, default_port: &str, example: &str) -> Result<(String, u16), UrlError> {
    let (host, port) = match place.rsplit_once(':') {
        Some((host, port)) if !host.ends_with(':') && (!host.contains(':') || host.starts_with('[')) => (host, port),
        _ => (place, default_port),
    };
    let host = host.trim_start_matches('[').trim_end_matches(']');
    if host.is_empty() {
        return refuse(format!("the url has no host: write {example}"));
    }
    Ok((host.to_owned(), parse_port(port)?))
}

pub(super) fn parse_port(port: &str) -> Result<u16, UrlError> {
    match port.parse::<u16>() {
        Ok(port) if port != 0 => Ok(port),
        _ => refuse(format!("port {port:?} is not a number from 1 to 65535")),
    }
}

fn parse_database(text: &str) -> Result<u32, UrlError> {
    match text.trim_end_matches('/').parse::<u32>() {
        Ok(db) if db <= 65_535 => Ok(db),
        _ => refuse(format!("database {text:?} is not a number from 0 to 65535")),
    }
}

fn parse_login(login: &str) -> Result<Option<Credentials>, UrlError> {
    let (user, password) = login.split_once(':').unwrap_or((login, ""));
    let user = percent_decode(user)?;
    let password = percent_decode(password)?;
    if password.is_empty() {
        return if user.is_empty() {
            Ok(None)
        } else {
            refuse("the url names a user but no password: redis://user:password@host")
        };
    }
    let user = if user.is_empty() {
        None
    } else {
        Some(String::from_utf8(user).map_err(|_| UrlError("the user name is not UTF-8".to_owned()))?)
    };
    Ok(Some(Credentials { user, password: Secret::new(&password) }))
}

pub(super) fn percent_decode(text: &str) -> Result<Vec<u8>, UrlError> {
    let bytes = text.as_bytes();
    let mut out = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while at < bytes.len() {
        if bytes[at] == b'%' {
            let hex = bytes.get(at + 1..at + 3).and_then(|pair| std::str::from_utf8(pair).ok());
            match hex.and_then(|hex| u8::from_str_radix(hex, 16).ok()) {
                Some(byte) => out.push(byte),
                None => return refuse("a '%' in the url must be followed by two hex digits"),
            }
            at += 3;
        } else {
            out.push(bytes[at]);
            at += 1;
        }
    }
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(url: &str) -> Result<Endpoint, UrlError> {
        Endpoint::from_url(EndpointName::new("e").unwrap(), ProtocolKind::Redis, url)
    }

    #[test]
    fn urls_are_read_whole() {
        let full = read("redis://user:p%40ss@10.0.0.1:6380/3").unwrap();
        assert_eq!(full.address, Address::Tcp { host: "10.0.0.1".into(), port: 6380 });
        assert_eq!(full.protocol, EndpointProtocol::Redis { database: 3 });
        let login = full.credentials.unwrap();
        assert_eq!((login.user.as_deref(), login.password.expose()), (Some("user"), b"p@ss".as_slice()));
        assert_eq!(read("redis://:pw@h").unwrap().credentials.unwrap().user, None);
        assert_eq!(read("redis://[::1]:7000").unwrap().address, Address::Tcp { host: "::1".into(), port: 7000 });
        assert_eq!(read("unix:///run/r.sock?db=2").unwrap().protocol, EndpointProtocol::Redis { database: 2 });
    }

    #[test]
    fn a_bad_url_is_refused_without_showing_the_password() {
        for bad in [
            "nonsense",
            "http://h",
            "redis://u:hunter2@h:99999",
            "redis://u:hunter2@h/x",
            "redis://user@h",
            "rediss://h",
            "unix://r",
            "redis://:%zz@h",
        ] {
            let error = read(bad).expect_err(bad).to_string();
            assert!(!error.contains("hunter2"), "{error}");
        }
        assert_eq!(format!("{:?}", Secret::new(b"hunter2")), "***");
    }
}
