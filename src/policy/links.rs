//! Where symbolic links of an image lead, as a program in it would follow them.

use crate::hash::{BlobDigest, RelPath};
use crate::listing::image::{ImageListing, Node};

/// Most links that are followed for one path, as Linux does (`MAXSYMLINKS`).
const MAX_LINKS: usize = 40;

/// Where a path ends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum End {
    /// At a file.
    File(RelPath, BlobDigest),
    /// At a directory, the root included.
    Directory,
    /// At a device or pipe.
    Special,
    /// Nowhere.
    Nothing,
    /// In a circle, or after too many links.
    Circle,
    /// At something that the kernel makes when the image runs: `/proc`, `/sys`, `/dev`.
    Kernel,
}

/// Follows a path of an image, links included.
pub(super) fn follow(image: &ImageListing, path: &RelPath) -> End {
    follow_text(image, path.as_str())
}

/// Follows a path that is given as text, from the root.
pub(super) fn follow_text(image: &ImageListing, path: &str) -> End {
    let mut pending: Vec<String> = components(path).rev().collect();
    let mut at: Vec<String> = Vec::new();
    let mut links = 0;
    let mut end = End::Directory;
    while let Some(component) = pending.pop() {
        match component.as_str() {
            ".." => {
                at.pop();
                end = End::Directory;
                continue;
            }
            "." => continue,
            _ => {}
        }
        if end != End::Directory {
            return End::Nothing;
        }
        at.push(component);
        if at.len() == 1 && at.first().is_some_and(|top| is_kernel(top)) && !pending.is_empty() {
            return End::Kernel;
        }
        let Ok(here) = at.join("/").parse::<RelPath>() else {
            return End::Nothing;
        };
        match image.entries.get(&here).map(|entry| &entry.node) {
            None if at.len() == 1 && is_kernel(&here.to_string()) => return End::Kernel,
            None => return End::Nothing,
            Some(Node::Directory) => end = End::Directory,
            Some(Node::File { digest, .. }) => end = End::File(here, *digest),
            Some(Node::Device { .. } | Node::Fifo) => end = End::Special,
            Some(Node::Symlink { target }) => {
                links += 1;
                if links > MAX_LINKS {
                    return End::Circle;
                }
                at.pop();
                if target.starts_with('/') {
                    at.clear();
                }
                end = End::Directory;
                pending.extend(components(target).rev());
            }
        }
    }
    end
}

fn is_kernel(top: &str) -> bool {
    ["proc", "sys", "dev"].contains(&top)
}

fn components(path: &str) -> impl DoubleEndedIterator<Item = String> + '_ {
    path.split('/')
        .filter(|component| !component.is_empty())
        .map(str::to_owned)
}

/// Returns whether a link climbs above the root on its way, before any other link is
/// followed: a runtime stops there, another program that unpacks the image may not.
pub(super) fn climbs_out(path: &RelPath, target: &str) -> bool {
    let mut depth = if target.starts_with('/') {
        0
    } else {
        path.components().count() - 1
    };
    for component in target.split('/') {
        match component {
            "" | "." => {}
            ".." if depth == 0 => return true,
            ".." => depth -= 1,
            _ => depth += 1,
        }
    }
    false
}
