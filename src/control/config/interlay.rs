//! One `[interlays.NAME]` table: the listener, its two ends, and a PostgreSQL interlay's log-in and replication.

use std::path::Path;
use std::sync::Arc;

use super::policies::InterlayPolicies;
use super::reader::{ConfigError, Item, Section};
use super::values::{read_address, read_file, read_kind};
use super::{auth_file, keys, policies};
use base::model::{
    AllowReplication, AuthMode, Endpoint, EndpointName, InterlayName, InterlayProtocol, InterlaySpec, PostgresSpec,
    ProtocolKind, RequireTls, ServerTls, Sharing,
};

/// One interlay as the file defines it.
#[derive(Debug, Clone)]
pub struct InterlayConfig {
    pub spec: InterlaySpec,
    pub source: EndpointName,
    pub target: Option<EndpointName>,
    pub policies: InterlayPolicies,
}

pub fn read(name: InterlayName, section: &Section<'_>, endpoints: &[Endpoint]) -> Result<InterlayConfig, ConfigError> {
    let kind = read_kind(section)?;
    match kind {
        ProtocolKind::Redis => {
            for key in ["auth", "allow_replication"] {
                if let Some(item) = section.get(key) {
                    return Err(item.error("belongs to PostgreSQL interlays: a Redis server checks its clients itself"));
                }
            }
            section.only(keys::REDIS_INTERLAY)?;
        }
        ProtocolKind::Postgres => {
            if let Some(item) = section.get("sharing") {
                return Err(item.error("belongs to Redis interlays: every PostgreSQL session has a server connection of its own; remove this line"));
            }
            if let Some(item) = section.get("policies") {
                return Err(item.error(
                    "belongs to Redis interlays: policies decide within a migration, and PostgreSQL has none yet; remove this table",
                ));
            }
            section.only(keys::POSTGRES_INTERLAY)?;
        }
    }
    let example = match kind {
        ProtocolKind::Redis => "0.0.0.0:6380",
        ProtocolKind::Postgres => "0.0.0.0:6432",
    };
    let listen = read_address(&section.need("listen", &format!("{example:?}"))?, example)?;
    let source_item = section.need("source", "\"NAME of an endpoint\"")?;
    let source = read_end(&source_item, kind, endpoints)?;
    let target_item = section.get("target");
    let target = target_item.as_ref().map(|item| read_end(item, kind, endpoints)).transpose()?;
    if let (Some(item), Some(target)) = (target_item, target)
        && target.name == source.name
    {
        return Err(item.error(format!("is the source {} itself: name the server to move to", source.name)));
    }
    let tls = section.get("tls").map(|item| read_tls(&item.section()?)).transpose()?;
    let protocol = match kind {
        ProtocolKind::Redis => InterlayProtocol::Redis(read_sharing(section)?),
        ProtocolKind::Postgres => InterlayProtocol::Postgres(read_postgres(section, source)?),
    };
    let policies =
        section.get("policies").map(|item| policies::read(&item.section()?)).transpose()?.unwrap_or_default();
    let (source, target) = (source.name.clone(), target.map(|target| target.name.clone()));
    Ok(InterlayConfig { spec: InterlaySpec { name, protocol, listen, tls }, source, target, policies })
}

fn read_end<'a>(item: &Item<'_>, kind: ProtocolKind, endpoints: &'a [Endpoint]) -> Result<&'a Endpoint, ConfigError> {
    let text = item.text()?;
    let Some(endpoint) = endpoints.iter().find(|endpoint| endpoint.name.as_str() == text) else {
        let names: Vec<_> = endpoints.iter().map(|endpoint| endpoint.name.as_str()).collect();
        let names = names.join(", ");
        return Err(item
            .error(format!("names the endpoint {text:?}, which is not defined; the defined endpoints are: {names}")));
    };
    if endpoint.kind() != kind {
        return Err(item.error(format!(
            "names the endpoint {text:?} of kind {:?}, but this interlay is of kind {:?}: both must be the same",
            endpoint.kind().as_str(),
            kind.as_str()
        )));
    }
    Ok(endpoint)
}

