//! JSON in the shapes of the Statuspage public API v2, so that its published clients read a page
//! unmodified.
//!
//! Field names, their presence and their `null`s are the contract (tests below); what Pharos has no
//! notion of is given as Statuspage gives it for a page that does not use it.
//!
//! Leaves to others: the words of statuses (`crate::model`), fields of the response
//! (`super::serve`).

use serde::Serialize;

use super::{
    moment::Moment,
    view::{AffectedView, ComponentView, IncidentView, PageView, UpdateView},
};

/// Which document of the API.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Document {
    /// `summary.json`: page, status, components and what is unresolved.
    Summary,
    /// `status.json`: page and overall status.
    Status,
    /// `components.json`: page and components.
    Components,
    /// `incidents.json`: page and the newest [`INCIDENTS_MAX`] incidents.
    Incidents,
    /// `incidents/unresolved.json`: page and what is unresolved.
    Unresolved,
}

impl Document {
    /// By its path below `api/v2/`.
    pub fn from_path(path: &str) -> Option<Self> {
        Some(match path {
            "summary.json" => Self::Summary,
            "status.json" => Self::Status,
            "components.json" => Self::Components,
            "incidents.json" => Self::Incidents,
            "incidents/unresolved.json" => Self::Unresolved,
            _ => return None,
        })
    }

    /// The document's text.
    pub fn render(self, view: &PageView) -> Result<String, serde_json::Error> {
        let page = Page::of(view);
        match self {
            Self::Summary => serde_json::to_string(&Summary {
                page,
                components: components(view),
                incidents: incidents(view, Which::Unresolved),
                scheduled_maintenances: [],
                status: Status::of(view),
            }),
            Self::Status => {
                serde_json::to_string(&StatusDocument { page, status: Status::of(view) })
            }
            Self::Components => {
                serde_json::to_string(&Components { page, components: components(view) })
            }
            Self::Incidents => serde_json::to_string(&Incidents {
                page,
                incidents: incidents(view, Which::Newest),
            }),
            Self::Unresolved => serde_json::to_string(&Incidents {
                page,
                incidents: incidents(view, Which::Unresolved),
            }),
        }
    }
}

#[derive(Serialize)]
struct Summary<'a> {
    page: Page<'a>,
    components: Vec<Component<'a>>,
    incidents: Vec<Incident<'a>>,
    scheduled_maintenances: [(); 0],
    status: Status,
}

#[derive(Serialize)]
struct StatusDocument<'a> {
    page: Page<'a>,
    status: Status,
}

#[derive(Serialize)]
struct Components<'a> {
    page: Page<'a>,
    components: Vec<Component<'a>>,
}

#[derive(Serialize)]
struct Incidents<'a> {
    page: Page<'a>,
    incidents: Vec<Incident<'a>>,
}

#[derive(Serialize)]
struct Page<'a> {
    id: &'a str,
    name: &'a str,
    url: &'a str,
    time_zone: &'static str,
    updated_at: Moment,
}

impl<'a> Page<'a> {
    fn of(view: &'a PageView) -> Self {
        Self {
            id: &view.id,
            name: &view.name,
            url: &view.url,
            time_zone: "Etc/UTC",
            updated_at: view.updated_at,
        }
    }
}

#[derive(Serialize)]
struct Status {
    indicator: &'static str,
    description: &'static str,
}

impl Status {
    fn of(view: &PageView) -> Self {
        Self { indicator: view.indicator.as_str(), description: view.indicator.description() }
    }
}

#[derive(Serialize)]
struct Component<'a> {
    id: &'a str,
    name: &'a str,
    status: &'static str,
    created_at: Moment,
    updated_at: Moment,
    /// Statuspage counts from 1.
    position: u32,
    description: Option<&'a str>,
    showcase: bool,
    start_date: Option<&'a str>,
    group_id: Option<&'a str>,
    page_id: &'a str,
    group: bool,
    only_show_if_degraded: bool,
}

