//! Structured fields (RFC 9651): items, lists and dictionaries, read strictly.
//!
//! One malformed byte makes the whole field malformed, as the RFC wants: the caller then treats it
//! as absent. Several field lines are read one by one, which differs from joining them only where a
//! string or inner list is cut by a line end; that is malformed here, as the RFC allows.
//!
//! ```text
//!   CDN-Cache-Control: max-age=60, private;a="b", groups=("x" y)
//!                      └ key     └ Boolean true   └ inner list
//!                             └ Integer       └ parameter
//! ```
//!
//! Leaves to others: which keys mean something, and of which type they must be.

use std::borrow::Cow;

/// A dictionary: each key once, in the order of first appearance; the last value wins.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct Dictionary<'a>(Vec<(&'a str, Member<'a>)>);

/// A value with parameters, or a list of such in parentheses.
#[derive(Clone, PartialEq, Debug)]
pub enum Member<'a> {
    /// One value.
    Item(Item<'a>),
    /// `(a b c)` with parameters of its own.
    InnerList(Vec<Item<'a>>, Parameters<'a>),
}

/// A bare value with parameters.
#[derive(Clone, PartialEq, Debug)]
pub struct Item<'a> {
    /// The value.
    pub value: Value<'a>,
    /// `;key=value`, each key once.
    pub parameters: Parameters<'a>,
}

/// Parameters of an item or inner list.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct Parameters<'a>(Vec<(&'a str, Value<'a>)>);

/// A bare item (RFC 9651 §3.3).
#[derive(Clone, PartialEq, Debug)]
pub enum Value<'a> {
    /// Up to 15 digits.
    Integer(i64),
    /// In thousandths: up to 12 digits before and 3 after the point.
    Decimal(i64),
    /// A quoted string: printable ASCII.
    String(Cow<'a, str>),
    /// A word.
    Token(&'a str),
    /// Base64 between colons, decoded.
    Bytes(Vec<u8>),
    /// `?0` or `?1`.
    Boolean(bool),
    /// Unix seconds.
    Date(i64),
    /// `%"…"`: any text, percent-encoded.
    Display(String),
}

impl<'a> Dictionary<'a> {
    /// Reads all lines of a field; `None` if any is malformed.
    pub fn parse(lines: impl IntoIterator<Item = &'a [u8]>) -> Option<Self> {
        let mut members = Vec::new();
        for line in lines {
            let mut reader = Reader::of(line)?;
            reader.members(|reader| {
                let key = reader.key()?;
                let member = if reader.eat(b'=') {
                    reader.member()?
                } else {
                    let parameters = reader.parameters()?;
                    Member::Item(Item { value: Value::Boolean(true), parameters })
                };
                put(&mut members, key, member);
                Some(())
            })?;
        }
        Some(Self(members))
    }

    /// The member of this key.
    pub fn get(&self, key: &str) -> Option<&Member<'a>> {
        self.0.iter().find(|(name, _)| *name == key).map(|(_, member)| member)
    }

    /// All members, in order.
    pub fn iter(&self) -> impl Iterator<Item = (&'a str, &Member<'a>)> {
        self.0.iter().map(|(key, member)| (*key, member))
    }
}

impl<'a> Member<'a> {
    /// The value, if it is one and not an inner list.
    pub fn value(&self) -> Option<&Value<'a>> {
        match self {
            Self::Item(item) => Some(&item.value),
            Self::InnerList(..) => None,
        }
    }
}

impl<'a> Parameters<'a> {
    /// The value of this key.
    pub fn get(&self, key: &str) -> Option<&Value<'a>> {
        self.0.iter().find(|(name, _)| *name == key).map(|(_, value)| value)
    }

    /// All parameters, in order.
    pub fn iter(&self) -> impl Iterator<Item = (&'a str, &Value<'a>)> {
        self.0.iter().map(|(key, value)| (*key, value))
    }
}

/// Reads all lines of a list field; `None` if any is malformed.
pub fn list<'a>(lines: impl IntoIterator<Item = &'a [u8]>) -> Option<Vec<Member<'a>>> {
    let mut members = Vec::new();
    for line in lines {
        let mut reader = Reader::of(line)?;
        reader.members(|reader| {
            members.push(reader.member()?);
            Some(())
        })?;
    }
    Some(members)
}

/// Reads a field that is one item; `None` if it is malformed.
pub fn item(line: &[u8]) -> Option<Item<'_>> {
    let mut reader = Reader::of(line)?;
    let item = reader.item()?;
    reader.skip_spaces();
    reader.rest.is_empty().then_some(item)
}

