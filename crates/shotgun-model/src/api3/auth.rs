//! The authentication object: the first parameter of every request but `info`.

use std::fmt;

use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};
use serde_json::{Map, Value};

/// Who asks. Never printed with its secrets.
#[derive(Clone, PartialEq)]
pub struct Auth(Map<String, Value>);

/// The keys whose values are secrets.
const SECRET: [&str; 4] = ["script_key", "user_password", "session_token", "auth_token"];

impl Auth {
    /// Makes the credentials of a script.
    pub fn script(name: impl Into<String>, key: impl Into<String>) -> Self {
        let pairs = [("script_name", name.into()), ("script_key", key.into())];
        Self(pairs.into_iter().map(|(key, value)| (key.to_owned(), Value::String(value))).collect())
    }

    /// Reads the object of a request.
    ///
    /// # Errors
    ///
    /// The message about a value that is not an object.
    pub fn from_wire(value: &Value) -> Result<Self, String> {
        let object = value.as_object().ok_or("the first parameter must hold the credentials")?;
        Ok(Self(object.clone()))
    }

    /// Returns the object of a request, with its secrets.
    pub fn to_wire(&self) -> Value {
        Value::Object(self.0.clone())
    }

    /// Returns the values that must not be shown.
    pub fn secrets(&self) -> impl Iterator<Item = &str> {
        SECRET.into_iter().filter_map(|key| self.text(key))
    }

    fn text(&self, key: &str) -> Option<&str> {
        self.0.get(key)?.as_str()
    }

    /// Tells whether one of the values is this text.
    pub fn holds(&self, text: &str) -> bool {
        self.0.values().any(|value| value.as_str() == Some(text))
    }

    /// Returns the name of the script, if a script asks.
    pub fn script_name(&self) -> Option<&str> {
        self.text("script_name")
    }

    /// Returns the key of the script.
    pub fn script_key(&self) -> Option<&str> {
        self.text("script_key")
    }

    /// Returns the login, if a person asks.
    pub fn user_login(&self) -> Option<&str> {
        self.text("user_login")
    }

    /// Returns the password of the person.
    pub fn user_password(&self) -> Option<&str> {
        self.text("user_password")
    }

    /// Returns the token of a session.
    pub fn session_token(&self) -> Option<&str> {
        self.text("session_token")
    }

    /// Returns the login in whose name a script acts.
    pub fn sudo_as_login(&self) -> Option<&str> {
        self.text("sudo_as_login")
    }

    /// Returns the session that the site notes in its event log.
    pub fn session_uuid(&self) -> Option<&str> {
        self.text("session_uuid")
    }
}

/// Reads the object, and refuses one in which a key occurs twice: readers of JSON differ on
/// which value counts, so two of them could take it for different callers.
impl<'de> Deserialize<'de> for Auth {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Keys;
        impl<'de> Visitor<'de> for Keys {
            type Value = Auth;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object with the credentials")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Auth, A::Error> {
                let mut object = Map::new();
                while let Some((key, value)) = entries.next_entry::<String, Value>()? {
                    if object.contains_key(&key) {
                        return Err(serde::de::Error::custom(format!("`{key}` occurs twice in the credentials")));
                    }
                    object.insert(key, value);
                }
                Ok(Auth(object))
            }
        }
        deserializer.deserialize_map(Keys)
    }
}

impl fmt::Debug for Auth {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shown = self.0.iter().map(|(key, value)| {
            let secret = SECRET.contains(&key.as_str());
            (key, if secret { Value::from("***") } else { value.clone() })
        });
        f.debug_map().entries(shown).finish()
    }
}
