//! Nothing: `tests/abi.rs` is what this package is for.
