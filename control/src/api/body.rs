//! Reading a JSON body field by field, so that an answer names every mistake at once, unknown
//! fields included.
//!
//! A field that is `null` counts as absent.

use std::{collections::BTreeMap, str::FromStr};

use serde_json::{Map, Value};

use super::{json::Unique, problem::Failure};
use crate::{
    app::{FieldError, Refusal},
    model::Invalid,
};

/// A JSON object being read.
pub struct Fields {
    at: String,
    object: Map<String, Value>,
    known: Vec<&'static str>,
    errors: Vec<FieldError>,
}

impl Fields {
    /// Reads a body; anything but a JSON object cannot be read at all.
    pub fn parse(body: &[u8]) -> Result<Self, Failure> {
        let Unique(value) = serde_json::from_slice(body).map_err(|error| {
            Failure::bad_request("", "json", format!("a JSON object ({error})"))
        })?;
        match value {
            Value::Object(object) => Ok(Self::of(String::new(), object)),
            _ => Err(Failure::bad_request("", "json", "a JSON object")),
        }
    }

    fn of(at: String, object: Map<String, Value>) -> Self {
        Self { at, object, known: Vec::new(), errors: Vec::new() }
    }

    /// Ends the reading: what is left are fields that nobody knows.
    pub fn finish(self) -> Result<(), Refusal> {
        Refusal::unless_empty(self.into_errors())
    }

    fn into_errors(mut self) -> Vec<FieldError> {
        for name in self.object.keys() {
            let expected = format!("one of the fields {}", self.known.join(", "));
            let pointer = format!("{}/{}", self.at, escape(name));
            self.errors.push(FieldError::new(pointer, "unknown_field", expected));
        }
        self.errors
    }

    /// Names a mistake.
    pub fn error(&mut self, name: &str, code: &str, expected: &str) {
        let pointer = format!("{}/{}", self.at, escape(name));
        self.errors.push(FieldError::new(pointer, code, expected));
    }

    fn take(&mut self, name: &'static str) -> Option<Value> {
        self.known.push(name);
        self.object.remove(name).filter(|value| !value.is_null())
    }

    /// Takes note that a field must be there.
    fn needed<T: Default>(&mut self, name: &'static str, found: Option<T>) -> T {
        let mistaken = |errors: &[FieldError], pointer: &str| {
            errors.iter().any(|error| error.pointer.starts_with(pointer))
        };
        let pointer = format!("{}/{name}", self.at);
        if found.is_none() && !mistaken(&self.errors, &pointer) {
            self.error(name, "required", "a value");
        }
        found.unwrap_or_default()
    }

    /// Text that passes a rule.
    pub fn text(
        &mut self,
        name: &'static str,
        check: impl Fn(&str) -> Result<(), Invalid>,
    ) -> Option<String> {
        match self.take(name)? {
            Value::String(text) => match check(&text) {
                Ok(()) => Some(text),
                Err(invalid) => {
                    self.error(name, invalid.code, invalid.expected);
                    None
                }
            },
            _ => {
                self.error(name, "type", "text");
                None
            }
        }
    }

    /// Text that must be there.
    pub fn needed_text(
        &mut self,
        name: &'static str,
        check: impl Fn(&str) -> Result<(), Invalid>,
    ) -> String {
        let found = self.text(name, check);
        self.needed(name, found)
    }

    /// Text of bounded length.
    pub fn long_text(&mut self, name: &'static str, bytes_max: usize) -> Option<String> {
        let text = self.text(name, |_| Ok(()))?;
        if text.len() > bytes_max {
            self.error(name, "length", &format!("at most {bytes_max} bytes"));
            return None;
        }
        Some(text)
    }

    /// A word of a closed list.
    pub fn word<T: FromStr<Err = Invalid>>(&mut self, name: &'static str) -> Option<T> {
        let text = self.text(name, |text| T::from_str(text).map(|_| ()))?;
        T::from_str(&text).ok()
    }

    /// Whether a field of this name is there, read or not.
    pub fn has(&self, name: &str) -> bool {
        self.object.get(name).is_some_and(|value| !value.is_null())
    }

    /// Whether a list of this name is there, not read yet, and empty.
    pub fn is_empty_list(&self, name: &str) -> bool {
        self.object.get(name).and_then(Value::as_array).is_some_and(Vec::is_empty)
    }

    /// Any JSON value.
    pub fn value(&mut self, name: &'static str) -> Option<Value> {
        self.take(name)
    }

    /// An object, read by `read`.
    pub fn object<T>(
        &mut self,
        name: &'static str,
        read: impl FnOnce(&mut Self) -> T,
    ) -> Option<T> {
        let Value::Object(object) = self.take(name)? else {
            self.error(name, "type", "an object");
            return None;
        };
        let mut inner = Self::of(format!("{}/{name}", self.at), object);
        let value = read(&mut inner);
        self.errors.extend(inner.into_errors());
        Some(value)
    }

    /// A whole number.
    pub fn integer(&mut self, name: &'static str) -> Option<i64> {
        let value = self.take(name)?;
        if value.as_i64().is_none() {
            self.error(name, "type", "a whole number");
        }
        value.as_i64()
    }

