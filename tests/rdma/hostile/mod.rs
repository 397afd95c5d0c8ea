//! A hostile worker: it knows its token and joins as an honest one, with a queue pair of its own making, and then keeps to no rule.
//!
//! - [`verbs`]: any operation with any key. - [`attacker`]: the handshake. - [`job`]: `solond` and honest workers meanwhile.
//! - [`fabric`]: the daemon's half of a connection in this process, without a pipeline.
//! - The tests: [`keys`] (guessed keys and addresses), [`messages`] (what may not be sent), [`credits`] (more than may be sent),
//!   [`attach`] (false answers to the offer), [`race`] (memory that changes after it was checked).

mod attach;
mod attacker;
mod credits;
mod fabric;
mod job;
mod keys;
mod messages;
mod race;
mod verbs;
