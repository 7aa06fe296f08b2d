//! What identifies a caller, and the digest that it is remembered by.
//!
//! Four kinds of credential are read here: a script with its key, a login with its
//! password, a script with its key that acts for a login (`sudo_as_login`), and the token
//! of a session. Everything else (second factors, several kinds at once, keys that are
//! not known here) only the site can judge.
//!
//! A digest is an HMAC of the names and the secret: what is remembered cannot be turned
//! back into a secret, and without the key of the HMAC not even a guess can be checked.

use ring::hmac;
use serde_json::{Value, json};

use super::settings::CallerName;
use crate::api3::Auth;

/// The keyed hash of a credential, or of a request.
pub(super) type Digest = [u8; 32];

/// Keys of the authentication object that do not decide who asks.
const DESCRIPTIVE_KEYS: &[&str] = &["session_uuid", "product", "reject_if_expired"];

/// Names with their secret. Never printed.
#[derive(Clone, PartialEq, Eq)]
pub(super) enum Credential {
    Script { name: String, key: String },
    Login { login: String, password: String },
    Sudo { script: String, key: String, login: String },
    Session { token: String },
}

impl Credential {
    /// Returns the credential of a request, or `None` when only the site can judge it.
    pub fn of(auth: &Auth) -> Option<Self> {
        let Value::Object(object) = auth.to_wire() else { return None };
        let mut pairs = Vec::new();
        for (key, value) in &object {
            if !DESCRIPTIVE_KEYS.contains(&key.as_str()) {
                // Anything but a text only the site can judge.
                pairs.push((key.as_str(), value.as_str()?.to_owned()));
            }
        }
        pairs.sort();
        match pairs.as_slice() {
            [("script_key", key), ("script_name", name)] => Some(Self::Script { name: name.clone(), key: key.clone() }),
            [("user_login", login), ("user_password", password)] => {
                Some(Self::Login { login: login.clone(), password: password.clone() })
            }
            [("script_key", key), ("script_name", script), ("sudo_as_login", login)] => {
                Some(Self::Sudo { script: script.clone(), key: key.clone(), login: login.clone() })
            }
            [("session_token", token)] => Some(Self::Session { token: token.clone() }),
            _ => None,
        }
    }

    /// Returns whose rights the site applies, as far as the credential itself says it: not
    /// for the token of a session.
    pub fn owner(&self) -> Option<CallerName> {
        match self {
            Self::Script { name, .. } => Some(CallerName::Script(name.clone())),
            Self::Login { login, .. } | Self::Sudo { login, .. } => Some(CallerName::Login(login.clone())),
            Self::Session { .. } => None,
        }
    }

    /// Returns the authentication object that holds this credential and nothing else.
    pub fn to_auth(&self) -> Value {
        match self {
            Self::Script { name, key } => json!({"script_name": name, "script_key": key}),
            Self::Login { login, password } => json!({"user_login": login, "user_password": password}),
            Self::Sudo { script, key, login } => {
                json!({"script_name": script, "script_key": key, "sudo_as_login": login})
            }
            // As the client sends it: without the flag a site may answer an ended session.
            Self::Session { token } => json!({"session_token": token, "reject_if_expired": true}),
        }
    }

    /// Returns the digest under a key.
    pub fn digest(&self, key: &hmac::Key) -> Digest {
        let parts = match self {
            Self::Script { name, key } => vec!["script", name, key],
            Self::Login { login, password } => vec!["login", login, password],
            Self::Sudo { script, key, login } => vec!["sudo", script, key, login],
            Self::Session { token } => vec!["session", token],
        };
        digest(key, &parts.iter().map(|part| part.as_bytes()).collect::<Vec<_>>())
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
