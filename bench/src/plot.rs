//! Drawings of a run: charts laid out as lines and words, which `html` and `png` put on their
//! canvas. One layout, two canvases: both show the same.
//!
//! Leaves to others: what is measured (`streams`).

mod html;
mod png;

use std::{fs, path::Path};

use crate::{failure::Failure, streams::found::SseRun};

/// One chart.
#[derive(Clone, Debug)]
pub(crate) struct Chart {
    title: String,
    /// What x is.
    across: Axis,
    /// What y is.
    up: Axis,
    lines: Vec<Line>,
    /// Upright lines: where, and what begins there.
    marks: Vec<(f64, String)>,
}

#[derive(Clone, Debug)]
struct Axis {
    label: &'static str,
    scale: Scale,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Scale {
    /// From 0.
    Linear,
    /// Powers of ten.
    Log,
    /// A share below 1: as many nines as it has.
    Nines,
}

#[derive(Clone, Debug)]
struct Line {
    label: &'static str,
    points: Vec<(f64, f64)>,
}

/// What a canvas draws. Positions in units of a canvas of [`WIDTH`] by its height.
#[derive(Clone, Debug)]
enum Stroke {
    Line {
        from: (f64, f64),
        to: (f64, f64),
        color: Color,
    },
    /// `at` is the left end of the base line, or its middle or right end.
    Words {
        at: (f64, f64),
        anchor: Anchor,
        text: String,
        color: Color,
    },
}

#[derive(Clone, Copy, Debug)]
struct Color(u8, u8, u8);

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Anchor {
    Left,
    Middle,
    Right,
}

/// Writes `<path>.html` and `<path>.png`.
///
/// # Errors
/// A file cannot be written.
pub(crate) fn write(path: &Path, charts: &[Chart], title: &str) -> Result<(), Failure> {
    let (strokes, height) = layout(charts, title);
    let put = |end: &str, bytes: &[u8]| {
        let path = format!("{}.{end}", path.display());
        fs::write(&path, bytes)
            .map_err(|error| Failure::error(format!("write {path}")).because(error))
    };
    put("html", html::page(&strokes, height, title).as_bytes())?;
    put("png", &png::image(&strokes, height)?)
}

/// Charts of a holding of streams, of what it has.
pub(crate) fn of_streams(run: &SseRun) -> Vec<Chart> {
    let time = || Axis { label: "seconds", scale: Scale::Linear };
    let line = |label, points: Vec<(f64, f64)>| Line { label, points };
    let marks = || run.marks.iter().map(|mark| (mark.at_s, mark.what.to_owned())).collect();
    let chart = |title: &str, up, lines| Chart {
        title: title.to_owned(),
        across: time(),
        up: Axis { label: up, scale: Scale::Linear },
        lines,
        marks: marks(),
    };
    let samples = &run.samples;
    let open = samples.iter().map(|sample| (sample.at_s, f64::from(sample.open))).collect();
    let mut charts = vec![chart("open streams", "", vec![line("open", open)])];
    let rates = |of: &dyn Fn(usize) -> Option<f64>| -> Vec<(f64, f64)> {
        let rate = |at: usize| {
            let seconds = samples[at].at_s - samples[at - 1].at_s;
            Some((samples[at].at_s, (of(at)? - of(at - 1)?) / seconds.max(1e-3)))
        };
        (1..samples.len()).filter_map(rate).collect()
    };
    let busy: Vec<(f64, f64)> = rates(&|at| samples[at].cpu_s);
    if !busy.is_empty() {
        let busy = busy.into_iter().map(|(at, share)| (at, 100.0 * share)).collect();
        charts.push(chart("CPU of the server", "% of a core", vec![line("busy", busy)]));
        let mib = |bytes: u64| bytes as f64 / f64::from(1 << 20);
        let rss = samples.iter().filter_map(|sample| Some((sample.at_s, mib(sample.rss_bytes?))));
        let rss = rss.collect();
        charts.push(chart("resident memory of the server", "MiB", vec![line("resident", rss)]));
    }
    let told = vec![
        line("deliveries", rates(&|at| Some(samples[at].deliveries as f64))),
        line("beats", rates(&|at| Some(samples[at].beats as f64))),
    ];
    charts.push(chart("told", "a second", told));
    if run.delay_curve.len() > 1 {
        let ms = |us: u64| us as f64 / 1e3;
        let curve = run.delay_curve.iter().filter(|(share, _)| *share < 1.0);
        charts.push(Chart {
            title: format!("delay of {} deliveries, from the intended publish", run.deliveries),
            across: Axis { label: "share of deliveries", scale: Scale::Nines },
            up: Axis { label: "ms", scale: Scale::Log },
            lines: vec![line("at most", curve.map(|(share, us)| (*share, ms(*us))).collect())],
            marks: Vec::new(),
        });
    }
    charts
}

// ---- layout ----

/// All charts below each other, and the height they take.
fn layout(charts: &[Chart], title: &str) -> (Vec<Stroke>, f64) {
    let mut strokes = vec![Stroke::Words {
        at: (LEFT, 20.0),
        anchor: Anchor::Left,
        text: title.chars().take(TITLE_MAX).collect(),
        color: INK,
    }];
    for (at, chart) in charts.iter().enumerate() {
        place(chart, 40.0 + at as f64 * (HEIGHT + GAP), &mut strokes);
    }
    (strokes, 40.0 + charts.len() as f64 * (HEIGHT + GAP))
}

fn place(chart: &Chart, top: f64, strokes: &mut Vec<Stroke>) {
    let points = || chart.lines.iter().flat_map(|line| &line.points);
    let across = Range::of(chart.across.scale, points().map(|point| point.0));
    let up = Range::of(chart.up.scale, points().map(|point| point.1));
    let (bottom, right) = (top + HEIGHT, WIDTH - RIGHT);
    let x = |value: f64| LEFT + across.place(value) * (right - LEFT);
    let y = |value: f64| bottom - up.place(value) * (HEIGHT - 20.0);
    let words = |at, anchor, text: String, color| Stroke::Words { at, anchor, text, color };
    let title = match chart.up.label {
        "" => chart.title.clone(),
        unit => format!("{}, {unit}", chart.title),
    };
    strokes.push(words((LEFT, top + 10.0), Anchor::Left, title, INK));
    for tick in up.ticks() {
        let (from, to) = ((LEFT, y(tick)), (right, y(tick)));
        strokes.push(Stroke::Line { from, to, color: GRID });
        strokes.push(words((LEFT - 6.0, y(tick) + 4.0), Anchor::Right, number(tick), INK));
    }
    for tick in across.ticks() {
        let (from, to) = ((x(tick), bottom), (x(tick), bottom + 4.0));
        strokes.push(Stroke::Line { from, to, color: INK });
        let text = match chart.across.scale {
            Scale::Nines => share(tick),
            _ => number(tick),
        };
        strokes.push(words((x(tick), bottom + 15.0), Anchor::Middle, text, INK));
    }
    let label = chart.across.label.to_owned();
    strokes.push(words((right, bottom + 27.0), Anchor::Right, label, INK));
    let (from, to) = ((LEFT, bottom), (right, bottom));
    strokes.push(Stroke::Line { from, to, color: INK });
    for (at, what) in &chart.marks {
        let (from, to) = ((x(*at), top + 24.0), (x(*at), bottom));
        strokes.push(Stroke::Line { from, to, color: MARK });
        let (aside, anchor) = match x(*at) > right - 60.0 {
            true => (-3.0, Anchor::Right),
            false => (3.0, Anchor::Left),
        };
        strokes.push(words((x(*at) + aside, top + 30.0), anchor, what.clone(), MARK));
    }
    let mut label_at = right;
    for (line, color) in chart.lines.iter().zip(COLORS.into_iter().cycle()) {
        for pair in line.points.windows(2) {
            let (from, to) = ((x(pair[0].0), y(pair[0].1)), (x(pair[1].0), y(pair[1].1)));
            strokes.push(Stroke::Line { from, to, color });
        }
        strokes.push(words((label_at, top + 10.0), Anchor::Right, line.label.to_owned(), color));
        label_at -= 12.0 + 8.0 * line.label.len() as f64;
    }
}

/// What an axis covers, in its own measure: the value, its logarithm, or its nines.
#[derive(Clone, Copy, Debug)]
struct Range {
    scale: Scale,
    from: f64,
    to: f64,
}

impl Range {
    fn of(scale: Scale, values: impl Iterator<Item = f64>) -> Self {
        let measured = values.map(|value| measure(scale, value)).filter(|value| value.is_finite());
        let (from, to) = measured
            .fold((f64::MAX, f64::MIN), |(from, to), value| (value.min(from), value.max(to)));
        let (from, to) = match scale {
            Scale::Linear | Scale::Nines => (0.0, to),
            Scale::Log => (from.floor(), to.ceil()),
        };
        if to > from { Self { scale, from, to } } else { Self { scale, from: 0.0, to: 1.0 } }
    }

