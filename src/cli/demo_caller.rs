//! A program of a demo: calls the simulated site or the proxy as the official client does.

use std::fmt::Display;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::Failure;

/// A call that takes longer than this has failed.
const CALL_TIMEOUT: Duration = Duration::from_secs(30);

/// One answer, as a program sees it.
pub struct Seen {
    /// `hit`, `stale`, `pass`, or `failed`.
    pub how: String,
    /// The whole header that says so.
    pub header: String,
    /// From the request to the last byte.
    pub took: Duration,
}

/// A program that calls the site or the proxy.
#[derive(Clone)]
pub struct Caller {
    http: reqwest::Client,
    url: String,
}

impl Caller {
    /// Makes a program that calls this address.
    ///
    /// # Errors
    ///
    /// When no HTTP client can be made.
    pub fn new(address: impl Display) -> Result<Self, Failure> {
        let http = reqwest::Client::builder().no_proxy().timeout(CALL_TIMEOUT).build();
        let http = http.map_err(|error| Failure::internal(error.to_string()))?;
        Ok(Self { http, url: format!("http://{address}/api3/json") })
    }

    /// Calls a method with the credentials of the demo.
    pub async fn call(&self, method: &str, argument: &Value) -> Seen {
        let auth = json!({"script_name": "sgcache", "script_key": "sgcache-sim"});
        let body = json!({"method_name": method, "params": [auth, argument]});
        let begun = Instant::now();
        let sent = self.http.post(&self.url).json(&body).send().await;
        let (mut how, mut header) = ("failed".to_owned(), "no answer".to_owned());
        if let Ok(response) = sent {
            let status = response.status();
            let header_value =
                response.headers().get("x-sgcache").and_then(|value| value.to_str().ok()).unwrap_or("pass");
            header = header_value.to_owned();
            if status.is_success() {
                how = header_value.split(';').next().unwrap_or("pass").to_owned();
            }
            if response.bytes().await.is_err() {
                how = "failed".to_owned();
            }
        }
        Seen { how, header, took: begun.elapsed() }
    }

    /// Reads the first shots that pass these conditions.
    pub async fn read(&self, filters: Value) -> Seen {
        let argument = json!({"type": "Shot", "return_fields": ["code", "sg_status_list"], "return_only": "active",
            "filters": {"logical_operator": "and", "conditions": filters}, "api_return_image_urls": true,
            "paging": {"entities_per_page": 50, "current_page": 1}, "return_paging_info_without_counts": true});
        self.call("read", &argument).await
    }
}
