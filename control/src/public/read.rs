//! Reads what pages show from the store, all at one moment.

use std::collections::BTreeMap;

use super::{
    index::{IndexRow, IndexView},
    moment::Moment,
    v2::INCIDENTS_MAX,
    view::{AffectedView, ComponentView, IncidentView, PageView, UpdateView},
};
use crate::{
    limits::PUBLIC_INDEX_MAX,
    model::{
        component::{Component, ComponentStatus},
        impact::Indicator,
        incident::{Incident, IncidentStatus},
        page::Page,
    },
    store::sqlite::{Reader, StoreError},
};

/// A page by its id; `None` when there is none. `pages_url` is where pages without a host are
/// reached.
pub fn page(
    reader: &Reader<'_>,
    id: &str,
    pages_url: Option<&str>,
    now_ms: u64,
) -> Result<Option<PageView>, StoreError> {
    let Some(page) = reader.page(id)? else { return Ok(None) };
    let page = page.value;
    let components = reader.components(&page.id)?;
    let recent = reader.incidents(&page.id, None, INCIDENTS_MAX)?;
    let open = reader.open_incidents(&page.id)?;
    let indicator = Indicator::of(
        components.iter().map(|component| component.status),
        open.iter().map(|incident| incident.impact),
    );
    let open_count = open.len();
    let incidents = newest_first(recent, open);
    let shown = incidents.iter().filter(|incident| incident.is_open()).count();
    let changes = components.iter().map(|component| component.updated_at_ms);
    let changes = changes.chain(incidents.iter().map(|incident| incident.updated_at_ms));
    Ok(Some(PageView {
        updated_at: Moment::from_ms(changes.fold(page.updated_at_ms, u64::max)),
        url: url(&page, pages_url),
        indicator,
        active_left_out: open_count - shown,
        incidents: incidents.iter().map(|one| incident(one, &components)).collect(),
        components: components.iter().map(component).collect(),
        version: reader.version()?,
        rendered_at: Moment::from_ms(now_ms),
        created_at: Moment::from_ms(page.created_at_ms),
        id: page.id,
        slug: page.slug,
        name: page.name,
    }))
}

/// The list of pages, by name.
pub fn index(reader: &Reader<'_>, now_ms: u64) -> Result<IndexView, StoreError> {
    let pages = reader.pages(None, PUBLIC_INDEX_MAX)?;
    let count = reader.count(crate::log::operation::Kind::Page)?;
    let more = count.saturating_sub(pages.len());
    let mut rows = pages
        .into_iter()
        .map(|page| {
            let indicator = reader.indicator(&page.id)?;
            Ok(IndexRow { slug: page.slug, name: page.name, indicator })
        })
        .collect::<Result<Vec<_>, StoreError>>()?;
    rows.sort_by_key(|row| row.name.to_lowercase());
    Ok(IndexView { pages: rows, more: more as u64, rendered_at: Moment::from_ms(now_ms) })
}

/// The recent incidents, and of the open ones as many as a page can show, each once.
fn newest_first(recent: Vec<Incident>, open: Vec<Incident>) -> Vec<Incident> {
    let mut by_id: BTreeMap<String, Incident> = BTreeMap::new();
    for incident in open.into_iter().take(INCIDENTS_MAX).chain(recent) {
        by_id.insert(incident.id.clone(), incident);
    }
    let mut incidents: Vec<Incident> = by_id.into_values().collect();
    incidents.sort_by(|a, b| (b.created_at_ms, &b.id).cmp(&(a.created_at_ms, &a.id)));
    incidents
}

/// Absolute as far as control knows, else relative to whatever host shows it.
fn url(page: &Page, pages_url: Option<&str>) -> String {
    match (page.hosts.first(), pages_url) {
        (Some(host), _) => format!("http://{host}/"),
        (None, Some(base)) => format!("{base}{}", page.path()),
        (None, None) => page.path(),
    }
}

fn component(component: &Component) -> ComponentView {
    ComponentView {
        id: component.id.clone(),
        slug: component.slug.clone(),
        name: component.name.clone(),
        description: component.description.clone(),
        status: component.status,
        position: component.position,
        created_at: Moment::from_ms(component.created_at_ms),
        updated_at: Moment::from_ms(component.updated_at_ms),
    }
}

fn incident(incident: &Incident, components: &[Component]) -> IncidentView {
    let monitoring =
        incident.updates.iter().rev().find(|update| update.status == IncidentStatus::Monitoring);
    IncidentView {
        id: incident.id.clone(),
        title: incident.title.clone(),
        status: incident.status,
        impact: incident.impact,
        components: affected(&incident.components, components),
        updates: incident
            .updates
            .iter()
            .rev()
            .map(|update| UpdateView {
                id: update.id.clone(),
                status: update.status,
                message: update.message.clone(),
                created_at: Moment::from_ms(update.created_at_ms),
                components: affected(&update.components, components),
            })
            .collect(),
        created_at: Moment::from_ms(incident.created_at_ms),
        updated_at: Moment::from_ms(incident.updated_at_ms),
        monitoring_at: monitoring.map(|update| Moment::from_ms(update.created_at_ms)),
        resolved_at: incident.resolved_at_ms.map(Moment::from_ms),
    }
}

/// In the page's order; what is no longer there is left out.
fn affected(
    by_id: &BTreeMap<String, ComponentStatus>,
    components: &[Component],
) -> Vec<AffectedView> {
    components
        .iter()
        .filter_map(|component| {
            let status = *by_id.get(&component.id)?;
            let (slug, name) = (component.slug.clone(), component.name.clone());
            Some(AffectedView { slug, name, status })
        })
        .collect()
}
