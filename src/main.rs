//! The `sgcache` program. All behaviour lives in the library.

fn main() -> std::process::ExitCode {
    sgcache::cli::main()
}
