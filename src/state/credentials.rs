//! Which credentials the site accepted before: digests, never secrets.
//!
//! Read by the proxy alone, to know its callers after a restart while the site does not
//! answer. The moments are those of the site. Bounded: the oldest records give way.

use rusqlite::params;
use serde::{Deserialize, Serialize};

use super::{Result, SiteTime, State, StateError, Unreadable};

/// Records that are kept.
const MAX_RECORDS: usize = 1_000;
/// What the names of the records begin with among the kept values.
const PREFIX: &str = "credential/";

/// A credential that the site accepted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CredentialRecord {
    /// The keyed digest of the credential.
    pub digest: [u8; 32],
    /// When the site last accepted it.
    pub accepted_at: SiteTime,
    /// What the caller was allowed to see then, as the proxy writes it.
    pub scope: String,
    /// For the token of a session, whose it is, as the proxy writes it.
    pub session_owner: Option<String>,
}

/// A record as it is written.
#[derive(Serialize, Deserialize)]
struct Kept {
    accepted_at: SiteTime,
    scope: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    session_owner: Option<String>,
}

impl State {
    /// Returns the records, at most a thousand. One that cannot be read counts as absent:
    /// its credential is then verified anew.
    pub async fn credential_records(&self) -> Result<Vec<CredentialRecord>> {
        self.read(|connection| {
            let sql = "SELECT name, value FROM kept WHERE name GLOB ?1 LIMIT ?2";
            let mut statement = connection.prepare_cached(sql)?;
            let pattern = format!("{PREFIX}*");
            let rows = statement.query_map(params![pattern, MAX_RECORDS as i64], |row| {
                Ok((row.get::<_, String>(0)?, row.get::<_, String>(1)?))
            })?;
            let rows: Vec<_> = rows.collect::<rusqlite::Result<_>>()?;
            Ok(rows.iter().filter_map(|(name, value)| parse(name, value)).collect())
        })
        .await
    }

    /// Adds a record or replaces the one of the same credential.
    pub async fn put_credential(&self, record: &CredentialRecord) -> Result<()> {
        let name = name(&record.digest);
        let CredentialRecord { accepted_at, scope, session_owner, .. } = record.clone();
        let kept = Kept { accepted_at, scope, session_owner };
        let value = serde_json::to_string(&kept).map_err(|error| StateError::malformed("value", error))?;
        self.write(move |transaction| {
            let sql = "INSERT OR REPLACE INTO kept (name, value) VALUES (?1, ?2)";
            transaction.prepare_cached(sql)?.execute(params![name, value])?;
            let sql = "DELETE FROM kept WHERE name IN (SELECT name FROM kept WHERE name GLOB ?1
                ORDER BY value ->> 'accepted_at' DESC LIMIT -1 OFFSET ?2)";
            transaction.prepare_cached(sql)?.execute(params![format!("{PREFIX}*"), MAX_RECORDS as i64])?;
            Ok(())
        })
        .await
    }

    /// Removes the record of a credential, if there is one.
    pub async fn remove_credential(&self, digest: &[u8; 32]) -> Result<()> {
        let name = name(digest);
        self.write(move |transaction| {
            transaction.execute("DELETE FROM kept WHERE name = ?1", [name])?;
            Ok(())
        })
        .await
    }

    /// Removes all records.
    pub async fn clear_credentials(&self) -> Result<()> {
        self.write(|transaction| {
            transaction.execute("DELETE FROM kept WHERE name GLOB ?1", [format!("{PREFIX}*")])?;
            Ok(())
        })
        .await
    }
}

fn name(digest: &[u8; 32]) -> String {
    let hex: String = digest.iter().map(|byte| format!("{byte:02x}")).collect();
    format!("{PREFIX}{hex}")
}

fn parse(name: &str, value: &str) -> Option<CredentialRecord> {
    let hex = name.strip_prefix(PREFIX).filter(|hex| hex.len() == 64 && hex.is_ascii())?;
    let mut digest = [0; 32];
    for (index, byte) in digest.iter_mut().enumerate() {
        *byte = u8::from_str_radix(&hex[2 * index..2 * index + 2], 16).ok()?;
    }
    let kept = serde_json::from_str(value).inspect_err(|error| Unreadable::Credential.note("a record", error));
    let Kept { accepted_at, scope, session_owner } = kept.ok()?;
    Some(CredentialRecord { digest, accepted_at, scope, session_owner })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn records_are_bounded_and_the_oldest_give_way() {
        let directory = tempfile::tempdir().expect("a directory");
        let state = State::open(directory.path()).await.expect("a state");
        let record = |number: u16| {
            let mut digest = [0; 32];
            digest[..2].copy_from_slice(&number.to_be_bytes());
            CredentialRecord {
                digest,
                accepted_at: SiteTime(i64::from(number)),
                scope: "full".into(),
                session_owner: None,
            }
        };
        state.keep("other", &1).await.expect("another value");
        state
            .write(move |transaction| {
                for number in 0..MAX_RECORDS as u16 {
                    let value = format!(r#"{{"accepted_at":{number},"scope":"full"}}"#);
                    let sql = "INSERT INTO kept (name, value) VALUES (?1, ?2)";
                    transaction.execute(sql, params![name(&record(number).digest), value])?;
                }
                Ok(())
            })
            .await
            .expect("records");
        let newest = record(MAX_RECORDS as u16);
        state.put_credential(&newest).await.expect("a record");
        let known = state.credential_records().await.expect("records");
        assert_eq!(known.len(), MAX_RECORDS);
        assert!(known.contains(&newest) && !known.contains(&record(0)) && known.contains(&record(1)));
        state.remove_credential(&newest.digest).await.expect("a removal");
        assert!(!state.credential_records().await.expect("records").contains(&newest));
        state.clear_credentials().await.expect("a removal");
        assert!(state.credential_records().await.expect("records").is_empty());
        assert_eq!(state.kept::<i64>("other").await.expect("a value"), Some(1));
    }

    #[tokio::test]
    async fn a_record_that_cannot_be_read_is_absent() {
        let directory = tempfile::tempdir().expect("a directory");
        let state = State::open(directory.path()).await.expect("a state");
        for name in ["credential/", "credential/zz", &name(&[1; 32])] {
            state.keep(name, &"no record").await.expect("a value");
        }
        assert!(state.credential_records().await.expect("records").is_empty());
    }
}
