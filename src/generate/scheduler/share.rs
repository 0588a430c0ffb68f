//! Rows of a step for several prompts.

/// Divides `budget` rows among prompts that have `wanted` rows left. None waits for the end of
/// another. Each gets an equal part, and what short prompts leave goes to longer ones (max-min
/// fairness). `first` gets a remainder of the division before the others.
pub fn share(budget: usize, wanted: &[usize], first: usize) -> Vec<usize> {
    let count = wanted.len();
    let mut order: Vec<usize> = (0..count).collect();
    order.sort_by_key(|&at| (wanted[at], (at + count - first % count) % count));
    let (mut rows, mut left) = (vec![0; count], budget);
    for (place, &at) in order.iter().enumerate() {
        rows[at] = wanted[at].min(left.div_ceil(count - place));
        left -= rows[at];
    }
    rows
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prompts_share_a_step() {
        assert_eq!(share(8, &[], 3), [0usize; 0]);
        assert_eq!(share(8, &[100], 5), [8]);
        assert_eq!(share(8, &[100, 100], 0), [4, 4]);
        assert_eq!(share(8, &[100, 2, 100], 0), [3, 2, 3]);
        assert_eq!(share(8, &[1, 2, 3], 0), [1, 2, 3]);
        // The remainder goes around.
        assert_eq!(share(1, &[9, 9, 9], 0), [1, 0, 0]);
        assert_eq!(share(1, &[9, 9, 9], 1), [0, 1, 0]);
        assert_eq!(share(1, &[9, 9, 9], 5), [0, 0, 1]);
        assert_eq!(share(0, &[9, 9], 0), [0, 0]);
    }
}
