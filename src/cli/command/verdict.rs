//! What a policy says of an image, for people and for programs.

use serde_json::{Value, json};

use crate::derivation::{Exception, Rule};
use crate::hash::RelPath;
use crate::policy::{Remark, Verdict};

/// Returns a path as a program in the image sees it; `None` is the whole image.
pub(super) fn absolute(path: Option<&RelPath>) -> Option<String> {
    path.map(|path| format!("/{path}"))
}

/// Sets a key of a JSON object.
pub(super) fn set(document: &mut Value, key: &str, value: Value) {
    if let Value::Object(map) = document {
        map.insert(key.to_owned(), value);
    }
}

/// Returns a remark for programs.
pub(super) fn remark(remark: &Remark) -> Value {
    json!({ "path": absolute(remark.path.as_ref()), "message": remark.message })
}

/// Returns a remark for programs, with the rule that it is about.
pub(super) fn remark_of(rule: Rule, about: &Remark) -> Value {
    let mut document = remark(about);
    set(&mut document, "rule", json!(rule.as_str()));
    document
}

/// Says what an exception was for.
pub(super) fn unused(exception: &Exception) -> String {
    let rule = exception.rule.as_str();
    match &exception.path {
        Some(path) => format!("exception for {rule} at /{path} waives nothing"),
        None => format!("exception for {rule} waives nothing"),
    }
}

/// Returns the exceptions that waive nothing, for programs.
pub(super) fn unused_documents(verdict: &Verdict) -> Vec<Value> {
    let document = |exception: &Exception| {
        json!({
            "rule": exception.rule.as_str(),
            "path": absolute(exception.path.as_ref()),
        })
    };
    verdict.unused.iter().map(document).collect()
}

/// Returns the controls that a rule serves, in words.
pub(super) fn controls(rule: Rule) -> Vec<String> {
    let controls = rule.about().controls.iter();
    controls.map(ToString::to_string).collect()
}
