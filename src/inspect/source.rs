//! Where the blobs of an image are.
//!
//! [`Blobs`] is what an image's reader needs of any place: a layout directory, an archive
//! or, in `remote`, a registry. What a place gives is checked by who asks.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, BufRead, BufReader, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use rayon::prelude::*;

use super::document::{Descriptor, DockerImage, docker_manifest};
use super::layer::ReadLayer;
use super::limits::{MAX_BLOBS, MAX_DOCUMENT};
use super::tar::{Kind, Member, Reader};
use super::{InspectError, ReadOne, stream};
use crate::hash::Sha256Digest;
use crate::tree::open_regular;

/// What a user named.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    /// An OCI layout directory, and a tag in it.
    Layout(PathBuf, Option<String>),
    /// An archive of one form or the other, and a tag in it.
    Archive(PathBuf, Form, Option<String>),
}

/// Which of an archive's documents counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// `index.json`.
    Oci,
    /// `manifest.json`.
    Docker,
    /// The first of the two that is there.
    Either,
}

impl Source {
    /// Reads `oci:DIR[:TAG]`, `oci-archive:FILE[:TAG]`, `docker-archive:FILE[:TAG]`, or
    /// the path of a layout or archive.
    ///
    /// # Errors
    /// [`InspectError::NotAnImage`].
    pub fn parse(text: &str) -> Result<Self, InspectError> {
        let refuse = |why: String| InspectError::NotAnImage {
            name: text.to_owned(),
            why,
        };
        if let Some((scheme @ ("docker-daemon" | "containers-storage"), rest)) =
            text.split_once(':')
        {
            let why = format!(
                "kiln reads no engine's storage; `skopeo copy {scheme}:{rest} oci:DIR` writes files"
            );
            return Err(refuse(why));
        }
        let (form, rest) = match text.split_once(':') {
            Some(("oci", rest)) => {
                let (path, tag) = split_tag(rest);
                return Ok(Self::Layout(path, tag));
            }
            Some(("oci-archive", rest)) => (Form::Oci, rest),
            Some(("docker-archive", rest)) => (Form::Docker, rest),
            _ => (Form::Either, text),
        };
        let (path, tag) = split_tag(rest);
        if form == Form::Either && path.is_dir() {
            return Ok(Self::Layout(path, tag));
        }
        if !path.exists() {
            return Err(refuse(format!("there is no `{}`", path.display())));
        }
        Ok(Self::Archive(path, form, tag))
    }
}

/// Splits a tag off a path; what is there as it is written has none.
fn split_tag(text: &str) -> (PathBuf, Option<String>) {
    match text.split_once(':') {
        Some((path, tag)) if !Path::new(text).exists() => (path.into(), Some(tag.to_owned())),
        _ => (text.into(), None),
    }
}

/// Returns whether a tag is meant: `debian:12` by itself, and by `12`.
pub(super) fn is_tag(own: Option<&str>, wanted: &str) -> bool {
    own.is_some_and(|own| own == wanted || own.rsplit(':').next() == Some(wanted))
}

/// A source that was opened.
pub struct Opened {
    /// Its blobs.
    pub blobs: Box<dyn Blobs>,
    /// What leads to its images.
    pub top: Top,
    /// The tag that was named.
    pub tag: Option<String>,
}

/// What leads to the images of a source.
#[derive(Debug)]
pub enum Top {
    /// The bytes of an `index.json`.
    Index(Vec<u8>),
    /// What a Docker archive lists.
    Docker(Vec<DockerImage>),
}

/// The blobs of a source.
pub trait Blobs: Sync {
    /// Opens a blob; the bytes are not checked.
    ///
    /// # Errors
    /// [`InspectError`] when it is not there.
    fn open(&self, blob: &Descriptor) -> Result<Box<dyn Read + Send>, InspectError>;

    /// Returns the length of a member that a Docker archive names.
    fn size(&self, member: &str) -> Option<u64>;

