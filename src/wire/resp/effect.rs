//! Effects: what a write, given the authority's reply, means for the shadow. Pure.
//!
//! Everything random, time-dependent or conditional is replaced by its outcome; where that is impossible, the lane copies the keys.
//! The effects are RESP requests in the order in which the shadow must run them, each with the reply it should give.

use super::args::Args;
use super::command::{Command, EffectKind};
use super::encode::{number, push_request};
use super::frame::{decimal, reply_len};

/// What the shadow's reply must be for the key to stay out of the dirty set.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Expect {
    /// Anything but an error.
    NoError,
    /// Exactly these bytes.
    Same(Box<[u8]>),
}

/// Requests for the shadow, one expectation each.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Effects {
    pub bytes: Vec<u8>,
    pub expects: Vec<Expect>,
}

impl Effects {
    pub fn push(&mut self, args: &[&[u8]], expect: Expect) {
        push_request(&mut self.bytes, args);
        self.expects.push(expect);
    }

    pub fn push_frame(&mut self, frame: &[u8], expect: Expect) {
        self.bytes.extend_from_slice(frame);
        self.expects.push(expect);
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.expects.is_empty()
    }
}

/// What must be read on the authority right after the command, in the same pipeline.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Post {
    Nothing,
    /// `PEXPIRETIME key`.
    Deadline,
    /// `XRANGE key - + COUNT 1`: the first entry that survived an approximate trim.
    FirstEntry,
    /// The written keys, whole.
    Copy,
}

/// How one request is repeated on the shadow; known before it is sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EffectPlan {
    pub shape: Shape,
    pub post: Post,
    /// The effect is right only if the shadow holds the same old value, so a volatile key's deadline must be checked first.
    pub depends_on_old_value: bool,
}

/// How the effect is formed from request and reply.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shape {
    /// The request itself, unless the reply says nothing changed.
    Verbatim,
    /// The request itself, after any reply that is not an error.
    Overwrite,
    /// `SET key value`, if the reply says it was set. `keep_ttl` adds KEEPTTL; with [`Post::Deadline`] PXAT.
    SetOutcome {
        applied: Applied,
        keep_ttl: bool,
        value_at: u8,
    },
    /// PEXPIREAT, PERSIST or DEL, depending on the deadline read after the command.
    Deadline,
    Spop,
    IncrByFloat,
    HincrByFloat,
    /// ZADD of the score that the reply gives to the member at this argument; nil: nothing changed.
    Score {
        member_at: u8,
    },
    /// XREADGROUP without BLOCK: which entries it hands out follows from the stream and its groups. After nil nothing is repeated, although
    /// some servers then create the consumer: see [`consumer_of`].
    ReadGroup,
    /// The `*` of XADD becomes the id of the reply.
    Xadd,
    /// Nothing is derived from the reply: the keys are copied.
    Copied,
    /// What the request does is not known: unless the reply is an error, its keys are in doubt.
    InDoubt,
    /// FLUSHALL, FLUSHDB.
    Flush,
}

/// How a SET's reply shows whether it was applied.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Applied {
    /// `+OK`; nil when NX or XX stopped it.
    WhenOk,
    /// GET without condition: always.
    Always,
    /// NX GET: when there was no old value.
    WhenNil,
    /// XX GET: when there was one.
    WhenValue,
}

