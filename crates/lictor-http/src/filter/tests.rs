use std::collections::BTreeMap;

use proptest::prelude::*;

use super::expression::{Comparison, Expression, Operator, Selector};
use super::parse::parse;
use super::{Field, Filter, Kind, MAX_COMPARISONS, MAX_DEPTH, MAX_REGEXES, Row, Validate, Value};

struct Address {
    host: String,
    port: i64,
}

struct Service {
    name: String,
    port: i64,
    proxy: bool,
    tags: Vec<String>,
    meta: BTreeMap<String, String>,
    checks: Vec<Address>,
    addresses: BTreeMap<String, Address>,
}

const ADDRESS: &[Field] = &[Field::new("Host", Kind::Text), Field::new("Port", Kind::Number)];
const SERVICE: &[Field] = &[
    Field::new("Name", Kind::Text),
    Field::new("Port", Kind::Number),
    Field::new("Proxy", Kind::Bool),
    Field::new("Tags", Kind::List),
    Field::new("Meta", Kind::Map),
    Field::new("Checks", Kind::Rows(ADDRESS)),
    Field::new("Addresses", Kind::RowMap(ADDRESS)),
];

impl Row for Address {
    fn field(&self, name: &str) -> Option<Value<'_>> {
        match name {
            "Host" => Some(Value::Text(&self.host)),
            "Port" => Some(Value::Number(self.port)),
            _ => None,
        }
    }
}

impl Row for Service {
    fn field(&self, name: &str) -> Option<Value<'_>> {
        Some(match name {
            "Name" => Value::Text(&self.name),
            "Port" => Value::Number(self.port),
            "Proxy" => Value::Bool(self.proxy),
            "Tags" => Value::List(&self.tags),
            "Meta" => Value::Map(&self.meta),
            "Checks" => Value::Rows(self.checks.iter().map(|check| check as &dyn Row).collect()),
            "Addresses" => Value::RowMap(
                self.addresses
                    .iter()
                    .map(|(name, at)| (name.as_str(), at as &dyn Row))
                    .collect(),
            ),
            _ => return None,
        })
    }
}

fn web() -> Service {
    let address = |host: &str, port| Address {
        host: host.into(),
        port,
    };
    Service {
        name: "web".into(),
        port: 80,
        proxy: false,
        tags: vec!["red".into(), "blue".into()],
        meta: BTreeMap::from([
            ("env".into(), "prod".into()),
            ("instance-type".into(), "t2.medium".into()),
        ]),
        checks: vec![address("passing", 1), address("critical", 2)],
        addresses: BTreeMap::from([("lan".into(), address("10.0.0.1", 80))]),
    }
}

fn holds(text: &str) -> bool {
    Filter::new(text, SERVICE, Validate::Always)
        .unwrap()
        .keep(&web())
        .unwrap()
}

fn refusal(text: &str) -> String {
    let error = Filter::new(text, SERVICE, Validate::Always)
        .unwrap_err()
        .to_string();
    error
        .strip_prefix("Failed to create boolean expression evaluator: ")
        .unwrap()
        .to_owned()
}

#[test]
fn comparisons_that_hold() {
    for text in [
        "",
        r#"Name == "web""#,
        "Name==web",
        "Name == `web`",
        " ( Name == web ) ",
        r#""we" in Name"#,
        r#"Name contains "eb""#,
        r#"Name matches "^w.b$""#,
        r#"Name not matches "^x""#,
        "Port == 80",
        "Port != 81",
        r#"Port == "0x50""#,
        "Proxy == false",
        r#""red" in Tags"#,
        "Tags contains blue",
        "green not in Tags",
        "Tags is not empty",
        "not Tags is empty",
        r#"Meta.env == "prod""#,
        r#"Meta["instance-type"] == "t2.medium""#,
        r#""/Meta/instance-type" == "t2.medium""#,
        r#"env in "/Meta""#,
        "Meta.none != x",
        "not Meta.none == x",
        "x not in Meta.none",
        "Checks.Host == passing",
        "Checks.Host == critical and Checks.Port == 1",
        "Checks.Host != passing",
        "Addresses.lan.Port == 80",
        "lan in Addresses",
        "Addresses.wan.Port != 1",
        "Name == x or Port == 80 and Proxy == false",
        "not (Name == x or Port == 81)",
        "not not Name == web",
        "Name == web\n\tand\r\nPort == 80",
    ] {
        assert!(holds(text), "{text}");
    }
}

