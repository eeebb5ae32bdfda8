//! What a public page shows, as plain data: everything that HTML and JSON are rendered from, read
//! from the state once.
//!
//! ```text
//!  state (one snapshot) ──▶ PageView ──▶ page   HTML
//!                                    └─▶ v2     JSON in Statuspage's shapes
//! ```
//! Rendering is pure: the same view gives the same bytes.
//!
//! Leaves to others: which rows there are (the store), the words of the wire (`crate::model`), the
//! look (`templates/`).

use jiff::{ToSpan, civil::Date};
use proto::feed::cursor::VersionVector;

use super::moment::Moment;
use crate::model::{
    component::ComponentStatus,
    impact::{Impact, Indicator},
    incident::IncidentStatus,
};

/// A status page at one version.
#[derive(Clone, Debug)]
pub struct PageView {
    /// Identity.
    pub id: String,
    /// Its part of the address.
    pub slug: String,
    /// What it is called.
    pub name: String,
    /// Its address as far as it is known: absolute with a host of its own or a configured public
    /// URL.
    pub url: String,
    /// When it was made.
    pub created_at: Moment,
    /// When anything on it changed last.
    pub updated_at: Moment,
    /// How it does as a whole.
    pub indicator: Indicator,
    /// In the order shown.
    pub components: Vec<ComponentView>,
    /// Newest first: all that are active, and the recent ones that are resolved.
    pub incidents: Vec<IncidentView>,
    /// Active ones that `incidents` has no room for, all older.
    pub active_left_out: usize,
    /// Everything applied when this was read.
    pub version: VersionVector,
    /// When this was read.
    pub rendered_at: Moment,
}

/// One row of the list of components.
#[derive(Clone, Debug)]
pub struct ComponentView {
    /// Identity.
    pub id: String,
    /// Its name in the API.
    pub slug: String,
    /// What it is called.
    pub name: String,
    /// What it does, for people; may be empty.
    pub description: String,
    /// How it does.
    pub status: ComponentStatus,
    /// Place in the list, from 0.
    pub position: i64,
    /// When it was made.
    pub created_at: Moment,
    /// When it changed last.
    pub updated_at: Moment,
}

/// One incident with its story.
#[derive(Clone, Debug)]
pub struct IncidentView {
    /// Identity, also its anchor on the page: `#incident-<id>`.
    pub id: String,
    /// What happened, in a line.
    pub title: String,
    /// How far the work is.
    pub status: IncidentStatus,
    /// How bad it is.
    pub impact: Impact,
    /// What it touches, in the page's order.
    pub components: Vec<AffectedView>,
    /// Newest first; at least one.
    pub updates: Vec<UpdateView>,
    /// When it was declared.
    pub created_at: Moment,
    /// When it changed last.
    pub updated_at: Moment,
    /// When it was first being monitored.
    pub monitoring_at: Option<Moment>,
    /// When it was over, if it is.
    pub resolved_at: Option<Moment>,
}

/// A component as an incident touches it.
#[derive(Clone, Debug)]
pub struct AffectedView {
    /// The component's slug.
    pub slug: String,
    /// What it is called.
    pub name: String,
    /// How it does, by this incident.
    pub status: ComponentStatus,
}

/// One chapter of an incident.
#[derive(Clone, Debug)]
pub struct UpdateView {
    /// Identity.
    pub id: String,
    /// The step it announced.
    pub status: IncidentStatus,
    /// What was said; plain text, line breaks kept.
    pub message: String,
    /// When.
    pub created_at: Moment,
    /// What it changed: component and the status it set.
    pub components: Vec<AffectedView>,
}

/// Consecutive days in the list of past incidents; more than one only when nothing happened on
/// them.
#[derive(Clone, Debug)]
pub struct DayView<'a> {
    /// The earliest day.
    pub first: Date,
    /// The latest day.
    pub last: Date,
    /// What began on them and is over, newest first.
    pub incidents: Vec<&'a IncidentView>,
    /// What began on them and is not over; told in full further up on the page.
    pub active: Vec<&'a IncidentView>,
}

