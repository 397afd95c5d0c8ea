//! What a bad carrier does with the chunks that it is to pass on.

use std::collections::HashMap;

use rustix::process::{Signal, getpid, kill_process};
use serde::{Deserialize, Serialize};
use solon::client::Carry;

/// How a carrier is bad.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Bad {
    /// Passes nothing on.
    Drop,
    /// Passes each chunk on when it has the next one.
    Delay,
    /// Changes a bit of everything.
    Corrupt,
    /// Sends the truth to every other worker, and to each of the rest a lie of its own.
    Equivocate,
    /// Sends everything many times.
    Flood,
    /// Is killed while it carries.
    Leave,
}

/// Copies of each frame that a flood is of: as many as fit into the queue of a link, or the one who floods would give it up himself.
const FLOOD: usize = 3;

impl Bad {
    pub const ALL: [Bad; 6] = [Bad::Drop, Bad::Delay, Bad::Corrupt, Bad::Equivocate, Bad::Flood, Bad::Leave];

    /// What is done with each frame, as [`solon::client::Worker::set_carry`] takes it.
    pub fn carry(self) -> Carry {
        match self {
            Bad::Drop => Box::new(|_, _, _| 0),
            Bad::Delay => {
                let mut held: HashMap<u32, Vec<u8>> = HashMap::new();
                Box::new(move |_, peer, frame| match held.get_mut(&peer).filter(|old| old.len() == frame.len()) {
                    Some(old) => {
                        old.swap_with_slice(frame);
                        1
                    }
                    None => {
                        held.insert(peer, frame.to_vec());
                        0
                    }
                })
            }
            Bad::Corrupt => Box::new(|_, _, frame| {
                *frame.last_mut().expect("a frame has a header") ^= 1;
                1
            }),
            Bad::Equivocate => Box::new(|_, peer, frame| {
                if peer % 2 == 0 {
                    *frame.last_mut().expect("a frame has a header") ^= 1 + peer as u8;
                }
                1
            }),
            Bad::Flood => Box::new(|_, _, _| FLOOD),
            Bad::Leave => {
                let mut first = None;
                Box::new(move |header, _, _| {
                    if *first.get_or_insert(header.chunk) != header.chunk {
                        // Nobody is told, as when the machine is gone.
                        let _ = kill_process(getpid(), Signal::KILL);
                    }
                    1
                })
            }
        }
    }

    pub fn name(self) -> String {
        format!("{self:?}").to_lowercase()
    }
}
