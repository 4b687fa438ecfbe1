//! What /proc and the installed programs say: CPU time and memory of processes, and the machine of a result. Reads only.

use std::collections::{BTreeMap, BTreeSet};
use std::process::Command;
use std::time::Duration;

use serde_json::{Value as Json, json};

/// Parent, own ticks, ticks of children that were waited for, by process.
type Stats = BTreeMap<u32, (u32, u64, u64)>;

/// User and system time in microseconds of a process, of its children that ended and of those that live.
///
/// /proc is not read in one instant: a child that is reaped between the reading of its parent and its own would be in
/// neither. So the family must be the same in two readings; one that keeps changing is used as it is.
#[must_use]
pub fn cpu_us(pid: u32) -> f64 {
    let mut last = family(&look(), pid);
    for _ in 0..LOOKS_MAX {
        let now = family(&look(), pid);
        let rests = now.0 == last.0;
        last = now;
        if rests {
            break;
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    last.1 as f64 * 1e6 / ticks_per_second()
}

const LOOKS_MAX: u32 = 100;

fn look() -> Stats {
    let mut stats = Stats::new();
    for entry in std::fs::read_dir("/proc").into_iter().flatten().flatten() {
        let Some(number) = entry.file_name().to_str().and_then(|name| name.parse::<u32>().ok()) else { continue };
        if let Some(stat) = std::fs::read_to_string(entry.path().join("stat")).ok().as_deref().and_then(parse_stat) {
            stats.insert(number, stat);
        }
    }
    stats
}

/// `pid` and its descendants, and the sum of their ticks.
fn family(stats: &Stats, pid: u32) -> (BTreeSet<u32>, u64) {
    let (mut members, mut ticks, mut next) = (BTreeSet::new(), 0, vec![pid]);
    while let Some(member) = next.pop() {
        if let Some((_, own, of_ended)) = stats.get(&member).filter(|_| members.insert(member)) {
            ticks += own + of_ended;
            next.extend(stats.iter().filter(|(_, (parent, ..))| *parent == member).map(|(number, _)| *number));
        }
    }
    (members, ticks)
}

fn ticks_per_second() -> f64 {
    // SAFETY: takes no pointer.
    unsafe { libc::sysconf(libc::_SC_CLK_TCK) as f64 }
}

/// Parent, own ticks, ticks of children that were waited for. The name may hold spaces and parentheses: fields count from the last one.
fn parse_stat(text: &str) -> Option<(u32, u64, u64)> {
    let fields: Vec<&str> = text.get(text.rfind(')')? + 1..)?.split_whitespace().collect();
    let number = |at: usize| fields.get(at).and_then(|field| field.parse::<u64>().ok());
    Some((u32::try_from(number(1)?).ok()?, number(11)? + number(12)?, number(13)? + number(14)?))
}

/// Anonymous resident memory of the process, in bytes.
///
/// # Errors
/// When the process is gone.
pub fn resident_bytes(pid: u32) -> Result<u64, String> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/status")).map_err(|error| format!("pid {pid}: {error}"))?;
    parse_anonymous(&text).ok_or_else(|| format!("pid {pid}: no RssAnon"))
}

fn parse_anonymous(text: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix("RssAnon:"))?;
    Some(line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()? * 1024)
}

fn first_line(program: &str, args: &[&str]) -> Option<String> {
    let output = Command::new(program).args(args).output().ok()?;
    let text = [output.stdout, output.stderr].concat();
    String::from_utf8_lossy(&text).lines().map(str::trim).find(|line| !line.is_empty()).map(str::to_owned)
}

fn field(path: &str, name: &str) -> Option<String> {
    let text = std::fs::read_to_string(path).ok()?;
    let line = text.lines().find(|line| line.starts_with(name))?;
    line.split_once(':').map(|(_, value)| value.trim().to_owned())
}

/// The load average over the last minute: shows what else the machine did.
#[must_use]
pub fn load_average() -> f64 {
    let text = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    text.split(' ').next().and_then(|word| word.parse().ok()).unwrap_or(0.0)
}

/// Processor, kernel, versions, date, commit.
#[must_use]
pub fn described(crossfade: &str) -> Json {
    let versions = [
        ("crossfade", first_line(crossfade, &["--version"])),
        ("redis-server", first_line("redis-server", &["--version"])),
        ("redis-benchmark", first_line("redis-benchmark", &["--version"])),
        ("haproxy", first_line("/usr/sbin/haproxy", &["-v"])),
        ("nutcracker", first_line("/usr/sbin/nutcracker", &["--version"])),
        ("postgres", first_line("/usr/lib/postgresql/15/bin/postgres", &["--version"])),
        ("pgbench", first_line("/usr/lib/postgresql/15/bin/pgbench", &["--version"])),
        ("pgbouncer", first_line("/usr/sbin/pgbouncer", &["--version"])),
        ("pgpool", first_line("/usr/sbin/pgpool", &["--version"])),
    ];
    let versions: BTreeMap<&str, String> =
        versions.into_iter().filter_map(|(name, said)| Some((name, said?))).collect();
    json!({
        "date": first_line("date", &["-u", "+%Y-%m-%dT%H:%M:%SZ"]),
        "commit": first_line("git", &["rev-parse", "HEAD"]),
        "kernel": first_line("uname", &["-srm"]),
        "processor": field("/proc/cpuinfo", "model name"),
        "cores": std::thread::available_parallelism().map_or(0, std::num::NonZero::get),
        "memory": field("/proc/meminfo", "MemTotal"),
        "versions": versions,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_with_parentheses_does_not_shift_the_fields() {
        let line = "42 (a) b (c)) S 7 42 42 0 -1 4194304 100 200 0 0 11 22 33 44 20 0 1 0 5 6 7";
        assert_eq!(parse_stat(line), Some((7, 33, 77)));
        assert_eq!(parse_stat("nonsense"), None);
    }

    #[test]
    fn a_family_is_all_descendants_with_the_time_of_ended_ones() {
        let stats = Stats::from([(10, (1, 5, 100)), (11, (10, 7, 0)), (12, (11, 1, 0)), (13, (1, 1000, 0))]);
        assert_eq!(family(&stats, 10), (BTreeSet::from([10, 11, 12]), 113));
        assert_eq!(family(&stats, 99), (BTreeSet::new(), 0));
    }

    #[test]
    fn work_is_seen_in_the_time_of_a_process_and_of_its_children() {
        let before = cpu_us(std::process::id());
        let status =
            Command::new("sh").args(["-c", "i=0; while [ $i -lt 100000 ]; do i=$((i+1)); done"]).status().unwrap();
        assert!(status.success() && cpu_us(std::process::id()) > before);
        assert_eq!(cpu_us(u32::MAX), 0.0);
    }

    #[test]
    fn anonymous_memory_is_read() {
        assert_eq!(parse_anonymous("Name:\tx\nRssAnon:\t    1234 kB\nRssFile:\t 9 kB\n"), Some(1234 * 1024));
        assert_eq!(parse_anonymous("RssFile:\t 9 kB\n"), None);
        assert!(resident_bytes(std::process::id()).unwrap() > 0);
    }
}
