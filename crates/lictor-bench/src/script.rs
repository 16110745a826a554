//! What one client of the load does, without any IO: it names its next request and judges the answer.
//!
//! A [`Script`] is a closed loop: one request at a time. One *operation* may be several requests (a session cycle is
//! three). The driver in [`crate::drive`] times operations and never looks inside.

use std::ops::Range;
use std::sync::atomic::{AtomicUsize, Ordering};

use anyhow::{Context, Result, ensure};

use crate::wire::{Answer, request};

/// What an answer meant for the operation under way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Step {
    /// The operation needs another request.
    More,
    /// The operation is complete.
    Done,
}

/// One client's closed loop.
pub(crate) trait Script: Send {
    /// The request to send now; `None` when all work is done.
    fn next(&mut self) -> Option<&[u8]>;

    /// Judges the answer to it. An error ends the measurement.
    fn judge(&mut self, answer: &Answer<'_>) -> Result<Step>;
}

/// A small generator (xorshift64*): which key is next must cost nothing.
#[derive(Debug, Clone)]
pub(crate) struct Dice(u64);

impl Dice {
    pub(crate) fn new(client: usize) -> Self {
        Self((client as u64 + 1).wrapping_mul(0x9E37_79B9_7F4A_7C15))
    }

    /// A number below `bound`.
    pub(crate) fn below(&mut self, bound: usize) -> usize {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        let wide = u128::from(self.0.wrapping_mul(0x2545_F491_4F6C_DD1D)) * bound as u128;
        // The high half of the product is below `bound`, which is a usize.
        #[expect(clippy::cast_possible_truncation, reason = "below a usize")]
        let number = (wide >> 64) as usize;
        number
    }
}

/// Bytes of every value written.
pub(crate) const VALUE_BYTES: usize = 100;
/// Operations in one transaction.
pub(crate) const TXN_OPS: usize = 64;
const VALUE_DIGITS: usize = 16;
/// Length of `VALUE_BYTES` in base64.
const VALUE_BASE64_BYTES: usize = VALUE_BYTES.div_ceil(3) * 4;

/// Overwrites decimal digits; slashes between them stay.
fn write_number(place: &mut [u8], mut number: usize) {
    for digit in place.iter_mut().rev().filter(|byte| **byte != b'/') {
        // The remainder is below ten.
        #[expect(clippy::cast_possible_truncation, reason = "a digit")]
        let value = (number % 10) as u8;
        *digit = b'0' + value;
        number /= 10;
    }
}

fn expect_true(answer: &Answer<'_>) -> Result<()> {
    ensure!(
        answer.status == 200 && answer.body.trim_ascii() == b"true",
        "{}: {}",
        answer.status,
        answer.excerpt()
    );
    Ok(())
}

fn expect_ok(answer: &Answer<'_>) -> Result<()> {
    ensure!(answer.status == 200, "{}: {}", answer.status, answer.excerpt());
    Ok(())
}

/// Numbered keys, of which a script picks one at random each time or sets all.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Keys {
    pub(crate) prefix: &'static str,
    /// How the number is written: digits, and slashes where folders end.
    pub(crate) digits: &'static str,
    pub(crate) count: usize,
}

impl Keys {
    pub(crate) const fn flat(prefix: &'static str, count: usize) -> Self {
        Self {
            prefix,
            digits: "0000000",
            count,
        }
    }

    /// A hundred keys in each folder.
    pub(crate) const fn folders(prefix: &'static str, count: usize) -> Self {
        Self {
            prefix,
            digits: "00000/00",
            count,
        }
    }

    pub(crate) fn name(&self, n: usize) -> String {
        let mut digits = self.digits.as_bytes().to_vec();
        write_number(&mut digits, n);
        self.prefix
            .chars()
            .chain(digits.into_iter().map(char::from))
            .collect()
    }

    /// Where the number lies if the name ends at `end`.
    fn place(&self, end: usize) -> Range<usize> {
        end - self.digits.len()..end
    }
}

/// PUT of a fresh value to a random key.
pub(crate) struct Put {
    bytes: Vec<u8>,
    key: Range<usize>,
    keys: Keys,
    dice: Dice,
    count: usize,
}

impl Put {
    pub(crate) fn new(keys: Keys, client: usize) -> Self {
        let target = format!("/v1/kv/{}", keys.name(0));
        // Values of different clients differ, and each is new: a write of what is there already would change nothing.
        let mut value = vec![b'v'; VALUE_BYTES];
        write_number(&mut value[VALUE_DIGITS..VALUE_DIGITS + 4], client);
        let key = keys.place("PUT ".len() + target.len());
        Self {
            bytes: request("PUT", &target, &value),
            key,
            keys,
            dice: Dice::new(client),
            count: 0,
        }
    }
}

