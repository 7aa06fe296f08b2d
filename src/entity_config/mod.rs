//! Which entity types and fields are cached.
