//! The configuration file: TOML in, a validated [`Config`] out, or one error that names file, line, key and the fix.
//!
//! Read once at start, on the main thread. Unknown keys are refused: a typing error must not silently become a default.

mod auth_file;
mod interlay;
mod keys;
mod policies;
mod reader;
mod values;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

pub use interlay::InterlayConfig;
pub use policies::{FilterFile, InterlayPolicies};
pub use reader::{ConfigError, Place};
use reader::{Document, Item, Section};
use toml::de::DeTable;
use values::{read_address, read_kind};

use base::model::{Endpoint, EndpointName, InterlayName, limits};

/// The configuration of the program.
#[derive(Debug, Clone)]
pub struct Config {
    pub file: PathBuf,
    pub admin_listen: SocketAddr,
    /// Relative paths are relative to the working directory.
    pub data_dir: PathBuf,
    /// 0 = one per CPU.
    pub cores: u16,
    pub drain_deadline_ms: u64,
    /// In the order of the file.
    pub endpoints: Vec<Endpoint>,
    pub interlays: Vec<InterlayConfig>,
}

impl Config {
    /// Reads and validates a file.
    ///
    /// # Errors
    /// [`ConfigError`], the first one found.
    pub fn load(file: &Path) -> Result<Self, ConfigError> {
        let whole = |message: String| ConfigError { file: file.to_owned(), line: 0, key: String::new(), message };
        let size = std::fs::metadata(file).map_err(|error| whole(format!("cannot be read: {error}")))?.len();
        if size > limits::CONFIG_BYTES_MAX {
            return Err(whole(format!("is {size} bytes long; at most {} are read", limits::CONFIG_BYTES_MAX)));
        }
        let text = std::fs::read_to_string(file).map_err(|error| whole(format!("cannot be read: {error}")))?;
        Self::parse(file, &text)
    }

    /// As [`Self::load`], from text. Environment variables and secret files that the text names are read.
    ///
    /// # Errors
    /// [`ConfigError`], the first one found.
    pub fn parse(file: &Path, text: &str) -> Result<Self, ConfigError> {
        let document = Document { file, text };
        let table = DeTable::parse(text).map_err(|error| {
            let at = error.span().map_or(0, |span| span.start);
            document.error(at, "", format!("is not valid TOML: {}", error.message().trim().replace('\n', ", ")))
        })?;
        let root = Section::root(document, table.get_ref());
        root.only(keys::ROOT)?;
        let admin_listen = read_admin(&root)?;
        let data_dir = read_data(&root)?;
        let (cores, drain_deadline_ms) = read_cores(&root)?;
        let endpoints = read_endpoints(&root)?;
        let interlays = read_interlays(&root, &endpoints)?;
        policies::one_file_for_each_name(interlays.iter().map(|interlay| &interlay.policies))?;
        Ok(Self { file: file.to_owned(), admin_listen, data_dir, cores, drain_deadline_ms, endpoints, interlays })
    }

    #[must_use]
    pub fn endpoint(&self, name: &EndpointName) -> Option<&Endpoint> {
        self.endpoints.iter().find(|endpoint| &endpoint.name == name)
    }

    /// The number of cores to run: as configured, or one per CPU.
    #[must_use]
    pub fn core_count(&self) -> u16 {
        match self.cores {
            0 => std::thread::available_parallelism().map_or(1, |count| u16::try_from(count.get()).unwrap_or(u16::MAX)),
            count => count,
        }
    }

    /// The filter files that the interlays name, each once.
    #[must_use]
    pub fn filter_files(&self) -> Vec<&FilterFile> {
        let mut files: Vec<&FilterFile> = Vec::new();
        for file in self.interlays.iter().flat_map(|interlay| &interlay.policies.files) {
            if !files.iter().any(|known| known.name == file.name) {
                files.push(file);
            }
        }
        files
    }

    #[must_use]
    pub fn interlay(&self, name: &InterlayName) -> Option<&InterlayConfig> {
        self.interlays.iter().find(|interlay| &interlay.spec.name == name)
    }
}

fn read_admin(root: &Section<'_>) -> Result<SocketAddr, ConfigError> {
    let default = SocketAddr::from(([127, 0, 0, 1], 7171));
    let Some(item) = root.get("admin") else { return Ok(default) };
    let admin = item.section()?;
    admin.only(keys::ADMIN)?;
    let Some(item) = admin.get("listen") else { return Ok(default) };
    let listen = read_address(&item, "127.0.0.1:7171")?;
    if !listen.ip().is_loopback() {
        return Err(item.error(
            "is not a loopback address: the admin API has no tokens and no TLS yet, so it listens on 127.0.0.1 or [::1] only; \
             reach it from elsewhere through an SSH tunnel",
        ));
    }
    Ok(listen)
}

