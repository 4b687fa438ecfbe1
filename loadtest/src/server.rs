//! A real Redis or Valkey on a free port, in a directory of its own.

use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use crate::process::{Running, TempDir, free_port};
use crate::wait::until;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Redis,
    Valkey,
}

/// The top of the repository.
#[must_use]
pub fn repository() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("..")
}

impl Kind {
    /// The path of the binary, or why there is none.
    ///
    /// # Errors
    /// How to install it.
    pub fn binary(self) -> Result<PathBuf, String> {
        match self {
            Self::Redis => Ok(PathBuf::from("redis-server")),
            Self::Valkey => {
                let path = std::env::var_os("CROSSFADE_VALKEY_SERVER")
                    .map_or_else(|| repository().join(".tools/valkey-server"), PathBuf::from);
                if path.is_file() {
                    Ok(path)
                } else {
                    Err(format!("no valkey-server at {}: run scripts/install-test-servers.sh", path.display()))
                }
            }
        }
    }
}

/// Stopped when dropped.
#[derive(Debug)]
pub struct RealServer {
    process: Option<Running>,
    pub port: u16,
    kind: Kind,
    extra: Vec<String>,
    directory: TempDir,
}

const START_PATIENCE: Duration = Duration::from_secs(15);

impl RealServer {
    #[must_use]
    pub fn start(kind: Kind) -> Self {
        Self::start_with(kind, &["--appendonly", "no"])
    }

    /// # Panics
    /// When the server does not come up.
    #[must_use]
    pub fn start_with(kind: Kind, extra: &[&str]) -> Self {
        let mut server = Self {
            process: None,
            port: free_port(),
            kind,
            extra: extra.iter().map(|arg| (*arg).to_owned()).collect(),
            directory: TempDir::make("server"),
        };
        server.up();
        server
    }

    /// Starts it again on its port with its files.
    ///
    /// # Panics
    /// When the server does not come up.
    pub fn up(&mut self) {
        let mut command = Command::new(self.kind.binary().expect("a server binary"));
        command.args(["--bind", "127.0.0.1", "--port", &self.port.to_string(), "--save", "", "--dir"]);
        command.arg(self.directory.path()).args(&self.extra);
        let log = self.directory.path().join("server.log");
        let started = Running::start(command, &log).expect("redis-server: run scripts/install-test-servers.sh");
        self.process = Some(started);
        let client = redis::Client::open(self.url()).expect("url");
        until("the server to answer", START_PATIENCE, || {
            let answer = client.get_connection().and_then(|mut c| redis::cmd("PING").query::<String>(&mut c));
            match answer {
                Ok(_) => Ok(()),
                // A server that asks for a password is up.
                Err(error) if error.to_string().to_uppercase().contains("AUTH") => Ok(()),
                Err(error) => {
                    Err(format!("{error}; {}", self.process.as_ref().map_or(String::new(), |p| p.log_tail(3))))
                }
            }
        });
    }

    /// `kill -9`.
    pub fn down(&mut self) {
        self.process = None;
    }

    #[must_use]
    pub fn url(&self) -> String {
        format!("redis://127.0.0.1:{}/0", self.port)
    }

    /// # Panics
    /// When it cannot connect.
    #[must_use]
    pub fn connection(&self) -> redis::Connection {
        connect(self.port)
    }
}

/// A client with bounded waits.
///
/// # Panics
/// When it cannot connect.
#[must_use]
pub fn connect(port: u16) -> redis::Connection {
    try_connect(port).expect("connects")
}

/// # Errors
/// As the client.
pub fn try_connect(port: u16) -> redis::RedisResult<redis::Connection> {
    let client = redis::Client::open(format!("redis://127.0.0.1:{port}/0"))?;
    let connection = client.get_connection_with_timeout(Duration::from_secs(10))?;
    connection.set_read_timeout(Some(Duration::from_secs(60)))?;
    connection.set_write_timeout(Some(Duration::from_secs(60)))?;
    Ok(connection)
}

/// A command of words.
///
/// # Panics
/// When the server answers with an error.
pub fn run<T: redis::FromRedisValue>(connection: &mut redis::Connection, line: &str) -> T {
    try_run(connection, line).unwrap_or_else(|error| panic!("{line}: {error}"))
}

/// # Errors
/// The server's or the connection's.
pub fn try_run<T: redis::FromRedisValue>(connection: &mut redis::Connection, line: &str) -> redis::RedisResult<T> {
    let mut words = line.split(' ');
    let mut command = redis::cmd(words.next().unwrap_or_default());
    words.for_each(|word| {
        command.arg(word);
    });
    command.query(connection)
}

/// Ends the connections to a server whose names begin so; how many there were.
///
/// # Panics
/// When the server does not answer.
pub fn end_clients(port: u16, prefix: &str) -> usize {
    let mut connection = connect(port);
    let list: String = run(&mut connection, "CLIENT LIST");
    let named = format!(" name={prefix}");
    let ids = list.lines().filter(|line| line.contains(&named));
    let ids = ids.filter_map(|line| line.split(' ').find_map(|word| word.strip_prefix("id=")));
    // It may have gone by itself in between.
    ids.map(|id| run::<i64>(&mut connection, &format!("CLIENT KILL ID {id}")) as usize).sum()
}
