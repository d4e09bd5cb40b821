use std::io::{BufRead, Write as _};
use std::net::TcpListener;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::*;

/// Serves canned answers by path on a loopback port, a bounded number of times.
fn serve(answers: &'static [(&'static str, &'static str)]) -> (String, &'static AtomicUsize) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let base = format!("http://{}", listener.local_addr().unwrap());
    let asked: &'static AtomicUsize = Box::leak(Box::default());
    std::thread::spawn(move || {
        for stream in listener.incoming().take(20) {
            let mut stream = stream.unwrap();
            let mut reader = io::BufReader::new(stream.try_clone().unwrap());
            let mut first = String::new();
            reader.read_line(&mut first).unwrap();
            let mut line = String::new();
            while reader.read_line(&mut line).unwrap() > 2 {
                line.clear();
            }
            asked.fetch_add(1, Ordering::SeqCst);
            let path = first.split(' ').nth(1).unwrap_or("");
            let answer = answers.iter().find(|(at, _)| *at == path).map_or(
                "HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n",
                |(_, answer)| answer,
            );
            stream.write_all(answer.as_bytes()).unwrap();
        }
    });
    (base, asked)
}

const GOOD: &str = "HTTP/1.1 200 OK\r\nContent-Length: 6\r\nConnection: close\r\n\r\nhello\n";
const OTHER: &str = "HTTP/1.1 200 OK\r\nContent-Length: 6\r\nConnection: close\r\n\r\nHELLO\n";
const SHORT: &str = "HTTP/1.1 200 OK\r\nContent-Length: 60\r\nConnection: close\r\n\r\nhello\n";
const MOVED: &str =
    "HTTP/1.1 302 Found\r\nLocation: /good\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";
const ANSWERS: &[(&str, &str)] = &[
    ("/good", GOOD),
    ("/other", OTHER),
    ("/short", SHORT),
    ("/moved", MOVED),
];

fn fetch(urls: &[String], directory: &Path) -> Result<Fetched, FetchError> {
    let fetcher = Fetcher::new(Mirrors::default(), None);
    fetcher.fetch(
        urls,
        Sha256Digest::of(b"hello\n"),
        directory,
        &directory.join("into"),
        &|_| {},
    )
}

#[test]
fn the_first_address_with_the_right_bytes_is_taken() {
    let (base, _) = serve(ANSWERS);
    let directory = tempfile::tempdir().unwrap();
    let urls = ["missing", "short", "other", "moved"].map(|path| format!("{base}/{path}"));
    let fetched = fetch(&urls, directory.path()).unwrap();
    let bytes = std::fs::read(directory.path().join("into")).unwrap();
    assert_eq!(bytes, b"hello\n");
    assert_eq!(fetched.from.as_deref(), Some(urls[3].as_str()));
}

#[test]
fn a_file_that_is_there_is_taken_once_and_only_if_it_is_whole() {
    let (base, asked) = serve(ANSWERS);
    let directory = tempfile::tempdir().unwrap();
    let urls = [format!("{base}/good")];
    let kept = directory
        .path()
        .join(Sha256Digest::of(b"hello\n").to_string());
    std::fs::write(&kept, "hello\n").unwrap();
    assert_eq!(fetch(&urls, directory.path()).unwrap().from, None);
    assert_eq!(asked.load(Ordering::SeqCst), 0);
    assert!(!kept.exists());
    std::fs::write(&kept, "hel").unwrap();
    let fetched = fetch(&urls, directory.path()).unwrap();
    assert_eq!(fetched.from.as_deref(), Some(urls[0].as_str()));
    assert_eq!(asked.load(Ordering::SeqCst), 1);
}

/// Two packages may want one file under two names: neither takes it from under the other.
#[test]
fn the_same_file_may_be_fetched_by_many_at_once() {
    let (base, _) = serve(ANSWERS);
    let directory = tempfile::tempdir().unwrap();
    let fetcher = Fetcher::new(Mirrors::default(), None);
    let urls = [format!("{base}/good")];
    std::thread::scope(|scope| {
        for number in 0..8 {
            let into = directory.path().join(format!("into-{number}"));
            let (fetcher, urls, directory) = (&fetcher, &urls, directory.path());
            scope.spawn(move || {
                let expected = Sha256Digest::of(b"hello\n");
                fetcher
                    .fetch(urls, expected, directory, &into, &|_| {})
                    .unwrap();
                assert_eq!(std::fs::read(into).unwrap(), b"hello\n");
            });
        }
    });
    assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 8);
}

#[test]
fn wrong_bytes_are_shown_and_kept_under_their_own_hash() {
    let (base, _) = serve(ANSWERS);
    let directory = tempfile::tempdir().unwrap();
    let urls = [format!("{base}/other"), format!("{base}/missing")];
    let Err(FetchError::WrongHash {
        actual,
        kept,
        attempts,
        ..
    }) = fetch(&urls, directory.path())
    else {
        panic!("wrong bytes were taken")
    };
    assert_eq!(actual, Sha256Digest::of(b"HELLO\n"));
    assert_eq!(std::fs::read(kept).unwrap(), b"HELLO\n");
    assert_eq!(attempts.len(), 2);
    // With the declaration corrected, no download is needed.
    let fetcher = Fetcher::new(Mirrors::default(), None);
    let fetched = fetcher
        .fetch(
            &[],
            actual,
            directory.path(),
            &directory.path().join("into"),
            &|_| {},
        )
        .unwrap();
    assert_eq!(fetched.from, None);
}

#[test]
fn a_truncated_download_is_named_and_not_kept() {
    let (base, _) = serve(ANSWERS);
    let directory = tempfile::tempdir().unwrap();
    let Err(FetchError::NoAddress { attempts, .. }) =
        fetch(&[format!("{base}/short")], directory.path())
    else {
        panic!("a truncated download was taken")
    };
    assert!(
        attempts[0].why.contains("6 of 60 bytes"),
        "{}",
        attempts[0].why
    );
    assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 0);
}

#[test]
fn a_host_that_does_not_answer_is_asked_once() {
    // A port that was just free refuses connections.
    let port = TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap()
        .port();
    let directory = tempfile::tempdir().unwrap();
    let urls = ["a", "b"].map(|path| format!("http://127.0.0.1:{port}/{path}"));
    let Err(FetchError::NoAddress { attempts, .. }) = fetch(&urls, directory.path()) else {
        panic!("nothing can have come")
    };
    assert!(
        attempts[1].why.contains("did not answer before"),
        "{}",
        attempts[1].why
    );
}