impl Script for Put {
    fn next(&mut self) -> Option<&[u8]> {
        self.count += 1;
        write_number(
            &mut self.bytes[self.key.clone()],
            self.dice.below(self.keys.count),
        );
        let value_at = self.bytes.len() - VALUE_BYTES;
        write_number(&mut self.bytes[value_at..value_at + VALUE_DIGITS], self.count);
        Some(&self.bytes)
    }

    fn judge(&mut self, answer: &Answer<'_>) -> Result<Step> {
        expect_true(answer)?;
        Ok(Step::Done)
    }
}

/// GET of a random key.
pub(crate) struct Get {
    bytes: Vec<u8>,
    key: Range<usize>,
    keys: Keys,
    dice: Dice,
}

impl Get {
    /// `query` begins with `?` or is empty.
    pub(crate) fn new(keys: Keys, query: &str, client: usize) -> Self {
        let path = format!("/v1/kv/{}", keys.name(0));
        let key = keys.place("GET ".len() + path.len());
        Self {
            bytes: request("GET", &(path + query), b""),
            key,
            keys,
            dice: Dice::new(client),
        }
    }
}

impl Script for Get {
    fn next(&mut self) -> Option<&[u8]> {
        write_number(
            &mut self.bytes[self.key.clone()],
            self.dice.below(self.keys.count),
        );
        Some(&self.bytes)
    }

    fn judge(&mut self, answer: &Answer<'_>) -> Result<Step> {
        expect_ok(answer)?;
        Ok(Step::Done)
    }
}

/// Nine GETs to one PUT, at random.
pub(crate) struct Mixed {
    get: Get,
    put: Put,
    dice: Dice,
    putting: bool,
}

impl Mixed {
    pub(crate) fn new(keys: Keys, client: usize) -> Self {
        let (get, put) = (Get::new(keys, "", client), Put::new(keys, client));
        Self {
            get,
            put,
            dice: Dice::new(client + 1000),
            putting: false,
        }
    }
}

impl Script for Mixed {
    fn next(&mut self) -> Option<&[u8]> {
        self.putting = self.dice.below(10) == 0;
        if self.putting {
            self.put.next()
        } else {
            self.get.next()
        }
    }

    fn judge(&mut self, answer: &Answer<'_>) -> Result<Step> {
        if self.putting {
            self.put.judge(answer)
        } else {
            self.get.judge(answer)
        }
    }
}

/// The same GET again and again; the body must hold what `expected` counts.
pub(crate) struct List {
    bytes: Vec<u8>,
    expected: usize,
}

impl List {
    /// A list must have `expected` items; they are counted by a cheap mark: the commas between them.
    pub(crate) fn new(target: &str, expected: usize) -> Self {
        Self {
            bytes: request("GET", target, b""),
            expected,
        }
    }
}

impl Script for List {
    fn next(&mut self) -> Option<&[u8]> {
        Some(&self.bytes)
    }

    fn judge(&mut self, answer: &Answer<'_>) -> Result<Step> {
        expect_ok(answer)?;
        // Keys and base64 hold no comma, so each item of a list ends in `",` or `},`, or it is the last one.
        let separators = memchr::memmem::find_iter(answer.body, b"\",\"").count();
        let objects = memchr::memmem::find_iter(answer.body, b"},{").count();
        let found = if answer.body.starts_with(b"[{") {
            objects
        } else {
            separators
        } + 1;
        ensure!(
            found == self.expected,
            "a list of {found} instead of {}",
            self.expected
        );
        Ok(Step::Done)
    }
}

/// Transactions of [`TXN_OPS`] sets: either endless over a ring of keys, or one pass over a share of them.
pub(crate) struct Txn {
    bytes: Vec<u8>,
    keys: Keys,
    /// Offsets of the ends of each operation's key and of its value's start.
    places: Vec<(usize, usize)>,
    /// First key of the next transaction, and the step from one to the next.
    next_key: usize,
    stride: usize,
    endless: bool,
    count: usize,
}

impl Txn {
    /// Client `client` of `clients` sets every `clients`-th block of keys, once.
    pub(crate) fn load(keys: Keys, client: usize, clients: usize) -> Self {
        Self::new(keys, client, clients, false)
    }

    /// The same, but begins again at the end.
    pub(crate) fn endless(keys: Keys, client: usize, clients: usize) -> Self {
        Self::new(keys, client, clients, true)
    }

