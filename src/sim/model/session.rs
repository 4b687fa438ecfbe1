//! One connection of a model server: transactions, watches, and the commands that are about the server and not about data.

use super::blocking::is_blocking;
use super::commands;
use super::connection::{Connection, Deferred};
use super::data::{Expiry, Run, Words, error, ok};
use super::log::{Step, seen};
use super::server::Server;
use crate::limits;
use wire::resp::value::Value as Reply;

/// The keys under which feeds keep their positions.
const POSITIONS: &[u8] = b"__crossfade:position:";

fn text(text: &str) -> Reply {
    Reply::Bulk(text.as_bytes().to_vec())
}

fn parsed<T: std::str::FromStr>(word: Option<&Vec<u8>>) -> Option<T> {
    std::str::from_utf8(word?).ok()?.parse().ok()
}

impl Server {
    /// `None`: the answer comes later, or never.
    pub fn request(&mut self, id: u64, words: Words) -> Option<Reply> {
        let name = words[0].to_ascii_uppercase();
        let own = self.connections.get_mut(&id)?;
        if let Some(queued) = &mut own.queued
            && !matches!(name.as_slice(), b"EXEC" | b"DISCARD" | b"MULTI" | b"WATCH")
        {
            queued.push(words);
            return Some(Reply::Simple(b"QUEUED".to_vec()));
        }
        Some(match name.as_slice() {
            b"MULTI" => {
                own.queued = Some(Vec::new());
                ok()
            }
            b"DISCARD" | b"EXEC" if own.queued.is_none() => error("ERR without MULTI"),
            b"DISCARD" => {
                (own.queued, own.watch_broken) = (None, false);
                own.watched.clear();
                ok()
            }
            b"EXEC" => self.exec(id),
            b"WATCH" => {
                let database = own.database;
                own.watched.extend(words[1..].iter().map(|key| (database, key.clone())));
                ok()
            }
            b"UNWATCH" => {
                own.watched.clear();
                own.watch_broken = false;
                ok()
            }
            b"PSYNC" => {
                let from = parsed::<u64>(words.get(2)).and_then(|next| next.checked_sub(1));
                let (only, now_us) = (own.snapshot_only, self.now_us);
                let bytes = self.replication.attach(id, only, &words[1], from, now_us);
                self.sent.push((id, bytes));
                return None;
            }
            b"REPLCONF" if words[1].eq_ignore_ascii_case(b"ACK") => {
                let bytes = self.replication.acknowledged(id);
                self.sent.push((id, bytes));
                return None;
            }
            _ if is_blocking(&name) => {
                let database = own.database;
                return self.pop_or_wait(id, database, words);
            }
            _ => self.run_one(id, &name, &words),
        })
    }

    /// Anything that may also be within a transaction.
    fn run_one(&mut self, id: u64, name: &[u8], words: &Words) -> Reply {
        match self.about_server(id, name, words) {
            Some(reply) => reply,
            None => {
                let database = self.connections.get(&id).map_or(0, |own| own.database);
                self.execute(id, database, words)
            }
        }
    }

    fn exec(&mut self, id: u64) -> Reply {
        let Some(own) = self.connections.get_mut(&id) else { return Reply::Null };
        let queued = own.queued.take().unwrap_or_default();
        own.watched.clear();
        let database = own.database;
        if std::mem::take(&mut own.watch_broken) {
            self.note(id, database, true, Vec::new(), &Reply::Null);
            return Reply::Null;
        }
        let (mut replies, mut steps, mut effects) = (Vec::new(), Vec::new(), Vec::new());
        let (mut touched, mut expired) = (Vec::new(), Vec::new());
        for words in queued {
            let name = words[0].to_ascii_uppercase();
            if let Some(reply) = self.about_server(id, &name, &words) {
                replies.push(reply);
                continue;
            }
            if self.position_apart && name == b"SET" && words[1].starts_with(POSITIONS) {
                let due_us = self.now_us + limits::POSITION_APART_US;
                self.deferred.push(Deferred { connection: id, due_us, words });
                replies.push(ok());
                continue;
            }
            let args: Vec<&[u8]> = words.iter().map(Vec::as_slice).collect();
            let database = self.connections.get(&id).map_or(0, |own| own.database);
            let now_ms = self.now_ms();
            let seen = seen(&self.data, database, commands::keys(&args), now_ms);
            let mut run = Run::new(&mut self.data, database, now_ms, Expiry::Lazy);
            replies.push(commands::execute(&mut run, &args));
            effects.append(&mut run.effects);
            touched.append(&mut run.touched);
            expired.append(&mut run.expired);
            steps.push(Step { words, seen });
        }
        let reply = Reply::Array(replies);
        self.note(id, database, true, steps, &reply);
        self.spread(&effects, true, touched, expired);
        reply
    }

