//! The client of a Shotgun site.
