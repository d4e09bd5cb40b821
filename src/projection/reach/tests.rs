use std::convert::Infallible;

use super::*;
use crate::hash::ObjectDigest;
use crate::listing::Listing;
use crate::listing::links::Mention;

/// What stands at a path of a made-up object.
pub(crate) enum At {
    File,
    Link(&'static str),
}
use At::{File, Link};

pub(crate) fn object(number: u8, name: &str) -> StorePath {
    StorePath::new(
        ObjectDigest::from_bytes([number; 32]),
        name.parse().unwrap(),
    )
}

pub(crate) fn holding(object: &StorePath, entries: &[(&str, At)]) -> (StorePath, Object) {
    let mut all = BTreeMap::new();
    for (path, at) in entries {
        let path: RelPath = path.parse().unwrap();
        for above in path.ancestors() {
            all.insert(above, Entry::Directory);
        }
        let entry = match at {
            // Each file has a content of its own: its name.
            File => Entry::File {
                digest: digest(object, path.as_str()),
                size_bytes: 1,
                executable: false,
            },
            Link(target) => Entry::Symlink {
                target: (*target).to_owned(),
            },
        };
        all.insert(path, entry);
    }
    let held = Object {
        listing: Listing::new(all).unwrap(),
        references: Vec::new(),
    };
    (object.clone(), held)
}

fn digest(object: &StorePath, path: &str) -> BlobDigest {
    BlobDigest::of(format!("{object}/{path}").as_bytes())
}

pub(crate) fn content(object: &StorePath, files: Option<&[&str]>) -> Content {
    Content {
        package: "a".parse().unwrap(),
        object: object.clone(),
        files: files.map(|files| files.iter().map(|file| file.parse().unwrap()).collect()),
        to: None,
        keep: BTreeSet::new(),
        own: false,
    }
}

/// Reaches with the links that some files have.
fn reached(
    contents: &[Content],
    objects: &Objects,
    links: &[(&StorePath, &str, Links)],
) -> Reached {
    let read = |files: &[ToRead]| {
        let of = |file: &ToRead| {
            links
                .iter()
                .find(|(object, path, _)| digest(object, path) == file.digest)
                .map(|(_, _, links)| links.clone())
                .unwrap_or_default()
        };
        Ok::<_, Failed>(files.iter().map(of).collect())
    };
    match reach(contents, objects, read) {
        Ok(reached) => reached,
        Err(Failed(error)) => panic!("{error}"),
    }
}

#[derive(Debug)]
struct Failed(ProjectionError);

impl From<ProjectionError> for Failed {
    fn from(error: ProjectionError) -> Self {
        Self(error)
    }
}

impl From<Infallible> for Failed {
    fn from(never: Infallible) -> Self {
        match never {}
    }
}

fn paths<'a>(reached: &'a Reached, object: &StorePath) -> Vec<&'a str> {
    reached
        .taken
        .get(object)
        .into_iter()
        .flat_map(BTreeMap::keys)
        .map(RelPath::as_str)
        .collect()
}

fn program(interpreter: &str, needed: &[&str], search: &[String]) -> Links {
    Links {
        interpreter: Some(interpreter.to_owned()),
        needed: needed.iter().map(|name| (*name).to_owned()).collect(),
        search: search.to_vec(),
        mentions: BTreeSet::new(),
    }
}

#[test]
fn a_program_brings_its_loader_and_the_very_libraries() {
    let (app, libc, zlib) = (object(1, "app"), object(2, "musl"), object(3, "zlib"));
    let objects = Objects::from([
        holding(&app, &[("bin/app", File), ("bin/other", File)]),
        holding(
            &libc,
            &[
                ("lib/libc.so", File),
                ("lib/ld-musl-x86_64.so.1", Link("libc.so")),
                ("lib/crt1.o", File),
                ("bin/gcc", File),
            ],
        ),
        holding(
            &zlib,
            &[
                ("lib/libz.so", Link("libz.so.1")),
                ("lib/libz.so.1", Link("libz.so.1.2")),
                ("lib/libz.so.1.2", File),
                ("lib/libother.so", File),
                ("include/zlib.h", File),
            ],
        ),
    ]);
    let loader = format!("{libc}/lib/ld-musl-x86_64.so.1");
    let search = [format!("{zlib}/lib")];
    let links = program(&loader, &["libz.so.1", "libc.so"], &search);
    let found = reached(
        &[content(&app, Some(&["bin/app"]))],
        &objects,
        &[(&app, "bin/app", links)],
    );
    assert_eq!(paths(&found, &app), ["bin/app"]);
    assert_eq!(
        paths(&found, &libc),
        ["lib/ld-musl-x86_64.so.1", "lib/libc.so"]
    );
    assert_eq!(paths(&found, &zlib), ["lib/libz.so.1", "lib/libz.so.1.2"]);
    assert_eq!(found.absent, BTreeSet::new());
}

