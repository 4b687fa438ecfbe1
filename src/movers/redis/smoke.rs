//! Typed smoke tests of one server on reserved keys, removed afterwards.
//!
//! Lives on the movers' thread. It asks whether the server can hold and give back every type, not whether it holds the right data.

use super::clock::now_ms;
use crate::error::JobError;
use base::model::Endpoint;
use follow::redis::client::RedisClient;
use wire::resp::value::Value;

/// Large enough to cross every buffer on the way, small enough to do no harm.
const LARGE_VALUE_BYTES: usize = 1024 * 1024;

type Outcome = Result<(), String>;

/// Typed smoke tests on reserved keys (`__crossfade:smoke:*`), removed afterwards: every type, TTL, a large value, EVAL, MULTI.
/// Returns one line per check with its outcome.
///
/// # Errors
/// [`JobError`].
pub async fn smoke(endpoint: &Endpoint) -> Result<Vec<(String, Outcome)>, JobError> {
    let mut client = RedisClient::connect(endpoint).await?;
    let prefix = format!("__crossfade:smoke:{}:{}", std::process::id(), now_ms());
    let mut lines = Vec::new();
    for (name, steps) in TABLE {
        let key = format!("{prefix}:{name}");
        let outcome = run(&mut client, &key, steps).await?;
        client.must(&[b"DEL", key.as_bytes()]).await?;
        lines.push(((*name).to_owned(), outcome));
    }
    let key = format!("{prefix}:large");
    let outcome = large(&mut client, &key).await?;
    client.must(&[b"DEL", key.as_bytes()]).await?;
    lines.push(("large value".to_owned(), outcome));
    Ok(lines)
}

/// A command, `%` standing for the key, and the reply it must give, as [`render`] writes it.
type Step = (&'static [&'static str], &'static str);

const TABLE: &[(&str, &[Step])] = &[
    ("string", &[(&["SET", "%", "7"], "OK"), (&["INCRBY", "%", "35"], "42"), (&["GET", "%"], "42")]),
    ("list", &[(&["RPUSH", "%", "a", "b", "c"], "3"), (&["LPOP", "%"], "a"), (&["LRANGE", "%", "0", "-1"], "[b c]")]),
    ("set", &[(&["SADD", "%", "a", "a"], "1"), (&["SISMEMBER", "%", "a"], "1"), (&["SMEMBERS", "%"], "[a]")]),
    ("hash", &[(&["HSET", "%", "f", "1"], "1"), (&["HINCRBY", "%", "f", "2"], "3"), (&["HGETALL", "%"], "[f 3]")]),
    ("sorted set", &[(&["ZADD", "%", "1", "a", "2", "b"], "2"), (&["ZRANGE", "%", "0", "-1"], "[a b]")]),
    (
        "stream",
        &[
            (&["XADD", "%", "1-1", "f", "v"], "1-1"),
            (&["XLEN", "%"], "1"),
            (&["XRANGE", "%", "-", "+"], "[[1-1 [f v]]]"),
        ],
    ),
    (
        "expiry",
        &[
            (&["SET", "%", "v", "PX", "60000"], "OK"),
            (&["PERSIST", "%"], "1"),
            (&["PEXPIRETIME", "%"], "-1"),
            (&["PEXPIRE", "%", "60000"], "1"),
        ],
    ),
    ("script", &[(&["EVAL", "return redis.call('SET', KEYS[1], ARGV[1])", "1", "%", "v"], "OK"), (&["GET", "%"], "v")]),
    (
        "transaction",
        &[
            (&["MULTI"], "OK"),
            (&["SET", "%", "1"], "QUEUED"),
            (&["INCR", "%"], "QUEUED"),
            (&["EXEC"], "[OK 2]"),
            (&["GET", "%"], "2"),
        ],
    ),
];

async fn run(client: &mut RedisClient, key: &str, steps: &[Step]) -> Result<Outcome, JobError> {
    for (command, expected) in steps {
        let args: Vec<&[u8]> =
            command.iter().map(|part| if *part == "%" { key.as_bytes() } else { part.as_bytes() }).collect();
        let got = render(&client.call(&args).await?);
        if got != *expected {
            return Ok(Err(format!("{} gave {got}, expected {expected}", command[0])));
        }
    }
    Ok(Ok(()))
}

async fn large(client: &mut RedisClient, key: &str) -> Result<Outcome, JobError> {
    let value: Vec<u8> = (0..LARGE_VALUE_BYTES).map(|at| (at % 251) as u8).collect();
    client.must(&[b"SET", key.as_bytes(), &value]).await?;
    let back = client.must(&[b"GET", key.as_bytes()]).await?;
    Ok(if back.bytes() == Some(&value) { Ok(()) } else { Err(format!("GET gave {}", back.brief())) })
}

fn render(value: &Value) -> String {
    match (value.items(), value.bytes()) {
        (Some(items), _) => format!("[{}]", items.iter().map(render).collect::<Vec<_>>().join(" ")),
        (None, Some(bytes)) => String::from_utf8_lossy(bytes).into_owned(),
        (None, None) => value.brief(),
    }
}
