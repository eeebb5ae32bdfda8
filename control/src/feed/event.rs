//! What an event of a page says, in a bounded size.
//!
//! Everything that a page may hold together is far more than an event can carry. What does not fit
//! is left out in this order, and what was left out is named:
//! ```text
//!  an incident   messages of older updates      "updates_left_out": true
//!                components of older updates    "update_components_left_out": true
//!                components of all updates      the same
//!                all updates but the newest     "updates_left_out": true
//!  a page        descriptions of components     "descriptions_left_out": true
//!  any           everything but page, version,  "truncated": true, and the page is to be read
//!                url and status                  again at that version
//! ```
//!
//! Leaves to others: which operation has an event (`derive`).

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::derive::PageView;
use crate::{
    api::types,
    limits,
    log::operation::{Kind, Operation},
    model::{component::Component, incident::Incident},
};

/// What an event is about.
pub enum Told<'a> {
    /// The page itself, or something that was removed from it.
    Page,
    /// A component.
    Component(&'a Component),
    /// An incident.
    Incident(&'a Incident),
}

impl<'a> Told<'a> {
    /// What an operation on these is about.
    pub fn of(component: Option<&'a Component>, incident: Option<&'a Incident>) -> Self {
        match (component, incident) {
            (_, Some(incident)) => Self::Incident(incident),
            (Some(component), None) => Self::Component(component),
            (None, None) => Self::Page,
        }
    }

    /// The event's name.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Page => "page",
            Self::Component(_) => "component",
            Self::Incident(_) => "incident",
        }
    }
}

/// The JSON of an event, on one line, of [`limits::PAGE_EVENT_BYTES_MAX`] at most.
pub fn data(operation: &Operation, view: &PageView, told: &Told<'_>) -> String {
    let mut bare = head(operation, view, told);
    let whole = match told {
        Told::Page => page(&bare, view),
        Told::Component(component) => {
            let mut data = bare.clone();
            data["component"] = json!(types::Component::of(component));
            fitting(&data)
        }
        Told::Incident(incident) => self::incident(&bare, view, incident),
    };
    whole.unwrap_or_else(|| {
        bare["truncated"] = json!(true);
        bare.to_string()
    })
}

/// What every event says.
fn head(operation: &Operation, view: &PageView, told: &Told<'_>) -> Value {
    let page = &view.page;
    let mut data = json!({
        "page": page.slug,
        "page_id": page.id,
        "version": operation.version().to_string(),
        "kind": told.kind(),
        "url": page.path(),
        "status": {
            "indicator": view.indicator.as_str(),
            "description": view.indicator.description(),
        },
    });
    if matches!(told, Told::Page) {
        data["name"] = json!(page.name);
        if operation.entity.kind == Kind::Incident {
            data["removed_incident"] = json!(operation.entity.id);
        }
    }
    data
}

fn fitting(data: &Value) -> Option<String> {
    Some(data.to_string()).filter(|text| text.len() <= limits::PAGE_EVENT_BYTES_MAX)
}

fn page(head: &Value, view: &PageView) -> Option<String> {
    let rough = |description: bool| -> usize {
        let bytes = |c: &Component| match description {
            true => COMPONENT_BYTES_MIN + c.name.len() + c.description.len(),
            false => COMPONENT_BYTES_MIN + c.name.len(),
        };
        view.components.iter().map(bytes).sum()
    };
    if rough(false) > limits::PAGE_EVENT_BYTES_MAX {
        return None;
    }
    let mut data = head.clone();
    data["components"] =
        json!(view.components.iter().map(types::Component::of).collect::<Vec<_>>());
    if rough(true) <= limits::PAGE_EVENT_BYTES_MAX
        && let Some(whole) = fitting(&data)
    {
        return Some(whole);
    }
    for component in data["components"].as_array_mut().into_iter().flatten() {
        component.as_object_mut().map(|fields| fields.remove("description"));
    }
    data["descriptions_left_out"] = json!(true);
    fitting(&data)
}

