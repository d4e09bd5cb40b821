//! `CycloneDX` 1.6 as JSON (ECMA-424 1st edition, <https://cyclonedx.org/docs/1.6/json/>).
//!
//! | in the bill | in the document |
//! |---|---|
//! | subject | `metadata.component` |
//! | run-time, linked and locked components | `components`, with their files in them |
//! | build-time components | `formulation`: how the subject was made |
//! | needs at run time, code linked in, locked | `dependencies` |
//! | built from, with, by | properties that name components of the formulation |
//!
//! Programs that read the format know only `components` and `dependencies` between them, so
//! no dependency leads into the formulation.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, Value, json};

use super::CREATED;
use super::identity::number;
use super::model::{Bill, Component, File, Id, Kind, Part, RelationKind};
use crate::hash::json::JsonError;

/// Returns the document.
///
/// # Errors
/// [`JsonError`] when the content has no canonical form.
pub fn document(bill: &Bill) -> Result<Value, JsonError> {
    let mut files_of: BTreeMap<&Id, Vec<(&Id, &File)>> = BTreeMap::new();
    for (id, file) in &bill.files {
        files_of.entry(&file.owner).or_default().push((id, file));
    }
    let members = members(bill);
    let built = built(bill);
    let written = |id: &Id, component: &Component| {
        let files = files_of.get(id).map_or(&[][..], Vec::as_slice);
        let mut written = self::component(id, component, files, &members);
        if let Some(properties) = written.get_mut("properties").and_then(Value::as_array_mut) {
            properties.extend(built.get(id).cloned().unwrap_or_default());
        }
        written
    };
    let others = |build_time: bool| -> Vec<Value> {
        bill.components
            .iter()
            .filter(|(id, component)| {
                **id != bill.subject && (component.part == Part::BuildTime) == build_time
            })
            .map(|(id, component)| written(id, component))
            .collect()
    };
    let subject = bill.components.get(&bill.subject);
    let mut properties = vec![property(
        "kiln:created",
        "a fixed time, so that the document follows from what it is about",
    )];
    properties.extend(
        bill.unrecorded
            .iter()
            .map(|program| property("kiln:no-link-record", program)),
    );
    let mut document = json!({
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "version": 1,
        "metadata": {
            "timestamp": CREATED,
            "tools": { "components": [{
                "type": "application",
                "name": "kiln",
                "version": env!("CARGO_PKG_VERSION"),
            }] },
            "component": subject.map(|component| written(&bill.subject, component)),
            "properties": properties,
        },
        "components": others(false),
        "dependencies": dependencies(bill),
        "formulation": [{ "bom-ref": "formulation", "components": others(true) }],
    });
    let number = number(&document)?;
    if let Some(members) = document.as_object_mut() {
        members.insert(
            "serialNumber".to_owned(),
            json!(format!("urn:uuid:{number}")),
        );
    }
    Ok(document)
}

fn property(name: &str, value: &str) -> Value {
    json!({ "name": name, "value": value })
}

/// Returns what programs took from archives: by program, the archive and its members.
fn members(bill: &Bill) -> BTreeMap<&Id, Vec<(&Id, &[String])>> {
    let mut found: BTreeMap<&Id, Vec<(&Id, &[String])>> = BTreeMap::new();
    for relation in &bill.relations {
        if relation.kind == RelationKind::StaticLink && bill.files.contains_key(&relation.to) {
            let taken = (&relation.to, relation.members.as_slice());
            found.entry(&relation.from).or_default().push(taken);
        }
    }
    found
}

