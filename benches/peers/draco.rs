//! Draco's repetition code (arXiv 1803.09877), re-made from the paper: an exact majority vote. Its cyclic code is in the library, where the
//! lab needs it.

use ::solon::rules::kernels::mean;

/// The mean of the groups' majorities: groups of `r` workers that are to send the same bits.
pub fn repetition(rows: &[&[f32]], r: usize, out: &mut [f32]) {
    // Boyer and Moore's vote. Bytes, because these are compared with the fastest instructions there are.
    let winner = |group: &[&'_ [f32]]| {
        let (mut candidate, mut votes) = (0, 0usize);
        for row in 0..group.len() {
            if votes == 0 {
                (candidate, votes) = (row, 1);
            } else if bytemuck::cast_slice::<f32, u8>(group[row]) == bytemuck::cast_slice::<f32, u8>(group[candidate]) {
                votes += 1;
            } else {
                votes -= 1;
            }
        }
        candidate
    };
    let winners: Vec<&[f32]> = rows.chunks(r).map(|group| group[winner(group)]).collect();
    mean(&winners, 1.0 / winners.len() as f32, out);
}
