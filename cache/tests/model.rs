//! Random histories, explained by the model of `tests/src/fuzz/cache_ops.rs`, which the fuzzer
//! drives too. Here proptest draws them, so that a failure shrinks.

extern crate pharos_cache as cache;

#[allow(dead_code, unreachable_pub, reason = "the fuzzer's way in is not used here")]
#[path = "../../tests/src/fuzz/cache_ops.rs"]
mod cache_ops;

use cache_ops::{Kind, Op, PartOf, RANGES, SHARDS, TARGETS};
use proptest::prelude::*;

fn kind() -> impl Strategy<Value = Kind> {
    prop_oneof![
        4 => (1u64..6, any::<bool>())
            .prop_map(|(max_age_s, announced)| Kind::Fresh { max_age_s, announced }),
        1 => Just(Kind::NoCache),
        1 => Just(Kind::Private),
        1 => Just(Kind::Error),
        2 => Just(Kind::NotModified),
        4 => (1u64..6, part_of()).prop_map(|(max_age_s, of)| Kind::Part { max_age_s, of }),
    ]
}

fn part_of() -> impl Strategy<Value = PartOf> {
    prop_oneof![
        4 => Just(PartOf::TheSame),
        1 => Just(PartOf::Another),
        1 => Just(PartOf::TheSameAndShorter),
        1 => Just(PartOf::TheSameAndMistaken),
    ]
}

fn op() -> impl Strategy<Value = Op> {
    let which = 0usize..8;
    prop_oneof![
        12 => (
            (0..SHARDS, 0..TARGETS, 0usize..2),
            prop::bool::weighted(0.1),
            prop::option::of(0..RANGES.len()),
        )
            .prop_map(|((shard, target, language), no_cache, range)| Op::Get {
                shard,
                target,
                language,
                no_cache,
                range,
            }),
        6 => (which.clone(), kind()).prop_map(|(which, kind)| Op::Answer { which, kind }),
        1 => which.clone().prop_map(|which| Op::FailLease { which }),
        1 => which.clone().prop_map(|which| Op::DropLease { which }),
        3 => which.clone().prop_map(|which| Op::Append { which }),
        4 => which.clone().prop_map(|which| Op::Finish { which }),
        1 => which.clone().prop_map(|which| Op::FailBody { which }),
        1 => which.clone().prop_map(|which| Op::DropBody { which }),
        2 => (0usize..4, 0..TARGETS, any::<bool>())
            .prop_map(|(scope, target, soft)| Op::BeginPurge { scope, target, soft }),
        4 => (which, prop_oneof![Just(1usize), Just(700), Just(100_000)])
            .prop_map(|(which, budget)| Op::StepPurge { which, budget }),
        1 => (0..TARGETS).prop_map(|target| Op::Invalidate { target }),
        3 => (1u64..3000).prop_map(|ms| Op::Pass { ms }),
        2 => (0..SHARDS).prop_map(|shard| Op::Sweep { shard }),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    #[test]
    fn every_history_is_explained_by_the_model(ops in prop::collection::vec(op(), 1..150)) {
        cache_ops::run_ops(ops);
    }

    #[test]
    fn every_input_of_the_fuzzer_is_a_history(data in prop::collection::vec(any::<u8>(), 0..600)) {
        cache_ops::run(&data);
    }
}