fn read_tls(section: &Section<'_>) -> Result<ServerTls, ConfigError> {
    section.only(keys::TLS)?;
    let cert_file = read_file(&section.need("cert_file", "\"/path/cert.pem\"")?)?;
    let key_file = read_file(&section.need("key_file", "\"/path/key.pem\"")?)?;
    let require = match section.get("require").map(|item| item.flag()).transpose()? {
        Some(true) => RequireTls::Yes,
        Some(false) | None => RequireTls::No,
    };
    Ok(ServerTls { cert_file, key_file, require })
}

fn read_sharing(section: &Section<'_>) -> Result<Sharing, ConfigError> {
    let Some(item) = section.get("sharing") else { return Ok(Sharing::Auto) };
    match item.text()? {
        "auto" => Ok(Sharing::Auto),
        "never" => Ok(Sharing::Never),
        other => Err(item.error(format!("is {other:?}: write \"auto\" or \"never\""))),
    }
}

fn read_postgres(section: &Section<'_>, source: &Endpoint) -> Result<PostgresSpec, ConfigError> {
    let replication = match section.get("allow_replication").map(|item| item.flag()).transpose()? {
        Some(true) => AllowReplication::Yes,
        Some(false) | None => AllowReplication::No,
    };
    let Some(item) = section.get("auth") else {
        return Err(section.error(
            "has no log-in: write [interlays.NAME.auth] with mode = \"scram\" and auth_file or auth_query, or mode = \"relay\"",
        ));
    };
    let auth = item.section()?;
    auth.only(keys::AUTH)?;
    let mode = match auth.get("mode") {
        None => AuthMode::Scram,
        Some(item) => read_mode(&item)?,
    };
    let (file, query) = (auth.get("auth_file"), auth.get("auth_query"));
    let login = source.credentials.as_ref().and_then(|login| login.user.as_deref());
    match mode {
        AuthMode::Scram | AuthMode::Mapped | AuthMode::Md5 => {
            if file.is_none() && query.is_none() {
                return Err(auth.error(format!(
                    "mode {:?} checks clients against stored secrets: give auth_file = \"/path/users.txt\" or auth_query = \
                     \"SELECT usename, passwd FROM pg_shadow WHERE usename=$1\"",
                    mode_name(mode)
                )));
            }
        }
        AuthMode::Relay => {
            if let Some(item) = file.or(query) {
                return Err(item
                    .error("is not used with mode \"relay\", where the server checks its clients itself: remove it"));
            }
        }
        AuthMode::Trust => {
            if let Some(item) = query {
                return Err(item.error("is not used with mode \"trust\", which checks no client: remove it"));
            }
        }
    }
    if mode == AuthMode::Mapped && login.is_none() {
        return Err(auth.error(format!(
            "mode \"mapped\" logs in to the server with the endpoint's own user: put user and password into the url of endpoint {}",
            source.name
        )));
    }
    if let (Some(item), None) = (&query, login) {
        return Err(item.error(format!(
            "runs as the endpoint's own user: put user and password into the url of endpoint {}",
            source.name
        )));
    }
    let users = match &file {
        None => Default::default(),
        Some(item) => auth_file::load(Path::new(item.text()?)).map_err(|error| item.error(error))?,
    };
    let auth_query = query.as_ref().map(read_query).transpose()?;
    Ok(PostgresSpec { auth: mode, users: Arc::new(users), auth_query, replication })
}

fn read_mode(item: &Item<'_>) -> Result<AuthMode, ConfigError> {
    const ALL: [AuthMode; 5] = [AuthMode::Scram, AuthMode::Relay, AuthMode::Mapped, AuthMode::Md5, AuthMode::Trust];
    let text = item.text()?;
    ALL.into_iter()
        .find(|mode| mode_name(*mode) == text)
        .ok_or_else(|| item.error(format!("is unknown: write one of {}", ALL.map(mode_name).join(", "))))
}

fn mode_name(mode: AuthMode) -> &'static str {
    match mode {
        AuthMode::Scram => "scram",
        AuthMode::Relay => "relay",
        AuthMode::Mapped => "mapped",
        AuthMode::Md5 => "md5",
        AuthMode::Trust => "trust",
    }
}

fn read_query(item: &Item<'_>) -> Result<String, ConfigError> {
    let text = item.text()?.trim();
    if text.contains("$1") {
        Ok(text.to_owned())
    } else {
        Err(item.error(
            "does not select one user: write $1 where the name goes, as in SELECT usename, passwd FROM pg_shadow WHERE usename=$1",
        ))
    }
}
