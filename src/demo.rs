//! The page that a newcomer finds: a lighthouse. Built through the API like any other, so it is
//! also its first use.
//!
//! Each request has a fixed `Idempotency-Key`: a build that was cut short goes on where it stopped.

use serde_json::{Value, json};

use crate::{
    client::{Client, encode},
    exit::Failure,
    output::text,
};

/// Builds the page `demo`. `false`, and nothing done, when there is a page of that slug that this
/// did not make.
pub(crate) fn build(client: &Client) -> Result<bool, Failure> {
    let known = client.list("/v1/pages")?;
    if known.iter().any(|page| page["slug"] == SLUG && page["name"] != NAME) {
        return Ok(false);
    }
    let page = json!({"slug": SLUG, "name": NAME});
    client.post_as("/v1/pages", &page, "demo-page")?;
    for (position, (slug, name, description)) in COMPONENTS.iter().enumerate() {
        let component = json!({
            "slug": slug, "name": name, "description": description, "position": position,
        });
        let path = format!("/v1/pages/{SLUG}/components");
        client.post_as(&path, &component, &format!("demo-component-{slug}"))?;
    }
    tell(
        client,
        "gulls",
        &json!({
            "title": "Two seagulls on the lens",
            "status": "investigating",
            "impact": "major",
            "components": {"lamp": "partial_outage"},
            "message": "Ships report a beam with wings. The keeper is on the stairs.",
        }),
        &[
            json!({"status": "identified", "message": "Two seagulls. They like the warmth."}),
            json!({
                "status": "monitoring",
                "message": "The gulls were offered a herring on the other side of the rock, and took it.",
            }),
            json!({
                "status": "resolved",
                "components": {"lamp": "operational"},
                "message": "The beam is round again. The stairs still have 212 steps.",
            }),
        ],
    )?;
    tell(
        client,
        "foghorn",
        &json!({
            "title": "The foghorn is a semitone flat",
            "status": "investigating",
            "impact": "minor",
            "components": {"foghorn": "degraded_performance"},
            "message": "Ships hear it well. The choir of the village complains.",
        }),
        &[json!({
            "status": "identified",
            "message": "It is the damp. We are drying the reed, and tune it at low tide.",
        })],
    )?;
    Ok(true)
}

/// Declares an incident and tells its story.
fn tell(client: &Client, name: &str, first: &Value, updates: &[Value]) -> Result<(), Failure> {
    let path = format!("/v1/pages/{SLUG}/incidents");
    let incident = client.post_as(&path, first, &format!("demo-incident-{name}"))?;
    let path = format!("/v1/incidents/{}/updates", encode(&text(&incident, "/id")));
    for (nth, update) in updates.iter().enumerate() {
        client.post_as(&path, update, &format!("demo-update-{name}-{nth}"))?;
    }
    Ok(())
}

/// The page's slug.
pub(crate) const SLUG: &str = "demo";

const NAME: &str = "Lighthouse on the Rock";

const COMPONENTS: &[(&str, &str, &str)] = &[
    ("lamp", "Lamp", "One flash every ten seconds, seen from 18 nautical miles"),
    ("foghorn", "Foghorn", "Two blasts a minute when nobody sees the lamp"),
    ("api", "API", "Weather, tide and visibility for ships' computers"),
    ("tide-gauge", "Tide gauge", "Water level at the landing stage"),
    ("supply-boat", "Supply boat", "Bread, oil and letters, every Thursday"),
];
