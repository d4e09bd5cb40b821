//! Names of images in registries.

use std::fmt;
use std::str::FromStr;

/// The registry that Docker means where none is named.
const DOCKER: &str = "docker.io";

/// An image in a registry: `HOST[:PORT]/NAME[:TAG]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reference {
    /// The registry, with its port if it has one of its own.
    pub host: String,
    /// The repository.
    pub repository: String,
    /// The tag, or a digest with its algorithm; `None` where none is named.
    pub tag: Option<String>,
}

impl Reference {
    /// Returns the tag, or `latest`.
    pub fn tag(&self) -> &str {
        self.tag.as_deref().unwrap_or("latest")
    }

    /// Returns the host and port to ask.
    pub fn server(&self) -> &str {
        match self.host.as_str() {
            DOCKER => "registry-1.docker.io",
            host => host,
        }
    }
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let separator = if self.tag().contains(':') { '@' } else { ':' };
        write!(
            f,
            "{}/{}{separator}{}",
            self.host,
            self.repository,
            self.tag()
        )
    }
}

impl FromStr for Reference {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (host, rest) = text
            .split_once('/')
            .ok_or_else(|| format!("`{text}` names no registry: write `HOST/NAME:TAG`"))?;
        let is_host = host == "localhost" || host.contains(['.', ':']);
        let plain = |c: char| c.is_ascii_alphanumeric() || "-._:[]".contains(c);
        if !is_host || !host.chars().all(plain) {
            return Err(format!(
                "`{host}` is no registry: write its full name, such as `registry.example/{text}`"
            ));
        }
        let (repository, tag) = match (rest.split_once('@'), rest.rsplit_once(':')) {
            (Some((repository, digest)), _) => {
                let hex = digest.strip_prefix("sha256:").unwrap_or("");
                if hex.parse::<crate::hash::Sha256Digest>().is_err() {
                    return Err(format!("`{digest}` is not a digest"));
                }
                (repository, Some(digest))
            }
            (None, Some((repository, tag))) => (repository, Some(tag)),
            (None, None) => (rest, None),
        };
        if let Some(tag) = tag
            && !tag.contains(':')
            && !is_tag(tag)
        {
            return Err(format!("`{tag}` is not a tag"));
        }
        if !is_repository(repository) {
            return Err(format!("`{repository}` is not a repository's name"));
        }
        Ok(Self {
            host: host.to_owned(),
            repository: repository.to_owned(),
            tag: tag.map(str::to_owned),
        })
    }
}

/// Returns whether a text is a tag, as the OCI distribution specification has it.
pub fn is_tag(text: &str) -> bool {
    let mut bytes = text.bytes();
    bytes
        .next()
        .is_some_and(|first| first.is_ascii_alphanumeric() || first == b'_')
        && text.len() <= 128
        && bytes.all(|byte| byte.is_ascii_alphanumeric() || b"_.-".contains(&byte))
}

/// Returns whether a text is a repository's name: lower-case components between slashes.
pub fn is_repository(text: &str) -> bool {
    text.len() <= 255
        && text.split('/').all(|part| {
            let ends = |byte: Option<&u8>| {
                byte.is_some_and(|b| b.is_ascii_lowercase() || b.is_ascii_digit())
            };
            let bytes = part.as_bytes();
            ends(bytes.first())
                && ends(bytes.last())
                && bytes
                    .iter()
                    .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b"._-".contains(b))
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reference_names_its_registry() {
        for (text, shown) in [
            ("localhost:5000/web", "localhost:5000/web:latest"),
            ("127.0.0.1:5000/team/web:1.2", "127.0.0.1:5000/team/web:1.2"),
            ("registry.example/a/b/c:v1", "registry.example/a/b/c:v1"),
        ] {
            let reference: Reference = text.parse().unwrap();
            assert_eq!(reference.to_string(), shown);
        }
        let digest = format!("registry.example/web@sha256:{}", "a".repeat(64));
        assert_eq!(digest.parse::<Reference>().unwrap().to_string(), digest);
        for text in [
            "web",
            "web:1",
            "team/web:1",
            "registry.example/Web:1",
            "registry.example/web:-x",
            "registry.example/../web:1",
            "registry.example/web@sha256:12",
            "user@registry.example/web:1",
            "",
        ] {
            assert!(text.parse::<Reference>().is_err(), "{text}");
        }
    }
}
