//! [`Expression`] to something that can be asked about rows of one kind.

use std::num::IntErrorKind;

use regex::{Regex, RegexBuilder};

use super::MAX_REGEX_BYTES;
use super::expression::{Comparison, Expression, Operator};
use super::row::{Field, Kind, Row, Value};

/// A compiled expression. As deep as the parsed one, so that walking it may recurse.
#[derive(Debug, Clone)]
pub(super) enum Node {
    All(Vec<Node>),
    Any(Vec<Node>),
    Not(Box<Node>),
    Test(Test),
    /// A comparison that rows of this kind cannot answer, and why.
    Faulty(String),
}

/// One comparison with its selector resolved and its value read.
#[derive(Debug, Clone)]
pub(super) struct Test {
    steps: Vec<Step>,
    negated: bool,
    question: Question,
}

/// One name of a selector.
#[derive(Debug, Clone)]
enum Step {
    Field(&'static str),
    Key(String),
}

/// What is asked about the value at the end of a selector.
#[derive(Debug, Clone)]
enum Question {
    IsText(String),
    IsNumber(i64),
    IsBool(bool),
    Contains(String),
    Matches(Regex),
    IsEmpty,
}

/// Resolves an expression against the fields of a kind of rows. A comparison that does not fit becomes
/// [`Node::Faulty`].
pub(super) fn compile(expression: &Expression, fields: &'static [Field]) -> Node {
    let each = |items: &[Expression]| items.iter().map(|item| compile(item, fields)).collect();
    match expression {
        Expression::All(items) => Node::All(each(items)),
        Expression::Any(items) => Node::Any(each(items)),
        Expression::Not(inner) => Node::Not(Box::new(compile(inner, fields))),
        Expression::Comparison(comparison) => test(comparison, fields).map_or_else(Node::Faulty, Node::Test),
    }
}

fn test(comparison: &Comparison, fields: &'static [Field]) -> Result<Test, String> {
    let (steps, kind) = resolve(comparison, fields)?;
    Ok(Test {
        steps,
        negated: comparison.negated,
        question: question(comparison, kind)?,
    })
}

/// The way to the selected value, and the kind of what is there.
fn resolve(comparison: &Comparison, fields: &'static [Field]) -> Result<(Vec<Step>, Kind), String> {
    let mut steps = Vec::with_capacity(comparison.selector.0.len());
    let mut kind = Kind::Row(fields);
    for (at, name) in comparison.selector.0.iter().enumerate() {
        let (step, next) = match kind {
            Kind::Row(fields) | Kind::Rows(fields) => fields
                .iter()
                .find(|field| field.name == name)
                .map(|field| (Step::Field(field.name), field.kind)),
            Kind::Map => Some((Step::Key(name.clone()), Kind::Text)),
            Kind::RowMap(fields) => Some((Step::Key(name.clone()), Kind::Row(fields))),
            Kind::Text | Kind::Number | Kind::Bool | Kind::List => None,
        }
        .ok_or_else(|| {
            format!(
                "Selector {:?} is not valid",
                comparison.selector.0[..=at].join(".")
            )
        })?;
        steps.push(step);
        kind = next;
    }
    Ok((steps, kind))
}

fn question(comparison: &Comparison, kind: Kind) -> Result<Question, String> {
    let text = &comparison.value;
    let selector = comparison.selector.0.join(".");
    let coerced = |why: String| format!("Failed to coerce value {text:?} for selector {selector:?}: {why}");
    match (comparison.operator, kind) {
        (Operator::Equal, Kind::Text) => Ok(Question::IsText(text.clone())),
        (Operator::Equal, Kind::Number) => whole_number(text).map(Question::IsNumber).map_err(coerced),
        (Operator::Equal, Kind::Bool) => match text.as_str() {
            "1" | "t" | "T" | "TRUE" | "true" | "True" => Ok(Question::IsBool(true)),
            "0" | "f" | "F" | "FALSE" | "false" | "False" => Ok(Question::IsBool(false)),
            _ => Err(coerced(format!(
                "strconv.ParseBool: parsing {text:?}: invalid syntax"
            ))),
        },
        (Operator::In, Kind::Text | Kind::List | Kind::Map | Kind::RowMap(_)) => {
            Ok(Question::Contains(text.clone()))
        }
        (Operator::Matches, Kind::Text) => pattern(text)
            .map(Question::Matches)
            .map_err(|why| format!("Failed to compile regular expression {text:?}: {why}")),
        (Operator::IsEmpty, Kind::List | Kind::Map | Kind::Rows(_) | Kind::RowMap(_)) => {
            Ok(Question::IsEmpty)
        }
        _ => Err(format!(
            "Invalid match operator {:?} for selector {:?}",
            comparison.operator_name(),
            selector
        )),
    }
}

/// A regular expression from outside, within bounds.
///
/// # Errors
/// What is wrong with it, in one line.
pub(crate) fn pattern(text: &str) -> Result<Regex, String> {
    RegexBuilder::new(text)
        .size_limit(MAX_REGEX_BYTES)
        .dfa_size_limit(MAX_REGEX_BYTES)
        .nest_limit(MAX_DEPTH_OF_REGEX)
        .build()
        .map_err(|error| format!("error parsing regexp: {}", one_line(&error)))
}

/// How deep a regular expression may nest.
const MAX_DEPTH_OF_REGEX: u32 = 64;

/// The last line of a message that draws the expression above it.
fn one_line(error: &regex::Error) -> String {
    let text = error.to_string();
    text.lines()
        .last()
        .unwrap_or_default()
        .trim_start_matches("error: ")
        .to_owned()
}

/// A number as Go writes it in source: decimal, or with a prefix in another base.
fn whole_number(text: &str) -> Result<i64, String> {
    let (sign, digits) = match text.strip_prefix('-') {
        Some(digits) => ("-", digits),
        None => ("", text.strip_prefix('+').unwrap_or(text)),
    };
    let (radix, digits) = match digits.as_bytes() {
        [b'0', b'x' | b'X', ..] => (16, &digits[2..]),
        [b'0', b'b' | b'B', ..] => (2, &digits[2..]),
        [b'0', b'o' | b'O', ..] => (8, &digits[2..]),
        [b'0', _, ..] => (8, &digits[1..]),
        _ => (10, digits),
    };
    if digits.starts_with(['+', '-']) {
        return Err(format!("strconv.ParseInt: parsing {text:?}: invalid syntax"));
    }
    i64::from_str_radix(&format!("{sign}{digits}"), radix).map_err(|error| {
        let what = match error.kind() {
            IntErrorKind::PosOverflow | IntErrorKind::NegOverflow => "value out of range",
            _ => "invalid syntax",
        };
        format!("strconv.ParseInt: parsing {text:?}: {what}")
    })
}

impl Node {
    /// The first comparison that does not fit, in the order of the text.
    pub(super) fn first_fault(&self) -> Option<&str> {
        match self {
            Self::All(items) | Self::Any(items) => items.iter().find_map(Self::first_fault),
            Self::Not(inner) => inner.first_fault(),
            Self::Test(_) => None,
            Self::Faulty(fault) => Some(fault),
        }
    }

