//! Every key of the configuration file: its table, default, unit and meaning. `docs/CONFIGURATION.md` is generated from this list, and the
//! reader refuses every key that is not in it.

/// One key of one table.
#[derive(Debug, Clone, Copy)]
#[cfg_attr(not(test), expect(dead_code, reason = "a test generates docs/CONFIGURATION.md from all fields"))]
pub struct Key {
    pub name: &'static str,
    /// TOML type, with the unit of a number.
    pub kind: &'static str,
    /// "required" where there is none.
    pub default: &'static str,
    pub meaning: &'static str,
}

const fn key(name: &'static str, kind: &'static str, default: &'static str, meaning: &'static str) -> Key {
    Key { name, kind, default, meaning }
}

pub const ROOT: &[Key] = &[
    key("admin", "table", "", "the admin API"),
    key("data", "table", "", "the embedded store"),
    key("cores", "table", "", "the data plane's threads"),
    key("endpoints", "tables by name", "required", "database servers"),
    key("interlays", "tables by name", "required", "listeners that applications connect to"),
];

pub const ADMIN: &[Key] =
    &[key("listen", "IP and port", "127.0.0.1:7171", "loopback only: the admin API has no tokens and no TLS yet")];

pub const DATA: &[Key] = &[key(
    "dir",
    "path",
    "crossfade-data",
    "directory of the store; created if missing; used by one process at a time; 64 MiB more for each interlay that the lane keeps in step",
)];

pub const CORES: &[Key] = &[
    key("count", "number, 0 to 256", "0", "threads of the data plane; 0 = one per CPU"),
    key(
        "drain_deadline_ms",
        "milliseconds, 0 to 600000",
        "5000",
        "how long commands in flight may take when the process stops",
    ),
];

pub const ENDPOINT: &[Key] = &[
    key("kind", "\"redis\" or \"postgres\"", "required", "what the server speaks"),
    key(
        "url",
        "URL",
        "required, or one of the two below",
        "redis://[user]:[password]@host:6379/0, unix:///path?db=0, postgres://user:password@host:5432/dbname?sslmode=prefer",
    ),
    key("url_env", "name", "", "the environment variable that holds the URL"),
    key("url_file", "path", "", "the file that holds the URL"),
];

pub const REDIS_INTERLAY: &[Key] = &[
    key("kind", "\"redis\"", "required", "what clients speak"),
    key("listen", "IP and port", "required", "where applications connect"),
    key("source", "name of an endpoint", "required", "the server that is in use"),
    key("target", "name of an endpoint", "none", "the target of migrations that name no other"),
    key("tls", "table", "none", "how clients are offered TLS"),
    key(
        "sharing",
        "auto, never",
        "auto",
        "whether clients share server connections: docs/protocols/resp.md, \"Which connection a command takes\"",
    ),
    key("policies", "table", "the shipped filters", "which filter decides in which slot"),
];

pub const POSTGRES_INTERLAY: &[Key] = &[
    key("kind", "\"postgres\"", "required", "what clients speak"),
    key("listen", "IP and port", "required", "where applications connect"),
    key("source", "name of an endpoint", "required", "the server that is in use"),
    key("target", "name of an endpoint", "none", "the server that `interlay analyze` compares the source with"),
    key("tls", "table", "none", "how clients are offered TLS"),
    key("auth", "table", "required", "how clients log in"),
    key("allow_replication", "true or false", "false", "whether replication connections are accepted"),
];

pub const TLS: &[Key] = &[
    key("cert_file", "path", "required", "certificate chain, PEM"),
    key("key_file", "path", "required", "private key, PEM"),
    key("require", "true or false", "false", "whether clients without TLS are refused"),
];

pub const AUTH: &[Key] = &[
    key(
        "mode",
        "scram, relay, mapped, md5, trust",
        "scram",
        "who checks a client's password: docs/OPERATING.md, \"PostgreSQL log-in\"",
    ),
    key("auth_file", "path", "none", "users and secrets in PgBouncer's format"),
    key("auth_query", "SQL with $1", "none", "how a user's secret is looked up on the server"),
];

