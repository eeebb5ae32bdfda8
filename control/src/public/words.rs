//! The words of a status page: what a status is called by people, and in which tone it is shown.
//!
//! A tone is a colour *and* an icon *and* comes with the words: nothing is told by colour alone.
//!
//! Leaves to others: which words exist and how a page's overall status follows (`crate::model`).

use std::fmt;

/// How a status looks: the name of a colour in `style.css` and of a symbol in `icons.html`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Tone {
    /// All is well.
    Ok,
    /// Worth knowing, nobody is hurt.
    Note,
    /// A little wrong.
    Minor,
    /// Clearly wrong.
    Major,
    /// Down.
    Critical,
    /// Being worked on, as planned.
    Care,
}

impl Tone {
    /// The name in style sheet, symbols and script.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Note => "note",
            Self::Minor => "minor",
            Self::Major => "major",
            Self::Critical => "critical",
            Self::Care => "care",
        }
    }

    /// A disc in the tone's colour, as the page's icon in the browser's tab.
    pub fn favicon(self) -> String {
        let fill = match self {
            Self::Ok => "2fa36b",
            Self::Note => "78848f",
            Self::Minor => "dfab1f",
            Self::Major => "e8762c",
            Self::Critical => "d93444",
            Self::Care => "3f7fdd",
        };
        format!(
            "data:image/svg+xml,%3Csvg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 32 32'%3E\
             %3Ccircle cx='16' cy='16' r='13' fill='%23{fill}'/%3E%3C/svg%3E"
        )
    }
}

impl fmt::Display for Tone {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// How a part of the service does.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum ComponentStatus {
    /// Works.
    Operational,
    /// Being worked on, as planned.
    UnderMaintenance,
    /// Slow or flaky.
    DegradedPerformance,
    /// Down for some.
    PartialOutage,
    /// Down.
    MajorOutage,
}

impl ComponentStatus {
    /// The word in the API.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Operational => "operational",
            Self::UnderMaintenance => "under_maintenance",
            Self::DegradedPerformance => "degraded_performance",
            Self::PartialOutage => "partial_outage",
            Self::MajorOutage => "major_outage",
        }
    }
    /// For people.
    pub fn label(self) -> &'static str {
        match self {
            Self::Operational => "Operational",
            Self::UnderMaintenance => "Under maintenance",
            Self::DegradedPerformance => "Degraded performance",
            Self::PartialOutage => "Partial outage",
            Self::MajorOutage => "Major outage",
        }
    }
    /// How it looks.
    pub fn tone(self) -> Tone {
        match self {
            Self::Operational => Tone::Ok,
            Self::UnderMaintenance => Tone::Care,
            Self::DegradedPerformance => Tone::Minor,
            Self::PartialOutage => Tone::Major,
            Self::MajorOutage => Tone::Critical,
        }
    }
}

/// How far the work on an incident is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum IncidentStatus {
    /// The cause is sought.
    Investigating,
    /// The cause is known.
    Identified,
    /// Mended, and watched.
    Monitoring,
    /// Over.
    Resolved,
}

impl IncidentStatus {
    /// The word in the API.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Investigating => "investigating",
            Self::Identified => "identified",
            Self::Monitoring => "monitoring",
            Self::Resolved => "resolved",
        }
    }
    /// For people.
    pub fn label(self) -> &'static str {
        match self {
            Self::Investigating => "Investigating",
            Self::Identified => "Identified",
            Self::Monitoring => "Monitoring",
            Self::Resolved => "Resolved",
        }
    }
}

/// How bad an incident is.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Impact {
    /// Nobody is hurt.
    None,
    /// A little wrong.
    Minor,
    /// Clearly wrong.
    Major,
    /// Down.
    Critical,
}

impl Impact {
    /// The word in the API.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Minor => "minor",
            Self::Major => "major",
            Self::Critical => "critical",
        }
    }
    /// For people.
    pub fn label(self) -> &'static str {
        match self {
            Self::None => "No impact",
            Self::Minor => "Minor impact",
            Self::Major => "Major impact",
            Self::Critical => "Critical impact",
        }
    }
    /// How it looks.
    pub fn tone(self) -> Tone {
        match self {
            Self::None => Tone::Note,
            Self::Minor => Tone::Minor,
            Self::Major => Tone::Major,
            Self::Critical => Tone::Critical,
        }
    }
}

/// How the page as a whole does.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Overall {
    /// How bad it is.
    pub indicator: Impact,
    /// In Statuspage's words.
    pub description: &'static str,
}

impl Overall {
    /// For people.
    pub fn description(self) -> &'static str {
        self.description
    }
    /// How it looks.
    pub fn tone(self) -> Tone {
        match self.indicator {
            Impact::None => Tone::Ok,
            Impact::Minor => Tone::Minor,
            Impact::Major => Tone::Major,
            Impact::Critical => Tone::Critical,
        }
    }
}
