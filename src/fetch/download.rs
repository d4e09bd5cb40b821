//! Getting a file by its hash from one of several addresses.

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, OnceLock, PoisonError};
use std::time::Duration;

use tempfile::NamedTempFile;
use ureq::unversioned::resolver::DefaultResolver;
use ureq::unversioned::transport::DefaultConnector;

use super::authorities;
use super::names::Names;
use super::{Attempt, FetchError, Mirrors};
use crate::hash::Sha256Digest;
use crate::hash::copy::{CopyError, copy_hashing};

/// Longest wait for a name, a connection, and the first byte of an answer. Resolvers ask
/// again when a packet was lost, by default after five seconds (`resolv.conf(5)`).
const RESOLVE: Duration = Duration::from_secs(8);
const CONNECT: Duration = Duration::from_secs(5);
const ANSWER: Duration = Duration::from_secs(15);

/// How long it waits before it tries once more, times the tries so far.
const PAUSE: Duration = Duration::from_millis(250);

/// Longest silence in the middle of an answer.
const SILENCE: Duration = Duration::from_secs(20);

/// Longest time for one whole file.
const TOTAL: Duration = Duration::from_secs(1800);

/// Largest file, in bytes.
const MAX_SIZE: u64 = 4 << 30;

/// Something that happens while a file is fetched.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Event<'a> {
    /// An address is asked.
    Started {
        /// The address.
        url: &'a str,
    },
    /// Bytes have arrived.
    Progress {
        /// So far.
        received: u64,
        /// In all, where the server says so.
        total: Option<u64>,
    },
    /// An address did not give the content.
    Failed {
        /// The address.
        url: &'a str,
        /// Why, in words, with the address.
        why: &'a str,
        /// Whether the user should know although the next address may serve: other bytes
        /// came, or a host does not answer. That one of several mirrors lacks a file is
        /// nothing to tell.
        notable: bool,
    },
}

/// What is known of a file that was fetched.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fetched {
    /// Its length.
    pub size_bytes: u64,
    /// Where it came from; `None` if it was there already.
    pub from: Option<String>,
}

/// Gets files. Several threads may use one.
#[derive(Debug)]
pub struct Fetcher {
    /// Made when it is first needed: most runs download nothing.
    agent: OnceLock<ureq::Agent>,
    proxy: Option<ureq::Proxy>,
    authorities: Vec<PathBuf>,
    mirrors: Mirrors,
    /// Hosts by whether they answered: one that never did costs its time-out only once.
    answered: Mutex<BTreeMap<String, bool>>,
}

/// What an address gave, in a file that goes unless it is kept.
struct Download {
    digest: Sha256Digest,
    size_bytes: u64,
    file: NamedTempFile,
}

enum Failure {
    /// The host could not be reached at all.
    Unreachable(String),
    /// Anything else that makes the next address worth trying.
    Other(String),
    /// This machine failed: no other address can help.
    Local(FetchError),
}

impl Fetcher {
    /// Makes one that knows mirrors and, if wanted, goes through a proxy.
    pub fn new(mirrors: Mirrors, proxy: Option<ureq::Proxy>) -> Self {
        Self {
            agent: OnceLock::new(),
            proxy,
            authorities: Vec::new(),
            mirrors,
            answered: Mutex::default(),
        }
    }

    /// Trusts the authorities whose certificates are in the first of some files that has
    /// any, as the machine's other programs do; where there is none, those that are known
    /// to every browser. Nothing that is fetched depends on it: content counts by its hash.
    #[must_use]
    pub fn trusting(mut self, files: Vec<PathBuf>) -> Self {
        self.authorities = files;
        self
    }

