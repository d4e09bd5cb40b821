//! `kiln index`.

use serde_json::json;

use super::image::target;
use super::inspect::{Bar, open, registry_image};
use crate::cli::arguments::IndexArguments;
use crate::cli::hints;
use crate::cli::report::{Answer, Failure, Problem};
use crate::cli::session::Session;
use crate::image::archive::Existing;
use crate::join::{JoinError, Joined, Part, join};

pub(in crate::cli) fn run(
    session: &Session,
    arguments: &IndexArguments,
) -> Result<Answer, Failure> {
    let targets = arguments.output.iter().map(|text| target::parse(text));
    let targets = targets.collect::<Result<Vec<_>, _>>()?;
    let mut parts = Vec::new();
    let mut sources = Vec::new();
    for image in &arguments.images {
        sources.extend(registry_image(image)?);
        parts.push(Part {
            name: image.clone(),
            opened: open(image)?,
        });
    }
    let scratch = session.store.scratch();
    let scratch = scratch.map_err(|error| hints::store(&error))?;
    let bar = Bar(session.output.bytes_bar(0, "read"));
    let joined = join(&parts, scratch.path(), &bar);
    bar.0.finish_and_clear();
    let joined = joined.map_err(|error| failure(&error))?;
    let existing = if arguments.force {
        Existing::Replace
    } else {
        Existing::ReplaceOwn
    };
    let parcel = joined.parcel();
    let mut places = Vec::new();
    for target in &targets {
        places.push(target::put(session, &parcel, target, existing, &sources)?);
    }
    print(session, &joined, &places);
    Ok(Answer::Yes)
}

fn print(session: &Session, joined: &Joined, places: &[String]) {
    let output = &session.output;
    let digest = format!("sha256:{}", joined.index.digest);
    if output.json {
        let images = joined.platforms.iter().map(|(platform, digest)| {
            json!({ "platform": platform.to_string(), "digest": format!("sha256:{digest}") })
        });
        output.document(&json!({
            "digest": digest,
            "places": places,
            "images": images.collect::<Vec<_>>(),
        }));
        return;
    }
    for place in places {
        output.line(&format!("image   {place}"));
    }
    output.line(&format!("digest  {digest}"));
    let names = joined.platforms.keys().map(ToString::to_string);
    let width = names.map(|name| name.chars().count()).max().unwrap_or(0);
    for (platform, digest) in &joined.platforms {
        let platform = platform.to_string();
        output.line(&format!("  {platform:width$}  sha256:{digest}"));
    }
}

fn failure(error: &JoinError) -> Failure {
    let problem = Problem::from_error(error);
    match error {
        JoinError::Unreadable { image, source } => hints::inspect(source, image),
        JoinError::Image(error) => hints::image(error),
        JoinError::NoManifest(archive) => problem
            .hint(format!(
                "copy it first: `skopeo copy docker-archive:{} oci:DIR`",
                archive.trim_start_matches("docker-archive:")
            ))
            .into(),
        JoinError::SamePlatform { first, second, .. } if first == second => problem
            .hint("name a tag after the path, as in `oci:DIR:TAG`")
            .into(),
        JoinError::SamePlatform { .. } => problem.hint("name one of them only").into(),
        JoinError::NotLinux { .. } => problem.hint("leave it out").into(),
        JoinError::Access { .. } => problem
            .hint("the store's file system needs room for all images")
            .into(),
    }
}
