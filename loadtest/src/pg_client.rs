//! PostgreSQL's own client programs, and their logins. The programs are Debian's 15; `libpq` may be a newer one.

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use crate::crossfade::Ran;
use crate::postgres::Version;
use crate::process::die_with_parent;
use crate::wait::until;

/// A small, stable hash for names and checksums.
#[must_use]
pub fn fnv1a(texts: &[&str]) -> u64 {
    texts
        .iter()
        .flat_map(|text| text.bytes())
        .fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3))
}

/// A user and an address to log in to: a server, or the proxy in front of it.
#[derive(Debug, Clone)]
pub struct Login {
    pub host: String,
    pub port: u16,
    pub user: String,
    pub password: String,
    pub database: String,
    /// `sslmode=verify-full` with this CA; `None` = `sslmode=disable`.
    pub ca: Option<PathBuf>,
    libpq: Option<PathBuf>,
    more: Vec<(String, String)>,
}

impl Login {
    #[must_use]
    pub fn new(port: u16, user: &str, password: &str, database: &str) -> Self {
        Self {
            host: "127.0.0.1".to_owned(),
            port,
            user: user.to_owned(),
            password: password.to_owned(),
            database: database.to_owned(),
            ca: None,
            libpq: None,
            more: Vec::new(),
        }
    }

    #[must_use]
    pub fn verifying(mut self, ca: &Path) -> Self {
        self.ca = Some(ca.to_owned());
        self
    }

    #[must_use]
    pub fn user(mut self, user: &str, password: &str) -> Self {
        (self.user, self.password) = (user.to_owned(), password.to_owned());
        self
    }

    #[must_use]
    pub fn database(mut self, database: &str) -> Self {
        database.clone_into(&mut self.database);
        self
    }

    /// An environment variable of libpq: `PGAPPNAME`, `PGSSLMODE`, `PGOPTIONS`...
    #[must_use]
    pub fn with(mut self, name: &str, value: &str) -> Self {
        self.more.push((name.to_owned(), value.to_owned()));
        self
    }

    /// The same programs with the libpq of this version.
    ///
    /// # Errors
    /// When that version is not installed.
    pub fn libpq_of(mut self, version: Version) -> Result<Self, String> {
        self.libpq = Some(version.find()?.join("lib"));
        Ok(self)
    }

    /// A command with libpq's environment and none of the caller's.
    #[must_use]
    pub fn command(&self, program: impl AsRef<std::ffi::OsStr>) -> Command {
        let mut command = Command::new(program);
        for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("PG")) {
            command.env_remove(name);
        }
        command
            .env("PGHOST", &self.host)
            .env("PGPORT", self.port.to_string())
            .env("PGUSER", &self.user)
            .env("PGPASSWORD", &self.password)
            .env("PGDATABASE", &self.database)
            .env("PGCONNECT_TIMEOUT", "30")
            .env("PGPASSFILE", "/dev/null")
            .env("PGCLIENTENCODING", "UTF8")
            .env("LC_ALL", "C.UTF-8")
            .env("TZ", "UTC");
        match &self.ca {
            Some(ca) => command.env("PGSSLMODE", "verify-full").env("PGSSLROOTCERT", ca),
            None => command.env("PGSSLMODE", "disable"),
        };
        if let Some(library) = &self.libpq {
            command.env("LD_LIBRARY_PATH", library);
        }
        command.envs(self.more.iter().map(|(name, value)| (name, value)));
        die_with_parent(&mut command);
        command
    }

    fn client(&self, program: &str) -> Command {
        self.command(Version::V15.home().join("bin").join(program))
    }

    /// # Panics
    /// When the program cannot be started.
    #[must_use]
    pub fn run(&self, program: &str, args: &[&str]) -> Ran {
        let output = self.client(program).args(args).stdin(Stdio::null()).output();
        output.unwrap_or_else(|error| panic!("{program}: {error}: run scripts/install-test-servers.sh")).into()
    }

    #[must_use]
    pub fn psql(&self, args: &[&str]) -> Ran {
        self.run("psql", &[&["-X"], args].concat())
    }

    /// # Panics
    /// When psql cannot be started or fed.
    #[must_use]
    pub fn psql_with_input(&self, args: &[&str], input: &str) -> Ran {
        let mut command = self.client("psql");
        command.arg("-X").args(args).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().expect("psql: run scripts/install-test-servers.sh");
        let mut stdin = child.stdin.take().expect("piped");
        let input = input.to_owned();
        // In a thread: psql may fill its output before it has read all.
        let feeding = std::thread::spawn(move || drop(stdin.write_all(input.as_bytes())));
        let ran = child.wait_with_output().expect("psql ends").into();
        feeding.join().expect("fed");
        ran
    }

    /// Statements that must succeed; the rows, unaligned, `|` between columns.
    ///
    /// # Panics
    /// When one fails.
    #[must_use]
    pub fn sql(&self, statements: &str) -> String {
        let ran = self.psql(&["-Atq", "-v", "ON_ERROR_STOP=1", "-c", statements]);
        assert_eq!(ran.code, 0, "{statements}: {}{}", ran.stdout, ran.stderr);
        ran.stdout.trim_end().to_owned()
    }

    /// As [`Login::sql`], for statements without rows.
    pub fn execute(&self, statements: &str) {
        let _rows = self.sql(statements);
    }

    #[must_use]
    pub fn pgbench(&self, args: &[&str]) -> Ran {
        self.run("pgbench", args)
    }

    #[must_use]
    pub fn pg_dump(&self, args: &[&str]) -> Ran {
        self.run("pg_dump", args)
    }

    /// psql on a terminal, as a person uses it.
    #[must_use]
    pub fn terminal(&self) -> Terminal {
        let mut command = self.client("psql");
        // -n: no line editing. Prompts would appear between the lines of an answer.
        command.args([
            "-X",
            "-n",
            "-q",
            "-At",
            "-v",
            "PROMPT1=",
            "-v",
            "PROMPT2=",
            "-v",
            "PROMPT3=",
            "-P",
            "pager=off",
        ]);
        Terminal::start(command)
    }
}

