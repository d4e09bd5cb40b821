//! A pod of Kubernetes: its security context, and volumes for writable directories.

use serde_json::{Value, json};

use super::{Runtime, WRITABLE_BYTES};

/// Returns a pod with one container. Kubernetes takes JSON wherever it takes YAML.
///
/// The volumes are in memory and bounded. Kubernetes has no option that keeps programs in
/// them from being executed: a node's own settings have to.
pub fn pod(runtime: &Runtime) -> Value {
    let (user, group) = runtime.user;
    let names: Vec<String> = runtime
        .writable
        .iter()
        .map(|path| volume_name(path))
        .collect();
    let mounts: Vec<Value> = runtime
        .writable
        .iter()
        .zip(&names)
        .map(|(path, name)| json!({ "name": name, "mountPath": path }))
        .collect();
    let volumes: Vec<Value> = names
        .iter()
        .map(|name| {
            json!({
                "name": name,
                "emptyDir": { "medium": "Memory", "sizeLimit": format!("{}Mi", WRITABLE_BYTES >> 20) },
            })
        })
        .collect();
    let ports: Vec<Value> = runtime
        .ports
        .iter()
        .filter_map(|port| {
            let (number, protocol) = port.split_once('/')?;
            Some(json!({
                "containerPort": number.parse::<u16>().ok()?,
                "protocol": protocol.to_ascii_uppercase(),
            }))
        })
        .collect();
    let name = label(&runtime.name);
    json!({
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": { "name": name },
        "spec": {
            "automountServiceAccountToken": false,
            "enableServiceLinks": false,
            "securityContext": {
                "runAsNonRoot": user != 0,
                "runAsUser": user,
                "runAsGroup": group,
                "fsGroup": group,
                "seccompProfile": { "type": "RuntimeDefault" },
            },
            "containers": [{
                "name": name,
                "image": runtime.name,
                "ports": ports,
                "volumeMounts": mounts,
                "securityContext": {
                    "allowPrivilegeEscalation": false,
                    "capabilities": { "drop": ["ALL"] },
                    "privileged": false,
                    "readOnlyRootFilesystem": true,
                },
            }],
            "volumes": volumes,
        },
    })
}

/// Returns a name that Kubernetes takes: lower-case letters, digits and hyphens.
fn label(text: &str) -> String {
    let plain: String = text
        .chars()
        .map(|c| {
            if c.is_ascii_alphanumeric() {
                c.to_ascii_lowercase()
            } else {
                '-'
            }
        })
        .take(63)
        .collect();
    plain.trim_matches('-').to_owned()
}

/// Returns the name of a directory's volume. Two directories whose names would be the same
/// get different ones.
fn volume_name(path: &str) -> String {
    let plain = label(path);
    let exact = format!("/{}", plain.replace('-', "/"));
    if exact == path {
        return plain;
    }
    let digest = crate::hash::BlobDigest::of(path.as_bytes()).to_string();
    let start: String = plain.chars().take(50).collect();
    format!("{start}-{}", digest.get(..8).unwrap_or_default())
        .trim_start_matches('-')
        .to_owned()
}

#[cfg(test)]
mod tests {
    use super::super::tests::example;
    use super::*;

    #[test]
    fn the_pod_of_an_image() {
        insta::assert_snapshot!(serde_json::to_string_pretty(&pod(&example())).unwrap());
    }

    #[test]
    fn volumes_of_different_directories_have_different_names() {
        assert_eq!(volume_name("/var/lib"), "var-lib");
        let other = volume_name("/var-lib");
        assert!(other.starts_with("var-lib-"), "{other}");
        assert_ne!(volume_name("/Var/lib"), "var-lib");
    }
}
