//! The filter language of list endpoints: `?filter=ServiceName == "web" and "v2" in ServiceTags`.
//!
//! ```text
//! text ──parse──> Expression ──compile against the fields of a row──> Filter ──keep(row)──> bool
//! ```
//! Text comes from anybody, so that everything about it is bounded: nesting ([`MAX_DEPTH`]), the number of
//! comparisons ([`MAX_COMPARISONS`]) and of regular expressions ([`MAX_REGEXES`]) and the size of each of these.

mod compile;
mod expression;
pub(crate) mod fields;
mod parse;
mod row;
#[cfg(test)]
mod tests;

pub(crate) use compile::pattern;
pub(crate) use row::{Field, Kind, Row, Value};

/// How deep parentheses and `not` may nest.
pub(crate) const MAX_DEPTH: usize = 64;
/// How many comparisons one expression may have.
pub(crate) const MAX_COMPARISONS: usize = 1000;
/// How many `matches` one expression may have.
pub(crate) const MAX_REGEXES: usize = 16;
/// What one compiled regular expression may take, in bytes.
pub(crate) const MAX_REGEX_BYTES: usize = 1 << 20;

/// Why rows cannot be filtered by an expression; the text is shown to the client.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub(crate) struct FilterError(String);

/// When an expression that fits no row of this kind is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Validate {
    /// Before the first row, as catalog and health lists do it.
    Always,
    /// At the first row that comes to the faulty comparison, as the agent's list of checks does it: no row, no error.
    PerRow,
}

/// An expression, ready to be asked about rows of one kind.
#[derive(Debug, Clone)]
pub(crate) struct Filter {
    node: Option<compile::Node>,
}

impl Filter {
    /// Reads an expression about rows with these fields. The empty text keeps every row.
    ///
    /// # Errors
    /// The expression does not parse, is over a bound, or (unless `validate` is per row) asks for what the fields
    /// do not have.
    pub(crate) fn new(text: &str, fields: &'static [Field], validate: Validate) -> Result<Self, FilterError> {
        if text.is_empty() {
            return Ok(Self { node: None });
        }
        let refuse =
            |why: String| FilterError(format!("Failed to create boolean expression evaluator: {why}"));
        let expression = parse::parse(text).map_err(refuse)?;
        let node = compile::compile(&expression, fields);
        match (validate, node.first_fault()) {
            (Validate::Always, Some(fault)) => Err(refuse(fault.to_owned())),
            _ => Ok(Self { node: Some(node) }),
        }
    }

    /// Whether the row is in the answer.
    ///
    /// # Errors
    /// With [`Validate::PerRow`]: the row came to a comparison that its fields do not have.
    pub(crate) fn keep(&self, row: &dyn Row) -> Result<bool, FilterError> {
        match &self.node {
            None => Ok(true),
            Some(node) => node.holds(row).map_err(|fault| FilterError(fault.to_owned())),
        }
    }
}