/// The keys are the names of the slots.
pub const POLICIES: &[Key] = &[
    key(
        "mirror",
        "filter or table",
        "builtin:mirror-reads",
        "what is repeated on the target and compared, and what is refused",
    ),
    key("compare", "filter or table", "builtin:compare-semantic", "what counts as a difference"),
    key("rollback", "filter or table", "builtin:rollback-threshold", "when to hold and when to roll back"),
    key("records", "filter or table", "none", "what of each record is copied"),
];

pub const POLICY: &[Key] = &[
    key("filter", "name", "required", "\"builtin:NAME\", a path, the name of a loaded filter, or \"none\""),
    key("mode", "observe, warn, block", "observe", "what happens with a verdict that stops something"),
    key("on_fault", "fail_open, fail_closed", "fail_open", "what replaces the verdict when the filter fails"),
    key("config", "table", "{}", "passed to the filter unchanged"),
];

/// Every table with its keys, in the order of the page.
#[cfg(test)]
pub const TABLES: &[(&str, &[Key])] = &[
    ("(top)", ROOT),
    ("[admin]", ADMIN),
    ("[data]", DATA),
    ("[cores]", CORES),
    ("[endpoints.NAME]", ENDPOINT),
    ("[interlays.NAME], kind = \"redis\"", REDIS_INTERLAY),
    ("[interlays.NAME], kind = \"postgres\"", POSTGRES_INTERLAY),
    ("[interlays.NAME.tls]", TLS),
    ("[interlays.NAME.auth], kind = \"postgres\"", AUTH),
    ("[interlays.NAME.policies], kind = \"redis\"", POLICIES),
    ("[interlays.NAME.policies.SLOT], instead of a filter's name alone", POLICY),
];

#[cfg(test)]
mod tests {
    use super::super::Config;
    use super::*;
    use base::model::{PolicySettings, PolicySlot};

    fn page() -> String {
        let mut out = String::from(
            "# Configuration\n\nOne TOML file. Unknown keys are refused; every error names file, line and key. `crossfade check --config FILE` reads it, probes the\n\
             servers and prints what it finds. Examples: `config/`. Generated from `src/control/config/keys.rs` by\n\
             `UPDATE_DOCS=1 cargo test -p crossfade-control config`; a test fails when this page is stale.\n",
        );
        for (table, keys) in TABLES {
            out += &format!("\n## {table}\n\n| key | value | default | meaning |\n|---|---|---|---|\n");
            for Key { name, kind, default, meaning } in *keys {
                out += &format!("| `{name}` | {kind} | {default} | {meaning} |\n");
            }
        }
        out
    }

    #[test]
    fn the_page_of_the_configuration_names_every_key() {
        crate::testing::document("docs/CONFIGURATION.md", &page());
    }

    /// A good file with `line` in this table.
    fn file_with(table: &str, line: &str) -> String {
        const REDIS: &str = "[endpoints.e]\nkind = \"redis\"\nurl = \"redis://h\"\n[interlays.i]\nkind = \"redis\"\nlisten = \"127.0.0.1:1\"\nsource = \"e\"\n";
        const POSTGRES: &str = "[endpoints.e]\nkind = \"postgres\"\nurl = \"postgres://u:p@h/d\"\n[interlays.i]\nkind = \"postgres\"\nlisten = \"127.0.0.1:1\"\nsource = \"e\"\n";
        const QUERY: &str = "auth_query = \"SELECT usename, passwd FROM pg_shadow WHERE usename=$1\"\n";
        let file = concat!(env!("CARGO_MANIFEST_DIR"), "/Cargo.toml");
        match table {
            "(top)" => format!("{line}\n{REDIS}"),
            "[admin]" | "[data]" | "[cores]" => format!("{REDIS}{table}\n{line}\n"),
            "[endpoints.NAME]" => REDIS.replace("[interlays.i]", &format!("{line}\n[interlays.i]")),
            "[interlays.NAME], kind = \"redis\"" => format!("{REDIS}{line}\n"),
            "[interlays.NAME], kind = \"postgres\"" => format!("{POSTGRES}auth.{QUERY}{line}\n"),
            "[interlays.NAME.tls]" => {
                format!("{REDIS}[interlays.i.tls]\ncert_file = {file:?}\nkey_file = {file:?}\n{line}\n")
            }
            "[interlays.NAME.auth], kind = \"postgres\"" => format!("{POSTGRES}[interlays.i.auth]\n{QUERY}{line}\n"),
            "[interlays.NAME.policies], kind = \"redis\"" => format!("{REDIS}[interlays.i.policies]\n{line}\n"),
            "[interlays.NAME.policies.SLOT], instead of a filter's name alone" => {
                format!("{REDIS}[interlays.i.policies.mirror]\nfilter = \"f\"\n{line}\n")
            }
            _ => panic!("{table}: add an arm to file_with that puts a line into a good file's {table}"),
        }
    }

