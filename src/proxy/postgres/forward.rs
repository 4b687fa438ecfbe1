//! A session's frames on their way: from client to server past the hold, from server to client past the tracker.
//!
//! Only heads are looked at, and the few bodies that tell what a session keeps; everything passes as it came. Without I/O; lives on one
//! core.

use super::hold::{Busy, Hold};
use super::session::{Progress, Ready, Session};
use super::shared::Shared;
use super::statements::{Moment, UnitDone, wanted_of_client, wanted_of_server};
use crate::contract::Ask;
use wire::postgres::{Boundary, Copy, HEAD_BYTES, Head, Violation, client_head, server_head};

/// Whether a client's frame may pass.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Permission {
    Granted,
    /// Not before the hold is released: it would begin a unit of work.
    AfterRelease,
    /// Not before outstanding answers have come: they tell whether it would begin a unit of work.
    AfterAnswers,
}

/// Whether a server's frame is one that ends the session.
fn is_fatal(error_body: &[u8]) -> bool {
    error_body.starts_with(b"SFATAL\0") || error_body.windows(7).any(|part| part == b"\0VFATAL")
}

impl Ready {
    /// Whether a client's frame of this type may pass. Terminate always may.
    #[inline]
    fn permission(&self, tag: u8, hold: &Hold) -> Permission {
        if !hold.is_on() || tag == b'X' {
            Permission::Granted
        } else if self.tracker.begins_unit(tag) {
            Permission::AfterRelease
        } else if self.may_go_on() {
            Permission::Granted
        } else {
            Permission::AfterAnswers
        }
    }

    /// Whether what the client sends next certainly belongs to the unit of work it is in.
    fn may_go_on(&self) -> bool {
        !self.tracker.is_busy() || self.tracker.is_mid_batch() || self.tracker.copy() == Copy::Both
    }

    /// A client's frame is about to be forwarded; `body` is its beginning.
    #[inline]
    fn note_client_frame(&mut self, tag: u8, body: &[u8], shared: &mut Shared) {
        let at = Moment { now_us: shared.now.mono_us, units_outstanding: self.tracker.outstanding() };
        self.statements.client_frame(tag, body, at, &mut shared.sampler);
        self.tracker.client_frame(tag);
        self.client_terminated |= tag == b'X';
    }

    /// A server's frame passes; `body` is its beginning.
    #[inline]
    fn note_server_frame(&mut self, tag: u8, body: &[u8], shared: &mut Shared) {
        let boundary = self.tracker.server_frame(tag, body.first().copied().unwrap_or(0));
        self.statements.server_frame(tag, body);
        if tag == b'E' {
            self.server_said_fatal |= is_fatal(body);
        }
        match boundary {
            Boundary::None => {}
            Boundary::UnitDone { status, failed } => {
                let (units_outstanding, idle) = (self.tracker.outstanding(), self.tracker.is_idle());
                let unit = UnitDone { status, failed, units_outstanding, idle, now_us: shared.now.mono_us };
                self.statements.unit_done(unit, &mut shared.sampler);
            }
        }
    }
}

