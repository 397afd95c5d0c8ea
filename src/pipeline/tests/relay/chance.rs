//! Links that break by chance, and liars at both ends of them.

use super::*;

#[test]
fn whatever_two_liars_and_the_network_do_to_links_updates_are_right_and_no_honest_worker_is_named() {
    for seed in 0..200 {
        let mut chance = Chance::new(seed);
        let parameters = parameters([1, 4][chance.below(2)]);
        let mut job = relayed(parameters, true);
        job.updates = 4 + chance.below(12);
        let mut mesh = Mesh::new(job);
        mesh.chance = Some(Chance::new(seed + 1000));
        let workers = mesh.workers();
        let liars = [chance.below(workers), chance.below(workers)];
        for liar in liars {
            let mut whim = Chance::new(seed * 31 + liar as u64);
            mesh.cluster.sessions[liar].set_carry(Box::new(move |header, _, frame| match whim.below(8) {
                0 | 1 => 0,
                2 => {
                    let at = HEADER_BYTES + whim.below(frame.len() - HEADER_BYTES);
                    frame[at] ^= 1 << whim.below(8);
                    reseal(*header, frame);
                    1
                }
                3 => {
                    frame[whim.below(HEADER_BYTES)] ^= 1 << whim.below(8);
                    1
                }
                4 => 1 + whim.below(3),
                _ => 1,
            }));
        }
        let mut session = 5000;
        for round in 0..10 {
            for _ in 0..chance.below(4) {
                let (one, other) = (chance.below(workers), chance.below(workers));
                if mesh.cluster.sessions[one].is_linked(other as u32) {
                    // The end of a connection that is cut.
                    mesh.cluster.sessions[one].link(other as u32, memory::pair(1).0);
                }
            }
            let leaver = chance.below(workers);
            if chance.one_in(4) && !liars.contains(&leaver) {
                mesh.cluster.sessions[leaver].hang_up();
                mesh.gone.insert(leaver);
            }
            mesh.round(round);
            if mesh.gone.remove(&leaver) {
                session += 1;
                mesh.cluster.sessions[leaver] = join(&mesh.cluster.pipeline, &mesh.job, leaver as u32, session);
                mesh.settle();
            }
        }
        mesh.settle();
        let named: Vec<u32> = mesh.bad.iter().map(|(worker, _)| *worker).collect();
        assert!(named.iter().all(|worker| liars.contains(&(*worker as usize))), "seed {seed}: {named:?} of {liars:?}");
        assert_eq!(mesh.counted(Counter::Violations), 0, "seed {seed}");
        assert_eq!(mesh.counted(Counter::DigestMismatches), 0, "seed {seed}");
        assert!(mesh.counted(Counter::UpdateBytesCarried) > 0, "seed {seed}");
    }
}
