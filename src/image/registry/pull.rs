//! Reading what a registry has. What comes is checked by who asks.

use std::io::Read;

use ureq::Body;
use ureq::http::{Method, Response, StatusCode};

use super::client::Ask;
use super::{Registry, RegistryError};

/// The kinds of manifests that are understood.
const ACCEPT: &str = "application/vnd.oci.image.manifest.v1+json, \
application/vnd.oci.image.index.v1+json, \
application/vnd.docker.distribution.manifest.v2+json, \
application/vnd.docker.distribution.manifest.list.v2+json";

impl Registry {
    /// Opens a manifest by its tag or digest: its media type, and its bytes.
    ///
    /// # Errors
    /// [`RegistryError`]; its status is 404 for one that is not there.
    pub fn manifest(&self, tag: &str) -> Result<(String, Box<dyn Read + Send>), RegistryError> {
        let path = self.path(&format!("manifests/{tag}"));
        let response = self.get(&path, &format!("give the manifest {tag}"), Some(ACCEPT))?;
        let kind = response.headers().get("content-type");
        let kind = kind.and_then(|kind| kind.to_str().ok()).unwrap_or("");
        let kind = kind.split(';').next().unwrap_or("").trim().to_owned();
        Ok((kind, Box::new(response.into_body().into_reader())))
    }

    /// Opens a blob by its digest.
    ///
    /// # Errors
    /// [`RegistryError`]; its status is 404 for one that is not there.
    pub fn blob(&self, digest: &str) -> Result<Box<dyn Read + Send>, RegistryError> {
        let path = self.path(&format!("blobs/{digest}"));
        let response = self.get(&path, &format!("give the blob {digest}"), None)?;
        Ok(Box::new(response.into_body().into_reader()))
    }

    fn get(
        &self,
        path: &str,
        operation: &str,
        accept: Option<&str>,
    ) -> Result<Response<Body>, RegistryError> {
        let mut ask = Ask::new(Method::GET, path, operation);
        if let Some(accept) = accept {
            ask.headers.push(("accept", accept.to_owned()));
        }
        let mut response = self.send(&ask)?;
        if response.status() == StatusCode::OK {
            return Ok(response);
        }
        Err(self.status(operation, &mut response))
    }
}
