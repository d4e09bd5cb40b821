//! Graphs as pictures: in the DOT language, and as SVG without any other program.
//!
//! The SVG has one column for each distance from the start (the longest way counts, so
//! that every line leads to the right); in a column, nodes stand near what leads to them.

use std::collections::BTreeMap;
use std::fmt::Write as _;

/// Something to draw: nodes by place, and lines between them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Drawing {
    /// What each node says: a name, and a line of small print.
    pub nodes: Vec<(String, String)>,
    /// From which node to which, by place; sorted.
    pub lines: Vec<(usize, usize)>,
}

const WIDTH: usize = 220;
const HEIGHT: usize = 40;
const COLUMN_GAP: usize = 80;
const ROW_GAP: usize = 14;
const MARGIN: usize = 20;

/// Characters of a name that fit into a node.
const FITTING: usize = 30;

impl Drawing {
    /// Returns the graph in the DOT language of Graphviz.
    pub fn dot(&self) -> String {
        let mut out = String::from(
            "digraph kiln {\n  rankdir=LR;\n  node [shape=box, style=rounded, fontname=\"sans-serif\"];\n",
        );
        for (place, (name, note)) in self.nodes.iter().enumerate() {
            let label = [name, note].map(|text| text.replace('\\', "\\\\").replace('"', "\\\""));
            let [name, note] = label;
            line(
                &mut out,
                &format!("  n{place} [label=\"{name}\\n{note}\"];"),
            );
        }
        for (from, to) in &self.lines {
            line(&mut out, &format!("  n{from} -> n{to};"));
        }
        out.push_str("}\n");
        out
    }

    /// Returns the graph as an SVG document.
    pub fn svg(&self) -> String {
        let columns = self.columns();
        let mut places: BTreeMap<usize, (usize, usize)> = BTreeMap::new();
        for (number, column) in columns.iter().enumerate() {
            for (row, node) in column.iter().enumerate() {
                let x = MARGIN + number * (WIDTH + COLUMN_GAP);
                places.insert(*node, (x, MARGIN + row * (HEIGHT + ROW_GAP)));
            }
        }
        let rows = columns.iter().map(Vec::len).max().unwrap_or(0);
        let width = 2 * MARGIN + columns.len() * (WIDTH + COLUMN_GAP);
        let height = 2 * MARGIN + rows * (HEIGHT + ROW_GAP);
        let mut out = format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width} {height}\" \
             width=\"{width}\" height=\"{height}\" font-family=\"sans-serif\">\n\
             <rect width=\"100%\" height=\"100%\" fill=\"#ffffff\"/>\n"
        );
        for (from, to) in &self.lines {
            if let (Some((x, y)), Some((to_x, to_y))) = (places.get(from), places.get(to)) {
                let (x, y, to_y) = (x + WIDTH, y + HEIGHT / 2, to_y + HEIGHT / 2);
                let (bend, back) = (x + COLUMN_GAP / 2, to_x.saturating_sub(COLUMN_GAP / 2));
                line(
                    &mut out,
                    &format!(
                        "<path d=\"M{x} {y} C{bend} {y} {back} {to_y} {to_x} {to_y}\" fill=\"none\" stroke=\"#8a94a6\"/>"
                    ),
                );
            }
        }
        for (place, (name, note)) in self.nodes.iter().enumerate() {
            let Some((x, y)) = places.get(&place) else {
                continue;
            };
            line(&mut out, &node(*x, *y, name, note));
        }
        out.push_str("</svg>\n");
        out
    }

    /// Returns the nodes column by column, each in the order in which it is drawn.
    fn columns(&self) -> Vec<Vec<usize>> {
        let mut depth = vec![0_usize; self.nodes.len()];
        // Each round settles one more column; a circle, which no closure has, ends it too.
        for _ in 0..self.nodes.len() {
            let mut moved = false;
            for (from, to) in &self.lines {
                let next = depth.get(*from).map_or(0, |from| from + 1);
                if let Some(own) = depth.get_mut(*to)
                    && *own < next
                {
                    (*own, moved) = (next, true);
                }
            }
            if !moved {
                break;
            }
        }
        let count = depth.iter().max().map_or(0, |deepest| deepest + 1);
        let mut columns: Vec<Vec<usize>> = vec![Vec::new(); count];
        for (node, depth) in depth.iter().enumerate() {
            if let Some(column) = columns.get_mut(*depth) {
                column.push(node);
            }
        }
        let mut leading: BTreeMap<usize, Vec<usize>> = BTreeMap::new();
        for (from, to) in &self.lines {
            leading.entry(*to).or_default().push(*from);
        }
        let mut rows: BTreeMap<usize, usize> = BTreeMap::new();
        for column in &mut columns {
            // Scaled, because the mean of rows is rarely a whole number.
            column.sort_by_key(|node| {
                let above: Vec<usize> = leading
                    .get(node)
                    .into_iter()
                    .flatten()
                    .filter_map(|from| rows.get(from).copied())
                    .collect();
                let mean = (above.iter().sum::<usize>() * 1000).checked_div(above.len());
                (mean.unwrap_or(0), *node)
            });
            rows.extend(column.iter().enumerate().map(|(row, node)| (*node, row)));
        }
        columns
    }
}

