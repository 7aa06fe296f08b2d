//! Which server is at the other end.
//!
//! `GET /` is asked first and may be missing: since 8.11 the route is a module of
//! its own, and a minimal server answers 405. `_nodes/_local` gives the version on
//! every server, but needs the cluster privilege `monitor`. When neither is
//! answered we assume the newest Elasticsearch. Capabilities are never derived
//! from this: they are found by trying.

use std::fmt;

use serde_json::Value;

use super::call::Call;
use super::client::Client;
use super::error::Result;

/// Which product it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Flavour {
    /// Elasticsearch, 7.17 or later.
    Elasticsearch,
    /// OpenSearch, 1 or later.
    OpenSearch,
}

/// Flavour and version of a server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Server {
    /// Which product it is.
    pub flavour: Flavour,
    /// Its version as it says it; `None` when it does not tell.
    pub version: Option<String>,
}

impl fmt::Display for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = match self.flavour {
            Flavour::Elasticsearch => "Elasticsearch",
            Flavour::OpenSearch => "OpenSearch",
        };
        write!(f, "{name} {}", self.version.as_deref().unwrap_or("of unknown version"))
    }
}

impl Client {
    /// Asks which server this is. Also the cheapest proof that URL, TLS and credentials are right.
    ///
    /// # Errors
    ///
    /// When the server cannot be reached or refuses the credentials (401).
    pub async fn server(&self) -> Result<Server> {
        let root = self.send(&Call::get("/").accept(&[400, 403, 404, 405])).await?;
        if root.is_success() {
            let body = root.value()?;
            if let Some(version) = body.pointer("/version/number").and_then(Value::as_str) {
                let is_opensearch = body.pointer("/version/distribution").and_then(Value::as_str) == Some("opensearch");
                return Ok(Server { flavour: flavour(!is_opensearch), version: Some(version.to_owned()) });
            }
        }
        let nodes = Call::get("/_nodes/_local")
            .param("filter_path", "nodes.*.version,nodes.*.build_flavor")
            .accept(&[400, 403, 404, 405]);
        let answer = self.send(&nodes).await?;
        let body = answer.value()?;
        let node = body.get("nodes").and_then(Value::as_object).and_then(|nodes| nodes.values().next());
        let version = node.and_then(|node| node.get("version")).and_then(Value::as_str).map(str::to_owned);
        // OpenSearch has no build flavour and sends no product header.
        let says_so = answer.is_elasticsearch || node.is_some_and(|node| node.get("build_flavor").is_some());
        Ok(Server { flavour: flavour(says_so || version.is_none()), version })
    }
}

fn flavour(is_elasticsearch: bool) -> Flavour {
    if is_elasticsearch { Flavour::Elasticsearch } else { Flavour::OpenSearch }
}
