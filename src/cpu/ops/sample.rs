use crate::error::Result;
pub use crate::sampling::argmax;
use crate::sampling::{self, Draw};

/// `cap · tanh(x / cap)`, in place.
pub fn softcap(logits: &mut [f32], cap: f32) {
    logits.iter_mut().for_each(|x| *x = cap * (*x / cap).tanh());
}

/// The id that a draw chooses. Errors as in [`Draw::choose`].
pub fn sample(logits: &[f32], draw: &Draw) -> Result<u32> {
    draw.choose(logits)
}

/// Sets the logits of `ids` to −∞, in place. Ids outside the row are ignored.
pub fn suppress(logits: &mut [f32], ids: &[u32]) {
    sampling::suppress(logits, ids);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cpu::ops::testing::assert_close;

    #[test]
    fn softcap_follows_the_formula() {
        let x = [-100.0f32, -3.0, -0.5, 0.0, 1.0, 7.0, 1e30];
        let expected = x.map(|x| 5.0 * (x as f64 / 5.0).tanh());
        let mut out = x;
        softcap(&mut out, 5.0);
        assert_close(&out, &expected, 1e-6);
    }

    #[test]
    fn argmax_takes_the_lowest_id_among_equals() {
        assert_eq!(argmax(&[1.0, 3.0, 2.0, 3.0]), 1);
        assert_eq!(argmax(&[-5.0, -4.0]), 1);
        assert_eq!(argmax(&[0.0, -0.0]), 0);
    }

    #[test]
    fn argmax_passes_over_nan() {
        assert_eq!(argmax(&[f32::NAN, -1.0, f32::NAN, 2.0, f32::NAN]), 3);
        assert_eq!(argmax(&[f32::NAN, f32::NAN]), 0);
        assert_eq!(argmax(&[f32::NEG_INFINITY, f32::NEG_INFINITY]), 0);
    }
}
