//! The repository's lists of values, each put to this build and, where it can be had, to the real Envoy.
//! `conformance ask` puts others.

use std::path::PathBuf;

use dhow_conformance::ask::{Options, run};

#[test]
fn both_say_and_do_the_same_for_every_value_that_is_asked() {
    let options = Options { ours: PathBuf::from(env!("CARGO_BIN_EXE_dhow-proxy")), ..Options::default() };
    let differing = run(&options).expect("the questions are asked of both sides");
    assert_eq!(differing, 0, "see above");
}
