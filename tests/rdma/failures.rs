//! What becomes of a job when something on the way breaks: a process, a link, a handshake.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::process::Command;
use std::time::{Duration, Instant};

use solon::client::{ClientError, Lost, Worker};
use solon::transport::{Disconnect, Transport};
use solon::wire::{CHALLENGE_BYTES, Credential, Identity, OFFER_BYTES, TRANSPORT_RDMA, WELCOME_BYTES};
use solon::wire::{Hello, hello_frame, read_challenge, read_offer, read_welcome};

use super::cluster::{
    Finish, PATIENCE, Process, Rounds, Solond, flags, join, join_all, options, rejoin, resources, solond, wait_until,
    work,
};
use super::tools::{program, run};

#[test]
#[ignore = "runs in the guest"]
fn a_killed_worker_is_noticed_at_once_and_a_new_process_takes_its_place_by_rdma() {
    // A word waits for every worker that is connected: only the news of its death lets the round end before.
    let mut solond = solond("auto", &["--rounds-deadline-ms", "25000", "--rounds-linger-ms", "25000"]);
    let workers: Vec<Worker> = (0..5).map(|index| join(&solond, index, Transport::Rdma)).collect();
    let mut victim = Process::start(&work(&solond, 5, Transport::Rdma));
    println!("{}", victim.wait_for("joined"));
    let rounds = Rounds::new(1);
    std::thread::scope(|scope| {
        let _finish = Finish(&rounds);
        for mut worker in workers {
            let rounds = &rounds;
            scope.spawn(move || rounds.take_part(&mut worker).unwrap());
        }
        victim.wait_for("round 9 ");
        // It stands still with a round open, and is killed then.
        victim.signal("-STOP");
        std::thread::sleep(Duration::from_millis(300));
        let killed = Instant::now();
        victim.signal("-KILL");
        solond.wait_for("worker left");
        let noticed = killed.elapsed();
        assert!(noticed < Duration::from_secs(20), "sooner than by any deadline: {noticed:?}");
        let next = rounds.more(2);
        let seen = victim.check(&rounds);
        let mut next_process = wait_for_rejoin(&solond);
        let joined = next_process.wait_for("joined");
        assert!(joined.contains(" rdma "), "{joined}");
        next_process.wait_for("round ");
        rounds.more(5);
        assert!(next_process.check(&rounds) > 0);
        println!(
            "kill -9 after {seen} rounds: \"worker left\" after {noticed:?}, two more rounds {next:?} later; {joined}"
        );
    });
    let (count, gap) = rounds.seen();
    println!("{count} rounds, the longest pause between two {gap:?}");
}

/// A process that is worker 5, when the second is over in which it could not join again.
fn wait_for_rejoin(solond: &Solond) -> Process {
    std::thread::sleep(Duration::from_millis(1100));
    Process::start(&work(solond, 5, Transport::Rdma))
}

#[test]
#[ignore = "runs in the guest"]
fn a_frozen_worker_is_let_go_after_the_write_deadline_and_comes_back_by_rdma() {
    let mut solond = solond("auto", &["--listen-write-deadline-ms", "1500"]);
    let workers: Vec<Worker> = (0..5).map(|index| join(&solond, index, Transport::Rdma)).collect();
    let mut frozen = Process::start(&work(&solond, 5, Transport::Rdma));
    frozen.wait_for("joined");
    let rounds = Rounds::new(1);
    std::thread::scope(|scope| {
        let _finish = Finish(&rounds);
        for mut worker in workers {
            let rounds = &rounds;
            scope.spawn(move || rounds.take_part(&mut worker).unwrap());
        }
        frozen.wait_for("round 5 ");
        let stopped = Instant::now();
        frozen.signal("-STOP");
        solond.wait_for("does not take its update");
        let noticed = stopped.elapsed();
        // A quarter of it where that one worker holds up all others.
        assert!(noticed > Duration::from_millis(300), "{noticed:?}");
        rounds.more(10);
        frozen.signal("-CONT");
        let lost = frozen.wait_for("lost");
        let joined = frozen.wait_for("joined");
        assert!(joined.contains(" rdma "), "{joined}");
        frozen.wait_for("round ");
        assert!(frozen.check(&rounds) > 5);
        println!("frozen: let go after {noticed:?} (deadline 1.5 s); thawed: {lost}; {joined}");
    });
    let (count, gap) = rounds.seen();
    println!("{count} rounds, the longest pause between two {gap:?}");
}

/// The link between the two devices while it is down.
pub struct LinkDown;

impl LinkDown {
    pub fn cut() -> LinkDown {
        run("ip", &["link", "set", "veth0", "down"]);
        LinkDown
    }

