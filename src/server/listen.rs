//! A bound address that serves a router until it is cancelled.
//!
//! Every connection has TCP_NODELAY: an answer written in two pieces would
//! otherwise cost a client 40 ms.

use std::io;
use std::net::SocketAddr;

use axum::{Extension, Router};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use super::connections::ConnectionBounds;
use super::events::Stop;
use super::http_server::{HttpServer, Refusals};
use super::tls::Tls;
use crate::metrics::Metrics;

/// Connections of the ops listener: scrapers, probes, a few browsers.
const MAX_CONNECTIONS: usize = 256;
const MAX_PEER_CONNECTIONS: usize = 64;

/// Why a listener could not be opened.
#[derive(Debug, thiserror::Error)]
#[error("`{key}`: cannot listen on {address}: {}", explain(.source))]
pub struct BindError {
    /// The configuration key that holds the address.
    pub key: &'static str,
    /// The address as it was written.
    pub address: String,
    /// What the system said.
    pub source: io::Error,
}

fn explain(error: &io::Error) -> String {
    let hint = match error.kind() {
        io::ErrorKind::AddrInUse => "another process (another sgcache?) listens there",
        io::ErrorKind::AddrNotAvailable => "this machine does not have that address",
        io::ErrorKind::PermissionDenied => "ports below 1024 need special rights",
        io::ErrorKind::InvalidInput => "expected HOST:PORT, for example 127.0.0.1:9187",
        _ => return error.to_string(),
    };
    format!("{hint} ({error})")
}

/// An open listener that serves nothing yet.
pub struct Bound {
    server: HttpServer,
    address: SocketAddr,
}

impl std::fmt::Debug for Bound {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(out, "Bound({})", self.address)
    }
}

impl Bound {
    /// Opens `address`; `key` is the configuration key to name when that fails.
    ///
    /// # Errors
    ///
    /// [`BindError`], also for an address that cannot be read.
    pub async fn open(key: &'static str, address: &str) -> Result<Self, BindError> {
        let open = async {
            let listener = TcpListener::bind(address).await?;
            let address = listener.local_addr()?;
            let bounds = ConnectionBounds {
                max_connections: MAX_CONNECTIONS,
                max_peer_connections: MAX_PEER_CONNECTIONS,
                ..ConnectionBounds::default()
            };
            Ok(Self { server: HttpServer { listener, tls: None, bounds }, address })
        };
        open.await.map_err(|source| BindError { key, address: address.to_owned(), source })
    }

    /// Encrypts connections from now on.
    ///
    /// # Errors
    ///
    /// The file and what is wrong with it.
    pub fn with_tls(mut self, tls: Option<&Tls>) -> Result<Self, String> {
        self.server.tls = tls.map(Tls::acceptor).transpose()?;
        Ok(self)
    }

    /// Returns the real address, also when port 0 was asked for.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Serves until `stop` is cancelled, then finishes the requests under way.
    /// Accepting goes on after failures.
    pub async fn serve(&self, router: Router, metrics: &Metrics, stop: CancellationToken) {
        // Streams end with the listener, which waits for every answer.
        let router = router.layer(Extension(Stop(stop.clone())));
        self.server.serve(router, Refusals::of(metrics, "ops"), stop).await;
    }
}
