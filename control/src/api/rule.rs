//! Rules and purge keys of a site in a body, field by field, so that an answer names every mistake
//! with its place.
//!
//! Leaves to others: whether a rule makes sense (`proto::feed::rule`), the rest of a site (`site`).

use std::collections::BTreeMap;

use proto::feed::{
    rule::{FILLED, FieldMatch, KeyRule, LifetimeRule, Match, OriginWord, QueryRule, Rule},
    site::{Policy, PurgeKey},
};
use serde_json::Value;

use super::body::Fields;
use crate::model::Invalid;

/// The rules, if there are any in the body.
pub(super) fn rules(fields: &mut Fields) -> Option<Vec<Rule>> {
    fields.objects("rules", proto::limits::RULES_MAX, |rule| {
        let policy = rule.text("policy", |text| policy(text).map(|_| ()));
        Some(Rule {
            name: rule.needed_text("name", |_| Ok(())),
            matching: rule.object("match", matching).unwrap_or_default(),
            policy: policy.and_then(|text| policy_of(&text)),
            lifetime: rule.object("lifetime", lifetime),
            key: rule.object("key", key),
        })
    })
}

/// The keys for `PURGE`, if there are any in the body.
pub(super) fn purge_keys(fields: &mut Fields) -> Option<Vec<PurgeKey>> {
    fields.objects("purge_keys", proto::limits::PURGE_KEYS_MAX, |key| {
        let sha256 = key.needed_text("sha256", |_| Ok(()));
        Some(PurgeKey { id: key.needed_text("id", |_| Ok(())), sha256 })
    })
}

fn matching(fields: &mut Fields) -> Match {
    // Nothing said fits everything; a list of nothing would be read as that.
    for name in ["hosts", "paths", "methods", "fields"] {
        if fields.is_empty_list(name) {
            fields.error(name, "empty", FILLED);
        }
    }
    let mut list = |name| texts(fields, name).unwrap_or_default();
    let (hosts, paths, methods) = (list("hosts"), list("paths"), list("methods"));
    let of_fields = fields.objects("fields", proto::limits::RULE_LIST_MAX, |field| {
        Some(FieldMatch {
            name: field.needed_text("name", |_| Ok(())),
            value: field.text("value", |_| Ok(())),
            absent: field.boolean("absent").unwrap_or_default(),
        })
    });
    Match { hosts, paths, methods, fields: of_fields.unwrap_or_default() }
}

fn lifetime(fields: &mut Fields) -> LifetimeRule {
    let origin = fields.text("origin", |text| origin(text).map(|_| ()));
    LifetimeRule {
        fresh_s: seconds(fields, "fresh_s"),
        status_fresh_s: status_seconds(fields).unwrap_or_default(),
        stale_while_revalidate_s: seconds(fields, "stale_while_revalidate_s"),
        stale_if_error_s: seconds(fields, "stale_if_error_s"),
        origin: origin.and_then(|text| self::origin(&text).ok()).unwrap_or_default(),
    }
}

fn key(fields: &mut Fields) -> KeyRule {
    KeyRule {
        query: fields.object("query", |query| QueryRule {
            keep: texts(query, "keep"),
            drop: texts(query, "drop").unwrap_or_default(),
            sort: query.boolean("sort").unwrap_or_default(),
            forward_dropped: query.boolean("forward_dropped").unwrap_or_default(),
        }),
        fields: texts(fields, "fields").unwrap_or_default(),
        cookies: texts(fields, "cookies").unwrap_or_default(),
    }
}

fn texts(fields: &mut Fields, name: &'static str) -> Option<Vec<String>> {
    fields.texts(name, proto::limits::RULE_LIST_MAX, |_| Ok(()))
}

fn seconds(fields: &mut Fields, name: &'static str) -> Option<u64> {
    let value = fields.integer(name)?;
    let number = u64::try_from(value).ok();
    if number.is_none() {
        fields.error(name, "number", SECONDS);
    }
    number
}

fn status_seconds(fields: &mut Fields) -> Option<BTreeMap<String, u64>> {
    let Value::Object(object) = fields.value("status_fresh_s")? else {
        fields.error("status_fresh_s", "type", "an object of status and seconds");
        return None;
    };
    let read = object.into_iter().map(|(status, value)| Some((status, value.as_u64()?)));
    let read: Option<BTreeMap<_, _>> = read.collect();
    if read.is_none() {
        fields.error("status_fresh_s", "number", SECONDS);
    }
    read
}

fn origin(text: &str) -> Result<OriginWord, Invalid> {
    match text {
        "override" => Ok(OriginWord::Override),
        "honour" => Ok(OriginWord::Honour),
        "ignore" => Ok(OriginWord::Ignore),
        _ => Err(Invalid { code: "origin_word", expected: "override, honour or ignore" }),
    }
}

fn policy(text: &str) -> Result<Policy, Invalid> {
    policy_of(text)
        .ok_or(Invalid { code: "policy", expected: "cache or pass; streams have a route" })
}

fn policy_of(text: &str) -> Option<Policy> {
    match text {
        "cache" => Some(Policy::Cache),
        "pass" => Some(Policy::Pass),
        _ => None,
    }
}

const SECONDS: &str = "whole seconds, at most 2,147,483,648";