// From the client to the server.
impl Session {
    /// Forwards the client's frames that may pass; how many bytes were taken. The caller keeps the rest.
    pub fn forward_client(&mut self, bytes: &[u8], shared: &mut Shared) -> usize {
        let Progress::Ready(ready) = &mut self.progress else { return 0 };
        let mut at = 0;
        let mut broken = None;
        while at < bytes.len() {
            if ready.client_left > 0 {
                let passes = ready.client_left.min(bytes.len() - at);
                ready.client_left -= passes;
                at += passes;
                continue;
            }
            let rest = &bytes[at..];
            let (tag, body_len) = match client_head(rest) {
                Head::NeedMore => break,
                // Answers to a log-in; nothing has been asked any more.
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
            let wanted = wanted_of_client(tag, body_len);
            if rest.len() < HEAD_BYTES + wanted {
                break;
            }
            match ready.permission(tag, &shared.hold) {
                Permission::Granted => {}
                Permission::AfterRelease => {
                    self.hold.wait_for_release(self.key, shared.now.mono_us, &mut shared.hold);
                    break;
                }
                Permission::AfterAnswers => {
                    self.hold.wait_for_answers();
                    break;
                }
            }
            if ready.tracker.begins_unit(tag) {
                ready.units += 1;
                self.since_us = shared.now.mono_us;
                self.hold.set_busy(Busy::Unit, &mut shared.hold);
            }
            ready.note_client_frame(tag, &rest[HEAD_BYTES..HEAD_BYTES + wanted], shared);
            let passes = rest.len().min(HEAD_BYTES + body_len);
            at += passes;
            ready.client_left = HEAD_BYTES + body_len - passes;
            ready.client_tag = tag;
        }
        if let Some(server) = self.server.filter(|_| at > 0) {
            shared.servers.send(server, &bytes[..at]);
        }
        if let Some(violation) = broken {
            self.client_broke_protocol(violation, shared);
        }
        at
    }

    /// The client has broken the protocol. What it sent before is answered first, as PostgreSQL does.
    fn client_broke_protocol(&mut self, violation: Violation, shared: &mut Shared) {
        shared.count_protocol_error();
        let must_finish = self.server_must_finish();
        match &mut self.progress {
            Progress::Ready(ready) if must_finish => ready.violation = Some(violation),
            _ => self.refuse(&violation.into(), shared),
        }
    }
}

// From the server to the client.
impl Session {
    /// Forwards frames of the session's server.
    ///
    /// # Errors
    /// The bytes are not the protocol's: what was wrong. What came before has been forwarded.
    pub fn forward_server(&mut self, bytes: &[u8], shared: &mut Shared) -> Result<(), String> {
        let Progress::Ready(ready) = &mut self.progress else { return Ok(()) };
        if ready.server_input.is_empty() {
            return self.server_frames(bytes, shared);
        }
        let mut whole = std::mem::take(&mut ready.server_input);
        whole.extend_from_slice(bytes);
        self.server_frames(&whole, shared)
    }

    fn server_frames(&mut self, bytes: &[u8], shared: &mut Shared) -> Result<(), String> {
        let Progress::Ready(ready) = &mut self.progress else { return Ok(()) };
        let mut at = 0;
        while at < bytes.len() {
            if ready.server_left > 0 {
                let passes = ready.server_left.min(bytes.len() - at);
                ready.server_left -= passes;
                at += passes;
                continue;
            }
            let rest = &bytes[at..];
            let (tag, body_len) = match server_head(rest) {
                Head::NeedMore => break,
                Head::Frame { tag, body_len } => (tag, body_len),
                Head::Invalid(violation) => {
                    self.send(&bytes[..at], shared);
                    return Err(violation.message);
                }
            };
            let wanted = wanted_of_server(tag, body_len);
            if rest.len() < HEAD_BYTES + wanted {
                break;
            }
            let passes = rest.len().min(HEAD_BYTES + body_len);
            ready.server_left = HEAD_BYTES + body_len - passes;
            at += passes;
            ready.note_server_frame(tag, &rest[HEAD_BYTES..HEAD_BYTES + wanted], shared);
        }
        ready.server_input.extend_from_slice(&bytes[at..]);
        self.send(&bytes[..at], shared);
        self.after_server_frames(shared);
        Ok(())
    }

    /// The server's frames may have ended a unit of work, or told that the client's next frames belong to the one it is in.
    fn after_server_frames(&mut self, shared: &mut Shared) {
        let must_finish = self.server_must_finish();
        let Progress::Ready(ready) = &mut self.progress else { return };
        // The relay forgets a session whose client is gone when its server has finished.
        if self.client.is_gone && !must_finish {
            return;
        }
        if !must_finish && let Some(violation) = ready.violation.take() {
            return self.refuse(&violation.into(), shared);
        }
        if ready.tracker.is_idle() {
            self.unit_over(shared);
        }
        if self.hold.waits_for_answers() && self.ready().is_some_and(Ready::may_go_on) {
            self.hold.answers_came();
            shared.asks.push(Ask::ReadClient(self.key));
            self.advance(shared);
        }
    }
}
