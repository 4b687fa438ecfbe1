//! Blocking commands in dual operation: tried in their non-blocking form, again after each write on a key they wait for.
//!
//! A client blocked here stays blocked through a flip. Difference from Redis: a concurrent non-blocking pop may win an element.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::rc::Rc;

use super::authority::{Awaiting, WriteEntry};
use super::emit::Incoming;
use super::keys::{KeyId, KeyRef};
use super::{Caller, Lane};
use base::model::limits;
use wire::resp::Args;
use wire::resp::command;
use wire::resp::effect::{self, elements, is_error, is_nil};
use wire::resp::encode::{self, request};

/// How the reply of the non-blocking form becomes the reply of the blocking one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Form {
    AsIs,
    /// LMPOP's [key, [element]] as BLPOP's [key, element].
    Popped,
    /// ZMPOP's [key, [[member, score]]] as BZPOPMIN's [key, member, score].
    PoppedScored,
}

/// A blocked client.
#[derive(Debug)]
struct Waiter {
    to: Caller,
    database: u32,
    resp: u8,
    frame: Box<[u8]>,
    keys: Rc<[KeyRef]>,
    form: Form,
    /// `None`: for ever.
    deadline_us: Option<u64>,
    /// A try is outstanding.
    trying: bool,
}

/// All blocked clients, by number of arrival.
#[derive(Debug, Default)]
pub(super) struct Waiters {
    next: u64,
    all: BTreeMap<u64, Waiter>,
    by_key: HashMap<KeyId, VecDeque<u64>>,
    retry_us: u64,
}

impl Lane {
    pub(super) fn block(&mut self, incoming: Incoming<'_>) {
        let args: Vec<&[u8]> = Args::new(incoming.frame).collect();
        let (frame, timeout, form) = match unblocked(&args) {
            Ok(parts) => parts,
            Err(text) => return self.answer_in_order(incoming.to, encode::error(text)),
        };
        let command = args.first().map_or(&command::UNKNOWN, |name| command::lookup(name));
        let Some(names) = command.keys_of(incoming.frame) else {
            return self.answer_in_order(incoming.to, encode::error("ERR syntax error"));
        };
        let keys: Rc<[KeyRef]> = names.0.iter().map(|name| KeyRef::new(incoming.database, name)).collect();
        let number = self.waiters.next;
        self.waiters.next += 1;
        let waiter = Waiter {
            to: incoming.to,
            database: incoming.database,
            resp: incoming.resp,
            frame: frame.into(),
            keys,
            form,
            deadline_us: (timeout > 0).then(|| self.now.mono_us + timeout),
            trying: false,
        };
        self.waiters.all.insert(number, waiter);
        self.try_waiter(number);
    }

    /// Sends the non-blocking form as an ordinary write.
    fn try_waiter(&mut self, number: u64) {
        let Some(waiter) = self.waiters.all.get_mut(&number) else { return };
        waiter.trying = true;
        let incoming_frame = waiter.frame.clone();
        let (to, database, resp, keys) = (waiter.to, waiter.database, waiter.resp, Rc::clone(&waiter.keys));
        let name = Args::new(&incoming_frame).next().unwrap_or_default().to_vec();
        let Ok(plan) = effect::plan(command::lookup(&name), &incoming_frame) else { return };
        let plan = if keys.len() > 1
            && plan.depends_on_old_value
            && keys.iter().any(|key| self.keys.is_volatile(key.id))
        {
            effect::EffectPlan { shape: effect::Shape::Copied, post: effect::Post::Copy, depends_on_old_value: false }
        } else {
            plan
        };
        let before = self.awaiting.len();
        self.send_write(plan, keys, Incoming { to, database, resp, frame: &incoming_frame });
        for awaiting in self.awaiting.iter_mut().skip(before) {
            if let Awaiting::Write(entry) = awaiting {
                entry.waiter = Some(number);
            }
        }
    }

    /// The answer to a write: to its client, or, for a try of a blocked client, to that client if there was something.
    pub(super) fn answer_write(&mut self, entry: &WriteEntry, reply: &[u8]) {
        let Some(number) = entry.waiter else { return self.deliver(entry.to, reply) };
        let Some(waiter) = self.waiters.all.get_mut(&number) else { return };
        waiter.trying = false;
        if is_nil(reply) && self.retired {
            return self.dismiss(number);
        }
        if is_nil(reply) {
            for key in entry.keys.iter() {
                let queue = self.waiters.by_key.entry(key.id).or_default();
                if !queue.contains(&number) {
                    // The order of arrival is the order of service.
                    let at = queue.iter().position(|other| *other > number).unwrap_or(queue.len());
                    queue.insert(at, number);
                }
            }
            return;
        }
        let reply = if is_error(reply) { reply.to_vec() } else { reformed(waiter.form, reply) };
        let to = waiter.to;
        self.remove_waiter(number);
        self.deliver(to, &reply);
    }

