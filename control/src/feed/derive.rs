//! One operation → the records that tell edges about it, purge before publish. Pure.
//!
//! Records are derived once, at append, from the state just before and just after, and stored with
//! the operation: an event must tell what was true at its own moment, not at the moment somebody
//! reads it.

use super::event::{self, Told};
use crate::{
    log::operation::{Operation, PurgeOrder, TopicEvent},
    model::{component::Component, impact::Indicator, incident::Incident, page::Page},
};
use proto::feed::{
    record::{Config, Publish, Purge, Record, Scope},
    site::{INDEX_KEY, Site, page_key},
};

/// A page as its events tell of it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PageView {
    /// The page.
    pub page: Page,
    /// All its components, in order.
    pub components: Vec<Component>,
    /// Its state in one word.
    pub indicator: Indicator,
}

/// What an operation was about, with what is needed to tell of it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Subject {
    /// A page, or something on it.
    Page {
        /// Which page.
        page_id: String,
        /// The page before; `None` when there was none.
        before: Option<PageView>,
        /// The page after; `None` when there is none (any more).
        after: Option<PageView>,
        /// The component the operation was about, after it.
        component: Option<Component>,
        /// The incident the operation was about, after it.
        incident: Option<Incident>,
    },
    /// A site.
    Site {
        /// Which site.
        id: String,
        /// The site after; `None` when removed.
        after: Option<Site>,
    },
    /// An order to purge.
    Purge(PurgeOrder),
    /// An event that a customer published.
    Event {
        /// Where.
        topic: String,
        /// What.
        event: TopicEvent,
    },
    /// Nothing that edges need to know.
    Nothing,
}

impl Subject {
    /// The topic that gets an event.
    pub fn topic(&self) -> Option<String> {
        match self {
            Self::Page { page_id, after: Some(_), .. } => Some(page_key(page_id)),
            Self::Event { topic, .. } => Some(topic.clone()),
            _ => None,
        }
    }
}

/// The records of one operation, in the order edges must apply them. `prev` is the sequence number
/// of the topic's last event from the same replica.
pub fn records(operation: &Operation, subject: &Subject, prev: u64) -> Vec<Record> {
    let position = operation.position;
    match subject {
        Subject::Page { page_id, before, after: None, .. } => {
            if before.is_none() {
                return Vec::new();
            }
            let removed = Config { removed_pages: vec![page_id.clone()], ..Config::default() };
            // Hard: a deleted page must not come back as a stale one.
            vec![
                Record::Config(removed),
                purge(position, page_key(page_id), false),
                purge(position, INDEX_KEY.into(), true),
            ]
        }
        Subject::Page { page_id, before, after: Some(after), component, incident } => {
            let mut records = Vec::with_capacity(4);
            if before.as_ref().map(|before| before.page.to_feed()) != Some(after.page.to_feed()) {
                let pages = vec![after.page.to_feed()];
                records.push(Record::Config(Config { pages, ..Config::default() }));
            }
            records.push(purge(position, page_key(page_id), true));
            if before.as_ref().map(listed) != Some(listed(after)) {
                records.push(purge(position, INDEX_KEY.into(), true));
            }
            let told = Told::of(component.as_ref(), incident.as_ref());
            records.push(Record::Publish(Publish {
                position,
                topic: page_key(page_id),
                dot: operation.dot,
                prev,
                event: told.kind().into(),
                data: event::data(operation, after, &told),
                key: None,
                version: operation.version(),
                refill: false,
                lone: false,
            }));
            records
        }
        Subject::Site { after: Some(site), .. } => {
            vec![Record::Config(Config { sites: vec![site.clone()], ..Config::default() })]
        }
        Subject::Site { id, after: None } => {
            let removed = Config { removed_sites: vec![id.clone()], ..Config::default() };
            let scope = Scope::Site { site: id.clone() };
            vec![Record::Config(removed), Record::Purge(Purge { position, scope, soft: false })]
        }
        Subject::Purge(order) => {
            vec![Record::Purge(Purge { position, scope: order.scope.clone(), soft: order.soft })]
        }
        Subject::Event { topic, event } => vec![Record::Publish(Publish {
            position,
            topic: topic.clone(),
            dot: operation.dot,
            prev,
            event: event.event.clone(),
            data: event.data.clone(),
            key: event.key.clone(),
            version: operation.version(),
            refill: false,
            lone: false,
        })],
        Subject::Nothing => Vec::new(),
    }
}

fn purge(position: u64, key: String, soft: bool) -> Record {
    Record::Purge(Purge { position, scope: Scope::Key { site: None, key }, soft })
}

/// What the list of pages shows of a page.
fn listed(view: &PageView) -> (&str, &str, &[String], Indicator) {
    (&view.page.name, &view.page.slug, &view.page.hosts, view.indicator)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        log::operation::Kind,
        model::incident::{IncidentStatus, Update},
    };

    fn view(name: &str, slug: &str, indicator: Indicator) -> PageView {
        let page = Page {
            id: "p".into(),
            slug: slug.into(),
            name: name.into(),
            hosts: Vec::new(),
            created_at_ms: 0,
            updated_at_ms: 0,
        };
        PageView { page, components: Vec::new(), indicator }
    }

    fn incident(updates: usize, bytes: usize) -> Incident {
        let update = |nth: usize| Update {
            id: nth.to_string(),
            status: IncidentStatus::Identified,
            message: "m\n".repeat(bytes / 2),
            components: Default::default(),
            created_at_ms: nth as u64,
        };
        Incident {
            id: "i".into(),
            page_id: "p".into(),
            title: "t".into(),
            status: IncidentStatus::Identified,
            impact: Default::default(),
            components: Default::default(),
            updates: (0..updates).map(update).collect(),
            created_at_ms: 0,
            updated_at_ms: 0,
            resolved_at_ms: None,
        }
    }

    fn kinds(before: Option<PageView>, after: Option<PageView>) -> Vec<String> {
        let subject = Subject::Page {
            page_id: "p".into(),
            before,
            after,
            component: None,
            incident: Some(incident(1, 10)),
        };
        records(&Operation::example(Kind::Incident), &subject, 40)
            .iter()
            .map(|record| match record {
                Record::Purge(Purge { scope: Scope::Key { key, .. }, soft, .. }) => {
                    format!("{} {key}", if *soft { "soft" } else { "hard" })
                }
                record => record.kind().to_owned(),
            })
            .collect()
    }

    #[test]
    fn a_purge_comes_before_its_publish_and_configuration_before_both() {
        let well = || Some(view("Demo", "demo", Indicator::None));
        assert_eq!(kinds(well(), well()), ["soft page/p", "publish"]);
        let ill = Some(view("Demo", "demo", Indicator::Major));
        assert_eq!(kinds(well(), ill), ["soft page/p", "soft pages", "publish"]);
        let moved = Some(view("Demo", "other", Indicator::None));
        assert_eq!(kinds(well(), moved), ["config", "soft page/p", "soft pages", "publish"]);
        assert_eq!(kinds(None, well()), ["config", "soft page/p", "soft pages", "publish"]);
        assert_eq!(kinds(well(), None), ["config", "hard page/p", "soft pages"]);
        assert_eq!(kinds(None, None), [""; 0]);
    }
}
