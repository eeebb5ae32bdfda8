//! `pharos explain`: how an answer came about, asked of the edge that gave it.

use clap::Args;
use serde_json::Value;

use crate::{
    admin::{Admin, DEFAULT_ADMIN, Method},
    exit::{Failure, Kind},
    output::{self, Format},
};

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  pharos explain 3f9a6c0e12b87d45
  pharos explain order-7 --admin http://127.0.0.1:7401 -o json

The id is the X-Request-Id of an answer. An edge keeps the newest answers only (explain.memory in its
edge.toml), those that are no hits longer than hits.")]
pub(crate) struct Options {
    /// X-Request-Id of the answer
    id: String,
    /// Admin address of an edge; may be given several times, the first that knows the answer tells
    #[arg(long, env = "PHAROS_ADMIN", value_name = "URL", default_value = DEFAULT_ADMIN,
        value_delimiter = ',')]
    admin: Vec<String>,
    /// How to print it
    #[arg(short = 'o', long = "output", value_enum, default_value_t = Format::Table)]
    output: Format,
}

impl Options {
    pub(crate) fn run(self) -> Result<(), Failure> {
        let is_id = (1..=64).contains(&self.id.len())
            && self.id.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b));
        if !is_id {
            return Err(Failure::new(Kind::Usage, format!("{:?} is no request id", self.id))
                .remedy("expected the X-Request-Id of an answer: 1 to 64 of A-Z a-z 0-9 - _ ."));
        }
        for admin in &self.admin {
            let path = format!("/v1/explain/{}", self.id);
            if let Some(record) = Admin::at(admin).ask(Method::Get, &path)? {
                return match self.output {
                    Format::Json => output::json(&record),
                    Format::Table => output::data(&told(&record)),
                };
            }
        }
        let message = format!("no answer with the id {} is known there", self.id);
        Err(Failure::new(Kind::NotFound, message).remedy(
            "ask the edge that gave it (--admin), soon: only the newest answers are kept \
             (explain.memory)",
        ))
    }
}

/// A record for people: one fact a line.
fn told(record: &Value) -> String {
    let mut lines = Vec::new();
    let mut put = |name: &str, text: String| {
        if !text.is_empty() {
            lines.push(format!("{name:<10} {text}\n"));
        }
    };
    let status = text(record, "/status");
    let result = match &record["result"] {
        Value::String(result) => result.clone(),
        _ => "answered by the edge itself".to_owned(),
    };
    put("answer", format!("{status} {result}, after {}", ms(&record["took_us"])));
    put("rule", text(record, "/rule"));
    let cut = if record["key"]["cut"] == true { " (cut)" } else { "" };
    match record["key"]["digest"].as_str() {
        Some(digest) => {
            let key = text(record, "/key/text").replace('\n', " | ");
            put("key", format!("{key}{cut}  [{digest}]"));
        }
        None => put("url", text(record, "/key/text")),
    }
    let variant = record["variant"].as_array().into_iter().flatten();
    put("variant", variant.filter_map(Value::as_str).collect::<Vec<_>>().join(", "));
    if let Some(coding) = record["encoding"]["coding"].as_str() {
        put("encoding", format!("{coding}, by the {}", text(record, "/encoding/by")));
    }
    put("tier", text(record, "/tier"));
    put("stream", text(record, "/stream/decision"));
    put("cursor", text(record, "/stream/cursor"));
    put("topics", text(record, "/stream/topics"));
    let freshness = &record["freshness"];
    if freshness.is_object() {
        let left = match freshness["left_s"].as_i64() {
            Some(left) if left < 0 => format!("stale for {} s", -left),
            Some(left) => format!("{left} s left"),
            None => "purged softly".to_owned(),
        };
        put(
            "freshness",
            format!(
                "{}; lifetime {} s by {}, age {} s, {left}",
                text(freshness, "/decision"),
                text(freshness, "/lifetime_s"),
                text(freshness, "/lifetime_from"),
                text(freshness, "/age_s"),
            ),
        );
    }
    put("asked", text(record, "/forward"));
    put("because", text(record, "/detail"));
    if record["stored"] == true {
        put("stored", "yes".to_owned());
    }
    if record["collapsed"] == true || record["waits"] != 0 {
        put("collapsed", format!("waited {} times for another's fetch", text(record, "/waits")));
    }
    for attempt in
        record.pointer("/origin/attempts").and_then(Value::as_array).into_iter().flatten()
    {
        let came = match attempt["error"].as_str() {
            Some(error) => error.to_owned(),
            None => text(attempt, "/status"),
        };
        let to = match attempt["address"].as_str() {
            Some(address) => address.to_owned(),
            None => format!("{} (kept connection)", text(attempt, "/origin")),
        };
        put("origin", format!("{to}: {came}, after {}", ms(&attempt["took_us"])));
    }
    put("position", format!("purges and configuration up to {}", text(record, "/position")));
    lines.concat()
}

fn text(value: &Value, pointer: &str) -> String {
    output::text(value, pointer)
}

fn ms(us: &Value) -> String {
    format!("{:.3} ms", us.as_f64().unwrap_or_default() / 1000.0)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_record_is_told_one_fact_a_line() {
        let record = json!({
            "status": 200, "result": "MISS", "took_us": 30_500, "rule": "static", "waits": 0,
            "key": {"text": "a.example/s/a", "digest": "00ff", "cut": false},
            "variant": ["accept-language: de"], "tier": "origin", "stored": true,
            "encoding": {"coding": "br", "by": "edge"},
            "freshness": {"decision": "fresh", "lifetime_s": 60, "lifetime_from": "the rule",
                "age_s": 0, "left_s": 60},
            "forward": "uri-miss", "detail": null, "collapsed": false, "position": 7,
            "origin": {"count": 1, "attempts": [{"origin": "o:80", "address": null,
                "connection": "kept", "status": 200, "took_us": 30_000, "error": null}]},
        });
        let expected = "\
answer     200 MISS, after 30.500 ms
rule       static
key        a.example/s/a  [00ff]
variant    accept-language: de
encoding   br, by the edge
tier       origin
freshness  fresh; lifetime 60 s by the rule, age 0 s, 60 s left
asked      uri-miss
stored     yes
origin     o:80 (kept connection): 200, after 30.000 ms
position   purges and configuration up to 7
";
        assert_eq!(told(&record), expected);
    }

    #[test]
    fn what_was_decided_of_a_stream_is_told() {
        let record = json!({
            "status": 200, "result": null, "took_us": 41, "waits": 0, "tier": "edge",
            "key": {"text": "a.example/live/", "digest": null, "cut": false}, "collapsed": false,
            "stream": {"decision": "open; a gap; 2 from history", "cursor": "a7:5",
                "topics": ["news", "orders"]},
            "position": 7,
        });
        let expected = "\
answer     200 answered by the edge itself, after 0.041 ms
url        a.example/live/
tier       edge
stream     open; a gap; 2 from history
cursor     a7:5
topics     news orders
position   purges and configuration up to 7
";
        assert_eq!(told(&record), expected);
    }
}
