//! A worker of the Rust client, in a child that was forked from the process that joined.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::Command;

#[path = "../../../tests/common/mod.rs"]
mod common;
mod tools;

use common::Solond;
use solon::client::{ClientError, Forked, JoinError, Worker};

unsafe extern "C" {
    fn fork() -> i32;
    fn waitpid(child: i32, status: *mut i32, options: i32) -> i32;
    fn alarm(seconds: u32) -> u32;
    fn _exit(status: i32) -> !;
}

/// What a child does with what it has inherited; the number of the first thing that is not as it should be, else 0.
fn in_child(mut worker: Worker, update: solon::client::Update) -> i32 {
    let mut buffer = vec![0.0; 10];
    let forked = |result: Result<_, ClientError>| matches!(result, Err(ClientError::Forked(_)));
    let parent = std::os::unix::process::parent_id();
    let as_it_should_be = [
        worker.check_process() == Err(Forked { parent, child: std::process::id() }),
        forked(worker.exchange(&mut buffer)),
        forked(worker.wait(&mut buffer)),
        forked(worker.follow(&mut buffer)),
        forked(worker.submit(&buffer).map(|_| unreachable!())),
        forked(worker.update().map(|_| unreachable!())),
        matches!(worker.rejoin(), Err(JoinError::Forked(_))),
        // What cannot fail panics, rather than wait for a thread that is not there.
        catch_unwind(AssertUnwindSafe(|| worker.next_round())).is_err(),
        catch_unwind(AssertUnwindSafe(|| worker.traffic())).is_err(),
        // Over TCP the child has a copy of what has landed.
        update[9] == 9.0,
    ];
    drop(update);
    worker.leave();
    as_it_should_be.iter().position(|right| !right).map_or(0, |at| at as i32 + 1)
}

#[test]
fn a_child_can_do_nothing_with_its_parents_worker_and_the_parent_goes_on() {
    let flags = ["--job-dimension=10", "--job-groups=1", "--job-adversaries=0", "--job-compression=1", "--job-scale=1"];
    let mut solond = Solond::spawn(Command::new(tools::solond()), "127.0.0.1:0", &flags);
    solond.wait_until_ready();
    let mut worker = solond.join(0);
    let gradient: Vec<f32> = (0..10u8).map(f32::from).collect();
    // The child's panics are meant.
    std::panic::set_hook(Box::new(|_| {}));
    for _ in 0..20 {
        worker.submit(&gradient).unwrap();
        let update = worker.update().unwrap();
        // SAFETY: the child calls only what is under test, and leaves without the destructors of others.
        let child = unsafe { fork() };
        assert!(child >= 0);
        if child == 0 {
            // SAFETY: ends the child if it hangs.
            unsafe { alarm(20) };
            let wrong = catch_unwind(AssertUnwindSafe(|| in_child(worker, update))).unwrap_or(100);
            // SAFETY: always sound.
            unsafe { _exit(wrong) };
        }
        drop(update);
        let mut buffer = gradient.clone();
        worker.exchange(&mut buffer).unwrap();
        assert_eq!(buffer, gradient, "while the child lives");
        let mut status = -1;
        // SAFETY: a child of this process, and a place for its status.
        assert_eq!(unsafe { waitpid(child, &mut status, 0) }, child);
        assert_eq!(status, 0, "exit status {}, signal {}", status >> 8, status & 0x7f);
        worker.exchange(&mut buffer).unwrap();
        assert_eq!(buffer, gradient, "after the child");
    }
    let _ = std::panic::take_hook();
    worker.leave();
    solond.wait_for("worker left");
    assert_eq!(solond.count("worker joined"), 1, "one session all the time");
}
