//! Words for images that cannot be read.

use crate::cli::report::{Failure, Problem};
use crate::inspect::InspectError;

/// Says why an image cannot be read.
pub(in crate::cli) fn inspect(error: &InspectError, image: &str) -> Failure {
    let mut problem = Problem::new(format!("cannot inspect `{image}`"));
    let whole = Problem::from_error(error);
    problem.because.push(whole.message);
    problem.because.extend(whole.because);
    match error {
        InspectError::Registry(error) => return super::registry(error),
        InspectError::NotAnImage { why, .. } => problem.because(why).hint(
            "name a layout directory or an archive, such as `skopeo copy` and `docker save` make",
        ),
        InspectError::NoSuchImage { known, .. } => {
            problem
                .details
                .extend(known.iter().map(|known| format!("there is {known}")));
            problem.hint("name a tag after the path, as in `oci:DIR:TAG`, or a `--platform`")
        }
        InspectError::Access { .. } => problem.hint("see whether the file is there and whole"),
        InspectError::MissingBlob(_) => {
            problem.hint("copy the image again, with all its layers: `skopeo copy … oci:DIR`")
        }
        InspectError::Damaged { .. } => {
            problem.hint("copy the image again; if it stays so, do not run it")
        }
        InspectError::Document { .. } | InspectError::Layer { .. } => {
            problem.hint("who made the image made it so: no runtime can be relied on to read it")
        }
        InspectError::TooLarge { .. } => {
            problem.hint("an image that needs so much is made to stop its readers; do not run it")
        }
    }
    .into()
}
