//! The data path of the code allocates nothing after construction, whatever arrives.

#![allow(unsafe_code)]

use std::alloc::{GlobalAlloc, Layout as MemoryLayout, System};
use std::cell::Cell;
use std::sync::Arc;

use solon::code::*;

struct Counting;

thread_local! {
    static COUNT: Cell<u64> = const { Cell::new(0) };
}

// SAFETY: defers to the system's allocator; a const-initialised thread local of a plain number does not allocate.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: MemoryLayout) -> *mut u8 {
        COUNT.set(COUNT.get() + 1);
        // SAFETY: the caller's promise is passed on.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: MemoryLayout) {
        // SAFETY: the caller's promise is passed on.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static COUNTING: Counting = Counting;

#[test]
fn encode_project_locate_check_sweep_and_recover_allocate_nothing() {
    for (s, c, e) in [(0, 1, 0), (1, 1, 0), (2, 4, 1), (5, 10, 2), (10, 10, 0)] {
        let parameters = Parameters::new(1, s, e, c).unwrap();
        let r = parameters.redundancy();
        let generator = Arc::new(Generator::new(Family::Trigonometric, Form::Systematic, r, c).unwrap());
        let chunk = Layout::new(1000, c, 1000).chunk(0);
        let block: Vec<f32> = (0..1000).map(|i| (i as f32).sin()).collect();
        let mut shards = vec![vec![0.0; chunk.width]; r];
        let mut out = vec![0.0; chunk.len];
        let mut projector = Projector::new(chunk.width, 4);
        let mut locator = Locator::new(parameters, generator.clone(), Tolerance::default(), 4, [9; 32]);
        let mut recoverer = Recoverer::new(generator.clone());
        let mut sweep = Sweep::new(generator.clone(), 1, Verify::Random, Tolerance::default());
        let mut word = vec![0.0; locator.word_len()];
        let mut projected = vec![Projected::default(); r];
        let all = Rows::first(r);
        let last: Rows = [r - 1].into_iter().collect();

        let before = COUNT.get();
        for liars in 0..=s {
            for (row, shard) in shards.iter_mut().enumerate() {
                encode(&generator, row, &block, shard);
                if row < liars {
                    shard.iter_mut().for_each(|x| *x *= 1.01 + row as f32);
                }
            }
            projector.draw(&[liars as u8; 32], chunk.width);
            projected.iter_mut().zip(&shards).for_each(|(p, shard)| *p = projector.project(shard).unwrap());
            let present = if liars < s { all.without(last) } else { all };
            let Outcome::Agreed(agreement) = locator.locate(present, Rows::EMPTY, &projected, chunk.width, &mut word)
            else {
                panic!("undecided");
            };
            if !agreement.rows.contains(r - 1) {
                locator.check(&agreement.record, &word, r - 1, Some(&projected[r - 1]));
            }
            let shard_of = |rank: usize| shards[agreement.rows.iter().nth(rank).unwrap()].as_slice();
            recoverer.recover(agreement.rows, shard_of, &chunk, 1.0, &mut out);
            let mut views: [&[f32]; 64] = [&[]; 64];
            views.iter_mut().zip(&shards).for_each(|(view, shard)| *view = shard);
            for learn in [Learn::Whether, Learn::Who, Learn::Nothing] {
                if learn != Learn::Whether || sweep.can_check() {
                    let task = Task { present: all, used: sweep.used(agreement.rows), learn };
                    sweep.run(&[liars as u8; 32], &[task], &views[..r], &chunk, 1.0, &mut out);
                }
            }
            sweep.recover(&[agreement.rows], &views[..r], &chunk, 1.0, &mut out);
        }
        assert_eq!(COUNT.get() - before, 0, "({s}, {c}, {e})");
    }
}
