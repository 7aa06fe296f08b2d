//! Whatever a caller sends, the decoder of the read proxy says what to do with it
//! and neither panics nor grows: `cargo +nightly fuzz run request`.

#![no_main]

use libfuzzer_sys::fuzz_target;
use sgcache::proxy::{Asked, Catalogue, PendingWrites, Scope, decide, write_effects::WriteEffects};
use sgcache::state::SiteTime;

fuzz_target!(|body: &[u8]| {
    let Ok(asked) = Asked::parse(body) else { return };
    let catalogue = Catalogue {
        schema: Default::default(),
        stored: Default::default(),
        standing: Default::default(),
        pending_writes: PendingWrites::default(),
        now: SiteTime(0),
        settings: Default::default(),
        max_page: 500,
        site_is_down: false,
    };
    decide(&asked, &Scope::Full, &catalogue);
    WriteEffects::of_request(&asked.request.method, &asked.request.argument, &catalogue);
});
