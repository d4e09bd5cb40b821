//! Logins for registries, from the files and helpers of Docker and Podman.
//!
//! A file holds logins by registry, encoded but not encrypted, or names a program that
//! keeps them (`docker-credential-NAME`). Podman's files name repositories too; the
//! longest name that fits counts.

use std::io::{Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use data_encoding::BASE64;
use serde_json::Value;

use super::{Reference, RegistryError};

/// Longest file or answer that is read, in bytes.
const MAX: u64 = 1 << 20;

/// A login.
#[derive(Clone, PartialEq, Eq)]
pub enum Credentials {
    /// A name and a password.
    Password {
        /// The name.
        user: String,
        /// The password.
        password: String,
    },
    /// A token with which others are asked for.
    Identity(String),
}

// A login is never printed.
impl std::fmt::Debug for Credentials {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Credentials")
    }
}

/// The files in which logins are looked for, in order.
#[derive(Debug, Clone, Default)]
pub struct CredentialFiles(pub Vec<PathBuf>);

impl CredentialFiles {
    /// Returns the files that Podman and Docker use, by the variables that they heed.
    pub fn from_environment(variable: impl Fn(&str) -> Option<PathBuf>) -> Self {
        if let Some(file) = variable("REGISTRY_AUTH_FILE") {
            return Self(vec![file]);
        }
        let home = variable("HOME");
        let in_home = |path: &str| home.as_ref().map(|home| home.join(path));
        let podman = variable("XDG_RUNTIME_DIR").map(|run| run.join("containers/auth.json"));
        let configuration = variable("XDG_CONFIG_HOME").or_else(|| in_home(".config"));
        let docker = variable("DOCKER_CONFIG").or_else(|| in_home(".docker"));
        Self(
            [
                podman,
                configuration.map(|directory| directory.join("containers/auth.json")),
                docker.map(|directory| directory.join("config.json")),
            ]
            .into_iter()
            .flatten()
            .collect(),
        )
    }

    /// Returns the login for a repository of a registry; `None` if there is none.
    ///
    /// # Errors
    /// [`RegistryError::Logins`] for a file that cannot be read or is none,
    /// [`RegistryError::Helper`] for a program that fails.
    pub fn find(&self, reference: &Reference) -> Result<Option<Credentials>, RegistryError> {
        for path in &self.0 {
            let Some(document) = read(path)? else {
                continue;
            };
            if let Some(found) = in_document(&document, path, reference)? {
                return Ok(Some(found));
            }
        }
        Ok(None)
    }
}

fn read(path: &Path) -> Result<Option<Value>, RegistryError> {
    let failed = |problem: String| RegistryError::Logins {
        path: path.to_owned(),
        problem,
    };
    let file = match std::fs::File::open(path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        other => other.map_err(|error| failed(error.to_string()))?,
    };
    let mut text = String::new();
    file.take(MAX)
        .read_to_string(&mut text)
        .map_err(|error| failed(error.to_string()))?;
    if text.trim().is_empty() {
        return Ok(None);
    }
    serde_json::from_str(&text)
        .map(Some)
        .map_err(|error| failed(error.to_string()))
}

/// Returns the names under which a login may stand, the most special first.
fn names(reference: &Reference) -> Vec<String> {
    let mut names = vec![format!("{}/{}", reference.host, reference.repository)];
    let mut at = reference.repository.as_str();
    while let Some((above, _)) = at.rsplit_once('/') {
        names.push(format!("{}/{above}", reference.host));
        at = above;
    }
    names.push(reference.host.clone());
    for scheme in ["https", "http"] {
        for end in ["", "/", "/v1/", "/v2/"] {
            names.push(format!("{scheme}://{}{end}", reference.host));
        }
    }
    if reference.host == "docker.io" {
        names.push("https://index.docker.io/v1/".to_owned());
    }
    names
}

fn in_document(
    document: &Value,
    path: &Path,
    reference: &Reference,
) -> Result<Option<Credentials>, RegistryError> {
    let names = names(reference);
    for name in &names {
        let member = |table: &str| document.get(table)?.get(name);
        if let Some(helper) = member("credHelpers").and_then(Value::as_str)
            && let Some(found) = ask(helper, name)?
        {
            return Ok(Some(found));
        }
        let Some(login) = member("auths") else {
            continue;
        };
        if let Some(found) = decode(login).map_err(|problem| RegistryError::Logins {
            path: path.to_owned(),
            problem: format!("the login of `{name}` {problem}"),
        })? {
            return Ok(Some(found));
        }
    }
    let Some(store) = document.get("credsStore").and_then(Value::as_str) else {
        return Ok(None);
    };
    let server = match reference.host.as_str() {
        "docker.io" => "https://index.docker.io/v1/",
        host => host,
    };
    ask(store, server)
}

