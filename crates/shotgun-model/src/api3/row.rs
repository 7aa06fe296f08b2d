//! A row of an answer, as a tree or as the text that came.

use serde::Deserialize;
use serde_json::value::RawValue;
use serde_json::{Map, Value};

use super::ReadAnswer;

/// What a reader may take a row as.
pub trait AnswerRow: Sized + Send + 'static {
    /// Takes a parsed row.
    fn from_map(row: Map<String, Value>) -> Self;

    /// Returns the id.
    fn id(&self) -> Option<i64>;

    /// Takes the rows of the whole body of an answer, where that needs no tree;
    /// `None` for everything that is not an answer with rows.
    fn from_body(body: &[u8]) -> Option<ReadAnswer<Self>>;
}

impl AnswerRow for Map<String, Value> {
    fn from_map(row: Map<String, Value>) -> Self {
        row
    }

    fn id(&self) -> Option<i64> {
        self.get("id").and_then(Value::as_i64)
    }

    fn from_body(_: &[u8]) -> Option<ReadAnswer<Self>> {
        None
    }
}

/// A row as the JSON text that the site wrote: a third of the time and a tenth of
/// the memory of a tree.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RowText {
    /// The id.
    pub id: i64,
    /// The whole object.
    pub text: Box<str>,
}

#[derive(Deserialize)]
struct Body<'a> {
    exception: Option<bool>,
    #[serde(borrow)]
    results: Results<'a>,
}

#[derive(Deserialize)]
struct Results<'a> {
    #[serde(borrow)]
    entities: Vec<&'a RawValue>,
    paging_info: Option<Value>,
}

#[derive(Deserialize)]
struct Key {
    id: i64,
}

impl AnswerRow for RowText {
    fn from_map(row: Map<String, Value>) -> Self {
        let id = AnswerRow::id(&row).unwrap_or_default();
        Self { id, text: Value::Object(row).to_string().into() }
    }

    fn id(&self) -> Option<i64> {
        Some(self.id)
    }

    fn from_body(body: &[u8]) -> Option<ReadAnswer<Self>> {
        let body: Body<'_> = serde_json::from_slice(body).ok()?;
        if body.exception == Some(true) {
            return None;
        }
        let row = |raw: &RawValue| {
            let key: Key = serde_json::from_str(raw.get()).ok()?;
            Some(Self { id: key.id, text: raw.get().into() })
        };
        let entities = body.results.entities.into_iter().map(row).collect::<Option<_>>()?;
        Some(ReadAnswer { entities, paging_info: body.results.paging_info })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_whole_answers_are_taken_as_texts() {
        let body =
            br#"{"results":{"entities":[{"type":"Shot","id":7,"code":"a"}],"paging_info":{"has_next_page":true}}}"#;
        let answer = RowText::from_body(body).expect("an answer");
        assert_eq!(answer.has_next_page(), Some(true));
        assert_eq!(answer.entities, [RowText { id: 7, text: r#"{"type":"Shot","id":7,"code":"a"}"#.into() }]);
        for other in [
            &br#"{"exception":true,"message":"no","results":{"entities":[]}}"#[..],
            br#"{"results":{"entities":[{"type":"Shot"}]}}"#,
            br#"{"results":{"entities":[{"type":"Shot","id":7}]"#,
            b"<html>",
        ] {
            assert_eq!(RowText::from_body(other), None);
        }
    }
}
