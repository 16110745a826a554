//! Templates: queries that answer for all names that begin with theirs, and put parts of the name into what they ask.
//!
//! Of the language that Consul has there, `${name.full}`, `${name.prefix}`, `${name.suffix}`, `${match(N)}` and
//! `${agent.segment}`, which is always empty; `$${` stands for `${`. Its arithmetic is not there.

use lictor_proto::v1::PreparedQueryRow;
use regex::Regex;

use super::definition::Definition;
use crate::filter;

/// The only kind of template.
const NAME_PREFIX_MATCH: &str = "name_prefix_match";

/// What a template may put in.
struct Parts<'a> {
    full: &'a str,
    prefix: &'a str,
    suffix: &'a str,
    /// Of the template's expression on the name; without a match there are none.
    groups: Vec<&'a str>,
}

impl<'a> Parts<'a> {
    fn new(full: &'a str, prefix: &'a str, pattern: Option<&Regex>) -> Self {
        let captures = pattern.and_then(|pattern| pattern.captures(full));
        let groups = captures.map(|captures| {
            let groups = captures.iter();
            groups
                .map(|group| group.map_or("", |group| group.as_str()))
                .collect()
        });
        Self {
            full,
            prefix,
            suffix: full.strip_prefix(prefix).unwrap_or(full),
            groups: groups.unwrap_or_default(),
        }
    }

    fn value(&self, expression: &str) -> Option<&'a str> {
        match expression {
            "name.full" => return Some(self.full),
            "name.prefix" => return Some(self.prefix),
            "name.suffix" => return Some(self.suffix),
            "agent.segment" => return Some(""),
            _ => {}
        }
        let number = expression.strip_prefix("match(")?.strip_suffix(')')?;
        let number: usize = number.trim().parse().ok()?;
        Some(self.groups.get(number).copied().unwrap_or(""))
    }
}

