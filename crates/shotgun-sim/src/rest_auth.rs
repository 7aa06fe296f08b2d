//! `POST …/api/v1/auth/access_token`: credentials or a session token for a bearer token.
//!
//! The bearer token is a JWT that says whose rights it has: `user`, and `sudo_as_login` where a
//! script acts for a person. It is the only place where a site answers whose a session
//! token is. Nothing else of the REST API is simulated, so no bearer token is ever
//! accepted here, and each is signed with a key that is dropped at once.

use std::sync::Arc;

use axum::body::{Body, to_bytes};
use axum::http::{HeaderValue, Request as HttpRequest, Response, StatusCode, header};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::hmac;
use serde_json::{Value, json};

use super::event::Actor;
use super::faults::{Asked, Trouble};
use super::form_data::Form;
use super::site::Site;
use shotgun_model::api3::{Auth, Fault};

/// How a path of such a request ends.
pub(super) const PATH: &str = "/api/v1/auth/access_token";
/// The name of the request in the counts of requests and in the rules of troubles.
const METHOD: &str = "auth/access_token";
/// The longest request that is read.
const MAX_REQUEST_BYTES: usize = 64 << 10;
/// How long a bearer token is said to be good.
const LIFETIME_SECONDS: i64 = 600;

/// Answers a request for a bearer token.
pub(super) async fn serve(site: &Arc<Site>, request: HttpRequest<Body>) -> Response<Body> {
    let query = request.uri().query().unwrap_or_default().to_owned();
    let Ok(body) = to_bytes(request.into_body(), MAX_REQUEST_BYTES).await else {
        return refusal(StatusCode::PAYLOAD_TOO_LARGE, Fault::MALFORMED, "the request is too long");
    };
    site.requests.note(METHOD, None);
    site.catch_up();
    let delay = site.troubles.latency();
    super::http::pause(delay.before + delay.after).await;
    // The credentials are in the query of some clients, with an empty body.
    let body = if body.is_empty() { query.into() } else { body };
    let form = Form::parse("application/x-www-form-urlencoded", &body).unwrap_or_default();
    let auth = credentials(&form);
    let now = site.clock.now();
    let asked = Asked { method: METHOD, entity_type: None, page: None, now, auth: auth.as_ref(), answer: None };
    match site.troubles.take(&asked) {
        None => answer(site, auth.as_ref()),
        Some(Trouble::Answer { status, body }) => {
            respond(StatusCode::from_u16(status).unwrap_or(StatusCode::BAD_GATEWAY), body)
        }
        Some(_) => refusal(StatusCode::SERVICE_UNAVAILABLE, Fault::DATA, "try again later"),
    }
}

/// Returns the credentials of a known grant.
fn credentials(form: &Form) -> Option<Auth> {
    let text = |name: &str| form.text(name).unwrap_or_default();
    let mut auth = match text("grant_type") {
        "session_token" => json!({"session_token": text("session_token")}),
        "client_credentials" => json!({"script_name": text("client_id"), "script_key": text("client_secret")}),
        "password" => json!({"user_login": text("username"), "user_password": text("password")}),
        _ => return None,
    };
    if let Some(login) = text("scope").strip_prefix("sudo_as_login:") {
        auth["sudo_as_login"] = login.into();
    }
    Auth::from_wire(&auth).ok()
}

fn answer(site: &Site, auth: Option<&Auth>) -> Response<Body> {
    let Some(auth) = auth else {
        return refusal(StatusCode::BAD_REQUEST, Fault::MALFORMED, "Unsupported grant_type");
    };
    let actor = match site.authenticate(auth) {
        Ok(actor) => actor,
        // The end of the token is shown; the client knows it.
        Err(_) if auth.session_token().is_some() => {
            let token = auth.session_token().unwrap_or_default();
            let end = token.get(token.len().saturating_sub(4)..).unwrap_or_default();
            let words = format!("Can't authenticate session token ending with '{end}'");
            return refusal(StatusCode::BAD_REQUEST, Fault::AUTHENTICATION, &words);
        }
        Err(fault) => return refusal(StatusCode::BAD_REQUEST, Fault::AUTHENTICATION, &fault.message),
    };
    let access_token = bearer(&claims(site, &actor, auth));
    let refresh_token = format!("{:032x}", rand::random::<u128>());
    let answer = json!({"token_type": "Bearer", "access_token": access_token, "expires_in": LIFETIME_SECONDS,
        "refresh_token": refresh_token});
    respond(StatusCode::OK, answer.to_string())
}

/// Returns what a bearer token says. Where a script acts for a person, the user stays
/// the script.
fn claims(site: &Site, actor: &Actor, auth: &Auth) -> Value {
    let world = site.rows();
    let user = world.reference(actor.sudo.unwrap_or(actor.user));
    let sudo_as_login = actor.sudo.and_then(|_| world.named(actor.user, "login").as_text());
    let now = site.clock.now().0;
    let auth_type = if auth.script_name().is_some() { "api_key" } else { "login" };
    json!({"jti": format!("{:032x}", rand::random::<u128>()), "iss": world.media_host, "aud": world.media_host,
        "iat": now, "exp": now + LIFETIME_SECONDS, "user": {"type": user.entity_type, "id": user.id},
        "sudo_as_login": sudo_as_login, "auth_type": auth_type, "session_uuid": actor.session})
}

fn bearer(claims: &Value) -> String {
    let encode = |text: &str| URL_SAFE_NO_PAD.encode(text);
    let signed = format!("{}.{}", encode(r#"{"alg":"HS256"}"#), encode(&claims.to_string()));
    let key: [u8; 32] = rand::random();
    let signature = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, &key), signed.as_bytes());
    format!("{signed}.{}", URL_SAFE_NO_PAD.encode(signature))
}

fn refusal(status: StatusCode, code: i64, words: &str) -> Response<Body> {
    let id = format!("{:032x}", rand::random::<u128>());
    let error = json!({"id": id, "status": status.as_u16(), "code": code, "title": words, "source": null,
        "detail": null, "meta": null});
    respond(status, json!({"errors": [error]}).to_string())
}

fn respond(status: StatusCode, body: String) -> Response<Body> {
    let mut response = Response::new(Body::from(body));
    *response.status_mut() = status;
    let json = HeaderValue::from_static("application/json; charset=utf-8");
    response.headers_mut().insert(header::CONTENT_TYPE, json);
    response
}
