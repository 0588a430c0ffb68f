//! The CPU backend against transformers in float32.

mod common;

golden_tests!(2e-3, common::cpu);
