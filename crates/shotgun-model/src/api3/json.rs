//! Reads JSON of senders who are not trusted. How large the tree of a text becomes is
//! known before it is built: an object with one member takes a hundred times its text.

use serde::Deserialize;
use serde_json::Value;

/// The deepest nesting that is read. Sites take groups of conditions nested 265 deep,
/// which are two levels each, and a few around them.
pub const MAX_DEPTH: usize = 600;
/// The largest tree that is built, in bytes.
pub const MAX_TREE_BYTES: usize = 128 << 20;

/// What a value, an object and one of its members take, about, in bytes: a place in a
/// list that has grown by doubling; the first node of a map.
const BYTES_PER_VALUE: usize = 64;
const BYTES_PER_OBJECT: usize = 640;
const BYTES_PER_MEMBER: usize = 64;

/// How large the tree of a text is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TreeSize {
    /// Levels of nesting.
    pub depth: usize,
    /// Memory that it takes, about, in bytes.
    pub bytes: usize,
}

/// Why a text is not read.
#[derive(Debug, thiserror::Error)]
pub enum JsonError {
    /// Its nesting is too deep.
    #[error("its nesting is {0} levels deep, more than {MAX_DEPTH}")]
    TooDeep(usize),
    /// Its tree is too large.
    #[error("it has too many parts: reading it takes {} MiB of memory, more than {}", .0 >> 20, MAX_TREE_BYTES >> 20)]
    TooLarge(usize),
    /// It is not JSON.
    #[error(transparent)]
    Syntax(#[from] serde_json::Error),
}

/// Measures the tree of a text without building it; of what is not JSON, an upper
/// bound on what reading it builds.
pub fn measure(text: &[u8]) -> TreeSize {
    let (mut depth, mut deepest) = (0_usize, 0);
    let (mut values, mut objects, mut members) = (1, 0, 0);
    let mut bytes = text.iter();
    while let Some(byte) = bytes.next() {
        match byte {
            b'"' => skip_string(&mut bytes),
            b'{' | b'[' => {
                depth += 1;
                deepest = deepest.max(depth);
                values += 1;
                objects += usize::from(*byte == b'{');
            }
            b'}' | b']' => depth = depth.saturating_sub(1),
            b',' => values += 1,
            b':' => members += 1,
            _ => {}
        }
    }
    let bytes = text.len() + values * BYTES_PER_VALUE + objects * BYTES_PER_OBJECT + members * BYTES_PER_MEMBER;
    TreeSize { depth: deepest, bytes }
}

fn skip_string(bytes: &mut std::slice::Iter<'_, u8>) {
    while let Some(byte) = bytes.next() {
        match byte {
            b'\\' => drop(bytes.next()),
            b'"' => return,
            _ => {}
        }
    }
}

/// Reads a text whose tree is not too large.
///
/// # Errors
///
/// See [`JsonError`].
pub fn parse(text: &[u8]) -> Result<Value, JsonError> {
    let TreeSize { depth, bytes } = measure(text);
    if depth > MAX_DEPTH {
        return Err(JsonError::TooDeep(depth));
    }
    if bytes > MAX_TREE_BYTES {
        return Err(JsonError::TooLarge(bytes));
    }
    let mut reader = serde_json::Deserializer::from_slice(text);
    // The bound is the one above.
    reader.disable_recursion_limit();
    let value = Value::deserialize(&mut reader)?;
    reader.end()?;
    Ok(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn nested(levels: usize) -> String {
        "[".repeat(levels) + &"]".repeat(levels)
    }

    #[test]
    fn as_deep_as_sites_take_is_read_and_deeper_is_not() {
        assert!(parse(nested(MAX_DEPTH).as_bytes()).is_ok());
        assert!(matches!(parse(nested(MAX_DEPTH + 1).as_bytes()), Err(JsonError::TooDeep(601))));
        assert!(matches!(parse("[".repeat(1 << 20).as_bytes()), Err(JsonError::TooDeep(_))));
    }

    #[test]
    fn many_small_objects_are_refused_before_they_are_built() {
        let bomb = format!("[{}0]", "{\"\":0},".repeat(2 << 20));
        assert!(matches!(parse(bomb.as_bytes()), Err(JsonError::TooLarge(bytes)) if bytes > 1 << 30));
        let ids = format!("[{}0]", "1,".repeat(1_000_000));
        assert!(parse(ids.as_bytes()).is_ok(), "a list of a million ids is asked by honest callers");
    }

    #[test]
    fn what_stands_in_strings_is_not_counted() {
        assert_eq!(measure(br#""[{,:\"[[[""#).depth, 0);
        assert_eq!(measure(br#"{"a\\": [1]}"#).depth, 2);
        assert_eq!(measure(b"\"never ends [").depth, 0);
        assert_eq!(measure(b"").bytes, BYTES_PER_VALUE);
    }

    #[test]
    fn the_measure_is_no_less_than_what_a_tree_takes() {
        // An object with one member: a node of a B-tree with room for eleven.
        let node = 11 * (size_of::<String>() + size_of::<Value>()) + 16;
        let TreeSize { bytes, .. } = measure(b"{\"\":0}");
        assert!(bytes >= node + size_of::<Value>(), "{bytes} < {node}");
    }
}
