//! One load on one contestant: runs the tool, reads /proc before and after, returns numbers and the command that produced them.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value as Json;

use crate::bench::dual::Dual;
use crate::bench::machine::{cpu_us, resident_bytes};
use crate::bench::postgres_side::login;
use crate::bench::scenario::Load;
use crate::process::die_with_parent;

/// The programs to use, and the durations.
#[derive(Debug, Clone)]
pub struct Tools {
    pub crossfade: PathBuf,
    pub loadgen: PathBuf,
    pub quick: bool,
}

/// Where the load goes, and whose CPU time counts.
#[derive(Debug, Clone)]
pub struct Target {
    pub port: u16,
    /// `None` = direct.
    pub proxy: Option<u32>,
    pub servers: Vec<u32>,
}

/// The result of one measurement.
#[derive(Debug, Default)]
pub struct Measured {
    pub metrics: BTreeMap<String, f64>,
    pub command: String,
    pub curve: Option<Json>,
}

impl Measured {
    fn set(&mut self, name: &str, value: f64) {
        self.metrics.insert(name.to_owned(), value);
    }
}

/// Requests per second of direct in a closed loop, by load; the rate of an open loop is a share of it.
pub type Rates = BTreeMap<String, f64>;

/// Loads of Redis that need only a port.
///
/// # Errors
/// When the tool fails or its output cannot be read; nothing was measured then.
pub fn on_port(load: &Load, name: &str, target: &Target, tools: &Tools, rates: &Rates) -> Result<Measured, String> {
    match load {
        Load::RedisBenchmark { .. } => redis_benchmark(load, target, tools),
        Load::OpenLoop { share_of_direct, connections, value_bytes, keys, read_share, seconds, seconds_quick } => {
            let direct = rates.get(name).ok_or("the rate of direct is not known")?;
            // Two digits, so that the rate is easy to type again.
            let rate = two_digits(direct * share_of_direct);
            let seconds = if tools.quick { seconds_quick } else { seconds };
            let words = format!(
                "--rate {rate} --connections {connections} --value-bytes {value_bytes} --keys {keys} --read-share {read_share} \
                 --duration {seconds} --warmup 0.5"
            );
            open_loop(&words, target, tools)
        }
        Load::Knee { p99_bound_us, start, connections, value_bytes, keys, read_share, seconds } => {
            let words = format!(
                "--find-knee --rate {start} --p99-bound-us {p99_bound_us} --connections {connections} --value-bytes {value_bytes} \
                 --keys {keys} --read-share {read_share} --duration {seconds} --warmup 0.5"
            );
            let (told, command) = loadgen(&words, target.port, tools)?;
            let mut measured = Measured { command, ..Measured::default() };
            measured.set("knee_per_s", told["knee_per_s"].as_f64().ok_or("even the first rate was too much")?);
            Ok(measured)
        }
        Load::Idle { connections } => idle(*connections, target, tools),
        Load::Pgbench { .. } => pgbench(load, target, tools),
        Load::Backfill { .. } | Load::Flips { .. } => Err("needs a migration".to_owned()),
    }
}

/// Runs `work` and adds the CPU time per request of proxy and servers to its numbers.
fn with_cpu(target: &Target, work: impl FnOnce() -> Result<(Measured, f64), String>) -> Result<Measured, String> {
    let proxy = || target.proxy.map_or(0.0, cpu_us);
    let servers = || target.servers.iter().copied().map(cpu_us).sum::<f64>();
    let (proxy_before, servers_before) = (proxy(), servers());
    let (mut measured, requests) = work()?;
    let (by_proxy, by_servers) = ((proxy() - proxy_before) / requests, (servers() - servers_before) / requests);
    if target.proxy.is_some() {
        measured.set("proxy_cpu_us", by_proxy);
    }
    measured.set("server_cpu_us", by_servers);
    measured.set("total_cpu_us", by_proxy + by_servers);
    Ok(measured)
}

