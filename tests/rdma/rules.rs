//! Rules for workers that compute something else each: by RDMA the bits that they give by TCP.

use solon::client::Worker;
use solon::rules::{Rule, cyclic};
use solon::transport::Transport;

use super::cluster::{D, Rounds, distance, gradient, join, solond_of};

const WORKERS: usize = 7;
const ROUNDS: u64 = 4;

/// The updates of a few rounds in which one of seven lies.
fn updates(rule: Rule, transport: Transport) -> Vec<(u64, blake3::Hash)> {
    // The mean believes everybody.
    let liars = if rule == Rule::Mean { "0" } else { "1" };
    let job = ["--job-dimension", "5003", "--chunks-width", "500", "--job-groups", "7", "--job-adversaries", liars];
    let solond = solond_of(&job, "auto", &["--job-rule", rule.name(), "--rounds-deadline-ms", "20000"]);
    let workers: Vec<Worker> = (0..WORKERS).map(|index| join(&solond, index, transport)).collect();
    let rounds = Rounds::new(WORKERS);
    std::thread::scope(|scope| {
        for (index, mut worker) in workers.into_iter().enumerate() {
            let rounds = &rounds;
            scope.spawn(move || {
                let batches = match rule {
                    Rule::Cyclic => cyclic::batches(WORKERS, 1, index).collect(),
                    _ => vec![index],
                };
                for round in 0..ROUNDS {
                    let mut buffer: Vec<f32> = batches.iter().flat_map(|batch| gradient(*batch, round, D)).collect();
                    let mut lie = |_: u64, _: u32, shard: &mut [f32]| shard.iter_mut().for_each(|x| *x *= -100.0);
                    let report = if index == 2 {
                        worker.exchange_tampered(&mut buffer, Some(&mut lie)).unwrap()
                    } else {
                        worker.exchange(&mut buffer).unwrap()
                    };
                    assert!(report.absent.iter().next().is_none());
                    let update = &buffer[..D];
                    if rule == Rule::Cyclic {
                        assert!(distance(update, WORKERS, round) < 1e-5, "round {round}");
                        assert!(report.liars.iter().eq([2]), "{:?}", report.liars);
                    }
                    rounds.check_hash(round, blake3::hash(bytemuck::cast_slice(update)));
                }
                let way = worker.way();
                assert_eq!(way.rdma, transport == Transport::Rdma, "{}", way.reason);
            });
        }
    });
    rounds.hashes()
}

#[test]
#[ignore = "runs in the guest"]
fn every_rule_gives_the_same_bits_by_rdma_as_by_tcp() {
    for rule in Rule::all() {
        let by_tcp = updates(rule, Transport::Tcp);
        assert_eq!(by_tcp.len() as u64, ROUNDS);
        assert_eq!(by_tcp, updates(rule, Transport::Rdma), "{rule}");
        println!("{ROUNDS} rounds of {rule} with one liar: the same bits by TCP and by RDMA");
    }
}
