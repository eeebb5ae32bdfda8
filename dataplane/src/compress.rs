//! Bytes → the same bytes in a content coding. Pure and slow: helper threads call it, and the
//! simulator.
//!
//! Leaves to others: what is worth it, and for whom (`cache`), when (`shard::encoding`).

use std::io::{self, Write};

use bytes::Bytes;
use cache::Coding;
use flate2::{Compression, GzBuilder};
use serde::{Deserialize, Serialize};

/// How hard each coding tries.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Levels {
    /// 0 to 11.
    pub br: u8,
    /// 1 to 19.
    pub zstd: u8,
    /// 1 to 9.
    pub gzip: u8,
}

impl Levels {
    /// The level of a coding.
    pub fn of(self, coding: Coding) -> u8 {
        match coding {
            Coding::Br => self.br,
            Coding::Zstd => self.zstd,
            Coding::Gzip => self.gzip,
        }
    }

    /// The levels that a coding has.
    pub fn range(coding: Coding) -> std::ops::RangeInclusive<u8> {
        match coding {
            Coding::Br => 0..=11,
            Coding::Zstd => 1..=19,
            Coding::Gzip => 1..=9,
        }
    }
}

impl Default for Levels {
    fn default() -> Self {
        Self { br: 5, zstd: 9, gzip: 6 }
    }
}

/// Encodes `content`, its pieces in order.
///
/// # Errors
/// What the library says; none is known for these levels and bytes in memory.
pub fn compress(coding: Coding, level: u8, content: &[Bytes]) -> io::Result<Vec<u8>> {
    let length: usize = content.iter().map(Bytes::len).sum();
    let to = Vec::with_capacity(length / 4 + 64);
    match coding {
        Coding::Br => {
            let params = brotli::enc::BrotliEncoderParams {
                quality: level.into(),
                lgwin: BR_WINDOW_BITS,
                size_hint: length,
                ..Default::default()
            };
            let mut encoder = brotli::CompressorWriter::with_params(to, BUFFER_BYTES, &params);
            write_all(&mut encoder, content)?;
            Ok(encoder.into_inner())
        }
        Coding::Zstd => {
            let mut encoder = zstd::Encoder::new(to, level.into())?;
            encoder.set_pledged_src_size(Some(length as u64))?;
            // RFC 9659: no decoder need have more than this.
            encoder.window_log(ZSTD_WINDOW_BITS.min(length.max(1 << 10).ilog2() + 1))?;
            write_all(&mut encoder, content)?;
            encoder.finish()
        }
        Coding::Gzip => {
            // Neither name nor time: the same bytes give the same bytes.
            let level = Compression::new(level.into());
            let mut encoder = GzBuilder::new().write(to, level);
            write_all(&mut encoder, content)?;
            encoder.finish()
        }
    }
}

fn write_all(to: &mut impl Write, content: &[Bytes]) -> io::Result<()> {
    content.iter().try_for_each(|piece| to.write_all(piece))
}

/// 4 MiB.
const BR_WINDOW_BITS: i32 = 22;
/// 8 MiB.
const ZSTD_WINDOW_BITS: u32 = 23;
const BUFFER_BYTES: usize = 4096;

#[cfg(test)]
mod tests {
    use std::io::Read;

    use super::*;

    fn decode(coding: Coding, bytes: &[u8]) -> Vec<u8> {
        let mut text = Vec::new();
        match coding {
            Coding::Br => brotli::Decompressor::new(bytes, 4096).read_to_end(&mut text),
            Coding::Zstd => zstd::Decoder::new(bytes).expect("made").read_to_end(&mut text),
            Coding::Gzip => flate2::read::GzDecoder::new(bytes).read_to_end(&mut text),
        }
        .expect("decodes");
        text
    }

    #[test]
    fn what_is_encoded_decodes_to_the_same_and_is_the_same_each_time() {
        for length in [0, 1, 1000, 70_000, 3_000_000] {
            let text: Vec<u8> = (0..length).map(|at| b"status page "[at % 12 * at % 12]).collect();
            let content: Vec<_> = text.chunks(16_000).map(Bytes::copy_from_slice).collect();
            for coding in Coding::ALL {
                let levels = [*Levels::range(coding).start(), Levels::default().of(coding)];
                for level in levels {
                    let bytes = compress(coding, level, &content).expect("in memory");
                    assert!(decode(coding, &bytes) == text, "{coding:?} {level} {length}");
                    assert!(length < 1000 || bytes.len() < length / 2);
                    assert_eq!(compress(coding, level, &content).expect("again"), bytes);
                }
            }
        }
    }
}
