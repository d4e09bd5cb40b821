//! Sending an image: its blobs, several at once and each at most once, then its manifest.
//!
//! A blob that is there is not sent; one that this machine knows to be in another
//! repository of the registry is mounted. A large one is sent in chunks: when one is lost,
//! the registry is asked how far it came, and the rest follows, or, where it cannot say so,
//! the blob once more. The manifest comes last, so that a tag never names what is not there.

use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use ureq::Body;
use ureq::http::{Method, Response, StatusCode};

use super::client::Ask;
use super::{Registry, RegistryError};
use crate::hash::Sha256Digest;
use crate::image::parcel::Manifest;

/// Length of a chunk, in bytes.
const CHUNK: u64 = 8 << 20;

/// Blobs that are sent at once.
const AT_ONCE: usize = 4;

/// How often a chunk is tried, and the wait before the next try, times the tries so far.
const TRIES: u32 = 5;
const PAUSE: Duration = Duration::from_millis(400);

/// Something to send.
#[derive(Debug)]
pub struct Blob<'a> {
    /// Its digest.
    pub digest: Sha256Digest,
    /// Its length, in bytes.
    pub size_bytes: u64,
    /// Its bytes.
    pub content: Content<'a>,
    /// Repositories of the same registry that are known to have it.
    pub known_in: Vec<String>,
}

/// Where the bytes of a blob come from.
#[derive(Debug)]
pub enum Content<'a> {
    /// From memory.
    Bytes(&'a [u8]),
    /// From a file.
    File(File),
}

/// How a blob came to be in its repository.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Came {
    /// It was there.
    WasThere,
    /// It was mounted from another repository.
    Mounted,
    /// It was sent.
    Sent,
}

/// Puts blobs into a repository, several at once. `sent` is told of each part of a blob
/// that needs no sending any more, in bytes. Returns how each came there, in order.
///
/// # Errors
/// The first that one of them gives, in order.
pub fn push_blobs(
    registry: &Registry,
    blobs: &[Blob<'_>],
    sent: &(dyn Fn(u64) + Sync),
) -> Result<Vec<Came>, RegistryError> {
    let next = AtomicUsize::new(0);
    let results: Vec<Mutex<Option<Result<Came, RegistryError>>>> =
        blobs.iter().map(|_| Mutex::default()).collect();
    std::thread::scope(|scope| {
        for _ in 0..AT_ONCE.min(blobs.len()) {
            scope.spawn(|| {
                loop {
                    let number = next.fetch_add(1, Ordering::Relaxed);
                    let (Some(blob), Some(result)) = (blobs.get(number), results.get(number))
                    else {
                        return;
                    };
                    let came = push_blob(registry, blob, sent);
                    let failed = came.is_err();
                    *result.lock().unwrap_or_else(PoisonError::into_inner) = Some(came);
                    if failed {
                        // The others finish what they have begun.
                        next.store(blobs.len(), Ordering::Relaxed);
                    }
                }
            });
        }
    });
    let mut all = Vec::new();
    for result in results {
        if let Some(came) = result.into_inner().unwrap_or_else(PoisonError::into_inner) {
            all.push(came?);
        }
    }
    Ok(all)
}

/// Puts a manifest into a repository, under a tag or, without one, its digest.
///
/// # Errors
/// [`RegistryError`].
pub fn push_manifest(
    registry: &Registry,
    manifest: &Manifest<'_>,
    tag: Option<&str>,
) -> Result<(), RegistryError> {
    let digest = format!("sha256:{}", manifest.digest);
    let to = registry.path(&format!("manifests/{}", tag.unwrap_or(&digest)));
    let operation = format!("take the manifest {digest}");
    let mut ask = Ask::new(Method::PUT, &to, &operation);
    ask.headers
        .push(("content-type", manifest.media_type.to_owned()));
    ask.body = manifest.bytes;
    let mut response = registry.send(&ask)?;
    if response.status() != StatusCode::CREATED {
        return Err(registry.status(&operation, &mut response));
    }
    let said = response.headers().get("docker-content-digest");
    match said.and_then(|said| said.to_str().ok()) {
        Some(said) if said != digest => {
            Err(registry.answer(format!("took the manifest {digest} for {said}")))
        }
        _ => Ok(()),
    }
}

fn push_blob(
    registry: &Registry,
    blob: &Blob<'_>,
    sent: &(dyn Fn(u64) + Sync),
) -> Result<Came, RegistryError> {
    let digest = format!("sha256:{}", blob.digest);
    let operation = format!("take the blob {digest}");
    let at = registry.path(&format!("blobs/{digest}"));
    let mut response = registry.send(&Ask::new(Method::HEAD, &at, &operation))?;
    match response.status() {
        StatusCode::OK => {
            sent(blob.size_bytes);
            return Ok(Came::WasThere);
        }
        StatusCode::NOT_FOUND => {}
        _ => return Err(registry.status(&operation, &mut response)),
    }
    let uploads = registry.path("blobs/uploads/");
    let mut location = None;
    for repository in &blob.known_in {
        let mount = format!("{uploads}?mount={digest}&from={repository}");
        // Who may not read the other repository sends the blob.
        let Ok(response) = registry.send(&Ask::new(Method::POST, &mount, &operation)) else {
            continue;
        };
        match response.status() {
            StatusCode::CREATED => {
                sent(blob.size_bytes);
                return Ok(Came::Mounted);
            }
            StatusCode::ACCEPTED => location = Some(location_of(registry, &response)?),
            _ => {}
        }
    }
    let location = match location {
        Some(location) => location,
        None => begin(registry, &operation)?,
    };
    let upload = Upload {
        registry,
        blob,
        operation: &operation,
        sent,
    };
    upload.run(location)?;
    Ok(Came::Sent)
}

/// Begins an upload, and returns where it goes.
fn begin(registry: &Registry, operation: &str) -> Result<String, RegistryError> {
    let uploads = registry.path("blobs/uploads/");
    let mut response = registry.send(&Ask::new(Method::POST, &uploads, operation))?;
    if response.status() != StatusCode::ACCEPTED {
        return Err(registry.status(operation, &mut response));
    }
    location_of(registry, &response)
}

fn location_of(registry: &Registry, response: &Response<Body>) -> Result<String, RegistryError> {
    let location = response.headers().get("location");
    location
        .and_then(|value| value.to_str().ok())
        .map(str::to_owned)
        .ok_or_else(|| registry.answer("does not say where a blob is to be sent".to_owned()))
}

struct Upload<'a> {
    registry: &'a Registry,
    blob: &'a Blob<'a>,
    operation: &'a str,
    sent: &'a (dyn Fn(u64) + Sync),
}