    /// Reads layers, all at once if the place has no order of its own.
    ///
    /// # Errors
    /// The first that reading one gives, in the order of the layers.
    fn each(
        &self,
        layers: &[Descriptor],
        read: &ReadOne<'_>,
    ) -> Result<Vec<ReadLayer>, InspectError> {
        in_parallel(layers, &|layer| self.open(layer), read)
    }

    /// Reads a document and checks its size and digest.
    ///
    /// # Errors
    /// [`InspectError`].
    fn document(&self, blob: &Descriptor, most: u64) -> Result<Vec<u8>, InspectError> {
        let name = name(blob);
        if blob.size_bytes > most {
            return Err(InspectError::TooLarge {
                what: format!("the document {name} with {} bytes", blob.size_bytes),
                limit: format!("{most} bytes"),
            });
        }
        let mut bytes = Vec::new();
        self.open(blob)?
            .take(blob.size_bytes + 1)
            .read_to_end(&mut bytes)
            .map_err(|source| InspectError::Access {
                name: name.clone(),
                source,
            })?;
        stream::check(&name, blob, bytes.len() as u64, Sha256Digest::of(&bytes))?;
        Ok(bytes)
    }
}

/// How a blob is opened.
type Open<'a> = dyn Fn(&Descriptor) -> Result<Box<dyn Read + Send>, InspectError> + Sync + 'a;

fn in_parallel(
    layers: &[Descriptor],
    open: &Open<'_>,
    read: &ReadOne<'_>,
) -> Result<Vec<ReadLayer>, InspectError> {
    let one = |(index, layer): (usize, &Descriptor)| read(index, &mut *open(layer)?);
    let results: Vec<Result<ReadLayer, InspectError>> =
        layers.par_iter().enumerate().map(one).collect();
    results.into_iter().collect()
}

/// Returns what to call a blob.
pub(super) fn name(blob: &Descriptor) -> String {
    match (&blob.member, blob.digest) {
        (Some(member), _) => format!("`{member}`"),
        (None, Some(digest)) => format!("`sha256:{digest}`"),
        (None, None) => "a blob".to_owned(),
    }
}

/// Opens a source.
///
/// # Errors
/// [`InspectError`].
pub fn open(source: &Source) -> Result<Opened, InspectError> {
    match source {
        Source::Layout(path, tag) => {
            let index = path.join("index.json");
            if !path.join("oci-layout").is_file() || !index.is_file() {
                return Err(InspectError::NotAnImage {
                    name: path.display().to_string(),
                    why: "it is no OCI layout: `oci-layout` or `index.json` is not there"
                        .to_owned(),
                });
            }
            let mut bytes = Vec::new();
            open_file(&index)?
                .take(MAX_DOCUMENT + 1)
                .read_to_end(&mut bytes)
                .map_err(access(&index))?;
            if bytes.len() as u64 > MAX_DOCUMENT {
                return Err(InspectError::TooLarge {
                    what: "`index.json`".to_owned(),
                    limit: format!("{MAX_DOCUMENT} bytes"),
                });
            }
            Ok(Opened {
                blobs: Box::new(Directory(path.clone())),
                top: Top::Index(bytes),
                tag: tag.clone(),
            })
        }
        Source::Archive(path, form, tag) => Archive::open(path, *form, tag.clone()),
    }
}

fn access(path: &Path) -> impl FnOnce(io::Error) -> InspectError {
    let name = path.display().to_string();
    move |source| InspectError::Access { name, source }
}

fn open_file(path: &Path) -> Result<File, InspectError> {
    open_regular(path).map_err(access(path))
}

/// The blobs of a layout directory.
struct Directory(PathBuf);

impl Blobs for Directory {
    fn open(&self, blob: &Descriptor) -> Result<Box<dyn Read + Send>, InspectError> {
        let missing = || InspectError::MissingBlob(name(blob).trim_matches('`').to_owned());
        let digest = blob.digest.ok_or_else(missing)?;
        let path = self.0.join("blobs/sha256").join(digest.to_string());
        if !path.exists() {
            return Err(missing());
        }
        Ok(Box::new(open_file(&path)?))
    }

    fn size(&self, _: &str) -> Option<u64> {
        None
    }
}

