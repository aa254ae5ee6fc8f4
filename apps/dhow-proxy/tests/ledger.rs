//! Asks this build about every field of Envoy's configuration: the page that says what becomes of them must be current.

use std::path::Path;

use dhow_compatibility::{Validator, ledger};

#[test]
fn the_page_says_what_becomes_of_every_field() {
    let validator =
        Validator::new(Path::new(env!("CARGO_BIN_EXE_dhow-proxy"))).expect("the proxy was just built");
    let entries = ledger::collect(&validator, false).expect("the proxy answers");
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").join(ledger::PAGE);
    assert!(ledger::check(&entries, &page).expect("the page is there"), "see the differences above");
}
