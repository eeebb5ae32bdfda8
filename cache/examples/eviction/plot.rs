//! The table as a picture: a panel a sequence, a line a policy.

use std::fmt::Write as _;

/// Hit ratios of one sequence: by policy, then by size of the cache.
pub struct Panel {
    pub name: String,
    pub ratios: Vec<Vec<f64>>,
}

const WIDTH: f64 = 300.0;
const HEIGHT: f64 = 190.0;
const COLORS: [&str; 6] = ["#888888", "#d08000", "#2060d0", "#20a060", "#c02040", "#000000"];

/// An SVG of panels, three a row.
pub fn svg(panels: &[Panel], policies: &[&str], sizes: &[&str]) -> String {
    let rows = panels.len().div_ceil(3);
    let (width, height) = (3.0 * WIDTH + 20.0, rows as f64 * HEIGHT + 40.0);
    let mut text = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width} {height}\" \
         font-family=\"sans-serif\" font-size=\"10\">\n\
         <rect width=\"{width}\" height=\"{height}\" fill=\"white\"/>\n"
    );
    for (at, panel) in panels.iter().enumerate() {
        let (left, top) = ((at % 3) as f64 * WIDTH + 40.0, (at / 3) as f64 * HEIGHT + 25.0);
        draw(&mut text, panel, (left, top), sizes);
    }
    for (at, policy) in policies.iter().enumerate() {
        let (x, y) = (40.0 + at as f64 * 120.0, height - 8.0);
        let color = COLORS[at % COLORS.len()];
        let _ = writeln!(text, "<text x=\"{x}\" y=\"{y}\" fill=\"{color}\">━ {policy}</text>");
    }
    text + "</svg>\n"
}

fn draw(text: &mut String, panel: &Panel, (left, top): (f64, f64), sizes: &[&str]) {
    let (wide, high) = (WIDTH - 60.0, HEIGHT - 55.0);
    let x = |at: usize| left + wide * at as f64 / (sizes.len() - 1).max(1) as f64;
    let y = |ratio: f64| top + high * (1.0 - ratio);
    let _ = writeln!(text, "<text x=\"{left}\" y=\"{}\">{}</text>", top - 8.0, panel.name);
    for tenth in [0, 5, 10] {
        let (ratio, at) = (f64::from(tenth) / 10.0, left - 25.0);
        let (y, right) = (y(ratio), left + wide);
        let _ = writeln!(
            text,
            "<path d=\"M{left} {y}H{right}\" stroke=\"#dddddd\"/>\
             <text x=\"{at}\" y=\"{}\">{ratio:.1}</text>",
            y + 3.0
        );
    }
    for (at, size) in sizes.iter().enumerate() {
        let (x, y) = (x(at) - 8.0, top + high + 14.0);
        let _ = writeln!(text, "<text x=\"{x}\" y=\"{y}\">{size}</text>");
    }
    for (policy, ratios) in panel.ratios.iter().enumerate() {
        let points = ratios.iter().enumerate();
        let points = points.map(|(at, &ratio)| format!("{:.1},{:.1}", x(at), y(ratio)));
        let _ = writeln!(
            text,
            "<polyline fill=\"none\" stroke-width=\"1.5\" stroke=\"{}\" points=\"{}\"/>",
            COLORS[policy % COLORS.len()],
            points.collect::<Vec<_>>().join(" ")
        );
    }
}
