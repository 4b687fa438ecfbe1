//! A session's frames on their way: from client to server past the gate, from server to client past the tracker.
//!
//! Only heads are looked at, and the few bodies that tell what a session keeps; everything passes as it came.

use super::types::Stage;
use super::{PostgresRelay, Refusal, statements};
use crate::contract::{ClientKey, UpstreamKey};
use base::model::limits;
use wire::postgres::frame::command_tag;
use wire::postgres::{Boundary, Copy, HEAD_BYTES, Head, Violation, client_head, server_head};

/// Whether a client's frame may pass.
enum Pass {
    Yes,
    /// It would begin a unit of work, and the gate is closed.
    Held,
    /// The gate is closed and answers are outstanding: whether it would begin a unit is known when they are in.
    AtBoundary,
}

impl PostgresRelay {
    /// Forwards what may pass; how many bytes were taken. The caller keeps the rest.
    pub(super) fn forward_client(&mut self, key: ClientKey, bytes: &[u8]) -> usize {
        let mut at = 0;
        let mut broken = None;
        while at < bytes.len() {
            let Some(session) = self.sessions.get_mut(key) else { return at };
            if session.client_left > 0 {
                let passes = session.client_left.min(bytes.len() - at);
                session.client_left -= passes;
                at += passes;
                continue;
            }
            let rest = &bytes[at..];
            let (tag, body_len) = match client_head(rest) {
                Head::NeedMore => break,
                Head::Frame { tag: b'p', .. } => {
                    broken = Some(Violation::protocol("invalid frontend message type 112"));
                    break;
                }
                Head::Frame { tag, body_len } => (tag, body_len),
                Head::Invalid(violation) => {
                    broken = Some(violation);
                    break;
                }
            };
            let wanted = statements::wanted(tag, body_len);
            if rest.len() < HEAD_BYTES + wanted {
                break;
            }
            match self.may_pass(key, tag) {
                Pass::Yes => {}
                Pass::Held => {
                    self.hold(key);
                    break;
                }
                Pass::AtBoundary => {
                    if let Some(session) = self.sessions.get_mut(key) {
                        session.at_boundary = true;
                    }
                    break;
                }
            }
            self.pass_client_frame(key, tag, &rest[HEAD_BYTES..HEAD_BYTES + wanted]);
            let passes = rest.len().min(HEAD_BYTES + body_len);
            at += passes;
            if let Some(session) = self.sessions.get_mut(key) {
                session.client_left = HEAD_BYTES + body_len - passes;
                session.client_frame = tag;
            }
        }
        self.send_to_server(key, &bytes[..at]);
        if let Some(violation) = broken {
            self.counters.protocol_errors += 1;
            self.broken_off(key, violation);
        }
        at
    }

    /// The client has broken the protocol. What it sent before is answered first, as PostgreSQL does.
    fn broken_off(&mut self, key: ClientKey, violation: Violation) {
        let Some(session) = self.sessions.get_mut(key) else { return };
        if session.server_must_finish() {
            session.doomed = Some(violation);
        } else {
            self.refuse(key, &Refusal::new(violation.sqlstate, violation.message));
        }
    }

    fn may_pass(&self, key: ClientKey, tag: u8) -> Pass {
        let Some(session) = self.sessions.get(key).filter(|_| self.gate.is_closed() && tag != b'X') else {
            return Pass::Yes;
        };
        let tracker = &session.tracker;
        if tracker.begins_unit(tag) {
            Pass::Held
        } else if tracker.is_busy() && !tracker.is_mid_batch() && tracker.copy() != Copy::Both {
            Pass::AtBoundary
        } else {
            Pass::Yes
        }
    }

    fn pass_client_frame(&mut self, key: ClientKey, tag: u8, body: &[u8]) {
        let begins = self.sessions.get(key).is_some_and(|session| session.tracker.begins_unit(tag));
        if begins {
            self.unit_begins(key);
        }
        self.note_client_frame(key, tag, body);
        if let Some(session) = self.sessions.get_mut(key) {
            session.tracker.client_frame(tag);
            session.terminated |= tag == b'X';
        }
    }

    fn send_to_server(&mut self, key: ClientKey, bytes: &[u8]) {
        if bytes.is_empty() {
            return;
        }
        let Some(server_key) = self.sessions.get(key).and_then(|session| session.server) else { return };
        if let Some(server) = self.servers.get_mut(server_key) {
            server.output.extend_from_slice(bytes);
            self.server_has_output(server_key);
        }
    }

