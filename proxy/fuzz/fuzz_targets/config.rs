//! A configuration from outside (`PUT /api/v1/config`): what loads can be shown
//! and loaded again.
#![no_main]

use libfuzzer_sys::fuzz_target;
use proxy::config::Config;

fuzz_target!(|text: &str| {
    if let Ok(config) = Config::parse(text) {
        let shown = serde_json::to_string(&config.raw).expect("it was read, so it can be shown");
        let again = Config::parse(&shown).expect("what is shown loads");
        assert_eq!(again.raw, config.raw);
    }
});