/// The members of an archive.
struct Archive {
    path: PathBuf,
    /// Each member's place in the plain tar, and its length.
    members: BTreeMap<String, (u64, u64)>,
    /// Members that are links to others.
    links: BTreeMap<String, String>,
    /// The documents of a compressed archive, which cannot be sought in.
    documents: Option<BTreeMap<String, Vec<u8>>>,
}

/// Most bytes of documents that are kept of a compressed archive.
const MAX_KEPT: usize = 64 << 20;

impl Archive {
    fn open(path: &Path, form: Form, tag: Option<String>) -> Result<Opened, InspectError> {
        let mut archive = Self {
            path: path.to_owned(),
            members: BTreeMap::new(),
            links: BTreeMap::new(),
            documents: None,
        };
        archive.index()?;
        let top = |member: &str| archive.resolve(member).is_some();
        let refuse = |why: &str| InspectError::NotAnImage {
            name: path.display().to_string(),
            why: why.to_owned(),
        };
        let member = match form {
            Form::Oci => "index.json",
            Form::Either if top("index.json") => "index.json",
            Form::Docker | Form::Either => "manifest.json",
        };
        if !top(member) {
            return Err(refuse(&format!("it is an archive without `{member}`")));
        }
        let blob = Descriptor::of_member(member, archive.size(member).unwrap_or(0));
        let bytes = archive.document(&blob, MAX_DOCUMENT)?;
        let top = if member == "index.json" {
            Top::Index(bytes)
        } else {
            Top::Docker(docker_manifest(&bytes)?)
        };
        Ok(Opened {
            blobs: Box::new(archive),
            top,
            tag,
        })
    }

    /// Notes where each member is. A plain archive is not read for it, only its headers.
    fn index(&mut self) -> Result<(), InspectError> {
        let file = open_file(&self.path)?;
        let length = file.metadata().map_err(access(&self.path))?.len();
        let mut file = BufReader::with_capacity(1 << 18, file);
        if stream::is_plain(file.fill_buf().map_err(access(&self.path))?) {
            return self.note(&mut Reader::new(file), |tar, member, _| {
                if tar.position().saturating_add(member.size_bytes) > length {
                    return Err(io::ErrorKind::UnexpectedEof.into());
                }
                tar.jump()
            });
        }
        let mut documents = BTreeMap::new();
        let mut kept = 0;
        let stream = stream::decompressed(file).map_err(access(&self.path))?;
        self.note(&mut Reader::new(stream), |tar, member, path| {
            if member.size_bytes > MAX_DOCUMENT {
                return Ok(());
            }
            let mut bytes = Vec::new();
            tar.data().read_to_end(&mut bytes)?;
            if matches!(bytes.first(), Some(b'{' | b'[')) && kept + bytes.len() <= MAX_KEPT {
                kept += bytes.len();
                documents.insert(path.to_owned(), bytes);
            }
            Ok(())
        })?;
        self.documents = Some(documents);
        Ok(())
    }

    /// Notes every member of a tar, and does something with each file.
    fn note<R: Read>(
        &mut self,
        tar: &mut Reader<R>,
        mut each_file: impl FnMut(&mut Reader<R>, &Member, &str) -> io::Result<()>,
    ) -> Result<(), InspectError> {
        let broken = no_tar(&self.path);
        while let Some(member) = tar.next().map_err(|error| broken(&error))? {
            let Ok(path) = std::str::from_utf8(&member.path) else {
                continue;
            };
            let path = path.trim_start_matches("./").to_owned();
            match member.kind {
                Kind::File => {
                    let place = (tar.position(), member.size_bytes);
                    each_file(tar, &member, &path).map_err(|error| broken(&error))?;
                    self.members.insert(path, place);
                }
                Kind::Symlink | Kind::HardLink => {
                    let target = String::from_utf8_lossy(&member.link).into_owned();
                    let target = match (member.kind, path.rsplit_once('/')) {
                        (Kind::Symlink, Some((parent, _))) => relative(parent, &target),
                        _ => relative("", &target),
                    };
                    self.links.insert(path, target);
                }
                _ => {}
            }
            if self.members.len() + self.links.len() > MAX_BLOBS {
                return Err(InspectError::TooLarge {
                    what: format!("`{}`", self.path.display()),
                    limit: format!("{MAX_BLOBS} members"),
                });
            }
        }
        Ok(())
    }

