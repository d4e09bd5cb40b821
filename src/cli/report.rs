//! The only printing: results on stdout, problems on stderr, both also as JSON.

use std::io::{IsTerminal as _, Write as _};

use anstyle::{AnsiColor, Style};
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::{Value, json};

use super::arguments::Arguments;
use super::diagnostic;
use crate::derivation::Diagnostic;
use crate::store::Lacking;

/// What a command found out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Answer {
    /// Done, or yes.
    Yes,
    /// The answer is no: not reproducible, a policy violated, damage found.
    No,
    /// Part of it could not be done. What could is reported, and so is why.
    Failed,
}

/// Why a command could not do what was asked.
#[derive(Debug)]
pub enum Failure {
    /// Problems at places in files.
    Diagnostics(Vec<Diagnostic>),
    /// Anything else, possibly several.
    Problems(Vec<Problem>),
}

/// What went wrong, why, and what to do next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// What failed and where.
    pub message: String,
    /// The chain of causes, nearest first.
    pub because: Vec<String>,
    /// Lines that belong to it, such as the end of a log.
    pub details: Vec<String>,
    /// The next steps.
    pub hints: Vec<String>,
}

impl Failure {
    /// Returns it for programs.
    pub fn documents(&self) -> Vec<Value> {
        match self {
            Self::Diagnostics(all) => all.iter().map(diagnostic::document).collect(),
            Self::Problems(all) => all.iter().map(document).collect(),
        }
    }
}

impl Problem {
    /// States what failed.
    pub fn new(message: impl Into<String>) -> Self {
        Self {
            message: message.into(),
            because: Vec::new(),
            details: Vec::new(),
            hints: Vec::new(),
        }
    }

    /// States an error with its chain of causes.
    pub fn from_error(error: &dyn std::error::Error) -> Self {
        let mut problem = Self::new(error.to_string());
        let mut cause = error.source();
        while let Some(error) = cause {
            let text = error.to_string();
            // A transparent error says what its cause says, SQLite's with a number.
            let said = problem.because.last();
            if !said.is_some_and(|said| text.ends_with(said.as_str())) && problem.message != text {
                problem.because.push(text);
            }
            cause = error.source();
        }
        problem
    }

    /// Adds a cause.
    #[must_use]
    pub fn because(mut self, because: impl Into<String>) -> Self {
        self.because.push(because.into());
        self
    }

    /// Adds a next step.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hints.push(hint.into());
        self
    }
}

impl From<Problem> for Failure {
    fn from(problem: Problem) -> Self {
        Self::Problems(vec![problem])
    }
}

/// Where and how things are printed.
#[derive(Debug, Clone, Copy)]
pub struct Output {
    /// Results as JSON.
    pub json: bool,
    /// Colour on stderr.
    pub color: bool,
    /// Someone looks at stderr as it is written.
    pub live: bool,
    /// Show every line that builds write.
    pub verbose: bool,
}

const ERROR: Style = AnsiColor::Red.on_default().bold();
const NOTE: Style = AnsiColor::Cyan.on_default().bold();

impl Output {
    /// Decides from the arguments and from where the streams lead.
    pub fn new(arguments: &Arguments) -> Self {
        let terminal = std::io::stderr().is_terminal();
        let color = match arguments.color {
            clap::ColorChoice::Always => true,
            clap::ColorChoice::Never => false,
            clap::ColorChoice::Auto => {
                anstream::AutoStream::choice(&std::io::stderr()) != anstream::ColorChoice::Never
            }
        };
        Self {
            json: arguments.json,
            color,
            live: terminal,
            verbose: arguments.verbose,
        }
    }

    /// Prints one result line; a reader that has gone away has seen enough.
    pub fn line(&self, text: &str) {
        self.bytes(format!("{text}\n").as_bytes());
    }

    /// Prints many result lines at once.
    pub fn lines(&self, lines: impl IntoIterator<Item = String>) {
        let mut text = String::new();
        for line in lines {
            text.push_str(&line);
            text.push('\n');
        }
        self.bytes(text.as_bytes());
    }

    /// Prints result bytes as they are.
    pub fn bytes(&self, bytes: &[u8]) {
        if std::io::stdout().lock().write_all(bytes).is_err() {
            std::process::exit(0);
        }
    }

    /// Prints the result as one JSON document, keys sorted.
    pub fn document(&self, document: &Value) {
        let text = serde_json::to_string_pretty(document).unwrap_or_default();
        self.line(&text);
    }

    /// Returns a bar for work that takes a while; nothing is drawn unless someone looks.
    pub fn bar(&self, total: u64, what: &str) -> ProgressBar {
        self.bar_with(
            total,
            &format!("{{bar:24}} {{pos}}/{{len}} {what}, {{elapsed}}"),
        )
    }

    /// Returns a bar for bytes.
    pub fn bytes_bar(&self, total: u64, what: &str) -> ProgressBar {
        self.bar_with(
            total,
            &format!("{{bar:24}} {{bytes}} of {{total_bytes}} {what}, {{elapsed}}"),
        )
    }

    fn bar_with(&self, total: u64, template: &str) -> ProgressBar {
        if !self.live {
            return ProgressBar::hidden();
        }
        let style = ProgressStyle::with_template(template);
        ProgressBar::new(total).with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()))
    }

    /// Tells something on stderr; if nobody listens any more, that is no reason to stop.
    pub fn tell(&self, text: &str) {
        let line = format!("{text}\n");
        if anstream::stderr().write_all(line.as_bytes()).is_err() {
            tracing::trace!("nobody reads what is told");
        }
    }

    /// Reports why a command could not do it.
    pub fn failure(&self, failure: &Failure) {
        if self.json {
            self.document(&json!({ "errors": failure.documents() }));
        }
        self.failure_beside(failure);
    }

    /// Reports why part of something could not be done, beside a result that says so too.
    pub fn failure_beside(&self, failure: &Failure) {
        match failure {
            Failure::Diagnostics(all) => self.tell(&diagnostic::render(all, self.color)),
            Failure::Problems(all) => {
                for problem in all {
                    self.tell(&render(problem, self.color));
                }
            }
        }
    }
}

fn paint(style: Style, text: &str, color: bool) -> String {
    if color {
        format!("{style}{text}{style:#}")
    } else {
        text.to_owned()
    }
}

/// Says that something counts only where `--weak-sandbox` says so.
pub fn not_hermetic(what: impl std::fmt::Display, lacking: &Lacking) -> String {
    format!("{what} is not hermetic: built {}", without(lacking))
}

/// Says what a sandbox did without.
pub fn without(lacking: &Lacking) -> String {
    let names: Vec<&str> = lacking.names().collect();
    format!("without {}", names.join(", "))
}

/// Returns a problem in the house form.
pub fn render(problem: &Problem, color: bool) -> String {
    let mut text = format!("{} {}", paint(ERROR, "error:", color), problem.message);
    for cause in &problem.because {
        text.push_str(&format!("\n  {} {cause}", paint(NOTE, "because:", color)));
    }
    for line in &problem.details {
        text.push_str(&format!("\n  | {line}"));
    }
    for hint in &problem.hints {
        text.push_str(&format!("\n  {} {hint}", paint(NOTE, "hint:", color)));
    }
    text
}

fn document(problem: &Problem) -> Value {
    json!({
        "message": problem.message,
        "because": problem.because,
        "details": problem.details,
        "hints": problem.hints,
    })
}
