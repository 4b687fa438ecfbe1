//! The cost of a call of a filter, everything included: writing the view, setting the deadline, the call, decoding the verdict.
//!
//! The memo is not used: this is the cost of the first command of its kind, and of every command for a filter without memo scopes.

use super::abi;
use super::host::{Fault, Instance, Module};
use abi::host::{Pair, Record, ReplyParts, Request, Window};
use abi::{Authority, Class, Encoding, Hook, Phase, Protocol, Purpose, RecordType, ReplyKind, Side, flags};
use base::model::limits;

/// One kind of call. Times are means over batches of calls; the percentiles are over the batches.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BenchRow {
    pub hook: Hook,
    /// What was shown to the hook, in words.
    pub view: String,
    pub view_bytes: usize,
    pub ns_min: u64,
    pub ns_median: u64,
    pub ns_p99: u64,
    pub calls: u64,
}

/// Calls each hook of a module with views that are typical of it. `clock`: nanoseconds, never going back.
///
/// # Errors
/// No instance could be made, or a call was answered with a fault: the sentence for the operator.
pub fn bench(module: &Module, config: &str, clock: fn() -> u64) -> Result<Vec<BenchRow>, String> {
    let mut instance = module.instantiate(config, 1).map_err(|refused| refused.text)?;
    let mut bench =
        Bench { scratch: vec![0; instance.buffer_length()], instance: &mut instance, clock, rows: Vec::new() };
    for hook in module.hooks() {
        match hook {
            Hook::Request => bench.requests()?,
            Hook::Pair => bench.pairs()?,
            Hook::Window => bench.window()?,
            Hook::Record => bench.record()?,
        }
    }
    Ok(bench.rows)
}

struct Bench<'i> {
    instance: &'i mut Instance,
    scratch: Vec<u8>,
    clock: fn() -> u64,
    rows: Vec<BenchRow>,
}

/// The wall-clock time given to the policy; the same for all calls.
const NOW_MS: i64 = 1_700_000_000_000;

const KEY: &[u8] = b"user:0000000001";

fn request<'a>(class: Class, command: &'a [u8], frame: &'a [u8]) -> Request<'a, std::iter::Once<&'a [u8]>> {
    Request {
        protocol: Protocol::Redis,
        class,
        phase: Phase::Compare,
        authority: Authority::Source,
        flags: 0,
        client: 1,
        sample: 1 << 31,
        database: b"0",
        command,
        keys: std::iter::once(KEY),
        size: frame.len() as u64,
        frame,
    }
}

fn reply(kind: ReplyKind, bytes: &[u8]) -> ReplyParts<'_> {
    ReplyParts { kind, length: bytes.len() as u64, latency_us: 100, bytes }
}

/// A frame of 64 bytes: the words and a filling.
fn frame(words: &[&[u8]]) -> Vec<u8> {
    let mut frame = words.join(&b" "[..]);
    frame.resize(62, b'x');
    frame.extend_from_slice(b"\r\n");
    frame
}

/// A set of 1024 members, the first of which is number `first`.
fn set(first: usize) -> Vec<u8> {
    let mut bytes = b"~1024\r\n".to_vec();
    for at in 0..1024 {
        bytes.extend_from_slice(format!("$10\r\nmember{:04}\r\n", (first + at) % 1024).as_bytes());
    }
    bytes
}

