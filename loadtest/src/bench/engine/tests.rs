//! The engine against servers that misbehave on purpose: stalls, closed connections, answers that are not RESP.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use super::{Drive, Settings, fill, run};
use crate::bench::pace::Spacing;

/// Answers every request of 16-byte keys (GET 38 bytes) with `+OK`, but nothing while `stalled` is true; ends with its client.
fn server(
    connections: usize,
    stalled: impl Fn(Duration) -> bool + Copy + Send + 'static,
    reply: &'static [u8],
) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for _ in 0..connections {
            let (mut stream, _) = listener.accept().unwrap();
            std::thread::spawn(move || {
                let (began, mut bytes, mut buffer) = (Instant::now(), 0, [0; 65536]);
                while let Ok(count @ 1..) = stream.read(&mut buffer) {
                    while stalled(began.elapsed()) {
                        std::thread::sleep(Duration::from_millis(1));
                    }
                    bytes += count;
                    let requests = bytes / GET_BYTES;
                    bytes %= GET_BYTES;
                    if stream.write_all(&reply.repeat(requests)).is_err() {
                        return;
                    }
                }
            });
        }
    });
    address
}

const GET_BYTES: usize = "*2\r\n$3\r\nGET\r\n$16\r\nkey:000000000000\r\n".len();

fn settings(address: SocketAddr, drive: Drive) -> Settings {
    Settings {
        address,
        connections: 4,
        threads: 1,
        drive,
        pipeline: 1,
        keys: 100,
        value_bytes: 3,
        read_share: 1.0,
        warmup: Duration::ZERO,
        duration: Duration::from_millis(1000),
        seed: 1,
        stop: Arc::default(),
    }
}

fn open(per_second: f64) -> Drive {
    Drive::Open { per_second, spacing: Spacing::Uniform }
}

/// The server sleeps from 0.2 s to 0.6 s. Every request due meanwhile waited; a client that waits for replies would have sent, and
/// measured, four.
#[test]
fn latency_counts_from_the_intended_time_through_a_stall() {
    let stall = |at: Duration| (200..600).contains(&at.as_millis());
    let outcome = run(&settings(server(4, stall, b"+OK\r\n"), open(2000.0))).unwrap();
    assert!((1998..=2000).contains(&outcome.due), "{}", outcome.due);
    assert_eq!((outcome.latencies.count(), outcome.unanswered, outcome.errors), (outcome.due, 0, 0));
    // About 800 of 2000 waited, evenly between 0 and 400 ms: the median of all is short, p90 is about 300 ms.
    assert!(outcome.latencies.us(0.5) < 100_000.0, "{}", outcome.latencies.us(0.5));
    assert!((200_000.0..450_000.0).contains(&outcome.latencies.us(0.9)), "{}", outcome.latencies.us(0.9));
    assert!((350_000.0..600_000.0).contains(&outcome.latencies.max_us()), "{}", outcome.latencies.max_us());
}

#[test]
fn what_is_never_answered_is_counted_with_the_time_that_was_waited() {
    let stall = |at: Duration| at.as_millis() > 300;
    let outcome = run(&settings(server(4, stall, b"+OK\r\n"), open(1000.0))).unwrap();
    assert!(outcome.unanswered > 500, "{}", outcome.unanswered);
    assert_eq!(outcome.latencies.count(), outcome.due);
    assert!(outcome.latencies.max_us() > 4_000_000.0, "{}", outcome.latencies.max_us());
    assert!(outcome.reached_per_second() < 500.0, "{}", outcome.reached_per_second());
}

#[test]
fn the_closed_loop_waits_for_a_whole_batch_and_threads_share_the_connections() {
    let base = settings(server(5, |_| false, b"+OK\r\n"), Drive::Closed);
    let outcome = run(&Settings { connections: 5, threads: 2, pipeline: 16, ..base }).unwrap();
    assert!(outcome.answered > 1000 && outcome.errors == 0, "{} {}", outcome.answered, outcome.errors);
    assert_eq!(outcome.latencies.count(), outcome.due);
}

#[test]
fn warm_up_is_not_measured_and_bursts_count_as_requests() {
    let base = settings(server(4, |_| false, b"$-1\r\n"), open(8000.0));
    let outcome = run(&Settings { pipeline: 8, warmup: Duration::from_millis(500), ..base }).unwrap();
    assert!((7_980..=8_020).contains(&outcome.due), "{}", outcome.due);
    assert_eq!((outcome.misses, outcome.latencies.count()), (outcome.due, outcome.due));
}

#[test]
fn error_replies_are_counted_and_the_first_is_kept() {
    let outcome = run(&settings(server(4, |_| false, b"-ERR no\r\n"), open(500.0))).unwrap();
    assert!(outcome.errors >= 498, "{}", outcome.errors);
    assert_eq!(outcome.first_error.as_deref(), Some("ERR no"));
}

#[test]
fn nonsense_and_lost_connections_end_the_run_with_an_error() {
    let nonsense = run(&settings(server(4, |_| false, b"HTTP/1.1 200\r\n"), open(500.0))).unwrap_err();
    assert!(nonsense.to_string().contains("not a RESP line"), "{nonsense}");
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        let accepted: Vec<_> = (0..4).map(|_| listener.accept().unwrap()).collect();
        std::thread::sleep(Duration::from_millis(100));
        drop(accepted);
    });
    let lost = run(&settings(address, open(500.0))).unwrap_err();
    assert!(lost.to_string().contains("every connection was lost"), "{lost}");
}

#[test]
fn a_refused_fill_is_an_error() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let mut buffer = [0; 65536];
        let _ = stream.read(&mut buffer);
        let _ = stream.write_all(b"-OOM no room\r\n");
        let _ = stream.read(&mut buffer);
    });
    let refused = fill(address, 1, 10).unwrap_err();
    assert!(refused.to_string().contains("OOM no room"), "{refused}");
}

#[test]
fn a_run_that_is_stopped_measures_the_time_it_ran() {
    let base = settings(server(4, |_| false, b"+OK\r\n"), open(1000.0));
    let stop = Arc::clone(&base.stop);
    std::thread::spawn(move || {
        std::thread::sleep(Duration::from_millis(300));
        stop.store(true, Ordering::Relaxed);
    });
    let outcome = run(&Settings { duration: Duration::from_secs(60), ..base }).unwrap();
    assert!((0.25..20.0).contains(&outcome.seconds), "{}", outcome.seconds);
    assert!((outcome.due_per_second() - 1000.0).abs() < 20.0, "{} due in {} s", outcome.due, outcome.seconds);
}
