//! When a silent stream gets an `event: beat`: a hand that goes round the table of streams.
//!
//! The hand visits each slot sixteen times in a cycle, a little less than the longest allowed
//! silence. One of these visits is the slot's own, and gives it its beat: a quiet stream costs one
//! send a cycle, and the sends are spread as evenly as the slots are, by runs of [`RUN`]: what was
//! opened together lies together in the kernel's memory, and a million sockets are more pages than
//! a processor has translations for. After an event to all, a
//! stream's own visit may come too early to be worth a beat and the next one too late; so it gets
//! the beat half a cycle later, and the beats of all are spread over half a cycle again. And
//! whoever would be silent too long by its next visit gets a beat at this one. A stream that had
//! an event lately is skipped.
//!
//! ```text
//!   slots  0 ──────────────▶ hand ─ due ─▶                  len
//!                             visited in the next turns
//! ```
//! Leaves to others: who lives in a slot and when something was last sent there (`stream`).

use std::ops::Range;

use crate::seam::Mono;

/// The hand.
pub struct Heartbeat {
    silence_ms_max: u64,
    /// Last time that slots became due.
    ticked_at: Mono,
    hand: u32,
    due: u32,
    /// Slots × ms not yet enough for a visit.
    owed: u64,
    /// Times the hand went round.
    round: u32,
}

impl Heartbeat {
    /// With the longest silence, at least 32 ms.
    pub fn new(silence_ms_max: u64) -> Self {
        let silence_ms_max = silence_ms_max.max(SILENCE_MS_MIN);
        Self { silence_ms_max, ticked_at: Mono(0), hand: 0, due: 0, owed: 0, round: 0 }
    }

    /// Another longest silence: the hand goes on from where it is, faster or slower.
    pub fn set(&mut self, silence_ms_max: u64) {
        self.silence_ms_max = silence_ms_max.max(SILENCE_MS_MIN);
    }

    /// The first stream opens: time counts from here.
    pub fn start(&mut self, now: Mono) {
        (self.ticked_at, self.due, self.owed) = (now, 0, 0);
    }

    /// Whether slots wait for their visit.
    pub fn is_due(&self) -> bool {
        self.due > 0
    }

    /// When the next slots become due.
    pub fn next_deadline(&self) -> Mono {
        self.ticked_at.after_ms(self.tick_ms())
    }

    /// Makes slots due for the time that has passed.
    pub fn tick(&mut self, now: Mono, slots: u32) {
        let elapsed_ms = now.since_ns(self.ticked_at) / 1_000_000;
        if elapsed_ms < self.tick_ms() {
            return;
        }
        self.ticked_at = self.ticked_at.after_ms(elapsed_ms);
        self.owed += u64::from(slots) * elapsed_ms;
        let visits = self.owed / self.round_ms();
        self.owed %= self.round_ms();
        self.due = u64::from(self.due).saturating_add(visits).min(u64::from(slots)) as u32;
    }

    /// The next slots to visit, at most `count_max`.
    pub fn take(&mut self, slots: u32, count_max: u32) -> Range<u32> {
        if self.hand >= slots {
            self.hand = 0;
            self.round = self.round.wrapping_add(1);
        }
        let start = self.hand;
        let count = self.due.min(count_max).min(slots - start);
        self.due -= count;
        self.hand += count;
        start..self.hand
    }

    /// Whether the stream in this slot, visited now and silent since `heard` (see [`stamp`]), must
    /// get its beat.
    pub fn is_wanted(&self, now: Mono, slot: u32, heard: u32) -> bool {
        let silence_ms = u64::from(stamp(now).wrapping_sub(heard));
        let is_own = self.round.wrapping_add(slot / RUN).is_multiple_of(VISITS / 2);
        let is_worth_it = silence_ms > self.round_ms() * u64::from(VISITS / 2 + 1);
        is_own && is_worth_it || silence_ms + self.round_ms() + self.tick_ms() > self.silence_ms_max
    }

    /// Time in which the hand goes round once. A cycle is so much shorter than the longest silence
    /// that a tick or two may be late.
    fn round_ms(&self) -> u64 {
        ((self.silence_ms_max - 3 * self.tick_ms()) / u64::from(VISITS)).max(1)
    }

    /// How often slots become due: the more at once, the cheaper each.
    fn tick_ms(&self) -> u64 {
        (self.silence_ms_max / 110).clamp(1, 500)
    }
}

/// Visits of a slot in a cycle: each costs a look at a record, a beat a send.
const VISITS: u32 = 16;
/// Neighbours that have their own visit together.
const RUN: u32 = 64;
/// Below, a visit would be due more often than the clock ticks.
const SILENCE_MS_MIN: u64 = VISITS as u64 * 2;

/// Milliseconds, wrapping after 49 days: enough to tell a silence, in the four bytes that a
/// stream's record has left.
pub fn stamp(at: Mono) -> u32 {
    (at.0 / 1_000_000) as u32
}

/// The later of two stamps less than 24 days apart.
pub fn later(a: u32, b: u32) -> u32 {
    if (a.wrapping_sub(b) as i32) >= 0 { a } else { b }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Beats that each of `slots` streams gets within `seconds`, and the longest silence of any.
    fn run(slots: u32, seconds: u64, mut event_at_ms: impl FnMut(u64) -> bool) -> (Vec<u32>, u64) {
        let mut heartbeat = Heartbeat::new(55_000);
        let mut heard = vec![Mono(0); slots as usize];
        let mut beats = vec![0; slots as usize];
        let (mut longest, mut in_a_tick_max) = (0, 0);
        heartbeat.start(Mono(0));
        for ms in (0..seconds * 1000).step_by(25) {
            let now = Mono(0).after_ms(ms);
            if event_at_ms(ms) {
                heard.fill(now);
            }
            if heartbeat.next_deadline() <= now {
                heartbeat.tick(now, slots);
            }
            let mut in_a_tick = 0;
            while heartbeat.is_due() {
                for slot in heartbeat.take(slots, 16) {
                    let slot = slot as usize;
                    if heartbeat.is_wanted(now, slot as u32, stamp(heard[slot])) {
                        beats[slot] += 1;
                        heard[slot] = now;
                        in_a_tick += 1;
                    }
                }
            }
            in_a_tick_max = in_a_tick_max.max(in_a_tick);
            longest = heard.iter().map(|at| now.since_ns(*at) / 1_000_000).fold(longest, u64::max);
        }
        assert!(in_a_tick_max <= slots.div_ceil(80) + 2 * RUN, "{in_a_tick_max} beats at once");
        (beats, longest)
    }

    #[test]
    fn no_stream_is_silent_longer_than_the_limit() {
        let (beats, longest) = run(1000, 600, |_| false);
        assert!(longest <= 55_000, "{longest}");
        assert!(beats.iter().all(|count| (10..=12).contains(count)), "{:?}", &beats[..9]);
    }

    #[test]
    fn quiet_streams_cost_one_beat_in_almost_the_longest_silence() {
        let (beats, _) = run(1000, 5_500, |_| false);
        let all: u32 = beats.iter().sum();
        assert!((99_000..103_000).contains(&all), "{all} in a hundred times that");
    }

    #[test]
    fn a_stream_with_events_gets_no_beats() {
        let (beats, _) = run(1000, 600, |ms| ms % 20_000 == 0);
        assert!(beats.iter().all(|&count| count == 0));
    }

    #[test]
    fn a_stamp_compares_across_its_wrap() {
        assert_eq!(later(5, u32::MAX - 5), 5);
        assert_eq!(later(u32::MAX - 5, 5), 5);
        assert_eq!(later(7, 6), 7);
    }
}
