//! Requests to a registry, each let in.

use std::io::Read as _;
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use data_encoding::BASE64;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::Value;
use ureq::Body;
use ureq::http::{Method, Request, Response, StatusCode, Uri};

use super::challenge::Challenge;
use super::{Credentials, Reference, RegistryError};
use crate::fetch::authorities;

/// Longest wait for a connection, for the first byte of an answer, and of silence. An
/// answer to a last chunk may take as long as the registry needs to hash it all.
const CONNECT: Duration = Duration::from_secs(10);
const ANSWER: Duration = Duration::from_secs(300);
const SILENCE: Duration = Duration::from_secs(60);

/// Longest token, and longest message of an error, in bytes.
const MAX_TOKEN: u64 = 1 << 20;
const MAX_SAID: u64 = 4096;

/// A repository of a registry. Several threads may use one.
#[derive(Debug)]
pub struct Registry {
    agent: ureq::Agent,
    reference: Reference,
    base: String,
    credentials: Option<Credentials>,
    /// What is sent as `Authorization`, once it is known.
    authorization: Mutex<Option<String>>,
}

/// A request without its address.
#[derive(Debug, Clone)]
pub(super) struct Ask<'a> {
    pub method: Method,
    /// A path and query, or a whole address that the registry gave.
    pub to: &'a str,
    /// What it is for, as a verb, for messages.
    pub operation: &'a str,
    pub headers: Vec<(&'static str, String)>,
    pub body: &'a [u8],
}

impl<'a> Ask<'a> {
    pub(super) fn new(method: Method, to: &'a str, operation: &'a str) -> Self {
        Self {
            method,
            to,
            operation,
            headers: Vec::new(),
            body: &[],
        }
    }
}

impl Registry {
    /// Prepares to speak to the registry of a reference; nothing is sent. It must show a
    /// certificate of an authority in the first of some files that has any
    /// ([`authorities::trust`]).
    pub fn new(
        reference: &Reference,
        credentials: Option<Credentials>,
        proxy: Option<ureq::Proxy>,
        trusted: &[PathBuf],
    ) -> Self {
        let local = is_loopback(reference.server());
        let scheme = if local { "http" } else { "https" };
        let config = ureq::Agent::config_builder()
            .timeout_connect(Some(CONNECT))
            .timeout_recv_response(Some(ANSWER))
            .timeout_per_read(Some(SILENCE))
            .timeout_per_write(Some(SILENCE))
            .max_redirects(5)
            .http_status_as_error(false)
            .user_agent(concat!("kiln/", env!("CARGO_PKG_VERSION")))
            .proxy(proxy.filter(|_| !local))
            // Nothing is read for a registry that is spoken to without encryption.
            .tls_config(authorities::trust(if local { &[] } else { trusted }))
            .build();
        Self {
            agent: ureq::Agent::new_with_config(config),
            base: format!("{scheme}://{}", reference.server()),
            reference: reference.clone(),
            credentials,
            authorization: Mutex::default(),
        }
    }

    /// Returns what it was made for.
    pub fn reference(&self) -> &Reference {
        &self.reference
    }

    /// Returns a path of the repository: `/v2/NAME/` and what follows.
    pub(super) fn path(&self, rest: &str) -> String {
        format!("/v2/{}/{rest}", self.reference.repository)
    }

    /// Sends a request, and again with an authorization if one is asked for. Any answer
    /// but a refusal is returned.
    pub(super) fn send(&self, ask: &Ask<'_>) -> Result<Response<Body>, RegistryError> {
        let known = self.authorization().clone();
        let mut response = self.send_once(ask, known.as_deref())?;
        if response.status() == StatusCode::UNAUTHORIZED {
            let challenges: Vec<String> = response
                .headers()
                .get_all("www-authenticate")
                .iter()
                .filter_map(|value| value.to_str().ok().map(str::to_owned))
                .collect();
            let challenge = challenges.iter().find_map(|text| Challenge::parse(text));
            let Some(challenge) = challenge else {
                return Err(self.denied(ask.operation, &mut response));
            };
            let Some(authorization) = self.authorize(&challenge, ask.operation)? else {
                return Err(self.denied(ask.operation, &mut response));
            };
            self.authorization().replace(authorization.clone());
            response = self.send_once(ask, Some(&authorization))?;
        }
        if matches!(
            response.status(),
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN
        ) {
            return Err(self.denied(ask.operation, &mut response));
        }
        Ok(response)
    }