impl<'a> Component<'a> {
    fn of(page: &'a PageView, at: usize, component: &'a ComponentView) -> Self {
        Self {
            id: &component.id,
            name: &component.name,
            status: component.status.as_str(),
            created_at: component.created_at,
            updated_at: component.updated_at,
            position: u32::try_from(at + 1).unwrap_or(u32::MAX),
            description: Some(component.description.as_str()).filter(|text| !text.is_empty()),
            showcase: false,
            start_date: None,
            group_id: None,
            page_id: &page.id,
            group: false,
            only_show_if_degraded: false,
        }
    }
}

#[derive(Serialize)]
struct Incident<'a> {
    id: &'a str,
    name: &'a str,
    status: &'static str,
    created_at: Moment,
    updated_at: Moment,
    monitoring_at: Option<Moment>,
    resolved_at: Option<Moment>,
    impact: &'static str,
    shortlink: String,
    started_at: Moment,
    page_id: &'a str,
    incident_updates: Vec<Update<'a>>,
    components: Vec<Component<'a>>,
}

impl<'a> Incident<'a> {
    fn of(page: &'a PageView, incident: &'a IncidentView) -> Self {
        let touches = |component: &ComponentView| {
            incident.components.iter().any(|c| c.slug == component.slug)
        };
        Self {
            id: &incident.id,
            name: &incident.title,
            status: incident.status.as_str(),
            created_at: incident.created_at,
            updated_at: incident.updated_at,
            monitoring_at: incident.monitoring_at,
            resolved_at: incident.resolved_at,
            impact: incident.impact.as_str(),
            shortlink: format!("{}#incident-{}", page.url, incident.id),
            started_at: incident.created_at,
            page_id: &page.id,
            incident_updates: incident
                .updates
                .iter()
                .map(|update| Update::of(page, incident, update))
                .collect(),
            components: components(page)
                .into_iter()
                .zip(&page.components)
                .filter(|(_, component)| touches(component))
                .map(|(row, _)| row)
                .collect(),
        }
    }
}

#[derive(Serialize)]
struct Update<'a> {
    id: &'a str,
    status: &'static str,
    body: &'a str,
    incident_id: &'a str,
    created_at: Moment,
    updated_at: Moment,
    display_at: Moment,
    affected_components: Option<Vec<Affected<'a>>>,
    deliver_notifications: bool,
    custom_tweet: Option<&'a str>,
    tweet_id: Option<&'a str>,
}

impl<'a> Update<'a> {
    fn of(page: &'a PageView, incident: &'a IncidentView, update: &'a UpdateView) -> Self {
        let affected = |part: &'a AffectedView| Affected {
            code: page
                .components
                .iter()
                .find(|component| component.slug == part.slug)
                .map_or(part.slug.as_str(), |component| &component.id),
            name: &part.name,
            old_status: before(incident, update, &part.slug),
            new_status: part.status.as_str(),
        };
        Self {
            id: &update.id,
            status: update.status.as_str(),
            body: &update.message,
            incident_id: &incident.id,
            created_at: update.created_at,
            updated_at: update.created_at,
            display_at: update.created_at,
            affected_components: Some(update.components.iter().map(affected).collect::<Vec<_>>())
                .filter(|list| !list.is_empty()),
            deliver_notifications: true,
            custom_tweet: None,
            tweet_id: None,
        }
    }
}

#[derive(Serialize)]
struct Affected<'a> {
    code: &'a str,
    name: &'a str,
    old_status: &'static str,
    new_status: &'static str,
}

/// What the update before this one had set the component to.
fn before(incident: &IncidentView, update: &UpdateView, slug: &str) -> &'static str {
    incident
        .updates
        .iter()
        .skip_while(|other| other.id != update.id)
        .skip(1)
        .find_map(|earlier| earlier.components.iter().find(|part| part.slug == slug))
        .map_or("operational", |part| part.status.as_str())
}

fn components(view: &PageView) -> Vec<Component<'_>> {
    view.components.iter().enumerate().map(|(at, c)| Component::of(view, at, c)).collect()
}

enum Which {
    Unresolved,
    Newest,
}

fn incidents(view: &PageView, which: Which) -> Vec<Incident<'_>> {
    let wanted = |incident: &&IncidentView| matches!(which, Which::Newest) || incident.is_active();
    view.incidents
        .iter()
        .filter(wanted)
        .take(INCIDENTS_MAX)
        .map(|incident| Incident::of(view, incident))
        .collect()
}

