//! `sgcache man`: the manual, made of what the command line knows about itself.

use std::path::{Path, PathBuf};

use super::failure::Failure;

/// What `sgcache man` takes.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Write one page per command into this directory [default: print the page of sgcache]
    #[arg(value_name = "DIR")]
    directory: Option<PathBuf>,
}

/// Prints the page of the program, or writes all pages.
///
/// # Errors
///
/// When the directory cannot be written.
pub fn run(args: &Args, command: clap::Command) -> Result<u8, Failure> {
    let Some(directory) = &args.directory else {
        let mut page = Vec::new();
        let rendered = clap_mangen::Man::new(command.disable_help_subcommand(true)).render(&mut page);
        rendered.map_err(|error| Failure::internal(format!("the page cannot be made: {error}")))?;
        print!("{}", String::from_utf8_lossy(&page));
        return Ok(0);
    };
    let failed = |path: &Path, error: &std::io::Error| Failure::usage(format!("{}: {error}", path.display()));
    std::fs::create_dir_all(directory).map_err(|error| failed(directory, &error))?;
    clap_mangen::generate_to(command, directory).map_err(|error| failed(directory, &error))?;
    eprintln!("the pages are in {}: man -l {}", directory.display(), directory.join("sgcache.1").display());
    Ok(0)
}