#[test]
fn comparisons_that_do_not_hold() {
    for text in [
        "Name == Web",
        "Name != web",
        r#"Name not contains "eb""#,
        "Port == -80",
        "Proxy == T",
        "Tags is empty",
        "Meta.none == x",
        r#"Meta.none matches "x""#,
        "red not in Tags",
        "Checks is empty",
        "(Name == web or Port == 80) and Proxy == true",
        "Name == web and not Port == 80",
    ] {
        assert!(!holds(text), "{text}");
    }
}

#[test]
fn text_that_is_no_expression_is_refused() {
    for text in [
        "junk",
        "Name",
        "Name =",
        "Name ==",
        "Name = x",
        "Name == x and",
        "Name == x or",
        "(Name == x",
        "Name == x)",
        "()",
        "Name == foo-bar",
        "Name == 1a",
        "Name == \"x",
        "Name == `x",
        r#"Name == "\q""#,
        r#"Name == "\ud800""#,
        "Name in \"alphabet\"",
        "Name is x",
        "Name is emptyish",
        "not(Name == x)",
        "1Name == x",
        "Näme == x",
        "Meta[env] == x",
        "Meta.instance-type == x",
        "Name == x Name == y",
        " ",
    ] {
        assert!(refusal(text).starts_with("no match found at position "), "{text}");
    }
}

#[test]
fn comparisons_that_the_fields_do_not_have_are_refused() {
    for (text, why) in [
        ("Foo == x", "Selector \"Foo\" is not valid"),
        ("Name.x == x", "Selector \"Name.x\" is not valid"),
        (
            "Addresses.lan.x == x",
            "Selector \"Addresses.lan.x\" is not valid",
        ),
        (
            "Name is empty",
            "Invalid match operator \"Is Empty\" for selector \"Name\"",
        ),
        (
            "Name is not empty",
            "Invalid match operator \"Is Not Empty\" for selector \"Name\"",
        ),
        (
            "Tags == x",
            "Invalid match operator \"Equal\" for selector \"Tags\"",
        ),
        ("x in Port", "Invalid match operator \"In\" for selector \"Port\""),
        (
            "Port == x",
            "Failed to coerce value \"x\" for selector \"Port\": strconv.ParseInt: parsing \"x\": invalid syntax",
        ),
        (
            "Port == 99999999999999999999",
            "Failed to coerce value \"99999999999999999999\" for selector \"Port\": strconv.ParseInt: parsing \"99999999999999999999\": value out of range",
        ),
        (
            "Proxy == maybe",
            "Failed to coerce value \"maybe\" for selector \"Proxy\": strconv.ParseBool: parsing \"maybe\": invalid syntax",
        ),
        ("Name == web or Foo == x", "Selector \"Foo\" is not valid"),
    ] {
        assert_eq!(refusal(text), why, "{text}");
    }
}

#[test]
fn a_bad_regular_expression_is_refused_in_one_line() {
    let why = refusal("Name matches `[`");

    assert!(
        why.starts_with("Failed to compile regular expression \"[\": error parsing regexp: "),
        "{why}"
    );
    assert!(!why.contains('\n'), "{why}");
}

#[test]
fn per_row_a_fault_shows_when_a_row_comes_to_it() {
    let filter = |text| Filter::new(text, SERVICE, Validate::PerRow).unwrap();

    assert_eq!(
        filter("Foo == x").keep(&web()).unwrap_err().to_string(),
        "Selector \"Foo\" is not valid"
    );
    assert_eq!(filter("Name == web or Foo == x").keep(&web()), Ok(true));
    assert_eq!(filter("Name == no and Foo == x").keep(&web()), Ok(false));
}

#[test]
fn per_row_a_text_that_does_not_parse_is_still_refused_at_once() {
    assert!(Filter::new("Name ==", SERVICE, Validate::PerRow).is_err());
}

