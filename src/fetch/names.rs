//! Host names, each looked up once.
//!
//! A run asks one mirror for dozens of files at the same time. Looking its name up for each
//! would make every lost packet of a name server a wait of seconds, somewhere; so the first
//! who needs a name looks it up, and the others take what was found.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};

use ureq::config::Config;
use ureq::http::Uri;
use ureq::unversioned::resolver::{DefaultResolver, ResolvedSocketAddrs, Resolver};
use ureq::unversioned::transport::NextTimeout;

/// The addresses of one host; the lock is held while they are looked up.
type Host = Arc<Mutex<Vec<SocketAddr>>>;

/// Looks names up, and remembers what was found. A failure is not remembered.
#[derive(Debug, Default)]
pub(super) struct Names<R = DefaultResolver> {
    lookup: R,
    known: Mutex<BTreeMap<String, Host>>,
}

impl<R: Resolver> Resolver for Names<R> {
    fn resolve(
        &self,
        uri: &Uri,
        config: &Config,
        timeout: NextTimeout,
    ) -> Result<ResolvedSocketAddrs, ureq::Error> {
        let host = format!(
            "{}://{}",
            uri.scheme_str().unwrap_or_default(),
            uri.authority().map_or("", |authority| authority.as_str())
        );
        let host = Arc::clone(
            self.known
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .entry(host)
                .or_default(),
        );
        let mut addresses = host.lock().unwrap_or_else(PoisonError::into_inner);
        if addresses.is_empty() {
            *addresses = self.lookup.resolve(uri, config, timeout)?.to_vec();
        }
        let mut found = self.empty();
        for address in addresses.iter() {
            found.push(*address);
        }
        Ok(found)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    /// Fails at first, then finds one address; counts how often it was asked.
    #[derive(Debug, Default)]
    struct Once(AtomicUsize);

    impl Resolver for Once {
        fn resolve(
            &self,
            _: &Uri,
            _: &Config,
            _: NextTimeout,
        ) -> Result<ResolvedSocketAddrs, ureq::Error> {
            if self.0.fetch_add(1, Ordering::SeqCst) == 0 {
                return Err(ureq::Error::HostNotFound);
            }
            let mut found = self.empty();
            found.push("192.0.2.1:80".parse().unwrap());
            Ok(found)
        }
    }

    #[test]
    fn a_name_is_looked_up_until_it_is_found_and_never_again() {
        let names = Names {
            lookup: Once::default(),
            known: Mutex::default(),
        };
        let ask = |uri: &'static str| {
            names
                .resolve(
                    &Uri::from_static(uri),
                    &Config::default(),
                    NextTimeout::default(),
                )
                .map(|found| found.to_vec())
        };
        assert!(ask("http://mirror.example/a").is_err());
        let found = ask("http://mirror.example/b").unwrap();
        assert_eq!(ask("http://mirror.example/c").unwrap(), found);
        assert_eq!(names.lookup.0.load(Ordering::SeqCst), 2);
        ask("http://other.example/").unwrap();
        assert_eq!(names.lookup.0.load(Ordering::SeqCst), 3);
    }
}
