//! Child processes, ports and directories that never outlive a test.

use std::io;
use std::net::TcpListener;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

/// A directory that is removed with its guard.
#[derive(Debug)]
pub struct TempDir(PathBuf);

impl TempDir {
    /// # Panics
    /// When the directory cannot be made.
    #[must_use]
    pub fn make(name: &str) -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let unique = format!("crossfade-e2e-{}-{}-{name}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        let path = std::env::temp_dir().join(unique);
        std::fs::create_dir_all(&path).expect("temporary directory");
        Self(path)
    }

    #[must_use]
    pub fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for TempDir {
    fn drop(&mut self) {
        // The logs of a failed test are in its message, so they need not stay on disk.
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// Lowest and highest port tried: below the range the kernel gives to outgoing connections, so that a server can be stopped and
/// started again on its port without a client taking it meanwhile.
const PORTS: std::ops::Range<u32> = 15_000..32_000;

/// A port on which nothing listens, never returned twice by this process.
///
/// # Panics
/// When every port of the range is taken.
#[must_use]
pub fn free_port() -> u16 {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let span = PORTS.end - PORTS.start;
    let begin = std::process::id().wrapping_mul(7919);
    for _ in 0..span {
        let offset = begin.wrapping_add(NEXT.fetch_add(1, Ordering::Relaxed)) % span;
        let port = u16::try_from(PORTS.start + offset).expect("a port fits 16 bits");
        if TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
    panic!("no free port between {} and {}", PORTS.start, PORTS.end);
}

/// A child process; killed and reaped when dropped, and killed by the kernel when the thread that started it ends.
#[derive(Debug)]
pub struct Running {
    child: Child,
    pub log: PathBuf,
}

impl Running {
    /// Starts `command` with both outputs appended to `log`.
    ///
    /// # Errors
    /// The operating system's.
    pub fn start(command: Command, log: &Path) -> io::Result<Self> {
        Self::start_dying_by(command, log, libc::SIGKILL)
    }

    /// As [`Running::start`]; `signal` is what the kernel sends when the starting thread ends.
    ///
    /// # Errors
    /// The operating system's.
    pub fn start_dying_by(mut command: Command, log: &Path, signal: i32) -> io::Result<Self> {
        let output = std::fs::File::options().create(true).append(true).open(log)?;
        command.stdin(Stdio::null()).stdout(output.try_clone()?).stderr(output);
        die_with_parent_by(&mut command, signal);
        Ok(Self { child: command.spawn()?, log: log.to_owned() })
    }

    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    pub fn ended(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().ok().flatten()
    }

    pub fn signal(&self, signal: i32) {
        // SAFETY: kill takes no pointer; the child is not reaped, so its number is not reused.
        unsafe {
            libc::kill(self.child.id().cast_signed(), signal);
        }
    }

    /// `kill -9`, and reaps.
    pub fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// SIGTERM, then waits.
    ///
    /// # Panics
    /// When it has not ended in time.
    pub fn terminate(&mut self, patience: Duration) -> ExitStatus {
        self.signal(libc::SIGTERM);
        let deadline = Instant::now() + patience;
        loop {
            if let Some(status) = self.ended() {
                return status;
            }
            assert!(Instant::now() < deadline, "the process did not end within {patience:?} of SIGTERM");
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    #[must_use]
    pub fn log_tail(&self, lines: usize) -> String {
        let text = std::fs::read_to_string(&self.log).unwrap_or_default();
        let all: Vec<&str> = text.lines().collect();
        all[all.len().saturating_sub(lines)..].join("\n")
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Makes the kernel kill the child when the thread that starts it ends.
pub fn die_with_parent(command: &mut Command) {
    die_with_parent_by(command, libc::SIGKILL);
}

fn die_with_parent_by(command: &mut Command, signal: i32) {
    // SAFETY: between fork and exec only prctl is called, which is async-signal-safe, and nothing is allocated.
    unsafe {
        command.pre_exec(move || {
            if libc::prctl(libc::PR_SET_PDEATHSIG, signal) == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
        });
    }
}
