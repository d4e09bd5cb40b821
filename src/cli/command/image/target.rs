//! Where an image goes, as typed: `oci:DIR:TAG`, `oci-archive:FILE`, `docker-archive:FILE`,
//! `docker://HOST/NAME:TAG`.

use std::path::PathBuf;

use crate::cli::report::{Failure, Problem};
use crate::image::Tag;
use crate::image::archive::Format;
use crate::image::registry::Reference;
use crate::image::registry::reference::{is_repository, is_tag};

/// Where an image goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Target {
    /// A layout directory.
    Layout {
        /// The directory.
        directory: PathBuf,
        /// What the image is called in it.
        tag: Tag,
    },
    /// An archive file.
    Archive {
        /// Which programs it is for.
        format: Format,
        /// The file.
        file: PathBuf,
        /// The name that engines give it; `None` for the image's own.
        name: Option<String>,
        /// What the image is called in it.
        tag: Tag,
    },
    /// A registry.
    Registry(Reference),
}

/// Reads a target.
pub(super) fn parse(text: &str) -> Result<Target, Failure> {
    let (scheme, rest) = text.split_once(':').unwrap_or((text, ""));
    let target = match scheme {
        _ if rest.is_empty() => None,
        "oci" => {
            let (directory, tag) = path_and_tag(rest);
            Some(Target::Layout {
                directory: directory.into(),
                tag,
            })
        }
        "oci-archive" => {
            let (file, tag) = path_and_tag(rest);
            Some(Target::Archive {
                format: Format::Oci,
                file: file.into(),
                name: None,
                tag,
            })
        }
        "docker-archive" => docker_archive(rest),
        "docker" => {
            let reference = rest.strip_prefix("//").unwrap_or(rest);
            let reference = reference.parse::<Reference>().map_err(|problem| {
                Problem::new(format!("`{text}` is not a place for an image"))
                    .because(problem)
                    .hint("write `docker://HOST/NAME[:TAG]`")
            })?;
            if reference.tag().contains(':') {
                return Err(Problem::new("an image goes to a tag, not to a digest")
                    .hint("write `docker://HOST/NAME[:TAG]`; the digest follows from the image")
                    .into());
            }
            Some(Target::Registry(reference))
        }
        _ => None,
    };
    target.ok_or_else(|| {
        Problem::new(format!("`{text}` is not a place for an image"))
            .hint("write `oci:DIR[:TAG]`, `oci-archive:FILE[:TAG]`, `docker-archive:FILE[:NAME:TAG]` or `docker://HOST/NAME[:TAG]`")
            .into()
    })
}

/// Splits a tag off a path. What follows a colon and could be a file below is no tag.
fn path_and_tag(text: &str) -> (&str, Tag) {
    match text.rsplit_once(':') {
        Some((path, tag)) if !path.is_empty() && is_tag(tag) => (path, Tag::Named(tag.to_owned())),
        _ => (text, Tag::Default),
    }
}

fn docker_archive(text: &str) -> Option<Target> {
    let (file, name, tag) = match text.split_once(':') {
        None => (text, None, Tag::Default),
        Some((file, reference)) => {
            let (name, tag) = reference.rsplit_once(':')?;
            if file.is_empty() || !is_repository(name) || !is_tag(tag) {
                return None;
            }
            (file, Some(name.to_owned()), Tag::Named(tag.to_owned()))
        }
    };
    Some(Target::Archive {
        format: Format::Docker,
        file: file.into(),
        name,
        tag,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn layout(text: &str) -> Option<(String, Tag)> {
        match parse(text).ok()? {
            Target::Layout { directory, tag } => Some((directory.display().to_string(), tag)),
            Target::Archive { .. } | Target::Registry(_) => None,
        }
    }

    #[test]
    fn a_tag_stands_after_the_last_colon() {
        let named = |tag: &str| Tag::Named(tag.to_owned());
        for (text, directory, tag) in [
            ("oci:out", "out", Tag::Default),
            ("oci:out:1.2", "out", named("1.2")),
            ("oci:/a:b/c", "/a:b/c", Tag::Default),
            ("oci:/a:b/c:v1", "/a:b/c", named("v1")),
            ("oci:out:-x", "out:-x", Tag::Default),
        ] {
            assert_eq!(layout(text), Some((directory.to_owned(), tag)), "{text}");
        }
    }

    #[test]
    fn an_archive_for_docker_takes_a_name_and_a_tag() {
        for (text, good) in [
            ("docker-archive:x.tar", true),
            ("docker-archive:x.tar:team/web:1", true),
            ("docker-archive:x.tar:web", false),
            ("docker-archive:x.tar:Web:1", false),
            ("docker-archive::web:1", false),
            ("zip:x", false),
            ("oci:", false),
            ("x", false),
        ] {
            assert_eq!(parse(text).is_ok(), good, "{text}");
        }
    }
}
