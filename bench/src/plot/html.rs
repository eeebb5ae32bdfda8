//! Strokes as a page without anything from elsewhere: an SVG inside HTML.

use std::fmt::Write as _;

use crate::plot::{Anchor, Color, Stroke, WIDTH};

pub(super) fn page(strokes: &[Stroke], height: f64, title: &str) -> String {
    let title = escape(title);
    let mut text = format!(
        "<!doctype html>\n<html lang=\"en\"><meta charset=\"utf-8\"><title>{title}</title>\n\
         <svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height}\" \
         font-family=\"sans-serif\" font-size=\"12\">\n\
         <rect width=\"{WIDTH}\" height=\"{height}\" fill=\"white\"/>\n"
    );
    for stroke in strokes {
        // Writing to a string cannot fail.
        let _ = match stroke {
            Stroke::Line { from, to, color } => writeln!(
                text,
                "<path d=\"M{:.1} {:.1}L{:.1} {:.1}\" stroke=\"{}\"/>",
                from.0,
                from.1,
                to.0,
                to.1,
                name(*color)
            ),
            Stroke::Words { at, anchor, text: words, color } => writeln!(
                text,
                "<text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"{}\" fill=\"{}\">{}</text>",
                at.0,
                at.1,
                match anchor {
                    Anchor::Left => "start",
                    Anchor::Middle => "middle",
                    Anchor::Right => "end",
                },
                name(*color),
                escape(words)
            ),
        };
    }
    text + "</svg>\n</html>\n"
}

fn name(Color(red, green, blue): Color) -> String {
    format!("#{red:02x}{green:02x}{blue:02x}")
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}
