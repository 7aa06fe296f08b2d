//! Bounded retries with backoff.