fn decode(login: &Value) -> Result<Option<Credentials>, String> {
    let text = |name: &str| login.get(name).and_then(Value::as_str);
    if let Some(token) = text("identitytoken").filter(|token| !token.is_empty()) {
        return Ok(Some(Credentials::Identity(token.to_owned())));
    }
    if let (Some(user), Some(password)) = (text("username"), text("password")) {
        return Ok(Some(Credentials::Password {
            user: user.to_owned(),
            password: password.to_owned(),
        }));
    }
    let Some(encoded) = text("auth").filter(|encoded| !encoded.is_empty()) else {
        // A helper keeps it.
        return Ok(None);
    };
    let decoded = BASE64
        .decode(encoded.as_bytes())
        .map_err(|_| "is not base 64".to_owned())?;
    let decoded = String::from_utf8(decoded).map_err(|_| "is not UTF-8".to_owned())?;
    let (user, password) = decoded
        .split_once(':')
        .ok_or_else(|| "has no password".to_owned())?;
    Ok(Some(Credentials::Password {
        user: user.to_owned(),
        password: password.trim_end_matches('\0').to_owned(),
    }))
}

/// Asks a program that keeps logins; `None` if it has none.
fn ask(helper: &str, server: &str) -> Result<Option<Credentials>, RegistryError> {
    let program = format!("docker-credential-{helper}");
    let failed = |problem: String| RegistryError::Helper {
        program: program.clone(),
        host: server.to_owned(),
        problem,
    };
    // It is looked for in PATH; a slash would name a file.
    if !helper
        .chars()
        .all(|c| c.is_ascii_alphanumeric() || "-_.".contains(c))
    {
        return Err(failed("it is no name of a program".to_owned()));
    }
    let mut child = Command::new(&program)
        .arg("get")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .map_err(|error| failed(error.to_string()))?;
    if let Some(mut input) = child.stdin.take() {
        // A program that does not read says what is wrong by its status.
        drop(input.write_all(server.as_bytes()));
    }
    let mut answer = Vec::new();
    if let Some(output) = child.stdout.take() {
        output
            .take(MAX)
            .read_to_end(&mut answer)
            .map_err(|error| failed(error.to_string()))?;
    }
    let status = child.wait().map_err(|error| failed(error.to_string()))?;
    if !status.success() {
        let said = String::from_utf8_lossy(&answer);
        // What all helpers say where there is none.
        if said.contains("credentials not found") {
            return Ok(None);
        }
        return Err(failed(said.trim().to_owned()));
    }
    let document: Value =
        serde_json::from_slice(&answer).map_err(|error| failed(error.to_string()))?;
    let text = |name: &str| document.get(name).and_then(Value::as_str).unwrap_or("");
    let (user, secret) = (text("Username").to_owned(), text("Secret").to_owned());
    if secret.is_empty() {
        return Ok(None);
    }
    Ok(Some(if user == "<token>" {
        Credentials::Identity(secret)
    } else {
        Credentials::Password {
            user,
            password: secret,
        }
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn login(user: &str, password: &str) -> Credentials {
        Credentials::Password {
            user: user.to_owned(),
            password: password.to_owned(),
        }
    }

    fn found(document: &str, reference: &str) -> Option<Credentials> {
        let document = serde_json::from_str(document).unwrap();
        let reference = reference.parse().unwrap();
        in_document(&document, Path::new("file"), &reference).unwrap()
    }

    #[test]
    fn the_most_special_name_counts() {
        let document = r#"{ "auths": {
            "registry.example": { "auth": "YTpi" },
            "registry.example/team": { "auth": "Yzpk" },
            "https://other.example/v1/": { "username": "u", "password": "p" },
            "token.example": { "identitytoken": "t" },
            "helped.example": {}
        } }"#;
        assert_eq!(
            found(document, "registry.example/web:1"),
            Some(login("a", "b"))
        );
        assert_eq!(
            found(document, "registry.example/team/web:1"),
            Some(login("c", "d"))
        );
        assert_eq!(found(document, "other.example/web"), Some(login("u", "p")));
        let token = Credentials::Identity("t".to_owned());
        assert_eq!(found(document, "token.example/web"), Some(token));
        assert_eq!(found(document, "helped.example/web"), None);
        assert_eq!(found(document, "nobody.example/web"), None);
    }

    #[test]
    fn a_broken_login_is_an_error_without_the_login() {
        let document = serde_json::json!({ "auths": { "a.example": { "auth": "c2VjcmV0" } } });
        let reference = "a.example/x".parse().unwrap();
        let error = in_document(&document, Path::new("file"), &reference).unwrap_err();
        let RegistryError::Logins { problem, .. } = error else {
            panic!("{error}")
        };
        assert_eq!(problem, "the login of `a.example` has no password");
        assert_eq!(format!("{:?}", login("a", "b")), "Credentials");
    }

    #[test]
    fn a_helper_is_a_name_and_no_path() {
        let document = serde_json::json!({ "credHelpers": { "a.example": "../../bin/sh" } });
        let reference = "a.example/x".parse().unwrap();
        let error = in_document(&document, Path::new("file"), &reference).unwrap_err();
        assert!(matches!(error, RegistryError::Helper { .. }), "{error}");
    }
}
