//! `kiln completions`.

use clap::CommandFactory as _;

use crate::cli::arguments::Arguments;
use crate::cli::report::{Answer, Failure};

pub(in crate::cli) fn run(shell: clap_complete::Shell) -> Result<Answer, Failure> {
    clap_complete::generate(
        shell,
        &mut Arguments::command(),
        "kiln",
        &mut std::io::stdout(),
    );
    Ok(Answer::Yes)
}