    /// From 0 to 1.
    fn place(&self, value: f64) -> f64 {
        let measured = measure(self.scale, value);
        ((measured - self.from) / (self.to - self.from)).clamp(0.0, 1.0)
    }

    fn ticks(&self) -> Vec<f64> {
        match self.scale {
            Scale::Linear => {
                let step = step(self.to);
                let count = (self.to / step).floor();
                // Saturates, and is at most ten.
                (0..=count as u32).map(|tick| f64::from(tick) * step).collect()
            }
            Scale::Log => {
                (self.from as i32..=self.to as i32).map(|power| 10_f64.powi(power)).collect()
            }
            Scale::Nines => (0..=self.to as i32).map(|nines| 1.0 - 10_f64.powi(-nines)).collect(),
        }
    }
}

fn measure(scale: Scale, value: f64) -> f64 {
    match scale {
        Scale::Linear => value,
        Scale::Log => value.max(1e-6).log10(),
        Scale::Nines => -(1.0 - value).max(1e-12).log10(),
    }
}

/// 1, 2 or 5 times a power of ten, four to ten of which make `to`.
fn step(to: f64) -> f64 {
    let power = 10_f64.powf(to.log10().floor());
    let steps = [0.1, 0.2, 0.5, 1.0].map(|part| part * power);
    steps.into_iter().find(|step| to / step <= 10.0).unwrap_or(power)
}

fn number(value: f64) -> String {
    let (scaled, unit) = match value.abs() {
        1e6.. => (value / 1e6, "M"),
        1e4.. => (value / 1e3, "k"),
        _ => (value, ""),
    };
    let text = format!("{scaled:.3}");
    let text = text.trim_end_matches('0').trim_end_matches('.');
    format!("{text}{unit}")
}

/// As `99.9 %`.
fn share(value: f64) -> String {
    let text = format!("{:.6}", 100.0 * value);
    format!("{} %", text.trim_end_matches('0').trim_end_matches('.'))
}

const WIDTH: f64 = 960.0;
/// Of one chart.
const HEIGHT: f64 = 170.0;
const GAP: f64 = 50.0;
const LEFT: f64 = 90.0;
const RIGHT: f64 = 20.0;
/// Letters of the title that fit the width.
const TITLE_MAX: usize = 105;
const INK: Color = Color(40, 40, 40);
const GRID: Color = Color(225, 225, 225);
const MARK: Color = Color(150, 110, 20);
const COLORS: [Color; 3] = [Color(30, 90, 180), Color(190, 50, 40), Color(40, 130, 60)];

#[cfg(test)]
mod tests {
    use super::*;

