//! The committed OpenAPI document is the one that is served.

use crate::lab::*;

const COMMITTED: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../api/openapi.json");

#[test]
fn the_committed_document_is_current() {
    let document = weft_oracle::openapi().unwrap();
    if std::env::var_os("WEFT_UPDATE_OPENAPI").is_some() {
        std::fs::write(COMMITTED, &document).unwrap();
    }
    let committed = std::fs::read_to_string(COMMITTED).unwrap();
    assert!(
        committed == document,
        "crates/api/openapi.json is out of date; run this test once with WEFT_UPDATE_OPENAPI=1"
    );
}

#[test]
fn it_is_served() {
    in_namespace(async || {
        let f = Fabric::start().await;
        let served = f.operator.openapi().await.unwrap();
        let document = weft_oracle::openapi().unwrap();
        assert!(serde_json::from_str::<serde_json::Value>(&document).unwrap() == served);
    });
}
