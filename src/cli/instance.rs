//! The name of this process: host and process id.

/// Names host and process in reports.
pub fn instance() -> String {
    format!("{}:{}", host(), std::process::id())
}

/// Names this host.
pub fn host() -> String {
    let host = std::env::var("HOSTNAME").ok().or_else(|| std::fs::read_to_string("/etc/hostname").ok());
    let host = host.map(|name| name.trim().to_owned()).filter(|name| !name.is_empty());
    host.unwrap_or_else(|| "localhost".to_owned())
}