    fn chart() -> Chart {
        Chart {
            title: "a < b".into(),
            across: Axis { label: "seconds", scale: Scale::Linear },
            up: Axis { label: "ms", scale: Scale::Log },
            lines: vec![Line { label: "x", points: vec![(0.0, 0.5), (30.0, 90.0)] }],
            marks: vec![(10.0, "now".into())],
        }
    }

    #[test]
    fn both_canvases_show_every_stroke() {
        let folder = tempfile::tempdir().expect("folder");
        let path = folder.path().join("plot");
        write(&path, &[chart(), chart()], "t & u").expect("written");
        let page = fs::read_to_string(folder.path().join("plot.html")).expect("a page");
        assert!(page.contains("a &lt; b") && page.contains("t &amp; u") && page.contains("<svg"));
        let image = fs::read(folder.path().join("plot.png")).expect("an image");
        assert!(image.starts_with(b"\x89PNG\r\n\x1a\n"));
    }

    #[test]
    fn ticks_are_round_and_cover_the_range() {
        let ticks = |scale, to| Range { scale, from: 0.0, to }.ticks();
        assert_eq!(
            ticks(Scale::Linear, 42.0),
            [0.0, 5.0, 10.0, 15.0, 20.0, 25.0, 30.0, 35.0, 40.0]
        );
        assert_eq!(ticks(Scale::Log, 2.0), [1.0, 10.0, 100.0]);
        assert_eq!(ticks(Scale::Nines, 2.3).last().map(|tick| share(*tick)), Some("99 %".into()));
        assert_eq!([number(0.25), number(1e6), number(2e4)], ["0.25", "1M", "20k"]);
    }

    #[test]
    fn a_range_is_in_the_measure_of_its_scale() {
        let range = Range::of(Scale::Log, [0.5, 90.0].into_iter());
        assert_eq!((range.place(0.1), range.place(100.0)), (0.0, 1.0));
        let empty = Range::of(Scale::Linear, std::iter::empty());
        assert_eq!((empty.from, empty.to), (0.0, 1.0));
    }
}
