//! What the daemon says to systemd: that it is ready, that it lives, that it stops.
//!
//! Without `NOTIFY_SOCKET` in the environment, outside of systemd, nothing is said. The sign
//! of life follows each beat of the scheduler: a scheduler that hangs has the watchdog of
//! systemd start the service again (docs/systemd/sgcache.service).

use sd_notify::NotifyState;

/// The daemon serves.
pub(super) fn ready(site: &str) {
    say(&[NotifyState::Ready, NotifyState::Status(&format!("following {site}"))]);
}

/// A beat of the scheduler was handled.
pub(super) fn alive() {
    say(&[NotifyState::Watchdog]);
}

/// The daemon ends what runs.
pub(super) fn stopping() {
    say(&[NotifyState::Stopping, NotifyState::Status("stopping")]);
}

fn say(states: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(states) {
        tracing::debug!(%error, "the service manager could not be notified");
    }
}
