//! The network, local sockets, shared memory: nothing crosses the border.

use std::net::TcpListener;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixListener, UnixStream};

use kiln_sandbox::End;

use crate::attempt::{HostProcess, Place, Twin, refuses, run_until_heard};

#[test]
fn a_port_of_the_host() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    refuses(
        &format!("tcp 127.0.0.1 {port}"),
        Twin::Anyone,
        &["ECONNREFUSED"],
    );
}

#[test]
fn a_port_of_the_host_by_the_other_protocol() {
    let Ok(listener) = TcpListener::bind("[::1]:0") else {
        return println!("this machine has no IPv6");
    };
    let port = listener.local_addr().unwrap().port();
    let errors = ["ECONNREFUSED", "EADDRNOTAVAIL", "ENETUNREACH"];
    refuses(&format!("tcp6 ::1 {port}"), Twin::Anyone, &errors);
}

#[test]
fn a_route_to_anywhere() {
    for address in ["192.0.2.1", "10.0.0.1", "169.254.169.254"] {
        refuses(
            &format!("route {address}"),
            Twin::SomeHosts,
            &["ENETUNREACH"],
        );
    }
}

/// Listens on an abstract name that no other test has.
fn abstract_listener(word: &str) -> (UnixListener, String) {
    let name = format!("kiln-escape-{word}-{}", std::process::id());
    let address = SocketAddr::from_abstract_name(&name).unwrap();
    (
        UnixListener::bind_addr(&address).unwrap(),
        format!("@{name}"),
    )
}

#[test]
fn an_abstract_socket_of_the_host() {
    let (_listener, name) = abstract_listener("connect");
    refuses(&format!("connect {name}"), Twin::Anyone, &["ECONNREFUSED"]);
}

#[test]
fn passing_a_descriptor_to_an_abstract_socket() {
    let (_listener, name) = abstract_listener("send");
    let act = format!("send-descriptor {name} {{output}}/file");
    refuses(&act, Twin::Anyone, &["ECONNREFUSED"]);
}

#[test]
fn a_path_socket_of_the_host() {
    let place = Place::new();
    let _listener = UnixListener::bind(place.path("host").join("socket")).unwrap();
    place.refuses("connect {host}/socket", Twin::Anyone, &["ENOENT"]);
    place.refuses(
        "send-descriptor {host}/socket {output}/file",
        Twin::Anyone,
        &["ENOENT"],
    );
}

/// Inside, the probe listens where a process of the host would look for it.
#[test]
fn listening_for_a_process_of_the_host() {
    let place = Place::new();
    let name = format!("kiln-escape-listen-{}", std::process::id());
    let act = format!("listen @{name}");
    let address = SocketAddr::from_abstract_name(&name).unwrap();
    {
        let _host = HostProcess::start(place.command(&act));
        UnixStream::connect_addr(&address).unwrap();
    }
    let mut tried = None;
    let (end, log) = run_until_heard(&place.request(&act), || {
        tried = Some(UnixStream::connect_addr(&address).map(drop));
    });
    assert_eq!((end, log.as_str()), (End::Cancelled, "listening\n"));
    let error = tried.unwrap().unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::ConnectionRefused);
}

/// Packet, VSOCK (which reaches the machine that hosts this one), ALG, XDP, raw IP.
#[test]
fn a_socket_of_another_kind() {
    refuses("socket 17 3 3", Twin::Root, &["EPERM"]);
    refuses("wide-socket 17 3 3", Twin::Root, &["EPERM"]);
    refuses("socket 40 1 0", Twin::SomeHosts, &["EPERM"]);
    refuses("socket 38 5 0", Twin::SomeHosts, &["EPERM"]);
    refuses("socket 44 3 0", Twin::SomeHosts, &["EPERM"]);
    refuses("socket 2 3 1", Twin::Root, &["EPERM"]);
    for family in (0..=63).filter(|family| ![1, 2, 10, 16].contains(family)) {
        let act = format!("socket {family} 1 0");
        assert_eq!(Place::new().inside(&act), "refused EPERM", "{act}");
    }
}

#[test]
fn a_netlink_socket_other_than_for_routes() {
    // Packet filters, transformations, audit, connector, kernel events, generic.
    for protocol in [12, 6, 9, 11, 15, 16] {
        refuses(
            &format!("socket 16 3 {protocol}"),
            Twin::SomeHosts,
            &["EPERM"],
        );
    }
}

#[test]
fn a_pair_of_sockets_of_another_family() {
    // TIPC is the only other family that makes pairs.
    refuses("socketpair 30", Twin::SomeHosts, &["EPERM"]);
}

#[test]
fn a_shared_memory_segment_of_the_host() {
    let place = Place::new();
    let key = std::process::id() | 0x4000_0000;
    let act = |act: &str| place.outside(&format!("{act} {key}"));
    assert_eq!(act("make-segment"), "worked");
    let outside = act("use-segment");
    let inside = place.inside(&format!("use-segment {key}"));
    assert_eq!(act("remove-segment"), "worked");
    assert_eq!(
        (outside.as_str(), inside.as_str()),
        ("worked", "refused ENOENT")
    );
}
