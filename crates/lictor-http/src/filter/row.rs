//! What can be filtered: rows that name their typed fields.

use std::collections::BTreeMap;
use std::fmt;

/// A field of a row as it is named in expressions.
pub(crate) struct Field {
    /// Its name, case included.
    pub(crate) name: &'static str,
    /// What it holds.
    pub(crate) kind: Kind,
}

/// What a field holds, and with it which comparisons it allows.
#[derive(Clone, Copy)]
pub(crate) enum Kind {
    /// Text: equality, substring (`in`), regular expression.
    Text,
    /// A whole number: equality.
    Number,
    /// A boolean: equality.
    Bool,
    /// A list of texts: membership, emptiness.
    List,
    /// A map of texts: membership of keys, emptiness, and each entry as text.
    Map,
    /// A row within the row.
    Row(&'static [Field]),
    /// A list of rows: emptiness, and comparisons that hold if they hold for any of them.
    Rows(&'static [Field]),
    /// A map of rows: membership of keys, emptiness, and each entry as a row.
    RowMap(&'static [Field]),
}

/// The value of a field in one row.
pub(crate) enum Value<'a> {
    /// For [`Kind::Text`].
    Text(&'a str),
    /// For [`Kind::Number`].
    Number(i64),
    /// For [`Kind::Bool`].
    Bool(bool),
    /// For [`Kind::List`].
    List(&'a [String]),
    /// For [`Kind::Map`].
    Map(&'a BTreeMap<String, String>),
    /// For [`Kind::Row`].
    Row(&'a dyn Row),
    /// For [`Kind::Rows`].
    Rows(Vec<&'a dyn Row>),
    /// For [`Kind::RowMap`].
    RowMap(Vec<(&'a str, &'a dyn Row)>),
}

/// Something that expressions can be asked about.
pub(crate) trait Row {
    /// The value of the field of this name; `None` is taken as an absent map entry.
    fn field(&self, name: &str) -> Option<Value<'_>>;
}

impl Field {
    /// A field of this name and kind.
    pub(crate) const fn new(name: &'static str, kind: Kind) -> Self {
        Self { name, kind }
    }
}

impl fmt::Debug for Field {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name)
    }
}