/// Plans the effect of one write request.
///
/// # Errors
/// Why the command cannot be kept in step, as text for the client.
pub fn plan(command: &Command, frame: &[u8]) -> Result<EffectPlan, &'static str> {
    let simple = |shape, depends_on_old_value| Ok(EffectPlan { shape, post: Post::Nothing, depends_on_old_value });
    let posted = |shape, post, depends_on_old_value| Ok(EffectPlan { shape, post, depends_on_old_value });
    match command.effect {
        EffectKind::None => Err("it is not a write"),
        EffectKind::Verbatim => simple(Shape::Verbatim, true),
        EffectKind::Overwrite => simple(Shape::Overwrite, false),
        EffectKind::Set => Ok(plan_set(frame)),
        EffectKind::Deadline => posted(Shape::Deadline, Post::Deadline, false),
        EffectKind::SetWithDeadline => {
            posted(Shape::SetOutcome { applied: Applied::WhenOk, keep_ttl: false, value_at: 3 }, Post::Deadline, false)
        }
        EffectKind::Spop => simple(Shape::Spop, true),
        EffectKind::IncrByFloat => simple(Shape::IncrByFloat, true),
        EffectKind::HincrByFloat => simple(Shape::HincrByFloat, true),
        // The member is the last argument.
        EffectKind::ZincrBy => simple(Shape::Score { member_at: 3 }, true),
        EffectKind::Zadd => simple(plan_zadd(frame), true),
        EffectKind::ReadGroup => simple(Shape::ReadGroup, true),
        EffectKind::Xadd => Ok(plan_xadd(frame)),
        EffectKind::Copied if command.keys_of(frame).is_none_or(|keys| keys.0.is_empty()) && command.is_script() => {
            Err(
                "a script without declared keys may write anything; declare its keys, or use the read-only form (EVAL_RO, FCALL_RO)",
            )
        }
        EffectKind::Copied if has_word(frame, b"DB") && command.name == "copy" => {
            Err("COPY into another database is not supported")
        }
        EffectKind::Copied => posted(Shape::Copied, Post::Copy, false),
        EffectKind::Flush => simple(Shape::Flush, false),
        EffectKind::Refuse => Err("its effect on the other server cannot be kept in step yet"),
    }
}

fn has_word(frame: &[u8], word: &[u8]) -> bool {
    Args::new(frame).skip(3).any(|arg| arg.eq_ignore_ascii_case(word))
}

/// SET key value [NX | XX | IFEQ v] [GET] [EX | PX | EXAT | PXAT n | KEEPTTL].
fn plan_set(frame: &[u8]) -> EffectPlan {
    let copied = EffectPlan { shape: Shape::Copied, post: Post::Copy, depends_on_old_value: false };
    let mut args = Args::new(frame);
    if args.count_left() == 3 {
        return EffectPlan { shape: Shape::Overwrite, post: Post::Nothing, depends_on_old_value: false };
    }
    let (mut nx, mut xx, mut get, mut ttl, mut keep) = (false, false, false, false, false);
    let _ = args.nth(2);
    while let Some(option) = args.next() {
        match option.to_ascii_uppercase().as_slice() {
            b"NX" => nx = true,
            b"XX" => xx = true,
            b"GET" => get = true,
            b"KEEPTTL" => keep = true,
            b"EX" | b"PX" | b"EXAT" | b"PXAT" => {
                ttl = true;
                let _ = args.next();
            }
            _ => return copied,
        }
    }
    let applied = match (get, nx, xx) {
        (false, _, _) => Applied::WhenOk,
        (true, true, _) => Applied::WhenNil,
        (true, false, true) => Applied::WhenValue,
        (true, false, false) => Applied::Always,
    };
    EffectPlan {
        shape: Shape::SetOutcome { applied, keep_ttl: keep, value_at: 2 },
        post: if ttl { Post::Deadline } else { Post::Nothing },
        depends_on_old_value: keep,
    }
}

/// ZADD key [NX | XX] [GT | LT] [CH] [INCR] score member … A score that is given is the same number everywhere; one that is added to another
/// is computed once, by the authority.
fn plan_zadd(frame: &[u8]) -> Shape {
    let mut increments = false;
    for (at, arg) in Args::new(frame).enumerate().skip(2) {
        match arg.to_ascii_uppercase().as_slice() {
            b"INCR" => increments = true,
            b"NX" | b"XX" | b"GT" | b"LT" | b"CH" => {}
            _ if increments => return Shape::Score { member_at: u8::try_from(at + 1).unwrap_or(u8::MAX) },
            _ => return Shape::Verbatim,
        }
    }
    Shape::Verbatim
}

