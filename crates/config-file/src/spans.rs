//! Where each value of a file stands in its text.
//!
//! serde-saphyr parses the text a second time, keeping places. It never
//! decides what a file means, and it runs only when there is something to
//! report; where it disagrees with the first parser there is simply no place.

use std::collections::HashMap;
use std::fmt;
use std::ops::Range;

use serde::de::{Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_saphyr::Spanned;

/// Appends a key or an index to a JSON pointer.
pub fn join(pointer: &str, key: &str) -> String {
    let escaped = key.replace('~', "~0").replace('/', "~1");
    format!("{pointer}/{escaped}")
}

/// The byte ranges of every key and value, by JSON pointer.
#[derive(Debug, Default)]
pub(super) struct SpanIndex {
    values: HashMap<String, Range<usize>>,
    keys: HashMap<String, Range<usize>>,
}

impl SpanIndex {
    /// Reads the places of `text`; empty when the second parser refuses it.
    pub fn of(text: &str) -> SpanIndex {
        let mut index = SpanIndex::default();
        if let Ok(root) = serde_saphyr::from_str::<Spanned<Node>>(text) {
            index.add(String::new(), root);
        }
        index
    }

    /// Returns the bytes of the value at a JSON pointer.
    pub fn value(&self, pointer: &str) -> Option<Range<usize>> {
        self.values.get(pointer).cloned()
    }

    /// Returns the bytes of the key that leads to a JSON pointer.
    pub fn key(&self, pointer: &str) -> Option<Range<usize>> {
        self.keys.get(pointer).cloned()
    }

    fn add(&mut self, pointer: String, node: Spanned<Node>) {
        if let Some(range) = bytes_of(&node) {
            self.values.insert(pointer.clone(), range);
        }
        match node.value {
            Node::Scalar => {}
            Node::List(items) => {
                for (at, item) in items.into_iter().enumerate() {
                    self.add(format!("{pointer}/{at}"), item);
                }
            }
            Node::Map(entries) => {
                for (key, value) in entries {
                    let child = join(&pointer, &key.value);
                    if let Some(range) = bytes_of(&key) {
                        self.keys.insert(child.clone(), range);
                    }
                    self.add(child, value);
                }
            }
        }
    }
}

fn bytes_of<T>(spanned: &Spanned<T>) -> Option<Range<usize>> {
    let span = spanned.referenced.span();
    let start = usize::try_from(span.byte_offset()?).ok()?;
    let length = usize::try_from(span.byte_len()?).ok()?;
    Some(start..start + length)
}

/// A value of which only the places matter.
enum Node {
    Scalar,
    List(Vec<Spanned<Node>>),
    Map(Vec<(Spanned<String>, Spanned<Node>)>),
}

impl<'de> Deserialize<'de> for Node {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Node, D::Error> {
        deserializer.deserialize_any(NodeVisitor)
    }
}

struct NodeVisitor;

impl<'de> Visitor<'de> for NodeVisitor {
    type Value = Node;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("any value")
    }

    fn visit_bool<E>(self, _: bool) -> Result<Node, E> {
        Ok(Node::Scalar)
    }

    fn visit_i64<E>(self, _: i64) -> Result<Node, E> {
        Ok(Node::Scalar)
    }

    fn visit_u64<E>(self, _: u64) -> Result<Node, E> {
        Ok(Node::Scalar)
    }

    fn visit_f64<E>(self, _: f64) -> Result<Node, E> {
        Ok(Node::Scalar)
    }

    fn visit_str<E>(self, _: &str) -> Result<Node, E> {
        Ok(Node::Scalar)
    }

    fn visit_unit<E>(self) -> Result<Node, E> {
        Ok(Node::Scalar)
    }

    fn visit_none<E>(self) -> Result<Node, E> {
        Ok(Node::Scalar)
    }

    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<Node, D::Error> {
        Node::deserialize(deserializer)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut access: A) -> Result<Node, A::Error> {
        let mut items = Vec::new();
        while let Some(item) = access.next_element()? {
            items.push(item);
        }
        Ok(Node::List(items))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut access: A) -> Result<Node, A::Error> {
        let mut entries = Vec::new();
        while let Some(entry) = access.next_entry()? {
            entries.push(entry);
        }
        Ok(Node::Map(entries))
    }
}
