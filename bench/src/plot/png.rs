//! Strokes as an image of twice their size in pixels, with letters of eight by eight from a table,
//! because a machine that measures may have no fonts.

use font8x8::{BASIC_FONTS, UnicodeFonts};

use crate::{
    failure::Failure,
    plot::{Anchor, Color, Stroke, WIDTH},
};

struct Canvas {
    width: usize,
    height: usize,
    /// Red, green, blue of each pixel, by rows.
    pixels: Vec<u8>,
}

/// # Errors
/// The image cannot be encoded.
pub(super) fn image(strokes: &[Stroke], height: f64) -> Result<Vec<u8>, Failure> {
    let (width, height) = ((WIDTH * SCALE) as usize, (height * SCALE).ceil() as usize);
    let mut canvas = Canvas { width, height, pixels: vec![255; width * height * 3] };
    for stroke in strokes {
        match stroke {
            Stroke::Line { from, to, color } => canvas.line(*from, *to, *color),
            Stroke::Words { at, anchor, text, color } => canvas.words(*at, *anchor, text, *color),
        }
    }
    let failed = |error| Failure::error("encode the drawing").because(error);
    let mut bytes = Vec::new();
    let mut encoder = png::Encoder::new(&mut bytes, width as u32, height as u32);
    encoder.set_color(png::ColorType::Rgb);
    let mut writer = encoder.write_header().map_err(failed)?;
    writer.write_image_data(&canvas.pixels).map_err(failed)?;
    writer.finish().map_err(failed)?;
    Ok(bytes)
}

impl Canvas {
    fn dot(&mut self, x: i64, y: i64, Color(red, green, blue): Color) {
        let inside = |at: i64, size: usize| usize::try_from(at).ok().filter(|at| *at < size);
        if let Some((x, y)) = inside(x, self.width).zip(inside(y, self.height)) {
            let at = (y * self.width + x) * 3;
            self.pixels[at..at + 3].copy_from_slice(&[red, green, blue]);
        }
    }

    /// Two pixels thick.
    fn line(&mut self, from: (f64, f64), to: (f64, f64), color: Color) {
        let (dx, dy) = ((to.0 - from.0) * SCALE, (to.1 - from.1) * SCALE);
        let steps = dx.abs().max(dy.abs()).ceil().max(1.0);
        for step in 0..=steps as u32 {
            let part = f64::from(step) / steps;
            let (x, y) = (from.0 * SCALE + dx * part, from.1 * SCALE + dy * part);
            for (right, down) in [(0, 0), (1, 0), (0, 1), (1, 1)] {
                self.dot(x as i64 + right, y as i64 + down, color);
            }
        }
    }

    fn words(&mut self, at: (f64, f64), anchor: Anchor, text: &str, color: Color) {
        let width = text.chars().count() as i64 * LETTER;
        let left = (at.0 * SCALE) as i64
            - match anchor {
                Anchor::Left => 0,
                Anchor::Middle => width / 2,
                Anchor::Right => width,
            };
        let top = (at.1 * SCALE) as i64 - LETTER;
        for (number, letter) in (0_i64..).zip(text.chars()) {
            let Some(rows) = BASIC_FONTS.get(letter) else { continue };
            for (y, row) in (0_i64..).zip(rows) {
                for x in (0..8).filter(|x| row & (1 << x) != 0) {
                    for (right, down) in [(0, 0), (1, 0), (0, 1), (1, 1)] {
                        let x = left + number * LETTER + x * 2 + right;
                        self.dot(x, top + y * 2 + down, color);
                    }
                }
            }
        }
    }
}

/// Pixels a unit.
const SCALE: f64 = 2.0;
/// Pixels of a letter, each way.
const LETTER: i64 = 16;