    /// Whether the row satisfies this. Stops at the first item that decides, so that a fault behind it stays unseen.
    ///
    /// # Errors
    /// The text of the fault that was come to.
    pub(super) fn holds(&self, row: &dyn Row) -> Result<bool, &str> {
        match self {
            Self::All(items) => decided_by(items, false, row),
            Self::Any(items) => decided_by(items, true, row),
            Self::Not(inner) => Ok(!inner.holds(row)?),
            Self::Test(test) => Ok(test.holds(row)),
            Self::Faulty(fault) => Err(fault),
        }
    }
}

/// `decisive` if any item comes to it, else the opposite.
fn decided_by<'a>(items: &'a [Node], decisive: bool, row: &dyn Row) -> Result<bool, &'a str> {
    for item in items {
        if item.holds(row)? == decisive {
            return Ok(decisive);
        }
    }
    Ok(!decisive)
}

impl Test {
    fn holds(&self, row: &dyn Row) -> bool {
        self.ask(Some(Value::Row(row)), &self.steps)
    }

    /// Follows the steps from a value and asks what is there. What is absent answers no, and the negated question yes.
    fn ask(&self, value: Option<Value<'_>>, steps: &[Step]) -> bool {
        let Some(value) = value else { return self.negated };
        let Some((step, rest)) = steps.split_first() else {
            return self.question.holds(&value) != self.negated;
        };
        match (value, step) {
            (Value::Row(row), Step::Field(name)) => self.ask(row.field(name), rest),
            (Value::Rows(rows), Step::Field(name)) => rows.iter().any(|row| self.ask(row.field(name), rest)),
            (Value::Map(map), Step::Key(key)) => self.ask(map.get(key).map(|text| Value::Text(text)), rest),
            (Value::RowMap(entries), Step::Key(key)) => {
                let entry = entries.iter().find(|(name, _)| name == key);
                self.ask(entry.map(|(_, row)| Value::Row(*row)), rest)
            }
            _ => self.negated,
        }
    }
}

impl Question {
    fn holds(&self, value: &Value<'_>) -> bool {
        match (self, value) {
            (Self::IsText(wanted), Value::Text(text)) => text == wanted,
            (Self::IsNumber(wanted), Value::Number(number)) => number == wanted,
            (Self::IsBool(wanted), Value::Bool(truth)) => truth == wanted,
            (Self::Contains(part), Value::Text(text)) => text.contains(part.as_str()),
            (Self::Contains(item), Value::List(items)) => items.contains(item),
            (Self::Contains(key), Value::Map(map)) => map.contains_key(key),
            (Self::Contains(key), Value::RowMap(entries)) => entries.iter().any(|(name, _)| name == key),
            (Self::Matches(regex), Value::Text(text)) => regex.is_match(text),
            (Self::IsEmpty, Value::List(items)) => items.is_empty(),
            (Self::IsEmpty, Value::Map(map)) => map.is_empty(),
            (Self::IsEmpty, Value::Rows(rows)) => rows.is_empty(),
            (Self::IsEmpty, Value::RowMap(entries)) => entries.is_empty(),
            _ => false,
        }
    }
}
