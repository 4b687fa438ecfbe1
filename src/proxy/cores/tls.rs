//! TLS over the sockets of a core, by rustls: bytes in, bytes out. What is trusted and offered is read once, at start.

use std::io::{Read, Write};
use std::path::Path;
use std::sync::Arc;

use rustls::crypto::ring;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, ClientConnection, Connection, ServerConfig, ServerConnection};

use crate::contract::Secured;
use crate::protocols;
use ::tls;
use base::model::{Address, ClientTls, Endpoint, InterlaySpec, ServerTls, TlsMode};

/// Every TLS configuration of the process. Crosses to each core.
#[derive(Debug, Clone, Default)]
pub struct TlsKit {
    clients: Vec<(ClientTls, Arc<ClientConfig>)>,
}

impl TlsKit {
    /// Reads the files that the endpoints name.
    ///
    /// # Errors
    /// A sentence naming the file.
    pub fn new(endpoints: &[ClientTls]) -> Result<Self, String> {
        let mut kit = Self::default();
        for own in endpoints {
            if own.mode != TlsMode::Disable && !kit.clients.iter().any(|(known, _)| known == own) {
                kit.clients.push((own.clone(), Arc::new(tls::client_config(own)?)));
            }
        }
        Ok(kit)
    }

    /// TLS as the client of this endpoint.
    ///
    /// # Errors
    /// The endpoint's host cannot be named in TLS, or was not known at start.
    pub fn connect(&self, endpoint: &Endpoint) -> Result<Tls, String> {
        let (_, config) = self
            .clients
            .iter()
            .find(|(known, _)| *known == endpoint.tls)
            .ok_or_else(|| format!("endpoint {} has no TLS configured", endpoint.name))?;
        let Address::Tcp { host, .. } = &endpoint.address else {
            return Err(format!("endpoint {} is a socket: TLS is for TCP", endpoint.name));
        };
        let name = ServerName::try_from(host.clone())
            .map_err(|_| format!("host {host:?} of endpoint {} cannot be named in TLS", endpoint.name))?;
        let connection = ClientConnection::new(Arc::clone(config), name).map_err(|error| error.to_string())?;
        Ok(Tls::new(connection.into(), b""))
    }
}

/// How an interlay presents itself to its clients.
///
/// # Errors
/// A sentence naming the interlay and the file.
pub fn server_config(spec: &InterlaySpec) -> Result<Option<Arc<ServerConfig>>, String> {
    let Some(tls) = &spec.tls else { return Ok(None) };
    let mut config = read_server(tls).map_err(|why| format!("interlay {}: {why}", spec.name))?;
    config.alpn_protocols = protocols::application_protocols(spec.kind()).iter().map(|name| name.to_vec()).collect();
    Ok(Some(Arc::new(config)))
}

fn read_server(own: &ServerTls) -> Result<ServerConfig, String> {
    let chain = certificates(&own.cert_file)?;
    let key = PrivateKeyDer::from_pem_file(&own.key_file)
        .map_err(|error| format!("no private key can be read from {}: {error}", own.key_file.display()))?;
    ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(|error| error.to_string())?
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .map_err(|error| format!("{} and {} do not fit: {error}", own.cert_file.display(), own.key_file.display()))
}

fn certificates(file: &Path) -> Result<Vec<CertificateDer<'static>>, String> {
    let unreadable =
        |error: &dyn std::fmt::Display| format!("no certificate can be read from {}: {error}", file.display());
    let chain = CertificateDer::pem_file_iter(file).map_err(|error| unreadable(&error))?;
    let chain = chain.collect::<Result<Vec<_>, _>>().map_err(|error| unreadable(&error))?;
    if chain.is_empty() { Err(unreadable(&"it holds none")) } else { Ok(chain) }
}

/// One connection's TLS. Lives on one core, shared by the task that reads and the task that writes.
#[derive(Debug)]
pub struct Tls {
    connection: Connection,
    /// Bytes to be sent in the clear before anything of TLS.
    prologue: &'static [u8],
    announced: bool,
}

impl Tls {
    fn new(mut connection: Connection, prologue: &'static [u8]) -> Self {
        // What is written at a time is bounded by the relay, which gives back what it was asked to hold.
        connection.set_buffer_limit(None);
        Self { connection, prologue, announced: false }
    }

    /// TLS as the server.
    ///
    /// # Errors
    /// rustls', when the configuration is of no use.
    pub fn accept(config: &Arc<ServerConfig>, prologue: &'static [u8]) -> Result<Self, String> {
        let connection = ServerConnection::new(Arc::clone(config)).map_err(|error| error.to_string())?;
        Ok(Self::new(connection.into(), prologue))
    }

    /// Takes bytes of the socket, appends what they decrypt to. An error leaves an alert to be sent.
    ///
    /// # Errors
    /// Why the connection is of no use.
    pub fn decrypt(&mut self, mut bytes: &[u8], plain: &mut Vec<u8>) -> Result<(), String> {
        while !bytes.is_empty() {
            let taken = self.connection.read_tls(&mut bytes).map_err(|error| error.to_string())?;
            let state = self.connection.process_new_packets().map_err(|error| format!("TLS: {error}"))?;
            let at = plain.len();
            plain.resize(at + state.plaintext_bytes_to_read(), 0);
            self.connection.reader().read_exact(&mut plain[at..]).map_err(|error| error.to_string())?;
            // After its close_notify nothing is taken any more: whatever follows is not TLS.
            if state.peer_has_closed() || taken == 0 {
                return Err("the peer ended TLS".to_owned());
            }
        }
        Ok(())
    }

    /// Once, when the handshake is over.
    pub fn take_secured(&mut self) -> Option<Secured> {
        if self.announced || self.connection.is_handshaking() {
            return None;
        }
        self.announced = true;
        Some(Secured { application_protocol: self.connection.alpn_protocol().map(<[u8]>::to_vec) })
    }

    /// What the socket must be sent: `plain` encrypted, and whatever TLS itself has to say. Empty when there is nothing.
    ///
    /// # Errors
    /// rustls', when the connection is of no use.
    pub fn encrypt(&mut self, plain: Option<&[u8]>) -> Result<Vec<u8>, String> {
        if let Some(plain) = plain {
            self.connection.writer().write_all(plain).map_err(|error| error.to_string())?;
        }
        let mut out = std::mem::take(&mut self.prologue).to_vec();
        while self.connection.wants_write() {
            self.connection.write_tls(&mut out).map_err(|error| error.to_string())?;
        }
        Ok(out)
    }

    /// To be said before the socket is closed by us.
    pub fn say_goodbye(&mut self) -> Vec<u8> {
        self.connection.send_close_notify();
        self.encrypt(None).unwrap_or_default()
    }
}
