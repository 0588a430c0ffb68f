//! The CPU backend against transformers in float32.

use crate::{common, golden_tests};

golden_tests!(2e-3, common::cpu);
