//! Where callers come in: bounded in number, with TLS where it is configured.
//!
//! A handshake is a task of its own, so that a slow caller holds up nobody. A
//! connection that waits for its next request is never closed from here: the
//! official client does not open another one.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::Router;
use axum::serve::Listener;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::server::TlsStream;
use tokio_util::sync::CancellationToken;

use super::settings::{Settings, Tls};

/// How long a handshake may take.
const HANDSHAKE: Duration = Duration::from_secs(10);

/// Why the api listener cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum ApiListenerError {
    /// The address.
    #[error("`listen.api`: cannot listen on {address}: {source}{}", hint(.source))]
    Bind {
        /// The address as it was written.
        address: SocketAddr,
        /// What the system said.
        source: io::Error,
    },
    /// A caller beyond this machine would send a key in the clear.
    #[error(
        "`listen.api`: {0} is not a loopback address, and callers send keys: set `api.tls`, or `api.insecure: true`"
    )]
    Insecure(SocketAddr),
    /// The certificate or its key.
    #[error("`api.tls`: {0}")]
    Tls(String),
}

fn hint(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::AddrInUse => "; another process listens there",
        _ => "",
    }
}

/// The bound api listener; serves nothing until [`Self::serve`].
pub struct ApiListener {
    address: SocketAddr,
    listener: TcpListener,
    tls: Option<TlsAcceptor>,
    connections: usize,
}

impl ApiListener {
    /// Opens an address.
    ///
    /// # Errors
    ///
    /// See [`ApiListenerError`].
    pub async fn bind(address: SocketAddr, settings: &Settings) -> Result<Self, ApiListenerError> {
        if !address.ip().is_loopback() && settings.tls.is_none() && !settings.insecure {
            return Err(ApiListenerError::Insecure(address));
        }
        let tls = settings.tls.as_ref().map(acceptor).transpose().map_err(ApiListenerError::Tls)?;
        let failed = |source| ApiListenerError::Bind { address, source };
        let listener = TcpListener::bind(address).await.map_err(failed)?;
        let address = listener.local_addr().map_err(failed)?;
        Ok(Self { address, listener, tls, connections: settings.max_connections.max(1) })
    }

    /// Returns the real address, also when port 0 was asked for.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Tells whether callers speak TLS.
    pub fn is_tls(&self) -> bool {
        self.tls.is_some()
    }

    /// Serves until `stop`, then finishes the requests under way.
    ///
    /// # Errors
    ///
    /// Never in practice: accepting goes on after failures.
    pub async fn serve(self, router: Router, stop: CancellationToken) -> io::Result<()> {
        let (arrivals, arrived) = mpsc::channel(64);
        let address = self.address;
        let acceptor_task = tokio::spawn(accept(self, arrivals, stop.clone()));
        let served = axum::serve(AcceptedConnections { address, arrived }, router)
            .with_graceful_shutdown(stop.cancelled_owned());
        let ended = served.await;
        acceptor_task.abort();
        ended
    }
}

/// Reads the certificate and the key.
fn acceptor(tls: &Tls) -> Result<TlsAcceptor, String> {
    let place = tls.certificate.display();
    let certificates = CertificateDer::pem_file_iter(&tls.certificate).map_err(|error| format!("{place}: {error}"))?;
    let certificates = certificates.collect::<Result<Vec<_>, _>>().map_err(|error| format!("{place}: {error}"))?;
    if certificates.is_empty() {
        return Err(format!("{place} holds no certificate in PEM form"));
    }
    let key = PrivateKeyDer::from_pem_file(&tls.key).map_err(|error| format!("{}: {error}", tls.key.display()))?;
    let provider = Arc::new(tokio_rustls::rustls::crypto::ring::default_provider());
    let config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| error.to_string())?
        .with_no_client_auth()
        .with_single_cert(certificates, key)
        .map_err(|error| error.to_string())?;
    Ok(TlsAcceptor::from(Arc::new(config)))
}

/// Accepts connections and hands on those that can speak.
async fn accept(listener: ApiListener, arrivals: mpsc::Sender<(Connection, SocketAddr)>, stop: CancellationToken) {
    let room = Arc::new(Semaphore::new(listener.connections));
    while let Ok(permit) = Arc::clone(&room).acquire_owned().await {
        let accepted = tokio::select! {
            accepted = listener.listener.accept() => accepted,
            () = stop.cancelled() => return,
        };
        let (stream, peer) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                // Too many open files, most likely: some close in a moment.
                tracing::warn!(%error, "a connection could not be accepted");
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            }
        };
        // A connection that refuses the option is slower, not wrong.
        let _ = stream.set_nodelay(true);
        let (tls, arrivals) = (listener.tls.clone(), arrivals.clone());
        tokio::spawn(async move {
            let stream = match tls {
                None => Stream::Plain(stream),
                Some(tls) => match tokio::time::timeout(HANDSHAKE, tls.accept(stream)).await {
                    Ok(Ok(stream)) => Stream::Tls(Box::new(stream)),
                    // A caller without TLS, or one that was cut off.
                    _ => return,
                },
            };
            // Fails only when nobody serves any more.
            let _ = arrivals.send((Connection { stream, _permit: permit }, peer)).await;
        });
    }
}

/// The connections that can speak, as `axum` takes them.
struct AcceptedConnections {
    address: SocketAddr,
    arrived: mpsc::Receiver<(Connection, SocketAddr)>,
}

impl Listener for AcceptedConnections {
    type Io = Connection;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Connection, SocketAddr) {
        match self.arrived.recv().await {
            Some(arrival) => arrival,
            // The acceptor_task has ended; so will this, by the same word.
            None => std::future::pending().await,
        }
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        Ok(self.address)
    }
}

/// A connection, and its place among those that there may be.
struct Connection {
    stream: Stream,
    _permit: OwnedSemaphorePermit,
}

enum Stream {
    Plain(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
}

impl AsyncRead for Connection {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match &mut self.get_mut().stream {
            Stream::Plain(stream) => Pin::new(stream).poll_read(cx, buf),
            Stream::Tls(stream) => Pin::new(stream).poll_read(cx, buf),
        }
    }
}

impl AsyncWrite for Connection {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        match &mut self.get_mut().stream {
            Stream::Plain(stream) => Pin::new(stream).poll_write(cx, buf),
            Stream::Tls(stream) => Pin::new(stream).poll_write(cx, buf),
        }
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match &mut self.get_mut().stream {
            Stream::Plain(stream) => Pin::new(stream).poll_write_vectored(cx, bufs),
            Stream::Tls(stream) => Pin::new(stream).poll_write_vectored(cx, bufs),
        }
    }

    fn is_write_vectored(&self) -> bool {
        match &self.stream {
            Stream::Plain(stream) => stream.is_write_vectored(),
            Stream::Tls(stream) => stream.is_write_vectored(),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.get_mut().stream {
            Stream::Plain(stream) => Pin::new(stream).poll_flush(cx),
            Stream::Tls(stream) => Pin::new(stream).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.get_mut().stream {
            Stream::Plain(stream) => Pin::new(stream).poll_shutdown(cx),
            Stream::Tls(stream) => Pin::new(stream).poll_shutdown(cx),
        }
    }
}
