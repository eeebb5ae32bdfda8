//! Putting back what was kept on disk, after a start (DESIGN §1: the edge does not need control).
//!
//! A restored entry is soft from the beginning: it is never fresh, because nobody knows what has
//! happened since, but it is there to be validated, and to be served as stale when the origin does
//! not answer.

use std::sync::Arc;

use crate::{
    Cache, body::Body, decision::NoStoreReason, draft::Draft, entry::Entry, key::CacheKeyRef,
    request::FieldSource, response::Response, storability::Asked,
};

impl Cache {
    /// Stores a response that was stored before. Its times are those of its arrival then; `request`
    /// has the fields of a request that selects it, for `Vary`. What is stored already stays.
    pub fn restore(
        &self,
        cache_key: &CacheKeyRef<'_>,
        request: &dyn FieldSource,
        response: &Response<'_>,
        body: &[u8],
    ) -> Result<Arc<Entry>, NoStoreReason> {
        let length = Some(body.len() as u64);
        let response = Response { length, ..*response };
        let draft = Draft::of(self, cache_key, Asked::GET, None, request, &response)?;
        self.admit(length)?;
        let body = Arc::new(Body::complete(self.account(), body.into()));
        let key = cache_key.to_key();
        let entry = Arc::new(draft.entry(self, &key, body, None));
        entry.soften();
        let mut segment = self.segment_by_hash(cache_key.hash());
        if let Some(stored) = segment.select(cache_key, request).cloned() {
            entry.kill();
            return Ok(stored);
        }
        let removed = segment.insert(&entry, false);
        drop(segment);
        drop(removed);
        Ok(entry)
    }
}
