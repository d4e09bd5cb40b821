//! SPDX 2.3 as JSON (<https://spdx.github.io/spdx-spec/v2.3/>).
//!
//! | in the bill | in the document |
//! |---|---|
//! | component | package; of an object its file names are those in the subject |
//! | file | file, with the archives that were linked |
//! | holds, needs at run time | `CONTAINS`, `RUNTIME_DEPENDENCY_OF` |
//! | code linked in | `STATIC_LINK` |
//! | locked | `DEPENDS_ON` |
//! | built from, with, by | `GENERATED_FROM`, `BUILD_DEPENDENCY_OF`, `BUILD_TOOL_OF` |

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};
use sha1::{Digest as _, Sha1};

use super::CREATED;
use super::identity::number;
use super::model::{Bill, Component, File, Id, Kind, Part, RelationKind};
use crate::hash::json::JsonError;

const UNKNOWN: &str = "NOASSERTION";

/// Returns the document.
///
/// # Errors
/// [`JsonError`] when the content has no canonical form.
pub fn document(bill: &Bill) -> Result<Value, JsonError> {
    let name = bill.components.get(&bill.subject).map_or("", |c| &c.name);
    let mut files_of: BTreeMap<&Id, Vec<(&Id, &File)>> = BTreeMap::new();
    for (id, file) in &bill.files {
        files_of.entry(&file.owner).or_default().push((id, file));
    }
    let packages: Vec<Value> = bill
        .components
        .iter()
        .map(|(id, component)| {
            let files = files_of.get(id).map_or(&[][..], Vec::as_slice);
            package(id, component, files)
        })
        .collect();
    let files: Vec<Value> = bill
        .files
        .iter()
        .map(|(id, file)| self::file(id, file))
        .collect();
    let mut document = json!({
        "spdxVersion": "SPDX-2.3",
        "dataLicense": "CC0-1.0",
        "SPDXID": "SPDXRef-DOCUMENT",
        "name": name,
        "creationInfo": {
            "created": CREATED,
            "creators": [concat!("Tool: kiln-", env!("CARGO_PKG_VERSION"))],
            "comment": "The time is a fixed one, so that the document follows from what it is about.",
        },
        "documentDescribes": [reference(&bill.subject)],
        "packages": packages,
        "files": files,
        "relationships": relationships(bill),
    });
    if !bill.unrecorded.is_empty() {
        let programs: Vec<&str> = bill.unrecorded.iter().map(String::as_str).collect();
        set(
            &mut document,
            "comment",
            json!(format!(
                "No linker's record of these static programs is known, so the archives in them are not listed: {}",
                programs.join(", ")
            )),
        );
    }
    let number = number(&document)?;
    set(
        &mut document,
        "documentNamespace",
        json!(format!("urn:uuid:{number}")),
    );
    Ok(document)
}

fn set(document: &mut Value, key: &str, value: Value) {
    if let Some(members) = document.as_object_mut() {
        members.insert(key.to_owned(), value);
    }
}

fn reference(id: &Id) -> String {
    format!("SPDXRef-{id}")
}

fn package(id: &Id, component: &Component, files: &[(&Id, &File)]) -> Value {
    let mut members = Map::new();
    let mut put = |key: &str, value: Value| drop(members.insert(key.to_owned(), value));
    put("SPDXID", json!(reference(id)));
    put("name", json!(component.name));
    put(
        "supplier",
        json!(if component.kind == Kind::Debian {
            "Organization: Debian"
        } else {
            UNKNOWN
        }),
    );
    let location = location(component).unwrap_or(UNKNOWN);
    put("downloadLocation", json!(location));
    put("filesAnalyzed", json!(!files.is_empty()));
    if !files.is_empty() {
        put(
            "packageVerificationCode",
            json!({ "packageVerificationCodeValue": verification_code(files) }),
        );
        put(
            "hasFiles",
            json!(
                files
                    .iter()
                    .map(|(id, _)| reference(id))
                    .collect::<Vec<_>>()
            ),
        );
    }
    if let Some(version) = &component.version {
        put("versionInfo", json!(version));
    }
    if let Some(summary) = &component.summary {
        put("summary", json!(summary));
    }
    if let Some(homepage) = &component.homepage {
        put("homepage", json!(homepage));
    }
    let license = component.license.as_deref().unwrap_or(UNKNOWN);
    put("licenseDeclared", json!(license));
    put("licenseConcluded", json!(UNKNOWN));
    put("copyrightText", json!(UNKNOWN));
    if let Some(sha256) = component.sha256 {
        put(
            "checksums",
            json!([{ "algorithm": "SHA256", "checksumValue": sha256.to_string() }]),
        );
    }
    let purpose = match component.kind {
        Kind::Image => Some("CONTAINER"),
        Kind::Application => Some("APPLICATION"),
        Kind::Library | Kind::Crate => Some("LIBRARY"),
        Kind::Source => Some("SOURCE"),
        Kind::Debian => Some("ARCHIVE"),
    };
    put("primaryPackagePurpose", json!(purpose));
    let external = external_references(component);
    if !external.is_empty() {
        put("externalRefs", json!(external));
    }
    put("comment", json!(comment(component)));
    Value::Object(members)
}