    fn authorization(&self) -> std::sync::MutexGuard<'_, Option<String>> {
        self.authorization
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    fn send_once(
        &self,
        ask: &Ask<'_>,
        authorization: Option<&str>,
    ) -> Result<Response<Body>, RegistryError> {
        let url = self.url(ask.to)?;
        let mut request = Request::builder().method(&ask.method).uri(&url);
        for (name, value) in &ask.headers {
            request = request.header(*name, value);
        }
        // Upload addresses may lead to another host, which gets no login of this one.
        if let Some(authorization) = authorization
            && url.starts_with(&format!("{}/", self.base))
        {
            request = request.header("authorization", authorization);
        }
        let request = request.body(ask.body);
        let request =
            request.map_err(|error| self.answer(format!("gives a bad address: {error}")))?;
        self.agent
            .run(request)
            .map_err(|error| self.unreachable(error))
    }

    /// Returns a whole address. From an encrypted registry none leads to one that is not.
    fn url(&self, to: &str) -> Result<String, RegistryError> {
        if to.starts_with('/') {
            return Ok(format!("{}{to}", self.base));
        }
        let host = to
            .strip_prefix("http://")
            .map(|rest| rest.split('/').next().unwrap_or(rest));
        if to.starts_with("https://") || host.is_some_and(is_loopback) {
            return Ok(to.to_owned());
        }
        Err(self.answer("sends elsewhere without encryption".to_owned()))
    }

    /// Returns the authorization that a challenge asks for; `None` if there is no login
    /// and none can do without.
    fn authorize(
        &self,
        challenge: &Challenge,
        operation: &str,
    ) -> Result<Option<String>, RegistryError> {
        let basic = match &self.credentials {
            Some(Credentials::Password { user, password }) => {
                let login = BASE64.encode(format!("{user}:{password}").as_bytes());
                Some(format!("Basic {login}"))
            }
            _ => None,
        };
        let (realm, service, scope) = match challenge {
            Challenge::Basic => return Ok(basic),
            Challenge::Bearer {
                realm,
                service,
                scope,
            } => (realm, service, scope),
        };
        let wanted = format!("repository:{}:pull,push", self.reference.repository);
        let scope = scope.as_deref().unwrap_or(&wanted);
        let mut query = Vec::new();
        if let Some(service) = service {
            query.push(("service", service.as_str()));
        }
        query.push(("scope", scope));
        let url = self.url(realm)?;
        let response = if let Some(Credentials::Identity(token)) = &self.credentials {
            query.extend([
                ("grant_type", "refresh_token"),
                ("refresh_token", token),
                ("client_id", "kiln"),
            ]);
            let form = encode(&query);
            let request = Request::post(&url)
                .header("content-type", "application/x-www-form-urlencoded")
                .body(form);
            self.run(request)?
        } else {
            let separator = if url.contains('?') { '&' } else { '?' };
            let mut request = Request::get(format!("{url}{separator}{}", encode(&query)));
            if let Some(basic) = basic {
                request = request.header("authorization", basic);
            }
            self.run(request.body(()))?
        };
        let mut response = response;
        if !response.status().is_success() {
            return Err(self.denied(operation, &mut response));
        }
        let answer = response
            .body_mut()
            .with_config()
            .limit(MAX_TOKEN)
            .read_to_vec();
        let answer = answer.map_err(|error| self.unreachable(error))?;
        let answer: Value = serde_json::from_slice(&answer).unwrap_or_default();
        let token = ["token", "access_token"]
            .iter()
            .find_map(|name| answer.get(name).and_then(Value::as_str));
        match token {
            Some(token) => Ok(Some(format!("Bearer {token}"))),
            None => Err(self.answer("gives no token".to_owned())),
        }
    }