fn incident(head: &Value, view: &PageView, incident: &Incident) -> Option<String> {
    let mut data = head.clone();
    // As they are now, which an incident's own words need not be.
    let touched = view.components.iter().filter(|c| incident.components.contains_key(&c.id));
    let statuses: BTreeMap<&str, &str> =
        touched.map(|c| (c.slug.as_str(), c.status.as_str())).collect();
    data["component_statuses"] = json!(statuses);
    let mut told = types::Incident::of(incident, &view.page, &view.components);
    data["url"] = json!(told.url);
    // Newest first: what does not fit is the oldest.
    let mut bytes = 0;
    let fits = told.updates.iter().take_while(|update| {
        bytes += json!(update.message).to_string().len() + 256;
        bytes <= UPDATE_MESSAGES_BYTES_MAX
    });
    let fits = fits.count().max(1);
    if fits < told.updates.len() {
        told.updates.truncate(fits);
        data["updates_left_out"] = json!(true);
    }
    // The whole, then without these components; the newest update is the first.
    for without in [told.updates.len(), 1, 0] {
        for update in told.updates.iter_mut().skip(without) {
            if !update.components.is_empty() {
                update.components.clear();
                data["update_components_left_out"] = json!(true);
            }
        }
        let rough: usize = told.updates.iter().map(|update| rough_bytes(&update.components)).sum();
        if rough <= limits::PAGE_EVENT_BYTES_MAX {
            data["incident"] = json!(told);
            if let Some(text) = fitting(&data) {
                return Some(text);
            }
        }
    }
    if told.updates.len() > 1 {
        told.updates.truncate(1);
        data["updates_left_out"] = json!(true);
        data["incident"] = json!(told);
    }
    fitting(&data)
}

/// No more than the JSON of these has.
fn rough_bytes<V>(components: &BTreeMap<String, V>) -> usize {
    components.keys().map(|slug| slug.len() + "\"\":\"operational\",".len()).sum()
}

