//! Opens connections to servers: those of the operating system, or, where a test has installed a network of its own, those of the test.
//!
//! Lives on any thread with a tokio runtime.

use std::io;

use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};

use base::model::Address;

/// A connection, in both directions.
pub trait Duplex: AsyncRead + AsyncWrite + Unpin {}
impl<T: AsyncRead + AsyncWrite + Unpin> Duplex for T {}

/// Opens a connection.
///
/// # Errors
/// The operating system's.
pub(super) async fn open(address: &Address) -> io::Result<Box<dyn Duplex>> {
    #[cfg(feature = "testing")]
    if let Some(opening) = testing::opening(address) {
        return opening.await;
    }
    Ok(match address {
        Address::Tcp { host, port } => {
            let stream = TcpStream::connect((host.as_str(), *port)).await?;
            stream.set_nodelay(true)?;
            Box::new(stream)
        }
        Address::Unix(path) => Box::new(UnixStream::connect(path).await?),
    })
}

/// Tests only: a network in memory, for one thread.
#[cfg(feature = "testing")]
pub mod testing {
    use std::cell::RefCell;
    use std::io;
    use std::pin::Pin;
    use std::rc::Rc;

    use super::Duplex;
    use base::model::Address;

    /// A connection on its way.
    pub type Opening = Pin<Box<dyn Future<Output = io::Result<Box<dyn Duplex>>>>>;
    /// Makes connections.
    pub type Connector = Rc<dyn Fn(&Address) -> Opening>;

    thread_local! {
        static CONNECTOR: RefCell<Option<Connector>> = const { RefCell::new(None) };
    }

    /// From now on every connection of this thread is made by `connector`; `None`: by the operating system.
    pub fn install(connector: Option<Connector>) {
        CONNECTOR.set(connector);
    }

    pub(super) fn opening(address: &Address) -> Option<Opening> {
        let connector = CONNECTOR.with_borrow(Clone::clone)?;
        Some(connector(address))
    }
}
