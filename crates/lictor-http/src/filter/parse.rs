//! Text to [`Expression`].
//!
//! ```text
//! any        = all (" or " all)*
//! all        = factor (" and " factor)*
//! factor     = "not " factor | "(" any ")" | comparison
//! comparison = selector ("==" | "!=") value
//!            | selector ["not"] ("contains" | "matches") value
//!            | selector "is" ["not"] "empty"
//!            | value ["not"] "in" selector
//! selector   = name ("." name | "[" quoted "]")* | quoted JSON pointer
//! value      = quoted | number | name ("." name)*
//! quoted     = "..." with Go's escapes | `...` without
//! ```

use winnow::ascii::multispace0;
use winnow::combinator::{
    alt, cut_err, delimited, eof, fail, opt, peek, preceded, repeat, separated, terminated,
};
use winnow::error::{ContextError, ErrMode, ModalResult};
use winnow::prelude::*;
use winnow::stream::Stateful;
use winnow::token::{any, none_of, one_of, take_while};

use super::expression::{Comparison, Expression, Operator, Selector};
use super::{MAX_COMPARISONS, MAX_DEPTH, MAX_REGEXES};

/// The rest of the text, and what was spent of the bounds.
type Input<'i> = Stateful<&'i str, Spent>;

/// What an expression may not have without bound.
#[derive(Debug, Clone, Copy, Default)]
struct Spent {
    depth: usize,
    comparisons: usize,
    regexes: usize,
}

/// Reads a whole expression.
///
/// # Errors
/// A text for the client.
pub(super) fn parse(text: &str) -> Result<Expression, String> {
    let mut input = Input {
        input: text,
        state: Spent::default(),
    };
    let parsed = delimited(multispace0, any_of, (multispace0, eof)).parse_next(&mut input);
    let Spent {
        depth,
        comparisons,
        regexes,
    } = input.state;
    parsed.map_err(|_| {
        if depth > MAX_DEPTH {
            format!("nested more than {MAX_DEPTH} deep")
        } else if comparisons > MAX_COMPARISONS {
            format!("more than {MAX_COMPARISONS} comparisons")
        } else if regexes > MAX_REGEXES {
            format!("more than {MAX_REGEXES} regular expressions")
        } else {
            let at = text.len() - input.input.len();
            format!(
                "no match found at position {}",
                text.get(..at).map_or(at, |read| read.chars().count()) + 1
            )
        }
    })
}

fn any_of(input: &mut Input<'_>) -> ModalResult<Expression> {
    separated(1.., all_of, word("or"))
        .map(|items| joined(items, Expression::Any))
        .parse_next(input)
}

fn all_of(input: &mut Input<'_>) -> ModalResult<Expression> {
    separated(1.., factor, word("and"))
        .map(|items| joined(items, Expression::All))
        .parse_next(input)
}

fn joined(mut items: Vec<Expression>, join: fn(Vec<Expression>) -> Expression) -> Expression {
    match items.pop() {
        Some(only) if items.is_empty() => only,
        last => {
            items.extend(last);
            join(items)
        }
    }
}

fn factor(input: &mut Input<'_>) -> ModalResult<Expression> {
    alt((
        preceded(("not", spaces), cut_err(nested(factor))).map(|inner| Expression::Not(Box::new(inner))),
        delimited(
            ('(', multispace0),
            cut_err(nested(any_of)),
            cut_err((multispace0, ')')),
        ),
        comparison.map(Expression::Comparison),
    ))
    .parse_next(input)
}

/// Runs a parser one level deeper, or fails for good at the bound.
fn nested<'i>(
    parser: fn(&mut Input<'i>) -> ModalResult<Expression>,
) -> impl Parser<Input<'i>, Expression, ErrMode<ContextError>> {
    move |input: &mut Input<'i>| {
        input.state.depth += 1;
        if input.state.depth > MAX_DEPTH {
            return cut_err(fail).parse_next(input);
        }
        let inner = parser(input)?;
        input.state.depth -= 1;
        Ok(inner)
    }
}

fn comparison(input: &mut Input<'_>) -> ModalResult<Comparison> {
    input.state.comparisons += 1;
    if input.state.comparisons > MAX_COMPARISONS {
        return cut_err(fail).parse_next(input);
    }
    alt((selector_first, value_first)).parse_next(input)
}

