//! What `mirror://NAME/…` stands for.

use std::collections::BTreeMap;

use super::FetchError;

/// Base addresses of mirrors by name, each list in the order in which it is tried.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Mirrors {
    /// The bases; a trailing `/` makes no difference.
    pub bases: BTreeMap<String, Vec<String>>,
}

impl Mirrors {
    /// Returns the addresses to try for a list of written ones, in order, each once.
    ///
    /// # Errors
    /// [`FetchError::NoMirror`] when nothing is left because a mirror has no base.
    pub fn candidates<'a>(
        &self,
        urls: impl IntoIterator<Item = &'a str>,
    ) -> Result<Vec<String>, FetchError> {
        let mut candidates: Vec<String> = Vec::new();
        let mut unknown = None;
        for url in urls {
            let expanded = match url.strip_prefix("mirror://") {
                None => vec![url.to_owned()],
                Some(rest) => {
                    let (name, path) = rest.split_once('/').unwrap_or((rest, ""));
                    let bases = self.bases.get(name).filter(|bases| !bases.is_empty());
                    if bases.is_none() {
                        unknown.get_or_insert_with(|| name.to_owned());
                    }
                    bases
                        .into_iter()
                        .flatten()
                        .map(|base| format!("{}/{path}", base.trim_end_matches('/')))
                        .collect()
                }
            };
            for candidate in expanded {
                if !candidates.contains(&candidate) {
                    candidates.push(candidate);
                }
            }
        }
        match unknown {
            Some(name) if candidates.is_empty() => Err(FetchError::NoMirror(name)),
            _ => Ok(candidates),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mirrors_expand_in_order() {
        let bases = BTreeMap::from([(
            "debian".to_owned(),
            vec![
                "http://one.example/debian/".to_owned(),
                "http://two.example/d".to_owned(),
            ],
        )]);
        let mirrors = Mirrors { bases };
        let urls = [
            "https://up.example/x.tar",
            "mirror://debian/pool/x",
            "https://up.example/x.tar",
        ];
        assert_eq!(
            mirrors.candidates(urls).unwrap(),
            [
                "https://up.example/x.tar",
                "http://one.example/debian/pool/x",
                "http://two.example/d/pool/x"
            ]
        );
        let none = Mirrors::default();
        assert_eq!(none.candidates(urls).unwrap(), ["https://up.example/x.tar"]);
        assert!(matches!(
            none.candidates(["mirror://debian/x"]),
            Err(FetchError::NoMirror(name)) if name == "debian"
        ));
    }
}