impl PageView {
    /// The incidents not over yet, newest first.
    pub fn active(&self) -> Vec<&IncidentView> {
        self.incidents.iter().filter(|incident| incident.is_active()).collect()
    }

    /// The last [`PAST_DAYS`] days, latest first, with the incidents that are over under the day
    /// they began on. Days without any are drawn together.
    pub fn past(&self) -> Vec<DayView<'_>> {
        let mut days: Vec<DayView<'_>> = Vec::new();
        let today = self.rendered_at.date();
        for back in 0..PAST_DAYS {
            let Ok(date) = today.checked_sub(back.days()) else { break };
            let (active, incidents): (Vec<_>, Vec<_>) = self
                .incidents
                .iter()
                .filter(|incident| incident.created_at.date() == date)
                .partition(|incident| incident.is_active());
            let day = DayView { first: date, last: date, incidents, active };
            match days.last_mut() {
                Some(last) if back > 1 && last.is_quiet() && day.is_quiet() => last.first = date,
                _ => days.push(day),
            }
        }
        days
    }

    /// How many components do well, in a sentence.
    pub fn tally(&self) -> String {
        let all = self.components.len();
        let troubled =
            self.components.iter().filter(|c| c.status != ComponentStatus::Operational).count();
        match (all, troubled) {
            (0, _) => String::new(),
            (1, 0) => "The one component is operational.".into(),
            (_, 0) => format!("All {all} components are operational."),
            (1, _) => "The one component is affected.".into(),
            _ => format!("{troubled} of {all} components affected."),
        }
    }
}

impl IncidentView {
    /// Whether it is not over yet.
    pub fn is_active(&self) -> bool {
        self.status != IncidentStatus::Resolved
    }

    /// What it touches, in a sentence.
    pub fn affected(&self) -> String {
        let names: Vec<&str> = self.components.iter().map(|part| part.name.as_str()).collect();
        format!("Affects {}", names.join(", "))
    }

    /// How it ended, in a few words.
    pub fn outcome(&self) -> String {
        let end = self.resolved_at.unwrap_or(self.updated_at);
        format!("Resolved in {}", self.created_at.until(end))
    }

    /// The shape that the script fills in for an incident that the page did not have.
    pub(super) fn blank() -> Self {
        let never = Moment::from_ms(0);
        Self {
            id: String::new(),
            title: String::new(),
            status: IncidentStatus::Investigating,
            impact: Impact::None,
            components: Vec::new(),
            updates: vec![UpdateView {
                id: String::new(),
                status: IncidentStatus::Investigating,
                message: String::new(),
                created_at: never,
                components: Vec::new(),
            }],
            created_at: never,
            updated_at: never,
            monitoring_at: None,
            resolved_at: None,
        }
    }
}

impl ComponentView {
    /// The shape that the script fills in for a component that the page did not have.
    pub(super) fn blank() -> Self {
        let never = Moment::from_ms(0);
        Self {
            id: String::new(),
            slug: String::new(),
            name: String::new(),
            description: String::new(),
            status: ComponentStatus::Operational,
            position: 0,
            created_at: never,
            updated_at: never,
        }
    }
}

impl DayView<'_> {
    /// Whether nothing began on them.
    pub fn is_quiet(&self) -> bool {
        self.incidents.is_empty() && self.active.is_empty()
    }

    /// `14 March`, `10 – 14 Mar`, `28 Feb – 3 Mar`.
    pub fn label(&self) -> String {
        let (first, last) = (self.first, self.last);
        if first == last {
            last.strftime("%-d %B").to_string()
        } else if first.month() == last.month() {
            format!("{} – {}", first.day(), last.strftime("%-d %b"))
        } else {
            format!("{} – {}", first.strftime("%-d %b"), last.strftime("%-d %b"))
        }
    }
}

/// How many days of past incidents a page shows, today included.
pub const PAST_DAYS: i32 = 15;
