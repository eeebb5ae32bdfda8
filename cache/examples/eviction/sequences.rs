//! Request sequences: generated from one seed, or read from a trace.

use std::{collections::HashMap, fs};

/// Requests of a generated sequence.
pub const REQUESTS: usize = 2_000_000;
/// Items that a generated sequence asks for again.
pub const ITEMS: usize = 100_000;

/// Who asks for what.
pub struct Sequence {
    pub name: String,
    /// Items by number, dense.
    pub items: Vec<u32>,
    /// Bytes of each item.
    pub bytes: Vec<u32>,
    /// Bytes of all items that are asked for again and again; what a share of a cache is a share of.
    pub whole_bytes: u64,
}

/// A trace: a request a line, in their order: a key and a size in bytes, separated by white space; the
/// size 1 where it is missing. The last size of a key counts. Further words, and lines without any,
/// are not looked at.
pub fn read(path: &str) -> Result<Sequence, String> {
    let text = fs::read_to_string(path).map_err(|error| format!("reading {path}: {error}"))?;
    let mut numbers = HashMap::new();
    let (mut items, mut bytes) = (Vec::new(), Vec::new());
    for (at, line) in text.lines().enumerate() {
        let mut words = line.split_whitespace();
        let Some(key) = words.next() else { continue };
        let size = words.next().map_or(Ok(1), str::parse::<u32>);
        let size =
            size.map_err(|_| format!("{path}:{}: a key and a size were expected", at + 1))?;
        let number = *numbers.entry(key.to_owned()).or_insert_with(|| {
            bytes.push(size);
            bytes.len() as u32 - 1
        });
        bytes[number as usize] = size.max(1);
        items.push(number);
    }
    if items.is_empty() {
        return Err(format!("{path}: no requests"));
    }
    let whole_bytes = bytes.iter().map(|&bytes| u64::from(bytes)).sum();
    Ok(Sequence { name: path.to_owned(), items, bytes, whole_bytes })
}

/// The generated ones.
pub fn generated() -> Vec<Sequence> {
    let sequence = |name: &str, exponent, shift_every, scan| {
        let items = zipf(exponent, shift_every, scan);
        let count = items.iter().max().map_or(0, |&last| last as usize + 1);
        let (name, whole_bytes) = (name.to_owned(), ITEMS as u64);
        Sequence { name, items, bytes: vec![1; count], whole_bytes }
    };
    vec![
        sequence("Zipf 0.8", 0.8, 0, 0.0),
        sequence("Zipf 1.0", 1.0, 0, 0.0),
        sequence("Zipf 1.2", 1.2, 0, 0.0),
        sequence("Zipf 1.0, 30 % scan", 1.0, 0, 0.3),
        sequence("Zipf 1.0, popularity shifts each 100,000", 1.0, 100_000, 0.0),
        sequence("Zipf 0.8, popularity shifts each 20,000", 0.8, 20_000, 0.0),
    ]
}

/// Items by Zipf's law. With `shift_every`, the most popular thousandth changes places with others
/// that often; `scan` is the share of requests that run through items nobody asks for again.
fn zipf(exponent: f64, shift_every: usize, scan: f64) -> Vec<u32> {
    let mut random = Random(0x9e37_79b9_7f4a_7c15);
    let mut sum = 0.0;
    let sums: Vec<f64> = (1..=ITEMS)
        .map(|rank| {
            sum += (rank as f64).powf(-exponent);
            sum
        })
        .collect();
    let mut items: Vec<u32> = (0..ITEMS as u32).collect();
    let mut scanned = ITEMS as u32;
    (0..REQUESTS)
        .map(|at| {
            if shift_every > 0 && at % shift_every == 0 {
                for rank in 0..ITEMS / 1000 {
                    items.swap(rank, random.below(ITEMS));
                }
            }
            if random.unit() < scan {
                scanned += 1;
                return scanned;
            }
            let wanted = random.unit() * sum;
            items[sums.partition_point(|&sum| sum < wanted).min(ITEMS - 1)]
        })
        .collect()
}

/// SplitMix64.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut bits = self.0;
        bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        bits ^ (bits >> 31)
    }

    fn unit(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1u64 << 53) as f64
    }

    fn below(&mut self, end: usize) -> usize {
        (self.unit() * end as f64) as usize
    }
}