fn node(x: usize, y: usize, name: &str, note: &str) -> String {
    let mut shown: String = name.chars().take(FITTING).collect();
    if shown != name {
        shown.pop();
        shown.push('…');
    }
    let (text_x, first, second) = (x + 10, y + 17, y + 32);
    format!(
        "<g><title>{}</title><rect x=\"{x}\" y=\"{y}\" width=\"{WIDTH}\" height=\"{HEIGHT}\" rx=\"6\" \
         fill=\"#eef2f8\" stroke=\"#5b6b86\"/>\
         <text x=\"{text_x}\" y=\"{first}\" font-size=\"13\" fill=\"#1b2433\">{}</text>\
         <text x=\"{text_x}\" y=\"{second}\" font-size=\"10\" fill=\"#5b6b86\">{}</text></g>",
        escape(name),
        escape(&shown),
        escape(note)
    )
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
        .replace('"', "&quot;")
}

fn line(out: &mut String, text: &str) {
    writeln!(out, "{text}").expect("writing to a string cannot fail");
}

#[cfg(test)]
mod tests {
    use super::*;

    fn drawing(lines: &[(usize, usize)]) -> Drawing {
        let last = lines.iter().map(|(from, to)| *from.max(to)).max().unwrap();
        Drawing {
            nodes: (0..=last)
                .map(|node| (format!("<{node}>"), "1 \"KiB\"".to_owned()))
                .collect(),
            lines: lines.to_vec(),
        }
    }

    #[test]
    fn every_line_leads_to_a_later_column() {
        let columns = drawing(&[(0, 1), (0, 2), (0, 3), (1, 3), (2, 1), (3, 4)]).columns();
        assert_eq!(columns, [vec![0], vec![2], vec![1], vec![3], vec![4]]);
    }

    #[test]
    fn nodes_stand_near_what_leads_to_them() {
        let columns = drawing(&[(0, 1), (0, 2), (1, 4), (2, 3)]).columns();
        assert_eq!(columns, [vec![0], vec![1, 2], vec![4, 3]]);
    }

    #[test]
    fn a_circle_ends() {
        assert!(!drawing(&[(0, 1), (1, 0)]).columns().is_empty());
    }

    #[test]
    fn names_are_quoted_in_both_languages() {
        let drawing = drawing(&[(0, 1)]);
        insta::assert_snapshot!(drawing.dot(), @r#"
        digraph kiln {
          rankdir=LR;
          node [shape=box, style=rounded, fontname="sans-serif"];
          n0 [label="<0>\n1 \"KiB\""];
          n1 [label="<1>\n1 \"KiB\""];
          n0 -> n1;
        }
        "#);
        let svg = drawing.svg();
        assert!(svg.contains("&lt;0&gt;") && !svg.contains("<0>"), "{svg}");
        assert_eq!(svg.matches("<path").count(), 1);
    }
}