impl Upload<'_> {
    /// Sends all chunks but the last, which ends the upload.
    fn run(&self, mut location: String) -> Result<(), RegistryError> {
        let size = self.blob.size_bytes;
        let mut at = 0;
        let mut told = 0;
        let mut tries = 0;
        loop {
            let end = size.min(at + CHUNK);
            let chunk = self.read(at, end)?;
            let is_last = end == size;
            match self.send(&location, &chunk, at, is_last) {
                Ok(_) if is_last => {
                    (self.sent)(size.saturating_sub(told));
                    return Ok(());
                }
                Ok(response) => {
                    location = location_of(self.registry, &response)?;
                    at = end;
                    tries = 0;
                }
                Err(error) => {
                    tries += 1;
                    if tries >= TRIES || !is_passing(&error) {
                        return Err(error);
                    }
                    std::thread::sleep(PAUSE * tries);
                    match self.resume(&location)? {
                        Some((next, arrived)) => (location, at) = (next, arrived.min(size)),
                        // It does not know how far it came: Debian's registry, for one,
                        // loses count of a chunk that arrived in part.
                        None => (location, at) = (begin(self.registry, self.operation)?, 0),
                    }
                }
            }
            if at > told {
                (self.sent)(at - told);
                told = at;
            }
        }
    }

    fn read(&self, from: u64, to: u64) -> Result<Vec<u8>, RegistryError> {
        let failed = |problem: &str| {
            self.registry
                .answer(format!("was to get a blob that cannot be read: {problem}"))
        };
        let length = usize::try_from(to - from).unwrap_or(usize::MAX);
        match &self.blob.content {
            Content::Bytes(bytes) => {
                let start = usize::try_from(from).unwrap_or(usize::MAX);
                let part = bytes.get(start..start.saturating_add(length));
                part.map(<[u8]>::to_vec)
                    .ok_or_else(|| failed("it is shorter"))
            }
            Content::File(file) => {
                let mut chunk = vec![0; length];
                file.read_exact_at(&mut chunk, from)
                    .map_err(|error| failed(&error.to_string()))?;
                Ok(chunk)
            }
        }
    }

    fn send(
        &self,
        location: &str,
        chunk: &[u8],
        from: u64,
        is_last: bool,
    ) -> Result<Response<Body>, RegistryError> {
        let separator = if location.contains('?') { '&' } else { '?' };
        let to = if is_last {
            format!("{location}{separator}digest=sha256:{}", self.blob.digest)
        } else {
            location.to_owned()
        };
        let method = if is_last { Method::PUT } else { Method::PATCH };
        let mut ask = Ask::new(method, &to, self.operation);
        ask.headers
            .push(("content-type", "application/octet-stream".to_owned()));
        // One chunk alone is no range.
        if !chunk.is_empty() && (from > 0 || !is_last) {
            let range = format!("{from}-{}", from + chunk.len() as u64 - 1);
            ask.headers.push(("content-range", range));
        }
        ask.body = chunk;
        let mut response = self.registry.send(&ask)?;
        let expected = if is_last {
            StatusCode::CREATED
        } else {
            StatusCode::ACCEPTED
        };
        if response.status() == expected {
            return Ok(response);
        }
        Err(self.registry.status(self.operation, &mut response))
    }

    /// Asks how far an upload came: where to go on, and from which byte.
    fn resume(&self, location: &str) -> Result<Option<(String, u64)>, RegistryError> {
        let response = self
            .registry
            .send(&Ask::new(Method::GET, location, self.operation))?;
        if response.status() != StatusCode::NO_CONTENT {
            return Ok(None);
        }
        let range = response
            .headers()
            .get("range")
            .and_then(|value| value.to_str().ok());
        let last = range
            .and_then(|range| range.trim_start_matches("bytes=").split_once('-'))
            .and_then(|(_, last)| last.parse::<u64>().ok());
        // A range of nothing and of one byte are written alike: to send a byte twice is
        // refused, and then tried again from the start.
        let arrived = match last {
            None | Some(0) => 0,
            Some(last) => last + 1,
        };
        Ok(Some((location_of(self.registry, &response)?, arrived)))
    }
}

/// Returns whether it may work the next time.
fn is_passing(error: &RegistryError) -> bool {
    match error {
        RegistryError::Unreachable { .. } => true,
        RegistryError::Status { status, .. } => {
            *status >= 500 || [408, 416, 425, 429].contains(status)
        }
        _ => false,
    }
}