/// How many incidents `incidents.json` tells of, as Statuspage does.
pub const INCIDENTS_MAX: usize = 50;

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::{super::sample, *};

    fn document(document: Document) -> Value {
        serde_json::from_str(&document.render(&sample::page()).unwrap()).unwrap()
    }

    fn names(value: &Value) -> Vec<&str> {
        value.as_object().unwrap().keys().map(String::as_str).collect()
    }

    fn page() -> Value {
        json!({
            "id": "pg1", "name": "Lighthouse Cloud", "url": "http://127.0.0.1:8080/demo/",
            "time_zone": "Etc/UTC", "updated_at": "2026-03-14T11:54:05.042Z",
        })
    }

    #[test]
    fn status_has_statuspages_shape() {
        let expected = json!({
            "page": page(),
            "status": {"indicator": "major", "description": "Partial System Outage"},
        });
        assert_eq!(document(Document::Status), expected);
    }

    #[test]
    fn components_have_statuspages_shape() {
        let components = document(Document::Components);
        assert_eq!(components["page"], page());
        let expected = json!({
            "id": "cmp1", "name": "API", "status": "major_outage",
            "created_at": "2025-12-14T12:03:05.042Z", "updated_at": "2026-03-14T11:54:05.042Z",
            "position": 2, "description": "Everything under api.lighthouse.example",
            "showcase": false, "start_date": null, "group_id": null, "page_id": "pg1",
            "group": false, "only_show_if_degraded": false,
        });
        assert_eq!(components["components"][1], expected);
        assert_eq!(components["components"][2]["description"], Value::Null);
    }

    #[test]
    fn an_incident_has_statuspages_shape() {
        let incidents = document(Document::Incidents);
        let incident = &incidents["incidents"][1];
        let mut without_lists = incident.clone();
        without_lists.as_object_mut().unwrap().retain(|_, value| !value.is_array());
        let expected = json!({
            "id": "inc2", "name": "Delayed webhooks", "status": "resolved",
            "created_at": "2026-03-13T11:21:05.042Z", "updated_at": "2026-03-13T12:03:05.042Z",
            "monitoring_at": "2026-03-13T11:52:05.042Z", "resolved_at": "2026-03-13T12:03:05.042Z",
            "impact": "minor", "shortlink": "http://127.0.0.1:8080/demo/#incident-inc2",
            "started_at": "2026-03-13T11:21:05.042Z", "page_id": "pg1",
        });
        assert_eq!(without_lists, expected);
        assert_eq!(incident["components"][0]["id"], "cmp2");
        let expected = json!({
            "id": "u23", "status": "resolved", "body": "All queued webhooks have been delivered.",
            "incident_id": "inc2", "created_at": "2026-03-13T12:03:05.042Z",
            "updated_at": "2026-03-13T12:03:05.042Z", "display_at": "2026-03-13T12:03:05.042Z",
            "affected_components": [{
                "code": "cmp2", "name": "Webhooks",
                "old_status": "partial_outage", "new_status": "operational",
            }],
            "deliver_notifications": true, "custom_tweet": null, "tweet_id": null,
        });
        assert_eq!(incident["incident_updates"][0], expected);
        assert_eq!(incident["incident_updates"][1]["affected_components"], Value::Null);
    }

    #[test]
    fn a_summary_tells_only_of_what_is_unresolved() {
        let summary = document(Document::Summary);
        let top = ["components", "incidents", "page", "scheduled_maintenances", "status"];
        assert_eq!(names(&summary), top);
        assert_eq!(summary["scheduled_maintenances"], json!([]));
        assert_eq!(summary["incidents"].as_array().unwrap().len(), 1);
        assert_eq!(summary["incidents"][0]["id"], "inc3");
        assert_eq!(document(Document::Unresolved)["incidents"], summary["incidents"]);
        assert_eq!(document(Document::Incidents)["incidents"].as_array().unwrap().len(), 3);
    }

    #[test]
    fn documents_are_found_by_path() {
        for path in ["summary", "status", "components", "incidents", "incidents/unresolved"] {
            assert!(Document::from_path(&format!("{path}.json")).is_some(), "{path}");
        }
        assert_eq!(Document::from_path("subscribers.json"), None);
    }
}