fn output_of(mut command: Command) -> Result<(String, String), String> {
    let shown = shown(&command);
    die_with_parent(&mut command);
    let output = command.stdin(Stdio::null()).output().map_err(|error| format!("{shown}: {error}"))?;
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let (out, err) = (text(&output.stdout), text(&output.stderr));
    if output.status.success() { Ok((out, shown)) } else { Err(format!("{shown}: {} {out} {err}", output.status)) }
}

/// The command as one would type it.
fn shown(command: &Command) -> String {
    let program = Path::new(command.get_program()).file_name().unwrap_or_default().to_string_lossy().into_owned();
    let words = command.get_args().map(|word| word.to_string_lossy().into_owned());
    std::iter::once(program).chain(words).collect::<Vec<_>>().join(" ")
}

fn redis_benchmark(load: &Load, target: &Target, tools: &Tools) -> Result<Measured, String> {
    let Load::RedisBenchmark { test, clients, pipeline, value_bytes, keys, requests, requests_quick } = load else {
        return Err("not a load of redis-benchmark".to_owned());
    };
    let requests = if tools.quick { requests_quick } else { requests };
    let mut command = Command::new("redis-benchmark");
    let words = format!(
        "-h 127.0.0.1 -p {} -c {clients} -P {pipeline} -d {value_bytes} -r {keys} -n {requests} -t {test} --csv",
        target.port
    );
    command.args(words.split(' '));
    with_cpu(target, || {
        let (out, shown) = output_of(command)?;
        let row = parse_csv(&out, test).ok_or_else(|| format!("{shown}: {out}"))?;
        let mut measured = Measured { command: shown, ..Measured::default() };
        measured.set("per_s", *row.get("rps").ok_or("no rps")?);
        for (ours, theirs) in [("closed_p50_ms", "p50_latency_ms"), ("closed_p99_ms", "p99_latency_ms")] {
            if let Some(value) = row.get(theirs) {
                measured.set(ours, *value);
            }
        }
        Ok((measured, *requests as f64))
    })
}

/// The row of a test in redis-benchmark's CSV, by the names of its columns. Warnings may stand before it.
fn parse_csv(text: &str, test: &str) -> Option<BTreeMap<String, f64>> {
    let words =
        |line: &str| -> Vec<String> { line.split(',').map(|word| word.trim().trim_matches('"').to_owned()).collect() };
    let mut lines = text.lines().skip_while(|line| !line.starts_with("\"test\""));
    let names = words(lines.next()?);
    let row = lines.map(words).find(|row| row[0].eq_ignore_ascii_case(test))?;
    Some(names.into_iter().zip(row).filter_map(|(name, value)| Some((name, value.parse().ok()?))).collect())
}

fn loadgen_command(words: &str, port: u16, tools: &Tools) -> Command {
    let mut command = Command::new(&tools.loadgen);
    command.args(["--port", &port.to_string()]).args(words.split(' '));
    die_with_parent(&mut command);
    command
}

fn loadgen(words: &str, port: u16, tools: &Tools) -> Result<(Json, String), String> {
    let (out, shown) = output_of(loadgen_command(words, port, tools))?;
    let told: Json = serde_json::from_str(&out).map_err(|error| format!("{shown}: {error}: {out:.200}"))?;
    if told["errors"].as_u64().unwrap_or(0) > 0 {
        return Err(format!("{shown}: {} errors, the first {}", told["errors"], told["first_error"]));
    }
    Ok((told, shown))
}

