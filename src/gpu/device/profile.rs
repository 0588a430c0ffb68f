//! Times of kernels, by timestamps around each of them.

use crate::backend::KernelTime;
use crate::error::{Error, Result};
use crate::gpu::device::{dispatch::Dispatch, gpu::Gpu, grid::StepSize};

/// Queries that one set may hold.
const MOST_QUERIES: usize = wgpu::QUERY_SET_MAX_QUERIES as usize;

/// Runs dispatches one by one, each with the size of its step, and times them.
///
/// Errors: a device without timestamps.
pub(in crate::gpu) async fn run(
    gpu: &Gpu,
    dispatches: &[(&Dispatch, StepSize)],
) -> Result<Vec<KernelTime>> {
    if !gpu.facts().timestamp_query {
        return Err(Error::Device(format!("{} cannot time its work", gpu.facts())));
    }
    let mut stamps: Vec<u64> = Vec::new();
    for some in dispatches.chunks(MOST_QUERIES / 2) {
        stamps.extend(time(gpu, some).await?);
    }
    let period = f64::from(gpu.queue().get_timestamp_period());
    let first = stamps.first().copied().unwrap_or(0);
    let nanoseconds = |ticks: u64| (ticks as f64 * period) as u64;
    let times =
        dispatches.iter().zip(stamps.as_chunks::<2>().0).map(|((dispatch, step), [begin, end])| {
            KernelTime {
                name: dispatch.name,
                detail: dispatch.cost.detail.clone(),
                start: nanoseconds(begin.saturating_sub(first)),
                duration: nanoseconds(end.saturating_sub(*begin)),
                weight_bytes: dispatch.cost.weight_bytes,
                multiplications: dispatch.cost.multiplications_per_row
                    * dispatch.rows(*step) as u64,
            }
        });
    Ok(times.collect())
}

/// Ticks before and after each dispatch.
async fn time(gpu: &Gpu, dispatches: &[(&Dispatch, StepSize)]) -> Result<Vec<u64>> {
    let count = 2 * dispatches.len() as u32;
    let queries = gpu.device().create_query_set(&wgpu::QuerySetDescriptor {
        label: Some("profile"),
        ty: wgpu::QueryType::Timestamp,
        count,
    });
    let bytes = 8 * u64::from(count);
    let resolved = gpu.device().create_buffer(&wgpu::BufferDescriptor {
        label: Some("profile"),
        size: bytes,
        usage: wgpu::BufferUsages::QUERY_RESOLVE | wgpu::BufferUsages::COPY_SRC,
        mapped_at_creation: false,
    });
    let readback = gpu.readback_buffer(bytes)?;
    let mut encoder = gpu.device().create_command_encoder(&Default::default());
    for (index, (dispatch, step)) in (0u32..).zip(dispatches) {
        let mut pass = encoder.begin_compute_pass(&wgpu::ComputePassDescriptor {
            label: Some(dispatch.name),
            timestamp_writes: Some(wgpu::ComputePassTimestampWrites {
                query_set: &queries,
                beginning_of_pass_write_index: Some(2 * index),
                end_of_pass_write_index: Some(2 * index + 1),
            }),
        });
        dispatch.encode(&mut pass, *step);
    }
    encoder.resolve_query_set(&queries, 0..count, &resolved, 0);
    encoder.copy_buffer_to_buffer(&resolved, 0, &readback, 0, bytes);
    let submission = gpu.queue().submit([encoder.finish()]);
    let (mut stamps, _) =
        gpu.read::<u64>(gpu.map(readback, wgpu::MapMode::Read, submission)).await?;
    stamps.truncate(count as usize);
    Ok(stamps)
}
