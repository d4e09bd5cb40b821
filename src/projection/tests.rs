use super::reach::tests::At::{File, Link};
use super::reach::tests::{At, content, holding, object};
use super::*;

/// How a made-up image is laid out.
struct Made {
    layout: Layout,
    writable: BTreeSet<RelPath>,
    ownership: Vec<Ownership>,
}

const FLAT: Made = Made {
    layout: Layout::Flat,
    writable: BTreeSet::new(),
    ownership: Vec::new(),
};

struct NoReading(ProjectionError);

impl From<ProjectionError> for NoReading {
    fn from(error: ProjectionError) -> Self {
        Self(error)
    }
}

fn made(
    contents: &[Content],
    objects: &Objects,
    how: &Made,
) -> Result<Projection, ProjectionError> {
    let none = |files: &[ToRead]| Ok(vec![crate::listing::links::Links::default(); files.len()]);
    let reached = reach(contents, objects, none).map_err(|NoReading(error)| error)?;
    let shape = Shape {
        layout: how.layout,
        writable: &how.writable,
        ownership: &how.ownership,
        budget: 20,
        plan: None,
        graph: &Graph::new(),
    };
    project(contents, objects, &reached, &shape)
}

fn paths(projection: &Projection) -> Vec<&str> {
    projection.entries.keys().map(RelPath::as_str).collect()
}

fn named(mut content: Content, package: &str) -> Content {
    content.package = package.parse().unwrap();
    content
}

#[test]
fn chosen_files_bring_their_directories_and_nothing_else() {
    let tools = object(1, "tools");
    let objects = Objects::from([holding(
        &tools,
        &[("bin/cat", File), ("bin/ls", File), ("share/x/y", File)],
    )]);
    let mut chosen = content(&tools, Some(&["bin/cat", "share"]));
    chosen.to = Some("opt".parse().unwrap());
    let writable = BTreeSet::from(["tmp".parse().unwrap()]);
    let projection = made(&[chosen], &objects, &Made { writable, ..FLAT }).unwrap();
    assert_eq!(
        paths(&projection),
        [
            "opt",
            "opt/bin",
            "opt/bin/cat",
            "opt/share",
            "opt/share/x",
            "opt/share/x/y",
            "tmp"
        ]
    );
    assert_eq!(projection.layers.len(), 2);
}

#[test]
fn equal_files_merge_and_different_ones_conflict() {
    let (one, two) = (object(1, "one"), object(2, "two"));
    let both = [content(&one, None), named(content(&two, None), "b")];
    let with = |first: (&str, At), second: (&str, At)| {
        let objects = Objects::from([holding(&one, &[first]), holding(&two, &[second])]);
        made(&both, &objects, &FLAT)
    };
    // Links are equal when they say the same.
    let same = with(("d/f", Link("x")), ("d/f", Link("x"))).unwrap();
    assert_eq!(paths(&same), ["d", "d/f"]);
    for (first, second) in [("d/f", "d/f"), ("d", "d/f"), ("d/f", "d")] {
        let conflict = with((first, File), (second, File));
        assert!(
            matches!(conflict, Err(ProjectionError::Conflict { .. })),
            "{first} {second}"
        );
    }
}

#[test]
fn only_references_of_taken_files_count() {
    let musl = object(1, "musl");
    let (path, mut held) = holding(&musl, &[("bin/gcc", File), ("lib/libc.so", File)]);
    held.references = vec![Reference {
        target: musl.clone(),
        file: "bin/gcc".parse().unwrap(),
        offset: 3,
    }];
    let objects = Objects::from([(path, held)]);
    let refused = made(&[content(&musl, None)], &objects, &FLAT);
    assert!(matches!(refused, Err(ProjectionError::NotFlat { .. })));
    assert!(made(&[content(&musl, Some(&["lib"]))], &objects, &FLAT).is_ok());
}

