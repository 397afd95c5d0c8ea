//! Rounds whose words wait for more shards than they need.

use super::*;

#[test]
fn a_worker_that_hangs_costs_a_round_time_and_no_update() {
    // Ten chunks and three credits, so that those who send cannot send all of them before some are decided.
    for linger_ms in [20, 1000] {
        let mut job = job(Parameters::new(2, 1, 0, 2).unwrap(), 200, 10);
        job.linger = Duration::from_millis(linger_ms);
        let mut cluster = Cluster::new(&job, 1);
        let gradients = gradients(2, 200, 6);
        for _ in 0..3 {
            let start = cluster.now;
            let reports = cluster.round(&gradients, &[2], &[]);
            for (worker, report) in reports.into_iter().enumerate().filter(|(worker, _)| *worker != 2) {
                let (_, report) = report.unwrap_or_else(|why| panic!("worker {worker}, linger {linger_ms} ms: {why}"));
                assert_eq!(report.absent.iter().collect::<Vec<_>>(), [2]);
            }
            let took = cluster.now - start;
            assert!(took < Duration::from_millis(linger_ms.min(500) + 100), "linger {linger_ms} ms: {took:?}");
        }
    }
}

#[test]
fn a_round_does_not_wait_for_a_worker_that_comes_back_when_a_part_of_it_is_out() {
    let mut job = job(Parameters::new(1, 1, 0, 2).unwrap(), 100, 10);
    (job.plan.credits, job.linger) = (1, Duration::from_secs(1));
    let mut cluster = Cluster::new(&job, 1);
    let gradient = &gradients(1, 100, 5)[0];
    cluster.sessions.iter_mut().for_each(|session| assert_eq!(session.begin(), Ok(0)));
    for session in &mut cluster.sessions {
        session.pump(Source::Separate(gradient), None);
    }
    let now = cluster.now;
    while cluster.pipeline.step(now) == Progress::Busy {}
    // The first chunk is out. The receiver has the worker's next session before the pusher knows of it.
    cluster.sessions[3] = join(&cluster.pipeline, &job, 3, 2000);
    let context = Context { now, registry: None };
    cluster.pipeline.receiver.step(&context);
    for session in &mut cluster.sessions[..3] {
        session.drive(now, None).unwrap();
        session.pump(Source::Separate(gradient), None);
    }
    cluster.pipeline.receiver.step(&context);
    cluster.pipeline.assembler.step(&context);
    while cluster.pipeline.step(now) == Progress::Busy {}
    for _ in 0..20 {
        for session in &mut cluster.sessions {
            session.drive(now, None).unwrap();
            session.pump(Source::Separate(gradient), None);
        }
        while cluster.pipeline.step(now) == Progress::Busy {}
    }
    assert_eq!((cluster.sessions[3].oldest(), cluster.pipeline.handle.board.closed()), (Some(1), 1));
}