/// The unread part of one line: ASCII, so that any split is between characters.
struct Reader<'a> {
    rest: &'a str,
}

impl<'a> Reader<'a> {
    fn of(line: &'a [u8]) -> Option<Self> {
        let text = std::str::from_utf8(line).ok().filter(|text| text.is_ascii())?;
        Some(Self { rest: text.trim_matches(' ') })
    }

    fn peek(&self) -> Option<u8> {
        self.rest.bytes().next()
    }

    fn eat(&mut self, b: u8) -> bool {
        let found = self.peek() == Some(b);
        if found {
            self.rest = &self.rest[1..];
        }
        found
    }

    fn skip_spaces(&mut self) {
        self.rest = self.rest.trim_start_matches(' ');
    }

    /// The longest prefix of such bytes.
    fn take_while(&mut self, accept: impl Fn(u8) -> bool) -> &'a str {
        let end = self.rest.bytes().position(|b| !accept(b)).unwrap_or(self.rest.len());
        let (taken, rest) = self.rest.split_at(end);
        self.rest = rest;
        taken
    }

    /// Members between commas, to the end of the line; none at all is fine, a comma at the end is
    /// not.
    fn members(&mut self, mut member: impl FnMut(&mut Self) -> Option<()>) -> Option<()> {
        if self.rest.is_empty() {
            return Some(());
        }
        loop {
            member(self)?;
            self.rest = self.rest.trim_start_matches([' ', '\t']);
            if self.rest.is_empty() {
                return Some(());
            }
            if !self.eat(b',') {
                return None;
            }
            self.rest = self.rest.trim_start_matches([' ', '\t']);
        }
    }

    fn member(&mut self) -> Option<Member<'a>> {
        if !self.eat(b'(') {
            return self.item().map(Member::Item);
        }
        let mut items = Vec::new();
        loop {
            self.skip_spaces();
            if self.eat(b')') {
                return Some(Member::InnerList(items, self.parameters()?));
            }
            items.push(self.item()?);
            if !matches!(self.peek(), Some(b' ' | b')')) {
                return None;
            }
        }
    }

    fn item(&mut self) -> Option<Item<'a>> {
        Some(Item { value: self.value()?, parameters: self.parameters()? })
    }

    fn parameters(&mut self) -> Option<Parameters<'a>> {
        let mut parameters = Vec::new();
        while self.eat(b';') {
            self.skip_spaces();
            let key = self.key()?;
            let value = if self.eat(b'=') { self.value()? } else { Value::Boolean(true) };
            put(&mut parameters, key, value);
        }
        Some(Parameters(parameters))
    }

    fn key(&mut self) -> Option<&'a str> {
        matches!(self.peek()?, b'a'..=b'z' | b'*').then_some(())?;
        Some(
            self.take_while(|b| matches!(b, b'a'..=b'z' | b'0'..=b'9' | b'_' | b'-' | b'.' | b'*')),
        )
    }

    fn value(&mut self) -> Option<Value<'a>> {
        match self.peek()? {
            b'-' | b'0'..=b'9' => self.number(),
            b'"' => self.string(),
            b'A'..=b'Z' | b'a'..=b'z' | b'*' => Some(Value::Token(
                self.take_while(|b| super::name::is_token_byte(b) || matches!(b, b':' | b'/')),
            )),
            b':' => self.bytes(),
            b'?' => {
                self.eat(b'?');
                match (self.eat(b'0'), self.eat(b'1')) {
                    (true, false) => Some(Value::Boolean(false)),
                    (false, true) => Some(Value::Boolean(true)),
                    _ => None,
                }
            }
            b'@' => {
                self.eat(b'@');
                match self.number()? {
                    Value::Integer(seconds) => Some(Value::Date(seconds)),
                    _ => None,
                }
            }
            b'%' => self.display(),
            _ => None,
        }
    }

    /// Integer or Decimal (§4.2.4).
    fn number(&mut self) -> Option<Value<'a>> {
        let sign = if self.eat(b'-') { -1 } else { 1 };
        let whole = self.take_while(|b| b.is_ascii_digit());
        if !self.eat(b'.') {
            let fits = (1..=15).contains(&whole.len());
            return fits.then(|| whole.parse::<i64>().ok())?.map(|n| Value::Integer(sign * n));
        }
        let fraction = self.take_while(|b| b.is_ascii_digit());
        if !(1..=12).contains(&whole.len()) || !(1..=3).contains(&fraction.len()) {
            return None;
        }
        let scale = [100, 10, 1][fraction.len() - 1];
        let thousandths = whole.parse::<i64>().ok()? * 1000 + fraction.parse::<i64>().ok()? * scale;
        Some(Value::Decimal(sign * thousandths))
    }

    fn string(&mut self) -> Option<Value<'a>> {
        self.eat(b'"').then_some(())?;
        let plain = self.take_while(|b| matches!(b, b' '..=b'~') && !matches!(b, b'"' | b'\\'));
        if self.eat(b'"') {
            return Some(Value::String(Cow::Borrowed(plain)));
        }
        let mut content = plain.to_owned();
        loop {
            match self.peek()? {
                b'"' => {
                    self.eat(b'"');
                    return Some(Value::String(Cow::Owned(content)));
                }
                b'\\' => {
                    self.eat(b'\\');
                    let escaped = self.peek().filter(|b| matches!(b, b'"' | b'\\'))?;
                    self.eat(escaped);
                    content.push(char::from(escaped));
                }
                b @ b' '..=b'~' => {
                    self.eat(b);
                    content.push(char::from(b));
                }
                _ => return None,
            }
        }
    }

    fn bytes(&mut self) -> Option<Value<'a>> {
        self.eat(b':').then_some(())?;
        let text = self.take_while(|b| b != b':');
        self.eat(b':').then_some(())?;
        base64(text).map(Value::Bytes)
    }

    /// Display String (§4.2.10): bytes escaped as `%` and two lower-case hex digits, UTF-8.
    fn display(&mut self) -> Option<Value<'a>> {
        let inner = self.rest.strip_prefix("%\"")?;
        let end = inner.find('"')?;
        self.rest = &inner[end + 1..];
        let mut content = Vec::with_capacity(end);
        let mut bytes = inner[..end].bytes();
        while let Some(b) = bytes.next() {
            match b {
                b'%' => {
                    let digit = |b: u8| match b {
                        b'0'..=b'9' => Some(b - b'0'),
                        b'a'..=b'f' => Some(b - b'a' + 10),
                        _ => None,
                    };
                    let high = digit(bytes.next()?)?;
                    content.push(high << 4 | digit(bytes.next()?)?);
                }
                b' '..=b'~' => content.push(b),
                _ => return None,
            }
        }
        String::from_utf8(content).ok().map(Value::Display)
    }
}