/// XADD key [NOMKSTREAM] [MAXLEN | MINID [= | ~] n [LIMIT n]] <* | id> field value …
fn plan_xadd(frame: &[u8]) -> EffectPlan {
    let approximate = Args::new(frame).skip(2).take(4).any(|arg| arg == b"~");
    let post = if approximate { Post::FirstEntry } else { Post::Nothing };
    EffectPlan { shape: Shape::Xadd, post, depends_on_old_value: true }
}

/// Whether a reply is an error (`-` in both protocols, `!` in RESP3).
#[must_use]
pub fn is_error(reply: &[u8]) -> bool {
    matches!(reply.first(), Some(b'-' | b'!') | None)
}

/// Whether a reply is nil in either protocol.
#[must_use]
pub fn is_nil(reply: &[u8]) -> bool {
    reply.first() == Some(&b'_') || reply.starts_with(b"$-1") || reply.starts_with(b"*-1")
}

/// What the reply to the command and to its [`Post`] read mean.
#[derive(Debug, Clone, Copy)]
pub struct Outcome<'a> {
    pub frame: &'a [u8],
    pub reply: &'a [u8],
    /// Deadline read after the command, milliseconds since the epoch; -1 persistent, -2 absent. Present with [`Post::Deadline`].
    pub deadline: Option<i64>,
    /// Reply of the XRANGE after the command. Present with [`Post::FirstEntry`].
    pub first_entry: Option<&'a [u8]>,
    /// G of the TTL rule.
    pub grace_ms: i64,
}

/// Appends the effects of one executed write. `Err(())`: the outcome is unknown, the keys must be marked dirty.
///
/// # Errors
/// As described.
#[allow(clippy::result_unit_err)]
pub fn derive(shape: Shape, outcome: &Outcome<'_>, effects: &mut Effects) -> Result<(), ()> {
    if is_error(outcome.reply) {
        return Ok(());
    }
    let frame = outcome.frame;
    match shape {
        Shape::Copied => Ok(()),
        Shape::InDoubt => Err(()),
        Shape::Verbatim => {
            if !is_nil(outcome.reply) {
                effects.push_frame(frame, expectation(outcome.reply));
            }
            Ok(())
        }
        Shape::Overwrite | Shape::Flush => {
            effects.push_frame(frame, Expect::NoError);
            Ok(())
        }
        Shape::SetOutcome { applied, keep_ttl, value_at } => set_outcome(outcome, applied, keep_ttl, value_at, effects),
        Shape::Deadline => deadline(outcome, effects),
        Shape::Spop => spop(frame, outcome.reply, effects),
        Shape::IncrByFloat => {
            let key = Args::new(frame).nth(1).ok_or(())?;
            let value = double(outcome.reply).ok_or(())?;
            effects.push(&[b"SET", key, value, b"KEEPTTL"], Expect::NoError);
            Ok(())
        }
        Shape::HincrByFloat => {
            let mut args = Args::new(frame).skip(1);
            let (key, field) = (args.next().ok_or(())?, args.next().ok_or(())?);
            effects.push(&[b"HSET", key, field, double(outcome.reply).ok_or(())?], Expect::NoError);
            Ok(())
        }
        Shape::Score { member_at } => score(outcome, member_at, effects),
        Shape::ReadGroup => {
            if !is_nil(outcome.reply) {
                effects.push(&without_block(frame), group_expectation(outcome.reply));
            }
            Ok(())
        }
        Shape::Xadd => xadd(outcome, effects),
    }
}

fn score(outcome: &Outcome<'_>, member_at: u8, effects: &mut Effects) -> Result<(), ()> {
    if is_nil(outcome.reply) {
        return Ok(());
    }
    let key = Args::new(outcome.frame).nth(1).ok_or(())?;
    let member = Args::new(outcome.frame).nth(member_at.into()).ok_or(())?;
    effects.push(&[b"ZADD", key, double(outcome.reply).ok_or(())?, member], Expect::NoError);
    Ok(())
}

