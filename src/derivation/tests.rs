use std::sync::Arc;

use super::*;

fn file(text: &str) -> Arc<SourceFile> {
    Arc::new(SourceFile {
        package: "tools/dash".parse().unwrap(),
        shown: "derivations/tools/dash.toml".to_owned(),
        text: text.to_owned(),
    })
}

const DASH: &str = r#"
name = "dash"
version = "0.5.12"
summary = "POSIX shell"
license = "BSD-3-Clause"

[source]
urls = ["https://upstream.example/${name}-${version}.tar.gz"]
sha256 = "6a474ac46e8b0b32916c4c60df694c82058d3297d8b385b74508030ca4a8f28a"

[build]
recipe = "autotools"
configure-flags = ["--enable-static", "--with=${version}"]
inputs = ["libs/zlib"]

[build.limits]
time = "10m"
memory = "3GiB"

[outputs.out]
linkage = "static"

[test]
script = "true"
"#;

/// Returns the messages and hints of a file that differs from a good one.
fn problems(from: &str, to: &str) -> Vec<String> {
    assert!(DASH.contains(from), "{from}");
    let parsed = parse(&file(&DASH.replacen(from, to, 1)));
    parsed
        .expect_err("the file is bad")
        .into_iter()
        .map(|problem| {
            let (line, column) = problem.position();
            let hint = problem
                .hint
                .map(|hint| format!(" / {hint}"))
                .unwrap_or_default();
            format!("{line}:{column} {}{hint}", problem.message)
        })
        .collect()
}

#[test]
fn a_range_of_ids_is_asked_for_by_whom_it_is_for() {
    let ids = |from: &str, to: &str| {
        let definition = parse(&file(&DASH.replacen(from, to, 1))).unwrap();
        let Kind::Package(build) = definition.kind else {
            panic!("no package");
        };
        (build.ids, build.test.unwrap().ids)
    };
    assert_eq!(ids("", ""), (Ids::One, Ids::One));
    assert_eq!(
        ids("[build]\n", "[build]\nids = \"range\"\n"),
        (Ids::Range, Ids::One)
    );
    assert_eq!(
        ids("[test]\n", "[test]\nids = \"range\"\n"),
        (Ids::One, Ids::Range)
    );
    let recipe =
        "name = \"r\"\nsummary = \"r\"\n[recipe]\nroot = [\"seed/base\"]\nids = \"range\"\n";
    let Kind::Recipe(recipe) = parse(&file(recipe)).unwrap().kind else {
        panic!("no recipe");
    };
    assert_eq!(recipe.ids, Ids::Range);
    for bad in ["\"one\"", "\"\"", "true", "65536"] {
        let to = format!("[build]\nids = {bad}\n");
        assert_eq!(problems("[build]\n", &to).len(), 1, "{bad}");
    }
}

#[test]
fn a_package_is_read() {
    let definition = parse(&file(DASH)).unwrap();
    assert_eq!(
        definition.object_name("out").unwrap().as_str(),
        "dash-0.5.12"
    );
    assert_eq!(
        definition.object_name("dev").unwrap().as_str(),
        "dash-0.5.12-dev"
    );
    let Kind::Package(build) = definition.kind else {
        panic!("not a package")
    };
    assert_eq!(build.recipe.value.as_str(), "recipes/autotools");
    assert_eq!(
        build.flags["configure_flags"],
        ["--enable-static", "--with=0.5.12"]
    );
    assert_eq!(build.limits.time.as_secs(), 600);
    assert_eq!(build.limits.memory_bytes, Some(3 << 30));
    let Source::Remote { urls, unpack, .. } = &build.sources[&"source".parse().unwrap()] else {
        panic!("not remote")
    };
    assert_eq!(urls[0].value, "https://upstream.example/dash-0.5.12.tar.gz");
    assert!(unpack);
}

#[test]
fn problems_name_their_place_and_the_next_step() {
    insta::assert_debug_snapshot!([
        problems("configure-flags", "configure-flag"),
        problems("version = \"0.5.12\"", "version = 5"),
        problems("summary = \"POSIX shell\"\n", ""),
        problems("sha256 = \"6a", "sha256 = \"zz"),
        problems("${name}", "${nmae}"),
        problems("\"10m\"", "\"10 fortnights\""),
        problems("\"static\"", "\"dynamic\""),
        problems("[\"libs/zlib\"]", "[\"libs/zlib\", \"other/zlib\"]"),
        problems("[\"libs/zlib\"]", "[\"libs/out\"]"),
        problems("https://upstream", "ftp://upstream"),
        problems("[build]", "[build"),
        problems("[build]", "[image]\npolicy = \"p\"\n[build]"),
        problems("script = \"true\"", "script = 3\nscirpt = \"\""),
    ]);
}

#[test]
fn a_file_must_define_one_thing() {
    let problems = parse(&file("name = \"x\"\nsummary = \"y\"\n")).unwrap_err();
    assert_eq!(problems[0].message, "the file does not say what it defines");
    assert!(parse(&file("")).is_err());
}

