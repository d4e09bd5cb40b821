//! Reading a TOML table key by key, collecting every problem on the way.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::str::FromStr;
use std::sync::Arc;

use toml::de::{DeTable, DeValue};

use super::diagnostic::{Diagnostic, SourceFile, Span, Spanned, nearest};

/// A table that is being read. What was never asked for is unknown.
pub(super) struct Fields<'a, 'p> {
    pub file: &'a Arc<SourceFile>,
    table: &'a DeTable<'a>,
    span: Span,
    what: String,
    asked: RefCell<Vec<&'static str>>,
    pub problems: &'p mut Vec<Diagnostic>,
}

impl<'a, 'p> Fields<'a, 'p> {
    pub fn new(
        file: &'a Arc<SourceFile>,
        table: &'a DeTable<'a>,
        span: Span,
        what: impl Into<String>,
        problems: &'p mut Vec<Diagnostic>,
    ) -> Self {
        Self {
            file,
            table,
            span,
            what: what.into(),
            asked: RefCell::default(),
            problems,
        }
    }

    /// Returns where the table stands.
    pub fn span(&self) -> Span {
        self.span.clone()
    }

    /// Returns where a key's value stands; the table's own place where there is none.
    pub fn span_of(&self, key: &str) -> Span {
        self.table
            .get(key)
            .map_or_else(|| self.span(), toml::Spanned::span)
    }

    pub fn has(&self, key: &str) -> bool {
        self.table.contains_key(key)
    }

    /// Returns whether a key holds a text.
    pub fn is_text(&self, key: &str) -> bool {
        let value = self.table.get(key).map(toml::Spanned::get_ref);
        matches!(value, Some(DeValue::String(_)))
    }

    /// Reports a problem and goes on.
    pub fn report(&mut self, diagnostic: Diagnostic) {
        self.problems.push(diagnostic);
    }

    pub fn problem(&mut self, span: Span, message: impl Into<String>) {
        let diagnostic = Diagnostic::new(self.file, span, message);
        self.problems.push(diagnostic);
    }

    fn get(&self, key: &'static str) -> Option<(&'a DeValue<'a>, Span)> {
        self.asked.borrow_mut().push(key);
        self.table
            .get(key)
            .map(|value| (value.get_ref(), value.span()))
    }

    fn wrong_type(&mut self, key: &str, wanted: &str, found: &DeValue<'_>, span: Span) {
        let message = format!(
            "`{key}` is {} {}",
            article(found.type_str()),
            found.type_str()
        );
        let diagnostic = Diagnostic::new(self.file, span, message)
            .label(format!("expected {wanted}"))
            .hint(format!("`{key}` takes {wanted}"));
        self.problems.push(diagnostic);
    }

    pub fn text(&mut self, key: &'static str) -> Option<Spanned<String>> {
        let (value, span) = self.get(key)?;
        match value {
            DeValue::String(text) => Some(Spanned::new(text.clone().into_owned(), &span)),
            other => {
                self.wrong_type(key, "a string", other, span);
                None
            }
        }
    }

    pub fn required(&mut self, key: &'static str) -> Option<Spanned<String>> {
        if !self.has(key) {
            self.asked.borrow_mut().push(key);
            let message = format!("{} has no `{key}`", self.what);
            let diagnostic = Diagnostic::new(self.file, self.span.clone(), message)
                .hint(format!("add `{key} = \"…\"`"));
            self.problems.push(diagnostic);
            return None;
        }
        self.text(key)
    }

    /// Reads a text and parses it.
    pub fn parsed<T: FromStr<Err: std::fmt::Display>>(
        &mut self,
        text: Option<Spanned<String>>,
    ) -> Option<Spanned<T>> {
        let text = text?;
        match text.value.parse() {
            Ok(value) => Some(text.with(value)),
            Err(error) => {
                self.problem(text.range(), error.to_string());
                None
            }
        }
    }

    pub fn flag(&mut self, key: &'static str) -> Option<bool> {
        let (value, span) = self.get(key)?;
        if let DeValue::Boolean(flag) = value {
            return Some(*flag);
        }
        self.wrong_type(key, "`true` or `false`", value, span);
        None
    }

    /// Reads a whole number that is not negative.
    pub fn number(&mut self, key: &'static str) -> Option<u64> {
        let (value, span) = self.get(key)?;
        if let DeValue::Integer(integer) = value
            && let Ok(number) = u64::from_str_radix(integer.as_str(), integer.radix())
        {
            return Some(number);
        }
        self.wrong_type(key, "a whole number", value, span);
        None
    }

    /// Returns whether a key holds a list that starts with a table.
    pub fn is_list_of_tables(&self, key: &str) -> bool {
        matches!(
            self.table.get(key).map(toml::Spanned::get_ref),
            Some(DeValue::Array(items))
                if matches!(items.first().map(toml::Spanned::get_ref), Some(DeValue::Table(_)))
        )
    }