    pub fn store_deferred(&mut self) {
        let now_us = self.now_us;
        while let Some(at) = self.deferred.iter().position(|deferred| deferred.due_us <= now_us) {
            let Deferred { connection, words, .. } = self.deferred.remove(at);
            self.execute(connection, 0, &words);
        }
    }

    /// `None`: it is about data.
    fn about_server(&mut self, id: u64, name: &[u8], words: &Words) -> Option<Reply> {
        Some(match name {
            b"PING" => Reply::Simple(b"PONG".to_vec()),
            b"SELECT" => {
                self.connections.get_mut(&id)?.database = parsed(words.get(1)).unwrap_or(0);
                ok()
            }
            b"CLIENT" => self.client(id, words),
            // The relay loads on a new authority what clients have run; nobody here calls it by digest.
            b"SCRIPT" => text("0000000000000000000000000000000000000000"),
            b"INFO" => text(&self.info()),
            b"ROLE" => Reply::Array(vec![
                text("master"),
                Reply::Integer(self.replication.offset() as i64),
                Reply::Array(Vec::new()),
            ]),
            b"TIME" => {
                let ms = self.now_ms();
                Reply::Array(vec![text(&(ms / 1000).to_string()), text(&(ms % 1000 * 1000).to_string())])
            }
            b"COMMAND" => Reply::Array(commands::NAMES.iter().map(|name| text(name)).collect()),
            b"MODULE" | b"CONFIG" => Reply::Array(Vec::new()),
            b"ACL" => Reply::Array(vec![text("default")]),
            b"REPLCONF" => {
                if words[1] == b"rdb-only" {
                    self.connections.get_mut(&id)?.snapshot_only = true;
                }
                ok()
            }
            _ => return None,
        })
    }

    fn client(&mut self, id: u64, words: &Words) -> Reply {
        let argument = words.get(2);
        match words[1].to_ascii_uppercase().as_slice() {
            b"ID" => Reply::Integer(id as i64),
            b"SETNAME" => {
                if let Some(own) = self.connections.get_mut(&id) {
                    own.name = argument.cloned().unwrap_or_default();
                }
                ok()
            }
            b"LIST" => {
                let only: Vec<u64> = words.iter().skip(3).filter_map(|word| parsed(Some(word))).collect();
                text(&self.client_list(&only))
            }
            b"KILL" => {
                let Some(killed) = parsed::<u64>(words.get(3)).filter(|id| self.connections.contains_key(id)) else {
                    return Reply::Integer(0);
                };
                self.close(killed);
                self.closed.push(killed);
                Reply::Integer(1)
            }
            b"UNBLOCK" => {
                let unblocked = parsed::<u64>(argument);
                let at = self.waiting.iter().position(|waiting| Some(waiting.connection) == unblocked);
                let Some(waiting) = at.map(|at| self.waiting.remove(at)) else { return Reply::Integer(0) };
                self.reply(waiting.connection, &error("UNBLOCKED client unblocked via CLIENT UNBLOCK"));
                self.proceed(waiting.connection);
                Reply::Integer(1)
            }
            _ => ok(),
        }
    }

    fn client_list(&self, only: &[u64]) -> String {
        let chosen = self.connections.iter().filter(|(id, _)| only.is_empty() || only.contains(id));
        let line = |(id, own): (&u64, &Connection)| {
            let blocked = self.waiting.iter().any(|waiting| waiting.connection == *id);
            let flags = if blocked { "b" } else { "N" };
            format!(
                "id={id} addr=10.0.0.9:1 name={} flags={flags} db={}\n",
                String::from_utf8_lossy(&own.name),
                own.database
            )
        };
        chosen.map(line).collect()
    }

    fn info(&self) -> String {
        let active = u8::from(self.replication.active);
        let mut info = format!(
            "redis_version:7.0.15\r\nrun_id:{:040x}\r\nrole:master\r\nconnected_slaves:{}\r\nmaster_replid:{}\r\n\
             master_repl_offset:{}\r\nrepl_backlog_active:{active}\r\n",
            self.run_id,
            self.replication.replicas(),
            self.replication.id,
            self.replication.offset(),
        );
        for (database, keys) in &self.data.0 {
            let volatile = keys.values().filter(|entry| entry.deadline_ms.is_some()).count();
            info.push_str(&format!("db{database}:keys={},expires={volatile},avg_ttl=0\r\n", keys.len()));
        }
        info
    }
}