impl Bench<'_> {
    fn requests(&mut self) -> Result<(), String> {
        for (name, class) in [("GET", Class::Read), ("SET", Class::Write)] {
            let frame = frame(&[name.as_bytes(), KEY]);
            let view = request(class, name.as_bytes(), &frame);
            let bytes = view.write(&mut self.scratch);
            self.measure(Hook::Request, &format!("{name}, a frame of 64 bytes"), bytes, |instance| {
                instance.on_request(&view, NOW_MS).map(drop)
            })?;
        }
        Ok(())
    }

    fn pairs(&mut self) -> Result<(), String> {
        let frame = frame(&[b"SMEMBERS", KEY]);
        let value = [&b"$57\r\n"[..], &[b'v'; 57], b"\r\n"].concat();
        let (one, other) = (set(0), set(512));
        for (name, kind, bits, source, target) in [
            ("equal replies of 64 bytes", ReplyKind::Value, 0, &value, &value),
            ("sets of 1024 members in another order", ReplyKind::Set, flags::REQUEST_UNORDERED, &one, &other),
        ] {
            let mut request = request(Class::Read, b"SMEMBERS", &frame);
            request.flags = bits;
            let view =
                Pair { request, source: reply(kind, source), target: reply(kind, target), digests: None, raced: false };
            let bytes = view.write(&mut self.scratch);
            self.measure(Hook::Pair, name, bytes, |instance| instance.on_pair(&view, NOW_MS).map(drop))?;
        }
        Ok(())
    }

    fn window(&mut self) -> Result<(), String> {
        let side = Side { requests: 10_000, errors: 1, p50_us: 200, p99_us: 900 };
        let view = Window {
            phase: Phase::Migrate,
            authority: Authority::Source,
            flags: 0,
            at_ms: NOW_MS.unsigned_abs(),
            length_ms: 1000,
            phase_seconds: 60,
            source: side,
            target: side,
            shadow_lag_us: 300,
            queue_depth: 4,
            dirty: 0,
            in_flight: 10,
            compared: 5000,
            divergences_new: 0,
            divergences_total: 0,
            read_share: 5000,
            write_share: 0,
            migration: b"users",
        };
        let bytes = view.write(&mut self.scratch);
        self.measure(Hook::Window, "a quiet second", bytes, |instance| instance.on_window(&view, NOW_MS).map(drop))
    }

    fn record(&mut self) -> Result<(), String> {
        let value = [b'v'; 64];
        let view = Record {
            protocol: Protocol::Redis,
            record_type: RecordType::Text,
            encoding: Encoding::Raw,
            purpose: Purpose::Clone,
            ttl_ms: None,
            database: b"0",
            namespace: b"",
            key: KEY,
            value_length: value.len() as u64,
            value: &value,
        };
        let bytes = view.write(&mut self.scratch);
        self.measure(Hook::Record, "a value of 64 bytes", bytes, |instance| instance.on_record(&view, NOW_MS).map(drop))
    }

    fn measure(
        &mut self,
        hook: Hook,
        view: &str,
        view_bytes: usize,
        mut call: impl FnMut(&mut Instance) -> Result<(), Fault>,
    ) -> Result<(), String> {
        let mut batch = |instance: &mut Instance| -> Result<(), String> {
            for _ in 0..limits::POLICY_BENCH_BATCH {
                call(instance).map_err(|fault| format!("{} ({view}): {}", hook.word(), fault.text))?;
            }
            Ok(())
        };
        // One call first, to leave one-time costs out of the measurement.
        batch(self.instance)?;
        let begun = (self.clock)();
        let time = u64::try_from(limits::POLICY_BENCH_TIME.as_nanos()).unwrap_or(u64::MAX);
        let mut times = Vec::new();
        let mut now = begun;
        while times.len() < limits::POLICY_BENCH_BATCHES_MAX && now.saturating_sub(begun) < time {
            batch(self.instance)?;
            let then = std::mem::replace(&mut now, (self.clock)());
            times.push(now.saturating_sub(then) / limits::POLICY_BENCH_BATCH);
        }
        times.sort_unstable();
        let at = |per_hundred: usize| times.get((times.len() * per_hundred / 100).min(times.len() - 1)).copied();
        self.rows.push(BenchRow {
            hook,
            view: view.to_owned(),
            view_bytes,
            ns_min: at(0).unwrap_or(0),
            ns_median: at(50).unwrap_or(0),
            ns_p99: at(99).unwrap_or(0),
            calls: times.len() as u64 * limits::POLICY_BENCH_BATCH,
        });
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::builtin;
    use crate::host::{Host, HostOptions};

    /// A clock that advances by a hundred milliseconds with each reading, so that measuring ends soon.
    fn clock() -> u64 {
        use std::sync::atomic::{AtomicU64, Ordering};
        static NOW: AtomicU64 = AtomicU64::new(0);
        NOW.fetch_add(100_000_000, Ordering::Relaxed)
    }

    #[test]
    fn every_hook_of_a_filter_is_measured() {
        let host = Host::new(HostOptions { instances_max: 4, cache_dir: None, clock: || 0 }).expect("a host");
        let mut hooks = Vec::new();
        for shipped in builtin::shipped() {
            let module = host.load(shipped.name, shipped.wasm).expect("it loads");
            for row in bench(&module, "{}", clock).expect("it is measured") {
                assert!(row.ns_min <= row.ns_median && row.ns_median <= row.ns_p99 && row.calls > 0, "{row:?}");
                assert!(row.view_bytes >= 64, "{row:?}");
                hooks.push(row.hook);
            }
        }
        assert_eq!(hooks, [Hook::Request, Hook::Request, Hook::Pair, Hook::Pair, Hook::Window]);
        let module = host.load("mirror-reads", builtin::shipped()[0].wasm).expect("it loads");
        assert!(bench(&module, r#"{"sample_percent": 200}"#, clock).expect_err("refused").contains("sample_percent"));
    }
}