    /// Returns the member that a name leads to; older archives link equal layers.
    fn resolve(&self, name: &str) -> Option<&str> {
        let mut name = name.trim_start_matches("./");
        for _ in 0..8 {
            if let Some((own, _)) = self.members.get_key_value(name) {
                return Some(own);
            }
            name = self.links.get(name)?;
        }
        None
    }

    fn member(&self, blob: &Descriptor) -> Result<&str, InspectError> {
        let wanted = match (&blob.member, blob.digest) {
            (Some(member), _) => member.clone(),
            (None, Some(digest)) => format!("blobs/sha256/{digest}"),
            (None, None) => String::new(),
        };
        self.resolve(&wanted)
            .ok_or(InspectError::MissingBlob(wanted))
    }
}

/// Returns an error in the making for what is no archive.
fn no_tar(path: &Path) -> impl Fn(&dyn std::fmt::Display) -> InspectError + use<> {
    let name = path.display().to_string();
    move |problem| InspectError::NotAnImage {
        name: name.clone(),
        why: format!("it is no tar archive: {problem}"),
    }
}

/// Returns a path below a directory with its `..` taken away.
fn relative(parent: &str, target: &str) -> String {
    let mut at: Vec<&str> = parent.split('/').filter(|part| !part.is_empty()).collect();
    for part in target.split('/') {
        match part {
            "" | "." => {}
            ".." => {
                at.pop();
            }
            part => at.push(part),
        }
    }
    at.join("/")
}

impl Blobs for Archive {
    fn open(&self, blob: &Descriptor) -> Result<Box<dyn Read + Send>, InspectError> {
        let member = self.member(blob)?;
        if let Some(documents) = &self.documents {
            let bytes = documents
                .get(member)
                .ok_or_else(|| InspectError::MissingBlob(member.to_owned()))?;
            return Ok(Box::new(io::Cursor::new(bytes.clone())));
        }
        let (offset, size) = self.members.get(member).copied().unwrap_or_default();
        let mut file = open_file(&self.path)?;
        file.seek(SeekFrom::Start(offset))
            .map_err(access(&self.path))?;
        Ok(Box::new(file.take(size)))
    }

    fn size(&self, member: &str) -> Option<u64> {
        let member = self.resolve(member)?;
        self.members.get(member).map(|(_, size)| *size)
    }

    fn each(
        &self,
        layers: &[Descriptor],
        read: &ReadOne<'_>,
    ) -> Result<Vec<ReadLayer>, InspectError> {
        if self.documents.is_none() {
            return in_parallel(layers, &|layer| self.open(layer), read);
        }
        let mut wanted: BTreeMap<&str, Vec<usize>> = BTreeMap::new();
        for (index, layer) in layers.iter().enumerate() {
            wanted.entry(self.member(layer)?).or_default().push(index);
        }
        let file = open_file(&self.path)?;
        let stream = stream::decompressed(BufReader::with_capacity(1 << 18, file))
            .map_err(access(&self.path))?;
        let mut tar = Reader::new(stream);
        let broken = no_tar(&self.path);
        let mut found: BTreeMap<usize, ReadLayer> = BTreeMap::new();
        while let Some(member) = tar.next().map_err(|error| broken(&error))? {
            let path = String::from_utf8_lossy(&member.path).into_owned();
            let Some(indices) = wanted.remove(path.trim_start_matches("./")) else {
                continue;
            };
            // A layer that is there twice, as an empty one may be, is read once.
            let mut layer: Option<ReadLayer> = None;
            for index in indices {
                let read_one = match &layer {
                    Some(first) => first.at(index),
                    None => read(index, &mut tar.data())?,
                };
                layer.get_or_insert_with(|| read_one.clone());
                found.insert(index, read_one);
            }
        }
        if let Some(missing) = wanted.keys().next() {
            return Err(InspectError::MissingBlob((*missing).to_owned()));
        }
        Ok(found.into_values().collect())
    }
}
