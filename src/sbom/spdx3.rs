//! SPDX 3.0.1 as JSON-LD (<https://spdx.github.io/spdx-spec/v3.0.1/>), profiles Core,
//! Software and `SimpleLicensing`.
//!
//! | in the bill | in the document |
//! |---|---|
//! | component, file | `software_Package`, `software_File` |
//! | holds | `contains` |
//! | needs at run time | `dependsOn` in the life cycle's scope `runtime` |
//! | code linked in | `hasStaticLink` |
//! | locked | `dependsOn` |
//! | built from | `generates`, from the source |
//! | built with, by | `dependsOn` and `usesTool` in the scope `build` |

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use super::CREATED;
use super::identity::number;
use super::model::{Bill, Component, File, Id, Kind, Part, RelationKind};
use crate::hash::Sha256Digest;
use crate::hash::json::{JsonError, canonical};

/// The blank node that says who made all elements, and when.
const CREATION: &str = "_:creation";

/// Returns the document.
///
/// # Errors
/// [`JsonError`] when the content has no canonical form.
pub fn document(bill: &Bill) -> Result<Value, JsonError> {
    // Every element's name holds the document's number, which follows from the rest.
    let draft = with_base(bill, "urn:uuid:draft")?;
    with_base(bill, &format!("urn:uuid:{}", number(&draft)?))
}

fn with_base(bill: &Bill, base: &str) -> Result<Value, JsonError> {
    let name = |id: &str| format!("{base}#{id}");
    let mut elements = Elements {
        base: base.to_owned(),
        graph: Vec::new(),
        names: Vec::new(),
    };
    elements.graph.push(json!({
        "type": "CreationInfo",
        "@id": CREATION,
        "specVersion": "3.0.1",
        "created": CREATED,
        "createdBy": [name("kiln")],
    }));
    elements.push(
        "kiln",
        "SoftwareAgent",
        &json!({
            "name": concat!("kiln ", env!("CARGO_PKG_VERSION")),
        }),
    );
    for (id, component) in &bill.components {
        elements.push(id.as_str(), "software_Package", &package(component));
    }
    for (id, file) in &bill.files {
        elements.push(id.as_str(), "software_File", &self::file(file));
    }
    elements.licenses(bill)?;
    elements.relations(bill)?;
    let names = std::mem::take(&mut elements.names);
    let subject = bill.components.get(&bill.subject).map_or("", |c| &c.name);
    let note = (!bill.unrecorded.is_empty()).then(|| {
        let programs: Vec<&str> = bill.unrecorded.iter().map(String::as_str).collect();
        format!(
            "No linker's record of these static programs is known, so the archives in them are not listed: {}",
            programs.join(", ")
        )
    });
    let mut sbom = json!({
        "software_sbomType": ["build"],
        "rootElement": [name(bill.subject.as_str())],
        "element": names,
    });
    if let (Some(note), Some(members)) = (note, sbom.as_object_mut()) {
        members.insert("comment".to_owned(), json!(note));
    }
    elements.push("sbom", "software_Sbom", &sbom);
    elements.push(
        "document",
        "SpdxDocument",
        &json!({
            "name": subject,
            "rootElement": [name("sbom")],
            "profileConformance": ["core", "software", "simpleLicensing"],
        }),
    );
    Ok(json!({
        "@context": "https://spdx.org/rdf/3.0.1/spdx-context.jsonld",
        "@graph": elements.graph,
    }))
}

struct Elements {
    base: String,
    graph: Vec<Value>,
    names: Vec<String>,
}

impl Elements {
    fn name(&self, id: &str) -> String {
        format!("{}#{id}", self.base)
    }

    fn push(&mut self, id: &str, kind: &str, members: &Value) {
        let name = self.name(id);
        let mut element = members.as_object().cloned().unwrap_or_default();
        element.insert("type".to_owned(), json!(kind));
        element.insert("spdxId".to_owned(), json!(name));
        element.insert("creationInfo".to_owned(), json!(CREATION));
        self.graph.push(Value::Object(element));
        self.names.push(name);
    }

    /// Adds each licence expression once, and which packages declare it.
    fn licenses(&mut self, bill: &Bill) -> Result<(), JsonError> {
        let mut declared: BTreeMap<&str, Vec<&Id>> = BTreeMap::new();
        for (id, component) in &bill.components {
            if let Some(license) = &component.license {
                declared.entry(license).or_default().push(id);
            }
        }
        for (license, packages) in declared {
            let id = Id::new("License", license);
            self.push(
                id.as_str(),
                "simplelicensing_LicenseExpression",
                &json!({
                    "simplelicensing_licenseExpression": license,
                }),
            );
            let license = self.name(id.as_str());
            for package in packages {
                let from = self.name(package.as_str());
                self.relationship(
                    &json!({
                        "relationshipType": "hasDeclaredLicense",
                        "from": from,
                        "to": [license],
                    }),
                    "Relationship",
                )?;
            }
        }
        Ok(())
    }

