//! Golden documents of one small bill.

use std::collections::{BTreeMap, BTreeSet};

use super::model::{Bill, Component, File, Id, Kind, Part, Relation, RelationKind};
use super::{CREATED, Format};
use crate::hash::{BlobDigest, Checksums, ObjectDigest, Sha256Digest, StorePath};

fn object(byte: u8, name: &str) -> StorePath {
    StorePath::new(ObjectDigest::from_bytes([byte; 32]), name.parse().unwrap())
}

fn file(owner: &Id, path: &str, part: Part) -> File {
    File {
        path: path.to_owned(),
        owner: owner.clone(),
        blake3: BlobDigest::of(path.as_bytes()),
        checksums: Checksums {
            sha1: [7; 20],
            sha256: Sha256Digest::of(path.as_bytes()),
        },
        size_bytes: 5,
        executable: part == Part::RunTime,
        part,
    }
}

/// An image with one static program, a C library that is linked into it, a source, a root
/// with one package, a crate, and everything else that a component can have.
fn example() -> Bill {
    let (image, app, libc) = (
        Id::new("Image", "1"),
        Id::new("Object", "app"),
        Id::new("Object", "libc+1"),
    );
    let (source, root, debian) = (
        Id::new("Source", "2"),
        Id::new("Object", "root"),
        Id::new("Source", "3"),
    );
    let mut components = BTreeMap::new();
    let mut subject = Component::new(Kind::Image, Part::RunTime, "demo");
    subject.version = Some("1".to_owned());
    subject.summary = Some("an image".to_owned());
    subject.sha256 = Some(Sha256Digest::from_bytes([1; 32]));
    components.insert(image.clone(), subject);
    let mut program = Component::new(Kind::Application, Part::RunTime, "app");
    program.version = Some("1.2".to_owned());
    program.license = Some("GPL-2.0-only".to_owned());
    program.homepage = Some("https://app.example/".to_owned());
    program.purl = Some("pkg:generic/app@1.2".to_owned());
    program.cpe = Some("cpe:2.3:a:app:app:1.2:*:*:*:*:*:*:*".to_owned());
    program.object = Some(object(4, "app-1.2"));
    program.package = Some("std:apps/app".to_owned());
    program
        .symlinks
        .insert("/bin/a".to_owned(), "app".to_owned());
    components.insert(app.clone(), program);
    let mut library = Component::new(Kind::Library, Part::Linked, "libc");
    library.license_as_written = Some("as you like".to_owned());
    library.object = Some(object(5, "libc-1"));
    components.insert(libc.clone(), library);
    let mut archive = Component::new(Kind::Source, Part::BuildTime, "app-1.2.tar.gz");
    archive.urls = ["mirror://debian/app", "https://app.example/app-1.2.tar.gz"]
        .map(str::to_owned)
        .to_vec();
    archive.sha256 = Some(Sha256Digest::from_bytes([2; 32]));
    components.insert(source.clone(), archive);
    components.insert(
        root.clone(),
        Component::new(Kind::Library, Part::BuildTime, "root"),
    );
    let mut package = Component::new(Kind::Debian, Part::BuildTime, "make");
    package.purl = Some("pkg:deb/debian/make@4.3?arch=amd64".to_owned());
    package.urls = vec!["mirror://debian/make.deb".to_owned()];
    components.insert(debian.clone(), package);
    let locked = Id::new("Source", "4");
    let mut found = Component::new(Kind::Crate, Part::Locked, "itoa");
    found.version = Some("1.0.1".to_owned());
    found.license = Some("MIT OR Apache-2.0".to_owned());
    found.purl = Some("pkg:cargo/itoa@1.0.1".to_owned());
    found.urls = vec!["mirror://crates/itoa/1.0.1/download".to_owned()];
    found.sha256 = Some(Sha256Digest::from_bytes([4; 32]));
    components.insert(locked.clone(), found);
    let tools = Id::new("Source", "5");
    components.insert(
        tools.clone(),
        Component::new(Kind::Crate, Part::BuildTime, "quote"),
    );
    let (bin, lib) = (Id::new("File", "bin"), Id::new("File", "lib"));
    let files = BTreeMap::from([
        (bin.clone(), file(&app, "/bin/app", Part::RunTime)),
        (
            lib.clone(),
            file(&libc, "/kiln/store/x/lib/libc.a", Part::Linked),
        ),
    ]);
    let relation = |from: &Id, kind, to: &Id| Relation {
        from: from.clone(),
        kind,
        to: to.clone(),
        members: Vec::new(),
    };
    let mut relations = BTreeSet::from([
        relation(&image, RelationKind::Contains, &app),
        relation(&app, RelationKind::Contains, &bin),
        relation(&app, RelationKind::DependsOn, &libc),
        relation(&app, RelationKind::GeneratedFrom, &source),
        relation(&app, RelationKind::BuiltWith, &libc),
        relation(&app, RelationKind::BuiltBy, &root),
        relation(&root, RelationKind::Contains, &debian),
        relation(&app, RelationKind::StaticLink, &libc),
        relation(&app, RelationKind::Locks, &locked),
        relation(&root, RelationKind::Locks, &tools),
    ]);
    let mut link = relation(&bin, RelationKind::StaticLink, &lib);
    link.members = ["puts.lo", "write.lo"].map(str::to_owned).to_vec();
    relations.insert(link);
    Bill {
        subject: image,
        components,
        files,
        relations,
        unrecorded: BTreeSet::from(["/bin/old".to_owned()]),
    }
}

fn written(format: Format, bill: &Bill) -> String {
    String::from_utf8(format.write(bill).unwrap()).unwrap()
}

#[test]
fn the_documents_of_every_format() {
    for format in Format::ALL {
        let text = written(format, &example());
        let value: serde_json::Value = serde_json::from_str(&text).unwrap();
        let pretty = serde_json::to_string_pretty(&value).unwrap();
        // The version of kiln is in them.
        let pretty = pretty.replace(env!("CARGO_PKG_VERSION"), "[VERSION]");
        insta::assert_snapshot!(format.as_str(), pretty);
    }
}

#[test]
fn a_change_of_anything_gives_another_number() {
    let mut other = example();
    if let Some(file) = other.files.values_mut().next() {
        file.checksums.sha256 = Sha256Digest::from_bytes([9; 32]);
    }
    for (format, pointer) in [
        (Format::Spdx2, "/documentNamespace"),
        (Format::Spdx3, "/@graph/1/spdxId"),
        (Format::CycloneDx, "/serialNumber"),
    ] {
        let number = |bill: &Bill| {
            let value: serde_json::Value = serde_json::from_str(&written(format, bill)).unwrap();
            value.pointer(pointer).unwrap().as_str().unwrap().to_owned()
        };
        assert_eq!(number(&example()), number(&example()));
        assert_ne!(number(&example()), number(&other), "{}", format.as_str());
    }
}

#[test]
fn documents_are_made_when_images_are() {
    assert_eq!(CREATED, "1970-01-01T00:00:01Z");
    assert_eq!("spdx-3.0".parse(), Ok(Format::Spdx3));
    assert!(
        "spdx"
            .parse::<Format>()
            .unwrap_err()
            .contains("cyclonedx-1.6")
    );
}
