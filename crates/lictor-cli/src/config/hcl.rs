//! HCL. The parser reads HCL 2; files written for HCL 1, which is what Consul reads, may quote the names of keys
//! and may put several settings on one line. Those are mended token by token before a second try; what cannot be
//! mended is refused with the line and what to write instead.

use std::borrow::Cow;

use serde_json::Value;

/// Reads HCL into the same values that JSON would give.
///
/// # Errors
/// A text with the line, and how to mend it where that is known.
pub(crate) fn parse(text: &str) -> Result<Value, String> {
    // No body of HCL begins so.
    if text.trim_start().starts_with('{') {
        return serde_json::from_str(text).map_err(|error| error.to_string());
    }
    match hcl::from_str::<Value>(text) {
        Ok(value) => Ok(value),
        Err(first) => hcl::from_str::<Value>(&modernise(text)).map_err(|_| describe(text, &first)),
    }
}

fn describe(text: &str, error: &hcl::Error) -> String {
    if let Some((number, name)) = first_quoted_key(text) {
        return format!(
            "line {number}: the key {name:?} is in quotes, which HCL 2 does not allow: write it without"
        );
    }
    match error {
        hcl::Error::Parse(error) => {
            let at = error.location();
            format!("line {}, column {}: {}", at.line(), at.column(), error.message())
        }
        other => other.to_string().replace('\n', " "),
    }
}

/// Where a quoted name stands at the start of a line of a body although it cannot be written without quotes.
fn first_quoted_key(text: &str) -> Option<(usize, &str)> {
    text.lines().enumerate().find_map(|(at, line)| {
        let (name, rest) = line.trim_start().strip_prefix('"')?.split_once('"')?;
        let rest = rest.trim_start();
        ((rest.starts_with('=') || rest.starts_with('{')) && !is_identifier(name)).then_some((at + 1, name))
    })
}

