//! Which stored response a 304 is about (RFC 9111 §4.3.4).

mod world;

use pharos_cache::{Decision, HeadOutcome};
use world::{Fields, World, lease};

/// A long time, and a few seconds, before the clock of the tests begins.
const OLD: (&str, &str) = ("Last-Modified", "Sun, 06 Nov 1994 07:00:00 GMT");
const OTHER: (&str, &str) = ("Last-Modified", "Sun, 06 Nov 1994 06:00:00 GMT");
const YOUNG: (&str, &str) = ("Last-Modified", "Sun, 06 Nov 1994 08:49:30 GMT");
const STRONG: (&str, &str) = ("ETag", "\"a\"");
const WEAK: (&str, &str) = ("ETag", "W/\"a\"");
const ANOTHER: (&str, &str) = ("ETag", "\"b\"");
/// When it was stored, and when it was found to hold still.
const THEN: (&str, &str) = ("Date", "Sun, 06 Nov 1994 08:49:37 GMT");
const SOON: (&str, &str) = ("Date", "Sun, 06 Nov 1994 08:49:42 GMT");
const LATE: (&str, &str) = ("Date", "Sun, 06 Nov 1994 08:59:42 GMT");

fn check(stored: Fields<'_>, told: Fields<'_>, is_update: bool) {
    let mut world = World::new();
    let fields = [&[("Cache-Control", "max-age=1"), THEN], stored].concat();
    world.store("/a", &fields, "hello");
    world.pass_s(5);
    let fetch = lease(world.get(0, "/a", &[]));
    let fields = [&[("Cache-Control", "max-age=60")], told].concat();
    let outcome = world.answer(fetch, &[], 304, &fields, None);
    let is_updated = matches!(outcome, HeadOutcome::Updated { .. });
    assert_eq!(is_updated, is_update, "{stored:?} {told:?}");
    match world.get(0, "/a", &[]) {
        Decision::Hit(_) => assert!(is_update),
        decision => assert!(matches!(decision, Decision::Miss(_)), "asked for as a whole"),
    }
}

#[test]
fn rfc9111_4_3_4_a_strong_validator_updates_only_what_has_the_same() {
    check(&[STRONG], &[STRONG, SOON], true);
    check(&[STRONG, OLD], &[STRONG, OTHER, SOON], true);
    check(&[STRONG], &[ANOTHER, SOON], false);
    check(&[STRONG, OLD], &[ANOTHER, OLD, SOON], false);
    check(&[WEAK], &[STRONG, SOON], false);
    check(&[OLD], &[STRONG, SOON], false);
    // A date is strong when it is well older than the answer that has it.
    check(&[OLD], &[OLD, SOON], true);
    check(&[OLD], &[OTHER, SOON], false);
    check(&[STRONG], &[OLD, SOON], false);
    check(&[YOUNG], &[YOUNG, LATE], false);
    check(&[WEAK, OLD], &[STRONG, OLD, SOON], true);
}

#[test]
fn rfc9111_4_3_4_weak_validators_update_what_they_are_of() {
    check(&[WEAK], &[WEAK, SOON], true);
    check(&[STRONG], &[WEAK, SOON], true);
    check(&[WEAK], &[("ETag", "W/\"b\""), SOON], false);
    check(&[OLD], &[WEAK, SOON], false);
    check(&[YOUNG], &[YOUNG, SOON], true);
    check(&[OLD], &[YOUNG, SOON], false);
    check(&[STRONG], &[YOUNG, SOON], false);
    check(&[WEAK, YOUNG], &[YOUNG, SOON], true);
}

#[test]
fn rfc9111_4_3_4_a_304_without_a_validator_is_of_what_was_asked_about() {
    for stored in [STRONG, WEAK, OLD] {
        check(&[stored], &[SOON], true);
    }
}