    /// Everything read from a file, with the shipped filters where it names none.
    fn read(text: &str) -> Result<String, String> {
        let mut config = Config::parse(std::path::Path::new("x.toml"), text).map_err(|error| error.to_string())?;
        for interlay in &mut config.interlays {
            let settings = &mut interlay.policies.settings;
            for &slot in PolicySlot::ALL {
                settings.set(slot, settings.get(slot).or(PolicySettings::shipped().get(slot)).cloned());
            }
            interlay.policies.places.clear();
        }
        Ok(format!("{config:#?}"))
    }

    fn changed_lines(given: &str, absent: &str) -> String {
        let pairs = given.lines().zip(absent.lines()).filter(|(given, absent)| given != absent);
        pairs.map(|(given, absent)| format!("{} instead of {} ", given.trim(), absent.trim())).collect()
    }

    /// A key's default as TOML; `None` where there is none.
    fn default_value(key: &Key) -> Option<String> {
        let Key { kind, default, .. } = *key;
        let is_absent = default.is_empty() || default.starts_with("required");
        if is_absent || (default == "none" && kind != "filter or table") {
            None
        } else if kind == "table" {
            Some("{}".to_owned())
        } else if default.parse::<u64>().is_ok() || kind == "true or false" {
            Some(default.to_owned())
        } else {
            Some(format!("{default:?}"))
        }
    }

    /// The numbers of "from MIN to MAX" at the end of a kind.
    fn bounds(key: &Key) -> Option<(u64, u64)> {
        let (front, max) = key.kind.rsplit_once(" to ")?;
        Some((front.rsplit(' ').next()?.parse().ok()?, max.parse().ok()?))
    }

    #[test]
    fn defaults_and_bounds_are_those_of_the_program() {
        for (table, keys) in TABLES {
            for key in *keys {
                let (name, default) = (key.name, key.default);
                let with = |value: &str| read(&file_with(table, &format!("{name} = {value}")));
                let absent =
                    read(&file_with(table, "")).unwrap_or_else(|error| panic!("file_with({table:?}): {error}"));
                assert!(
                    with("[]").is_err(),
                    "{table} {name}: accepts an array, so nothing reads it: read it where its table is read"
                );
                if let Some(value) = default_value(key) {
                    let difference = with(&value).map_or_else(|error| error, |given| changed_lines(&given, &absent));
                    assert!(
                        difference.is_empty(),
                        "{table} {name}: the default in keys.rs is {default:?}, but a file without the key means something else. \
                         Correct one of the two. With {name} = {value}: {difference}"
                    );
                }
                assert_eq!(
                    key.kind.starts_with("milliseconds"),
                    name.ends_with("_ms"),
                    "{table} {name}: a time is in milliseconds and its key ends in _ms"
                );
                let is_number = key.kind.starts_with("number") || key.kind.starts_with("milliseconds");
                let Some((min, max)) = bounds(key) else {
                    assert!(!is_number, "{table} {name}: end its kind in keys.rs with \"MIN to MAX\"");
                    continue;
                };
                let is_taken = |number: u64| with(&number.to_string()).is_ok();
                let holds = is_taken(min) && is_taken(max) && !is_taken(max + 1) && (min == 0 || !is_taken(min - 1));
                assert!(holds, "{table} {name}: the program has other bounds than the {min} to {max} of keys.rs");
            }
        }
        assert!(PolicySlot::ALL.iter().map(|slot| slot.as_str()).eq(POLICIES.iter().map(|key| key.name)));
    }
}