/// Returns the first address that anyone can open: what a mirror is, only kiln's settings
/// know.
fn location(component: &Component) -> Option<&str> {
    component
        .urls
        .iter()
        .map(String::as_str)
        .find(|url| url.starts_with("https://") || url.starts_with("http://"))
}

/// Returns the hash over the hashes of a package's files (section 7.9 of the
/// specification).
fn verification_code(files: &[(&Id, &File)]) -> String {
    let mut sums: Vec<String> = files
        .iter()
        .map(|(_, file)| data_encoding::HEXLOWER.encode(&file.checksums.sha1))
        .collect();
    sums.sort_unstable();
    data_encoding::HEXLOWER.encode(&Sha1::digest(sums.concat()))
}

fn external_references(component: &Component) -> Vec<Value> {
    let mut found = Vec::new();
    if let Some(cpe) = &component.cpe {
        found.push(json!({
            "referenceCategory": "SECURITY",
            "referenceType": "cpe23Type",
            "referenceLocator": cpe,
        }));
    }
    if let Some(purl) = &component.purl {
        found.push(json!({
            "referenceCategory": "PACKAGE-MANAGER",
            "referenceType": "purl",
            "referenceLocator": purl,
        }));
    }
    if let Some(object) = &component.object {
        found.push(json!({
            "referenceCategory": "OTHER",
            "referenceType": "kiln-object",
            "referenceLocator": object.to_string(),
        }));
    }
    found
}

fn comment(component: &Component) -> String {
    let mut lines = vec![format!("part: {}", component.part.as_str())];
    lines.extend(
        component
            .package
            .iter()
            .map(|package| format!("derivation file: {package}")),
    );
    lines.extend(
        component
            .license_as_written
            .iter()
            .map(|license| format!("licence as written: {license}")),
    );
    let location = location(component);
    lines.extend(
        component
            .urls
            .iter()
            .filter(|url| Some(url.as_str()) != location)
            .map(|url| format!("to be had at: {url}")),
    );
    lines.extend(
        component
            .symlinks
            .iter()
            .map(|(path, target)| format!("symbolic link: {path} -> {target}")),
    );
    lines.join("\n")
}

fn file(id: &Id, file: &File) -> Value {
    // BLAKE3 is among the checksums of SPDX 2.3, but its own tools take none of 256 bits.
    let mut comment = format!("BLAKE3: {}", file.blake3);
    if file.part == Part::Linked {
        comment.push_str("\nNot in the subject itself: code of it is, in programs that link it.");
    }
    json!({
        "SPDXID": reference(id),
        // File names of SPDX are relative to the package's root.
        "fileName": format!(".{}", file.path),
        "checksums": [
            { "algorithm": "SHA1",
              "checksumValue": data_encoding::HEXLOWER.encode(&file.checksums.sha1) },
            { "algorithm": "SHA256", "checksumValue": file.checksums.sha256.to_string() },
        ],
        "licenseConcluded": UNKNOWN,
        "licenseInfoInFiles": [UNKNOWN],
        "copyrightText": UNKNOWN,
        "comment": comment,
    })
}

fn relationships(bill: &Bill) -> Vec<Value> {
    let mut found = vec![relationship(
        "SPDXRef-DOCUMENT",
        "DESCRIBES",
        &reference(&bill.subject),
    )];
    for relation in &bill.relations {
        let (from, to) = (reference(&relation.from), reference(&relation.to));
        let mut made = match relation.kind {
            RelationKind::Contains => relationship(&from, "CONTAINS", &to),
            RelationKind::DependsOn => relationship(&to, "RUNTIME_DEPENDENCY_OF", &from),
            RelationKind::StaticLink => relationship(&from, "STATIC_LINK", &to),
            RelationKind::Locks => relationship(&from, "DEPENDS_ON", &to),
            RelationKind::GeneratedFrom => relationship(&from, "GENERATED_FROM", &to),
            RelationKind::BuiltWith => relationship(&to, "BUILD_DEPENDENCY_OF", &from),
            RelationKind::BuiltBy => relationship(&to, "BUILD_TOOL_OF", &from),
        };
        if !relation.members.is_empty() {
            let members = format!("members: {}", relation.members.join(" "));
            set(&mut made, "comment", json!(members));
        }
        found.push(made);
    }
    found
}

fn relationship(from: &str, kind: &str, to: &str) -> Value {
    json!({ "spdxElementId": from, "relationshipType": kind, "relatedSpdxElement": to })
}
