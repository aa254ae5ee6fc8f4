//! Turns the descriptor set inside the `envoy-types` package into one read-only table that the crate embeds.

mod descriptors;
mod package;
mod router_check;
mod supplement;
mod tables;
#[path = "../src/wire.rs"]
#[allow(dead_code, reason = "the build reads and never writes messages")]
mod wire;

use std::path::PathBuf;

fn main() {
    let package = package::find("envoy-types");
    let descriptor_set = package.join("src/generated/types.bin");
    println!("cargo::rerun-if-changed=build");
    println!("cargo::rerun-if-changed=src/wire.rs");
    println!("cargo::rerun-if-changed={}", descriptor_set.display());
    let bytes = std::fs::read(&descriptor_set)
        .unwrap_or_else(|error| panic!("cannot read {}: {error}", descriptor_set.display()));
    let mut schema = descriptors::read(&bytes);
    supplement::add(&mut schema);
    router_check::add(&mut schema);
    let blob = tables::encode(schema);
    let out = PathBuf::from(std::env::var_os("OUT_DIR").expect("cargo sets OUT_DIR")).join("tables.bin");
    std::fs::write(&out, blob).unwrap_or_else(|error| panic!("cannot write {}: {error}", out.display()));
}