fn open_loop(words: &str, target: &Target, tools: &Tools) -> Result<Measured, String> {
    with_cpu(target, || {
        let (told, command) = loadgen(words, target.port, tools)?;
        let number = |value: &Json| value.as_f64().ok_or_else(|| format!("{command}: no number"));
        let mut measured = Measured::default();
        for quantile in ["p50", "p90", "p99", "p999", "max"] {
            measured.set(&format!("{quantile}_us"), number(&told["latency_us"][quantile])?);
        }
        measured.set("lateness_p99_us", number(&told["lateness_us"]["p99"])?);
        measured.set("due_per_s", number(&told["due_per_s"])?);
        measured.set("per_s", number(&told["reached_per_s"])?);
        measured.set("unanswered", number(&told["unanswered"])?);
        measured.curve = Some(told["curve"].clone());
        measured.command.clone_from(&command);
        // Includes the warm-up, whose CPU time is included too.
        let all = number(&told["due_per_s"])? * (number(&told["measured_s"])? + number(&told["warmup_s"])?);
        Ok((measured, all))
    })
}

/// The closed-loop rate of direct, of which an open loop uses a share.
///
/// # Errors
/// When loadgen fails.
pub fn calibrate(load: &Load, port: u16, tools: &Tools) -> Result<(f64, String), String> {
    let Load::OpenLoop { connections, value_bytes, keys, read_share, .. } = load else {
        return Err("only an open loop needs a rate".to_owned());
    };
    let seconds = if tools.quick { 1 } else { 3 };
    let words = format!(
        "--connections {connections} --value-bytes {value_bytes} --keys {keys} --read-share {read_share} --duration {seconds} --warmup 0.3"
    );
    let (told, command) = loadgen(&words, port, tools)?;
    Ok((told["reached_per_s"].as_f64().ok_or("no rate")?, command))
}

fn two_digits(rate: f64) -> f64 {
    let unit = 10f64.powf(rate.max(10.0).log10().floor() - 1.0);
    (rate / unit).floor() * unit
}

/// How long connections are idle before memory is read: memory needed only to accept them is freed by then.
const SETTLE: Duration = Duration::from_secs(1);

fn idle(connections: usize, target: &Target, tools: &Tools) -> Result<Measured, String> {
    let who = target.proxy.or(target.servers.first().copied()).ok_or("no process to measure")?;
    let before = resident_bytes(who)?;
    let mut command = loadgen_command(&format!("--idle {connections} --hold 60"), target.port, tools);
    let mut measured = Measured { command: shown(&command), ..Measured::default() };
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(|error| format!("{}: {error}", measured.command))?;
    let mut line = String::new();
    let read = BufReader::new(child.stdout.take().expect("piped")).read_line(&mut line);
    let opened: Option<Json> = read.ok().and_then(|_| serde_json::from_str(&line).ok());
    std::thread::sleep(SETTLE);
    let after = resident_bytes(who);
    drop(child.stdin.take());
    let ended = child.wait_with_output().map_err(|error| error.to_string())?;
    if opened.is_none_or(|opened| opened["connections"] != connections) {
        return Err(format!("{}: {}", measured.command, String::from_utf8_lossy(&ended.stderr).trim()));
    }
    let grown = after?.saturating_sub(before);
    measured.set("bytes_each", grown as f64 / connections as f64);
    measured.set("resident_before_kib", before as f64 / 1024.0);
    Ok(measured)
}

fn pgbench(load: &Load, target: &Target, tools: &Tools) -> Result<Measured, String> {
    let Load::Pgbench { script, mode, clients, seconds, seconds_quick } = load else {
        return Err("not a load of pgbench".to_owned());
    };
    let seconds = if tools.quick { seconds_quick } else { seconds };
    let words = format!("-n -b {script} -M {mode} -c {clients} -j 2 -T {seconds}");
    let command = format!("pgbench -h 127.0.0.1 -p {} {words}", target.port);
    with_cpu(target, || {
        let ran = login(target.port).run("pgbench", &words.split(' ').collect::<Vec<_>>());
        let (per_s, count) = (ran.code == 0).then(|| parse_pgbench(&ran.stdout)).flatten().ok_or_else(|| {
            let error = ran.stderr.lines().find(|line| line.contains("rror")).unwrap_or(&ran.stderr);
            format!("{command}: exit {}: {}", ran.code, error.trim())
        })?;
        let mut measured = Measured { command, ..Measured::default() };
        measured.set("per_s", per_s);
        Ok((measured, count))
    })
}