    fn new(keys: Keys, client: usize, clients: usize, endless: bool) -> Self {
        /// No two transactions set the same values, or the later one would change nothing.
        static NEXT_VALUES: AtomicUsize = AtomicUsize::new(0);
        const VALUES_EACH: usize = 1 << 24;
        let value = "dmFs".repeat(VALUE_BASE64_BYTES / 4 - 1) + "dg==";
        let mut body = String::from("[");
        let mut places = Vec::with_capacity(TXN_OPS);
        for op in 0..TXN_OPS {
            body.push_str(if op == 0 { "" } else { "," });
            body.push_str("{\"KV\":{\"Verb\":\"set\",\"Key\":\"");
            body.push_str(&keys.name(0));
            let key_end = body.len();
            body.push_str("\",\"Value\":\"");
            places.push((key_end, body.len()));
            body.push_str(&value);
            body.push_str("\"}}");
        }
        body.push(']');
        let bytes = request("PUT", "/v1/txn", body.as_bytes());
        let body_at = bytes.len() - body.len();
        for (key_end, value_at) in &mut places {
            *key_end += body_at;
            *value_at += body_at;
        }
        let (next_key, stride) = (client * TXN_OPS, clients * TXN_OPS);
        let count = NEXT_VALUES.fetch_add(VALUES_EACH, Ordering::Relaxed);
        Self {
            bytes,
            keys,
            places,
            next_key,
            stride,
            endless,
            count,
        }
    }
}

impl Script for Txn {
    fn next(&mut self) -> Option<&[u8]> {
        if self.next_key >= self.keys.count {
            if !self.endless {
                return None;
            }
            self.next_key %= self.stride;
        }
        self.count += 1;
        for (op, &(key_end, value_at)) in self.places.iter().enumerate() {
            // The last block may reach beyond the end; it then sets the last key several times.
            let key = (self.next_key + op).min(self.keys.count - 1);
            write_number(&mut self.bytes[self.keys.place(key_end)], key);
            // Digits are base64 characters too.
            write_number(&mut self.bytes[value_at..value_at + VALUE_DIGITS], self.count);
        }
        self.next_key += self.stride;
        Some(&self.bytes)
    }

    fn judge(&mut self, answer: &Answer<'_>) -> Result<Step> {
        expect_ok(answer)?;
        Ok(Step::Done)
    }
}

/// Every `clients`-th of `count` requests that are made by number, once.
pub(crate) struct Register {
    make: fn(usize) -> Vec<u8>,
    bytes: Vec<u8>,
    next: usize,
    stride: usize,
    count: usize,
}

impl Register {
    pub(crate) fn new(make: fn(usize) -> Vec<u8>, client: usize, clients: usize, count: usize) -> Self {
        Self {
            make,
            bytes: Vec::new(),
            next: client,
            stride: clients,
            count,
        }
    }
}

impl Script for Register {
    fn next(&mut self) -> Option<&[u8]> {
        if self.next >= self.count {
            return None;
        }
        self.bytes = (self.make)(self.next);
        self.next += self.stride;
        Some(&self.bytes)
    }

    fn judge(&mut self, answer: &Answer<'_>) -> Result<Step> {
        expect_ok(answer)?;
        Ok(Step::Done)
    }
}

/// The id in `{"ID":"..."}`.
pub(crate) fn session_id(body: &[u8]) -> Result<String> {
    let text = std::str::from_utf8(body)?;
    let id = text.split('"').nth(3).filter(|id| id.len() == 36);
    Ok(id.with_context(|| format!("no session id in {text}"))?.to_owned())
}

/// Create, renew, destroy.
#[derive(Default)]
pub(crate) struct SessionCycle {
    bytes: Vec<u8>,
    step: usize,
    id: String,
}

impl Script for SessionCycle {
    fn next(&mut self) -> Option<&[u8]> {
        self.bytes = match self.step {
            0 => request("PUT", "/v1/session/create", b"{\"TTL\":\"60s\"}"),
            1 => request("PUT", &format!("/v1/session/renew/{}", self.id), b""),
            _ => request("PUT", &format!("/v1/session/destroy/{}", self.id), b""),
        };
        Some(&self.bytes)
    }

    fn judge(&mut self, answer: &Answer<'_>) -> Result<Step> {
        expect_ok(answer)?;
        if self.step == 0 {
            self.id = session_id(answer.body)?;
        }
        self.step = (self.step + 1) % 3;
        Ok(if self.step == 0 { Step::Done } else { Step::More })
    }
}

/// Acquire and release of the client's own key.
pub(crate) struct LockCycle {
    acquire: Vec<u8>,
    release: Vec<u8>,
    held: bool,
}

impl LockCycle {
    /// A lock of the session's own: what an earlier round was cut off in still holds its locks.
    pub(crate) fn new(session: &str) -> Self {
        let target = |verb: &str| format!("/v1/kv/lock/{session}?{verb}={session}");
        let bytes = |verb: &str| request("PUT", &target(verb), b"holder");
        Self {
            acquire: bytes("acquire"),
            release: bytes("release"),
            held: false,
        }
    }
}