    fn remove_waiter(&mut self, number: u64) {
        let Some(waiter) = self.waiters.all.remove(&number) else { return };
        for key in waiter.keys.iter() {
            if let Some(queue) = self.waiters.by_key.get_mut(&key.id) {
                queue.retain(|other| *other != number);
                if queue.is_empty() {
                    self.waiters.by_key.remove(&key.id);
                }
            }
        }
    }

    /// After a write on these keys: the first that waits for each tries again.
    pub(super) fn wake_waiters(&mut self, keys: &[KeyRef], reply: &[u8]) {
        if self.waiters.by_key.is_empty() || is_error(reply) || self.retired {
            return;
        }
        for key in keys {
            let first = self.waiters.by_key.get(&key.id).and_then(|queue| {
                queue.iter().copied().find(|number| self.waiters.all.get(number).is_some_and(|waiter| !waiter.trying))
            });
            if let Some(number) = first {
                self.try_waiter(number);
            }
        }
    }

    /// After a flip or a reconnect, and now and then for what no reply of ours shows (scripts, other writers).
    pub(super) fn retry_all_waiters(&mut self) {
        if self.fence.is_some() || !self.link_ref(self.authority).connected || self.retired {
            return;
        }
        let idle: Vec<u64> =
            self.waiters.all.iter().filter(|(_, waiter)| !waiter.trying).map(|(number, _)| *number).collect();
        for number in idle {
            self.try_waiter(number);
        }
    }

    /// Time-outs, as Redis answers them.
    pub(super) fn expire_waiters(&mut self) {
        let now = self.now.mono_us;
        let over: Vec<u64> = self
            .waiters
            .all
            .iter()
            .filter(|(_, waiter)| !waiter.trying && waiter.deadline_us.is_some_and(|deadline| deadline <= now))
            .map(|(number, _)| *number)
            .collect();
        for number in over {
            self.dismiss(number);
        }
        if now >= self.waiters.retry_us {
            self.waiters.retry_us = now + limits::WAITER_RETRY_US;
            self.retry_all_waiters();
        }
    }

    fn dismiss(&mut self, number: u64) {
        let Some((to, resp)) = self.waiters.all.get(&number).map(|waiter| (waiter.to, waiter.resp)) else { return };
        self.remove_waiter(number);
        self.deliver(to, if resp == 3 { b"_\r\n" } else { b"*-1\r\n" });
    }

    /// Dual operation ends: blocked clients get nil, and their cores send their commands again the other way.
    pub(super) fn dismiss_waiters(&mut self) {
        let idle: Vec<u64> =
            self.waiters.all.iter().filter(|(_, waiter)| !waiter.trying).map(|(number, _)| *number).collect();
        for number in idle {
            self.dismiss(number);
        }
    }

    pub(super) fn forget_client(&mut self, to: Caller) {
        self.watches.forget(to);
        let gone: Vec<u64> =
            self.waiters.all.iter().filter(|(_, waiter)| waiter.to == to).map(|(number, _)| *number).collect();
        for number in gone {
            self.remove_waiter(number);
        }
    }
}

