//! The request budget of the site, shared by priority.
