//! Who may use the ops listener: requests that name this machine, and, where it can be
//! reached from other machines, those that show its token.
//!
//! A web page in a browser on this machine can send requests to loopback under a host
//! name of its own (DNS rebinding). Such requests name that host, so names that are not
//! configured are refused; an IP address cannot be rebound.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use super::control::{Control, is_same};
use super::tls::Tls;

/// What the ops listener asks of requests.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct OpsAccess {
    /// Names of this machine, beside its addresses and `localhost`.
    pub hosts: Vec<String>,
    /// What every request shows, except for `/livez`.
    pub token: Option<OpsToken>,
    /// How connections are encrypted.
    pub tls: Option<Tls>,
    /// Whether other machines are answered without a token and without TLS.
    pub insecure: bool,
}

impl OpsAccess {
    /// Tells whether an address may be listened at with this access.
    pub fn is_enough_for(&self, address: SocketAddr) -> bool {
        address.ip().is_loopback() || self.insecure || (self.token.is_some() && self.tls.is_some())
    }

    fn knows_host(&self, host: &str) -> bool {
        let name = match host.rsplit_once(':') {
            Some((name, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => name,
            _ => host,
        };
        let name = name.trim_start_matches('[').trim_end_matches(']').trim_end_matches('.').to_ascii_lowercase();
        name.parse::<IpAddr>().is_ok()
            || name == "localhost"
            || self.hosts.iter().any(|known| known.eq_ignore_ascii_case(&name))
    }
}

/// A token that is never printed.
#[derive(Clone, PartialEq, Eq)]
pub struct OpsToken(pub String);

impl fmt::Debug for OpsToken {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("***")
    }
}

/// What [`check`] works with.
#[derive(Clone)]
pub(super) struct Guard {
    pub access: Arc<OpsAccess>,
    pub control: Control,
}

/// Hands on a request that may be answered.
pub(super) async fn check(State(guard): State<Guard>, request: Request, next: Next) -> Response {
    // HTTP/1.0 has no such header; browsers do not speak it.
    let host = request.headers().get(header::HOST).map(|host| host.to_str().unwrap_or_default());
    if let Some(host) = host.filter(|host| !guard.access.knows_host(host)) {
        let shown: String = host.chars().take(80).collect();
        let words = format!("sgcache: `{shown}` is not a name of this machine; `listen.ops_hosts` can name it\n");
        return (StatusCode::MISDIRECTED_REQUEST, words).into_response();
    }
    if request.uri().path() != "/livez" && !guard.is_authorized(request.headers()) {
        let words = "sgcache: this needs the token of `listen.ops_token`\n";
        let mut response = (StatusCode::UNAUTHORIZED, words).into_response();
        let basic = HeaderValue::from_static("Basic realm=\"sgcache\"");
        response.headers_mut().insert(header::WWW_AUTHENTICATE, basic);
        return response;
    }
    next.run(request).await
}

impl Guard {
    /// The token comes as a bearer token, or as the password of a browser.
    fn is_authorized(&self, headers: &HeaderMap) -> bool {
        let Some(OpsToken(token)) = &self.access.token else { return true };
        let shown = headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
        let bearer = shown.and_then(|shown| shown.strip_prefix("Bearer "));
        let basic = shown.and_then(|shown| shown.strip_prefix("Basic ")).and_then(password);
        self.control.accepts(shown)
            || bearer.is_some_and(|bearer| is_same(bearer.as_bytes(), token.as_bytes()))
            || basic.is_some_and(|password| is_same(password.as_bytes(), token.as_bytes()))
    }
}

fn password(basic: &str) -> Option<String> {
    let pair = String::from_utf8(STANDARD.decode(basic.trim()).ok()?).ok()?;
    pair.split_once(':').map(|(_, password)| password.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_others_are_not_known() {
        let access = OpsAccess { hosts: vec!["Cache.studio.lan".into()], ..OpsAccess::default() };
        for known in ["127.0.0.1:9187", "[::1]:9187", "localhost", "LOCALHOST:80", "cache.studio.lan:9187", "10.0.0.1"]
        {
            assert!(access.knows_host(known), "{known}");
        }
        for foreign in ["evil.example", "evil.example:9187", "localhost.evil.example", "127.0.0.1.evil.example", ""] {
            assert!(!access.knows_host(foreign), "{foreign}");
        }
    }

    #[test]
    fn an_address_beyond_this_machine_needs_a_token_and_tls() {
        let (here, beyond) = (([127, 0, 0, 1], 1).into(), ([0, 0, 0, 0], 1).into());
        let token = Some(OpsToken("secret".into()));
        let tls = Some(Tls { certificate: "c".into(), key: "k".into() });
        assert!(OpsAccess::default().is_enough_for(here));
        assert!(!OpsAccess { token: token.clone(), ..OpsAccess::default() }.is_enough_for(beyond));
        assert!(!OpsAccess { tls: tls.clone(), ..OpsAccess::default() }.is_enough_for(beyond));
        let both = OpsAccess { token, tls, ..OpsAccess::default() };
        assert!(both.is_enough_for(beyond));
        assert!(!format!("{both:?}").contains("secret"));
    }
}
