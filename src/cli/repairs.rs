//! Dead letters and stopped deletions: what an operator decides about them.
//!
//! Works on the state alone, so that `sgcache deadLetters` and `sgcache breaker` do the
//! same without a daemon.

use serde_json::{Value, json};

use crate::entity::EntityType;
use crate::server::details::DeadLetter;
use crate::server::{DeadLetterSelection, Refusal, RefusalKind};
use crate::state::{Dead, DeadKind, OpenBreaker, SiteTime, State, StateError};

/// Returns dead letters, oldest first, up to `limit`; and how many there are.
pub(super) async fn list(state: &State, kind: Option<DeadKind>, limit: usize) -> Result<Value, StateError> {
    let mut letters = all(state).await?;
    letters.retain(|letter| kind.is_none_or(|kind| letter.kind == kind));
    let total = letters.len();
    let shown: Vec<DeadLetter> = letters.into_iter().take(limit).map(shown).collect();
    Ok(json!({"total": total, "dead_letters": shown}))
}

/// Returns a dead letter as lists show it, without the data that was received.
pub(super) fn shown(letter: Dead) -> DeadLetter {
    DeadLetter {
        serial: letter.serial,
        kind: letter.kind.as_str().to_owned(),
        entity_type: letter.key.entity_type.to_string(),
        id: letter.key.id,
        error: letter.error,
        attempts: letter.attempts,
        first_at: letter.first_at.timestamp().to_chrono(),
    }
}

pub(super) async fn show(state: &State, serial: i64) -> Result<Value, Refusal> {
    let found = all(state).await?.into_iter().find(|letter| letter.serial == serial);
    let letter = found.ok_or_else(|| unknown(serial))?;
    serde_json::to_value(letter).map_err(|error| Refusal::new(RefusalKind::Internal, error.to_string()))
}

pub(super) async fn retry(state: &State, chosen: &DeadLetterSelection) -> Result<Value, Refusal> {
    let (rows, events) = refetch(state, &select(state, chosen).await?).await?;
    let help = "event log entries are not retried: `sgcache job validateData --repair` compares the rows";
    Ok(json!({"refetched": rows, "not_retried": events, "note": (events > 0).then_some(help)}))
}

/// Makes the entities of dead letters dirty, due at once; returns how many, and how many
/// letters are about event log entries, which cannot be read again by their key.
pub(super) async fn refetch(state: &State, letters: &[Dead]) -> Result<(usize, usize), StateError> {
    let rows = state.retry_dead(letters).await?;
    Ok((rows, letters.len() - rows))
}

pub(super) async fn drop(state: &State, chosen: &DeadLetterSelection) -> Result<Value, Refusal> {
    let letters = select(state, chosen).await?;
    for letter in &letters {
        state.drop_dead(letter.serial).await?;
    }
    Ok(json!({"dropped": letters.len()}))
}

/// Returns every dead letter, oldest first.
pub(super) async fn all(state: &State) -> Result<Vec<Dead>, StateError> {
    state.dead(usize::MAX >> 1).await
}

async fn select(state: &State, chosen: &DeadLetterSelection) -> Result<Vec<Dead>, Refusal> {
    let letters = all(state).await?;
    if let DeadLetterSelection::Serials(chosen) = chosen
        && let Some(serial) = chosen.serials.iter().find(|serial| !letters.iter().any(|one| one.serial == **serial))
    {
        return Err(unknown(*serial));
    }
    let wanted = |letter: &Dead| match chosen {
        DeadLetterSelection::Serials(chosen) => chosen.serials.contains(&letter.serial),
        DeadLetterSelection::Kind(chosen) => chosen.kind == letter.kind,
        DeadLetterSelection::All(chosen) => chosen.all,
    };
    Ok(letters.into_iter().filter(wanted).collect())
}

fn unknown(serial: i64) -> Refusal {
    let message = format!("there is no dead letter {serial}: `sgcache deadLetters list` shows the numbers");
    Refusal::new(RefusalKind::UnknownDeadLetter, message)
}

/// Returns the types whose deletions are stopped, with all ids.
pub(super) async fn breakers(state: &State) -> Result<Value, StateError> {
    let open: Vec<Value> = state.open_breakers().await?.iter().map(breaker).collect();
    Ok(json!({"breakers": open}))
}

/// Returns an open circuit breaker of deletions as a document.
pub(super) fn breaker(open: &OpenBreaker) -> Value {
    json!({
        "entity_type": open.entity_type.as_str(),
        "since": open.since.timestamp().to_string(),
        "held": open.held,
        "suspected": open.suspected,
        "active": open.active,
    })
}

/// Confirms the stopped deletions of a type, or has its entities read again.
pub(super) async fn close_breaker(state: &State, name: &str, confirmed: bool) -> Result<Value, Refusal> {
    let now = due_now(state, &[name.to_owned()]).await?;
    let entity_type = EntityType::new(name);
    let entities = match confirmed {
        true => state.confirm_deletions(&entity_type, now).await?,
        false => state.reset_breaker(&entity_type, now).await?,
    };
    Ok(json!({"entity_type": name, "entities": entities}))
}

/// Checks that deletions of these types are stopped; returns the moment of the last
/// complete poll, which is past for the daemon: what is due then is due now.
pub(super) async fn due_now(state: &State, types: &[String]) -> Result<SiteTime, Refusal> {
    let open = state.open_breakers().await?;
    if let Some(other) = types.iter().find(|name| !open.iter().any(|one| one.entity_type == ***name)) {
        let names: Vec<_> = open.iter().map(|one| one.entity_type.as_str()).collect();
        let open = if names.is_empty() { "no type".to_owned() } else { names.join(", ") };
        let message = format!("no deletion of `{other}` waits: the circuit breaker is open for {open}");
        return Err(Refusal::new(RefusalKind::BreakerClosed, message));
    }
    Ok(state.stream().await?.complete_as_of.unwrap_or_default())
}
