//! The sandbox child alone, for this crate's tests: `kiln` becomes it in its own `main`.
//! With `--probe` it tries the sandbox itself, so that a test can do so as another user.

use kiln_sandbox::{FeatureState, Launcher};

fn main() -> std::process::ExitCode {
    kiln_sandbox::enter_if_asked();
    if std::env::args().nth(1).as_deref() != Some("--probe") {
        return std::process::ExitCode::from(2);
    }
    println!("user: {}", nix::unistd::geteuid());
    for feature in kiln_sandbox::features(&Launcher::current()) {
        match feature.state {
            FeatureState::Works => println!("{}: works", feature.name),
            FeatureState::Missing { why, remedy } => {
                println!("{}: missing: {why} ({remedy})", feature.name);
            }
        }
    }
    std::process::ExitCode::SUCCESS
}
