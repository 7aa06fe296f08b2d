//! `sgcache sim`: a simulated site as a process of its own.

use std::net::SocketAddr;
use std::time::Duration;

use super::Failure;
use crate::sim::{Sim, SimSettings};

#[derive(Debug, clap::Args)]
pub struct Args {
    /// Where to listen
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:8190")]
    listen: SocketAddr,
    /// How many entities to generate
    #[arg(long, value_name = "N", default_value_t = 50_000)]
    entities: usize,
    /// The same seed gives the same site
    #[arg(long, value_name = "N", default_value_t = 1)]
    seed: u64,
    /// Edits per second by simulated artists
    #[arg(long, value_name = "RATE_PER_S", default_value_t = 2.0)]
    edits: f64,
    /// How long the site takes to answer, such as 330ms
    #[arg(long, value_name = "DURATION", default_value = "0ms", value_parser = humantime::parse_duration)]
    latency: Duration,
    /// The name of the script that may log in
    #[arg(long, default_value = "sgcache")]
    script: String,
    /// Its key
    #[arg(long, default_value = "sgcache-sim")]
    key: String,
}

pub async fn run(args: Args) -> Result<u8, Failure> {
    let settings = SimSettings {
        listen: args.listen,
        entities: args.entities,
        seed: args.seed,
        edits_per_second: args.edits,
        latency: args.latency,
        script: args.script.clone(),
        key: args.key,
        ..SimSettings::default()
    };
    let sim = Sim::start(settings).await.map_err(|error| Failure::new(Failure::UNAVAILABLE, error.to_string()))?;
    println!("simulated site ready on http://{} ({} entities, script `{}`)", sim.addr(), args.entities, args.script);
    super::daemon::interrupted().await;
    sim.shutdown().await;
    Ok(0)
}
