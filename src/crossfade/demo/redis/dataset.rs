//! The data that the source has before the demo begins: every type, small and large, in every encoding, with and without expiry.

use std::io;

use super::super::random::Random;
use super::connection::Connection;
use wire::resp::value::{Value, encode_request, encode_request_into};

/// Requests sent before their replies are read.
const BATCH: usize = 1000;

#[derive(Debug, Clone, Copy)]
enum Shape {
    Text(usize),
    Number,
    /// Number of elements, and bytes of each.
    List(usize, usize),
    Integers(usize),
    Members(usize, usize),
    Hash(usize, usize),
    Scores(usize),
    Stream(usize),
}

/// Name, number of keys, shape. The larger shapes exceed the limits of the compact encodings (quicklist, hashtable, skiplist).
const SHAPES: &[(&str, usize, Shape)] = &[
    ("text", 72_000, Shape::Text(40)),
    ("page", 1_500, Shape::Text(10 * 1024)),
    ("number", 30_000, Shape::Number),
    ("list", 20_000, Shape::List(5, 16)),
    ("biglist", 150, Shape::List(400, 100)),
    ("intset", 18_000, Shape::Integers(6)),
    ("set", 15_000, Shape::Members(4, 12)),
    ("bigset", 150, Shape::Members(700, 12)),
    ("hash", 22_000, Shape::Hash(4, 20)),
    ("bighash", 150, Shape::Hash(600, 30)),
    ("widehash", 100, Shape::Hash(2, 10 * 1024)),
    ("zset", 15_000, Shape::Scores(5)),
    ("bigzset", 150, Shape::Scores(400)),
    ("stream", 10_000, Shape::Stream(3)),
    ("bigstream", 100, Shape::Stream(400)),
];

/// Keys in logical database 1, so that more than one database is moved.
const SECOND_DATABASE_KEYS: usize = 2_000;

/// Number of keys of the whole set.
pub fn keys() -> usize {
    SHAPES.iter().map(|(_, count, _)| count).sum::<usize>() + SECOND_DATABASE_KEYS
}

/// Writes everything directly into the server at `port`; `progress` gets the number of keys written so far.
pub fn load(port: u16, seed: u64, mut progress: impl FnMut(usize)) -> io::Result<()> {
    let mut loader = Loader { connection: Connection::open(port)?, requests: Vec::new(), count: 0 };
    let mut random = Random::new(seed);
    let mut done = 0;
    for (name, count, shape) in SHAPES {
        for n in 0..*count {
            let key = format!("{name}:{n}").into_bytes();
            loader.write(&key, *shape, &mut random)?;
            loader.expire(&key, n, &mut random)?;
            done += 1;
            if done % BATCH == 0 {
                progress(done);
            }
        }
    }
    loader.push(&[b"SELECT", b"1"])?;
    for n in 0..SECOND_DATABASE_KEYS {
        loader.write(format!("second:{n}").as_bytes(), Shape::Hash(3, 10), &mut random)?;
    }
    loader.flush()?;
    progress(done + SECOND_DATABASE_KEYS);
    Ok(())
}

struct Loader {
    connection: Connection,
    requests: Vec<u8>,
    count: usize,
}

impl Loader {
    fn push(&mut self, args: &[&[u8]]) -> io::Result<()> {
        encode_request_into(&mut self.requests, args);
        self.count += 1;
        if self.count >= BATCH || self.requests.len() > 1 << 20 { self.flush() } else { Ok(()) }
    }

    fn push_owned(&mut self, args: &[Vec<u8>]) -> io::Result<()> {
        let args: Vec<&[u8]> = args.iter().map(Vec::as_slice).collect();
        self.push(&args)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.connection.send(&std::mem::take(&mut self.requests))?;
        for _ in 0..std::mem::take(&mut self.count) {
            let reply = self.connection.receive()?;
            if let Value::Error(_) = reply {
                return Err(io::Error::other(format!("loading the source: {}", reply.brief())));
            }
        }
        Ok(())
    }

    fn write(&mut self, key: &[u8], shape: Shape, random: &mut Random) -> io::Result<()> {
        let mut args = |command: &str, count: usize, each: &mut dyn FnMut(usize, &mut Random) -> Vec<Vec<u8>>| {
            let mut args = vec![command.as_bytes().to_vec(), key.to_vec()];
            (0..count).for_each(|at| args.extend(each(at, random)));
            args
        };
        let command = match shape {
            Shape::Text(length) => args("SET", 1, &mut |_, random| vec![random.text(length)]),
            Shape::Number => args("SET", 1, &mut |_, random| vec![random.below(1_000_000).to_string().into()]),
            Shape::List(count, length) => args("RPUSH", count, &mut |_, random| vec![random.text(length)]),
            Shape::Integers(count) => {
                args("SADD", count, &mut |at, random| vec![(at as u64 * 1000 + random.below(1000)).to_string().into()])
            }
            Shape::Members(count, length) => args("SADD", count, &mut |_, random| vec![random.text(length)]),
            Shape::Hash(count, length) => {
                args("HSET", count, &mut |at, random| vec![format!("field{at}").into(), random.text(length)])
            }
            Shape::Scores(count) => args("ZADD", count, &mut |at, random| {
                let score = random.below(2_000_000) as f64 / 1000.0 - 1000.0;
                vec![score.to_string().into(), format!("member{at}").into()]
            }),
            Shape::Stream(count) => return self.write_stream(key, count, random),
        };
        self.push_owned(&command)
    }

    fn write_stream(&mut self, key: &[u8], count: usize, random: &mut Random) -> io::Result<()> {
        for at in 1..=count {
            let (id, value) = (format!("{at}-1"), random.text(12));
            self.push(&[b"XADD", key, id.as_bytes(), b"field", &value])?;
        }
        if random.below(4) == 0 {
            self.push(&[b"XGROUP", b"CREATE", key, b"readers", b"0"])?;
            let read: [&[u8]; 9] = [b"XREADGROUP", b"GROUP", b"readers", b"one", b"COUNT", b"2", b"STREAMS", key, b">"];
            self.push(&read)?;
        }
        Ok(())
    }

    /// A third of the keys expire within hours, one in fifty while the demo runs.
    fn expire(&mut self, key: &[u8], n: usize, random: &mut Random) -> io::Result<()> {
        let ttl_ms = match n {
            n if n % 50 == 7 => 5_000 + random.below(55_000),
            n if n % 3 == 0 => 1_200_000 + random.below(7_200_000),
            _ => return Ok(()),
        };
        self.requests.extend(encode_request(&[b"PEXPIRE", key, ttl_ms.to_string().as_bytes()]));
        self.count += 1;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_dataset_has_the_reported_number_of_keys() {
        assert!(super::keys() >= 200_000, "{}", super::keys());
    }
}
