//! Parses the URL of an endpoint. PostgreSQL's forms are in `postgres_url`.

use std::path::PathBuf;

use super::endpoint::{Address, Credentials, Endpoint, EndpointProtocol, Secret};
use super::ids::EndpointName;
use super::kind::ProtocolKind;
use super::postgres_url;
use super::tls::ClientTls;
use super::url_parts::{UrlError, percent_decode, refuse, split_host_port};

impl Endpoint {
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
            (ProtocolKind::Redis, "rediss") => refuse(
                "TLS (rediss://) is not supported yet: use redis:// over a trusted network or a local TLS tunnel",
            ),
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