fn is_identifier(name: &str) -> bool {
    let mut chars = name.chars();
    chars.next().is_some_and(|c| c.is_ascii_alphabetic() || c == '_')
        && chars.all(|c| c.is_ascii_alphanumeric() || c == '_' || c == '-')
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Token<'a> {
    Space(&'a str),
    Newline,
    Comment(&'a str),
    Text(&'a str),
    Heredoc(&'a str),
    Word(&'a str),
    Mark(char),
}

/// Splits text so that strings, comments and heredocs are not looked into. Never fails: what it cannot read becomes
/// single characters, and the parser will say what is wrong with those.
fn tokens(text: &str) -> Vec<Token<'_>> {
    let mut all = Vec::new();
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        let (token, used) = if first == '\n' {
            (Token::Newline, 1)
        } else if first == '"' {
            let end = text_end(rest);
            (Token::Text(&rest[..end]), end)
        } else if first == '#' || rest.starts_with("//") {
            let end = rest.find('\n').unwrap_or(rest.len());
            (Token::Comment(&rest[..end]), end)
        } else if rest.starts_with("/*") {
            let end = rest.find("*/").map_or(rest.len(), |at| at + 2);
            (Token::Comment(&rest[..end]), end)
        } else if rest.starts_with("<<") {
            let end = heredoc_end(rest);
            (Token::Heredoc(&rest[..end]), end)
        } else if first.is_whitespace() {
            let end = rest
                .find(|c: char| !c.is_whitespace() || c == '\n')
                .unwrap_or(rest.len());
            (Token::Space(&rest[..end]), end)
        } else if first.is_alphanumeric() || "_-.".contains(first) {
            let word = |c: char| c.is_alphanumeric() || "_-.".contains(c);
            let end = rest.find(|c: char| !word(c)).unwrap_or(rest.len());
            (Token::Word(&rest[..end]), end)
        } else {
            (Token::Mark(first), first.len_utf8())
        };
        all.push(token);
        rest = &rest[used..];
    }
    all
}

fn text_end(rest: &str) -> usize {
    let mut escaped = false;
    for (at, c) in rest.char_indices().skip(1) {
        match c {
            '"' if !escaped => return at + 1,
            '\\' => escaped = !escaped,
            _ => escaped = false,
        }
    }
    rest.len()
}

fn heredoc_end(rest: &str) -> usize {
    let mut lines = rest.split_inclusive('\n');
    let head = lines.next().unwrap_or_default();
    let word = head.trim_start_matches(['<', '-']).trim();
    let mut end = head.len();
    for line in lines {
        end += line.len();
        if line.trim() == word {
            return end - usize::from(line.ends_with('\n'));
        }
    }
    rest.len()
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Inside {
    Body,
    Object,
    List,
}

/// Writes HCL 1 the way HCL 2 wants it: names of keys without quotes, one setting a line, commas in objects, numbers in
/// base 10.
fn modernise(text: &str) -> String {
    let tokens = tokens(text);
    let mut out = String::with_capacity(text.len() + 64);
    let mut nesting = vec![Inside::Body];
    let mut last = Last::default();
    for (at, &token) in tokens.iter().enumerate() {
        let inside = *nesting.last().unwrap_or(&Inside::Body);
        let next = tokens[at + 1..]
            .iter()
            .copied()
            .find(|t| !matches!(t, Token::Space(_)));
        let in_body = inside == Inside::Body;
        match token {
            Token::Text(_) | Token::Word(_) if last.lets_name_follow(token, next, inside) => {
                out.push_str(separator(last, inside));
                out.push_str(&name(token, next, inside));
            }
            Token::Word(word) => out.push_str(&number(word)),
            Token::Mark('{') => {
                let block = in_body && matches!(last.token, Token::Word(_) | Token::Text(_));
                nesting.push(if block { Inside::Body } else { Inside::Object });
                out.push_str(if block { "{\n" } else { "{" });
            }
            Token::Mark('[') => {
                nesting.push(Inside::List);
                out.push('[');
            }
            Token::Mark(mark @ ('}' | ']')) => {
                if mark == '}' && in_body && nesting.len() > 1 {
                    out.push('\n');
                }
                if nesting.len() > 1 {
                    nesting.pop();
                }
                out.push(mark);
            }
            Token::Mark(',') if in_body => out.push('\n'),
            Token::Mark(mark) => out.push(mark),
            Token::Newline => out.push('\n'),
            Token::Space(text) | Token::Comment(text) | Token::Text(text) | Token::Heredoc(text) => {
                out.push_str(text);
            }
        }
        if !matches!(token, Token::Space(_) | Token::Comment(_)) {
            last.take(token);
        }
    }
    out
}

/// The last token that is neither space nor comment; a new line counts.
#[derive(Clone, Copy)]
struct Last<'a> {
    token: Token<'a>,
    /// Whether a value ended with it, or a block.
    ends_value: bool,
}

impl Default for Last<'_> {
    fn default() -> Self {
        Self {
            token: Token::Newline,
            ends_value: false,
        }
    }
}

impl<'a> Last<'a> {
    fn take(&mut self, token: Token<'a>) {
        self.ends_value = match token {
            Token::Mark(mark) => matches!(mark, '}' | ']'),
            Token::Text(_) | Token::Word(_) | Token::Heredoc(_) => self.token == Token::Mark('='),
            _ => false,
        };
        self.token = token;
    }

    /// Whether `token` can be the name of a setting or a block here, rather than a value or a block's label.
    fn lets_name_follow(self, token: Token<'_>, next: Option<Token<'_>>, inside: Inside) -> bool {
        let begins = self.ends_value || matches!(self.token, Token::Newline | Token::Mark('{' | ','));
        match (token, next) {
            (_, Some(Token::Mark('=' | '{'))) => begins && inside != Inside::List,
            // A label is in quotes, and a name before it is not.
            (Token::Word(_), Some(Token::Text(_))) => self.ends_value && inside == Inside::Body,
            _ => false,
        }
    }
}

/// What parts a setting from what came before it.
fn separator(last: Last<'_>, inside: Inside) -> &'static str {
    match inside {
        Inside::Body if !matches!(last.token, Token::Newline | Token::Mark('{')) => "\n",
        Inside::Object if last.ends_value => ", ",
        _ => "",
    }
}

fn name(token: Token<'_>, next: Option<Token<'_>>, inside: Inside) -> String {
    let (Token::Text(written) | Token::Word(written)) = token else {
        return String::new();
    };
    let bare = written.trim_matches('"');
    let name = if is_identifier(bare) { bare } else { written };
    // Objects of HCL 2 have no blocks.
    if inside == Inside::Object && next == Some(Token::Mark('{')) {
        format!("{name} =")
    } else {
        name.to_owned()
    }
}

/// Numbers of HCL 1 may be hexadecimal.
fn number(word: &str) -> Cow<'_, str> {
    let (sign, digits) = word.strip_prefix('-').map_or(("", word), |rest| ("-", rest));
    let hex = digits.strip_prefix("0x").or_else(|| digits.strip_prefix("0X"));
    match hex.map(|hex| u32::from_str_radix(hex, 16)) {
        Some(Ok(number)) => Cow::Owned(format!("{sign}{number}")),
        _ => Cow::Borrowed(word),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn hcl_2_is_read_as_it_stands() {
        let text = r#"
            # A comment.
            node_name = "a"
            ports { http = 8500 }
            retry_join = ["a", "b"]
            node_meta = { rack = "r1" }
            service {
              name = "web"
              check { ttl = "10s" }
            }
        "#;

        let value = parse(text).expect("HCL 2");

        assert_eq!(
            value,
            json!({
                "node_name": "a", "ports": {"http": 8500}, "retry_join": ["a", "b"], "node_meta": {"rack": "r1"},
                "service": {"name": "web", "check": {"ttl": "10s"}},
            })
        );
    }

    #[test]
    fn repeated_blocks_become_a_list() {
        let value = parse("service { name = \"a\" }\nservice { name = \"b\" }\n").expect("HCL 2");

        assert_eq!(value, json!({"service": [{"name": "a"}, {"name": "b"}]}));
    }

    #[test]
    fn quoted_keys_of_hcl_1_are_mended() {
        let text = "\"node_name\" = \"a = b, {c}\"\n\"ports\" { \"http\" = 1\n \"https\" = 2 }\n";

        let value = parse(text).expect("mended");

        assert_eq!(
            value,
            json!({"node_name": "a = b, {c}", "ports": {"http": 1, "https": 2}})
        );
    }

    #[test]
    fn several_settings_on_one_line_are_mended() {
        for text in ["ports { http = 1, https = 2 }", "ports { http = 1 https = 2 }"] {
            assert_eq!(
                parse(text),
                Ok(json!({"ports": {"http": 1, "https": 2}})),
                "{text}"
            );
        }
    }

    #[test]
    fn blocks_and_objects_on_one_line_are_mended() {
        for (text, expected) in [
            (
                r#"check { http = "http://a" interval = "5s" header { X = ["b"] } }"#,
                json!({"check": {"http": "http://a", "interval": "5s", "header": {"X": ["b"]}}}),
            ),
            (
                r#"acl { enabled = true tokens { agent = "x" } }"#,
                json!({"acl": {"enabled": true, "tokens": {"agent": "x"}}}),
            ),
            (
                r#"a = 1 "b" = 2 service "web" { port = 80 } service "x" { port = 1 }"#,
                json!({"a": 1, "b": 2, "service": {"web": {"port": 80}, "x": {"port": 1}}}),
            ),
            (
                r#"node_meta = { "rack" = "r1" "a" = "c" }"#,
                json!({"node_meta": {"rack": "r1", "a": "c"}}),
            ),
            (
                r#"watches = [ { type = "key" key = "a" }, { type = "nodes", args = ["x"] b { c = 1 } } ]"#,
                json!({"watches": [
                    {"type": "key", "key": "a"},
                    {"type": "nodes", "args": ["x"], "b": {"c": 1}},
                ]}),
            ),
        ] {
            assert_eq!(parse(text), Ok(expected), "{text}");
        }
    }

    #[test]
    fn numbers_may_be_hexadecimal() {
        assert_eq!(
            parse("a = 0x1F\nb = [-0x10, 3]\nc = \"0x1F\"\n"),
            Ok(json!({"a": 31, "b": [-16, 3], "c": "0x1F"}))
        );
    }

    #[test]
    fn an_object_of_json_is_read_as_such() {
        assert_eq!(parse(" {\n\"a\": {\"b.c\": 1}}"), Ok(json!({"a": {"b.c": 1}})));
        assert!(parse("{\"a\": }").expect_err("no JSON").contains("line 1"));
    }

    #[test]
    fn comments_and_heredocs_are_left_alone() {
        let text =
            "\"a\" = <<EOT\n\"x\" = { 1,\nEOT\n// \"b\" = 1\n/* \"c\" { */\n\"d\" = \"\\\"q\\\" = 1\"\n";

        let value = parse(text).expect("mended");

        assert_eq!(value, json!({"a": "\"x\" = { 1,\n", "d": "\"q\" = 1"}));
    }

    #[test]
    fn a_key_that_needs_its_quotes_is_named_with_its_line() {
        let error = parse("a = 1\n\"b.c\" = 2\n").expect_err("not HCL 2");

        assert!(
            error.starts_with("line 2: the key \"b.c\" is in quotes"),
            "{error}"
        );
    }

    #[test]
    fn an_error_names_line_and_column_on_one_line() {
        let error = parse("a = 1\nb = [\n").expect_err("no HCL");

        assert!(error.starts_with("line "), "{error}");
        assert!(!error.contains('\n'), "{error}");
    }

    #[test]
    fn no_text_makes_the_mender_panic() {
        for text in [
            "\"",
            "{",
            "}",
            "]}",
            "<<",
            "<<EOT",
            "/*",
            "//",
            "\"\\",
            "a = {{{",
            "é = \"ü\" {",
            "a = 1 b {",
            "a = { b = 1 c",
            "a = 0xfffffffff",
            "\u{0}",
        ] {
            let _ = parse(text);
        }
    }
}
