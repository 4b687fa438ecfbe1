//! One server connection, from its socket to its end, and the table of them all. Without I/O; lives on one core.
//!
//! A connection is made for one purpose: a session, a cancel request, or looking up users' secrets. What passes on it when it is ready
//! is the business of that purpose, not of this file.

use super::server_login::{BackendKey, LoggedIn, ServerLogIn};
use crate::contract::{ClientKey, UpstreamKey};
use base::model::{Side, TlsMode};
use base::stdx::slab::Slab;
use base::stdx::spares::Spares;
use wire::postgres::encode;

/// A request to stop what a session's backend is running.
#[derive(Debug)]
pub struct CancelRequest {
    pub backend: BackendKey,
    pub session: ClientKey,
    /// The session's unit of work that the request is meant for. A later unit must not be cancelled.
    pub unit: u64,
    /// The client that asked, if it is on this core; it is closed when the server has been told.
    pub asker: Option<ClientKey>,
}

/// What a server connection is for.
#[derive(Debug)]
pub enum Purpose {
    Session(ClientKey),
    Cancel(CancelRequest),
    /// To look up users' secrets.
    Lookup,
}

/// The first packet on a connection that is not about encryption.
#[derive(Debug)]
enum FirstPacket {
    Startup(Box<ServerLogIn>),
    Cancel(BackendKey),
}

/// How far a server connection is.
#[derive(Debug)]
enum Progress {
    /// The socket is not open yet.
    Connecting(FirstPacket),
    /// An SSLRequest was sent.
    TlsAsked(FirstPacket),
    /// TLS is being agreed on.
    Securing(FirstPacket),
    LoggingIn(Box<ServerLogIn>),
    /// Logged in; of a cancel request: sent.
    Ready,
}

/// What the bytes of a server belong to.
#[derive(Debug)]
pub enum Input<'a> {
    /// An answer to the SSLRequest.
    TlsAnswer,
    LogIn(&'a mut ServerLogIn),
    /// A ready connection of this purpose.
    Ready(&'a Purpose),
}

/// What follows from the answer to an SSLRequest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TlsAnswer {
    /// Speak TLS now.
    Secure,
    /// Go on in the clear, which the endpoint's sslmode allows.
    InClear,
    /// The server has no TLS, which the endpoint's sslmode asks for.
    Missing,
}

/// One server connection.
#[derive(Debug)]
pub struct Server {
    pub purpose: Purpose,
    pub side: Side,
    progress: Progress,
    output: Vec<u8>,
    /// It is in the list of connections to be flushed.
    output_ready: bool,
    /// The backend's process id and cancel key, after the log-in.
    backend: Option<BackendKey>,
}

impl Server {
    /// A connection that logs in.
    pub fn for_log_in(purpose: Purpose, side: Side, log_in: ServerLogIn) -> Self {
        Self::new(purpose, side, FirstPacket::Startup(Box::new(log_in)))
    }

    /// A connection that asks a backend to stop what it runs.
    pub fn for_cancel(request: CancelRequest, side: Side) -> Self {
        let backend = request.backend.clone();
        Self::new(Purpose::Cancel(request), side, FirstPacket::Cancel(backend))
    }

    fn new(purpose: Purpose, side: Side, first: FirstPacket) -> Self {
        let progress = Progress::Connecting(first);
        Self { purpose, side, progress, output: Vec::new(), output_ready: false, backend: None }
    }

    pub fn is_ready(&self) -> bool {
        matches!(self.progress, Progress::Ready)
    }

    /// The server has asked the client something that is not answered yet.
    pub fn waits_for_client(&self) -> bool {
        matches!(&self.progress, Progress::LoggingIn(log_in) if log_in.waits_for_client())
    }

    /// What the server has asked the client is answered.
    pub fn client_answered(&mut self) {
        if let Progress::LoggingIn(log_in) = &mut self.progress {
            log_in.client_answered();
        }
    }

    pub fn backend(&self) -> Option<&BackendKey> {
        self.backend.as_ref()
    }

    /// Bytes that wait to be sent.
    pub fn unsent(&self) -> usize {
        self.output.len()
    }

    /// Asks for TLS.
    pub fn ask_for_tls(&mut self) {
        self.progress = match std::mem::replace(&mut self.progress, Progress::Ready) {
            Progress::Connecting(first) => {
                encode::ssl_request(&mut self.output);
                Progress::TlsAsked(first)
            }
            other => other,
        };
    }