#[test]
fn libraries_of_libraries_are_looked_for_as_the_loader_does() {
    let (app, one, two) = (object(1, "app"), object(2, "one"), object(3, "two"));
    let objects = Objects::from([
        holding(&app, &[("bin/app", File), ("lib/liborigin.so", File)]),
        holding(&one, &[("lib/libone.so", File)]),
        holding(&two, &[("lib/libtwo.so", File)]),
    ]);
    let needs = |names: &[&str], search: &[String]| Links {
        interpreter: None,
        ..program("", names, search)
    };
    let search = [
        format!("{one}/lib"),
        format!("{two}/lib"),
        "$ORIGIN/../lib".to_owned(),
    ];
    for (loader, inherits) in [
        ("/lib/ld-musl-x86_64.so.1", true),
        ("/lib64/ld-linux-x86-64.so.2", false),
    ] {
        let found = reached(
            &[content(&app, Some(&["bin/app"]))],
            &objects,
            &[
                (
                    &app,
                    "bin/app",
                    program(loader, &["libone.so", "liborigin.so"], &search),
                ),
                // It says nothing of where its own is: musl looks where the program does.
                (&one, "lib/libone.so", needs(&["libtwo.so"], &[])),
            ],
        );
        assert_eq!(paths(&found, &app), ["bin/app", "lib/liborigin.so"]);
        assert_eq!(paths(&found, &one), ["lib/libone.so"]);
        let two_found = paths(&found, &two);
        assert_eq!(
            two_found,
            if inherits {
                vec!["lib/libtwo.so"]
            } else {
                vec![]
            }
        );
        let absent: Vec<&str> = found
            .absent
            .iter()
            .map(|absent| absent.name.as_str())
            .collect();
        assert_eq!(absent, if inherits { vec![] } else { vec!["libtwo.so"] });
    }
}

#[test]
fn what_a_file_names_is_taken_and_no_more() {
    let (app, data) = (object(1, "app"), object(2, "data"));
    let objects = Objects::from([
        holding(&app, &[("bin/app", File)]),
        holding(
            &data,
            &[
                ("share/a/one", File),
                ("share/a/two", File),
                ("share/b", File),
                ("share/man/x.1", File),
                ("lib/libdata.a", File),
            ],
        ),
    ]);
    let cases: [(&str, &[&str]); 5] = [
        ("/share/b", &["share/b"]),
        ("/share/a/", &["share/a", "share/a/one", "share/a/two"]),
        // Put together when it runs: everything that could be meant.
        ("/share/a/%s", &["share/a", "share/a/one", "share/a/two"]),
        (
            "",
            &[
                "lib",
                "share",
                "share/a",
                "share/a/one",
                "share/a/two",
                "share/b",
            ],
        ),
        // What is named in full is taken, whatever the rules leave out.
        ("/lib/libdata.a", &["lib/libdata.a"]),
    ];
    for (rest, expected) in cases {
        let mentions = BTreeSet::from([Mention {
            object: data.clone(),
            rest: rest.to_owned(),
        }]);
        let links = Links {
            mentions,
            ..Links::default()
        };
        let found = reached(
            &[content(&app, None)],
            &objects,
            &[(&app, "bin/app", links)],
        );
        assert_eq!(paths(&found, &data), expected, "{rest}");
    }
}

