//! A PostgreSQL server and the proxy in front of it, with a log-in for each side.
//!
//! `PG_DIRECT=1` leaves the proxy out: both sides are then the server, which proves the tests and their clients themselves.

use std::path::PathBuf;

use serde_json::Value as Json;

use crate::certificates::Certificates;
use crate::crossfade::{Crossfade, Ran};
use crate::pg_client::Login;
use crate::postgres::{MD5_USER, Postgres, SUPERUSER, Settings, USER, Version};
use crate::process::{TempDir, free_port};

pub const PG_INTERLAY: &str = "app";

/// Whether the proxy is left out.
#[must_use]
pub fn without_proxy() -> bool {
    std::env::var_os("PG_DIRECT").is_some_and(|value| value != "0")
}

/// `[interlays.app.auth]`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Auth {
    /// SCRAM; all users in an `auth_file` of verifiers.
    Scram,
    /// SCRAM; no `auth_file`, all users by `auth_query`.
    ScramByQuery,
    Relay,
    Mapped,
    /// With the SCRAM verifiers and one md5 hash in the file.
    Md5,
    Trust,
}

impl Auth {
    fn mode(self) -> &'static str {
        match self {
            Self::Scram | Self::ScramByQuery => "scram",
            Self::Relay => "relay",
            Self::Mapped => "mapped",
            Self::Md5 => "md5",
            Self::Trust => "trust",
        }
    }
}

/// `[interlays.app.tls]`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ProxyTls {
    None,
    Offered,
    Required,
}

#[derive(Debug, Clone)]
pub struct Options {
    pub auth: Auth,
    pub tls: ProxyTls,
    pub cores: u32,
    pub server: Settings,
    /// More lines for the `auth_file`.
    pub more_users: String,
    /// More tables for the configuration.
    pub more_config: String,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            auth: Auth::Scram,
            tls: ProxyTls::None,
            cores: 1,
            server: Settings::default(),
            more_users: String::new(),
            more_config: String::new(),
        }
    }
}

impl Options {
    /// TLS on both hops.
    #[must_use]
    pub fn tls() -> Self {
        Self { tls: ProxyTls::Required, server: Settings { tls: true, ..Settings::default() }, ..Self::default() }
    }

    #[must_use]
    pub fn auth(auth: Auth) -> Self {
        Self { auth, ..Self::default() }
    }
}

/// Fields are dropped in this order.
#[derive(Debug)]
pub struct PgRig {
    proxy: Option<Crossfade>,
    pub server: Postgres,
    tls: ProxyTls,
    certificates: Option<Certificates>,
    _directory: TempDir,
}

impl PgRig {
    #[must_use]
    pub fn start(version: Version) -> Self {
        Self::with(version, &Options::default())
    }

    /// # Panics
    /// When one of the two does not come up.
    #[must_use]
    pub fn with(version: Version, options: &Options) -> Self {
        let server = Postgres::start_with(version, options.server.clone());
        let directory = TempDir::make("pg-rig");
        let certificates = match (&server.certificates, options.tls) {
            (Some(made), _) => Some(made.clone()),
            (None, ProxyTls::None) => None,
            (None, _) => Some(Certificates::make(directory.path())),
        };
        let mut rig = Self { proxy: None, server, tls: options.tls, certificates, _directory: directory };
        if without_proxy() {
            eprintln!("PG_DIRECT: no proxy, the client speaks to PostgreSQL {} itself", version.number());
        } else {
            rig.proxy = Some(rig.start_proxy(options));
        }
        rig
    }

