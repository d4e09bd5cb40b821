//! What one thing has and another has not, line by line.

use serde_json::{Value, json};

use crate::cli::progress::bytes;
use crate::cli::report::{Answer, Output};
use crate::inspect::printable;

/// One line of the answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Row {
    /// `added`, `removed` or `changed`.
    pub word: &'static str,
    /// A path, or an object's name.
    pub what: String,
    /// How it changed, in words; empty for what is only on one side.
    pub how: String,
    /// By how many bytes the second side is larger here.
    pub growth_bytes: i64,
}

/// Prints the lines and their sum; in JSON, `key` says what a line speaks of. The answer
/// is yes if there is no difference.
pub(super) fn report(rows: &[Row], key: &str, output: &Output) -> Answer {
    if output.json {
        let differences: Vec<Value> = rows
            .iter()
            .map(|row| {
                json!({
                    "change": row.word,
                    key: row.what,
                    "how": row.how,
                    "growth_bytes": row.growth_bytes,
                })
            })
            .collect();
        output.document(&json!({ "differences": differences }));
    } else {
        output.lines(rows.iter().map(line));
        let count = |word: &str| rows.iter().filter(|row| row.word == word).count();
        output.tell(&format!(
            "{} added, {} removed, {} changed, {} in all",
            count("added"),
            count("removed"),
            count("changed"),
            signed(rows.iter().map(|row| row.growth_bytes).sum())
        ));
    }
    if rows.is_empty() {
        Answer::Yes
    } else {
        Answer::No
    }
}

fn line(row: &Row) -> String {
    let how = if row.how.is_empty() {
        String::new()
    } else {
        format!(" ({})", row.how)
    };
    let growth = signed(row.growth_bytes);
    printable(&format!("{:<8} {growth:>12}  {}{how}", row.word, row.what))
}

fn signed(growth_bytes: i64) -> String {
    let sign = if growth_bytes < 0 { "-" } else { "+" };
    format!("{sign}{}", bytes(growth_bytes.unsigned_abs()))
}