/// Whether a template can be rendered at all.
///
/// # Errors
/// What comes after `failed compiling template: `.
pub(super) fn check(definition: &Definition) -> Result<(), String> {
    let template = &definition.template;
    if template.r#type != NAME_PREFIX_MATCH {
        return Err(format!("Bad Template.Type '{}'", template.r#type));
    }
    render_for("", "", definition).map(drop)
}

/// What the template asks for `name`, which begins with its own.
///
/// # Errors
/// As for [`check`], which it passed.
pub(super) fn render(
    row: &PreparedQueryRow,
    definition: &Definition,
    name: &str,
) -> Result<Definition, String> {
    render_for(name, &row.name, definition)
}

fn render_for(full: &str, prefix: &str, definition: &Definition) -> Result<Definition, String> {
    let regexp = &definition.template.regexp;
    let pattern = (!regexp.is_empty()).then(|| filter::pattern(regexp));
    let pattern = pattern.transpose().map_err(|why| format!("Bad Regexp: {why}"))?;
    let parts = Parts::new(full, prefix, pattern.as_ref());
    let mut rendered = definition.clone();
    let service = &mut rendered.service;
    let put = |text: &mut String, field: &str| {
        *text = fill(text, &parts).map_err(|error| error.in_field(text, field))?;
        Ok::<_, String>(())
    };
    put(&mut service.service, "Service.Service")?;
    put(&mut service.near, "Service.Near")?;
    for (list, field) in [
        (&mut service.tags, "Service.Tags"),
        (&mut service.ignore_check_ids, "Service.IgnoreCheckIDs"),
        (&mut service.failover.datacenters, "Service.Failover.Datacenters"),
    ] {
        for (at, text) in list.iter_mut().flatten().enumerate() {
            put(text, &format!("{field}[{at}]"))?;
        }
    }
    for (map, field) in [
        (&mut service.node_meta, "Service.NodeMeta"),
        (&mut service.service_meta, "Service.ServiceMeta"),
    ] {
        for (key, text) in map.iter_mut().flatten() {
            put(text, &format!("{field}[{key}]"))?;
        }
    }
    if definition.template.remove_empty_tags
        && let Some(tags) = &mut service.tags
    {
        tags.retain(|tag| !tag.is_empty());
    }
    Ok(rendered)
}

/// Why a text cannot be filled in; positions count characters from 1.
#[derive(Debug, PartialEq)]
enum Fault {
    Open { at: usize },
    Unknown { at: usize, expression: String },
}

impl Fault {
    fn in_field(&self, text: &str, field: &str) -> String {
        match self {
            Self::Open { at } => format!(
                "Bad format '{text}' in {field}: parse error at 1:{at}: expected \"}}\" but found end of string"
            ),
            Self::Unknown { at, expression } => format!(
                "Bad evaluation for '{text}' in {field}: 1:{at}: unknown variable accessed: {expression}"
            ),
        }
    }
}

/// Replaces each `${...}`.
fn fill(text: &str, parts: &Parts<'_>) -> Result<String, Fault> {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(start) = rest.find("${") {
        let before = &rest[..start];
        if let Some(literal) = before.strip_suffix('$') {
            out.push_str(literal);
            out.push_str("${");
            rest = &rest[start + 2..];
            continue;
        }
        out.push_str(before);
        rest = &rest[start + 2..];
        let at = text[..text.len() - rest.len()].chars().count() + 1;
        let Some(end) = rest.find('}') else {
            let at = text.chars().count() + 1;
            return Err(Fault::Open { at });
        };
        let expression = rest[..end].trim();
        let value = parts.value(expression).ok_or_else(|| Fault::Unknown {
            at,
            expression: expression.to_owned(),
        })?;
        out.push_str(value);
        rest = &rest[end + 1..];
    }
    out.push_str(rest);
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn filled(text: &str) -> Result<String, String> {
        let pattern = Regex::new("^geo-(.*?)-([^-]+?)$").unwrap();
        let parts = Parts::new("geo-web-a", "geo-", Some(&pattern));
        fill(text, &parts).map_err(|fault| fault.in_field(text, "Service.Service"))
    }

    #[test]
    fn parts_of_the_name_are_put_in() {
        assert_eq!(filled("pq${match(1)}"), Ok("pqweb".to_owned()));
        assert_eq!(
            filled("${name.full}|${ name.prefix }|${name.suffix}|${agent.segment}|${match(9)}"),
            Ok("geo-web-a|geo-|web-a||".to_owned())
        );
        assert_eq!(
            filled("$${name.full} $ {} $"),
            Ok("${name.full} $ {} $".to_owned())
        );
        assert_eq!(filled("é${match(2)}"), Ok("éa".to_owned()));
    }

    #[test]
    fn what_cannot_be_filled_in_is_told_in_consuls_words() {
        assert_eq!(
            filled("s ${bad").unwrap_err(),
            "Bad format 's ${bad' in Service.Service: parse error at 1:8: expected \"}\" but found end of string"
        );
        assert_eq!(
            filled("s ${unknown}").unwrap_err(),
            "Bad evaluation for 's ${unknown}' in Service.Service: 1:5: unknown variable accessed: unknown"
        );
        for junk in [
            "${}",
            "${match()}",
            "${match(-1)}",
            "${match(1)",
            "${match(99999999999999999999)}",
        ] {
            assert!(filled(junk).is_err(), "{junk}");
        }
    }

    #[test]
    fn empty_tags_go_if_the_template_says_so() {
        let tags = Some(vec!["${match(1)}".to_owned(), "x".to_owned()]);
        let mut definition = Definition::default();
        definition.service.tags = tags;
        let tags = |definition: &Definition| {
            let rendered = render_for("name", "", definition).unwrap();
            rendered.service.tags.unwrap()
        };

        assert_eq!(tags(&definition), ["", "x"]);
        definition.template.remove_empty_tags = true;
        assert_eq!(tags(&definition), ["x"]);
    }
}
