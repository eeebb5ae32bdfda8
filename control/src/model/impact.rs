//! How bad it is: of one incident, and of a whole page.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::{Invalid, component::ComponentStatus};

/// An incident's weight. Ordered from least to worst.
#[derive(
    Clone,
    Copy,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    Hash,
    Default,
    Debug,
    Serialize,
    Deserialize,
    ToSchema,
)]
#[serde(rename_all = "snake_case")]
pub enum Impact {
    /// Nothing is affected.
    #[default]
    None,
    /// Little.
    Minor,
    /// Much.
    Major,
    /// All.
    Critical,
}

impl Impact {
    /// From least to worst.
    pub const ALL: [Self; 4] = [Self::None, Self::Minor, Self::Major, Self::Critical];

    /// The word on the wire and in the store.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Minor => "minor",
            Self::Major => "major",
            Self::Critical => "critical",
        }
    }

    /// What a component in this status weighs; the impact of an incident that states none is the
    /// worst of these.
    pub const fn of(status: ComponentStatus) -> Self {
        match status {
            ComponentStatus::Operational | ComponentStatus::UnderMaintenance => Self::None,
            ComponentStatus::DegradedPerformance => Self::Minor,
            ComponentStatus::PartialOutage => Self::Major,
            ComponentStatus::MajorOutage => Self::Critical,
        }
    }

    /// Reads a severity, the operators' other word for it: low, medium, high, critical.
    pub fn from_severity(text: &str) -> Result<Self, Invalid> {
        match text {
            "low" => Ok(Self::None),
            "medium" => Ok(Self::Minor),
            "high" => Ok(Self::Major),
            "critical" => Ok(Self::Critical),
            _ => Err(Invalid { code: "severity", expected: "one of low, medium, high, critical" }),
        }
    }
}

impl FromStr for Impact {
    type Err = Invalid;

    fn from_str(text: &str) -> Result<Self, Invalid> {
        Self::ALL
            .into_iter()
            .find(|impact| impact.as_str() == text)
            .ok_or(Invalid { code: "impact", expected: "one of none, minor, major, critical" })
    }
}

impl fmt::Display for Impact {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A page's state in one word, as Statuspage clients know it.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Indicator {
    /// All is well.
    #[default]
    None,
    /// Something is worked on, all else is well.
    Maintenance,
    /// A little is wrong.
    Minor,
    /// Much is wrong.
    Major,
    /// Nearly all is wrong.
    Critical,
}

impl Indicator {
    /// The worst of the components' statuses and the open incidents' impacts; maintenance shows
    /// only when nothing is wrong.
    pub fn of(
        components: impl IntoIterator<Item = ComponentStatus>,
        open_incidents: impl IntoIterator<Item = Impact>,
    ) -> Self {
        let mut worst = open_incidents.into_iter().max().unwrap_or_default();
        let mut maintenance = false;
        for status in components {
            worst = worst.max(Impact::of(status));
            maintenance |= status == ComponentStatus::UnderMaintenance;
        }
        match worst {
            Impact::None if maintenance => Self::Maintenance,
            Impact::None => Self::None,
            Impact::Minor => Self::Minor,
            Impact::Major => Self::Major,
            Impact::Critical => Self::Critical,
        }
    }

    /// The word on the wire.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Maintenance => "maintenance",
            Self::Minor => "minor",
            Self::Major => "major",
            Self::Critical => "critical",
        }
    }

    /// The sentence at the top of the page.
    pub const fn description(self) -> &'static str {
        match self {
            Self::None => "All Systems Operational",
            Self::Maintenance => "Service Under Maintenance",
            Self::Minor => "Partially Degraded Service",
            Self::Major => "Partial System Outage",
            Self::Critical => "Major Service Outage",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_is_as_bad_as_its_worst_component_or_open_incident() {
        use ComponentStatus::*;
        for (components, incidents, indicator) in [
            (vec![], vec![], Indicator::None),
            (vec![Operational], vec![Impact::None], Indicator::None),
            (vec![UnderMaintenance], vec![], Indicator::Maintenance),
            (vec![UnderMaintenance, DegradedPerformance], vec![], Indicator::Minor),
            (vec![PartialOutage], vec![Impact::Minor], Indicator::Major),
            (vec![Operational], vec![Impact::Critical], Indicator::Critical),
            (vec![MajorOutage], vec![], Indicator::Critical),
        ] {
            assert_eq!(Indicator::of(components, incidents), indicator);
        }
    }

    #[test]
    fn severities_are_impacts() {
        let impacts: Vec<_> = ["low", "medium", "high", "critical"]
            .map(|text| Impact::from_severity(text).expect("known"))
            .into();
        assert_eq!(impacts, Impact::ALL);
        assert!(Impact::from_severity("none").is_err());
    }
}
