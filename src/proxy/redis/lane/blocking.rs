//! Blocking commands in dual operation: tried in their non-blocking form, and again when something may have arrived for a key they wait for.
//!
//! A client blocked here stays blocked through a flip. What arrives is given to the clients that wait for it in the order of waiting: each
//! that is served makes way for the next. What no reply of the lane shows (undeclared keys of scripts, other writers) is looked for at
//! intervals. Difference from Redis: a concurrent non-blocking pop may win an element.

use std::rc::Rc;

use super::authority_queue::WriteEntry;
use super::commands::Incoming;
use super::keys::KeyRef;
use super::state::Lane;
use super::waiters::{Arrival, Form, Waiter};
use base::model::limits;
use wire::resp::Args;
use wire::resp::command::{self, Command};
use wire::resp::effect::{self, bulk, elements, is_error, is_nil};
use wire::resp::encode::{self, request};

impl Lane {
    /// A blocking command of a client.
    pub(super) fn block(&mut self, command: &'static Command, incoming: Incoming<'_>) {
        let args: Vec<&[u8]> = Args::new(incoming.frame).collect();
        let (frame, timeout, form) = match unblocked(&args) {
            Ok(parts) => parts,
            Err(text) => return self.answer_in_order(incoming.to, encode::error(text)),
        };
        let Some(names) = command.keys_of(incoming.frame) else {
            return self.answer_in_order(incoming.to, encode::error("ERR syntax error"));
        };
        let keys: Rc<[KeyRef]> = names.0.iter().map(|name| KeyRef::new(incoming.database, name)).collect();
        let command = Args::new(&frame).next().map_or(&command::UNKNOWN, command::lookup);
        let number = self.waiters.add(Waiter {
            to: incoming.to,
            database: incoming.database,
            resp: incoming.resp,
            command,
            takes: Arrival::of_waiting(command),
            frame: frame.into(),
            keys,
            form,
            deadline_us: (timeout > 0).then(|| self.now.mono_us + timeout),
            trying: false,
            has_waited: false,
        });
        if self.waiters.is_behind_others(number) {
            // What may be there already is theirs; each of them that is served wakes the next.
            self.waiters.wait(number);
        } else {
            self.try_waiter(number);
        }
    }

    /// Sends the non-blocking form as an ordinary write.
    fn try_waiter(&mut self, number: u64) {
        let Some(waiter) = self.waiters.get_mut(number) else { return };
        waiter.trying = true;
        let Waiter { to, database, resp, command, .. } = *waiter;
        let (frame, keys) = (Rc::clone(&waiter.frame), Rc::clone(&waiter.keys));
        let Ok(plan) = effect::plan(command, &frame) else { return };
        let plan = self.adapt_plan(plan, &keys);
        self.send_write(command, plan, keys, Incoming { to, database, resp, frame: &frame });
        self.due.last_write_is_try_of(number);
    }

    /// The answer to a write: to its client, or, for a try of a blocked client, to that client if there was something.
    pub(super) fn answer_write(&mut self, entry: &WriteEntry, reply: &[u8]) {
        let Some(number) = entry.waiter else { return self.out.deliver(entry.to, reply) };
        let Some(waiter) = self.waiters.get_mut(number) else { return };
        waiter.trying = false;
        // Redis looks at the type of a key when the client begins to wait; later a key of another type is not what it waits for.
        if is_nil(reply) || (waiter.has_waited && reply.starts_with(b"-WRONGTYPE")) {
            if self.ending.retired {
                self.dismiss(number);
            } else {
                self.waiters.wait(number);
            }
            return;
        }
        if let Some(waiter) = self.waiters.remove(number) {
            let reply = if is_error(reply) { reply.to_vec() } else { reformed(waiter.form, reply) };
            self.out.deliver(waiter.to, &reply);
        }
    }

    /// After a write: who waits for what it may have brought tries again. A try that found nothing brings nothing.
    pub(super) fn wake_by_write(&mut self, entry: &WriteEntry, reply: &[u8]) {
        if !self.waiters.wait_for_any() || is_error(reply) {
            return;
        }
        if let Some(number) = entry.waiter {
            if !is_nil(reply) {
                self.wake_next(number, entry, reply);
            }
            return;
        }
        self.wake_by_command(entry.command, &entry.keys, reply);
    }

    /// The same for a write of a client, alone or in a block.
    pub(super) fn wake_by_command(&mut self, command: &Command, keys: &[KeyRef], reply: &[u8]) {
        if !self.waiters.wait_for_any() || is_error(reply) {
            return;
        }
        self.wake(keys, Arrival::by(command));
        if command.is_script() {
            // It may have written more than it declared.
            self.waiters.poll_us = self.waiters.poll_us.min(self.now.mono_us + limits::WAITER_SCRIPT_POLL_US);
        }
    }

    /// A blocked client was served: the key it was served from may hold more, and where it moved an element somebody may wait too.
    fn wake_next(&mut self, number: u64, entry: &WriteEntry, reply: &[u8]) {
        let Some(takes) = self.waiters.get_mut(number).map(|waiter| waiter.takes) else {
            return self.wake(&entry.keys, Arrival::Any);
        };
        if entry.command.name == "lmove" || takes == Arrival::Stream {
            return self.wake(&entry.keys, takes);
        }
        let name = elements(reply).and_then(|parts| parts.first().copied()).and_then(bulk);
        if let Some(key) = entry.keys.iter().find(|key| name == Some(&*key.name)) {
            self.wake(std::slice::from_ref(key), takes);
        }
    }

    /// Something of this kind may have arrived for these keys. Behind a fence nobody is served; its end looks again.
    pub(super) fn wake(&mut self, keys: &[KeyRef], arrival: Arrival) {
        if arrival == Arrival::Nothing || self.held.fence.is_some() || self.ending.retired {
            return;
        }
        for key in keys {
            for number in self.waiters.woken_by(key.id, arrival) {
                self.try_waiter(number);
            }
        }
    }

    /// After a fence or a reconnect: whoever is first in line for a key looks again.
    pub(super) fn retry_waiters(&mut self) {
        self.poll_waiters(usize::MAX);
    }

    fn poll_waiters(&mut self, most: usize) {
        if self.held.fence.is_some() || !self.links.authority().connected || self.ending.retired {
            return;
        }
        for number in self.waiters.next_to_poll(most) {
            self.try_waiter(number);
        }
    }

    /// Time-outs, as Redis answers them.
    pub(super) fn expire_waiters(&mut self) {
        let now = self.now.mono_us;
        for number in self.waiters.idle(|waiter| waiter.deadline_us.is_some_and(|deadline| deadline <= now)) {
            self.dismiss(number);
        }
        if now >= self.waiters.poll_us {
            self.waiters.poll_us = now + limits::WAITER_POLL_US;
            self.poll_waiters(limits::WAITER_POLLS_MAX);
        }
    }

    /// Dual operation ends: blocked clients get nil, and their cores send their commands again the other way.
    pub(super) fn dismiss_waiters(&mut self) {
        for number in self.waiters.idle(|_| true) {
            self.dismiss(number);
        }
    }

    fn dismiss(&mut self, number: u64) {
        if let Some(waiter) = self.waiters.remove(number) {
            self.out.deliver(waiter.to, if waiter.resp == 3 { b"_\r\n" } else { b"*-1\r\n" });
        }
    }
}

/// The non-blocking form of a blocking request, its time-out in microseconds (0: for ever), and how its reply is read.
pub(super) fn unblocked(args: &[&[u8]]) -> Result<(Vec<u8>, u64, Form), &'static str> {
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