fn component(
    id: &Id,
    component: &Component,
    files: &[(&Id, &File)],
    linked: &BTreeMap<&Id, Vec<(&Id, &[String])>>,
) -> Value {
    let mut members = Map::new();
    let mut put = |key: &str, value: Value| drop(members.insert(key.to_owned(), value));
    let kind = match component.kind {
        Kind::Image => "container",
        Kind::Application => "application",
        Kind::Library | Kind::Debian | Kind::Crate => "library",
        Kind::Source => "file",
    };
    put("type", json!(kind));
    put("bom-ref", json!(id.as_str()));
    put("name", json!(component.name));
    if let Some(version) = &component.version {
        put("version", json!(version));
    }
    if let Some(summary) = &component.summary {
        put("description", json!(summary));
    }
    if component.kind == Kind::Debian {
        put("supplier", json!({ "name": "Debian" }));
    }
    if let Some(license) = &component.license {
        put("licenses", json!([{ "expression": license }]));
    } else if let Some(license) = &component.license_as_written {
        put("licenses", json!([{ "license": { "name": license } }]));
    }
    if let Some(cpe) = &component.cpe {
        put("cpe", json!(cpe));
    }
    if let Some(purl) = &component.purl {
        put("purl", json!(purl));
    }
    if let Some(sha256) = component.sha256 {
        put(
            "hashes",
            json!([{ "alg": "SHA-256", "content": sha256.to_string() }]),
        );
    }
    let mut external: Vec<Value> = Vec::new();
    external.extend(
        component
            .homepage
            .iter()
            .map(|url| json!({ "type": "website", "url": url })),
    );
    let kind = if matches!(component.kind, Kind::Source | Kind::Crate) {
        "source-distribution"
    } else {
        "distribution"
    };
    let unique: BTreeSet<&String> = component.urls.iter().collect();
    external.extend(
        unique
            .into_iter()
            .map(|url| json!({ "type": kind, "url": url })),
    );
    if !external.is_empty() {
        put("externalReferences", json!(external));
    }
    if !files.is_empty() {
        let files: Vec<Value> = files
            .iter()
            .map(|(id, file)| self::file(id, file, linked.get(id).map_or(&[][..], Vec::as_slice)))
            .collect();
        put("components", json!(files));
    }
    put("properties", json!(properties(component)));
    Value::Object(members)
}

fn properties(component: &Component) -> Vec<Value> {
    let mut found = vec![property("kiln:part", component.part.as_str())];
    if let Some(package) = &component.package {
        found.push(property("kiln:derivation-file", package));
    }
    if let Some(object) = &component.object {
        found.push(property("kiln:object", &object.to_string()));
    }
    found.extend(
        component
            .symlinks
            .iter()
            .map(|(path, target)| property("kiln:symlink", &format!("{path} -> {target}"))),
    );
    found
}

fn file(id: &Id, file: &File, linked: &[(&Id, &[String])]) -> Value {
    let mut properties = vec![property("kiln:part", file.part.as_str())];
    properties.extend(linked.iter().map(|(archive, members)| {
        let members = members.join(" ");
        property("kiln:linked", format!("{archive} {members}").trim_end())
    }));
    json!({
        "type": "file",
        "bom-ref": id.as_str(),
        "name": file.path,
        "hashes": [
            { "alg": "SHA-1", "content": data_encoding::HEXLOWER.encode(&file.checksums.sha1) },
            { "alg": "SHA-256", "content": file.checksums.sha256.to_string() },
            { "alg": "BLAKE3", "content": file.blake3.to_string() },
        ],
        "properties": properties,
    })
}

/// Returns what each component of the subject needs. What holds another needs it; a
/// component's own files stand in it.
fn dependencies(bill: &Bill) -> Vec<Value> {
    let present = |id: &Id| {
        bill.components
            .get(id)
            .is_some_and(|component| component.part != Part::BuildTime)
    };
    let mut found: BTreeMap<&Id, BTreeSet<&Id>> = bill
        .components
        .keys()
        .filter(|id| present(id))
        .map(|id| (id, BTreeSet::new()))
        .collect();
    for relation in &bill.relations {
        let linked = relation.kind == RelationKind::StaticLink;
        if present(&relation.to) && present(&relation.from)
            || linked && bill.files.contains_key(&relation.to)
        {
            found
                .entry(&relation.from)
                .or_default()
                .insert(&relation.to);
        }
    }
    found
        .into_iter()
        .map(|(id, needs)| {
            let needs: Vec<&str> = needs.into_iter().map(Id::as_str).collect();
            json!({ "ref": id.as_str(), "dependsOn": needs })
        })
        .collect()
}

/// Returns what each component was built from, with and by, as properties.
fn built(bill: &Bill) -> BTreeMap<&Id, Vec<Value>> {
    let mut found: BTreeMap<&Id, Vec<Value>> = BTreeMap::new();
    for relation in &bill.relations {
        let to = bill.components.get(&relation.to);
        let is_build_time = to.is_some_and(|to| to.part == Part::BuildTime);
        let name = match relation.kind {
            RelationKind::GeneratedFrom => "kiln:generated-from",
            RelationKind::BuiltWith => "kiln:built-with",
            RelationKind::BuiltBy => "kiln:built-by",
            RelationKind::Contains if is_build_time => "kiln:holds",
            RelationKind::Locks if is_build_time => "kiln:locks",
            _ => continue,
        };
        let property = property(name, relation.to.as_str());
        found.entry(&relation.from).or_default().push(property);
    }
    found
}
