//! Frames over RDMA verbs, beside a TCP connection that carries what is rare.
//!
//! - [`ffi`]: the verbs ABI, loaded at run time.

pub mod error;
pub mod ffi;
pub mod verbs;

pub use error::{LinkFailure, VerbsError};