    fn relations(&mut self, bill: &Bill) -> Result<(), JsonError> {
        for relation in &bill.relations {
            let from = self.name(relation.from.as_str());
            let to = self.name(relation.to.as_str());
            let (kind, scope) = match relation.kind {
                RelationKind::Contains => ("contains", None),
                RelationKind::DependsOn => ("dependsOn", Some("runtime")),
                RelationKind::StaticLink => ("hasStaticLink", None),
                RelationKind::Locks => ("dependsOn", None),
                RelationKind::GeneratedFrom => ("generates", None),
                RelationKind::BuiltWith => ("dependsOn", Some("build")),
                RelationKind::BuiltBy => ("usesTool", Some("build")),
            };
            let (from, to) = if relation.kind == RelationKind::GeneratedFrom {
                (to, from)
            } else {
                (from, to)
            };
            let mut members = json!({ "relationshipType": kind, "from": from, "to": [to] });
            if let Some(members) = members.as_object_mut() {
                if let Some(scope) = scope {
                    members.insert("scope".to_owned(), json!(scope));
                }
                if !relation.members.is_empty() {
                    let taken = format!("members: {}", relation.members.join(" "));
                    members.insert("comment".to_owned(), json!(taken));
                }
            }
            let class = if scope.is_some() {
                "LifecycleScopedRelationship"
            } else {
                "Relationship"
            };
            self.relationship(&members, class)?;
        }
        Ok(())
    }

    /// Adds a relationship; its name follows from what it says.
    fn relationship(&mut self, members: &Value, class: &str) -> Result<(), JsonError> {
        let digest = Sha256Digest::of(&canonical(members)?).to_string();
        let id = Id::new("Relationship", digest.get(..32).unwrap_or(&digest));
        self.push(id.as_str(), class, members);
        Ok(())
    }
}

fn hash(algorithm: &str, value: &str) -> Value {
    json!({ "type": "Hash", "algorithm": algorithm, "hashValue": value })
}

fn package(component: &Component) -> Value {
    let mut members = Map::new();
    let mut put = |key: &str, value: Value| drop(members.insert(key.to_owned(), value));
    put("name", json!(component.name));
    if let Some(version) = &component.version {
        put("software_packageVersion", json!(version));
    }
    if let Some(summary) = &component.summary {
        put("summary", json!(summary));
    }
    if let Some(homepage) = &component.homepage {
        put("software_homePage", json!(homepage));
    }
    if let Some(purl) = &component.purl {
        put("software_packageUrl", json!(purl));
    }
    if let Some(url) = component.urls.first() {
        put("software_downloadLocation", json!(url));
    }
    if let Some(sha256) = component.sha256 {
        put(
            "verifiedUsing",
            json!([hash("sha256", &sha256.to_string())]),
        );
    }
    let mut identifiers = Vec::new();
    for (kind, text) in [
        ("cpe23", component.cpe.clone()),
        ("packageUrl", component.purl.clone()),
        ("other", component.object.as_ref().map(ToString::to_string)),
    ] {
        if let Some(text) = text {
            identifiers.push(json!({
                "type": "ExternalIdentifier",
                "externalIdentifierType": kind,
                "identifier": text,
            }));
        }
    }
    if !identifiers.is_empty() {
        put("externalIdentifier", json!(identifiers));
    }
    let purpose = match component.kind {
        Kind::Image => "container",
        Kind::Application => "application",
        Kind::Library | Kind::Crate => "library",
        Kind::Source => "source",
        Kind::Debian => "archive",
    };
    put("software_primaryPurpose", json!(purpose));
    let mut comment = vec![format!("part: {}", component.part.as_str())];
    comment.extend(
        component
            .package
            .iter()
            .map(|package| format!("derivation file: {package}")),
    );
    comment.extend(
        component
            .license_as_written
            .iter()
            .map(|license| format!("licence as written: {license}")),
    );
    comment.extend(
        component
            .urls
            .iter()
            .skip(1)
            .map(|url| format!("also at: {url}")),
    );
    comment.extend(
        component
            .symlinks
            .iter()
            .map(|(path, target)| format!("symbolic link: {path} -> {target}")),
    );
    put("comment", json!(comment.join("\n")));
    Value::Object(members)
}

fn file(file: &File) -> Value {
    let mut members = json!({
        "name": file.path,
        "software_primaryPurpose": if file.executable { "executable" } else { "file" },
        "verifiedUsing": [
            hash("sha256", &file.checksums.sha256.to_string()),
            hash("blake3", &file.blake3.to_string()),
        ],
    });
    if file.part == Part::Linked
        && let Some(members) = members.as_object_mut()
    {
        let said = "Not in the subject itself: code of it is, in the programs that link it.";
        members.insert("comment".to_owned(), json!(said));
    }
    members
}
