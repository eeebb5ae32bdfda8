//! Who goes when memory is short.

mod sieve;

pub(crate) use sieve::Sieve;