#[test]
fn a_huge_file_is_refused() {
    let text = format!("{DASH}# {}", "x".repeat(MAX_FILE));
    assert_eq!(parse(&file(&text)).unwrap_err().len(), 1);
}

#[test]
fn a_recipe_fills_what_a_package_leaves_open() {
    let recipe = parse(&file(
        "name = \"autotools\"\nsummary = \"x\"\n[recipe]\nroot = [\"seed/base\"]\n\
         environment = { A = \"1\", B = \"2\" }\n[recipe.phases]\nsetup = \"export S=1\"\n\
         configure = \"./configure\"\ninstall = \"make install\"\n",
    ))
    .unwrap();
    let package = parse(&file(&DASH.replace(
        "[build.limits]",
        "environment = { B = \"3\" }\n[build.phases]\nconfigure = \"./own\"\n[build.limits]",
    )))
    .unwrap();
    let (Kind::Recipe(recipe), Kind::Package(package)) = (recipe.kind, package.kind) else {
        panic!("kinds")
    };
    let (phases, environment) = apply(&package, &recipe);
    assert_eq!(environment["A"], "1");
    assert_eq!(environment["B"], "3");
    insta::assert_snapshot!(build_script(&package, &recipe, &phases));
}

mod hostile {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn no_text_panics(text in "\\PC{0,200}") {
            drop(parse(&file(&text)));
            drop(parse_lock(&file(&text)));
        }

        #[test]
        fn no_cut_or_changed_file_panics(at in 0_usize..600, with in "[\\[\\]\"=${}a\n]{0,4}") {
            let at = (0..=at.min(DASH.len())).rev().find(|at| DASH.is_char_boundary(*at)).unwrap();
            drop(parse(&file(&format!("{}{with}{}", &DASH[..at], &DASH[at..]))));
            drop(parse(&file(&format!("{}{with}", &DASH[..at]))));
        }
    }
}

fn policy(text: &str) -> Result<Policy, Vec<String>> {
    let text = format!("name = \"p\"\nsummary = \"x\"\n{text}");
    match parse(&file(&text)) {
        Ok(definition) => match definition.kind {
            Kind::Policy(policy) => Ok(policy),
            other => panic!("it is no policy: {other:?}"),
        },
        Err(problems) => Err(problems
            .into_iter()
            .map(|problem| problem.message)
            .collect()),
    }
}

#[test]
fn policies_name_rules_in_short_or_with_parameters() {
    let short = policy("[policy]\nrules = [\"no-shell\", \"static\"]").unwrap();
    assert_eq!(
        short.demands,
        [Demand::plain(Rule::NoShell), Demand::plain(Rule::Static)]
    );
    let long = policy(
        "[policy]\nextends = \"hardened\"\n\
         [[policy.rules]]\nid = \"no-shell\"\nallow = [\"/bin/dash\", \"/opt/\"]\nseverity = \"low\"\n\
         [[policy.rules]]\nid = \"maximum-size\"\nat-most = 0x10\n\
         [[policy.exceptions]]\nrule = \"non-root-user\"\nreason = \"y\"\n",
    )
    .unwrap();
    let extends = long.extends.unwrap();
    assert_eq!(
        resolve_policy(&extends, &"mine".parse().unwrap()).as_str(),
        "std:policies/hardened"
    );
    let [shell, size] = long.demands.as_slice() else {
        panic!("two rules: {:?}", long.demands)
    };
    assert_eq!(shell.severity, Severity::Low);
    let allows = |path: &str| {
        let path = path.parse().unwrap();
        shell
            .parameters
            .allow
            .iter()
            .any(|pattern| pattern.holds(&path))
    };
    assert!(allows("bin/dash") && allows("opt/a/b"));
    assert!(!allows("opt") && !allows("optional") && !allows("bin/dash2"));
    assert_eq!(size.parameters.at_most, Some(16));
    assert_eq!(long.exceptions[0].path, None);
}

#[test]
fn bad_policies_are_told_what_is_wrong() {
    for (text, expected) in [
        ("[policy]", "the policy has no rules"),
        (
            "[policy]\nrules = [\"no-shel\"]",
            "`no-shel` is not a rule; did you mean `no-shell`?",
        ),
        (
            "[[policy.rules]]\nid = \"maximum-size\"",
            "the rule needs `at-most`",
        ),
        (
            "[[policy.rules]]\nid = \"maximum-size\"\nat-most = -1",
            "`at-most` is an integer",
        ),
        (
            "[[policy.rules]]\nid = \"no-shell\"\nallow = [\"bin/sh\"]",
            "`bin/sh` is not absolute; paths in the image start with `/`",
        ),
        (
            "[[policy.rules]]\nid = \"non-root-user\"\nallow = [\"/a\"]",
            "an entry of `rules` has no key `allow`",
        ),
        (
            "[[policy.rules]]\nid = \"static\"\nseverity = \"deadly\"",
            "`deadly` is not a severity (known: low, medium, high)",
        ),
        (
            "[policy]\nrules = [\"static\"]\n[[policy.exceptions]]\nrule = \"static\"\nreason = \" \"",
            "an exception needs a reason",
        ),
    ] {
        assert_eq!(policy(text).unwrap_err(), [expected], "{text}");
    }
}
