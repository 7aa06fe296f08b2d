//! The `sgcache` program. All behaviour lives in the library.

fn main() {}
