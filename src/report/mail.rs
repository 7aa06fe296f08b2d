//! [`Mail`]: a message to people by e-mail, over SMTP.
//!
//! The address of the server may hold a user and a password, so no error repeats it.

use std::time::Duration;

use lettre::message::header::ContentType;
use lettre::message::{Mailbox, Message};
use lettre::{AsyncSmtpTransport, AsyncTransport, Tokio1Executor};

/// How long the whole conversation with a server may take.
const TIMEOUT: Duration = Duration::from_secs(20);

/// From whom, to whom and by which server.
#[derive(Clone, PartialEq, Eq)]
pub struct Mail {
    /// `smtp://host:25`, `smtp://user:password@host:587?tls=required` (STARTTLS) or
    /// `smtps://user:password@host:465`; not shown.
    server: String,
    from: Mailbox,
    to: Vec<Mailbox>,
}

impl std::fmt::Debug for Mail {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Mail").field("from", &self.from).field("to", &self.to).finish_non_exhaustive()
    }
}

impl Mail {
    /// Checks addresses; nothing is sent.
    ///
    /// # Errors
    ///
    /// The key with the problem, and the problem in words without secrets.
    pub fn new(server: &str, from: &str, to: &[String]) -> Result<Mail, (&'static str, String)> {
        let mailbox = |key, text: &str| {
            text.parse::<Mailbox>().map_err(|error| (key, format!("`{text}` is not an e-mail address: {error}")))
        };
        if transport(server).is_err() {
            let words = "it is not an address of an SMTP server: smtp://HOST:PORT or smtps://USER:PASSWORD@HOST:PORT";
            return Err(("url", words.to_owned()));
        }
        let to = to.iter().map(|text| mailbox("to", text)).collect::<Result<Vec<_>, _>>()?;
        Ok(Mail { server: server.to_owned(), from: mailbox("from", from)?, to })
    }

    /// Sends a message.
    ///
    /// # Errors
    ///
    /// Why no server took it, in words without secrets.
    pub async fn send(&self, subject: &str, text: &str) -> Result<(), String> {
        let unfit = |error: lettre::error::Error| format!("the e-mail cannot be written: {error}");
        let mut builder = Message::builder().from(self.from.clone()).subject(subject);
        for to in &self.to {
            builder = builder.to(to.clone());
        }
        let message = builder.header(ContentType::TEXT_PLAIN).body(text.to_owned()).map_err(unfit)?;
        let server = transport(&self.server).map_err(|()| "the address of the SMTP server is malformed".to_owned())?;
        // The error of a server may quote what it was sent, so only its code is kept.
        let refused = |error: lettre::transport::smtp::Error| match error.status() {
            Some(code) => format!("the SMTP server answered {code}"),
            None if error.is_timeout() => "the SMTP server did not answer in time".to_owned(),
            None if error.is_tls() => "the TLS connection to the SMTP server failed".to_owned(),
            None => "the SMTP server cannot be reached".to_owned(),
        };
        server.send(message).await.map(drop).map_err(refused)
    }
}

fn transport(server: &str) -> Result<AsyncSmtpTransport<Tokio1Executor>, ()> {
    let builder = AsyncSmtpTransport::<Tokio1Executor>::from_url(server).map_err(drop)?;
    Ok(builder.timeout(Some(TIMEOUT)).build())
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
    use tokio::net::TcpListener;

    use super::*;

    /// A server that takes one message, or refuses its sender; returns what it was sent.
    async fn receive(listener: TcpListener, refuses: bool) -> Vec<String> {
        let (stream, _) = listener.accept().await.expect("a client");
        let mut stream = BufReader::new(stream);
        let mut lines = Vec::new();
        let mut is_data = false;
        stream.write_all(b"220 test\r\n").await.expect("a greeting");
        let mut line = String::new();
        while stream.read_line(&mut line).await.expect("a line") > 0 {
            let answer = match line.split_whitespace().next().unwrap_or_default() {
                "." if is_data => {
                    is_data = false;
                    "250 queued"
                }
                _ if is_data => "",
                "MAIL" if refuses => "550 no, secret-password",
                "DATA" => {
                    is_data = true;
                    "354 go on"
                }
                "QUIT" => "221 bye",
                _ => "250 ok",
            };
            if !answer.is_empty() {
                stream.write_all(format!("{answer}\r\n").as_bytes()).await.expect("an answer");
            }
            lines.push(std::mem::take(&mut line).trim_end().to_owned());
            if answer.starts_with("221") {
                break;
            }
        }
        lines
    }

    async fn send(refuses: bool) -> (Result<(), String>, Vec<String>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let server = format!("smtp://{}", listener.local_addr().expect("an address"));
        let to = ["td@studio.example".to_owned(), "Night Shift <night@studio.example>".to_owned()];
        let mail = Mail::new(&server, "sgcache <sgcache@studio.example>", &to).expect("addresses");
        let received = tokio::spawn(receive(listener, refuses));
        let sent = mail.send("sgcache: nightly drift", "3 rows are missing\nin Shot").await;
        drop(mail);
        (sent, received.await.expect("the server ends"))
    }

    #[tokio::test]
    async fn a_message_reaches_everyone_it_is_for() {
        let (sent, lines) = send(false).await;
        assert_eq!(sent, Ok(()));
        for expected in [
            "MAIL FROM:<sgcache@studio.example>",
            "RCPT TO:<td@studio.example>",
            "RCPT TO:<night@studio.example>",
            "Subject: sgcache: nightly drift",
            "3 rows are missing",
            "in Shot",
        ] {
            assert!(lines.iter().any(|line| line.starts_with(expected)), "no {expected} in {lines:#?}");
        }
    }

    #[tokio::test]
    async fn a_refusal_is_an_error_without_what_the_server_quotes() {
        let (sent, _) = send(true).await;
        let error = sent.expect_err("it is refused");
        assert!(error.contains("550") && !error.contains("secret"), "{error}");
    }

    #[test]
    fn what_cannot_be_an_address_names_its_key() {
        let to = |text: &str| vec![text.to_owned()];
        let key =
            |server: &str, from: &str, to: Vec<String>| Mail::new(server, from, &to).map(drop).map_err(|(key, _)| key);
        assert_eq!(key("smtp://localhost:25", "a@b.example", to("c@d.example")), Ok(()));
        assert_eq!(key("http://localhost", "a@b.example", to("c@d.example")), Err("url"));
        assert_eq!(key("smtp://localhost", "a", to("c@d.example")), Err("from"));
        assert_eq!(key("smtp://localhost", "a@b.example", to("c d")), Err("to"));
    }
}