    /// The server answered the SSLRequest (protocol-flow, "SSL Session Encryption").
    ///
    /// # Errors
    /// The answer is neither S nor N.
    pub fn tls_answered(&mut self, bytes: &[u8], mode: TlsMode) -> Result<TlsAnswer, String> {
        match bytes {
            b"S" => {
                self.progress = match std::mem::replace(&mut self.progress, Progress::Ready) {
                    Progress::TlsAsked(first) => Progress::Securing(first),
                    other => other,
                };
                Ok(TlsAnswer::Secure)
            }
            b"N" if mode == TlsMode::Prefer => Ok(TlsAnswer::InClear),
            b"N" => Ok(TlsAnswer::Missing),
            _ => Err("the server answered an SSLRequest with something other than S or N".to_owned()),
        }
    }

    /// Sends the first packet that is not about encryption.
    pub fn introduce(&mut self) {
        self.progress = match std::mem::replace(&mut self.progress, Progress::Ready) {
            Progress::Connecting(first) | Progress::TlsAsked(first) | Progress::Securing(first) => match first {
                FirstPacket::Startup(log_in) => {
                    self.output.extend_from_slice(log_in.startup_packet());
                    Progress::LoggingIn(log_in)
                }
                FirstPacket::Cancel(backend) => {
                    encode::cancel_request(&mut self.output, backend.process, &backend.secret);
                    Progress::Ready
                }
            },
            other => other,
        };
    }

    /// Where bytes of this server go now.
    ///
    /// # Errors
    /// The server sent bytes before it was asked anything.
    #[inline]
    pub fn input(&mut self) -> Result<Input<'_>, String> {
        match &mut self.progress {
            Progress::Ready => Ok(Input::Ready(&self.purpose)),
            Progress::LoggingIn(log_in) => Ok(Input::LogIn(log_in)),
            Progress::TlsAsked(_) => Ok(Input::TlsAnswer),
            Progress::Connecting(_) | Progress::Securing(_) => {
                Err("the server sent bytes before it was asked anything".to_owned())
            }
        }
    }

    /// The log-in succeeded.
    pub fn logged_in(&mut self, done: &mut LoggedIn) {
        self.progress = Progress::Ready;
        self.backend = done.backend.take();
    }
}

/// The server connections of one relay.
#[derive(Debug, Default)]
pub struct Servers {
    slab: Slab<Server>,
    /// Those with bytes to be sent.
    ready: Vec<UpstreamKey>,
}

impl Servers {
    pub fn insert(&mut self, server: Server) -> UpstreamKey {
        self.slab.insert(server)
    }

    pub fn get(&self, key: UpstreamKey) -> Option<&Server> {
        self.slab.get(key)
    }

    pub fn get_mut(&mut self, key: UpstreamKey) -> Option<&mut Server> {
        self.slab.get_mut(key)
    }

    pub fn remove(&mut self, key: UpstreamKey) -> Option<Server> {
        self.slab.remove(key)
    }

    pub fn len(&self) -> usize {
        self.slab.len()
    }

    /// Queues bytes for a server.
    #[inline]
    pub fn send(&mut self, key: UpstreamKey, bytes: &[u8]) {
        if let Some(server) = self.slab.get_mut(key) {
            server.output.extend_from_slice(bytes);
        }
        self.flush(key);
    }

    /// Lists a server whose output has grown as one with bytes to be sent.
    #[inline]
    pub fn flush(&mut self, key: UpstreamKey) {
        let Some(server) = self.slab.get_mut(key) else { return };
        if !server.output_ready && !server.output.is_empty() {
            server.output_ready = true;
            self.ready.push(key);
        }
    }

    /// Moves a server's unsent bytes out, `None` when there are none; a spare becomes its next buffer.
    pub fn take_output(&mut self, key: UpstreamKey, spares: &mut Spares) -> Option<(Vec<u8>, &Purpose)> {
        let server = self.slab.get_mut(key)?;
        server.output_ready = false;
        if server.output.is_empty() {
            return None;
        }
        Some((std::mem::replace(&mut server.output, spares.take()), &server.purpose))
    }

    /// The connections with bytes to be sent.
    pub fn take_ready(&mut self) -> Vec<UpstreamKey> {
        std::mem::take(&mut self.ready)
    }
}
