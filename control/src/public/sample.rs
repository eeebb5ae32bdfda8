//! A page with a bit of everything, for the tests of this folder.

use super::{
    moment::Moment,
    view::{AffectedView, ComponentView, IncidentView, PageView, UpdateView},
};
use crate::model::{
    component::ComponentStatus,
    impact::{Impact, Indicator},
    incident::IncidentStatus,
};

/// 14 March 2026, 12:03:05.042 UTC.
pub(super) const NOW_MS: u64 = 1_773_489_785_042;
const MINUTE_MS: u64 = 60_000;
const DAY_MS: u64 = 24 * 60 * MINUTE_MS;

/// Three components, an active incident, one that was over a day before and one a week before that.
pub(super) fn page() -> PageView {
    use ComponentStatus::{MajorOutage, Operational, PartialOutage};
    use IncidentStatus::{Identified, Investigating, Monitoring, Resolved};
    let api = || affected("api", "API", MajorOutage);
    let now = NOW_MS;
    let active = incident(
        "inc3",
        "API answers slowly in Europe",
        Impact::Major,
        vec![api()],
        vec![
            update(
                "u32",
                Identified,
                "A network link between two sites is saturated.\nWe are moving traffic to another path.",
                now - 9 * MINUTE_MS,
            ),
            update(
                "u31",
                Investigating,
                "Requests to the API take longer than usual. We are looking into it.",
                now - 23 * MINUTE_MS,
            ),
        ],
    );
    let mut yesterday = incident(
        "inc2",
        "Delayed webhooks",
        Impact::Minor,
        vec![affected("hooks", "Webhooks", PartialOutage)],
        vec![
            update("u23", Resolved, "All queued webhooks have been delivered.", now - DAY_MS),
            update("u22", Monitoring, "The queue is draining.", now - DAY_MS - 11 * MINUTE_MS),
            update(
                "u21",
                Investigating,
                "Webhooks arrive with a delay of some minutes.",
                now - DAY_MS - 42 * MINUTE_MS,
            ),
        ],
    );
    yesterday.updates[0].components = vec![affected("hooks", "Webhooks", Operational)];
    yesterday.updates[2].components = vec![affected("hooks", "Webhooks", PartialOutage)];
    let older = incident(
        "inc1",
        "Dashboard not reachable",
        Impact::Critical,
        vec![],
        vec![
            update("u12", Resolved, "The dashboard is back.", now - 7 * DAY_MS),
            update(
                "u11",
                Investigating,
                "The dashboard does not load.",
                now - 7 * DAY_MS - 185 * MINUTE_MS,
            ),
        ],
    );
    PageView {
        id: "pg1".into(),
        slug: "demo".into(),
        name: "Lighthouse Cloud".into(),
        url: "http://127.0.0.1:8080/demo/".into(),
        created_at: Moment::from_ms(now - 90 * DAY_MS),
        updated_at: Moment::from_ms(now - 9 * MINUTE_MS),
        indicator: Indicator::Major,
        components: vec![
            component(0, "website", "Website", "Product pages and documentation", Operational),
            component(1, "api", "API", "Everything under api.lighthouse.example", MajorOutage),
            component(2, "hooks", "Webhooks", "", ComponentStatus::UnderMaintenance),
            component(3, "login", "Sign-in", "", ComponentStatus::DegradedPerformance),
            component(4, "storage", "Object storage", "", PartialOutage),
        ],
        incidents: vec![active, yesterday, older],
        active_left_out: 0,
        version: "eu-1f3a9c20:41".parse().expect("valid"),
        rendered_at: Moment::from_ms(now),
    }
}

fn component(
    position: i64,
    slug: &str,
    name: &str,
    about: &str,
    status: ComponentStatus,
) -> ComponentView {
    ComponentView {
        id: format!("cmp{position}"),
        slug: slug.into(),
        name: name.into(),
        description: about.into(),
        status,
        position,
        created_at: Moment::from_ms(NOW_MS - 90 * DAY_MS),
        updated_at: Moment::from_ms(NOW_MS - 9 * MINUTE_MS),
    }
}

fn affected(slug: &str, name: &str, status: ComponentStatus) -> AffectedView {
    AffectedView { slug: slug.into(), name: name.into(), status }
}

fn update(id: &str, status: IncidentStatus, message: &str, at_ms: u64) -> UpdateView {
    UpdateView {
        id: id.into(),
        status,
        message: message.into(),
        created_at: Moment::from_ms(at_ms),
        components: Vec::new(),
    }
}

fn incident(
    id: &str,
    title: &str,
    impact: Impact,
    components: Vec<AffectedView>,
    updates: Vec<UpdateView>,
) -> IncidentView {
    let newest = updates.first().expect("at least one");
    let at = |status| updates.iter().find(|u| u.status == status).map(|u| u.created_at);
    IncidentView {
        id: id.into(),
        title: title.into(),
        status: newest.status,
        impact,
        created_at: updates.last().expect("at least one").created_at,
        updated_at: newest.created_at,
        monitoring_at: at(IncidentStatus::Monitoring),
        resolved_at: at(IncidentStatus::Resolved),
        components,
        updates,
    }
}
