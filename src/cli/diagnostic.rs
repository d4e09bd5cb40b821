//! Drawing diagnostics: the line of the file with the place marked.

use annotate_snippets::{AnnotationKind, Level, Renderer, Snippet};
use serde_json::{Value, json};

use crate::derivation::Diagnostic;

/// Returns diagnostics as text for people, in order.
pub fn render(diagnostics: &[Diagnostic], color: bool) -> String {
    let renderer = if color {
        Renderer::styled()
    } else {
        Renderer::plain()
    };
    let texts: Vec<String> = diagnostics
        .iter()
        .map(|diagnostic| render_one(diagnostic, &renderer))
        .collect();
    texts.join("\n\n")
}

fn render_one(diagnostic: &Diagnostic, renderer: &Renderer) -> String {
    let text = &diagnostic.file.text;
    let start = diagnostic.span.start.min(text.len());
    let end = diagnostic.span.end.clamp(start, text.len());
    let mark = AnnotationKind::Primary.span(start..end);
    let mark = match &diagnostic.label {
        Some(label) => mark.label(label.as_str()),
        None => mark,
    };
    let snippet = Snippet::source(text.as_str())
        .path(diagnostic.file.shown.as_str())
        .annotation(mark);
    let group = Level::ERROR
        .primary_title(diagnostic.message.as_str())
        .element(snippet);
    let mut rendered = renderer.render(&[group]);
    if let Some(because) = &diagnostic.because {
        rendered.push_str(&format!("\n  because: {because}"));
    }
    if let Some(hint) = &diagnostic.hint {
        rendered.push_str(&format!("\n  hint: {hint}"));
    }
    rendered
}

/// Returns a diagnostic for programs.
pub fn document(diagnostic: &Diagnostic) -> Value {
    let (line, column) = diagnostic.position();
    json!({
        "message": diagnostic.message,
        "file": diagnostic.file.shown,
        "line": line,
        "column": column,
        "because": diagnostic.because.iter().collect::<Vec<_>>(),
        "hints": diagnostic.hint.iter().collect::<Vec<_>>(),
    })
}
