//! What identifies a caller, and the digest that it is remembered by.
//!
//! Only two kinds of credential are read here: a script with its key, and a login with
//! its password. Everything else (session tokens, second factors, `sudo_as_login`, both
//! kinds at once, keys that are not known here) only the site can judge.
//!
//! A digest is an HMAC of the name and the secret: what is remembered cannot be turned
//! back into a secret, and without the key of the HMAC not even a guess can be checked.

use ring::hmac;
use serde_json::{Map, Value};

use super::settings::CallerName;
use crate::api3::Auth;

/// The keyed hash of a credential, or of a request.
pub(super) type Digest = [u8; 32];

/// Keys of the authentication object that do not decide who asks.
const DESCRIPTIVE_KEYS: &[&str] = &["session_uuid", "product", "reject_if_expired"];

/// A name with its secret. Never printed.
pub(super) struct Credential {
    pub name: CallerName,
    secret: String,
}

impl Credential {
    /// Returns the credential of a request, or `None` when only the site can judge it.
    pub fn of(auth: &Auth) -> Option<Self> {
        let Value::Object(object) = auth.to_wire() else { return None };
        let mut deciding = object.iter().filter(|(key, _)| !DESCRIPTIVE_KEYS.contains(&key.as_str()));
        let known = ["script_name", "script_key", "user_login", "user_password"];
        if !deciding.all(|(key, _)| known.contains(&key.as_str())) {
            return None;
        }
        let text = |key: &str| object.get(key).map(|value| value.as_str().map(str::to_owned));
        match (text("script_name"), text("script_key"), text("user_login"), text("user_password")) {
            (Some(name), Some(key), None, None) => Some(Self { name: CallerName::Script(name?), secret: key? }),
            (None, None, Some(login), Some(word)) => Some(Self { name: CallerName::Login(login?), secret: word? }),
            _ => None,
        }
    }

    /// Returns the authentication object that holds this credential and nothing else.
    pub fn to_auth(&self) -> Value {
        let (name_key, name, secret_key) = match &self.name {
            CallerName::Script(name) => ("script_name", name, "script_key"),
            CallerName::Login(login) => ("user_login", login, "user_password"),
        };
        Value::Object(Map::from_iter([
            (name_key.to_owned(), Value::from(name.as_str())),
            (secret_key.to_owned(), Value::from(self.secret.as_str())),
        ]))
    }

    /// Returns the digest under a key.
    pub fn digest(&self, key: &hmac::Key) -> Digest {
        let (kind, name) = match &self.name {
            CallerName::Script(name) => ("script", name),
            CallerName::Login(login) => ("login", login),
        };
        digest(key, &[kind.as_bytes(), name.as_bytes(), self.secret.as_bytes()])
    }
}

/// Returns the keyed hash of some parts; where one ends and the next begins counts.
pub(super) fn digest(key: &hmac::Key, parts: &[&[u8]]) -> Digest {
    let mut context = hmac::Context::with_key(key);
    for part in parts {
        context.update(&(part.len() as u64).to_le_bytes());
        context.update(part);
    }
    let mut digest = Digest::default();
    digest.copy_from_slice(&context.sign().as_ref()[..32]);
    digest
}
