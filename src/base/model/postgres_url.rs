//! Parses the URL of a PostgreSQL endpoint: libpq's form, with the parameters Crossfade knows and no others.

use std::path::PathBuf;

use super::endpoint::{Address, Credentials, Endpoint, EndpointProtocol, Secret};
use super::ids::EndpointName;
use super::tls::{ClientTls, TlsMode};
use super::url_parts::{UrlError, parse_port, percent_decode, refuse, split_host_port};

const EXAMPLE: &str = "postgres://user:password@host:5432/dbname?sslmode=verify-full&sslrootcert=/path/ca.pem";
const PORT: &str = "5432";

/// What may follow the `?`.
#[derive(Debug, Default)]
struct Parameters {
    host: Option<String>,
    port: Option<u16>,
    sslmode: Option<TlsMode>,
    sslrootcert: Option<PathBuf>,
}

/// `rest` is what follows `postgres://`.
pub fn read(name: EndpointName, rest: &str) -> Result<Endpoint, UrlError> {
    let (front, query) = rest.split_once('?').unwrap_or((rest, ""));
    let (authority, dbname) = front.split_once('/').unwrap_or((front, ""));
    let (login, place) = match authority.rsplit_once('@') {
        Some((login, place)) => (login, place),
        None => ("", authority),
    };
    let parameters = Parameters::read(query)?;
    let address = read_address(place, &parameters)?;
    let tls = read_tls(&address, parameters)?;
    let dbname = text(dbname, "the database name")?;
    Ok(Endpoint {
        name,
        protocol: EndpointProtocol::Postgres { dbname: Some(dbname).filter(|dbname| !dbname.is_empty()) },
        address,
        credentials: read_login(login)?,
        tls,
    })
}

/// Percent-decoded UTF-8.
fn text(encoded: &str, what: &str) -> Result<String, UrlError> {
    let text = String::from_utf8(percent_decode(encoded)?).map_err(|_| UrlError(format!("{what} is not UTF-8")))?;
    if text.contains('\0') { refuse(format!("{what} holds a zero byte")) } else { Ok(text) }
}

impl Parameters {
    fn read(query: &str) -> Result<Self, UrlError> {
        let mut parameters = Self::default();
        for pair in query.split('&').filter(|pair| !pair.is_empty()) {
            let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
            let value = text(value, &format!("the parameter {key:?}"))?;
            match key {
                "host" => parameters.host = Some(value),
                "port" => parameters.port = Some(parse_port(&value)?),
                "sslmode" => parameters.sslmode = Some(read_mode(&value)?),
                "sslrootcert" => parameters.sslrootcert = Some(PathBuf::from(value)),
                // The value is not shown: it may be a password.
                other => {
                    return refuse(format!(
                        "the parameter {other:?} is not known: a PostgreSQL url takes host, port, sslmode and sslrootcert"
                    ));
                }
            }
        }
        Ok(parameters)
    }
}

fn read_mode(text: &str) -> Result<TlsMode, UrlError> {
    match text {
        "disable" => Ok(TlsMode::Disable),
        "prefer" => Ok(TlsMode::Prefer),
        "require" => Ok(TlsMode::Require),
        "verify-ca" => Ok(TlsMode::VerifyCa),
        "verify-full" => Ok(TlsMode::VerifyFull),
        _ => refuse(format!("sslmode {text:?} is not one of disable, prefer, require, verify-ca and verify-full")),
    }
}

fn read_address(place: &str, parameters: &Parameters) -> Result<Address, UrlError> {
    if place.contains(',') || parameters.host.as_ref().is_some_and(|host| host.contains(',')) {
        return refuse("the url names several hosts: an endpoint is one server, write one endpoint for each");
    }
    let (host, port) = match &parameters.host {
        Some(_) if !place.is_empty() && !place.starts_with(':') => {
            return refuse("the url names a host twice: before the '/' or as ?host=, not both");
        }
        Some(host) => (host.clone(), place.strip_prefix(':').map(parse_port).transpose()?),
        None => {
            let (host, port) = split_host_port(place, parameters_port(parameters).as_deref().unwrap_or(PORT), EXAMPLE)?;
            (text(&host, "the host")?, Some(port))
        }
    };
    let port = match (parameters.port, port) {
        (Some(port), _) | (None, Some(port)) => port,
        (None, None) => parse_port(PORT)?,
    };
    if host.is_empty() {
        return refuse(format!("the url has no host: write {EXAMPLE}"));
    }
    if host.starts_with('/') {
        // A socket directory, as in libpq.
        let directory = PathBuf::from(host);
        return Ok(Address::Unix(directory.join(format!(".s.PGSQL.{port}"))));
    }
    Ok(Address::Tcp { host, port })
}

fn parameters_port(parameters: &Parameters) -> Option<String> {
    parameters.port.map(|port| port.to_string())
}