/// An XREADGROUP without its BLOCK, which would keep every later effect waiting where the shadow has nothing to hand out.
fn without_block(frame: &[u8]) -> Vec<&[u8]> {
    let args: Vec<&[u8]> = Args::new(frame).collect();
    let options = args.iter().position(|arg| arg.eq_ignore_ascii_case(b"STREAMS")).unwrap_or(args.len());
    // GROUP, group and consumer come first, and may have any name.
    match args.iter().take(options).skip(4).position(|arg| arg.eq_ignore_ascii_case(b"BLOCK")) {
        Some(at) => {
            args.iter().enumerate().filter(|(n, _)| !(at + 4..at + 6).contains(n)).map(|(_, arg)| *arg).collect()
        }
        None => args,
    }
}

/// The shadow answers in RESP2, so only a reply in that protocol can be the same; a long one is not kept for it.
fn group_expectation(reply: &[u8]) -> Expect {
    if reply.starts_with(b"*") && reply.len() <= 4096 { Expect::Same(reply.into()) } else { Expect::NoError }
}

/// Group and consumer of an XREADGROUP.
#[must_use]
pub fn consumer_of(frame: &[u8]) -> Option<(&[u8], &[u8])> {
    let mut args = Args::new(frame).skip(1).skip_while(|arg| !arg.eq_ignore_ascii_case(b"GROUP"));
    args.next()?;
    Some((args.next()?, args.next()?))
}

/// Integers and short strings must be the same on both sides; a longer reply must only not be an error.
fn expectation(reply: &[u8]) -> Expect {
    match reply.first() {
        Some(b':' | b'$') if reply.len() <= 64 => Expect::Same(reply.into()),
        _ => Expect::NoError,
    }
}

fn set_outcome(
    outcome: &Outcome<'_>,
    applied: Applied,
    keep_ttl: bool,
    value_at: u8,
    effects: &mut Effects,
) -> Result<(), ()> {
    let was_set = match applied {
        Applied::Always => true,
        Applied::WhenOk => outcome.reply.starts_with(b"+"),
        Applied::WhenNil => is_nil(outcome.reply),
        Applied::WhenValue => !is_nil(outcome.reply),
    };
    if !was_set {
        return Ok(());
    }
    let key = Args::new(outcome.frame).nth(1).ok_or(())?;
    let value = Args::new(outcome.frame).nth(value_at.into()).ok_or(())?;
    match (outcome.deadline, keep_ttl) {
        (Some(-2), _) => effects.push(&[b"DEL", key], Expect::NoError),
        (Some(at), _) if at > 0 => {
            effects.push(&[b"SET", key, value, b"PXAT", &number(at + outcome.grace_ms)], Expect::NoError);
        }
        (_, true) => effects.push(&[b"SET", key, value, b"KEEPTTL"], Expect::NoError),
        (_, false) => effects.push(&[b"SET", key, value], Expect::NoError),
    }
    Ok(())
}

fn deadline(outcome: &Outcome<'_>, effects: &mut Effects) -> Result<(), ()> {
    // EXPIRE and PERSIST answer 0, GETEX nil, when nothing changed.
    if is_nil(outcome.reply) || outcome.reply.starts_with(b":0") {
        return Ok(());
    }
    let key = Args::new(outcome.frame).nth(1).ok_or(())?;
    match outcome.deadline.ok_or(())? {
        -2 => effects.push(&[b"DEL", key], Expect::NoError),
        -1 => effects.push(&[b"PERSIST", key], Expect::NoError),
        at => effects
            .push(&[b"PEXPIREAT", key, &number(at + outcome.grace_ms)], Expect::Same(b":1\r\n".as_slice().into())),
    }
    Ok(())
}

fn spop(frame: &[u8], reply: &[u8], effects: &mut Effects) -> Result<(), ()> {
    let key = Args::new(frame).nth(1).ok_or(())?;
    let members = if is_nil(reply) {
        Vec::new()
    } else if reply.starts_with(b"$") {
        vec![bulk(reply).ok_or(())?]
    } else {
        bulks(reply).ok_or(())?
    };
    if members.is_empty() {
        return Ok(());
    }
    let mut args = vec![b"SREM".as_slice(), key];
    args.extend_from_slice(&members);
    effects.push(&args, Expect::Same(format!(":{}\r\n", members.len()).into_bytes().into()));
    Ok(())
}

