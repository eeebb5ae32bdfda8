//! The words of a status page: what a status is called by people, and in which tone it is shown.
//!
//! A tone is a colour *and* an icon *and* comes with the words: nothing is told by colour alone.
//!
//! Leaves to others: which words exist and how a page's overall status follows (`crate::model`).

use std::fmt;

use crate::model::{
    component::ComponentStatus,
    impact::{Impact, Indicator},
    incident::IncidentStatus,
};

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

/// What people are shown of a status.
pub trait Shown {
    /// What it is called.
    fn label(self) -> &'static str;
    /// How it looks.
    fn tone(self) -> Tone;
}

impl Shown for ComponentStatus {
    fn label(self) -> &'static str {
        match self {
            Self::Operational => "Operational",
            Self::UnderMaintenance => "Under maintenance",
            Self::DegradedPerformance => "Degraded performance",
            Self::PartialOutage => "Partial outage",
            Self::MajorOutage => "Major outage",
        }
    }

    fn tone(self) -> Tone {
        match self {
            Self::Operational => Tone::Ok,
            Self::UnderMaintenance => Tone::Care,
            Self::DegradedPerformance => Tone::Minor,
            Self::PartialOutage => Tone::Major,
            Self::MajorOutage => Tone::Critical,
        }
    }
}

impl Shown for IncidentStatus {
    fn label(self) -> &'static str {
        match self {
            Self::Investigating => "Investigating",
            Self::Identified => "Identified",
            Self::Monitoring => "Monitoring",
            Self::Resolved => "Resolved",
        }
    }

    fn tone(self) -> Tone {
        match self {
            Self::Resolved => Tone::Ok,
            Self::Investigating | Self::Identified | Self::Monitoring => Tone::Note,
        }
    }
}

impl Shown for Impact {
    fn label(self) -> &'static str {
        match self {
            Self::None => "No impact",
            Self::Minor => "Minor impact",
            Self::Major => "Major impact",
            Self::Critical => "Critical impact",
        }
    }

    fn tone(self) -> Tone {
        match self {
            Self::None => Tone::Note,
            Self::Minor => Tone::Minor,
            Self::Major => Tone::Major,
            Self::Critical => Tone::Critical,
        }
    }
}

impl Shown for Indicator {
    fn label(self) -> &'static str {
        self.description()
    }

    fn tone(self) -> Tone {
        match self {
            Self::None => Tone::Ok,
            Self::Maintenance => Tone::Care,
            Self::Minor => Tone::Minor,
            Self::Major => Tone::Major,
            Self::Critical => Tone::Critical,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_script_and_the_style_sheet_know_the_same_words() {
        let script = super::super::script::SCRIPT;
        for status in ComponentStatus::ALL {
            let line =
                format!("{}: [\"{}\", \"{}\"]", status.as_str(), status.tone(), status.label());
            assert!(script.contains(&line), "{line}");
        }
        for impact in Impact::ALL {
            let line =
                format!("{}: [\"{}\", \"{}\"]", impact.as_str(), impact.tone(), impact.label());
            assert!(script.contains(&line), "{line}");
        }
        for status in IncidentStatus::ALL {
            assert!(script.contains(&format!("{}: \"{}\"", status.as_str(), status.label())));
        }
        for tone in ["ok", "minor", "major", "critical", "care"] {
            assert!(super::super::style::STYLE.contains(&format!("[data-tone={tone}]")));
        }
    }
}
