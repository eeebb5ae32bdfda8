//! JSON whose objects have each key once. RFC 8259 leaves open what a repeated one means; to take
//! the last would do what half of the request did not ask for.
//!
//! Leaves to others: what the fields mean (`body`).

use std::fmt;

use serde::{
    Deserialize, Deserializer,
    de::{self, MapAccess, SeqAccess, Visitor},
};
use serde_json::{Map, Number, Value};

/// A value read so.
pub struct Unique(pub Value);

impl<'de> Deserialize<'de> for Unique {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Reading).map(Self)
    }
}

struct Reading;

impl<'de> Visitor<'de> for Reading {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(Value::Bool(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(Value::Number(value.into()))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(Value::Number(value.into()))
    }

    fn visit_f64<E>(self, value: f64) -> Result<Value, E> {
        Ok(Number::from_f64(value).map_or(Value::Null, Value::Number))
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(Value::String(value.to_owned()))
    }

    fn visit_string<E>(self, value: String) -> Result<Value, E> {
        Ok(Value::String(value))
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Value, A::Error> {
        let mut values = Vec::new();
        while let Some(Unique(value)) = items.next_element()? {
            values.push(value);
        }
        Ok(Value::Array(values))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut fields: A) -> Result<Value, A::Error> {
        let mut object = Map::new();
        while let Some(name) = fields.next_key::<String>()? {
            if object.contains_key(&name) {
                let short: String = name.chars().take(NAME_CHARS_MAX).collect();
                return Err(de::Error::custom(format_args!("the key {short:?} is there twice")));
            }
            let Unique(value) = fields.next_value()?;
            object.insert(name, value);
        }
        Ok(Value::Object(object))
    }
}

/// Characters of a key that an answer repeats.
const NAME_CHARS_MAX: usize = 64;

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Value, String> {
        serde_json::from_str(text).map(|Unique(value)| value).map_err(|error| error.to_string())
    }

    #[test]
    fn what_is_read_is_what_serde_json_reads() {
        for text in [
            r#"{"a":[1,-2,3.5,true,null,"x\n",{}],"b":{"a":18446744073709551615}}"#,
            "[]",
            "7",
            "1e400",
            "{",
            r#"{"a" 1}"#,
        ] {
            let plain = serde_json::from_str::<Value>(text).map_err(|error| error.to_string());
            assert_eq!(read(text), plain, "{text}");
        }
        assert!(read(&"[".repeat(100_000)).is_err(), "depth is bounded");
    }

    #[test]
    fn a_key_that_is_there_twice_is_refused_by_its_name() {
        for text in [
            r#"{"name":"a","name":"b"}"#,
            r#"{"x":{"name":1,"name":1}}"#,
            r#"[{"na\u006de":null,"name":1}]"#,
        ] {
            let error = read(text).expect_err(text);
            assert!(error.starts_with(r#"the key "name" is there twice"#), "{error}");
        }
    }
}