    /// Up again, with the routes that the guest's init had made: those of an interface that goes down are gone.
    pub fn mend(self) {
        drop(self);
        wait_until("both ports are active", || {
            let state = |device| std::fs::read_to_string(format!("/sys/class/infiniband/{device}/ports/1/state"));
            ["rxe0", "rxe1"].iter().all(|device| state(device).is_ok_and(|state| state.contains("ACTIVE")))
        });
    }
}

impl Drop for LinkDown {
    fn drop(&mut self) {
        run("ip", &["link", "set", "veth0", "up"]);
        run("ip", &["route", "replace", "10.0.0.2", "dev", "veth0", "src", "10.0.0.1", "table", "100"]);
        run("ip", &["route", "replace", "10.0.0.1", "dev", "veth1", "src", "10.0.0.2", "table", "101"]);
    }
}

/// A daemon whose control connections are on the loopback interface, where no link can be cut.
pub fn solond_on_loopback(transport: &str, more: &[&str]) -> Solond {
    let mut solond = Solond::spawn(Command::new(program("solond")), "127.0.0.1:0", &flags(transport, more));
    solond.wait_until_ready();
    solond
}

/// Has all take part until `meanwhile` is over; gives them back.
fn rounds_while(rounds: &Rounds, workers: Vec<Worker>, meanwhile: impl FnOnce()) -> Vec<Worker> {
    std::thread::scope(|scope| {
        let finish = Finish(rounds);
        let run = |mut worker: Worker| {
            scope.spawn(move || {
                rounds.take_part(&mut worker).unwrap();
                worker
            })
        };
        let threads: Vec<_> = workers.into_iter().map(run).collect();
        meanwhile();
        drop(finish);
        threads.into_iter().map(|thread| thread.join().expect("the worker's thread")).collect()
    })
}

#[test]
#[ignore = "runs in the guest"]
fn sessions_go_on_by_tcp_while_a_link_is_down_and_come_back_by_rdma() {
    let mut solond = solond_on_loopback("auto", &[]);
    let rounds = Rounds::new(1);
    let mut down = None;
    let mut told = Duration::ZERO;
    let mut workers = rounds_while(&rounds, join_all(&solond, Transport::Auto), || {
        rounds.more(5);
        let cut = Instant::now();
        down = Some(LinkDown::cut());
        for _ in 0..6 {
            solond.wait_for("the session goes on by TCP");
        }
        told = cut.elapsed();
        rounds.more(20);
    });
    println!("{}", solond.find("PortDown"));
    println!("{}", solond.find("the session goes on by TCP"));
    println!("all six by TCP {told:?} after the cut; the longest pause between two rounds {:?}", rounds.seen().1);
    for worker in &mut workers {
        assert!(!worker.way().rdma && worker.way().reason.starts_with("RDMA ended in mid-run: "), "{:?}", worker.way());
    }
    println!("{}", workers[0].way().reason);
    rejoin(&mut workers[0]);
    assert!(
        !workers[0].way().rdma && workers[0].way().reason.contains("no RDMA port is active"),
        "{:?}",
        workers[0].way()
    );
    println!("joined meanwhile: {}", workers[0].way().reason);

    down.take().expect("cut").mend();
    solond.find("PortUp");
    for worker in &mut workers {
        rejoin(worker);
        assert!(worker.way().rdma, "{}", worker.way().reason);
    }
    println!("after it is up again: {}", workers[0].way().reason);
    let again = Rounds::new(1);
    let workers = rounds_while(&again, workers, || {
        again.more(10);
    });
    assert!(again.seen().0 >= 10 && workers.len() == 6);
    assert_eq!(resources("qp", "rxe1").len(), 6, "those that broke are gone");
}

#[test]
#[ignore = "runs in the guest"]
fn where_only_rdma_will_do_a_link_that_goes_down_is_a_typed_error() {
    let mut solond = solond_on_loopback("rdma", &[]);
    let mut workers = join_all(&solond, Transport::Rdma);
    let rounds = Rounds::new(1);
    let errors: Vec<ClientError> = std::thread::scope(|scope| {
        let _finish = Finish(&rounds);
        let run = |worker| scope.spawn(|| rounds.take_part(worker).unwrap_err());
        let threads: Vec<_> = workers.iter_mut().map(run).collect();
        rounds.more(5);
        let down = LinkDown::cut();
        let errors = threads.into_iter().map(|thread| thread.join().expect("the worker's thread")).collect();
        down.mend();
        errors
    });
    for (worker, error) in errors.iter().enumerate() {
        let ClientError::AggregatorLost { why: Lost::Connection(why), .. } = error else { panic!("{error}") };
        // Whoever notices it first knows why, and ends the session; to the other one the connection is closed.
        let left = solond.find(&format!("\"worker left\",\"worker\":{worker}"));
        assert!(
            matches!(why, Disconnect::Rdma(_))
                || *why == Disconnect::Closed && left.contains("the RDMA connection ended: "),
            "{error}; {left}"
        );
        println!("{error}; {left}");
    }
    assert_eq!(solond.count("goes on by TCP"), 0);
    solond.find("PortUp");
    for worker in &mut workers {
        rejoin(worker);
        assert!(worker.way().rdma);
    }
}

