//! needs: constants BETA, BETA_GROWTH, HIGHEST, ITERATIONS, LOWEST, P

// Moves the offset to the mean of the rounding errors.
// The proximal step of the p-norm shrinks the influence of outliers.

fn range_steps() -> Steps {
    var low = 3.4e38;
    var high = -3.4e38;
    for (var i = first; i < end; i++) {
        low = min(low, value(i));
        high = max(high, value(i));
    }
    let scale = (high - low) / (HIGHEST - LOWEST);
    return make_steps(scale, low - scale * LOWEST);
}

fn mean_residual(steps: Steps, beta: f32) -> f32 {
    var sum = 0.0;
    for (var i = first; i < end; i++) {
        let off = value(i) - rounded(steps, value(i));
        let steps_off = off * steps.inverse;
        let outlier = max(abs(steps_off) - pow(max(abs(steps_off), 1e-6), P - 1.0) / beta, 0.0);
        sum += off - select(outlier, -outlier, steps_off < 0.0) * steps.scale;
    }
    return sum / f32(end - first);
}

fn search() {
    var steps = range_steps();
    begin(steps);
    // Errors are in steps of the scale, so the threshold means the same for every group.
    var beta = BETA;
    for (var round = 0u; round < ITERATIONS; round++) {
        steps = make_steps(steps.scale, steps.zero + mean_residual(steps, beta));
        offer(steps);
        beta *= BETA_GROWTH;
    }
}
