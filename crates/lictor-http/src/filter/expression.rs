//! The parsed form of an expression, and its canonical text.

use std::fmt::{self, Display, Formatter, Write as _};

/// An expression. Its depth is bounded by the parser, so that walking it may recurse.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Expression {
    /// `a and b and c`; at least two.
    All(Vec<Expression>),
    /// `a or b or c`; at least two.
    Any(Vec<Expression>),
    /// `not a`.
    Not(Box<Expression>),
    /// One comparison.
    Comparison(Comparison),
}

/// `selector operator value`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Comparison {
    /// The names on the way to a field or to an entry of a map.
    pub(super) selector: Selector,
    /// What is asked.
    pub(super) operator: Operator,
    /// Whether the answer is turned round (`!=`, `not in`, ...).
    pub(super) negated: bool,
    /// What is compared with; empty for [`Operator::IsEmpty`].
    pub(super) value: String,
}

/// Names from a row to a field. Never empty; printed as a JSON pointer if the first is no identifier.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Selector(pub(super) Vec<String>);

/// What a comparison asks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Operator {
    /// `==`
    Equal,
    /// `value in selector`, also written `selector contains value`
    In,
    /// `matches`
    Matches,
    /// `is empty`
    IsEmpty,
}

impl Comparison {
    /// The operator's name in error texts.
    pub(super) fn operator_name(&self) -> &'static str {
        match (self.operator, self.negated) {
            (Operator::Equal, false) => "Equal",
            (Operator::Equal, true) => "Not Equal",
            (Operator::In, false) => "In",
            (Operator::In, true) => "Not In",
            (Operator::Matches, false) => "Matches",
            (Operator::Matches, true) => "Not Matches",
            (Operator::IsEmpty, false) => "Is Empty",
            (Operator::IsEmpty, true) => "Is Not Empty",
        }
    }
}

/// Whether a name can stand in a selector without brackets.
pub(super) fn is_identifier(name: &str) -> bool {
    let mut chars = name.chars();
    chars.next().is_some_and(|first| first.is_ascii_alphabetic())
        && chars.all(|c| c.is_ascii_alphanumeric() || c == '_')
}

/// Text in double quotes, escaped.
struct Quoted<'a>(&'a str);

impl Display for Quoted<'_> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.write_char('"')?;
        for c in self.0.chars() {
            match c {
                '"' | '\\' => write!(f, "\\{c}")?,
                c if c.is_control() => write!(f, "\\U{:08x}", u32::from(c))?,
                c => f.write_char(c)?,
            }
        }
        f.write_char('"')
    }
}

impl Display for Selector {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        if !self.0.first().is_some_and(|first| is_identifier(first)) {
            let escaped = self
                .0
                .iter()
                .map(|name| format!("/{}", name.replace('~', "~0").replace('/', "~1")));
            return Display::fmt(&Quoted(&escaped.collect::<String>()), f);
        }
        for (at, name) in self.0.iter().enumerate() {
            match (at, is_identifier(name)) {
                (0, _) => f.write_str(name)?,
                (_, true) => write!(f, ".{name}")?,
                (_, false) => write!(f, "[{}]", Quoted(name))?,
            }
        }
        Ok(())
    }
}

impl Display for Comparison {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let Self { selector, value, .. } = self;
        let not = if self.negated { "not " } else { "" };
        match self.operator {
            Operator::Equal => {
                write!(
                    f,
                    "{selector} {} {}",
                    if self.negated { "!=" } else { "==" },
                    Quoted(value)
                )
            }
            Operator::In => write!(f, "{} {not}in {selector}", Quoted(value)),
            Operator::Matches => write!(f, "{selector} {not}matches {}", Quoted(value)),
            Operator::IsEmpty => write!(f, "{selector} is {not}empty"),
        }
    }
}

impl Display for Expression {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let (items, word) = match self {
            Self::Comparison(comparison) => return Display::fmt(comparison, f),
            Self::Not(inner) => return write!(f, "not ({inner})"),
            Self::All(items) => (items, " and "),
            Self::Any(items) => (items, " or "),
        };
        for (at, item) in items.iter().enumerate() {
            f.write_str(if at == 0 { "" } else { word })?;
            match item {
                Self::All(_) | Self::Any(_) => write!(f, "({item})")?,
                Self::Comparison(_) | Self::Not(_) => Display::fmt(item, f)?,
            }
        }
        Ok(())
    }
}
