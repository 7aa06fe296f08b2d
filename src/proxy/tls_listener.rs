//! Where callers come in: a bound address, with TLS where it is configured, and the
//! rule that keys of callers do not cross a network in the clear.

use std::io;
use std::net::SocketAddr;

use axum::Router;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use super::settings::Settings;
use crate::metrics::Metrics;
use crate::server::{HttpServer, Refusals};

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
    server: HttpServer,
}

impl ApiListener {
    /// Binds an address.
    ///
    /// # Errors
    ///
    /// See [`ApiListenerError`].
    pub async fn bind(address: SocketAddr, settings: &Settings) -> Result<Self, ApiListenerError> {
        if !address.ip().is_loopback() && settings.tls.is_none() && !settings.insecure {
            return Err(ApiListenerError::Insecure(address));
        }
        let tls = settings.tls.as_ref().map(|tls| tls.acceptor()).transpose().map_err(ApiListenerError::Tls)?;
        let failed = |source| ApiListenerError::Bind { address, source };
        let listener = TcpListener::bind(address).await.map_err(failed)?;
        let address = listener.local_addr().map_err(failed)?;
        Ok(Self { address, server: HttpServer { listener, tls, bounds: settings.connections } })
    }

    /// Returns the real address, also when port 0 was asked for.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Tells whether callers speak TLS.
    pub fn is_tls(&self) -> bool {
        self.server.tls.is_some()
    }

    /// Serves until `stop`, then finishes the requests under way. Accepting
    /// goes on after failures.
    pub async fn serve(&self, router: Router, metrics: &Metrics, stop: CancellationToken) {
        self.server.serve(router, Refusals::of(metrics, "api"), stop).await;
    }
}