/// Transactions per second and their number; `None` when any failed.
fn parse_pgbench(text: &str) -> Option<(f64, f64)> {
    let after = |name: &str| text.lines().find_map(|line| line.strip_prefix(name)).map(str::trim);
    if !after("number of failed transactions:")?.starts_with("0 ") {
        return None;
    }
    let per_s = after("tps =")?.split(' ').next()?.parse().ok()?;
    let count = after("number of transactions actually processed:")?.split('/').next()?.trim().parse().ok()?;
    Some((per_s, count))
}

/// The first pass of a migration over a source at rest.
///
/// # Errors
/// What did not work.
pub fn backfill(load: &Load, tools: &Tools, feed: &str) -> Result<Measured, String> {
    let Load::Backfill { value_bytes, keys, keys_quick } = load else { return Err("not a backfill".to_owned()) };
    let keys = if tools.quick { *keys_quick } else { *keys };
    let dual = Dual::prepare(&tools.crossfade, keys, *value_bytes, feed)?;
    dual.until("the gates of compare", |now| {
        now["gates"].as_array().is_some_and(|gates| gates.iter().all(|gate| gate["met"] == true))
    })?;
    let used = || [&dual.proxy, &dual.source, &dual.target].map(|program| cpu_us(program.pid()));
    let (before, began) = (used(), Instant::now());
    dual.compare()?;
    let seconds = began.elapsed().as_secs_f64();
    let after = used();
    let mut measured = Measured {
        command: format!(
            "crossfade migration advance bench --to compare   # {keys} keys of {value_bytes} bytes; until uncopied = false"
        ),
        ..Measured::default()
    };
    measured.set("seconds", seconds);
    measured.set("keys_per_s", keys as f64 / seconds);
    measured.set("mb_per_s", keys as f64 * *value_bytes as f64 / 1e6 / seconds);
    for (at, name) in ["proxy_cpu_share", "source_cpu_share", "target_cpu_share"].into_iter().enumerate() {
        measured.set(name, (after[at] - before[at]) / 1e6 / seconds);
    }
    Ok(measured)
}

/// Changes of authority under load, there and back: the pause as reported by Crossfade, and the longest wait of any client.
///
/// # Errors
/// What did not work.
pub fn flips(load: &Load, tools: &Tools, feed: &str) -> Result<Measured, String> {
    let Load::Flips { per_second, connections, value_bytes, keys, read_share, flips, flips_quick } = load else {
        return Err("not a load of flips".to_owned());
    };
    let words = format!(
        "--rate {per_second} --connections {connections} --value-bytes {value_bytes} --keys {keys} --read-share {read_share} \
         --duration 120 --warmup 0.2 --until-eof"
    );
    let dual = Dual::prepare(&tools.crossfade, *keys, *value_bytes, feed)?;
    let mut client_max_ms = Vec::new();
    dual.compare()?;
    let still = under_load(&words, &dual, tools, || {
        std::thread::sleep(Duration::from_secs(2));
        Ok(())
    })?;
    for number in 0..if tools.quick { *flips_quick } else { *flips } {
        if number > 0 {
            dual.compare()?;
        }
        let there = under_load(&words, &dual, tools, || {
            dual.advance("test")?;
            dual.advance("migrate")?;
            dual.authority("target").map(drop)
        })?;
        let back = under_load(&words, &dual, tools, || {
            dual.rollback()?;
            dual.authority("source").map(drop)
        })?;
        client_max_ms.extend([there, back]);
    }
    let now = dual.show()?;
    let mut pauses_ms: Vec<f64> = now["flips"]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(|flip| Some(flip["pause_us"].as_f64()? / 1000.0))
        .collect();
    if pauses_ms.len() != client_max_ms.len() {
        return Err(format!("{} changes of authority were made, {} recorded", client_max_ms.len(), pauses_ms.len()));
    }
    let mut measured =
        Measured { command: format!("loadgen --port PORT {words}   # around each change"), ..Measured::default() };
    measured.set("still_max_ms", still);
    for (name, values) in [("pause", &mut pauses_ms), ("client_max", &mut client_max_ms)] {
        values.sort_by(f64::total_cmp);
        // With so few values the 99th percentile is the largest.
        measured.set(&format!("{name}_p99_ms"), values.last().copied().unwrap_or(f64::NAN));
        measured.set(&format!("{name}_p50_ms"), values[values.len() / 2]);
    }
    measured.set("flips", pauses_ms.len() as f64);
    Ok(measured)
}

