//! Forms: what `curl -d` and `curl -F` send.

use std::borrow::Cow;

use bytes::Bytes;
use hyper::header::{self, HeaderMap};

use crate::query::Query;

/// The kinds of body that are read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// `application/x-www-form-urlencoded`.
    UrlEncoded,
    /// `multipart/form-data`.
    Multipart,
}

impl Kind {
    /// As the headers say; `None` for a body that is none of them.
    pub(crate) fn of(headers: &HeaderMap) -> Option<Self> {
        let value = headers.get(header::CONTENT_TYPE)?.to_str().ok()?;
        let media_type = value.split(';').next().unwrap_or_default().trim();
        if media_type.eq_ignore_ascii_case("application/x-www-form-urlencoded") {
            Some(Self::UrlEncoded)
        } else if media_type.eq_ignore_ascii_case("multipart/form-data") {
            Some(Self::Multipart)
        } else {
            None
        }
    }
}

/// The fields of a form.
#[derive(Debug, Default)]
pub(super) enum Form {
    #[default]
    None,
    UrlEncoded(Bytes),
    Multipart(Vec<(Vec<u8>, Bytes)>),
}

impl Form {
    pub(super) fn new(kind: Kind, body: Bytes) -> Self {
        match kind {
            Kind::UrlEncoded => Self::UrlEncoded(body),
            Kind::Multipart => Self::Multipart(fields(&body)),
        }
    }

    /// The first value of a field.
    pub(super) fn get(&self, name: &str) -> Option<Cow<'_, [u8]>> {
        match self {
            Self::None => None,
            Self::UrlEncoded(body) => Query::new(body).get(name),
            Self::Multipart(fields) => {
                let mut fields = fields.iter();
                let found = fields.find(|(field, _)| field == name.as_bytes());
                found.map(|(_, value)| Cow::Borrowed(&value[..]))
            }
        }
    }
}

/// The plain fields of a multipart form; files are passed over. Its first line is the mark between the parts.
fn fields(body: &Bytes) -> Vec<(Vec<u8>, Bytes)> {
    let mut fields = Vec::new();
    let Some(end) = find(body, b"\r\n").filter(|_| body.starts_with(b"--")) else {
        return fields;
    };
    let mark = [b"\r\n", &body[..end]].concat();
    let mut rest = body.slice(end..);
    while let Some(part) = rest.strip_prefix(b"\r\n").map(|part| rest.slice_ref(part)) {
        let Some(end) = find(&part, &mark) else { break };
        let (head, value) = match find(&part[..end], b"\r\n\r\n") {
            Some(at) => (&part[..at], part.slice(at + 4..end)),
            None => (&part[..0], Bytes::new()),
        };
        if let Some(name) = field_name(head) {
            fields.push((name, value));
        }
        rest = part.slice(end + mark.len()..);
    }
    fields
}

/// The name in a part's head; `None` for a file.
fn field_name(head: &[u8]) -> Option<Vec<u8>> {
    let head = std::str::from_utf8(head).ok()?;
    let disposition = head.split("\r\n").find_map(|line| {
        let (name, value) = line.split_once(':')?;
        name.eq_ignore_ascii_case("Content-Disposition").then_some(value)
    })?;
    let parameter = |wanted: &str| {
        disposition.split(';').find_map(|part| {
            let (name, value) = part.trim().split_once('=')?;
            name.eq_ignore_ascii_case(wanted)
                .then(|| value.trim_matches('"').as_bytes().to_vec())
        })
    };
    if parameter("filename").is_some() {
        return None;
    }
    parameter("name")
}

fn find(text: &[u8], needle: &[u8]) -> Option<usize> {
    text.windows(needle.len()).position(|window| window == needle)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MULTIPART: &[u8] = b"--x42\r\nContent-Disposition: form-data; name=\"value\"\r\n\r\nb\r\nar\r\n\
        --x42\r\ncontent-disposition: form-data; name=file; filename=\"f\"\r\nContent-Type: text/plain\r\n\r\nno\r\n\
        --x42\r\nContent-Disposition: form-data; name=\"ttl\"\r\n\r\n60\r\n--x42--\r\n";

    #[test]
    fn the_fields_of_a_multipart_form_are_found_and_its_files_are_not() {
        let form = Form::new(Kind::Multipart, Bytes::from_static(MULTIPART));

        assert_eq!(form.get("value").as_deref(), Some(&b"b\r\nar"[..]));
        assert_eq!(form.get("ttl").as_deref(), Some(&b"60"[..]));
        assert_eq!(form.get("file"), None);
    }

    #[test]
    fn a_form_that_is_none_has_no_fields() {
        for end in 0..MULTIPART.len() {
            let form = Form::new(Kind::Multipart, Bytes::from_static(&MULTIPART[..end]));
            let Form::Multipart(fields) = form else {
                panic!("another form")
            };
            assert!(fields.len() <= 2, "{end}");
        }
        for body in ["", "--", "--\r\n", "\r\n\r\n", "x=y", "--a\r\n\r\n--a\r\n\r\n--a"] {
            let form = Form::new(Kind::Multipart, Bytes::from_static(body.as_bytes()));
            assert_eq!(form.get("x"), None, "{body:?}");
        }
    }

    #[test]
    fn other_bodies_are_no_forms() {
        let kind = |text: &'static str| {
            let mut headers = HeaderMap::new();
            headers.insert(header::CONTENT_TYPE, header::HeaderValue::from_static(text));
            Kind::of(&headers)
        };
        assert_eq!(
            kind("Application/X-www-form-urlencoded; charset=utf-8"),
            Some(Kind::UrlEncoded)
        );
        assert_eq!(kind("multipart/form-data; boundary=x"), Some(Kind::Multipart));
        assert_eq!(kind("application/json"), None);
        assert_eq!(Kind::of(&HeaderMap::new()), None);
    }
}
