//! An HTTP server that runs until it is shut down.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use axum::Router;
use axum::serve::Listener;
use tokio::sync::watch;
use tokio::task::JoinHandle;

/// How long a request in progress may take when the site is shut down.
const GRACE: Duration = Duration::from_secs(1);

/// A running server.
pub(crate) struct Serving {
    pub addr: SocketAddr,
    stop: watch::Sender<bool>,
    task: JoinHandle<io::Result<()>>,
}

impl Serving {
    /// Begins to serve on a listener with this address.
    pub fn begin(listener: impl Listener<Addr = SocketAddr>, addr: SocketAddr, app: Router) -> Self {
        let (stop, mut stopped) = watch::channel(false);
        let until = async move {
            let _ = stopped.wait_for(|stopped| *stopped).await;
        };
        let task = tokio::spawn(async move { axum::serve(listener, app).with_graceful_shutdown(until).await });
        Self { addr, stop, task }
    }

    /// Stops listening and waits for requests in progress, but not for long.
    pub async fn shutdown(mut self) {
        let _ = self.stop.send(true);
        if tokio::time::timeout(GRACE, &mut self.task).await.is_err() {
            self.task.abort();
        }
    }
}
