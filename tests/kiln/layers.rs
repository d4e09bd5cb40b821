//! Data flows one way: a stage imports only stages above it in `lib.rs`, a pure stage only
//! pure ones.

use std::collections::BTreeSet;
use std::path::Path;

/// The stages in order; the flag tells pure ones.
const STAGES: [(&str, bool); 21] = [
    ("hash", true),
    ("listing", true),
    ("tree", false),
    ("derivation", true),
    ("action", true),
    ("fetch", false),
    ("closure", true),
    ("store", false),
    ("gc", false),
    ("plan", true),
    ("build", false),
    ("realise", false),
    ("projection", true),
    ("image", false),
    ("inspect", false),
    ("join", false),
    ("policy", true),
    ("sbom", true),
    ("runtime", true),
    ("proof", false),
    ("cli", false),
];

/// What a pure stage must not call.
const IMPURE: [&str; 6] = [
    "std::fs",
    "std::env",
    "std::net",
    "std::process",
    "SystemTime",
    "rustix::",
];

/// Returns every source file below a directory, with its code that is not for tests.
pub fn sources(directory: &Path) -> Vec<(String, String)> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(sources(&path));
        } else if path.extension().is_some_and(|extension| extension == "rs")
            && path.file_stem().is_some_and(|stem| stem != "tests")
        {
            let text = std::fs::read_to_string(&path).unwrap();
            // Tests beside the code may use whatever shows that it works.
            let code = text.split("#[cfg(test)]").next().unwrap().to_owned();
            found.push((path.display().to_string(), code));
        }
    }
    found
}

fn imports(code: &str) -> BTreeSet<&str> {
    code.match_indices("crate::")
        .map(|(at, _)| {
            let rest = &code[at + "crate::".len()..];
            rest.split(|c: char| !c.is_ascii_alphanumeric() && c != '_')
                .next()
                .unwrap()
        })
        .collect()
}

#[test]
fn stages_import_only_what_stands_above_them() {
    let top = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    for (index, (stage, pure)) in STAGES.iter().enumerate() {
        for (path, code) in sources(&top.join(stage)) {
            for import in imports(&code) {
                let Some(at) = STAGES.iter().position(|(name, _)| *name == import) else {
                    panic!("{path} imports `{import}`, which is no stage");
                };
                assert!(
                    at <= index,
                    "{path} imports `{import}`, which stands below it"
                );
                assert!(
                    !pure || STAGES[at].1,
                    "{path} is pure and imports `{import}`, which is not"
                );
            }
            for word in IMPURE {
                assert!(
                    !pure || !code.contains(word),
                    "{path} is pure and uses `{word}`"
                );
            }
        }
    }
}

#[test]
fn the_list_of_stages_is_the_library_s() {
    let library =
        std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("src/lib.rs")).unwrap();
    let declared: Vec<&str> = library
        .lines()
        .filter_map(|line| line.strip_prefix("pub mod ")?.strip_suffix(';'))
        .collect();
    assert_eq!(declared, STAGES.map(|(name, _)| name));
}

#[test]
fn only_the_build_stage_runs_the_sandbox_and_only_the_store_speaks_sql() {
    let top = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    for (stage, _) in STAGES {
        for (path, code) in sources(&top.join(stage)) {
            if stage != "store" {
                assert!(!code.contains("rusqlite"), "{path} speaks SQL");
            }
            if stage != "build" && stage != "cli" {
                assert!(!code.contains(".launcher.run("), "{path} runs the sandbox");
            }
            // Bytes that never leave this machine; the sandbox has the other ones.
            if !path.ends_with("cli/memory.rs") {
                assert!(!code.contains("bincode::"), "{path} uses bincode");
            }
        }
    }
}
