//! An exception of MLX becomes an error with its message, and MLX stays usable.

use gemma4_wgpu::{
    Error, Result,
    mlx::ops::{Array, Dtype, Mask, async_eval},
};

use super::tensors::{array, ids, values};
use crate::common::assert_close;

#[track_caller]
fn message(result: Result<Array>) -> String {
    match result {
        Err(Error::Device(reason)) if reason.starts_with("MLX: ") => reason,
        other => panic!("{:?}", other.map(|array| array.shape())),
    }
}

#[test]
fn shapes_that_do_not_fit() {
    let (a, b) = (array(&[1.0; 6], &[2, 3]), array(&[1.0; 8], &[2, 4]));
    assert!(message(a.matmul(&b)).contains("matmul"));
    assert!(message(a.add(&b)).to_lowercase().contains("shape"));
    assert!(message(a.reshape(&[5])).contains("reshape"));
    assert!(message(a.sdpa(&a, &a, 1.0, &Mask::None)).contains("rank 4"));
    message(a.rms_norm(Some(&b), 1e-6));
    message(a.slice(&[0], &[1]));
    message(Array::concatenate(&[]));
    message(Array::new(&[0; 3], &[1], Dtype::F32));
    assert_close(&values(&a.matmul(&a).unwrap()), &[3.0; 4], 0.0, "after errors");
}

#[test]
fn memory_that_nobody_has() {
    message(Array::zeros(&[1 << 30, 1 << 30, 1 << 30], Dtype::F32));
    let beyond = message(Array::zeros(&[1 << 30, 1 << 20], Dtype::F32));
    assert!(beyond.contains("4503599627370496 bytes"), "{beyond}");
    message(Array::zeros(&[1 << 40], Dtype::F32));
    let mut small = Array::zeros(&[2], Dtype::F32).unwrap();
    assert!(small.write(4, &[0; 8]).is_err());
    small.write(4, &1f32.to_le_bytes()).unwrap();
    assert_eq!(values(&small), [0.0, 1.0]);
}

#[test]
fn an_array_can_be_waited_for_and_read_twice() {
    let sum = array(&[1.0, 2.0], &[2]).add(&array(&[3.0, 4.0], &[2])).unwrap();
    async_eval(&[&sum]).unwrap();
    sum.wait().unwrap();
    assert_eq!((values(&sum), values(&sum)), (vec![4.0, 6.0], vec![4.0, 6.0]));
    assert_eq!(ids(&[7, 9]).read::<u32>().unwrap(), [7, 9]);
}