    fn start_proxy(&self, options: &Options) -> Crossfade {
        let directory = TempDir::make("proxy");
        let mut auth = format!("[interlays.{PG_INTERLAY}.auth]\nmode = \"{}\"\n", options.auth.mode());
        let users: PathBuf = directory.path().join("users.txt");
        match options.auth {
            Auth::Relay => {}
            Auth::ScramByQuery => {
                auth += "auth_query = \"SELECT usename, passwd FROM pg_shadow WHERE usename=$1\"\n";
            }
            Auth::Scram | Auth::Mapped | Auth::Md5 | Auth::Trust => {
                let known: &[&str] = if matches!(options.auth, Auth::Md5 | Auth::Trust) {
                    &[SUPERUSER, USER, MD5_USER]
                } else {
                    &[SUPERUSER, USER]
                };
                self.server.users_file(known, &users);
                let mut lines = std::fs::read_to_string(&users).expect("just written");
                lines += &options.more_users;
                std::fs::write(&users, lines).expect("the auth_file is written");
                auth += &format!("auth_file = \"{}\"\n", users.display());
            }
        }
        if let (Some(made), true) = (&self.certificates, options.tls != ProxyTls::None) {
            auth += &format!(
                "[interlays.{PG_INTERLAY}.tls]\ncert_file = \"{}\"\nkey_file = \"{}\"\nrequire = {}\n",
                made.proxy.display(),
                made.proxy_key.display(),
                options.tls == ProxyTls::Required
            );
        }
        let (port, admin_port) = (free_port(), free_port());
        let text = format!(
            "[admin]\nlisten = \"127.0.0.1:{admin_port}\"\n[data]\ndir = \"{}\"\n[cores]\ncount = {}\n\
             [endpoints.pg]\nkind = \"postgres\"\nurl = \"{}\"\n\
             [interlays.{PG_INTERLAY}]\nkind = \"postgres\"\nlisten = \"127.0.0.1:{port}\"\nsource = \"pg\"\n{auth}{}",
            directory.path().join("data").display(),
            options.cores,
            self.server.url("postgres"),
            options.more_config,
        );
        Crossfade::start_postgres(directory, &text, port, admin_port)
    }

    /// A client of the server itself.
    #[must_use]
    pub fn direct(&self) -> Login {
        self.server.login()
    }

    /// A client of the proxy.
    #[must_use]
    pub fn through(&self) -> Login {
        let Some(proxy) = &self.proxy else { return self.direct() };
        let direct = self.server.login();
        let login = Login::new(proxy.port, &direct.user, &direct.password, &direct.database);
        match (&self.certificates, self.tls) {
            (Some(made), ProxyTls::Offered | ProxyTls::Required) => login.verifying(&made.ca),
            _ => login,
        }
    }

    #[must_use]
    pub fn certificates(&self) -> Option<&Certificates> {
        self.certificates.as_ref()
    }

    /// `None` under `PG_DIRECT`.
    #[must_use]
    pub fn proxy(&self) -> Option<&Crossfade> {
        self.proxy.as_ref()
    }

    pub fn proxy_mut(&mut self) -> Option<&mut Crossfade> {
        self.proxy.as_mut()
    }

    /// The end of the proxy's log, for the message of a failure.
    #[must_use]
    pub fn proxy_says(&self) -> String {
        self.proxy.as_ref().map_or_else(|| "(no proxy)".to_owned(), |proxy| proxy.log_tail(10))
    }

    /// # Panics
    /// Without a proxy.
    #[must_use]
    pub fn cli(&self, args: &[&str]) -> Ran {
        self.proxy.as_ref().expect("with a proxy").cli(args)
    }

    /// # Panics
    /// When the command fails or gives no JSON.
    #[must_use]
    pub fn cli_json(&self, args: &[&str]) -> Json {
        let ran = self.cli(&[&["--output", "json"], args].concat());
        assert_eq!(ran.code, 0, "{args:?}: {ran:?}\n{}", self.proxy_says());
        serde_json::from_str(&ran.stdout).unwrap_or_else(|error| panic!("{error}: {}", ran.stdout))
    }

    /// One request to the admin API: the status and the body.
    ///
    /// # Panics
    /// Without a proxy, or when it does not answer with JSON.
    #[must_use]
    pub fn post(&self, path: &str, body: &str) -> (u16, Json) {
        use std::io::{Read, Write};
        let port = self.proxy.as_ref().expect("with a proxy").admin_port;
        let mut stream = std::net::TcpStream::connect(("127.0.0.1", port)).expect("the admin API listens");
        stream.set_read_timeout(Some(std::time::Duration::from_secs(60))).expect("a time limit");
        let length = body.len();
        let request = format!(
            "POST {path} HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n\
             Content-Length: {length}\r\nConnection: close\r\n\r\n{body}"
        );
        stream.write_all(request.as_bytes()).expect("the admin API reads");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).expect("the admin API answers");
        let status = answer.split(' ').nth(1).and_then(|word| word.parse().ok()).unwrap_or(0);
        let body = answer.split_once("\r\n\r\n").map_or("", |(_, body)| body);
        (status, serde_json::from_str(body).unwrap_or_else(|error| panic!("{path}: {error}: {answer}")))
    }
}
