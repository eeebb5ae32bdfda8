//! Control that lives, and says that it cannot answer yet.
//!
//! Leaves to others: when control says so (`control::public`), what may be served meanwhile
//! (`cache`).

use std::rc::Rc;

use proto::http1::head::ResponseHead;

use crate::{
    seam::Now,
    shard::{
        Edge,
        observe::Metric,
        outcome::{Failure, Outcome, StoredAnswer},
        slab::Ref,
    },
};

impl Edge {
    /// Control answers that it cannot answer yet (`Pharos-Wait`): it lives, so this is not the
    /// outage that what was purged is kept for (DESIGN §6). Who asked for a version that is not
    /// there is told so; nobody else hears of it. `false`: it is an answer like any other.
    pub(super) fn fetch_put_off(&mut self, now: Now, at: Ref, head: &ResponseHead<'_>) -> bool {
        let Some(fetch) = self.fetches.get_mut(at) else { return false };
        let is_page =
            self.control.as_ref().is_some_and(|it| Rc::ptr_eq(&it.origins, &fetch.origins));
        let Some(what) = head.fields.get("pharos-wait").filter(|_| is_page) else { return false };
        let is_version = what == b"version" || fetch.unannounced.is_some();
        if !is_version && !self.feed_state.connected {
            return false;
        }
        let Some(lease) = fetch.lease.take() else { return false };
        self.observe.count(Metric::PutOff);
        let stale = match is_version {
            true => {
                drop(lease);
                None
            }
            false => lease.busy(now.wall_ms, &mut self.wakes),
        };
        fetch.outcome = match stale {
            Some(entry) => Outcome::Stored(StoredAnswer::of_failed(entry, fetch.told)),
            None => Outcome::Failed(Failure::PutOff),
        };
        self.notices.extend(fetch.reader);
        true
    }
}