/// The last value of a key wins, at the place of the first.
fn put<'a, T>(rows: &mut Vec<(&'a str, T)>, key: &'a str, value: T) {
    match rows.iter_mut().find(|(name, _)| *name == key) {
        Some(row) => row.1 = value,
        None => rows.push((key, value)),
    }
}

/// Standard alphabet; missing padding is taken, as the RFC asks, everything else is refused.
fn base64(text: &str) -> Option<Vec<u8>> {
    let digits = text.trim_end_matches('=');
    let padding = text.len() - digits.len();
    if padding > 2 || (padding > 0 && !text.len().is_multiple_of(4)) || digits.len() % 4 == 1 {
        return None;
    }
    let mut content = Vec::with_capacity(digits.len() * 3 / 4);
    let (mut word, mut bits) = (0u32, 0);
    for b in digits.bytes() {
        let digit = match b {
            b'A'..=b'Z' => b - b'A',
            b'a'..=b'z' => b - b'a' + 26,
            b'0'..=b'9' => b - b'0' + 52,
            b'+' => 62,
            b'/' => 63,
            _ => return None,
        };
        word = word << 6 | u32::from(digit);
        bits += 6;
        if bits >= 8 {
            bits -= 8;
            content.push((word >> bits) as u8);
            word &= (1 << bits) - 1;
        }
    }
    Some(content)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn value(text: &str) -> Option<Value<'_>> {
        item(text.as_bytes()).map(|item| item.value)
    }

    fn string(text: &str) -> Value<'_> {
        Value::String(Cow::Borrowed(text))
    }

    #[test]
    fn rfc9651_3_3_every_kind_of_bare_item() {
        for (text, expected) in [
            ("42", Value::Integer(42)),
            (" -0 ", Value::Integer(0)),
            ("-999999999999999", Value::Integer(-999_999_999_999_999)),
            ("007", Value::Integer(7)),
            ("4.5", Value::Decimal(4500)),
            ("-123456789012.125", Value::Decimal(-123_456_789_012_125)),
            ("0.05", Value::Decimal(50)),
            ("\"hello \\\"x\\\\\"", string("hello \"x\\")),
            ("\"\"", string("")),
            ("foo123/456:*", Value::Token("foo123/456:*")),
            ("*a", Value::Token("*a")),
            (":aGVsbG8=:", Value::Bytes(b"hello".to_vec())),
            (":aGVsbG8:", Value::Bytes(b"hello".to_vec())),
            ("::", Value::Bytes(vec![])),
            ("?1", Value::Boolean(true)),
            ("?0", Value::Boolean(false)),
            ("@1659578233", Value::Date(1_659_578_233)),
            ("%\"f%c3%bc%25\"", Value::Display("f\u{fc}%".into())),
        ] {
            assert_eq!(value(text), Some(expected), "{text}");
        }
    }

    #[test]
    fn one_bad_byte_makes_the_field_malformed() {
        for text in [
            "",
            "-",
            "--1",
            "1.",
            ".1",
            "1.2345",
            "1234567890123456",
            "1234567890123.1",
            "+1",
            "1 2",
            "\"a",
            "\"a\\n\"",
            "\"a\tb\"",
            "'a'",
            "a b",
            "a\u{e9}",
            ":a:",
            ":aGVsbG8=",
            ":a?b=:",
            ":aGVs=:",
            ":====:",
            "?",
            "?2",
            "?01",
            "@",
            "@1.5",
            "@a",
            "%a",
            "%\"a",
            "%\"%C3%BC\"",
            "%\"%c3\"",
            "%\"%4\"",
            "a;",
            "a;B=1",
            "a;b=",
            "(a)",
            "\t1",
        ] {
            assert_eq!(value(text), None, "{text:?}");
        }
    }

    #[test]
    fn parameters_stand_behind_items_and_the_last_of_a_key_wins() {
        let item = item(b"a;x;y=2; z=\"q\";x=?0").expect("well-formed");
        assert_eq!(item.value, Value::Token("a"));
        let parameters: Vec<_> = item.parameters.iter().collect();
        let expected = [("x", Value::Boolean(false)), ("y", Value::Integer(2)), ("z", string("q"))];
        assert!(parameters.into_iter().eq(expected.iter().map(|(key, value)| (*key, value))));
        assert_eq!(item.parameters.get("none"), None);
    }

    #[test]
    fn rfc9651_3_2_dictionaries() {
        let lines = [&b"max-age=60,  private;a=1\t,\tx=(1 b);q"[..], b"", b"max-age=30"];
        let dictionary = Dictionary::parse(lines).expect("well-formed");
        let value = |key| dictionary.get(key).and_then(Member::value);
        assert_eq!(value("max-age"), Some(&Value::Integer(30)));
        assert_eq!(value("private"), Some(&Value::Boolean(true)));
        assert_eq!(value("x"), None);
        let keys: Vec<_> = dictionary.iter().map(|(key, _)| key).collect();
        assert_eq!(keys, ["max-age", "private", "x"]);
        let Some(Member::InnerList(items, parameters)) = dictionary.get("x") else { panic!() };
        assert_eq!(items.len(), 2);
        assert_eq!(parameters.get("q"), Some(&Value::Boolean(true)));
        for bad in
            ["a,", ",a", "a,,b", "A=1", "a=", "a b", "a=1;", "1=a", "a=(1", "a=(1)2", "a=(1,2)"]
        {
            assert_eq!(Dictionary::parse([bad.as_bytes()]), None, "{bad}");
        }
    }

    #[test]
    fn rfc9651_3_1_lists() {
        let members = list([&b"a, (b c);d, ()"[..], b"1"]).expect("well-formed");
        assert_eq!(members.len(), 4);
        assert_eq!(list([&b""[..]]), Some(vec![]));
        assert_eq!(list([&b"(a b"[..]]), None);
        assert_eq!(list([&b"(a\tb)"[..]]), None);
        assert_eq!(list([&b"a,"[..]]), None);
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_or_refused(line in prop::collection::vec(any::<u8>(), 0..40)) {
            let _ = (Dictionary::parse([&line[..]]), list([&line[..]]), item(&line));
        }

        #[test]
        fn near_misses_are_read_or_refused(line in "[a-c0-2\"=;,() .:?@%*\\\\-]{0,24}") {
            if let Some(dictionary) = Dictionary::parse([line.as_bytes()]) {
                prop_assert!(dictionary.iter().all(|(key, _)| dictionary.get(key).is_some()));
            }
            if let Some(read) = item(line.as_bytes()) {
                prop_assert_eq!(list([line.as_bytes()]), Some(vec![Member::Item(read)]));
            }
        }
    }
}
