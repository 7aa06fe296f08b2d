//! See `decoders::entity_config`: `cargo +nightly fuzz run entity_config`.

#![no_main]

use libfuzzer_sys::fuzz_target;

#[path = "../decoders.rs"]
#[allow(dead_code, reason = "each target uses one of the decoders")]
mod decoders;

fuzz_target!(|bytes: &[u8]| decoders::entity_config(bytes));
