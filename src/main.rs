//! The `kiln` command: becomes the sandbox child if asked, else runs the command line.

fn main() -> std::process::ExitCode {
    // First of all: the child must have one thread and nothing of ours.
    kiln_sandbox::enter_if_asked();
    kiln::cli::run()
}
