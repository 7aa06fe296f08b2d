//! `sgcache sim`: a simulated site as a process of its own.

use super::Failure;
use crate::sim::command;

pub use crate::sim::command::Args;

pub async fn run(args: Args) -> Result<u8, Failure> {
    let ended = command::run(args, command::interrupted()).await;
    ended.map(|()| 0).map_err(|error| Failure::new(error.exit_code(), error.to_string()))
}
