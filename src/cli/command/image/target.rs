//! Where an image goes, as typed: `oci:DIR:TAG`, `oci-archive:FILE`, `docker-archive:FILE`,
//! `docker://HOST/NAME:TAG`; and putting it there.

use std::path::PathBuf;

use crate::cli::hints;
use crate::cli::progress::bytes;
use crate::cli::report::{Failure, Problem};
use crate::cli::session::{Session, registry};
use crate::image::archive::{self, Existing, Format, Naming};
use crate::image::registry::Reference;
use crate::image::registry::reference::{is_repository, is_tag};
use crate::image::{Image, Parcel, Pushed, Tag, layout, push};

/// Where an image goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::cli::command) enum Target {
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
pub(in crate::cli::command) fn parse(text: &str) -> Result<Target, Failure> {
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

/// Puts an image where it was asked for, and returns the place in words.
pub(super) fn put_image(
    session: &Session,
    image: &Image,
    target: &Target,
    existing: Existing,
) -> Result<String, Failure> {
    let Target::Archive {
        format: Format::Docker,
        file,
        name,
        tag,
    } = target
    else {
        let parcel = Parcel::of_image(image, &session.store);
        return put(session, &parcel, target, existing, &[]);
    };
    let name = name.as_deref().unwrap_or(&image.name);
    let naming = Naming::Docker { image, name, tag };
    // There is no way to name in one what refers to an image.
    let image = &Image {
        referrers: Vec::new(),
        ..image.clone()
    };
    let parcel = Parcel::of_image(image, &session.store);
    archive::write(&parcel, file, &naming, existing).map_err(|error| hints::image(&error))?;
    Ok(format!("docker-archive:{}:{name}:{tag}", file.display()))
}

/// Puts a parcel where it was asked for, and returns the place in words. `sources` are
/// repositories of the same registry that have its blobs.
pub(in crate::cli::command) fn put(
    session: &Session,
    parcel: &Parcel<'_>,
    target: &Target,
    existing: Existing,
    sources: &[Reference],
) -> Result<String, Failure> {
    let failed = |error| hints::image(&error);
    match target {
        Target::Layout { directory, tag } => {
            layout::write(parcel, directory, tag).map_err(failed)?;
            Ok(format!("oci:{}:{tag}", directory.display()))
        }
        Target::Archive {
            format: Format::Oci,
            file,
            tag,
            ..
        } => {
            archive::write(parcel, file, &Naming::Oci(tag), existing).map_err(failed)?;
            Ok(format!("oci-archive:{}:{tag}", file.display()))
        }
        Target::Archive {
            format: Format::Docker,
            ..
        } => Err(
            Problem::new("a Docker archive holds images for one platform only")
                .hint("write an `oci-archive:FILE`, or a Docker archive of each image")
                .into(),
        ),
        Target::Registry(reference) => send(session, parcel, reference, sources),
    }
}

/// Sends a parcel to a registry, and says how much of it was there.
fn send(
    session: &Session,
    parcel: &Parcel<'_>,
    reference: &Reference,
    sources: &[Reference],
) -> Result<String, Failure> {
    let registry = registry(reference)?;
    let sources: Vec<String> = sources
        .iter()
        .filter(|source| source.host == reference.host)
        .map(|source| source.repository.clone())
        .collect();
    let bar = session.output.bytes_bar(parcel.size_bytes(), "sent");
    let pushed = push(&session.store, parcel, &registry, &sources, &|bytes| {
        bar.inc(bytes);
    });
    bar.finish_and_clear();
    let Pushed {
        sent,
        mounted,
        there,
    } = pushed.map_err(|error| hints::image(&error))?;
    let blobs = |(count, size): (usize, u64)| format!("{count} blobs, {}", bytes(size));
    session.output.tell(&format!(
        "sent {} to {reference}; mounted {}; there were {}",
        blobs(sent),
        blobs(mounted),
        blobs(there)
    ));
    Ok(format!("docker://{reference}"))
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