#[test]
fn in_the_store_layout_links_lead_to_objects() {
    let (app, extra) = (object(1, "app"), object(2, "extra"));
    let objects = Objects::from([
        holding(
            &app,
            &[
                ("bin/app", File),
                ("etc/app.conf", File),
                ("share/app/page", File),
                ("share/man/x.1", File),
            ],
        ),
        holding(&extra, &[("bin/tool", File), ("lib/x", File)]),
    ]);
    let contents = [
        content(&app, None),
        named(content(&extra, Some(&["bin/tool"])), "b"),
    ];
    let layout = Layout::Store;
    let projection = made(&contents, &objects, &Made { layout, ..FLAT }).unwrap();
    let links: Vec<(&str, &str)> = projection
        .entries
        .iter()
        .filter_map(|(path, placed)| match &placed.entry {
            Entry::Symlink { target } => Some((path.as_str(), target.as_str())),
            _ => None,
        })
        .collect();
    let (app, extra) = (app.to_string(), extra.to_string());
    assert_eq!(
        links,
        [
            // Two contents share the directory; engines fill the next.
            ("bin/app", format!("{app}/bin/app").as_str()),
            ("bin/tool", &format!("{extra}/bin/tool")),
            ("etc/app.conf", &format!("{app}/etc/app.conf")),
            ("share", &format!("{app}/share")),
        ]
    );
    let files: Vec<&str> = projection
        .entries
        .iter()
        .filter(|(_, placed)| matches!(placed.entry, Entry::File { .. }))
        .map(|(path, _)| path.as_str())
        .collect();
    assert_eq!(files.len(), 4, "{files:?}");
    let titles: Vec<&str> = projection
        .layers
        .iter()
        .map(|layer| layer.title.as_str())
        .collect();
    assert_eq!(titles, ["app", "extra", "links"]);
}

#[test]
fn rules_of_ownership_apply_in_order_and_to_something() {
    let app = object(1, "app");
    let objects = Objects::from([holding(&app, &[("srv/a", File), ("srv/d/b", File)])]);
    let rule = |path: &str, owner, mode, directory_mode| Ownership {
        paths: Spanned::new(path.parse().unwrap(), &(0..0)),
        owner,
        mode,
        directory_mode,
    };
    let with = |ownership: Vec<Ownership>| {
        made(
            &[content(&app, None)],
            &objects,
            &Made { ownership, ..FLAT },
        )
    };
    let projection = with(vec![
        rule("/srv/", Some((7, 8)), Some(0o640), Some(0o750)),
        rule("/srv/d", Some((9, 9)), None, None),
    ]);
    let projection = projection.unwrap();
    let all: Vec<(&str, u32, (u32, u32))> = projection
        .entries
        .iter()
        .map(|(path, placed)| (path.as_str(), placed.mode, placed.owner))
        .collect();
    assert_eq!(
        all,
        [
            ("srv", 0o555, (0, 0)),
            ("srv/a", 0o640, (7, 8)),
            ("srv/d", 0o750, (9, 9)),
            ("srv/d/b", 0o640, (7, 8)),
        ]
    );
    // Files have it in their own layer, directories in the last.
    let [below, top] = projection.layers.as_slice() else {
        panic!("{:?}", projection.layers)
    };
    let owner = |layer: &LayerPlan, path: &str| {
        layer
            .iter()
            .find(|(at, _)| at.as_str() == path)
            .map(|(_, placed)| placed.owner)
    };
    assert_eq!(owner(below, "srv/a"), Some((7, 8)));
    assert_eq!(owner(below, "srv/d"), Some((0, 0)));
    assert_eq!(owner(top, "srv/d"), Some((9, 9)));
    assert_eq!(owner(top, "srv/a"), None);
    let nothing = with(vec![rule("/nothing", Some((1, 1)), None, None)]);
    assert!(matches!(nothing, Err(ProjectionError::NothingOwned(_))));
}
