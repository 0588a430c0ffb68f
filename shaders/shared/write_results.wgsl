//! needs: finish; constants ROWS

// Writes up to four results, those of rows first..first + 4 that exist.
fn write_results(first: u32, sums: vec4<f32>, y_base: u32) {
    if first < ROWS {
        y[y_base + first] = finish(sums.x);
    }
    if first + 1u < ROWS {
        y[y_base + first + 1u] = finish(sums.y);
    }
    if first + 2u < ROWS {
        y[y_base + first + 2u] = finish(sums.z);
    }
    if first + 3u < ROWS {
        y[y_base + first + 3u] = finish(sums.w);
    }
}
