//! The CPU backend against transformers in float32.

use crate::{common, golden_tests};

golden_tests!(2e-3, common::cpu);

#[test]
fn every_case_is_tested() {
    use common::goldens::{CASES, cases, directory};
    assert_eq!(cases(&directory("goldens")).len(), CASES);
}

/// The fast path rounds activations to int8 where weights are integers.
mod fast {
    use crate::{common, golden_tests};

    golden_tests!(2e-2, common::fast_cpu(None));
}
