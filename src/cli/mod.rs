//! The command line: arguments, settings, the only printing.
//!
//! What was typed is parsed in [`arguments`], what it means on this machine is read once
//! in [`settings`]; a [`session::Session`] holds both with the open store. One file a
//! command. Results go to stdout, everything else to stderr.

pub mod arguments;
mod command;
pub mod diagnostic;
mod evaluation;
mod explain;
mod hints;
mod library;
mod memory;
mod opening;
mod progress;
pub mod report;
mod session;
mod settings;
mod terminal;

use std::process::ExitCode;

use clap::Parser as _;

use arguments::{Arguments, Command};
use report::{Answer, Failure, Output};
use session::Session;

/// Runs the command line and returns the process's exit status: 0 done, 1 the answer is
/// no, 2 could not do it.
pub fn run() -> ExitCode {
    let arguments = match Arguments::try_parse() {
        Ok(arguments) => arguments,
        Err(error) => {
            let status = if error.use_stderr() { 2 } else { 0 };
            // A closed pipe is no reason to fail: whoever read has seen enough.
            return match error.print() {
                Ok(()) | Err(_) => ExitCode::from(status),
            };
        }
    };
    let output = Output::new(&arguments);
    start_tracing(&output);
    let result = dispatch(&arguments, &output);
    match result {
        Ok(Answer::Yes) => ExitCode::SUCCESS,
        Ok(Answer::No) => ExitCode::from(1),
        Ok(Answer::Failed) => ExitCode::from(2),
        Err(failure) => {
            output.failure(&failure);
            ExitCode::from(2)
        }
    }
}

fn dispatch(arguments: &Arguments, output: &Output) -> Result<Answer, Failure> {
    match &arguments.command {
        Command::Completions { shell } => return command::completions::run(*shell),
        Command::Doctor => return command::doctor::run(arguments, output),
        Command::Inspect(inspect) => return command::inspect::run(arguments, inspect, output),
        _ => {}
    }
    let session = Session::open(arguments, output)?;
    match &arguments.command {
        Command::Build(build) => command::build::run(&session, build),
        Command::Image(image) => command::image::run(&session, image),
        Command::Index(index) => command::index::run(&session, index),
        Command::Prove(prove) => command::prove::run(&session, prove),
        Command::Log { target, follow } => command::log::run(&session, target, *follow),
        Command::Show(show) => command::show::run(&session, show),
        Command::Closure { target, tree, size } => {
            command::closure::run(&session, target, *tree, *size)
        }
        Command::Why { from, to } => command::why::run(&session, from, to),
        Command::Shell(shell) => command::shell::run(&session, shell),
        Command::Run(run) => command::run::run(&session, run),
        Command::Runtime(runtime) => command::runtime::run(&session, runtime),
        Command::Sbom(sbom) => command::sbom::run(&session, sbom),
        Command::Diff(diff) => command::diff::run(&session, diff),
        Command::Graph(graph) => command::graph::run(&session, graph),
        Command::Store { command } => command::store::run(&session, command),
        Command::Completions { .. } | Command::Doctor | Command::Inspect(_) => Ok(Answer::Yes),
    }
}

fn start_tracing(output: &Output) {
    use tracing_subscriber::EnvFilter;
    let default = if output.verbose {
        "kiln=debug"
    } else {
        "kiln=warn"
    };
    let filter = EnvFilter::try_from_env("KILN_LOG").unwrap_or_else(|_| EnvFilter::new(default));
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(output.color)
        // If nobody listens any more, that is no reason to stop: it would be told to stderr.
        .log_internal_errors(false)
        .without_time()
        .init();
}