fn read_data(root: &Section<'_>) -> Result<PathBuf, ConfigError> {
    let default = PathBuf::from("crossfade-data");
    let Some(item) = root.get("data") else { return Ok(default) };
    let data = item.section()?;
    data.only(keys::DATA)?;
    let Some(item) = data.get("dir") else { return Ok(default) };
    match item.text()? {
        "" => Err(item.error("is empty: name a directory; it is created if missing")),
        dir => Ok(PathBuf::from(dir)),
    }
}

fn read_cores(root: &Section<'_>) -> Result<(u16, u64), ConfigError> {
    let (mut count, mut drain_deadline_ms) = (0, limits::DRAIN_DEADLINE_DEFAULT_MS);
    if let Some(item) = root.get("cores") {
        let cores = item.section()?;
        cores.only(keys::CORES)?;
        if let Some(item) = cores.get("count") {
            count = item.number(0, limits::CORES_MAX)?;
        }
        if let Some(item) = cores.get("drain_deadline_ms") {
            drain_deadline_ms = item.number(0, limits::DRAIN_DEADLINE_MAX_MS)?;
        }
    }
    Ok((u16::try_from(count).unwrap_or(0), drain_deadline_ms))
}

fn read_endpoints(root: &Section<'_>) -> Result<Vec<Endpoint>, ConfigError> {
    let item = root.need("endpoints", "... as tables: [endpoints.NAME] with kind and url")?;
    let tables = item.section()?;
    let mut endpoints = Vec::new();
    for item in tables.items() {
        let name = EndpointName::new(item.key()).map_err(|error| item.error(error.to_string()))?;
        let section = item.section()?;
        section.only(keys::ENDPOINT)?;
        let kind = read_kind(&section)?;
        let (url, place) = read_url(&section)?;
        let endpoint = Endpoint::from_url(name, kind, url.trim()).map_err(|error| place.error(error.to_string()))?;
        if let Some(file) = endpoint.tls.root_file.as_ref().filter(|file| !file.is_file()) {
            return Err(place.error(format!("names the file {} as sslrootcert, which does not exist", file.display())));
        }
        endpoints.push(endpoint);
    }
    if endpoints.is_empty() {
        return Err(item.error("has no endpoint: write [endpoints.NAME] with kind and url"));
    }
    Ok(endpoints)
}

/// The URL itself, from the file, the environment or a secret file; and the item that an error about it names.
fn read_url<'a>(section: &'a Section<'a>) -> Result<(String, Item<'a>), ConfigError> {
    let given: Vec<_> = ["url", "url_env", "url_file"].into_iter().filter_map(|key| section.get(key)).collect();
    let [item] = given.as_slice() else {
        return Err(section.error(
            "needs exactly one of url = \"redis://host:6379/0\" or \"postgres://user:password@host:5432/dbname\", url_env = \"VARIABLE\" and url_file = \"/path/to/secret\"",
        ));
    };
    let text = item.text()?;
    let url = match item.key() {
        "url_env" => std::env::var(text).map_err(|_| {
            item.error(format!("names the environment variable {text:?}, which is not set or not UTF-8"))
        })?,
        "url_file" => std::fs::read_to_string(text)
            .map_err(|error| item.error(format!("names the file {text:?}, which cannot be read: {error}")))?,
        _ => text.to_owned(),
    };
    Ok((url, *item))
}

fn read_interlays(root: &Section<'_>, endpoints: &[Endpoint]) -> Result<Vec<InterlayConfig>, ConfigError> {
    let item = root.need("interlays", "... as tables: [interlays.NAME] with kind, listen and source")?;
    let tables = item.section()?;
    let mut interlays: Vec<InterlayConfig> = Vec::new();
    for item in tables.items() {
        let name = InterlayName::new(item.key()).map_err(|error| item.error(error.to_string()))?;
        let interlay = interlay::read(name, &item.section()?, endpoints)?;
        if let Some(other) = interlays.iter().find(|other| other.spec.listen == interlay.spec.listen) {
            return Err(item.error(format!(
                "listens on {}, as interlay {} does: give one of them another address",
                other.spec.listen, other.spec.name
            )));
        }
        interlays.push(interlay);
    }
    if interlays.is_empty() {
        return Err(item.error("has no interlay: write [interlays.NAME] with kind, listen and source"));
    }
    Ok(interlays)
}

#[cfg(test)]
mod tests {
    use super::*;
    use base::model::{AllowReplication, AuthMode, RequireTls};