fn xadd(outcome: &Outcome<'_>, effects: &mut Effects) -> Result<(), ()> {
    if is_nil(outcome.reply) {
        return Ok(());
    }
    let id = bulk(outcome.reply).ok_or(())?;
    let args: Vec<&[u8]> = Args::new(outcome.frame).collect();
    let key = *args.get(1).ok_or(())?;
    let id_at = xadd_id_at(&args).ok_or(())?;
    let mut same = vec![b"XADD".as_slice(), key];
    // Exact trimming is deterministic and stays; an approximate one becomes exact by the first surviving entry.
    if outcome.first_entry.is_none() {
        same.extend_from_slice(&args[2..id_at]);
    }
    same.push(id);
    same.extend_from_slice(&args[id_at + 1..]);
    effects.push(&same, Expect::Same(outcome.reply.into()));
    if let Some(reply) = outcome.first_entry {
        let first = first_stream_id(reply).ok_or(())?;
        effects.push(&[b"XTRIM", key, b"MINID", b"=", first], Expect::NoError);
    }
    Ok(())
}

fn xadd_id_at(args: &[&[u8]]) -> Option<usize> {
    let mut at = 2;
    loop {
        match args.get(at)?.to_ascii_uppercase().as_slice() {
            b"NOMKSTREAM" => at += 1,
            b"MAXLEN" | b"MINID" => at += if matches!(*args.get(at + 1)?, b"~" | b"=") { 3 } else { 2 },
            b"LIMIT" => at += 2,
            _ => return Some(at),
        }
    }
}

/// The id of the first entry in an XRANGE reply.
fn first_stream_id(reply: &[u8]) -> Option<&[u8]> {
    let rest = reply.strip_prefix(b"*1\r\n*2\r\n")?;
    bulk(rest)
}

/// The body of a bulk string at the start of `reply`.
#[must_use]
pub fn bulk(reply: &[u8]) -> Option<&[u8]> {
    let end = reply.iter().position(|&b| b == b'\r')?;
    let len = usize::try_from(decimal(reply.strip_prefix(b"$")?.get(..end - 1)?)?).ok()?;
    reply.get(end + 2..end + 2 + len)
}

/// The digits of a floating-point number: a bulk string, or a double of RESP3.
#[must_use]
pub fn double(reply: &[u8]) -> Option<&[u8]> {
    match reply.strip_prefix(b",") {
        Some(rest) => rest.strip_suffix(b"\r\n"),
        None => bulk(reply),
    }
}

/// The integer of a `:` reply.
#[must_use]
pub fn integer(reply: &[u8]) -> Option<i64> {
    decimal(reply.strip_prefix(b":")?.strip_suffix(b"\r\n")?)
}

/// The bodies of a flat array or set of bulk strings.
#[must_use]
pub fn bulks(reply: &[u8]) -> Option<Vec<&[u8]>> {
    elements(reply)?.into_iter().map(bulk).collect()
}

/// The elements of an array, set, push or map reply, as raw replies.
#[must_use]
pub fn elements(reply: &[u8]) -> Option<Vec<&[u8]>> {
    let end = reply.iter().position(|&b| b == b'\r')?;
    let count = usize::try_from(decimal(reply.get(1..end)?)?).ok()?;
    let count = match reply.first()? {
        b'*' | b'~' | b'>' => count,
        b'%' => count.checked_mul(2)?,
        _ => return None,
    };
    let mut rest = reply.get(end + 2..)?;
    let mut found = Vec::with_capacity(count.min(rest.len()));
    for _ in 0..count {
        let len = reply_len(rest)?;
        found.push(&rest[..len]);
        rest = &rest[len..];
    }
    Some(found)
}

#[cfg(test)]
mod server_tests;

#[cfg(test)]
mod tests {
    use super::super::command::lookup;
    use super::super::encode::request;
    use super::*;