/// Bytes of messages of updates that an event carries; older updates are left out and read from the
/// page.
const UPDATE_MESSAGES_BYTES_MAX: usize = 64 * 1024;
/// A component's JSON has no fewer, beside its name and its description.
const COMPONENT_BYTES_MIN: usize = 100;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{
        component::ComponentStatus,
        impact::Indicator,
        incident::{IncidentStatus, Update},
        page::Page,
    };

    fn component(nth: usize, slug: String, description: String) -> Component {
        Component {
            id: nth.to_string(),
            page_id: "p".into(),
            slug,
            name: "n".repeat(20),
            description,
            status: ComponentStatus::PartialOutage,
            position: 0,
            created_at_ms: 0,
            updated_at_ms: 0,
        }
    }

    /// A page with so many components, whose slugs and descriptions have so many bytes.
    fn view(components: usize, slug_bytes: usize, description_bytes: usize) -> PageView {
        let page = Page {
            id: "p".into(),
            slug: "demo".into(),
            name: "Demo".into(),
            hosts: Vec::new(),
            created_at_ms: 0,
            updated_at_ms: 0,
        };
        let slug = |nth: usize| format!("{nth:0slug_bytes$}");
        let description = "\"\n".repeat(description_bytes / 2);
        let components =
            (0..components).map(|nth| component(nth, slug(nth), description.clone())).collect();
        PageView { page, components, indicator: Indicator::None }
    }

    /// An incident with so many updates, each with a message of so many bytes, that all name all
    /// components of the page.
    fn incident(view: &PageView, updates: usize, bytes: usize) -> Incident {
        let components: BTreeMap<String, ComponentStatus> =
            view.components.iter().map(|c| (c.id.clone(), ComponentStatus::MajorOutage)).collect();
        let update = |nth: usize| Update {
            id: nth.to_string(),
            status: IncidentStatus::Identified,
            message: "m\n".repeat(bytes / 2),
            components: components.clone(),
            created_at_ms: nth as u64,
        };
        Incident {
            id: "i".into(),
            page_id: "p".into(),
            title: "t".into(),
            status: IncidentStatus::Identified,
            impact: Default::default(),
            updates: (0..updates).map(update).collect(),
            components,
            created_at_ms: 0,
            updated_at_ms: 0,
            resolved_at_ms: None,
        }
    }

    fn told(view: &PageView, told: &Told<'_>) -> Value {
        let text = data(&Operation::example(Kind::Incident), view, told);
        assert!(text.len() <= limits::PAGE_EVENT_BYTES_MAX, "{}", text.len());
        assert!(!text.contains(['\n', '\r']));
        // As the record holds it.
        assert!(json!(text).to_string().len() + 4096 <= proto::limits::RECORD_BYTES_MAX);
        let data: Value = serde_json::from_str(&text).expect("JSON");
        assert_eq!(data["version"], "eu-00000001:41");
        assert_eq!(data["status"]["indicator"], "none");
        data
    }

    #[test]
    fn an_event_of_an_incident_tells_how_its_components_are_now() {
        let mut after = view(2, 4, 0);
        after.components[1].status = ComponentStatus::MajorOutage;
        let mut about = incident(&after, 1, 10);
        about.components.remove("1");
        let data = told(&after, &Told::Incident(&about));
        assert_eq!(data["component_statuses"], json!({"0000": "partial_outage"}));
        let data = told(&after, &Told::Page);
        assert_eq!(data["removed_incident"], "e", "a deleted incident is named");
    }

    #[test]
    fn an_event_is_one_line_of_bounded_size_whatever_its_page_holds() {
        for components in [0, 1, 300, limits::COMPONENTS_MAX] {
            for slug_bytes in [8, limits::SLUG_BYTES_MAX] {
                let view = view(components, slug_bytes, limits::DESCRIPTION_BYTES_MAX);
                for (updates, bytes) in [(1, 10), (60, 10), (8, limits::MESSAGE_BYTES_MAX)] {
                    let incident = incident(&view, updates, bytes);
                    let data = told(&view, &Told::Incident(&incident));
                    let whole = data["truncated"].is_null();
                    assert_eq!(whole, data["incident"]["id"] == "i");
                }
                told(&view, &Told::Page);
                for component in view.components.iter().take(1) {
                    assert_eq!(told(&view, &Told::Component(component))["truncated"], json!(null));
                }
            }
        }
    }

    #[test]
    fn older_updates_are_left_out_first_then_what_they_say_of_components() {
        let small = view(1, 8, 0);
        let data = told(&small, &Told::Incident(&incident(&small, 100, limits::MESSAGE_BYTES_MAX)));
        assert_eq!(data["updates_left_out"], true);
        assert_eq!(data["update_components_left_out"], json!(null));
        assert_eq!(data["incident"]["updates"][0]["id"], "99", "the newest are kept");

        // The page of 600 components that made records of over a megabyte.
        let large = view(600, 39, 0);
        let data = told(&large, &Told::Incident(&incident(&large, 60, 10)));
        assert_eq!(data["update_components_left_out"], true);
        assert_eq!(data["updates_left_out"], json!(null));
        assert_eq!(data["incident"]["updates"].as_array().map(Vec::len), Some(60));
        assert_eq!(data["component_statuses"].as_object().map(serde_json::Map::len), Some(600));

        let huge = view(limits::COMPONENTS_MAX, limits::SLUG_BYTES_MAX, 0);
        let data = told(&huge, &Told::Incident(&incident(&huge, limits::UPDATES_MAX, 10)));
        assert_eq!((&data["truncated"], &data["incident"]), (&json!(true), &json!(null)));
        assert_eq!(data["url"], "/demo/");
    }

    #[test]
    fn an_event_of_a_page_leaves_out_descriptions_then_components() {
        let fits = view(20, 8, limits::DESCRIPTION_BYTES_MAX / 4);
        let data = told(&fits, &Told::Page);
        assert_eq!(data["components"][0]["description"], fits.components[0].description);
        let described = view(300, 8, limits::DESCRIPTION_BYTES_MAX);
        let data = told(&described, &Told::Page);
        assert_eq!(data["descriptions_left_out"], true);
        assert_eq!(data["components"].as_array().map(Vec::len), Some(300));
        assert_eq!(data["components"][0]["description"], json!(null));
        let many = view(limits::COMPONENTS_MAX, limits::SLUG_BYTES_MAX, 0);
        let data = told(&many, &Told::Page);
        assert_eq!((&data["truncated"], &data["components"]), (&json!(true), &json!(null)));
        assert_eq!(data["name"], "Demo");
    }
}
