//! What objects need, by their numbers in the database.
//!
//! An object is registered after what it names, so its number is the larger one, and one
//! way down finds a closure: all that needs an object was seen before it. Where many
//! numbers of a page are needed, its rows are read together, else one by one; so the time
//! grows with the closure and not with the store, and a large closure costs a scan. An
//! order that is broken costs time only: such an object's page is gone through again.

use std::collections::BTreeMap;

use rusqlite::{Connection, Row, Statement};

/// Numbers of one page.
const NUMBERS: i64 = 1024;
/// From so many needed numbers on, a page is read as a whole.
const DENSE: u32 = 64;

/// A set of numbers.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Numbers {
    pages: BTreeMap<i64, Page>,
}

/// Which numbers of a page are in a set.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Page([u64; 16]);

impl Page {
    fn word(number: i64) -> (usize, u64) {
        let place = number.rem_euclid(NUMBERS).unsigned_abs();
        (usize::try_from(place / 64).unwrap_or(0), 1 << (place % 64))
    }

    fn insert(&mut self, number: i64) {
        let (word, bit) = Self::word(number);
        if let Some(word) = self.0.get_mut(word) {
            *word |= bit;
        }
    }

    fn contains(&self, number: i64) -> bool {
        let (word, bit) = Self::word(number);
        self.0.get(word).is_some_and(|word| word & bit != 0)
    }

    fn len(&self) -> u32 {
        self.0.iter().map(|word| word.count_ones()).sum()
    }

    fn without(self, other: Self) -> Self {
        let mut left = self;
        for (word, other) in left.0.iter_mut().zip(other.0) {
            *word &= !other;
        }
        left
    }
}

impl Numbers {
    pub(super) fn insert(&mut self, number: i64) {
        self.pages
            .entry(number.div_euclid(NUMBERS))
            .or_default()
            .insert(number);
    }

    pub(super) fn contains(&self, number: i64) -> bool {
        self.pages
            .get(&number.div_euclid(NUMBERS))
            .is_some_and(|page| page.contains(number))
    }

    /// Calls `see` with the row of each number. `statement` selects the rows of a range of
    /// numbers, given by its two ends; a row's first column is its number.
    pub(super) fn rows(
        &self,
        statement: &mut Statement<'_>,
        mut see: impl FnMut(&Row<'_>) -> rusqlite::Result<()>,
    ) -> rusqlite::Result<()> {
        for (at, page) in &self.pages {
            let mut page = *page;
            page_rows(statement, *at, &mut page, |_, row| see(row))?;
        }
        Ok(())
    }
}

/// Calls `see` with each row of a page's numbers, and with the page, which may be given
/// more numbers that are smaller than the row's.
fn page_rows(
    statement: &mut Statement<'_>,
    at: i64,
    page: &mut Page,
    mut see: impl FnMut(&mut Page, &Row<'_>) -> rusqlite::Result<()>,
) -> rusqlite::Result<()> {
    let first = at * NUMBERS;
    let last = first + (NUMBERS - 1);
    if page.len() >= DENSE {
        let mut rows = statement.query([first, last])?;
        while let Some(row) = rows.next()? {
            if page.contains(row.get(0)?) {
                see(page, row)?;
            }
        }
        return Ok(());
    }
    for number in (first..=last).rev() {
        if page.contains(number) {
            let mut rows = statement.query([number, number])?;
            while let Some(row) = rows.next()? {
                see(page, row)?;
            }
        }
    }
    Ok(())
}

/// Adds to some objects' numbers those of all that they need; `edge` is told of each
/// object of the closure that names another, and of that one.
pub(super) fn reach(
    connection: &Connection,
    starts: Numbers,
    mut edge: impl FnMut(i64, i64),
) -> rusqlite::Result<Numbers> {
    let mut statement = connection.prepare_cached(
        "SELECT object, target FROM edges WHERE object BETWEEN ?1 AND ?2 ORDER BY object DESC",
    )?;
    let (mut wanted, mut reached) = (starts, Numbers::default());
    while let Some((at, page)) = wanted.pages.pop_last() {
        let done = reached.pages.get(&at).copied().unwrap_or_default();
        let mut page = page.without(done);
        page_rows(&mut statement, at, &mut page, |page, row| {
            let (object, target): (i64, i64) = (row.get(0)?, row.get(1)?);
            edge(object, target);
            let here = target.div_euclid(NUMBERS) == at;
            if reached.contains(target) || here && page.contains(target) {
                return Ok(());
            }
            if here && target < object {
                page.insert(target);
            } else {
                wanted.insert(target);
            }
            Ok(())
        })?;
        let reached = reached.pages.entry(at).or_default();
        for (word, more) in reached.0.iter_mut().zip(page.0) {
            *word |= more;
        }
    }
    Ok(reached)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    fn database(edges: &BTreeSet<(i64, i64)>) -> Connection {
        let connection = Connection::open_in_memory().unwrap();
        let schema = "CREATE TABLE edges (object, target, PRIMARY KEY (object, target))";
        connection.execute(schema, []).unwrap();
        for (object, target) in edges {
            connection
                .execute("INSERT INTO edges VALUES (?1, ?2)", [object, target])
                .unwrap();
        }
        connection
    }

    /// What SQLite itself finds.
    fn recursive(connection: &Connection, start: i64) -> BTreeSet<i64> {
        connection
            .prepare(
                "WITH RECURSIVE closure (id) AS (SELECT ?1
                   UNION SELECT e.target FROM edges e JOIN closure c ON e.object = c.id)
                 SELECT id FROM closure",
            )
            .unwrap()
            .query_map([start], |row| row.get(0))
            .unwrap()
            .collect::<rusqlite::Result<_>>()
            .unwrap()
    }

    /// Numbers on several pages, many in one of them, and those at the ends.
    fn number() -> impl Strategy<Value = i64> {
        prop_oneof![
            8 => 0..150_i64,
            2 => 1000..3000_i64,
            1 => prop_oneof![Just(i64::MAX), Just(i64::MIN), Just(-1)],
        ]
    }

    proptest! {
        #[test]
        fn finds_what_a_recursive_query_finds_in_any_order(
            edges in prop::collection::btree_set((number(), number()), 0..600),
            start in number(),
        ) {
            let connection = database(&edges);
            let mut seen = Vec::new();
            let mut starts = Numbers::default();
            starts.insert(start);
            let found = reach(&connection, starts, |object, target| seen.push((object, target)));
            let found = found.unwrap();
            let expected = recursive(&connection, start);
            let mut all = Numbers::default();
            expected.iter().for_each(|number| all.insert(*number));
            prop_assert_eq!(found, all);
            // Each edge of the closure once.
            seen.sort_unstable();
            let inside: Vec<(i64, i64)> =
                edges.into_iter().filter(|(object, _)| expected.contains(object)).collect();
            prop_assert_eq!(seen, inside);
        }
    }
}
