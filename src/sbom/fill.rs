//! What definitions, lock files and crates say of components.

use super::identity;
use super::license;
use super::model::{Component, Kind};
use crate::derivation::{Definition, Kind as Defined, LockedCrate};
use crate::hash::{RelPath, Sha256Digest};

/// Fills in what a definition says.
pub(super) fn defined(component: &mut Component, definition: &Definition) {
    let meta = &definition.meta;
    component.name = meta.name.to_string();
    component.version.clone_from(&meta.version);
    component.summary = Some(meta.summary.clone());
    component.homepage.clone_from(&meta.homepage);
    component.cpe.clone_from(&meta.cpe);
    component.package = Some(definition.file.package.to_string());
    if let Some(license) = &meta.license {
        licensed(component, license);
    }
}

fn licensed(component: &mut Component, license: &str) {
    component.license = license::current(license);
    if component.license.is_none() {
        component.license_as_written = Some(license.to_owned());
    }
}

/// Fills in what the definition that fetched a file says of it.
pub(super) fn fetched(
    component: &mut Component,
    definition: &Definition,
    sha256: Sha256Digest,
    file: &RelPath,
) {
    match &definition.kind {
        Defined::Debian(debian) => {
            let package = debian
                .packages
                .iter()
                .find(|package| package.sha256.value == sha256);
            if let Some(package) = package {
                component.kind = Kind::Debian;
                component.name.clone_from(&package.name);
                component.version = Some(package.version.clone());
                component.purl =
                    identity::debian(&package.name, &package.version, file.file_name());
            }
        }
        _ => {
            component.version.clone_from(&definition.meta.version);
            component.purl = identity::released(
                definition.meta.name.as_str(),
                component.version.as_deref(),
                &component.urls,
                Some(sha256),
            );
        }
    }
}

/// Fills in what a lock file says of a crate, and the licence that the crate itself states.
pub(super) fn locked(component: &mut Component, found: &LockedCrate, license: Option<&str>) {
    component.kind = Kind::Crate;
    component.name.clone_from(&found.name);
    component.version = Some(found.version.clone());
    component.purl = identity::cargo(&found.name, &found.version);
    if let Some(license) = license {
        licensed(component, license);
    }
}
