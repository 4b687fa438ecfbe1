//! A Rust client (tokio-postgres), with TLS when the log-in has a CA.

use std::path::Path;
use std::sync::Arc;

use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;
use tokio_postgres::config::SslMode;
use tokio_postgres::{AsyncMessage, Client, Config};
use tokio_postgres_rustls::MakeRustlsConnect;

use crate::pg_client::Login;

/// Messages that arrive outside of a reply.
pub type Notices = tokio::sync::mpsc::UnboundedReceiver<AsyncMessage>;

fn tls(login: &Login) -> MakeRustlsConnect {
    MakeRustlsConnect::new(trusting(login.ca.as_deref()))
}

/// TLS that trusts only this authority.
///
/// # Panics
/// When the file is not a certificate.
#[must_use]
pub fn trusting(ca: Option<&Path>) -> rustls::ClientConfig {
    let mut roots = rustls::RootCertStore::empty();
    if let Some(ca) = ca {
        let certificate = CertificateDer::from_pem_file(ca).expect("the CA is PEM");
        roots.add(certificate).expect("the CA is a certificate");
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("ring has the default versions")
        .with_root_certificates(roots)
        .with_no_client_auth()
}

/// The TLS connector of [`connect`].
#[must_use]
pub fn config(login: &Login) -> Config {
    let mut config = Config::new();
    config.host(&login.host).port(login.port).user(&login.user).password(&login.password).dbname(&login.database);
    config.ssl_mode(if login.ca.is_some() { SslMode::Require } else { SslMode::Disable });
    config.connect_timeout(std::time::Duration::from_secs(30));
    config
}

/// A connection served by a task of the current runtime, and the server's asynchronous messages.
///
/// # Errors
/// The client's.
pub async fn connect(login: &Login, application: &str) -> Result<(Client, Notices), tokio_postgres::Error> {
    let mut config = config(login);
    config.application_name(application);
    let (client, mut connection) = config.connect(tls(login)).await?;
    let (sender, receiver) = tokio::sync::mpsc::unbounded_channel();
    tokio::spawn(async move {
        // Ends with the client, or with the connection, whose error every later call on the client returns.
        while let Some(Ok(message)) = std::future::poll_fn(|context| connection.poll_message(context)).await {
            let _ = sender.send(message);
        }
    });
    Ok((client, receiver))
}

/// Sends a `CancelRequest` for what `client` runs.
///
/// # Errors
/// The client's.
pub async fn cancel(client: &Client, login: &Login) -> Result<(), tokio_postgres::Error> {
    client.cancel_token().cancel_query(tls(login)).await
}