    const GOOD: &str = r#"[admin]
listen = "127.0.0.1:7272"
[data]
dir = "d"
[cores]
count = 2
[endpoints.old]
kind = "redis"
url = "redis://u:hunter2@127.0.0.1:6379/0"
[endpoints.new]
kind = "redis"
url = "redis://127.0.0.1:6380"
[interlays.orders]
kind = "redis"
listen = "127.0.0.1:6390"
source = "old"
target = "new"
"#;

    fn refuse(text: &str) -> String {
        match Config::parse(Path::new("x.toml"), text) {
            Err(error) => error.to_string(),
            Ok(_) => panic!("this file must be refused and is not:\n{text}"),
        }
    }

    /// A text to replace in a good file, its replacement, and the line, the key and words of the error.
    type BadValue<'a> = (&'a str, &'a str, usize, &'a str, &'a str);

    fn refuse_each(good: &str, cases: &[BadValue<'_>]) {
        for (from, to, line, key, words) in cases {
            assert!(good.contains(from), "{from:?} is not in the good file: replace a text that is there");
            let error = refuse(&good.replacen(from, to, 1));
            let fits = error.starts_with(&format!("x.toml:{line}: {key}: ")) && error.contains(words);
            assert!(fits, "{error}\nexpected line {line}, key {key}, words {words:?}");
            assert!(!error.contains("hunter2"), "the error shows the password: {error}");
        }
    }

    #[test]
    fn a_good_file_is_read_whole() {
        let config = Config::parse(Path::new("x.toml"), GOOD).unwrap();
        assert_eq!((config.admin_listen.port(), config.cores, config.endpoints.len()), (7272, 2, 2));
        assert_eq!(config.interlays[0].target.as_ref().unwrap().as_str(), "new");
        assert_eq!(config.endpoint(&config.interlays[0].source).unwrap().name.as_str(), "old");
    }

    #[test]
    fn every_error_names_file_line_key_and_fix() {
        let cases = [
            ("listen = \"127.0.0.1:7272\"", "listn = \"127.0.0.1:7272\"", 2, "admin.listn", "did you mean \"listen\""),
            ("127.0.0.1:7272", "0.0.0.0:7272", 2, "admin.listen", "not a loopback address"),
            ("127.0.0.1:7272", "localhost", 2, "admin.listen", "not an address"),
            ("dir = \"d\"", "dir = 7", 4, "data.dir", "must be a string"),
            ("count = 2", "count = 5000", 6, "cores.count", "from 0 to 256"),
            ("count = 2", "count = -1", 6, "cores.count", "whole number"),
            ("redis://u:hunter2@127.0.0.1:6379/0", "redis://u:hunter2@127.0.0.1:x", 9, "endpoints.old.url", "port"),
            (
                "kind = \"redis\"\nurl = \"redis://u",
                "kind = \"mongo\"\nurl = \"redis://u",
                8,
                "endpoints.old.kind",
                "not supported",
            ),
            ("[endpoints.old]", "[endpoints.\"o ld\"]", 7, "endpoints.o ld", "not a valid name"),
            ("source = \"old\"", "source = \"odl\"", 16, "interlays.orders.source", "endpoints are: old, new"),
            ("target = \"new\"", "target = \"old\"", 17, "interlays.orders.target", "source old itself"),
            ("[cores]", "[core]", 5, "core", "did you mean \"cores\""),
        ];
        refuse_each(GOOD, &cases);
    }

    const POSTGRES: &str = r#"[endpoints.cache]
kind = "redis"
url = "redis://127.0.0.1:6379"
[endpoints.old]
kind = "postgres"
url = "postgres://app:hunter2@127.0.0.1:5432/shop"
[endpoints.bare]
kind = "postgres"
url = "postgres://127.0.0.1:5433/shop"
[interlays.shop]
kind = "postgres"
listen = "127.0.0.1:6432"
source = "old"
target = "bare"
[interlays.shop.auth]
mode = "scram"
auth_query = "SELECT usename, passwd FROM pg_shadow WHERE usename=$1"
"#;

    #[test]
    fn a_postgres_interlay_is_read_whole() {
        let config = Config::parse(Path::new("x.toml"), POSTGRES).unwrap();
        let postgres = |config: &Config| match &config.interlays[0].spec.protocol {
            base::model::InterlayProtocol::Postgres(spec) => spec.clone(),
            base::model::InterlayProtocol::Redis(_) => panic!("a Redis interlay"),
        };
        let spec = postgres(&config);
        assert_eq!((spec.auth, spec.replication), (AuthMode::Scram, AllowReplication::No));
        assert!(spec.users.is_empty() && spec.auth_query.as_ref().unwrap().starts_with("SELECT"));
        let cargo = concat!(env!("CARGO_MANIFEST_DIR"), "/Cargo.toml");
        let more = format!(
            "allow_replication = true\n[interlays.shop.tls]\ncert_file = {cargo:?}\nkey_file = {cargo:?}\nrequire = true\n[interlays.shop.auth]"
        );
        let config = Config::parse(Path::new("x.toml"), &POSTGRES.replace("[interlays.shop.auth]", &more)).unwrap();
        let spec = &config.interlays[0].spec;
        assert_eq!(spec.tls.as_ref().unwrap().require, RequireTls::Yes);
        assert_eq!(postgres(&config).replication, AllowReplication::Yes);
    }

    #[test]
    fn what_is_wrong_in_a_postgres_interlay_is_named() {
        let query = "auth_query = \"SELECT usename, passwd FROM pg_shadow WHERE usename=$1\"";
        let auth = "interlays.shop.auth";
        let cases = [
            (
                "source = \"old\"",
                "source = \"cache\"",
                13,
                "interlays.shop.source",
                "kind \"redis\", but this interlay",
            ),
            ("target = \"bare\"", "target = \"cache\"", 14, "interlays.shop.target", "kind \"postgres\": both"),
            ("mode = \"scram\"", "mode = \"peer\"", 16, "interlays.shop.auth.mode", "scram, relay, mapped, md5, trust"),
            ("mode = \"scram\"", "mode = \"relay\"", 17, "interlays.shop.auth.auth_query", "not used with mode"),
            ("mode = \"scram\"", "mode = \"trust\"", 17, "interlays.shop.auth.auth_query", "not used with mode"),
            (query, "", 15, auth, "give auth_file = "),
            ("usename=$1", "usename=me", 17, "interlays.shop.auth.auth_query", "write $1"),
            (
                "source = \"old\"\ntarget = \"bare\"",
                "source = \"bare\"\n",
                17,
                "interlays.shop.auth.auth_query",
                "endpoint bare",
            ),
            (query, "auth_file = \"/nowhere/users.txt\"", 17, "interlays.shop.auth.auth_file", "/nowhere/users.txt"),
            (
                "target = \"bare\"",
                "allow_replication = \"no\"",
                14,
                "interlays.shop.allow_replication",
                "true or false",
            ),
            (
                "target = \"bare\"",
                "tls = { cert_file = \"/nowhere/c.pem\", key_file = \"k\" }",
                14,
                "interlays.shop.tls.cert_file",
                "/nowhere/c.pem",
            ),
            ("5432/shop", "5432/shop?sslmod=require", 6, "endpoints.old.url", "\"sslmod\" is not known"),
            (
                "5432/shop",
                "5432/shop?sslmode=verify-ca&sslrootcert=/nowhere/ca.pem",
                6,
                "endpoints.old.url",
                "/nowhere/ca.pem",
            ),
        ];
        refuse_each(POSTGRES, &cases);
        let bare = POSTGRES.split("[interlays.shop.auth]").next().unwrap();
        assert!(refuse(bare).contains("mode = \"relay\""));
        let redis = GOOD.replace("target = \"new\"", "auth = { mode = \"trust\" }");
        assert!(refuse(&redis).contains("belongs to PostgreSQL"));
    }

    #[test]
    fn broken_toml_names_the_line_and_never_the_secret() {
        let error = refuse(&GOOD.replace("/0\"", "/0"));
        assert!(error.starts_with("x.toml:9: ") && !error.contains("hunter2"), "{error}");
    }

    #[test]
    fn missing_parts_say_what_to_write() {
        assert!(refuse("").contains("[endpoints.NAME]"));
        assert!(refuse("[endpoints.a]\nkind = \"redis\"\n").contains("exactly one of url"));
        assert!(refuse(&GOOD.replace("source = \"old\"\n", "")).contains("\"source\" is missing"));
        let unset = GOOD.replace("url = \"redis://127.0.0.1:6380\"", "url_env = \"CROSSFADE_TEST_UNSET\"");
        assert!(refuse(&unset).contains("CROSSFADE_TEST_UNSET"));
    }

    #[test]
    fn every_example_configuration_parses() {
        let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../config");
        let mut seen = 0;
        for entry in std::fs::read_dir(dir).unwrap() {
            let path = entry.unwrap().path();
            if path.extension().is_some_and(|ext| ext == "toml") {
                Config::load(&path).unwrap_or_else(|error| panic!("{error}"));
                seen += 1;
            }
        }
        assert!(seen > 0);
    }
}
