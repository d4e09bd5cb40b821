//! Users, groups, and the files that programs look them up in.

use super::super::diagnostic::{Diagnostic, Span, Spanned};
use super::super::fields::Fields;

/// A user of an image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct User {
    /// The name.
    pub name: String,
    /// The number.
    pub uid: u32,
    /// The number of the first group.
    pub gid: u32,
    /// The home directory.
    pub home: String,
    /// The shell.
    pub shell: String,
}

/// A group of an image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Group {
    /// The name.
    pub name: String,
    /// The number.
    pub gid: u32,
    /// Names of users whose second group it is.
    pub members: Vec<String>,
}

/// Returns `/etc/passwd`.
pub(super) fn passwd(users: &[User]) -> String {
    let line = |user: &User| {
        let User {
            name,
            uid,
            gid,
            home,
            shell,
        } = user;
        format!("{name}:x:{uid}:{gid}::{home}:{shell}\n")
    };
    users.iter().map(line).collect::<Vec<_>>().concat()
}

/// Returns `/etc/group`.
pub(super) fn group(groups: &[Group]) -> String {
    let line = |group: &Group| {
        let members = group.members.join(",");
        format!("{}:x:{}:{members}\n", group.name, group.gid)
    };
    groups.iter().map(line).collect::<Vec<_>>().concat()
}

/// `/etc/nsswitch.conf` for programs of glibc: files, and names of hosts from DNS too.
pub(super) const NSSWITCH: &str = "passwd: files\ngroup: files\nshadow: files\n\
hosts: files dns\nnetworks: files\nprotocols: files\nservices: files\n";

pub(super) fn read_users(fields: &mut Fields<'_, '_>) -> Vec<User> {
    let users = fields.list("users", |f| {
        let name = f.required("name");
        let name = name_of(f, name);
        let uid = id(f, "uid");
        let gid = if f.has("gid") {
            id(f, "gid")
        } else {
            uid.clone()
        };
        let home = field(f, "home", "/");
        let shell = field(f, "shell", "/sbin/nologin");
        let (name, uid) = (name?, uid?);
        Some((
            (name.range(), uid.range()),
            User {
                name: name.value,
                uid: uid.value,
                gid: gid?.value,
                home: home?,
                shell: shell?,
            },
        ))
    });
    let named = users
        .iter()
        .map(|(at, user)| (at, user.name.as_str(), user.uid));
    refuse_equal(fields, "users", named);
    users.into_iter().map(|(_, user)| user).collect()
}

pub(super) fn read_groups(fields: &mut Fields<'_, '_>, users: &[User]) -> Vec<Group> {
    let groups = fields.list("groups", |f| {
        let name = f.required("name");
        let name = name_of(f, name);
        let gid = id(f, "gid");
        let members = f.texts("members");
        for member in &members {
            if users.iter().all(|user| user.name != member.value) {
                let message = format!("there is no user `{}`", member.value);
                let diagnostic = Diagnostic::new(f.file, member.range(), message)
                    .hint("declare it with `[[image.users]]`");
                f.report(diagnostic);
            }
        }
        let (name, gid) = (name?, gid?);
        Some((
            (name.range(), gid.range()),
            Group {
                name: name.value,
                gid: gid.value,
                members: members.into_iter().map(|member| member.value).collect(),
            },
        ))
    });
    let named = groups
        .iter()
        .map(|(at, group)| (at, group.name.as_str(), group.gid));
    refuse_equal(fields, "groups", named);
    groups.into_iter().map(|(_, group)| group).collect()
}

/// Reports names and numbers that stand twice; each comes with the places of the two.
fn refuse_equal<'a>(
    fields: &mut Fields<'_, '_>,
    what: &str,
    all: impl Iterator<Item = (&'a (Span, Span), &'a str, u32)>,
) {
    let mut before: Vec<(&str, u32)> = Vec::new();
    for ((name_at, number_at), name, number) in all {
        for (other, others_number) in &before {
            if *other == name {
                fields.problem(name_at.clone(), format!("there are two {what} `{name}`"));
            }
            if *others_number == number {
                let message = format!("`{other}` and `{name}` have one number");
                fields.problem(number_at.clone(), message);
            }
        }
        before.push((name, number));
    }
}

/// Reads a name as `useradd` takes it: what starts with a digit would be taken for a
/// number, and a colon or line break would forge another field or user.
fn name_of(fields: &mut Fields<'_, '_>, name: Option<Spanned<String>>) -> Option<Spanned<String>> {
    let name = name?;
    let good = name.value.len() <= 32
        && name
            .value
            .starts_with(|c: char| c.is_ascii_lowercase() || c == '_')
        && name
            .value
            .chars()
            .all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || "_-".contains(c));
    if good {
        return Some(name);
    }
    let message = format!("`{}` is not a name of a user or group", name.value);
    let diagnostic = Diagnostic::new(fields.file, name.range(), message)
        .hint("names have at most 32 of a-z, 0-9, `_` and `-`, and start with a letter or `_`");
    fields.report(diagnostic);
    None
}

fn id(fields: &mut Fields<'_, '_>, key: &'static str) -> Option<Spanned<u32>> {
    if !fields.has(key) {
        fields.problem(fields.span(), format!("`{key}` is missing"));
    }
    let span = fields.span_of(key);
    let number = fields.number(key)?;
    match u32::try_from(number) {
        // The last number is the kernel's word for "leave it".
        Ok(number) if number < u32::MAX => Some(Spanned::new(number, &span)),
        _ => {
            fields.problem(span, format!("{number} is not a user's or group's number"));
            None
        }
    }
}

/// Reads a text that stands between colons.
fn field(fields: &mut Fields<'_, '_>, key: &'static str, default: &str) -> Option<String> {
    let Some(text) = fields.text(key) else {
        return Some(default.to_owned());
    };
    if text.value.starts_with('/') && !text.value.contains([':', '\n', '\r', '\0']) {
        return Some(text.value);
    }
    fields.problem(text.range(), format!("`{key}` is not an absolute path"));
    None
}
