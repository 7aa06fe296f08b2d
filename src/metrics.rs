//! Every metric that sgcache exports.
