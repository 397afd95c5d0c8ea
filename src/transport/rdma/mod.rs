//! Frames over RDMA verbs, beside a TCP connection that carries what is rare.
//!
//! - [`ffi`]: the verbs ABI, loaded at run time. - `fake`: the same in memory, for tests.

#[cfg(any(test, feature = "sabotage"))]
pub mod fake;
pub mod ffi;
