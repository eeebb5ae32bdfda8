//! The format of what an edge keeps on disk: an envelope that tells a whole file from a torn or
//! foreign one, and the stored pages inside.
//!
//! ```text
//!   envelope   "PHAROSLK" │ format u16 │ kind u16 │ length u64 │ checksum u64 │ content
//!   pages      (response_at_ms u64, host, target, head, body)*   texts each behind a length u32
//! ```
//! Numbers are little-endian. Files are replaced whole, so a bad one is the disk's or a person's
//! doing: it is ignored, and named in the log. The checksum (FNV-1a, 64 bits) is against accidents,
//! not against people who can write to the data folder.
//!
//! Leaves to others: which files there are and when they are written (`last_known`).

use std::fmt;

/// What a file holds.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    /// JSON of sites and pages.
    Configuration = 1,
    /// Text of the feed's cursor.
    Cursor = 2,
    /// Stored pages.
    Pages = 3,
}

/// Why a file is ignored.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Bad {
    /// Shorter than it says, or than anything.
    Torn,
    /// Not one of ours.
    Foreign,
    /// Of a format that this version does not read.
    Format(u16),
    /// Another kind than its name says.
    Kind,
    /// The checksum does not fit.
    Checksum,
    /// The content does not parse.
    Content,
}

impl fmt::Display for Bad {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Torn => f.write_str("cut off"),
            Self::Foreign => f.write_str("not written by Pharos"),
            Self::Format(format) => write!(f, "of format {format}, this version reads {FORMAT}"),
            Self::Kind => f.write_str("another file of ours under this name"),
            Self::Checksum => f.write_str("damaged: the checksum does not fit"),
            Self::Content => f.write_str("damaged: the content cannot be read"),
        }
    }
}

impl std::error::Error for Bad {}

/// One stored response of a page.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct KeptPage<'a> {
    /// Host of its cache key.
    pub host: &'a [u8],
    /// Target of its cache key.
    pub target: &'a [u8],
    /// When it arrived, wall clock.
    pub response_at_ms: u64,
    /// Status line and fields, each with its line end.
    pub head: &'a [u8],
    /// Its whole body.
    pub body: &'a [u8],
}

/// A whole file.
pub fn seal(kind: Kind, content: &[u8]) -> Vec<u8> {
    let mut file = Vec::with_capacity(ENVELOPE_BYTES + content.len());
    file.extend_from_slice(MAGIC);
    file.extend_from_slice(&FORMAT.to_le_bytes());
    file.extend_from_slice(&(kind as u16).to_le_bytes());
    file.extend_from_slice(&(content.len() as u64).to_le_bytes());
    file.extend_from_slice(&checksum(content).to_le_bytes());
    file.extend_from_slice(content);
    file
}

/// The content of a whole file.
pub fn open(kind: Kind, file: &[u8]) -> Result<&[u8], Bad> {
    let mut input = file;
    if take(&mut input, MAGIC.len())? != MAGIC {
        return Err(Bad::Foreign);
    }
    let format = u16::from_le_bytes(take_array(&mut input)?);
    if format != FORMAT {
        return Err(Bad::Format(format));
    }
    if u16::from_le_bytes(take_array(&mut input)?) != kind as u16 {
        return Err(Bad::Kind);
    }
    let length = u64::from_le_bytes(take_array(&mut input)?);
    let expected = u64::from_le_bytes(take_array(&mut input)?);
    if input.len() as u64 != length {
        return Err(Bad::Torn);
    }
    if checksum(input) != expected {
        return Err(Bad::Checksum);
    }
    Ok(input)
}

/// Appends a page to the content of a file.
pub fn push_page(content: &mut Vec<u8>, page: &KeptPage<'_>) {
    content.extend_from_slice(&page.response_at_ms.to_le_bytes());
    for part in [page.host, page.target, page.head, page.body] {
        // Each part is far below 4 GiB, by the limits of what is kept.
        content.extend_from_slice(&(part.len() as u32).to_le_bytes());
        content.extend_from_slice(part);
    }
}

/// The pages in the content of a file.
pub fn pages(mut content: &[u8]) -> Result<Vec<KeptPage<'_>>, Bad> {
    let mut all = Vec::new();
    while !content.is_empty() {
        all.push(take_page(&mut content).map_err(|_| Bad::Content)?);
    }
    Ok(all)
}

fn take_page<'a>(input: &mut &'a [u8]) -> Result<KeptPage<'a>, Bad> {
    let response_at_ms = u64::from_le_bytes(take_array(input)?);
    let mut part = || {
        let length = u32::from_le_bytes(take_array(input)?);
        take(input, length as usize)
    };
    let (host, target, head, body) = (part()?, part()?, part()?, part()?);
    Ok(KeptPage { host, target, response_at_ms, head, body })
}

fn take<'a>(input: &mut &'a [u8], length: usize) -> Result<&'a [u8], Bad> {
    let (taken, rest) = input.split_at_checked(length).ok_or(Bad::Torn)?;
    *input = rest;
    Ok(taken)
}

fn take_array<const N: usize>(input: &mut &[u8]) -> Result<[u8; N], Bad> {
    take(input, N)?.try_into().map_err(|_| Bad::Torn)
}

/// FNV-1a, 64 bits. Also spreads pages over files.
pub fn checksum(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, &byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
    })
}

const MAGIC: &[u8; 8] = b"PHAROSLK";
const FORMAT: u16 = 1;
const ENVELOPE_BYTES: usize = 28;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn content() -> Vec<u8> {
        let mut content = Vec::new();
        for n in 0..3u8 {
            let body = vec![n; 300];
            push_page(
                &mut content,
                &KeptPage {
                    host: b"h",
                    target: b"/pages/p/",
                    response_at_ms: u64::from(n),
                    head: b"HTTP/1.1 200 OK\r\n",
                    body: &body,
                },
            );
        }
        content
    }

    #[test]
    fn what_was_sealed_opens() {
        let content = content();
        let file = seal(Kind::Pages, &content);
        assert_eq!(open(Kind::Pages, &file), Ok(&content[..]));
        let pages = pages(&content).expect("three pages");
        assert_eq!((pages.len(), pages[2].body[0], pages[1].response_at_ms), (3, 2, 1));
    }

    #[test]
    fn a_file_of_another_kind_or_format_is_named() {
        let file = seal(Kind::Cursor, b"x");
        assert_eq!(open(Kind::Pages, &file), Err(Bad::Kind));
        assert_eq!(open(Kind::Cursor, b"{\"json\": true}"), Err(Bad::Foreign));
        let mut newer = file;
        newer[8] = 9;
        assert_eq!(open(Kind::Cursor, &newer), Err(Bad::Format(9)));
        assert_eq!(open(Kind::Cursor, b""), Err(Bad::Torn));
    }

    proptest! {
        #[test]
        fn a_torn_or_flipped_file_never_opens(cut in 0usize..1000, at in 0usize..1000, bit in 0u8..8) {
            let content = content();
            let file = seal(Kind::Pages, &content);
            prop_assert!(open(Kind::Pages, &file[..cut % file.len()]).is_err());
            let mut flipped = file.clone();
            flipped[at % file.len()] ^= 1 << bit;
            prop_assert!(open(Kind::Pages, &flipped).is_err());
        }

        #[test]
        fn any_bytes_are_pages_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = pages(&bytes);
        }
    }
}
