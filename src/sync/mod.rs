//! Following the site: polls, marks, fetches, imports.