impl Script for LockCycle {
    fn next(&mut self) -> Option<&[u8]> {
        Some(if self.held { &self.release } else { &self.acquire })
    }

    fn judge(&mut self, answer: &Answer<'_>) -> Result<Step> {
        expect_true(answer)?;
        self.held = !self.held;
        Ok(if self.held { Step::More } else { Step::Done })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEYS: Keys = Keys::flat("t/", 1000);
    const KEY_DIGITS: usize = 7;

    fn answer(body: &str) -> Answer<'_> {
        Answer {
            status: 200,
            index: Some(7),
            body: body.as_bytes(),
        }
    }

    fn text(script: &mut dyn Script) -> String {
        String::from_utf8(script.next().unwrap().to_vec()).unwrap()
    }

    #[test]
    fn each_put_names_a_key_of_the_range_and_a_value_not_seen_before() {
        let mut put = Put::new(KEYS, 3);
        let mut values = std::collections::HashSet::new();

        for _ in 0..100 {
            let request = text(&mut put);
            let (head, value) = request.split_once("\r\n\r\n").unwrap();
            let key = head
                .strip_prefix("PUT /v1/kv/t/")
                .unwrap()
                .split(' ')
                .next()
                .unwrap();
            assert!(key.len() == KEY_DIGITS && key.parse::<usize>().unwrap() < 1000);
            assert_eq!(value.len(), VALUE_BYTES);
            assert!(values.insert(value.to_owned()));
        }
    }

    #[test]
    fn folders_hold_a_hundred_keys() {
        assert_eq!(Keys::folders("t/", 100_000).name(12_345), "t/00123/45");
        assert_eq!(KEYS.name(12), "t/0000012");
    }

    #[test]
    fn loading_sets_every_key_once_over_all_clients() {
        let mut seen = vec![0; 1000];
        for client in 0..3 {
            let mut txn = Txn::load(KEYS, client, 3);
            while let Some(bytes) = txn.next() {
                let request = String::from_utf8(bytes.to_vec()).unwrap();
                for op in request.split("\"Key\":\"t/").skip(1) {
                    seen[op[..KEY_DIGITS].parse::<usize>().unwrap()] += 1;
                }
            }
        }

        // The last block is filled up with the last key.
        assert!(seen[..999].iter().all(|&times| times == 1));
        assert_eq!(seen[999], 1 + (1000_usize.next_multiple_of(TXN_OPS) - 1000));
    }

    #[test]
    fn every_service_is_registered_once_over_all_clients() {
        let mut made = Vec::new();
        for client in 0..3 {
            let mut register = Register::new(|n| n.to_string().into_bytes(), client, 3, 100);
            while let Some(bytes) = register.next() {
                made.push(std::str::from_utf8(bytes).unwrap().parse::<usize>().unwrap());
            }
        }

        made.sort_unstable();
        assert_eq!(made, (0..100).collect::<Vec<_>>());
    }

    #[test]
    fn a_session_cycle_is_three_requests_on_the_created_id() {
        let id = "4ca8e74b-6350-7587-addf-a18084928f3c";
        let mut cycle = SessionCycle::default();

        assert!(text(&mut cycle).starts_with("PUT /v1/session/create "));
        assert_eq!(
            cycle.judge(&answer(&format!("{{\"ID\":\"{id}\"}}"))).unwrap(),
            Step::More
        );
        assert!(text(&mut cycle).starts_with(&format!("PUT /v1/session/renew/{id} ")));
        assert_eq!(cycle.judge(&answer("[]")).unwrap(), Step::More);
        assert!(text(&mut cycle).starts_with(&format!("PUT /v1/session/destroy/{id} ")));
        assert_eq!(cycle.judge(&answer("true")).unwrap(), Step::Done);
    }

    #[test]
    fn a_list_of_another_length_is_an_error() {
        let mut list = List::new("/v1/kv/?keys", 3);

        assert!(list.judge(&answer("[\"a\",\"b\",\"c\"]")).is_ok());
        assert!(list.judge(&answer("[\"a\",\"b\"]")).is_err());
        assert!(
            List::new("/", 2)
                .judge(&answer("[{\"Key\":\"a\",\"Value\":\"dg==\"},{\"Key\":\"b\"}]"))
                .is_ok()
        );
    }

    #[test]
    fn dice_stay_below_their_bound_and_reach_it() {
        let mut dice = Dice::new(1);
        let mut seen = [0; 10];
        for _ in 0..10_000 {
            seen[dice.below(10)] += 1;
        }
        assert!(seen.iter().all(|&times| times > 800));
    }
}
