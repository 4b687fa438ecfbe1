//! Processes, ports and files that never outlive the demo: each is stopped or removed when its guard is dropped, also on a panic.
//!
//! Children also ask the kernel to be killed with the thread that started them, so that not even `kill -9` leaves one behind.

use std::io;
use std::net::TcpListener;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// How long a child may take to end after the request before it is killed.
const STOP_PATIENCE: Duration = Duration::from_secs(5);

/// How often a request to stop is checked.
const STOP_POLL: Duration = Duration::from_millis(50);

static STOP: AtomicBool = AtomicBool::new(false);

/// True once the user asked the demo to stop (SIGINT, SIGTERM or SIGHUP).
pub fn stop_requested() -> bool {
    STOP.load(Ordering::Relaxed)
}

/// Sleeps for `time`, or until the user asked to stop.
///
/// # Errors
/// "stopped by the user".
pub fn rest(time: Duration) -> Result<(), String> {
    let until = Instant::now() + time;
    loop {
        if stop_requested() {
            return Err("stopped by the user".to_owned());
        }
        let left = until.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Ok(());
        }
        std::thread::sleep(left.min(STOP_POLL));
    }
}

/// From now on SIGINT, SIGTERM and SIGHUP only set a flag, so that guards run. The signal thread lives as long as the process.
pub fn catch_signals() -> io::Result<()> {
    use tokio::signal::unix::{SignalKind, signal};
    let (ready, is_ready) = std::sync::mpsc::channel();
    std::thread::Builder::new().name("signals".to_owned()).spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let wait = async {
            let mut interrupt = signal(SignalKind::interrupt())?;
            let mut terminate = signal(SignalKind::terminate())?;
            let mut hangup = signal(SignalKind::hangup())?;
            let _ = ready.send(Ok(()));
            loop {
                tokio::select! {
                    _ = interrupt.recv() => {}
                    _ = terminate.recv() => {}
                    _ = hangup.recv() => {}
                }
                STOP.store(true, Ordering::Relaxed);
            }
        };
        let ended: io::Result<()> = match runtime {
            Ok(runtime) => runtime.block_on(wait),
            Err(error) => Err(error),
        };
        if let Err(error) = ended {
            let _ = ready.send(Err(error));
        }
    })?;
    is_ready.recv().unwrap_or_else(|_| Err(io::Error::other("the signal thread ended")))
}

/// A directory that is removed with its guard.
#[derive(Debug)]
pub struct WorkDir(PathBuf);

impl WorkDir {
    pub fn make() -> io::Result<Self> {
        let path = std::env::temp_dir().join(format!("crossfade-demo-{}", std::process::id()));
        std::fs::create_dir(&path)?;
        Ok(Self(path))
    }

    pub fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for WorkDir {
    fn drop(&mut self) {
        if let Err(error) = std::fs::remove_dir_all(&self.0) {
            eprintln!("demo: {} could not be removed: {error}", self.0.display());
        }
    }
}

/// A port on which nothing listens at this moment.
pub fn free_port() -> io::Result<u16> {
    Ok(TcpListener::bind(("127.0.0.1", 0))?.local_addr()?.port())
}

/// The signals that end a child.
#[derive(Debug, Clone, Copy)]
pub struct Ending {
    /// The signal that asks it to end.
    pub asked: libc::c_int,
    /// The signal that the kernel sends when the demo has died.
    pub orphaned: libc::c_int,
}

impl Ending {
    pub const ORDINARY: Self = Self { asked: libc::SIGTERM, orphaned: libc::SIGKILL };
    /// On SIGINT a postmaster disconnects its clients. On SIGQUIT, when the demo has died, it also ends its children, unlike on SIGKILL.
    pub const POSTMASTER: Self = Self { asked: libc::SIGINT, orphaned: libc::SIGQUIT };
}

/// A child process; stopped and reaped when dropped.
#[derive(Debug)]
pub struct Running {
    child: Child,
    name: String,
    ending: Ending,
    pub log: PathBuf,
}

impl Running {
    /// Starts `command` with both outputs in `directory/NAME.log`.
    pub fn start(command: Command, name: &str, directory: &Path) -> io::Result<Self> {
        Self::start_with(Ending::ORDINARY, command, name, directory)
    }

    /// As [`Running::start`], for a child that needs other signals.
    pub fn start_with(ending: Ending, mut command: Command, name: &str, directory: &Path) -> io::Result<Self> {
        let log = directory.join(format!("{name}.log"));
        let output = std::fs::File::create(&log)?;
        command.stdin(Stdio::null()).stdout(output.try_clone()?).stderr(output).current_dir(directory);
        die_with_parent_by(&mut command, ending.orphaned);
        let child = command.spawn().map_err(|error| io::Error::new(error.kind(), format!("{name}: {error}")))?;
        Ok(Self { child, name: name.to_owned(), ending, log })
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// The exit status if it has ended.
    pub fn ended(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().ok().flatten()
    }

    /// The last lines of its output.
    pub fn log_tail(&self, lines: usize) -> String {
        let text = std::fs::read_to_string(&self.log).unwrap_or_default();
        let all: Vec<&str> = text.lines().collect();
        all[all.len().saturating_sub(lines)..].join("\n")
    }

    fn stop(&mut self) {
        if self.ended().is_some() {
            return;
        }
        // SAFETY: kill takes no pointer; the child is not reaped yet, so its number is not reused.
        unsafe {
            libc::kill(self.child.id().cast_signed(), self.ending.asked);
        }
        let deadline = Instant::now() + STOP_PATIENCE;
        while self.ended().is_none() {
            if Instant::now() > deadline {
                eprintln!("demo: {} did not end within {} s; killing it", self.name, STOP_PATIENCE.as_secs());
                let _ = self.child.kill();
                let _ = self.child.wait();
                return;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.stop();
    }
}

/// Makes the kernel kill the child when the thread that starts it ends, and keeps the terminal's Ctrl-C away from it: the demo
/// stops its children itself, in order.
pub fn die_with_parent(command: &mut Command) {
    die_with_parent_by(command, Ending::ORDINARY.orphaned);
}

fn die_with_parent_by(command: &mut Command, signal: libc::c_int) {
    let parent = std::process::id();
    command.process_group(0);
    // SAFETY: between fork and exec only prctl and getppid are called, both async-signal-safe, and nothing is allocated.
    unsafe {
        command.pre_exec(move || {
            if libc::prctl(libc::PR_SET_PDEATHSIG, signal) != 0 {
                return Err(io::Error::last_os_error());
            }
            // The parent may have ended before prctl was called.
            if libc::getppid().cast_unsigned() != parent {
                return Err(io::Error::from_raw_os_error(libc::ESRCH));
            }
            Ok(())
        });
    }
}