/// Runs `work` under loadgen and returns the longest latency from an intended send time, in milliseconds.
fn under_load(
    words: &str,
    dual: &Dual,
    tools: &Tools,
    work: impl FnOnce() -> Result<(), String>,
) -> Result<f64, String> {
    let mut command = loadgen_command(words, dual.proxy.port, tools);
    let shown = shown(&command);
    let spawned = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn();
    let mut child = spawned.map_err(|error| format!("{shown}: {error}"))?;
    // After the warm-up, so that the change happens in the measured window.
    std::thread::sleep(Duration::from_millis(500));
    let worked = work();
    std::thread::sleep(Duration::from_millis(300));
    let mut stdin = child.stdin.take().expect("piped");
    let _ = stdin.flush();
    drop(stdin);
    let output = child.wait_with_output().map_err(|error| error.to_string())?;
    worked?;
    let told: Json = serde_json::from_slice(&output.stdout)
        .map_err(|error| format!("{shown}: {error}: {}", String::from_utf8_lossy(&output.stderr)))?;
    if told["errors"].as_u64() != Some(0) || told["unanswered"].as_u64() != Some(0) {
        return Err(format!(
            "{shown}: errors {}, unanswered {}, {}",
            told["errors"], told["unanswered"], told["first_error"]
        ));
    }
    told["latency_us"]["max"].as_f64().map(|us| us / 1000.0).ok_or_else(|| format!("{shown}: no maximum"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_csv_of_redis_benchmark_is_read_by_its_names() {
        let text = "WARNING: Could not fetch server CONFIG\n\"test\",\"rps\",\"avg_latency_ms\",\"min_latency_ms\",\"p50_latency_ms\"\n\
            \"SET\",\"1.5\",\"0.8\",\"0.1\",\"0.7\"\n\"GET\",\"39062.50\",\"0.832\",\"0.088\",\"0.799\"\n";
        let row = parse_csv(text, "get").unwrap();
        assert_eq!((row["rps"], row["p50_latency_ms"]), (39062.5, 0.799));
        assert_eq!(parse_csv(text, "incr"), None);
        assert_eq!(parse_csv("Error from server: ERR\n", "get"), None);
    }

    #[test]
    fn pgbench_with_a_failed_transaction_is_not_a_measurement() {
        let text = "number of transactions actually processed: 1234\nnumber of failed transactions: 0 (0.000%)\nlatency average = 1 ms\n\
            tps = 617.25 (without initial connection time)\n";
        assert_eq!(parse_pgbench(text), Some((617.25, 1234.0)));
        assert_eq!(parse_pgbench(&text.replace(": 0 (", ": 1 (")), None);
        assert_eq!(parse_pgbench(&text.replace("1234", "1234/5000")), Some((617.25, 1234.0)));
        assert_eq!(parse_pgbench("pgbench: error: connection failed\n"), None);
    }

    #[test]
    fn a_rate_has_two_digits_and_is_never_more_than_asked() {
        for (asked, expected) in [(31_499.0, 31_000.0), (99_999.0, 99_000.0), (123_456.0, 120_000.0), (10.0, 10.0)] {
            assert!((two_digits(asked) - expected).abs() < 1e-6, "{asked}: {}", two_digits(asked));
        }
    }
}