    fn new_agent(&self) -> ureq::Agent {
        let config = ureq::Agent::config_builder()
            .timeout_resolve(Some(RESOLVE))
            .timeout_connect(Some(CONNECT))
            .timeout_recv_response(Some(ANSWER))
            .timeout_per_read(Some(SILENCE))
            .timeout_global(Some(TOTAL))
            .max_redirects(5)
            .http_status_as_error(false)
            .user_agent(concat!("kiln/", env!("CARGO_PKG_VERSION")))
            .proxy(self.proxy.clone())
            .tls_config(authorities::trust(&self.authorities))
            .build();
        ureq::Agent::with_parts(
            config,
            DefaultConnector::default(),
            Names::<DefaultResolver>::default(),
        )
    }

    /// Makes `into` a file whose SHA-256 is the wanted one.
    ///
    /// `directory`, on the same file system, holds downloads that nobody took: a file of
    /// that hash is taken from there, checked. Bytes with another hash are kept there
    /// under their own hash, so that they need no second download when the declaration
    /// turns out to be what was wrong. Others may fetch the same at the same time: nothing
    /// that this has taken or downloaded stays where they could take it.
    ///
    /// # Errors
    /// [`FetchError::WrongHash`] if some address gave other bytes and none the right
    /// ones, [`FetchError::NoAddress`] if none gave any, [`FetchError::NoMirror`].
    pub fn fetch(
        &self,
        urls: &[String],
        expected: Sha256Digest,
        directory: &Path,
        into: &Path,
        events: &dyn Fn(Event<'_>),
    ) -> Result<Fetched, FetchError> {
        let kept = directory.join(expected.to_string());
        if let Some(size_bytes) = take_kept(&kept, expected, into)? {
            return Ok(Fetched {
                size_bytes,
                from: None,
            });
        }
        let mut attempts = Vec::new();
        let mut mismatch = None;
        for url in self.mirrors.candidates(urls.iter().map(String::as_str))? {
            let host = host_of(&url);
            let mut notable = false;
            let why = if self.is_silent(&host) {
                format!("`{host}` did not answer before")
            } else {
                events(Event::Started { url: &url });
                match self.download_patiently(&url, &host, directory, events) {
                    Ok(download) if download.digest == expected => {
                        keep(download.file, into)?;
                        return Ok(Fetched {
                            size_bytes: download.size_bytes,
                            from: Some(url),
                        });
                    }
                    Ok(Download {
                        digest: actual,
                        file,
                        ..
                    }) => {
                        let path = directory.join(actual.to_string());
                        keep(file, &path)?;
                        mismatch.get_or_insert((actual, path));
                        notable = true;
                        format!("gave other bytes, with SHA-256 `{actual}`")
                    }
                    Err(Failure::Unreachable(why)) => {
                        notable = true;
                        why
                    }
                    Err(Failure::Other(why)) => why,
                    Err(Failure::Local(error)) => return Err(error),
                }
            };
            let text = format!("{url}: {why}");
            events(Event::Failed {
                url: &url,
                why: &text,
                notable,
            });
            attempts.push(Attempt { url, why });
        }
        Err(match mismatch {
            Some((actual, kept)) => FetchError::WrongHash {
                expected,
                actual,
                kept,
                attempts,
            },
            None => FetchError::NoAddress { expected, attempts },
        })
    }

    fn lock_answered(&self) -> std::sync::MutexGuard<'_, BTreeMap<String, bool>> {
        self.answered.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns whether a host was asked and never answered.
    fn is_silent(&self, host: &str) -> bool {
        self.lock_answered().get(host) == Some(&false)
    }

    /// Downloads an address; a name server or a link that stumbled gets a second chance,
    /// and a host that has answered before a third.
    fn download_patiently(
        &self,
        url: &str,
        host: &str,
        directory: &Path,
        events: &dyn Fn(Event<'_>),
    ) -> Result<Download, Failure> {
        let mut tries = 0;
        loop {
            tries += 1;
            let why = match self.download(url, directory, events) {
                Err(Failure::Unreachable(why)) => why,
                other => {
                    self.lock_answered().insert(host.to_owned(), true);
                    return other;
                }
            };
            let answered = *self.lock_answered().entry(host.to_owned()).or_default();
            if tries >= if answered { 3 } else { 2 } {
                return Err(Failure::Unreachable(why));
            }
            std::thread::sleep(PAUSE * tries);
        }
    }

    /// Downloads an address into a temporary file.
    fn download(
        &self,
        url: &str,
        directory: &Path,
        events: &dyn Fn(Event<'_>),
    ) -> Result<Download, Failure> {
        let response = self
            .agent
            .get_or_init(|| self.new_agent())
            .get(url)
            .call()
            .map_err(|error| reach_failure(&error))?;
        let status = response.status();
        if !status.is_success() {
            return Err(Failure::Other(format!("answered {status}")));
        }
        let body = response.into_body();
        let total = body.content_length();
        if total.is_some_and(|total| total > MAX_SIZE) {
            return Err(Failure::Other("is larger than 4 GiB".to_owned()));
        }
        let local = |operation, source| {
            Failure::Local(FetchError::Access {
                operation,
                path: directory.to_owned(),
                source,
            })
        };
        let mut file = tempfile::Builder::new()
            .prefix("download-")
            .tempfile_in(directory)
            .map_err(|source| local("create a file in", source))?;
        let mut reader = body.into_with_config().limit(MAX_SIZE).reader();
        let (digest, received) = copy_hashing(&mut reader, file.as_file_mut(), |received| {
            events(Event::Progress { received, total });
        })
        .map_err(|error| match error {
            CopyError::Read(error, received) => Failure::Other(cut_short(&error, received, total)),
            CopyError::Write(source) => local("write to", source),
        })?;
        if total.is_some_and(|total| total != received) {
            return Err(Failure::Other(format!(
                "ended after {received} of {} bytes",
                total.unwrap_or_default()
            )));
        }
        Ok(Download {
            digest,
            size_bytes: received,
            file,
        })
    }
}

/// Gives a download its place.
fn keep(file: NamedTempFile, path: &Path) -> Result<(), FetchError> {
    match file.persist(path) {
        Ok(_) => Ok(()),
        Err(error) => Err(FetchError::Access {
            operation: "move the download to",
            path: path.to_owned(),
            source: error.error,
        }),
    }
}

fn cut_short(error: &io::Error, received: u64, total: Option<u64>) -> String {
    match total {
        Some(total) => format!("broke off after {received} of {total} bytes ({error})"),
        None => format!("broke off after {received} bytes ({error})"),
    }
}

fn reach_failure(error: &ureq::Error) -> Failure {
    let why = error.to_string();
    match error {
        ureq::Error::HostNotFound | ureq::Error::ConnectionFailed | ureq::Error::Timeout(_) => {
            Failure::Unreachable(why)
        }
        ureq::Error::Io(error) => Failure::Unreachable(error.to_string()),
        _ => Failure::Other(why),
    }
}

/// Returns the host and port of an address.
fn host_of(url: &str) -> String {
    let rest = url.split_once("://").map_or(url, |(_, rest)| rest);
    rest.split('/').next().unwrap_or(rest).to_owned()
}

/// Takes a kept download away, and returns its size if it has the wanted content. It is
/// looked at only when it is where nobody else takes it.
fn take_kept(kept: &Path, expected: Sha256Digest, into: &Path) -> Result<Option<u64>, FetchError> {
    let failed = |operation, path: &Path| {
        let path = path.to_owned();
        move |source| FetchError::Access {
            operation,
            path,
            source,
        }
    };
    match std::fs::rename(kept, into) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        other => other.map_err(failed("take the download", kept))?,
    }
    let mut file = File::open(into).map_err(failed("read", into))?;
    let (actual, size_bytes) = copy_hashing(&mut file, &mut io::sink(), |_| {})
        .map_err(|error| failed("read", into)(error.into()))?;
    if actual == expected {
        return Ok(Some(size_bytes));
    }
    std::fs::remove_file(into).map_err(failed("remove", into))?;
    Ok(None)
}

#[cfg(test)]
mod tests;
