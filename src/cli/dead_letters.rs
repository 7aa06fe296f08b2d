//! `sgcache deadLetters`: what could not be applied, and what becomes of it.
//!
//! Works on the state file, with or without a running daemon. A retried row is made
//! dirty again: the daemon refetches it, and the dead letter goes away when that
//! works. An event log entry cannot be read again by its key; the data that it may
//! have announced is compared by `sgcache job validateData`.

use std::path::Path;

use super::Failure;
use super::context::load_config;
use super::output::{self, Output};
use super::repairs;
use crate::config::Config;
use crate::state::{Dead, DeadKind, State};

#[derive(Debug, clap::Subcommand)]
pub enum Command {
    /// List dead letters, oldest first
    List(List),
    /// Show a dead letter with the data that was received
    Show(Show),
    /// Refetch the entities of dead letters now
    Retry(Chosen),
    /// Forget dead letters: the rows stay as they were last read
    Drop(Chosen),
}

#[derive(Debug, clap::Args)]
pub struct List {
    /// Only this kind
    #[arg(long, value_enum)]
    kind: Option<Kind>,
    /// List up to this many
    #[arg(long, default_value_t = 100)]
    limit: usize,
    /// Output format
    #[arg(short, long, value_enum, default_value_t)]
    output: Output,
}

#[derive(Debug, clap::Args)]
pub struct Show {
    /// The number that `list` shows
    serial: i64,
}

#[derive(Debug, clap::Args)]
#[group(required = true, multiple = false)]
pub struct Chosen {
    /// The numbers that `list` shows
    serials: Vec<i64>,
    /// Every dead letter of this kind
    #[arg(long, value_enum)]
    kind: Option<Kind>,
    /// Every dead letter
    #[arg(long)]
    all: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Kind {
    /// Event log entries that name no entity
    Event,
    /// Rows that are not as the schema says
    Row,
    /// Entities whose reads fail
    Read,
    /// Rows that the store refuses
    Write,
    /// Stored rows that are not as they were written
    Stored,
}

impl Kind {
    fn is(self, kind: DeadKind) -> bool {
        match self {
            Self::Event => kind == DeadKind::Event,
            Self::Row => kind == DeadKind::Row,
            Self::Read => kind == DeadKind::Read,
            Self::Write => kind == DeadKind::Write,
            Self::Stored => kind == DeadKind::Stored,
        }
    }
}

pub async fn run(command: Command, chosen: Option<&Path>) -> Result<u8, Failure> {
    let state = open(&load_config(chosen)?).await?;
    match command {
        Command::List(args) => list(&state, &args).await,
        Command::Show(args) => show(&state, &args).await,
        Command::Retry(args) => retry(&state, &args).await,
        Command::Drop(args) => drop(&state, &args).await,
    }
}

/// Opens the state of a data directory that exists; a list must not create one.
async fn open(config: &Config) -> Result<State, Failure> {
    if !config.data_dir.join("state.sqlite").exists() {
        let dir = config.data_dir.display();
        return Err(Failure::config(format!("there is no cache in {dir}: start `sgcache pipelines run` first")));
    }
    Ok(State::open(&config.data_dir).await?)
}

async fn list(state: &State, args: &List) -> Result<u8, Failure> {
    let mut letters = repairs::all(state).await?;
    letters.retain(|letter| args.kind.is_none_or(|kind| kind.is(letter.kind)));
    let total = letters.len();
    letters.truncate(args.limit);
    match args.output {
        Output::Table => print(&letters, total),
        Output::Json => println!("{}", json(&letters)?),
        Output::Ndjson => {
            for letter in &letters {
                println!("{}", json(letter)?);
            }
        }
    }
    Ok(0)
}

fn print(letters: &[Dead], total: usize) {
    if letters.is_empty() {
        eprintln!("no dead letters");
        return;
    }
    let mut table = output::table(["number", "kind", "entity", "attempts", "first", "last", "error"]);
    for letter in letters {
        table.add_row([
            letter.serial.to_string(),
            letter.kind.as_str().to_owned(),
            letter.key.to_string(),
            letter.attempts.to_string(),
            letter.first_at.timestamp().to_string(),
            letter.last_at.timestamp().to_string(),
            output::short(&letter.error, 120),
        ]);
    }
    println!("{table}");
    if total > letters.len() {
        eprintln!("{} of {total}; --limit shows more", letters.len());
    }
    eprintln!("`show NUMBER` shows what was received, `retry NUMBER` refetches the entity");
}

async fn show(state: &State, args: &Show) -> Result<u8, Failure> {
    let letter = repairs::all(state).await?.into_iter().find(|letter| letter.serial == args.serial);
    let letter = letter.ok_or_else(|| unknown(args.serial))?;
    println!("{}", json(&letter)?);
    Ok(0)
}

async fn retry(state: &State, args: &Chosen) -> Result<u8, Failure> {
    let letters = select(state, args).await?;
    let (rows, events) = repairs::refetch(state, &letters).await?;
    eprintln!("{rows} entities will be refetched");
    if events > 0 {
        eprintln!("{events} event log entries are not retried: `sgcache job validateData --repair` compares the rows");
    }
    Ok(if rows == 0 { 12 } else { 0 })
}

async fn drop(state: &State, args: &Chosen) -> Result<u8, Failure> {
    let letters = select(state, args).await?;
    for letter in &letters {
        state.drop_dead(letter.serial).await?;
    }
    eprintln!("{} dead letters dropped", letters.len());
    Ok(if letters.is_empty() { 12 } else { 0 })
}

/// Returns the dead letters that the command line names.
async fn select(state: &State, args: &Chosen) -> Result<Vec<Dead>, Failure> {
    let letters = repairs::all(state).await?;
    if let Some(serial) = args.serials.iter().find(|serial| !letters.iter().any(|letter| letter.serial == **serial)) {
        return Err(unknown(*serial));
    }
    let wanted = |letter: &Dead| match args.kind {
        Some(kind) => kind.is(letter.kind),
        None => args.all || args.serials.contains(&letter.serial),
    };
    Ok(letters.into_iter().filter(wanted).collect())
}

fn unknown(serial: i64) -> Failure {
    Failure::usage(format!("there is no dead letter {serial}: `sgcache deadLetters list` shows the numbers"))
}

fn json(value: &impl serde::Serialize) -> Result<String, Failure> {
    serde_json::to_string(value).map_err(|error| Failure::internal(error.to_string()))
}
