//! Asks this build, and Envoy, about every field of Envoy's configuration: the page that says what becomes of them must be
//! current, and both must agree on what they accept.

use std::path::Path;

use dhow_compatibility::{Validator, ledger};
use dhow_testkit::envoy;

#[test]
fn the_page_says_what_becomes_of_every_field_and_envoy_agrees() {
    let validator =
        Validator::new(Path::new(env!("CARGO_BIN_EXE_dhow-proxy"))).expect("the proxy was just built");
    let (entries, agree) = match envoy::locate() {
        Ok(path) => {
            let envoy = Validator::new(&path).expect("it was just found");
            ledger::verdicts(&validator, &envoy, false).expect("both programs answer")
        }
        Err(unavailable) => {
            eprintln!("only this build is asked: {unavailable}");
            (ledger::collect(&validator, false).expect("the proxy answers"), true)
        }
    };
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").join(ledger::PAGE);
    assert!(ledger::check(&entries, &page).expect("the page is there"), "see the differences above");
    assert!(agree, "see the disagreements above");
    let unexplained = ledger::unexplained(&entries);
    assert!(
        unexplained.is_empty(),
        "refused without a reason in core/base/src/unsupported.rs: {unexplained:?}"
    );
}