#[test]
fn links_are_followed_and_circles_end() {
    let (app, other) = (object(1, "app"), object(2, "other"));
    let target = format!("{other}/lib64/real");
    let target: &'static str = Box::leak(target.into_boxed_str());
    let objects = Objects::from([
        holding(
            &app,
            &[
                ("bin/sh", Link("../lib/dash")),
                ("lib/dash", Link(target)),
                ("loop/a", Link("b")),
                ("loop/b", Link("a")),
                ("gone", Link("/etc/elsewhere")),
            ],
        ),
        holding(
            &other,
            &[
                ("lib64", Link("lib")),
                ("lib/real", File),
                ("lib/more", File),
            ],
        ),
    ]);
    let chosen = content(&app, Some(&["bin/sh", "loop/a", "gone"]));
    let found = reached(&[chosen], &objects, &[]);
    assert_eq!(
        paths(&found, &app),
        ["bin/sh", "gone", "lib/dash", "loop/a"]
    );
    assert_eq!(paths(&found, &other), ["lib/real", "lib64"]);
}

#[test]
fn an_object_of_which_nothing_is_wanted_is_not_reached() {
    let (headers, app) = (object(1, "headers"), object(2, "app"));
    let objects = Objects::from([
        holding(
            &headers,
            &[("include/a.h", File), ("include/b.h", Link("a.h"))],
        ),
        holding(&app, &[("bin/app", File)]),
    ]);
    let found = reached(
        &[content(&headers, None), content(&app, None)],
        &objects,
        &[],
    );
    assert_eq!(found.taken.keys().collect::<Vec<_>>(), [&app]);
}

#[test]
fn what_a_link_leads_to_is_there_because_of_it() {
    let app = object(1, "app");
    let objects = Objects::from([holding(
        &app,
        &[
            ("a/first", File),
            ("b/link", Link("../c/target")),
            ("c/target", File),
            ("d/last", File),
        ],
    )]);
    let found = reached(&[content(&app, None)], &objects, &[]);
    let by = Reason::Linked(Arc::new(Place {
        object: app.clone(),
        path: "b/link".parse().unwrap(),
    }));
    let reasons: Vec<(&str, &Reason)> = found
        .taken
        .values()
        .flatten()
        .map(|(path, reason)| (path.as_str(), reason))
        .filter(|(path, _)| path.contains('/'))
        .collect();
    let within = &Reason::Within;
    assert_eq!(
        reasons,
        [
            ("a/first", within),
            ("b/link", within),
            ("c/target", &by),
            ("d/last", within)
        ]
    );
}

#[test]
fn a_content_in_two_places_is_read_once() {
    let (one, two) = (object(1, "one"), object(2, "two"));
    let objects = Objects::from([
        holding(&one, &[("bin/a", File), ("bin/b", File)]),
        holding(&two, &[("bin/a", File)]),
    ]);
    // Their contents are made equal; in one place it may be executed.
    let same = |executable| Entry::File {
        digest: digest(&one, "bin/a"),
        size_bytes: 1,
        executable,
    };
    let objects: Objects = objects
        .into_iter()
        .map(|(object, held)| {
            let entries = held.listing.iter().map(|(path, entry)| {
                let is_same = path.as_str() == "bin/a";
                let entry = if is_same {
                    same(object == two)
                } else {
                    entry.clone()
                };
                (path.clone(), entry)
            });
            let listing = Listing::new(entries.collect()).unwrap();
            (object, Object { listing, ..held })
        })
        .collect();
    let mut read = Vec::new();
    let contents = [content(&one, None), content(&two, None)];
    let found = reach(&contents, &objects, |files| {
        read.extend(
            files
                .iter()
                .map(|file| (file.place.to_string(), file.executable)),
        );
        Ok::<_, Failed>(vec![Links::default(); files.len()])
    });
    assert_eq!(found.unwrap().taken.len(), 2);
    read.sort();
    assert_eq!(
        read,
        [
            (format!("{one}/bin/b"), false),
            (format!("{two}/bin/a"), true)
        ]
    );
}

#[test]
fn a_missing_file_is_named_with_the_nearest() {
    let app = object(1, "app");
    let objects = Objects::from([holding(&app, &[("bin/sleep", File)])]);
    let read = |_: &[ToRead]| Ok::<_, Failed>(Vec::new());
    let result = reach(&[content(&app, Some(&["bin/slep"]))], &objects, read);
    let Err(Failed(ProjectionError::NoSuchFile { nearest, .. })) = result else {
        panic!("it was found")
    };
    assert_eq!(nearest.as_deref(), Some("bin/sleep"));
}
