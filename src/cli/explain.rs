//! `sgcache explain`: what the proxy would do with a request, and why.

use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde_json::Value;

use super::Failure;
use super::context::{Offline, load_config};
use super::engine::Engine;
use super::output::Output;
use crate::proxy::{self, Asked, Catalogue, Decision, Pass, PendingWrites, Scope, explain};
use crate::state::{SiteTime, State};

#[derive(Debug, clap::Args)]
pub struct Args {
    /// The body of a request to /api3/json; `-` is stdin
    #[arg(long, value_name = "FILE|-")]
    request: PathBuf,
    /// Output format
    #[arg(short, long, value_enum, default_value_t)]
    output: Output,
}

pub async fn run(args: Args, chosen: Option<&Path>) -> Result<u8, Failure> {
    let body = read(&args.request)?;
    let settings = load_config(chosen)?;
    let offline = Offline::open(chosen).await?;
    let state = State::open(&settings.data_dir).await?;
    let catalogue = Catalogue {
        stored: Arc::new(proxy::catalogue::stored(&offline.layouts)),
        standing: Arc::new(state.replication_status().await?),
        now: SiteTime::from(offline.now),
        schema: Arc::new(offline.schema),
        schema_is_current: true,
        pending_writes: PendingWrites::default(),
        settings: Arc::new(settings.api),
        max_page: proxy::max_page(&state).await,
        site_is_down: false,
    };
    let (asked, decision) = decide(&body, &catalogue);
    match args.output {
        Output::Table => println!("{}", explain::words(asked.as_ref().ok(), &decision)),
        Output::Json | Output::Ndjson => println!("{}", explain::document(&decision)),
    }
    Ok(0)
}

/// Decides a request as for a caller that may see everything.
fn decide(body: &[u8], catalogue: &Catalogue) -> (Result<Asked, Pass>, Decision) {
    let asked = Asked::parse(body);
    let decision = match &asked {
        Ok(asked) => proxy::decide(asked, &Scope::Full, catalogue),
        Err(pass) => Decision::Pass(pass.clone()),
    };
    (asked, decision)
}

/// Explains a request in a daemon, by what it knows now. Writes that are not visible yet
/// are left out: which request they hold back changes with every one of them.
///
/// # Errors
///
/// When the state cannot be read.
pub(super) async fn document(engine: &Engine, body: &[u8]) -> Result<Value, Failure> {
    let (online, state) = (&engine.online, &engine.online.state);
    let kept = state.kept_schema(online.client.site()).await?;
    let catalogue = Catalogue {
        stored: Arc::new(proxy::catalogue::stored(&engine.replica.configured())),
        standing: Arc::new(state.replication_status().await?),
        now: engine.replica.now(),
        schema: Arc::new(kept.unwrap_or_else(|| online.schema.clone())),
        schema_is_current: true,
        pending_writes: PendingWrites::default(),
        settings: Arc::new(online.config.api.clone()),
        max_page: proxy::max_page(state).await,
        site_is_down: engine.following.follower().is_some_and(|follower| follower.poll_status().error.is_some()),
    };
    let (asked, decision) = decide(body, &catalogue);
    let mut document = explain::document(&decision);
    document["words"] = explain::words(asked.as_ref().ok(), &decision).into();
    Ok(document)
}

fn read(path: &Path) -> Result<Vec<u8>, Failure> {
    let mut body = Vec::new();
    let read = match path.to_str() {
        Some("-") => std::io::stdin().read_to_end(&mut body).map(|_| ()),
        _ => std::fs::read(path).map(|read| body = read),
    };
    read.map(|()| body).map_err(|error| Failure::usage(format!("--request {}: {error}", path.display())))
}
