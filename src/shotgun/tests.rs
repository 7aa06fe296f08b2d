//! Tests of the client over real sockets: each answer is served by a listener on
//! loopback that plays one broken site.

use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use super::*;
use crate::api3::Read;
use crate::filter::RawFilter;
use crate::metrics::Metrics;

/// Serves each of these raw answers once, one connection each.
async fn site(answers: Vec<String>) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("an address");
    tokio::spawn(async move {
        for answer in answers {
            let (mut socket, _) = listener.accept().await.expect("a connection");
            let mut request = vec![0; 65536];
            let _ = socket.read(&mut request).await;
            let _ = socket.write_all(answer.as_bytes()).await;
        }
    });
    format!("http://{address}")
}

fn http(status: &str, headers: &str, body: &str) -> String {
    format!("HTTP/1.1 {status}\r\nconnection: close\r\n{headers}content-length: {}\r\n\r\n{body}", body.len())
}

fn client(site: &str, attempts: u32) -> Client {
    let mut settings = Settings::new(site, Auth::script("bot", "very-secret"));
    settings.retry = RetryPolicy { attempts, initial: Duration::from_millis(1), max: Duration::from_millis(2) };
    Client::new(settings, Metrics::default()).expect("plain settings")
}

async fn read(answers: Vec<String>, attempts: u32) -> Result<Answer, Error> {
    let client = client(&site(answers).await, attempts);
    client.read(&Read::new("Shot", RawFilter::everything(), 500), Purpose::Fetch).await
}

fn rows() -> String {
    let body = json!({"results": {"entities": [{"type": "Shot", "id": 7}]}}).to_string();
    http("200 OK", "date: Mon, 13 Jul 2015 21:54:01 GMT\r\n", &body)
}

#[tokio::test]
async fn a_page_comes_with_the_time_of_the_site() {
    let answer = read(vec![rows()], 1).await.expect("an answer");
    assert_eq!(answer.last_id(), Some(7));
    assert!(!answer.has_next_page);
    assert_eq!(answer.server_time.map(|time| time.to_string()).as_deref(), Some("2015-07-13T21:54:01Z"));
}

#[tokio::test]
async fn what_passes_by_itself_is_tried_again() {
    let broken = vec![
        http("503 Service Unavailable", "", "maintenance"),
        http("200 OK", "", "<html><body>Sorry</body></html>"),
        http("200 OK", "", "{\"results\": {\"enti"),
        rows(),
    ];
    assert!(read(broken, 4).await.is_ok());
}

#[track_caller]
fn check(outcome: Result<Answer, Error>, kind: ErrorKind, words: &str) {
    let error = outcome.expect_err("the site is broken");
    assert_eq!(error.kind(), kind, "{error}");
    assert!(error.to_string().contains(words), "{error}");
    assert!(!format!("{error:?}").contains("very-secret"), "{error:?}");
}

#[tokio::test]
async fn each_failure_has_its_kind_and_its_remedy() {
    let fault = json!({"exception": true, "message": "Can't authenticate script 'bot'", "error_code": 102}).to_string();
    let refused = http("200 OK", "", &fault);
    check(read(vec![refused], 3).await, ErrorKind::Denied, "Can't authenticate script 'bot'; check `shotgun.script`");
    let page = http("200 OK", "", "<!DOCTYPE html><title>Welcome to nginx</title>");
    check(read(vec![page], 1).await, ErrorKind::Malformed, "HTML instead of JSON, titled `Welcome to nginx`");
    check(
        read(vec![http("404 Not Found", "", "no")], 3).await,
        ErrorKind::Rejected,
        "HTTP 404 Not Found: no; is `shotgun.site`",
    );
    let away = vec![http("503 Service Unavailable", "", "<html><title>Down for\n maintenance</title><p>Sorry"); 2];
    check(
        read(away, 2).await,
        ErrorKind::Server,
        "HTTP 503 Service Unavailable with a page of HTML, titled `Down for maintenance`",
    );
    let quoting = json!({"exception": true, "message": "no https://files/a?X-Amz-Signature=5ecret", "error_code": 104});
    let quoting = vec![http("200 OK", "", &quoting.to_string()), http("200 OK", "", &quoting.to_string())];
    check(read(quoting, 1).await, ErrorKind::Fault, "no https://files/a?X-Amz-Signature=***");
    let limited = vec![http("429 Too Many Requests", "retry-after: 0\r\n", "slow down"); 2];
    check(read(limited, 2).await, ErrorKind::RateLimited, "failed after 2 attempts: HTTP 429");
}

#[tokio::test]
async fn a_pause_that_is_too_long_for_one_request_is_left_to_the_caller() {
    let long = vec![http("429 Too Many Requests", "retry-after: 3600\r\n", "slow down"); 2];
    let error = read(long, 2).await.expect_err("an hour is too long for one request");
    assert_eq!(error.retry_after(), Some(Duration::from_secs(3600)));
    assert!(!error.to_string().contains("attempts"), "it came back at once: {error}");
}

#[tokio::test]
async fn a_closed_port_and_a_plain_port_are_told_apart() {
    let nobody = TcpListener::bind("127.0.0.1:0").await.expect("a port").local_addr().expect("an address");
    let outcome = client(&format!("http://{nobody}"), 1).info().await.map(|_| Answer::default());
    check(outcome, ErrorKind::Unreachable, "refused");
    let plain = site(vec![http("400 Bad Request", "", "plain http")]).await.replace("http:", "https:");
    let outcome = client(&plain, 1).info().await.map(|_| Answer::default());
    check(outcome, ErrorKind::Tls, "shotgun.ca_certificate");
}

#[test]
fn an_unreadable_authority_is_named() {
    let mut settings = Settings::new("https://localhost", Auth::script("bot", "key"));
    settings.ca_certificate = Some("/nowhere/ca.pem".into());
    let error = Client::new(settings, Metrics::default()).err().expect("no such file");
    assert!(error.to_string().contains("cannot read /nowhere/ca.pem"), "{error}");
}

#[tokio::test]
async fn an_answer_without_an_end_is_not_read_on() {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let url = format!("http://{}", listener.local_addr().expect("an address"));
    let endless = tokio::spawn(async move {
        let (mut socket, _) = listener.accept().await.expect("a connection");
        let _ = socket.read(&mut [0; 4096]).await;
        let head = "HTTP/1.1 200 OK\r\nconnection: close\r\n\r\n";
        let mut sent = socket.write_all(head.as_bytes()).await;
        while sent.is_ok() {
            sent = socket.write_all(&[b' '; 65536]).await;
        }
    });
    let response = reqwest::get(url).await.expect("an answer");
    let error = client::read_body(response, 2 << 20).await.expect_err("too long");
    assert_eq!(error.kind(), ErrorKind::Malformed);
    assert!(error.to_string().contains("longer than 2 MiB"), "{error}");
    endless.await.expect("the connection was closed");
}
