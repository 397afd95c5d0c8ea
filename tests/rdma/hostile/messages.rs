//! What a worker may not send: each ends the RDMA connection or the session of who sends it, and of nobody else.

use std::time::Duration;

use solon::transport::rdma::ffi::*;
use solon::wire::HEADER_BYTES;

use super::attacker::Attacker;
use super::job::{HONEST, Solond, WIDTH, while_the_honest_work};
use super::verbs::{IBV_WR_ATOMIC_CMP_AND_SWP, IBV_WR_ATOMIC_FETCH_AND_ADD, Request};

/// Bytes of a shard's frame, which fill a slot.
const FRAME: usize = HEADER_BYTES + 4 * WIDTH;

/// What the log says about the offender.
enum Ends {
    /// Its session, by a violation with these words.
    Session(&'static str),
    /// Its RDMA connection.
    Link,
}
use Ends::{Link, Session};

/// A name, the request made from the attacker and one that sends a whole shard, and what it ends.
type Attack = (&'static str, fn(&Attacker, Request) -> Request, Ends);

fn sized(attacker: &Attacker, bytes: usize) -> Request {
    Request::send(Some(attacker.memory.piece(bytes)))
}

const ATTACKS: &[Attack] = &[
    ("one byte more than a slot", |it, _| sized(it, FRAME + 1), Link),
    ("a MiB", |it, _| sized(it, 1 << 20), Link),
    ("less than a header", |it, _| sized(it, HEADER_BYTES - 1), Session("a payload of 63 bytes where the plan has 64")),
    ("nothing", |_, _| Request::send(None), Session("a payload of 0 bytes where the plan has 64")),
    (
        "less than the header says",
        |it, _| sized(it, FRAME - 4),
        Session("a payload of 1020 bytes where the plan has 1024"),
    ),
    ("only the header", |it, _| sized(it, HEADER_BYTES), Session("a payload of 0 bytes where the plan has 1024")),
    (
        "a payload of 4 GiB, says the header",
        |it, shard| {
            it.memory.write(2, &u32::MAX.to_le_bytes());
            shard
        },
        Session("a payload of 1024 bytes where the plan has 4294967295"),
    ),
    (
        "no header",
        |it, shard| {
            it.memory.write(0, &[0; 8]);
            shard
        },
        Session("unreadable header"),
    ),
    (
        "SEND WITH IMMEDIATE",
        |_, shard| Request { opcode: IBV_WR_SEND_WITH_IMM, number: 77, ..shard },
        Session("does not belong there (opcode 128, "),
    ),
    ("SEND WITH INVALIDATE of key 0", |_, shard| Request { opcode: IBV_WR_SEND_WITH_INV, ..shard }, Link),
    (
        "SEND WITH INVALIDATE of the attacker's own key",
        |it, shard| Request { opcode: IBV_WR_SEND_WITH_INV, number: it.memory.local_key, ..shard },
        Link,
    ),
    (
        "SEND WITH INVALIDATE of key 0x100",
        |_, shard| Request { opcode: IBV_WR_SEND_WITH_INV, number: 0x100, ..shard },
        Link,
    ),
    (
        "an empty WRITE WITH IMMEDIATE",
        |_, _| Request { opcode: IBV_WR_RDMA_WRITE_WITH_IMM, ..Request::send(None) },
        Link,
    ),
    ("WRITE WITH IMMEDIATE", |it, shard| forged(it, shard, IBV_WR_RDMA_WRITE_WITH_IMM), Link),
    ("WRITE", |it, shard| forged(it, shard, IBV_WR_RDMA_WRITE), Link),
    ("READ", |it, shard| forged(it, shard, IBV_WR_RDMA_READ), Link),
    ("COMPARE AND SWAP", |it, _| forged(it, sized(it, 8), IBV_WR_ATOMIC_CMP_AND_SWP), Link),
    ("FETCH AND ADD", |it, _| forged(it, sized(it, 8), IBV_WR_ATOMIC_FETCH_AND_ADD), Link),
];

fn forged(attacker: &Attacker, request: Request, opcode: i32) -> Request {
    // The key and address of the attacker's own memory: numbers of the right kind.
    Request { opcode, address: attacker.memory.address(), key: attacker.memory.local_key, ..request }
}

#[test]
#[ignore = "runs in the guest"]
fn every_message_that_may_not_be_sent_ends_the_offender_and_nobody_else() {
    let mut solond = Solond::start(&["--listen-open", "true"]);
    let rounds = while_the_honest_work(
        &mut solond,
        Duration::from_millis(2),
        |_| String::new(),
        |solond| {
            for (at, (name, attack, ends)) in ATTACKS.iter().enumerate() {
                let worker = HONEST + at % 2;
                let mut attacker = Attacker::join(&solond.address, worker as u32, "", 7);
                let shard = attacker.write_shard(attacker.round);
                let request = attack(&attacker, sized(&attacker, shard));
                attacker.end.post(1, request);
                let named = format!("\"worker\":{worker}");
                let line = match ends {
                    Session(words) => {
                        attacker.wait_for_the_end();
                        solond.wait_for(&["worker left", &named, words])
                    }
                    Link => solond.wait_for(&["RDMA connection ended", &named]),
                };
                let status = attacker.end.completion_of(1, Duration::from_secs(5)).map(|it| it.status);
                println!("{name}: status {status:?} for the attacker; {line}");
                if let Link = ends {
                    // An invalidation is refused after the message was acknowledged.
                    let acknowledged = name.starts_with("SEND WITH INVALIDATE");
                    assert!(acknowledged || status != Some(IBV_WC_SUCCESS), "{name}");
                    drop(attacker);
                    solond.wait_for(&["worker left", &named]);
                }
            }
        },
    );
    println!("{} attacks while the honest ran {rounds} rounds", ATTACKS.len());
}