    fn frame(line: &str) -> Vec<u8> {
        request(&line.split(' ').map(str::as_bytes).collect::<Vec<_>>())
    }

    /// The effects of `line` answered by `reply`, as lines.
    fn effects(line: &str, reply: &str, deadline: Option<i64>, first: Option<&str>) -> Vec<String> {
        let frame = frame(line);
        let plan = plan(lookup(line.split(' ').next().unwrap().as_bytes()), &frame).expect(line);
        let mut effects = Effects::default();
        let outcome = Outcome {
            frame: &frame,
            reply: reply.as_bytes(),
            deadline,
            first_entry: first.map(str::as_bytes),
            grace_ms: 1000,
        };
        derive(plan.shape, &outcome, &mut effects).expect(line);
        let mut rest = effects.bytes.as_slice();
        let mut lines = Vec::new();
        while let Some(len) = reply_len(rest) {
            let words: Vec<_> = Args::new(&rest[..len]).map(|a| String::from_utf8_lossy(a).into_owned()).collect();
            lines.push(words.join(" "));
            rest = &rest[len..];
        }
        assert_eq!(lines.len(), effects.expects.len());
        lines
    }

    #[test]
    fn outcomes_not_commands() {
        let at = Some(5000);
        let none: &[&str] = &[];
        let cases: &[(&str, &str, Option<i64>, &[&str])] = &[
            ("SET k v", "+OK\r\n", None, &["SET k v"]),
            ("SET k v NX", "$-1\r\n", None, none),
            ("SET k v NX", "_\r\n", None, none),
            ("SET k v NX", "+OK\r\n", None, &["SET k v"]),
            ("SET k v XX GET", "$-1\r\n", None, none),
            ("SET k v XX GET", "$1\r\no\r\n", None, &["SET k v"]),
            ("SET k v NX GET", "$-1\r\n", None, &["SET k v"]),
            ("SET k v GET", "$-1\r\n", None, &["SET k v"]),
            ("SET k v EX 4", "+OK\r\n", at, &["SET k v PXAT 6000"]),
            ("SET k v PX 1", "+OK\r\n", Some(-2), &["DEL k"]),
            ("SET k v KEEPTTL", "+OK\r\n", None, &["SET k v KEEPTTL"]),
            ("SETEX k 4 v", "+OK\r\n", at, &["SET k v PXAT 6000"]),
            ("GETEX k EX 4", "$1\r\nv\r\n", at, &["PEXPIREAT k 6000"]),
            ("GETEX k PERSIST", "$1\r\nv\r\n", Some(-1), &["PERSIST k"]),
            ("EXPIRE k 4", ":1\r\n", at, &["PEXPIREAT k 6000"]),
            ("EXPIRE k 4 NX", ":0\r\n", at, none),
            ("EXPIRE k -1", ":1\r\n", Some(-2), &["DEL k"]),
            ("INCR k", ":3\r\n", None, &["INCR k"]),
            ("INCR k", "-WRONGTYPE x\r\n", None, none),
            ("LPOP k", "$-1\r\n", None, none),
            ("INCRBYFLOAT k 0.1", "$3\r\n1.1\r\n", None, &["SET k 1.1 KEEPTTL"]),
            ("HINCRBYFLOAT k f 0.1", "$3\r\n1.1\r\n", None, &["HSET k f 1.1"]),
            ("INCRBYFLOAT k 0.1", ",1.1\r\n", None, &["SET k 1.1 KEEPTTL"]),
            ("HINCRBYFLOAT k f 0.1", ",1.1\r\n", None, &["HSET k f 1.1"]),
            ("ZINCRBY k 0.1 m", "$19\r\n0.30000000000000004\r\n", None, &["ZADD k 0.30000000000000004 m"]),
            ("ZINCRBY k 0.1 m", ",1.5\r\n", None, &["ZADD k 1.5 m"]),
            ("ZINCRBY k inf m", ",inf\r\n", None, &["ZADD k inf m"]),
            ("ZADD k 1 m 2 n", ":2\r\n", None, &["ZADD k 1 m 2 n"]),
            ("ZADD k NX CH 1 INCR", ":1\r\n", None, &["ZADD k NX CH 1 INCR"]),
            ("ZADD k INCR 1 m", ",2.5\r\n", None, &["ZADD k 2.5 m"]),
            ("ZADD k XX GT CH INCR 1 m", "$3\r\n2.5\r\n", None, &["ZADD k 2.5 m"]),
            ("ZADD k XX INCR 1 m", "_\r\n", None, none),
            ("ZADD k NX INCR 1 m", "$-1\r\n", None, none),
            ("XREADGROUP GROUP g c STREAMS s >", "$-1\r\n", None, none),
            ("XREADGROUP GROUP g c STREAMS s >", "*0\r\n", None, &["XREADGROUP GROUP g c STREAMS s >"]),
            (
                "XREADGROUP GROUP BLOCK block COUNT 2 BLOCK 10 NOACK STREAMS block >",
                "%0\r\n",
                None,
                &["XREADGROUP GROUP BLOCK block COUNT 2 NOACK STREAMS block >"],
            ),
            ("SPOP k", "$1\r\nm\r\n", None, &["SREM k m"]),
            ("SPOP k 2", "~2\r\n$1\r\nm\r\n$1\r\nn\r\n", None, &["SREM k m n"]),
            ("SPOP k 2", "*0\r\n", None, none),
            ("XADD k * f v", "$3\r\n7-1\r\n", None, &["XADD k 7-1 f v"]),
            ("XADD k MAXLEN = 5 * f v", "$3\r\n7-1\r\n", None, &["XADD k MAXLEN = 5 7-1 f v"]),
            ("XADD k NOMKSTREAM * f v", "$-1\r\n", None, none),
        ];
        for (line, reply, deadline, want) in cases {
            assert_eq!(effects(line, reply, *deadline, None), *want, "{line} -> {reply:?}");
        }
        let first = "*1\r\n*2\r\n$3\r\n5-1\r\n*2\r\n$1\r\nf\r\n$1\r\nv\r\n";
        assert_eq!(
            effects("XADD k MAXLEN ~ 5 * f v", "$3\r\n7-1\r\n", None, Some(first)),
            ["XADD k 7-1 f v", "XTRIM k MINID = 5-1"]
        );
    }

