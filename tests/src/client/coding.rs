//! Takes the content coding off a response, by the decoders that others use.

use std::io::Read;

use super::http::Reply;

/// The content as it was before it was encoded; `None` if it is not of the coding that the response
/// names.
pub fn content(reply: &Reply) -> Option<Vec<u8>> {
    let (mut content, bytes) = (Vec::new(), &reply.body[..]);
    match reply.field("content-encoding") {
        None => return Some(reply.body.clone()),
        Some("gzip") => flate2::read::GzDecoder::new(bytes).read_to_end(&mut content).ok()?,
        Some("br") => brotli::Decompressor::new(bytes, 4096).read_to_end(&mut content).ok()?,
        Some("zstd") => zstd::Decoder::new(bytes).ok()?.read_to_end(&mut content).ok()?,
        Some(_) => return None,
    };
    Some(content)
}
