//! How a client's connection begins: encryption requests, cancel requests, the startup packet. Before a startup packet nothing is known
//! of the client. Without I/O; lives on one core.

use super::proof::Proof;
use super::refusal::Refusal;
use super::session::{OpeningPackets, Progress, Session, TlsBegun};
use super::shared::Shared;
use crate::contract::{Ask, Interrupt, Secured};
use base::model::{AllowReplication, AuthMode, CoreId};
use wire::postgres::scram::TlsEnds;
use wire::postgres::{Opening, Startup, encode, opening};

/// The newest protocol minor version spoken with clients (PostgreSQL 18).
const MINOR_MAX: u16 = 2;
/// Bytes of a cancel key in protocol 3.0 and 3.1.
const SHORT_SECRET_BYTES: usize = 4;
/// Encryption requests a client may make before its startup packet: one for TLS, one for GSS (libpq makes both).
const REQUESTS_MAX: u8 = 2;

impl Session {
    /// Takes the next packet before the session is known to be one; how many bytes were taken.
    pub fn open(&mut self, bytes: &[u8], shared: &mut Shared) -> usize {
        let (found, used) = opening(bytes);
        let rest = &bytes[used..];
        match found {
            Opening::NeedMore => return 0,
            Opening::Ssl | Opening::Gss if !self.may_request_encryption() => {
                self.refuse(&Refusal::new("08P01", "too many encryption requests"), shared);
            }
            Opening::Ssl => self.answer_ssl(rest, shared),
            // As with PostgreSQL, whatever came behind the request is read as sent in the clear after the refusal.
            Opening::Gss => self.send(b"N", shared),
            Opening::DirectTls => return self.begin_direct_tls(bytes, shared),
            Opening::Cancel { process, key } => self.cancel_asked(Interrupt { session: process, key }, shared),
            Opening::Startup(startup) => self.started(startup, shared),
            Opening::Invalid(violation) => self.refuse_protocol_error(&violation.into(), shared),
        }
        used
    }

    fn may_request_encryption(&mut self) -> bool {
        let Progress::Opening(OpeningPackets { encryption_requests }) = &mut self.progress else { return false };
        *encryption_requests += 1;
        *encryption_requests <= REQUESTS_MAX && self.tls == TlsEnds::Nowhere
    }

    fn answer_ssl(&mut self, rest: &[u8], shared: &mut Shared) {
        if shared.settings.spec.tls.is_none() {
            return self.send(b"N", shared);
        }
        if !rest.is_empty() || !self.client.output.is_empty() {
            // Anybody on the network path could have put these bytes there (CVE-2021-23214).
            let message = "received unencrypted data after SSL request";
            return self.refuse(&Refusal::new("08P01", message), shared);
        }
        self.progress = Progress::Securing(TlsBegun::OnRequest);
        shared.asks.push(Ask::SecureClient { client: self.key, prologue: b"S", begun: Vec::new() });
    }

    fn begin_direct_tls(&mut self, bytes: &[u8], shared: &mut Shared) -> usize {
        if self.tls == TlsEnds::AtCrossfade || shared.settings.spec.tls.is_none() {
            self.refuse_protocol_error(&Refusal::new("08P01", "invalid length of startup packet"), shared);
            return bytes.len();
        }
        self.progress = Progress::Securing(TlsBegun::Directly);
        shared.asks.push(Ask::SecureClient { client: self.key, prologue: b"", begun: bytes.to_vec() });
        bytes.len()
    }

    /// The TLS handshake is done.
    pub fn secured(&mut self, secured: &Secured, shared: &mut Shared) {
        let Progress::Securing(begun) = self.progress else { return };
        self.tls = TlsEnds::AtCrossfade;
        // A client that did not ask first must agree on the protocol inside TLS (protocol-flow, "SSL Session Encryption").
        if begun == TlsBegun::Directly && secured.application_protocol.is_none() {
            let message = "received direct SSL connection request without ALPN protocol negotiation extension";
            return self.refuse(&Refusal::new("08P01", message), shared);
        }
        self.progress = Progress::Opening(OpeningPackets::default());
        self.advance(shared);
    }

    /// The client asks for the statement of some session to be cancelled; that session may be on another core.
    fn cancel_asked(&mut self, interrupt: Interrupt, shared: &mut Shared) {
        let to = CoreId((interrupt.session % u32::from(shared.settings.cores)) as u16);
        if to == shared.settings.core {
            self.progress = Progress::Cancelling;
            shared.interrupts.push((interrupt, self.key));
        } else {
            shared.asks.push(Ask::Hand { to, interrupt });
            self.dismiss(b"", shared);
        }
    }

    fn started(&mut self, startup: Startup, shared: &mut Shared) {
        let settings = &shared.settings;
        if settings.requires_tls() && self.tls == TlsEnds::Nowhere {
            let message = format!("interlay \"{}\" of Crossfade takes no connection without TLS", settings.spec.name);
            let hint = "Connect with sslmode=require or stronger.";
            return self.refuse(&Refusal::new("28000", message).hint(hint), shared);
        }
        if startup.replication() && settings.postgres.replication == AllowReplication::No {
            let message = "Crossfade does not support replication connections on this interlay";
            let hint = "Connect to the server itself, or set allow_replication = true on the interlay.";
            return self.refuse(&Refusal::new("0A000", message).hint(hint), shared);
        }
        let mode = settings.mode();
        let unsupported = startup.unsupported_options();
        if startup.minor > MINOR_MAX || !unsupported.is_empty() {
            let minor = startup.minor.min(MINOR_MAX);
            encode::negotiate_protocol_version(&mut self.client.output, minor, &unsupported);
        }
        if startup.minor < MINOR_MAX {
            self.secret.truncate(SHORT_SECRET_BYTES);
        }
        self.startup = Some(startup);
        match mode {
            AuthMode::Relay => self.connect(Proof::Relay, shared),
            AuthMode::Trust => self.trust(shared),
            AuthMode::Scram | AuthMode::Mapped | AuthMode::Md5 => self.ask_for_proof(shared),
        }
        self.flush(shared);
    }
}