    #[test]
    fn the_consumer_of_a_group_read() {
        let group_read = frame("XREADGROUP GROUP g c COUNT 1 STREAMS s >");
        assert_eq!(consumer_of(&group_read), Some((b"g".as_slice(), b"c".as_slice())));
        assert_eq!(consumer_of(&frame("XREADGROUP GROUP g")), None);
    }

    #[test]
    fn a_request_that_is_not_understood_leaves_doubt_unless_it_failed() {
        let frame = frame("INCR k 1");
        for (reply, want) in [("-ERR wrong number\r\n", Ok(())), (":1\r\n", Err(())), ("$-1\r\n", Err(()))] {
            let outcome =
                Outcome { frame: &frame, reply: reply.as_bytes(), deadline: None, first_entry: None, grace_ms: 1000 };
            let mut effects = Effects::default();
            assert_eq!(derive(Shape::InDoubt, &outcome, &mut effects), want, "{reply:?}");
            assert!(effects.is_empty(), "{reply:?}");
        }
    }

    #[test]
    fn what_cannot_be_kept_in_step_is_refused_or_copied() {
        let plan_of = |line: &str| plan(lookup(line.split(' ').next().unwrap().as_bytes()), &frame(line));
        assert!(plan_of("EVAL return 0").is_err());
        assert!(plan_of("COPY a b DB 1").is_err());
        assert!(plan_of("MOVE a 1").is_err());
        assert_eq!(plan_of("EVAL x 1 a").unwrap().post, Post::Copy);
        assert_eq!(plan_of("SET k v IFEQ o").unwrap().post, Post::Copy);
        assert_eq!(plan_of("XADD k MAXLEN ~ 5 * f v").unwrap().post, Post::FirstEntry);
    }
}
