//! The sandbox's server alone, for this crate's tests: `kiln` becomes it in its own `main`.
//! With `--probe` it tries the sandbox itself, so that a test can do so as another user;
//! with `--hold WORD` it runs a shell that waits, so that a test can kill the parent.

use std::process::ExitCode;

use kiln_sandbox::{Access, Cancel, FeatureState, Launcher, Node, SandboxRequest};

fn main() -> ExitCode {
    kiln_sandbox::enter_if_asked();
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["--probe"] => probe(),
        ["--hold", word] => hold(word),
        _ => ExitCode::from(2),
    }
}

fn probe() -> ExitCode {
    println!("user: {}", nix::unistd::geteuid());
    for feature in kiln_sandbox::features(&Launcher::current()) {
        match feature.state {
            FeatureState::Works { note } => println!("{}: works: {note}", feature.name),
            FeatureState::Missing { why, remedy } => {
                println!("{}: missing: {why} ({remedy})", feature.name);
            }
        }
    }
    ExitCode::SUCCESS
}

/// Runs until it is killed, unless it cannot run.
fn hold(word: &str) -> ExitCode {
    let script = format!(": {word}; while :; do sleep 1; done");
    let mut request = SandboxRequest::new(["/bin/sh", "-c", &script].map(str::to_owned).to_vec());
    for top in ["/usr", "/bin", "/lib", "/lib64"] {
        request.nodes.push(Node::Bind {
            path: top.to_owned(),
            source: std::fs::canonicalize(top).unwrap_or_else(|_| top.into()),
            access: Access::ReadOnly,
        });
    }
    request.limits.together.processes = Some(1000);
    let run = || {
        let cancel = Cancel::new().ok()?;
        Launcher::current().run(&request, &mut |_| {}, &cancel).ok()
    };
    if run().is_some() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}