/// The non-blocking form of a blocking request, its time-out in microseconds (0: for ever), and how its reply is read.
fn unblocked(args: &[&[u8]]) -> Result<(Vec<u8>, u64, Form), &'static str> {
    const ARITY: &str = "ERR wrong number of arguments";
    let name = args.first().ok_or(ARITY)?.to_ascii_uppercase();
    let last = *args.last().ok_or(ARITY)?;
    let seconds = |text: &[u8]| timeout_us(text, 1_000_000.0);
    Ok(match name.as_slice() {
        b"BLPOP" | b"BRPOP" | b"BZPOPMIN" | b"BZPOPMAX" if args.len() >= 3 => {
            let keys = &args[1..args.len() - 1];
            let count = keys.len().to_string();
            let (pop, end, form): (&[u8], &[u8], Form) = match name.as_slice() {
                b"BLPOP" => (b"LMPOP", b"LEFT", Form::Popped),
                b"BRPOP" => (b"LMPOP", b"RIGHT", Form::Popped),
                b"BZPOPMIN" => (b"ZMPOP", b"MIN", Form::PoppedScored),
                _ => (b"ZMPOP", b"MAX", Form::PoppedScored),
            };
            let mut words = vec![pop, count.as_bytes()];
            words.extend_from_slice(keys);
            words.push(end);
            (request(&words), seconds(last)?, form)
        }
        b"BLMPOP" | b"BZMPOP" if args.len() >= 5 => {
            let mut words: Vec<&[u8]> = vec![if name == b"BLMPOP" { b"LMPOP" } else { b"ZMPOP" }];
            words.extend_from_slice(&args[2..]);
            (request(&words), seconds(args[1])?, Form::AsIs)
        }
        b"BLMOVE" if args.len() == 6 => {
            (request(&[b"LMOVE", args[1], args[2], args[3], args[4]]), seconds(last)?, Form::AsIs)
        }
        b"BRPOPLPUSH" if args.len() == 4 => {
            (request(&[b"LMOVE", args[1], args[2], b"RIGHT", b"LEFT"]), seconds(last)?, Form::AsIs)
        }
        b"XREADGROUP" => {
            let at = args.iter().position(|arg| arg.eq_ignore_ascii_case(b"BLOCK")).ok_or("ERR syntax error")?;
            let timeout = timeout_us(args.get(at + 1).ok_or("ERR syntax error")?, 1000.0)?;
            let words: Vec<&[u8]> = args[..at].iter().chain(&args[at + 2..]).copied().collect();
            (request(&words), timeout, Form::AsIs)
        }
        _ => return Err(ARITY),
    })
}

fn timeout_us(text: &[u8], unit_us: f64) -> Result<u64, &'static str> {
    let value: f64 = std::str::from_utf8(text)
        .ok()
        .and_then(|text| text.parse().ok())
        .ok_or("ERR timeout is not a float or out of range")?;
    if value < 0.0 {
        return Err("ERR timeout is negative");
    }
    if !value.is_finite() || value * unit_us > 9e18 {
        return Err("ERR timeout is not a float or out of range");
    }
    Ok((value * unit_us).ceil() as u64)
}

fn reformed(form: Form, reply: &[u8]) -> Vec<u8> {
    let reform = || -> Option<Vec<u8>> {
        let outer = elements(reply)?;
        let inner = elements(outer.get(1)?)?;
        let first = *inner.first()?;
        Some(match form {
            Form::AsIs => return None,
            Form::Popped => [b"*2\r\n", outer[0], first].concat(),
            Form::PoppedScored => {
                let pair = elements(first)?;
                [b"*3\r\n".as_slice(), outer[0], pair.first()?, pair.get(1)?].concat()
            }
        })
    };
    reform().unwrap_or_else(|| reply.to_vec())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn forms() {
        let of = |line: &str| {
            let args: Vec<&[u8]> = line.split(' ').map(str::as_bytes).collect();
            unblocked(&args).map(|(frame, us, form)| {
                let words: Vec<_> = Args::new(&frame).map(|a| String::from_utf8_lossy(a).into_owned()).collect();
                (words.join(" "), us, form)
            })
        };
        assert_eq!(of("BLPOP a b 0.5").unwrap(), ("LMPOP 2 a b LEFT".to_owned(), 500_000, Form::Popped));
        assert_eq!(of("BZPOPMAX a 0").unwrap(), ("ZMPOP 1 a MAX".to_owned(), 0, Form::PoppedScored));
        assert_eq!(
            of("BLMPOP 1 1 a LEFT COUNT 2").unwrap(),
            ("LMPOP 1 a LEFT COUNT 2".to_owned(), 1_000_000, Form::AsIs)
        );
        assert_eq!(of("XREADGROUP GROUP g c BLOCK 10 STREAMS s >").unwrap().0, "XREADGROUP GROUP g c STREAMS s >");
        for bad in ["BLPOP a x", "BLPOP a -1", "BLPOP a", "BLMOVE a b", "BLPOP a inf"] {
            assert!(of(bad).is_err(), "{bad}");
        }
        assert_eq!(reformed(Form::Popped, b"*2\r\n$1\r\nk\r\n*1\r\n$1\r\nv\r\n"), b"*2\r\n$1\r\nk\r\n$1\r\nv\r\n");
    }
}
