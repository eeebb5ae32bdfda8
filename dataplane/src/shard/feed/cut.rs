//! Purges in the cache, a budget a turn, in every form that a URL is stored in.
//!
//! Leaves to others: when a purge may begin and who has passed it (`watermark`), entries (`cache`).

use std::{collections::BTreeMap, sync::Arc};

use cache::{Cache, PurgeCursor};

use crate::{
    limits,
    shard::{
        intake::Item,
        mail::{ConfigChange, Mail},
        out::Out,
        rule::{Rules, forms_of},
        watermark::Fence,
    },
};

/// The purge under way, and what it needs to know.
pub(super) struct Cutter {
    cutting: Option<Cutting>,
    /// Of sites that have some, by their id: a URL is purged in every form it is stored in.
    rules: BTreeMap<String, Rules>,
    pub(super) cache: Arc<Cache>,
}

/// A purge under way.
struct Cutting {
    ticket: u64,
    /// At least one.
    cursors: Vec<PurgeCursor>,
}

impl Cutter {
    pub(super) fn new(cache: Arc<Cache>) -> Self {
        Self { cutting: None, rules: BTreeMap::new(), cache }
    }

    /// Cuts what the fence lets begin, within a turn's budget; whether a purge came to its end, of
    /// which every shard is told.
    pub(super) fn cut(&mut self, fence: &mut Fence<Item>, out: &mut Out) -> bool {
        let (mut budget, mut any_ended) = (limits::FEED_CUT_BUDGET, false);
        loop {
            if self.cutting.is_none() {
                let begun = fence.begin_cut();
                self.cutting = begun.map(|(ticket, purge)| {
                    let purges = forms_of(&self.rules, purge);
                    let cursors = purges.iter().map(|purge| self.cache.purge(purge)).collect();
                    Cutting { ticket, cursors }
                });
            }
            let Some(Cutting { ticket, cursors }) = &mut self.cutting else { return any_ended };
            // A step's cost is not told; a purge of one URL costs the least.
            if let Some(cursor) = cursors.last_mut()
                && !cursor.step(&self.cache, budget).done
            {
                out.yield_turn();
                return any_ended;
            }
            cursors.pop();
            if !cursors.is_empty() {
                continue;
            }
            let ticket = *ticket;
            self.cutting = None;
            fence.end_cut(ticket);
            any_ended = true;
            out.mail_all(|| Mail::Purge { ticket });
            budget /= 2;
            if budget == 0 {
                out.yield_turn();
                return any_ended;
            }
        }
    }

    /// Rules say in which forms a URL is stored.
    pub(super) fn note_rules(&mut self, change: &ConfigChange) {
        let sites = match change {
            ConfigChange::Replace { sites, .. } => {
                self.rules.clear();
                sites
            }
            ConfigChange::Change(change) => {
                change.removed_sites.iter().for_each(|id| {
                    self.rules.remove(id);
                });
                &change.sites
            }
        };
        for site in sites {
            self.rules.remove(&site.id);
            if !site.rules.is_empty() {
                self.rules.insert(site.id.clone(), Rules::of(site));
            }
        }
    }
}
