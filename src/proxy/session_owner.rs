//! Asks the site whose session a token is.
//!
//! `/api3/json` has no method that says it. The REST API does: the bearer token that it
//! gives for the token of a session (`POST /api/v1/auth/access_token`) is a JWT that names
//! `user` {type, id} and, where a script acts for a person, `sudo_as_login`. Its signature
//! needs no check: it comes from the site itself, over our own connection. The bearer and
//! the refresh token are dropped unused. The name of the user is then read by its id with
//! the replica's own credential.
//!
//! A site that refuses the grant leaves the owner unknown; requests with the token go
//! to the site.

use std::time::Duration;

use axum::http::{HeaderValue, StatusCode};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::Deserialize;
use serde_json::{Map, Value};

use super::settings::CallerName;
use super::upstream::{BufferedResponse, Outgoing, Upstream};
use crate::entity::EntityType;
use crate::filter::{Only, RawFilter};
use crate::shotgun::{Client, Purpose};

/// Where the REST API gives bearer tokens.
const TOKEN_PATH: &str = "/api/v1/auth/access_token";
const FORM: HeaderValue = HeaderValue::from_static("application/x-www-form-urlencoded");

/// Whose rights a bearer token has.
#[derive(Debug, PartialEq, Eq, Deserialize)]
struct Claims {
    user: User,
    #[serde(default)]
    sudo_as_login: Option<String>,
}

#[derive(Debug, PartialEq, Eq, Deserialize)]
struct User {
    #[serde(rename = "type")]
    entity_type: String,
    id: i64,
}

/// How long the site may take to answer.
const MAX_WAIT: Duration = Duration::from_secs(60);

/// Returns the name of the login or script whose session a token is, if the site says it.
pub(super) async fn ask(upstream: &Upstream, client: &Client, token: &str) -> Option<CallerName> {
    let form = [("grant_type", "session_token"), ("session_token", token)];
    // The address only serves to encode the form.
    let form = reqwest::Url::parse_with_params("http://form/", form).ok()?.query()?.to_owned();
    let answer = upstream.ask(&Outgoing::own(TOKEN_PATH, FORM), form.into(), MAX_WAIT).await.ok()?;
    let claims = claims(answer.status, &answer.body)?;
    match claims.sudo_as_login.filter(|login| !login.is_empty()) {
        Some(login) => Some(CallerName::Login(login)),
        None => name_of(client, &claims.user).await,
    }
}

/// Reads what a bearer token says.
fn claims(status: StatusCode, body: &[u8]) -> Option<Claims> {
    #[derive(Deserialize)]
    struct Granted {
        access_token: String,
    }
    if status != StatusCode::OK {
        return None;
    }
    let Granted { access_token } = serde_json::from_slice(body).ok()?;
    let mut parts = access_token.split('.');
    let (Some(_), Some(payload), Some(_), None) = (parts.next(), parts.next(), parts.next(), parts.next()) else {
        return None;
    };
    let payload = URL_SAFE_NO_PAD.decode(payload.trim_end_matches('=')).ok()?;
    serde_json::from_slice(&payload).ok()
}

/// Reads the name of a person or script that can log in.
async fn name_of(client: &Client, user: &User) -> Option<CallerName> {
    let (field, name): (_, fn(String) -> CallerName) = match user.entity_type.as_str() {
        "HumanUser" => ("login", CallerName::Login),
        "ApiUser" => ("firstname", CallerName::Script),
        _ => return None,
    };
    let (ty, fields) = (EntityType::new(user.entity_type.as_str()), vec![field.to_owned()]);
    let (ids, everything) = ([user.id], RawFilter::everything());
    let asked = client.read_ids(&ty, &ids, &everything, fields, Only::Active, Purpose::Proxy);
    let rows: Vec<Map<String, Value>> = asked.await.ok()?.rows;
    let row = rows.into_iter().find(|row| row.get("id").and_then(Value::as_i64) == Some(user.id))?;
    row.get(field)?.as_str().filter(|text| !text.is_empty()).map(|text| name(text.to_owned()))
}

/// Returns the token that the site gave to `get_session_token`.
pub(super) fn token_of(answer: &BufferedResponse) -> Option<String> {
    #[derive(Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Answer {
        results: Session,
    }
    #[derive(Deserialize)]
    struct Session {
        session_id: String,
    }
    if !answer.status.is_success() {
        return None;
    }
    let Answer { results } = serde_json::from_slice(&answer.body).ok()?;
    Some(results.session_id).filter(|token| !token.is_empty())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn granted(payload: &str) -> String {
        json!({"token_type": "Bearer", "access_token": format!("e30.{}.c2ln", URL_SAFE_NO_PAD.encode(payload))})
            .to_string()
    }

    #[test]
    fn a_bearer_token_names_a_user_and_whom_a_script_acts_for() {
        let body = granted(r#"{"iss":"site","user":{"type":"HumanUser","id":24},"sudo_as_login":null}"#);
        let said = claims(StatusCode::OK, body.as_bytes()).expect("claims");
        assert_eq!((said.user.id, said.sudo_as_login), (24, None));
        let body = granted(r#"{"user":{"type":"ApiUser","id":1},"sudo_as_login":"td"}"#);
        let said = claims(StatusCode::OK, body.as_bytes()).expect("claims");
        assert_eq!((said.user.entity_type.as_str(), said.sudo_as_login.as_deref()), ("ApiUser", Some("td")));
        assert_eq!(claims(StatusCode::BAD_REQUEST, body.as_bytes()), None);
    }

    #[test]
    fn an_answer_of_another_form_names_no_user() {
        let twice = granted(r#"{"user":{"type":"HumanUser","id":24},"user":{"type":"HumanUser","id":25}}"#);
        let odd = ["", "{}", r#"{"access_token":null}"#, r#"{"access_token":"a.b"}"#, r#"{"access_token":"a.!.c"}"#];
        let texts = odd.map(str::to_owned).into_iter();
        let payloads = ["", "{}", "null", r#"{"user":{}}"#, r#"{"user":{"type":"HumanUser","id":"24"}}"#];
        for body in texts.chain(payloads.iter().map(|payload| granted(payload))).chain([twice]) {
            assert_eq!(claims(StatusCode::OK, body.as_bytes()), None, "{body}");
        }
    }
}
