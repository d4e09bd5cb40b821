//! Each feature is found where it is, and missed where it is not: inside a sandbox.

#![allow(clippy::unwrap_used, clippy::panic)]

mod common;

use kiln_sandbox::{Access, FeatureState, Need, features};

use common::{bind, launcher, printed, shell};

const NEEDED: [&str; 8] = [
    "user namespace",
    "mount namespace",
    "process namespace",
    "network namespace",
    "IPC namespace",
    "host name namespace",
    "system call filters",
    "sandbox",
];

#[test]
fn what_is_needed_works_here() {
    let found = features(&launcher());
    let working =
        |feature: &kiln_sandbox::Feature| matches!(feature.state, FeatureState::Works { .. });
    let needed: Vec<&str> = found
        .iter()
        .filter(|feature| feature.need == Need::Always)
        .inspect(|feature| assert!(working(feature), "{feature:?}"))
        .map(|feature| feature.name)
        .collect();
    assert_eq!(needed, NEEDED);
    let supervisor = found.iter().find(|feature| feature.name == "supervisor");
    assert!(supervisor.is_some_and(working), "{supervisor:?}");
}

#[test]
fn nothing_that_makes_namespaces_works_in_a_sandbox() {
    let mut request = shell("/probe --probe");
    let program = env!("CARGO_BIN_EXE_kiln-sandbox-child");
    request
        .nodes
        .push(bind("/probe", program, Access::ReadOnly));
    let text = printed(&request);
    for name in NEEDED
        .into_iter()
        .filter(|name| *name != "system call filters")
    {
        let line = text
            .lines()
            .find(|line| line.starts_with(&format!("{name}: ")))
            .unwrap_or_else(|| panic!("{name}: {text}"));
        assert!(line.contains("missing"), "{line}");
        assert!(line.contains(" ("), "no remedy: {line}");
    }
    assert!(
        text.contains("sandbox: missing: cannot enter new namespaces"),
        "{text}"
    );
    assert!(text.contains("supervisor: missing: "), "{text}");
    // Filters can be added to filters, as any build may for its own children.
    assert!(text.contains("system call filters: works"), "{text}");
}