#[test]
fn every_bound_is_kept() {
    let deep = |depth: usize| format!("{}Name == web{}", "(".repeat(depth), ")".repeat(depth));
    let refused = |text: &str| refusal(text);

    assert!(holds(&deep(MAX_DEPTH)));
    assert_eq!(
        refused(&deep(MAX_DEPTH + 1)),
        format!("nested more than {MAX_DEPTH} deep")
    );
    assert_eq!(refused(&deep(5000)), format!("nested more than {MAX_DEPTH} deep"));
    assert_eq!(
        refused(&"(".repeat(5000)),
        format!("nested more than {MAX_DEPTH} deep")
    );
    assert_eq!(
        refused(&"not ".repeat(5000)),
        format!("nested more than {MAX_DEPTH} deep")
    );
    assert!(holds(&vec!["Name == web"; MAX_COMPARISONS].join(" and ")));
    assert!(refused(&vec!["Name == web"; MAX_COMPARISONS + 1].join(" and ")).starts_with("more than 1000 "));
    assert!(holds(&vec!["Name matches w"; MAX_REGEXES].join(" and ")));
    assert!(refused(&vec!["Name matches w"; MAX_REGEXES + 1].join(" and ")).starts_with("more than 16 "));
    assert!(refused(&format!("Name matches \"{}\"", "(a|b|[^c]){99}".repeat(99))).contains("size limit"));
}

fn any_comparison() -> impl Strategy<Value = Expression> {
    let selector = prop_oneof![
        Just(vec!["Name"]),
        Just(vec!["Meta", "env"]),
        Just(vec!["Meta", "instance-type"]),
        Just(vec!["Addresses", "a\"\\\n", "Host"]),
    ];
    let operator = prop_oneof![Just(Operator::Equal), Just(Operator::In)];
    let value = prop_oneof!["web", "prod", "[a-z0-9.]{0,4}", any::<String>()];
    (selector, operator, any::<bool>(), value).prop_map(|(names, operator, negated, value)| {
        let selector = Selector(names.into_iter().map(str::to_owned).collect());
        Expression::Comparison(Comparison {
            selector,
            operator,
            negated,
            value,
        })
    })
}

fn any_expression() -> impl Strategy<Value = Expression> {
    any_comparison().prop_recursive(6, 64, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 2..4).prop_map(Expression::All),
            prop::collection::vec(inner.clone(), 2..4).prop_map(Expression::Any),
            inner.prop_map(|inner| Expression::Not(Box::new(inner))),
        ]
    })
}

/// The same question answered the plain way.
fn naive(expression: &Expression, row: &Service) -> bool {
    match expression {
        Expression::All(items) => items.iter().all(|item| naive(item, row)),
        Expression::Any(items) => items.iter().any(|item| naive(item, row)),
        Expression::Not(inner) => !naive(inner, row),
        Expression::Comparison(Comparison {
            selector,
            operator,
            negated,
            value,
        }) => {
            let text = match (selector.0[0].as_str(), selector.0.get(1)) {
                ("Name", _) => Some(&row.name),
                ("Meta", Some(key)) => row.meta.get(key),
                (_, key) => row.addresses.get(key.unwrap()).map(|address| &address.host),
            };
            let found = text.is_some_and(|text| match operator {
                Operator::Equal => text == value,
                _ => text.contains(value.as_str()),
            });
            found != *negated
        }
    }
}

proptest! {
    #[test]
    fn what_is_printed_parses_to_the_same(expression in any_expression()) {
        prop_assert_eq!(parse(&expression.to_string()), Ok(expression));
    }

    #[test]
    fn evaluation_agrees_with_the_plain_one(expression in any_expression()) {
        prop_assert_eq!(holds(&expression.to_string()), naive(&expression, &web()));
    }

    #[test]
    fn no_text_makes_the_parser_panic(text in "[ a-z()=!\"`\\\\/.\\[\\]0-9-]{0,60}|\\PC{0,40}") {
        if let Ok(expression) = parse(&text) {
            prop_assert_eq!(parse(&expression.to_string()), Ok(expression));
        }
    }
}