    fn run<B: ureq::AsSendBody>(
        &self,
        request: Result<Request<B>, ureq::http::Error>,
    ) -> Result<Response<Body>, RegistryError> {
        let request =
            request.map_err(|error| self.answer(format!("gives a bad address: {error}")))?;
        self.agent
            .run(request)
            .map_err(|error| self.unreachable(error))
    }

    fn unreachable(&self, error: ureq::Error) -> RegistryError {
        let host = self.reference.host.clone();
        // The TLS library's own words: its error arrives in one of the input and output.
        let untrusted = error.to_string().contains("invalid peer certificate");
        let source = Box::new(error);
        if untrusted {
            RegistryError::Untrusted { host, source }
        } else {
            RegistryError::Unreachable { host, source }
        }
    }

    pub(super) fn answer(&self, problem: String) -> RegistryError {
        RegistryError::Answer {
            host: self.reference.host.clone(),
            problem,
        }
    }

    fn denied(&self, operation: &str, response: &mut Response<Body>) -> RegistryError {
        RegistryError::Denied {
            host: self.reference.host.clone(),
            operation: operation.to_owned(),
            with_login: self.credentials.is_some(),
            said: said(response),
        }
    }

    /// Returns the error that an answer with an unexpected status is.
    pub(super) fn status(&self, operation: &str, response: &mut Response<Body>) -> RegistryError {
        RegistryError::Status {
            host: self.reference.host.clone(),
            operation: operation.to_owned(),
            status: response.status().as_u16(),
            said: said(response),
        }
    }
}

/// Returns what a registry says of an error, without control characters.
fn said(response: &mut Response<Body>) -> String {
    let mut bytes = Vec::new();
    // What cannot be read is left out: the status says enough.
    drop(
        response
            .body_mut()
            .as_reader()
            .take(MAX_SAID)
            .read_to_end(&mut bytes),
    );
    let document: Value = serde_json::from_slice(&bytes).unwrap_or_default();
    let first = document.pointer("/errors/0");
    let member = |name: &str| {
        let text = first
            .and_then(|error| error.get(name))
            .and_then(Value::as_str);
        text.map(str::to_owned)
    };
    let text = match (member("code"), member("message")) {
        (Some(code), Some(message)) => format!("{code}: {message}"),
        (Some(text), None) | (None, Some(text)) => text,
        (None, None) => String::new(),
    };
    text.chars().filter(|c| !c.is_control()).take(400).collect()
}

fn encode(query: &[(&str, &str)]) -> String {
    let encode = |text| utf8_percent_encode(text, NON_ALPHANUMERIC);
    let pairs = query
        .iter()
        .map(|(name, value)| format!("{name}={}", encode(value)));
    pairs.collect::<Vec<_>>().join("&")
}

/// Returns whether a host with its port is this machine's loopback.
fn is_loopback(server: &str) -> bool {
    let Ok(uri) = format!("http://{server}/").parse::<Uri>() else {
        return false;
    };
    let host = uri.host().unwrap_or("").trim_matches(['[', ']']);
    host == "localhost"
        || host
            .parse::<IpAddr>()
            .is_ok_and(|address| address.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_loopback_is_spoken_to_without_encryption() {
        for (server, local) in [
            ("localhost:5000", true),
            ("127.0.0.1:5000", true),
            ("127.9.9.9", true),
            ("[::1]:5000", true),
            ("registry.example", false),
            ("localhost.example:80", false),
            ("10.0.0.1:5000", false),
        ] {
            assert_eq!(is_loopback(server), local, "{server}");
        }
        let reference = "registry.example/web:1".parse().unwrap();
        let registry = Registry::new(&reference, None, None, &[]);
        assert!(registry.url("http://registry.example/upload").is_err());
        assert!(registry.url("https://elsewhere.example/upload").is_ok());
        assert_eq!(
            registry.url("/v2/").unwrap(),
            "https://registry.example/v2/"
        );
    }
}
