//! Run reports and where they go.