fn read_tls(address: &Address, parameters: Parameters) -> Result<ClientTls, UrlError> {
    let Parameters { sslmode, sslrootcert: root_file, .. } = parameters;
    match address {
        Address::Unix(_) => match sslmode {
            None | Some(TlsMode::Disable | TlsMode::Prefer) => Ok(ClientTls::disabled()),
            Some(TlsMode::Require | TlsMode::VerifyCa | TlsMode::VerifyFull) => {
                refuse("a server behind a socket has no TLS: leave sslmode out, or name a host")
            }
        },
        Address::Tcp { .. } => {
            let mode = sslmode.unwrap_or(TlsMode::Prefer);
            match mode {
                TlsMode::VerifyCa | TlsMode::VerifyFull if root_file.is_none() => refuse(
                    "sslmode verify-ca and verify-full need sslrootcert=/path/ca.pem, the certificate authorities to trust",
                ),
                TlsMode::Disable | TlsMode::Prefer | TlsMode::Require | TlsMode::VerifyCa | TlsMode::VerifyFull => {
                    Ok(ClientTls { mode, root_file })
                }
            }
        }
    }
}

fn read_login(login: &str) -> Result<Option<Credentials>, UrlError> {
    let (user, password) = login.split_once(':').unwrap_or((login, ""));
    let user = text(user, "the user name")?;
    let password = percent_decode(password)?;
    match (user.is_empty(), password.is_empty()) {
        (true, true) => Ok(None),
        (true, false) => refuse("the url has a password but no user: postgres://user:password@host"),
        (false, _) => Ok(Some(Credentials { user: Some(user), password: Secret::new(&password) })),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn url(url: &str) -> Result<Endpoint, UrlError> {
        Endpoint::from_url(EndpointName::new("e").unwrap(), super::super::kind::ProtocolKind::Postgres, url)
    }

    fn tcp(host: &str, port: u16) -> Address {
        Address::Tcp { host: host.into(), port }
    }

    fn named(dbname: &str) -> EndpointProtocol {
        EndpointProtocol::Postgres { dbname: Some(dbname.to_owned()) }
    }

    #[test]
    fn addresses_are_read_as_libpq_reads_them() {
        let socket = |port| Address::Unix(PathBuf::from(format!("/run/postgresql/.s.PGSQL.{port}")));
        let cases = [
            ("postgres://u@h/db", tcp("h", 5432), TlsMode::Prefer),
            ("postgresql://u:p@10.0.0.1:6000/db?sslmode=disable", tcp("10.0.0.1", 6000), TlsMode::Disable),
            ("postgres://u@[::1]:7000/db?sslmode=require", tcp("::1", 7000), TlsMode::Require),
            ("postgres://u@h/db?port=6001", tcp("h", 6001), TlsMode::Prefer),
            ("postgres://u@%2Frun%2Fpostgresql:6002/db", socket(6002), TlsMode::Disable),
            ("postgres://u@/db?host=/run/postgresql&port=5433", socket(5433), TlsMode::Disable),
            ("postgres:///db?host=/run/postgresql", socket(5432), TlsMode::Disable),
            ("postgres://u@h/db?sslmode=verify-full&sslrootcert=/ca.pem", tcp("h", 5432), TlsMode::VerifyFull),
        ];
        for (text, address, mode) in cases {
            let endpoint = url(text).unwrap_or_else(|error| panic!("{text}: {error}"));
            assert_eq!((endpoint.address, endpoint.tls.mode), (address, mode), "{text}");
            assert_eq!(endpoint.protocol, named("db"), "{text}");
        }
    }

    #[test]
    fn log_ins_may_lack_a_password_but_not_a_user() {
        let full = url("postgres://us%20er:p%40ss@h/d%2Fb").unwrap();
        assert_eq!(full.protocol, named("d/b"));
        let login = full.credentials.unwrap();
        assert_eq!((login.user.as_deref(), login.password.expose()), (Some("us er"), b"p@ss".as_slice()));
        let bare = url("postgres://user@h").unwrap();
        assert_eq!(bare.protocol, EndpointProtocol::Postgres { dbname: None });
        assert!(bare.credentials.unwrap().password.expose().is_empty());
        assert_eq!(url("postgres://h/db").unwrap().credentials, None);
    }

    #[test]
    fn a_bad_url_is_refused_by_the_part_that_is_wrong() {
        let cases = [
            ("nonsense", "no scheme"),
            ("redis://h", "does not fit kind \"postgres\""),
            ("postgres://u:hunter2@h:99999/db", "99999"),
            ("postgres://u:hunter2@/db", "no host"),
            ("postgres://:hunter2@h/db", "no user"),
            ("postgres://u:hunter2@h/db?sslmode=allow", "verify-full"),
            ("postgres://u:hunter2@h/db?sslmode=verify-full", "sslrootcert"),
            ("postgres://u@h/db?password=hunter2", "\"password\" is not known"),
            ("postgres://u@h/db?connect_timeout=2", "\"connect_timeout\""),
            ("postgres://u@a,b/db", "several hosts"),
            ("postgres://u@h/db?host=/run", "twice"),
            ("postgres://u@/db?host=/run&sslmode=require", "socket"),
            ("postgres://u:%zzhunter2@h/db", "hex digits"),
        ];
        for (text, words) in cases {
            let error = url(text).expect_err(text).to_string();
            assert!(error.contains(words) && !error.contains("hunter2"), "{text}: {error}");
        }
    }
}
