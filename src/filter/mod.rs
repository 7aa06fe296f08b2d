//! The filter tree, its syntaxes, and queries.