    /// True or false.
    pub fn boolean(&mut self, name: &'static str) -> Option<bool> {
        let value = self.take(name)?;
        if value.as_bool().is_none() {
            self.error(name, "type", "true or false");
        }
        value.as_bool()
    }

    /// A list of bounded length whose items `read` turns into values.
    fn list<T>(
        &mut self,
        name: &'static str,
        items_max: usize,
        mut read: impl FnMut(&mut Self, String, Value) -> Option<T>,
    ) -> Option<Vec<T>> {
        let Value::Array(items) = self.take(name)? else {
            self.error(name, "type", "a list");
            return None;
        };
        if items.len() > items_max {
            self.error(name, "count", &format!("at most {items_max} items"));
            return None;
        }
        let mut values = Vec::with_capacity(items.len());
        for (nth, item) in items.into_iter().enumerate() {
            values.extend(read(self, format!("{name}/{nth}"), item));
        }
        Some(values)
    }

    /// A list of texts that pass a rule; one that is there twice is a mistake.
    pub fn texts(
        &mut self,
        name: &'static str,
        items_max: usize,
        check: impl Fn(&str) -> Result<(), Invalid>,
    ) -> Option<Vec<String>> {
        let mut seen = Vec::new();
        self.list(name, items_max, |fields, at, item| {
            let Value::String(text) = item else {
                fields.fault(&at, "type", "text");
                return None;
            };
            if let Err(invalid) = check(&text) {
                fields.fault(&at, invalid.code, invalid.expected);
                return None;
            }
            if seen.contains(&text) {
                fields.fault(&at, "repeated", "each value once");
                return None;
            }
            seen.push(text.clone());
            Some(text)
        })
    }

    /// A list of objects, each read by `read`.
    pub fn objects<T>(
        &mut self,
        name: &'static str,
        items_max: usize,
        read: impl Fn(&mut Self) -> Option<T>,
    ) -> Option<Vec<T>> {
        self.list(name, items_max, |fields, at, item| {
            let Value::Object(object) = item else {
                fields.fault(&at, "type", "an object");
                return None;
            };
            let mut inner = Self::of(format!("{}/{at}", fields.at), object);
            let value = read(&mut inner);
            fields.errors.extend(inner.into_errors());
            value
        })
    }

    /// Name → word of a closed list.
    pub fn words<T: FromStr<Err = Invalid>>(
        &mut self,
        name: &'static str,
        items_max: usize,
    ) -> Option<BTreeMap<String, T>> {
        let Value::Object(object) = self.take(name)? else {
            self.error(name, "type", "an object");
            return None;
        };
        if object.len() > items_max {
            self.error(name, "count", &format!("at most {items_max} entries"));
            return None;
        }
        let mut words = BTreeMap::new();
        for (key, value) in object {
            let at = format!("{name}/{}", escape(&key));
            match value.as_str().map(T::from_str) {
                Some(Ok(word)) => {
                    words.insert(key, word);
                }
                Some(Err(invalid)) => self.fault(&at, invalid.code, invalid.expected),
                None => self.fault(&at, "type", "text"),
            }
        }
        Some(words)
    }

    fn fault(&mut self, at: &str, code: &str, expected: &str) {
        self.errors.push(FieldError::new(format!("{}/{at}", self.at), code, expected));
    }

    /// A list that must be there.
    pub fn needed_list<T>(&mut self, name: &'static str, found: Option<Vec<T>>) -> Vec<T> {
        self.needed(name, found)
    }
}

/// A name as a token of a JSON pointer (RFC 6901).
fn escape(name: &str) -> String {
    name.chars().take(100).collect::<String>().replace('~', "~0").replace('/', "~1")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{check_slug, component::ComponentStatus};

    #[test]
    fn every_mistake_is_named_with_its_pointer() {
        let body = br#"{"slug": "A b", "nmae": 1, "position": "x", "hosts": ["a", 2, "a"],
            "components": {"a/b": "up"}, "origins": [{"url": 1, "x": 2}], "description": null}"#;
        let mut fields = Fields::parse(body).expect("an object");
        fields.needed_text("slug", check_slug);
        fields.needed_text("name", |_| Ok(()));
        fields.integer("position");
        fields.texts("hosts", 9, |_| Ok(()));
        fields.words::<ComponentStatus>("components", 9);
        fields.objects("origins", 9, |origin| origin.text("url", |_| Ok(())));
        assert_eq!(fields.long_text("description", 9), None);
        let Err(Refusal::Invalid(errors)) = fields.finish() else { panic!("invalid") };
        let named: Vec<_> = errors.iter().map(|e| format!("{} {}", e.pointer, e.code)).collect();
        assert_eq!(
            named,
            [
                "/slug slug",
                "/name required",
                "/position type",
                "/hosts/1 type",
                "/hosts/2 repeated",
                "/components/a~1b component_status",
                "/origins/0/url type",
                "/origins/0/x unknown_field",
                "/nmae unknown_field",
            ]
        );
    }

    #[test]
    fn what_is_no_json_object_is_a_malformed_request() {
        for body in ["", "[]", "{", "1", "\u{fffd}"] {
            let failure = Fields::parse(body.as_bytes()).err().expect("refused");
            assert_eq!(failure.status, 400, "{body}");
        }
    }
}