/// A program on a pseudo-terminal; killed when dropped.
#[derive(Debug)]
pub struct Terminal {
    child: Child,
    keyboard: File,
    screen: Arc<Mutex<String>>,
    marks: u32,
}

const TERMINAL_PATIENCE: Duration = Duration::from_secs(30);

impl Terminal {
    fn start(mut command: Command) -> Self {
        let (ours, theirs) = pseudo_terminal();
        let other = |fd: &OwnedFd| Stdio::from(fd.try_clone().expect("a descriptor"));
        command.env("TERM", "dumb").stdin(other(&theirs)).stdout(other(&theirs)).stderr(other(&theirs));
        let child = command.spawn().expect("psql: run scripts/install-test-servers.sh");
        drop((command, theirs));
        let screen = Arc::new(Mutex::new(String::new()));
        let (mut reading, shown) = (File::from(ours.try_clone().expect("a descriptor")), Arc::clone(&screen));
        std::thread::spawn(move || {
            let mut buffer = [0; 4096];
            // Ends with EIO when the program has closed its side.
            while let Ok(read @ 1..) = reading.read(&mut buffer) {
                let text = String::from_utf8_lossy(&buffer[..read]).into_owned();
                shown.lock().expect("the reader does not panic").push_str(&text);
            }
        });
        Self { child, keyboard: File::from(ours), screen, marks: 0 }
    }

    /// # Panics
    /// When the terminal is gone.
    pub fn type_line(&mut self, line: &str) {
        self.keyboard.write_all(format!("{line}\n").as_bytes()).expect("the terminal is there");
    }

    /// What is on the screen since the last [`Terminal::clear`].
    ///
    /// # Panics
    /// When the reader panicked.
    #[must_use]
    pub fn screen(&self) -> String {
        self.screen.lock().expect("the reader does not panic").clone()
    }

    /// # Panics
    /// When the reader panicked.
    pub fn clear(&self) {
        self.screen.lock().expect("the reader does not panic").clear();
    }

    /// Waits until the screen shows `text`; returns the whole screen.
    pub fn expect(&self, text: &str, patience: Duration) -> String {
        until(&format!("{text:?} on the screen"), patience, || {
            let screen = self.screen();
            if screen.contains(text) { Ok(screen) } else { Err(format!("the screen is {screen:?}")) }
        })
    }

    /// Types lines and returns their output, once they are complete.
    pub fn ask(&mut self, lines: &str) -> String {
        self.marks += 1;
        let mark = format!("--done-{}--", self.marks);
        self.clear();
        self.type_line(lines);
        self.type_line(&format!("\\echo {mark}"));
        let screen = self.expect(&mark, TERMINAL_PATIENCE);
        screen.replace('\r', "").split(&mark).next().unwrap_or_default().trim().to_owned()
    }

    /// Interrupts, as Ctrl-C does.
    pub fn interrupt(&self) {
        // SAFETY: kill takes no pointer; the child is not reaped, so its number is not reused.
        unsafe {
            libc::kill(self.child.id().cast_signed(), libc::SIGINT);
        }
    }

    pub fn ended(&mut self) -> bool {
        self.child.try_wait().ok().flatten().is_some()
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Opens a pseudo-terminal without echo or translation: this side and the program's.
fn pseudo_terminal() -> (OwnedFd, OwnedFd) {
    let (mut ours, mut theirs) = (-1, -1);
    let none = std::ptr::null_mut();
    // SAFETY: two valid places for descriptors; the null pointers ask for no name, the usual modes and size.
    let (ours, theirs) = unsafe {
        let opened = libc::openpty(&raw mut ours, &raw mut theirs, none, none.cast(), none.cast());
        assert_eq!(opened, 0, "openpty: {}", std::io::Error::last_os_error());
        (OwnedFd::from_raw_fd(ours), OwnedFd::from_raw_fd(theirs))
    };
    // Other children must not keep the terminal open.
    for fd in [&ours, &theirs] {
        // SAFETY: no pointer; the descriptor is open.
        unsafe {
            libc::fcntl(fd.as_raw_fd(), libc::F_SETFD, libc::FD_CLOEXEC);
        }
    }
    let mut modes = std::mem::MaybeUninit::<libc::termios>::uninit();
    // SAFETY: tcgetattr fills the structure, and only then is it read.
    unsafe {
        if libc::tcgetattr(theirs.as_raw_fd(), modes.as_mut_ptr()) == 0 {
            let mut modes = modes.assume_init();
            modes.c_lflag &= !(libc::ECHO | libc::ECHONL);
            modes.c_oflag &= !libc::OPOST;
            libc::tcsetattr(theirs.as_raw_fd(), libc::TCSANOW, &raw const modes);
        }
    }
    (ours, theirs)
}
