//! The forms that clients post: `multipart/form-data` and urlencoded.

use std::collections::BTreeMap;

use bytes::Bytes;

/// A file in a form.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Upload {
    /// Its name.
    pub name: String,
    /// What it is, as the client said.
    pub content_type: String,
    /// What it holds.
    pub bytes: Bytes,
}

/// What was posted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Form {
    texts: BTreeMap<String, String>,
    files: BTreeMap<String, Upload>,
}

impl Form {
    /// Reads a form; `None` when it has another form than it says.
    pub fn parse(content_type: &str, body: &Bytes) -> Option<Self> {
        if !content_type.starts_with("multipart/form-data") {
            return Some(Self::urlencoded(&String::from_utf8_lossy(body)));
        }
        let boundary = content_type.split("boundary=").nth(1)?.split(';').next()?.trim().trim_matches('"');
        Self::multipart(boundary, body)
    }

    fn urlencoded(body: &str) -> Self {
        let pairs = body.split('&').filter_map(|pair| pair.split_once('='));
        Self { texts: pairs.map(|(name, value)| (decoded(name), decoded(value))).collect(), files: BTreeMap::new() }
    }

    fn multipart(boundary: &str, body: &Bytes) -> Option<Self> {
        let mut form = Self::default();
        let delimiter = format!("--{boundary}");
        let mut here = find(body, delimiter.as_bytes(), 0)? + delimiter.len();
        let between = format!("\r\n{delimiter}");
        while body.get(here..here + 2) == Some(b"\r\n") {
            let head_end = find(body, b"\r\n\r\n", here)?;
            let end = find(body, between.as_bytes(), head_end)?;
            let head = String::from_utf8_lossy(&body[here..head_end]).into_owned();
            form.part(&head, body.slice((head_end + 4).min(end)..end))?;
            here = end + between.len();
        }
        (body.get(here..here + 2) == Some(b"--")).then_some(form)
    }

    fn part(&mut self, head: &str, bytes: Bytes) -> Option<()> {
        let line = |name: &str| {
            let mut lines = head.split("\r\n").filter_map(|line| line.split_once(':'));
            lines.find(|(key, _)| key.trim().eq_ignore_ascii_case(name)).map(|(_, value)| value.trim())
        };
        let disposition = line("Content-Disposition")?;
        let name = parameter(disposition, "name")?;
        match parameter(disposition, "filename") {
            Some(file) => {
                let content_type = line("Content-Type").unwrap_or("application/octet-stream").to_owned();
                self.files.insert(name, Upload { name: file, content_type, bytes });
            }
            None => drop(self.texts.insert(name, String::from_utf8_lossy(&bytes).into_owned())),
        }
        Some(())
    }

    /// Returns a field that has a value.
    pub fn text(&self, name: &str) -> Option<&str> {
        self.texts.get(name).map(String::as_str).filter(|text| !text.is_empty())
    }

    /// Tells whether a field says yes, as Python writes it.
    pub fn flag(&self, name: &str) -> bool {
        matches!(self.text(name), Some("True" | "true" | "1"))
    }

    /// Returns a file.
    pub fn file(&self, name: &str) -> Option<&Upload> {
        self.files.get(name)
    }

    /// Returns every field that is no file.
    pub fn texts(&self) -> impl Iterator<Item = (&str, &str)> {
        self.texts.iter().map(|(name, value)| (name.as_str(), value.as_str()))
    }
}

/// Reads `name="value"` from a header line.
fn parameter(line: &str, name: &str) -> Option<String> {
    let marked = line.split(';').map(str::trim).find_map(|part| part.strip_prefix(name)?.strip_prefix('='))?;
    Some(marked.trim_matches('"').to_owned())
}

fn find(body: &[u8], needle: &[u8], from: usize) -> Option<usize> {
    body.get(from..)?.windows(needle.len()).position(|window| window == needle).map(|at| at + from)
}

fn decoded(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((first, after)) = rest.split_first() {
        let hex = after.get(..2).and_then(|hex| std::str::from_utf8(hex).ok());
        let byte = hex.filter(|_| *first == b'%').and_then(|hex| u8::from_str_radix(hex, 16).ok());
        bytes.push(match (byte, first) {
            (Some(byte), _) => byte,
            (None, b'+') => b' ',
            (None, other) => *other,
        });
        rest = if byte.is_some() { &after[2..] } else { after };
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_form_with_a_file_is_read_as_the_client_writes_it() {
        let body = "--b1\r\nContent-Disposition: form-data; name=\"entity_id\"\r\n\r\n7\r\n\
            --b1\r\nContent-Disposition: form-data; name=\"file\"; filename=\"No\u{eb}l.jpg\"\r\n\
            Content-Type: image/jpeg\r\nContent-Length: 4\r\n\r\n\r\n--\r\n--b1--\r\n\r\n";
        let form = Form::parse("multipart/form-data; boundary=b1", &Bytes::from(body)).expect("a form");
        assert_eq!(form.text("entity_id"), Some("7"));
        let file = form.file("file").expect("a file");
        assert_eq!((file.name.as_str(), file.content_type.as_str()), ("No\u{eb}l.jpg", "image/jpeg"));
        assert_eq!(file.bytes, "\r\n--");
    }

    #[test]
    fn an_urlencoded_form_is_read() {
        let body = Bytes::from("entities=Shot_2%2CShot_3&source_entity=Version_9&filmstrip_thumbnail=False&a=b+c%zz");
        let form = Form::parse("application/x-www-form-urlencoded", &body).expect("a form");
        assert_eq!(form.text("entities"), Some("Shot_2,Shot_3"));
        assert!(!form.flag("filmstrip_thumbnail"));
        assert_eq!(form.text("a"), Some("b c%zz"));
    }

    #[test]
    fn a_form_that_is_cut_off_is_no_form() {
        let body = Bytes::from("--b1\r\nContent-Disposition: form-data; name=\"entity_id\"\r\n\r\n7");
        assert_eq!(Form::parse("multipart/form-data; boundary=b1", &body), None);
    }
}
