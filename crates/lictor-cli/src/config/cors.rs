//! Origins whose pages may read answers (CORS).

use hyper::Uri;
use hyper::header::HeaderValue;

/// Reads lists of origins, each separated by commas: `*`, `null`, or `SCHEME://HOST[:PORT]`.
///
/// # Errors
/// A text that names the first entry that is none of these.
pub(crate) fn origins(lists: &[String]) -> Result<Vec<HeaderValue>, String> {
    let entries = lists.iter().flat_map(|list| list.split(','));
    let entries = entries.map(str::trim).filter(|entry| !entry.is_empty());
    entries.map(origin).collect()
}

fn origin(text: &str) -> Result<HeaderValue, String> {
    let value = HeaderValue::from_str(text).ok();
    value.filter(|_| is_origin(text)).ok_or_else(|| {
        format!(
            "cors: {text:?} is not an origin: give * or SCHEME://HOST[:PORT], such as http://127.0.0.1:4001"
        )
    })
}

/// Whether a browser may call a page's origin so. It never sends a path, nor a name.
fn is_origin(text: &str) -> bool {
    if text == "*" || text == "null" {
        return true;
    }
    let Some((scheme, rest)) = text.split_once("://") else {
        return false;
    };
    let plain = |c: char| c.is_ascii_alphanumeric() || "+-.".contains(c);
    let has_scheme = scheme.starts_with(|c: char| c.is_ascii_alphabetic()) && scheme.chars().all(plain);
    let has_host = |uri: Uri| {
        let authority = uri.authority()?;
        // A port that is none is not looked at before it is asked for.
        let port = text.rsplit_once(']').map_or(authority.as_str(), |(_, rest)| rest);
        let has_port = port
            .split_once(':')
            .is_none_or(|(_, port)| port.parse::<u16>().is_ok());
        Some(!authority.host().is_empty() && has_port)
    };
    has_scheme
        && !rest.contains(['/', '?', '#', '@', '%'])
        && text.parse().ok().and_then(has_host) == Some(true)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(list: &str) -> Result<Vec<HeaderValue>, String> {
        origins(&[list.to_owned()])
    }

    #[test]
    fn blanks_around_origins_are_ignored() {
        let read = read(" http://a.example , ,https://b.example:8443,http://[::1]:80,* ").expect("valid");

        assert_eq!(
            read,
            [
                "http://a.example",
                "https://b.example:8443",
                "http://[::1]:80",
                "*"
            ]
        );
        assert!(
            origins(&[String::new(), " , ".to_owned()])
                .expect("valid")
                .is_empty()
        );
    }

    #[test]
    fn what_no_browser_calls_an_origin_is_refused_in_one_line() {
        for wrong in [
            "a.example",
            "a.example:80",
            "not an origin",
            "http://",
            "://a",
            "http://a b",
            "http://a:b",
            "http://a:99999",
            "http://[::1",
            "http://[::1]:x",
            "http://a.example/",
            "http://a.example/page",
            "http://me@a.example",
            "http://%zz",
            "1http://a",
            "http://a\u{7f}",
            "**",
        ] {
            let error = read(&format!("http://ok.example,{wrong}")).expect_err(wrong);
            assert!(error.starts_with("cors: ") && !error.contains('\n'), "{error}");
        }
    }
}
