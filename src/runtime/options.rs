//! Options of Podman and Docker, as a line that a shell reads.

use super::{Runtime, WRITABLE_BYTES};

/// A program that takes the options.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Engine {
    /// Podman.
    Podman,
    /// Docker.
    Docker,
}

/// Returns the options of `podman run` or `docker run`, without the image; each needs no
/// further quoting in a POSIX shell.
pub fn line(runtime: &Runtime, engine: Engine) -> String {
    let (user, group) = runtime.user;
    let mut options = vec![
        "--read-only".to_owned(),
        "--cap-drop=ALL".to_owned(),
        match engine {
            Engine::Podman => "--security-opt=no-new-privileges".to_owned(),
            Engine::Docker => "--security-opt=no-new-privileges:true".to_owned(),
        },
        format!("--user={user}:{group}"),
    ];
    if engine == Engine::Podman {
        // Podman would put writable directories of its own into a read-only root, and turn
        // what the image declares into volumes on the disk.
        options.push("--read-only-tmpfs=false".to_owned());
        options.push("--image-volume=ignore".to_owned());
    }
    options.extend(runtime.writable.iter().map(|path| {
        format!("--tmpfs={path}:rw,noexec,nosuid,nodev,mode=1777,size={WRITABLE_BYTES}")
    }));
    let quoted: Vec<String> = options.iter().map(|option| quote(option)).collect();
    quoted.join(" ")
}

/// Quotes a word for a POSIX shell, if it needs it.
pub fn quote(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_=:,./@%+".contains(c);
    if !word.is_empty() && word.chars().all(plain) {
        return word.to_owned();
    }
    format!("'{}'", word.replace('\'', r"'\''"))
}

#[cfg(test)]
mod tests {
    use super::super::tests::example;
    use super::*;

    #[test]
    fn the_options_of_both_engines() {
        let mut runtime = example();
        runtime.writable = vec!["/a b".to_owned(), "/it's".to_owned()];
        insta::assert_snapshot!(line(&runtime, Engine::Podman), @r"--read-only --cap-drop=ALL --security-opt=no-new-privileges --user=65534:65533 --read-only-tmpfs=false --image-volume=ignore '--tmpfs=/a b:rw,noexec,nosuid,nodev,mode=1777,size=67108864' '--tmpfs=/it'\''s:rw,noexec,nosuid,nodev,mode=1777,size=67108864'");
        insta::assert_snapshot!(line(&example(), Engine::Docker), @"--read-only --cap-drop=ALL --security-opt=no-new-privileges:true --user=65534:65533 --tmpfs=/tmp:rw,noexec,nosuid,nodev,mode=1777,size=67108864 --tmpfs=/var/lib/demo:rw,noexec,nosuid,nodev,mode=1777,size=67108864");
    }
}
