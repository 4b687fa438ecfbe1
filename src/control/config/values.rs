//! Values used in several tables: an address, a kind, an existing file.

use std::net::SocketAddr;
use std::path::PathBuf;

use super::reader::{ConfigError, Item, Section};
use base::model::ProtocolKind;

pub fn read_address(item: &Item<'_>, example: &str) -> Result<SocketAddr, ConfigError> {
    item.text()?
        .parse()
        .map_err(|_| item.error(format!("is not an address: write an IP and a port, as in {example:?}")))
}

pub fn read_kind(section: &Section<'_>) -> Result<ProtocolKind, ConfigError> {
    let item = section.need("kind", "\"redis\" or \"postgres\"")?;
    match item.text()? {
        "redis" => Ok(ProtocolKind::Redis),
        "postgres" => Ok(ProtocolKind::Postgres),
        "mongo" => Err(item.error("is not supported yet: the kinds are \"redis\" and \"postgres\"")),
        _ => Err(item.error("is unknown: write kind = \"redis\" or \"postgres\"")),
    }
}

/// A path to an existing file.
pub fn read_file(item: &Item<'_>) -> Result<PathBuf, ConfigError> {
    let path = PathBuf::from(item.text()?);
    match std::fs::metadata(&path) {
        Ok(found) if found.is_file() => Ok(path),
        Ok(_) => Err(item.error(format!("names {}, which is not a file", path.display()))),
        Err(error) => Err(item.error(format!("names the file {}, which cannot be read: {error}", path.display()))),
    }
}