/// A worker's handshake up to the offer of a queue pair; `None` if the daemon ends it before.
fn handshake_until_the_offer(solond: &Solond, worker: u32) -> Option<TcpStream> {
    let mut stream = TcpStream::connect(&solond.address).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let (credential, nonce) = (Credential::from_token(""), [7; 32]);
    let mut challenge = [0; CHALLENGE_BYTES];
    stream.read_exact(&mut challenge).ok()?;
    let challenge = read_challenge(&challenge).unwrap();
    let hello = Hello { transports: TRANSPORT_RDMA, ..Hello::new(Identity::new("default", worker), nonce) };
    stream.write_all(&hello_frame(&hello, &credential, &challenge)).ok()?;
    let mut welcome = [0; WELCOME_BYTES];
    stream.read_exact(&mut welcome).ok()?;
    read_welcome(&welcome, &credential, &challenge, &nonce).unwrap();
    let mut offer = [0; OFFER_BYTES];
    stream.read_exact(&mut offer).ok()?;
    assert!(read_offer(&offer, &credential, [&challenge, &nonce]).unwrap().is_ok());
    Some(stream)
}

#[test]
#[ignore = "runs in the guest"]
fn peers_that_are_offered_a_queue_pair_and_never_answer_cost_nothing_for_long() {
    // An offer may be answered for 30 times as long.
    let solond = solond("auto", &["--listen-handshake-ms", "200"]);
    let workers: Vec<Worker> = (0..4).map(|index| join(&solond, index, Transport::Rdma)).collect();
    let before = (resources("qp", "rxe1").len(), resources("cq", "rxe1").len());
    assert_eq!(before, (4, 8));
    let rounds = Rounds::new(1);
    let (mut offers, mut most) = (0, 0);
    rounds_while(&rounds, workers, || {
        let started = Instant::now();
        let (mut silent, mut at) = (Vec::new(), 0u32);
        while started.elapsed() < Duration::from_secs(4) {
            // Two identities ask as often as they may; every other one dies right after the offer.
            at += 1;
            if let Some(stream) = handshake_until_the_offer(&solond, 4 + at % 2) {
                offers += 1;
                if offers % 2 == 0 {
                    silent.push(stream);
                }
            }
            most = most.max(resources("qp", "rxe1").len());
        }
        wait_until("all that was offered is taken back", || {
            (resources("qp", "rxe1").len(), resources("cq", "rxe1").len()) == before
        });
        rounds.more(5);
        let ended = silent.iter_mut().all(|stream| matches!(stream.read(&mut [0]), Ok(0) | Err(_)));
        assert!(ended, "the daemon closed them");
    });
    assert!(offers >= 6, "{offers}");
    // Per identity one offer, and what is being destroyed.
    assert!(most <= 4 + 2 * 3, "{most}");
    let (count, gap) = rounds.seen();
    println!(
        "{offers} offers without an answer: at most {most} queue pairs (4 of workers), then 4; {count} rounds meanwhile, the longest pause {gap:?}"
    );
}

#[test]
#[ignore = "runs in the guest"]
fn an_identity_that_joins_again_and_again_has_one_queue_pair() {
    let solond = solond("auto", &[]);
    let workers: Vec<Worker> = (0..5).map(|index| join(&solond, index, Transport::Rdma)).collect();
    let rounds = Rounds::new(1);
    let mut most = 0;
    rounds_while(&rounds, workers, || {
        // The newest session of an identity ends the one before, of which this worker does not know.
        let mut sessions: Vec<Worker> = Vec::new();
        while sessions.len() < 4 {
            match Worker::join(&options(&solond, 5, Transport::Rdma)) {
                Ok(worker) => sessions.push(worker),
                Err(error) => assert!(error.is_transient(), "{error}"),
            }
            most = most.max(resources("qp", "rxe1").len());
        }
        wait_until("only the newest is left", || resources("qp", "rxe1").len() == 6);
        rounds.more(5);
        drop(sessions);
        wait_until("it is gone", || resources("qp", "rxe1").len() == 5);
        rounds.more(5);
    });
    assert!(most <= 7, "{most}");
    println!("4 sessions of one identity in a row: at most {most} queue pairs, then 6, then 5");
}
