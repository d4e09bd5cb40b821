//! What a linker took into a program, as data.

use serde_json::{Value, json};

use crate::hash::json::{JsonError, canonical};
use crate::hash::{RelPath, StorePath};

/// A linker's own record of one program: every file of another object that it took code
/// from, sorted. What the build compiled itself is not in it.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Link {
    /// The files.
    pub inputs: Vec<LinkInput>,
}

/// A file that a linker took code from.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct LinkInput {
    /// The object that holds it.
    pub object: StorePath,
    /// Where it is in the object.
    pub path: RelPath,
    /// The archive's members that were taken, sorted; empty for an object file.
    pub members: Vec<String>,
}

impl Link {
    /// Returns it as canonical JSON.
    ///
    /// # Errors
    /// [`JsonError`]; it has no number, so never.
    pub fn to_json(&self) -> Result<Vec<u8>, JsonError> {
        let inputs: Vec<Value> = self
            .inputs
            .iter()
            .map(|input| {
                json!({
                    "object": input.object.to_string(),
                    "path": input.path.as_str(),
                    "members": input.members,
                })
            })
            .collect();
        canonical(&Value::Array(inputs))
    }

    /// Reads what [`Link::to_json`] gave; `None` for anything else.
    pub fn from_json(bytes: &[u8]) -> Option<Self> {
        let document: Value = serde_json::from_slice(bytes).ok()?;
        let inputs = document
            .as_array()?
            .iter()
            .map(|input| {
                let text = |key: &str| input.get(key)?.as_str();
                let members = input.get("members")?.as_array()?;
                Some(LinkInput {
                    object: text("object")?.parse().ok()?,
                    path: text("path")?.parse().ok()?,
                    members: members
                        .iter()
                        .map(|member| member.as_str().map(str::to_owned))
                        .collect::<Option<_>>()?,
                })
            })
            .collect::<Option<_>>()?;
        Some(Self { inputs })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hash::ObjectDigest;

    #[test]
    fn a_record_survives_being_written() {
        let object = StorePath::new(ObjectDigest::from_bytes([3; 32]), "musl-1".parse().unwrap());
        let link = Link {
            inputs: vec![LinkInput {
                object,
                path: "lib/libc.a".parse().unwrap(),
                members: vec!["puts.lo".to_owned(), "write.lo".to_owned()],
            }],
        };
        let json = link.to_json().unwrap();
        insta::assert_snapshot!(String::from_utf8(json.clone()).unwrap(), @r#"[{"members":["puts.lo","write.lo"],"object":"/kiln/store/ambqgaydambqgaydambqgaydambqgaydambqgaydambqgaydambq-musl-1","path":"lib/libc.a"}]"#);
        assert_eq!(Link::from_json(&json), Some(link));
        assert_eq!(Link::from_json(b"[{}]"), None);
    }
}