    /// Bytes of a session's server.
    pub(super) fn forward_server(&mut self, key: UpstreamKey, client: ClientKey, bytes: &[u8]) -> Result<(), String> {
        let Some(server) = self.servers.get_mut(key) else { return Ok(()) };
        if server.input.is_empty() {
            return self.server_frames(key, client, bytes);
        }
        let mut whole = std::mem::take(&mut server.input);
        whole.extend_from_slice(bytes);
        self.server_frames(key, client, &whole)
    }

    fn server_frames(&mut self, key: UpstreamKey, client: ClientKey, bytes: &[u8]) -> Result<(), String> {
        let mut at = 0;
        while at < bytes.len() {
            let Some(session) = self.sessions.get_mut(client) else { return Ok(()) };
            if session.server_left > 0 {
                let passes = session.server_left.min(bytes.len() - at);
                session.server_left -= passes;
                at += passes;
                continue;
            }
            let rest = &bytes[at..];
            let (tag, body_len) = match server_head(rest) {
                Head::NeedMore => break,
                Head::Frame { tag, body_len } => (tag, body_len),
                Head::Invalid(violation) => {
                    self.send_to_client(client, &bytes[..at]);
                    return Err(violation.message);
                }
            };
            let wanted = match tag {
                b'Z' | b'C' | b'E' => body_len.min(limits::SERVER_BODY_LOOKED_AT_BYTES),
                _ => 0,
            };
            if rest.len() < HEAD_BYTES + wanted {
                break;
            }
            let passes = rest.len().min(HEAD_BYTES + body_len);
            session.server_left = HEAD_BYTES + body_len - passes;
            at += passes;
            self.pass_server_frame(client, tag, &rest[HEAD_BYTES..HEAD_BYTES + wanted]);
        }
        self.send_to_client(client, &bytes[..at]);
        if let Some(server) = self.servers.get_mut(key) {
            server.input.extend_from_slice(&bytes[at..]);
        }
        self.look_for_boundary(client);
        Ok(())
    }

    fn pass_server_frame(&mut self, client: ClientKey, tag: u8, body: &[u8]) {
        let Some(session) = self.sessions.get_mut(client) else { return };
        let first = body.first().copied().unwrap_or(0);
        let boundary = session.tracker.server_frame(tag, first);
        match tag {
            b'1' => session.registry.on_parse_complete(),
            b'3' => session.registry.on_close_complete(),
            b's' => session.registry.on_portal_suspended(),
            b'C' => session.registry.on_complete(command_tag(body).unwrap_or_default()),
            b'E' => {
                session.registry.on_error();
                session.fatal_seen |= body.starts_with(b"SFATAL\0") || body.windows(7).any(|part| part == b"\0VFATAL");
            }
            _ => {}
        }
        if let Boundary::UnitDone { status, failed } = boundary {
            session.registry.on_ready(status, session.tracker.outstanding());
            self.sample_over(client, failed);
        }
    }

    fn send_to_client(&mut self, client: ClientKey, bytes: &[u8]) {
        let Some(session) = self.sessions.get_mut(client) else { return };
        if session.client_gone {
            return; // nobody reads it
        }
        session.output.extend_from_slice(bytes);
        self.client_has_output(client);
    }

    /// After frames of the server: whether the session is idle now, or may go on.
    fn look_for_boundary(&mut self, client: ClientKey) {
        let Some(session) = self.sessions.get_mut(client) else { return };
        if session.stage != Stage::Ready {
            return;
        }
        if session.client_gone && !session.server_must_finish() {
            return self.end_session(client);
        }
        if session.doomed.is_some() && !session.server_must_finish() {
            let Some(violation) = session.doomed.take() else { return };
            return self.refuse(client, &Refusal::new(violation.sqlstate, violation.message));
        }
        if session.tracker.is_idle() {
            self.unit_over(client);
        }
        let Some(session) = self.sessions.get_mut(client) else { return };
        let tracker = &session.tracker;
        let may_go_on = !tracker.is_busy() || tracker.is_mid_batch() || tracker.copy() == Copy::Both;
        if session.at_boundary && may_go_on {
            session.at_boundary = false;
            self.asks.push(crate::contract::Ask::ReadClient(client));
            self.advance(client);
        }
    }
}