fn selector_first(input: &mut Input<'_>) -> ModalResult<Comparison> {
    let selector = selector(input)?;
    let (operator, negated) = alt((
        delimited(
            multispace0,
            alt(("==".value(false), "!=".value(true))),
            multispace0,
        )
        .map(|negated| (Operator::Equal, negated)),
        (
            preceded(spaces, opt(("not", spaces))),
            alt(("contains", "matches")),
            spaces,
        )
            .map(|(not, name, ())| {
                (
                    if name == "matches" {
                        Operator::Matches
                    } else {
                        Operator::In
                    },
                    not.is_some(),
                )
            }),
        (spaces, "is", spaces, opt(("not", spaces)), "empty", ends_word)
            .map(|((), _, (), not, _, ())| (Operator::IsEmpty, not.is_some())),
    ))
    .parse_next(input)?;
    if operator == Operator::Matches {
        input.state.regexes += 1;
        if input.state.regexes > MAX_REGEXES {
            return cut_err(fail).parse_next(input);
        }
    }
    let value = if operator == Operator::IsEmpty {
        String::new()
    } else {
        cut_err(value).parse_next(input)?
    };
    Ok(Comparison {
        selector,
        operator,
        negated,
        value,
    })
}

fn value_first(input: &mut Input<'_>) -> ModalResult<Comparison> {
    (value, spaces, opt(("not", spaces)), "in", spaces, selector)
        .map(|(value, (), not, _, (), selector)| Comparison {
            selector,
            operator: Operator::In,
            negated: not.is_some(),
            value,
        })
        .parse_next(input)
}

fn selector(input: &mut Input<'_>) -> ModalResult<Selector> {
    alt((
        (name, repeat(0.., alt((preceded('.', name), index)))).map(|(first, rest): (String, Vec<String>)| {
            Selector(std::iter::once(first).chain(rest).collect())
        }),
        quoted.verify_map(|text| {
            let names = text
                .strip_prefix('/')?
                .split('/')
                .map(|name| name.replace("~1", "/").replace("~0", "~"));
            Some(Selector(names.collect()))
        }),
    ))
    .parse_next(input)
}

fn index(input: &mut Input<'_>) -> ModalResult<String> {
    delimited(('[', multispace0), quoted, (multispace0, ']')).parse_next(input)
}

fn name(input: &mut Input<'_>) -> ModalResult<String> {
    (
        one_of(|c: char| c.is_ascii_alphabetic()),
        take_while(0.., |c: char| c.is_ascii_alphanumeric() || c == '_'),
    )
        .take()
        .map(str::to_owned)
        .parse_next(input)
}

fn value(input: &mut Input<'_>) -> ModalResult<String> {
    alt((
        quoted,
        number,
        (name, repeat::<_, _, (), _, _>(0.., ('.', name)))
            .take()
            .map(str::to_owned),
    ))
    .parse_next(input)
}

fn number(input: &mut Input<'_>) -> ModalResult<String> {
    let digits = || take_while(1.., |c: char| c.is_ascii_digit());
    let whole = alt((
        "0",
        (one_of('1'..='9'), take_while(0.., |c: char| c.is_ascii_digit())).take(),
    ));
    terminated((opt('-'), whole, opt(('.', digits()))).take(), ends_word)
        .map(str::to_owned)
        .parse_next(input)
}

fn quoted(input: &mut Input<'_>) -> ModalResult<String> {
    alt((
        delimited('`', take_while(0.., |c| c != '`'), '`').map(str::to_owned),
        delimited('"', repeat(0.., character), '"'),
    ))
    .parse_next(input)
}

/// One character between double quotes.
fn character(input: &mut Input<'_>) -> ModalResult<char> {
    alt((none_of(['"', '\\', '\n']), preceded('\\', escape))).parse_next(input)
}

fn escape(input: &mut Input<'_>) -> ModalResult<char> {
    let digits = match any.parse_next(input)? {
        'a' => return Ok('\u{7}'),
        'b' => return Ok('\u{8}'),
        'f' => return Ok('\u{c}'),
        'n' => return Ok('\n'),
        'r' => return Ok('\r'),
        't' => return Ok('\t'),
        'v' => return Ok('\u{b}'),
        c @ ('"' | '\\') => return Ok(c),
        'x' => 2,
        'u' => 4,
        'U' => 8,
        _ => return fail.parse_next(input),
    };
    take_while(digits..=digits, |c: char| c.is_ascii_hexdigit())
        .verify_map(|hex| u32::from_str_radix(hex, 16).ok().and_then(char::from_u32))
        .parse_next(input)
}

/// A word between spaces.
fn word<'i>(word: &'static str) -> impl Parser<Input<'i>, (), ErrMode<ContextError>> {
    (spaces, word, spaces).void()
}

fn spaces(input: &mut Input<'_>) -> ModalResult<()> {
    take_while(1.., [' ', '\t', '\r', '\n']).void().parse_next(input)
}

/// The end of a number or keyword, without reading on.
fn ends_word(input: &mut Input<'_>) -> ModalResult<()> {
    peek(alt((eof.void(), one_of([' ', '\t', '\r', '\n', ')']).void()))).parse_next(input)
}