    pub fn texts(&mut self, key: &'static str) -> Vec<Spanned<String>> {
        let Some((value, span)) = self.get(key) else {
            return Vec::new();
        };
        let DeValue::Array(items) = value else {
            self.wrong_type(key, "a list of strings", value, span);
            return Vec::new();
        };
        let mut texts = Vec::new();
        for item in items {
            match item.get_ref() {
                DeValue::String(text) => {
                    texts.push(Spanned::new(text.clone().into_owned(), &item.span()));
                }
                other => self.wrong_type(key, "a string", other, item.span()),
            }
        }
        texts
    }

    /// Reads a list of texts and parses each.
    pub fn parsed_texts<T: FromStr<Err: std::fmt::Display>>(
        &mut self,
        key: &'static str,
    ) -> Vec<Spanned<T>> {
        let texts = self.texts(key);
        texts
            .into_iter()
            .filter_map(|text| self.parsed(Some(text)))
            .collect()
    }

    /// Reads a table of texts.
    pub fn text_map(&mut self, key: &'static str) -> BTreeMap<String, Spanned<String>> {
        let Some((value, span)) = self.get(key) else {
            return BTreeMap::new();
        };
        let DeValue::Table(table) = value else {
            self.wrong_type(key, "a table of strings", value, span);
            return BTreeMap::new();
        };
        let mut map = BTreeMap::new();
        for (name, value) in table {
            match value.get_ref() {
                DeValue::String(text) => {
                    let text = Spanned::new(text.clone().into_owned(), &value.span());
                    map.insert(name.get_ref().clone().into_owned(), text);
                }
                other => self.wrong_type(name.get_ref(), "a string", other, value.span()),
            }
        }
        map
    }

    /// Reads a subtable with a function of its own.
    pub fn table<T>(
        &mut self,
        key: &'static str,
        read: impl FnOnce(&mut Fields<'_, '_>) -> Option<T>,
    ) -> Option<T> {
        let (value, span) = self.get(key)?;
        let DeValue::Table(table) = value else {
            self.wrong_type(key, "a table", value, span);
            return None;
        };
        self.read_table(table, span, format!("`[{key}]`"), read)
    }

    /// Reads a table whose keys are names, each holding a table.
    pub fn tables<T>(
        &mut self,
        key: &'static str,
        mut read: impl FnMut(&Spanned<String>, &mut Fields<'_, '_>) -> Option<T>,
    ) -> Vec<T> {
        let Some((value, span)) = self.get(key) else {
            return Vec::new();
        };
        let DeValue::Table(outer) = value else {
            self.wrong_type(key, "a table of tables", value, span);
            return Vec::new();
        };
        let mut all = Vec::new();
        for (name, value) in outer {
            let name = Spanned::new(name.get_ref().clone().into_owned(), &name.span());
            match value.get_ref() {
                DeValue::Table(table) => {
                    let what = format!("`[{key}.{}]`", name.value);
                    all.extend(self.read_table(table, value.span(), what, |f| read(&name, f)));
                }
                other => self.wrong_type(&name.value, "a table", other, value.span()),
            }
        }
        all
    }

    /// Reads a list of tables.
    pub fn list<T>(
        &mut self,
        key: &'static str,
        mut read: impl FnMut(&mut Fields<'_, '_>) -> Option<T>,
    ) -> Vec<T> {
        let Some((value, span)) = self.get(key) else {
            return Vec::new();
        };
        let DeValue::Array(items) = value else {
            self.wrong_type(key, "a list of tables", value, span);
            return Vec::new();
        };
        let mut all = Vec::new();
        for item in items {
            match item.get_ref() {
                DeValue::Table(table) => {
                    let what = format!("an entry of `{key}`");
                    all.extend(self.read_table(table, item.span(), what, &mut read));
                }
                other => self.wrong_type(key, "a table", other, item.span()),
            }
        }
        all
    }

    fn read_table<T>(
        &mut self,
        table: &'a DeTable<'a>,
        span: Span,
        what: String,
        read: impl FnOnce(&mut Fields<'_, '_>) -> Option<T>,
    ) -> Option<T> {
        let mut fields = Fields::new(self.file, table, span, what, self.problems);
        let result = read(&mut fields);
        fields.finish();
        result
    }

    /// Reports every key that was never asked for.
    pub fn finish(&mut self) {
        let asked = self.asked.borrow().clone();
        for (key, _) in self.table {
            let name: &str = key.get_ref();
            if asked.contains(&name) {
                continue;
            }
            let message = format!("{} has no key `{name}`", self.what);
            let diagnostic = Diagnostic::new(self.file, key.span(), message).label("unknown key");
            let diagnostic = match nearest(name, asked.iter().copied()) {
                Some(near) => diagnostic.hint(format!("did you mean `{near}`?")),
                None => {
                    let mut known = asked.clone();
                    known.sort_unstable();
                    known.dedup();
                    diagnostic.hint(format!("known keys: {}", known.join(", ")))
                }
            };
            self.problems.push(diagnostic);
        }
    }
}

fn article(noun: &str) -> &'static str {
    if noun.starts_with(['a', 'e', 'i', 'o', 'u']) {
        "an"
    } else {
        "a"
    }
}
