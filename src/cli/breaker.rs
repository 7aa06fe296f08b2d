//! `sgcache breaker`: deletions that wait because too many entities vanished at once.

use std::path::Path;

use super::Failure;
use super::context::load_config;
use super::output::{self, Output};
use super::repairs;
use crate::entity::EntityType;
use crate::server::RefusalKind;
use crate::state::{OpenBreaker, SiteTime, State};

/// As many ids are printed in a table; JSON has all of them.
const SHOWN_IDS: usize = 8;

#[derive(Debug, clap::Subcommand)]
pub enum Command {
    /// Show the entity types with stopped deletions, and the entities
    Show(ShowArgs),
    /// Apply the stopped deletions: the entities no longer exist on the site
    Confirm(TypeArgs),
    /// Read the disappeared entities again and decide again
    Reset(TypeArgs),
}

#[derive(Debug, clap::Args)]
pub struct ShowArgs {
    /// Output format
    #[arg(short, long, value_enum, default_value_t)]
    output: Output,
}

#[derive(Debug, clap::Args)]
pub struct TypeArgs {
    /// Entity types
    #[arg(required = true)]
    types: Vec<String>,
}

pub async fn run(command: &Command, chosen: Option<&Path>) -> Result<u8, Failure> {
    let state = State::open(&load_config(chosen)?.data_dir).await?;
    match command {
        Command::Show(args) => show(&state.open_breakers().await?, args.output),
        Command::Confirm(args) => {
            let now = check(&state, &args.types).await?;
            for name in &args.types {
                let keys = state.confirm_deletions(&EntityType::new(name.as_str()), now).await?;
                println!("{name}: {keys} entities are deleted from the cache if no list of the site shows them");
            }
            Ok(0)
        }
        Command::Reset(args) => {
            let now = check(&state, &args.types).await?;
            for name in &args.types {
                let keys = state.reset_breaker(&EntityType::new(name.as_str()), now).await?;
                println!("{name}: {keys} entities are read again");
            }
            Ok(0)
        }
    }
}

/// Checks that deletions of these types are stopped; returns when what is due is due now.
async fn check(state: &State, types: &[String]) -> Result<SiteTime, Failure> {
    repairs::due_now(state, types).await.map_err(|refusal| match refusal.kind {
        RefusalKind::BreakerClosed => Failure::usage(refusal.message),
        _ => Failure::internal(refusal.message),
    })
}

fn show(open: &[OpenBreaker], form: Output) -> Result<u8, Failure> {
    if form == Output::Table {
        print(open);
        return Ok(0);
    }
    let documents: Vec<_> = open.iter().map(repairs::breaker).collect();
    match form {
        Output::Ndjson => documents.iter().for_each(|document| println!("{document}")),
        _ => println!("{}", serde_json::Value::from(documents)),
    }
    Ok(0)
}

fn print(open: &[OpenBreaker]) {
    if open.is_empty() {
        eprintln!("no deletion waits");
        return;
    }
    let mut table = output::table(["type", "open since", "held", "suspected", "cached", "ids"]);
    for one in open {
        let ids: Vec<_> = one.held.iter().take(SHOWN_IDS).map(i64::to_string).collect();
        let more = if one.held.len() > SHOWN_IDS { ", …" } else { "" };
        table.add_row([
            one.entity_type.to_string(),
            one.since.timestamp().to_string(),
            output::number(one.held.len() as u64),
            output::number(one.suspected),
            output::number(one.active),
            format!("{}{more}", ids.join(", ")),
        ]);
    }
    println!("{table}");
    eprintln!(
        "check the site and the rights of the script; then `sgcache breaker confirm TYPE` if the entities are gone, or \
         `sgcache breaker reset TYPE` to read them again"
    );
}
