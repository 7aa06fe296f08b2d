//! The /api3/json wire form, both ways.
