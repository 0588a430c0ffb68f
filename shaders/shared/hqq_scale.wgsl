//! needs: constants EITHER_SIGN, HIGHEST, ITERATIONS, LOWEST

// Alternates between levels for a scale and the least-squares scale for these levels.
// With EITHER_SIGN it starts once from each sign.

// The scale that maps the largest magnitude to the lowest level (int8: to ±127).
fn widest_scale() -> f32 {
    var extreme = 0.0;
    for (var i = first; i < end; i++) {
        let x = value(i);
        if abs(x) > abs(extreme) {
            extreme = x;
        }
    }
    return select(abs(extreme) / HIGHEST, extreme / LOWEST, EITHER_SIGN);
}

// Sums of level · value and of level², each times the weight of the value's error.
fn level_sums(steps: Steps) -> vec2<f32> {
    var sums = vec2<f32>();
    for (var i = first; i < end; i++) {
        let x = value(i);
        let weighted = level(steps, x) * importance(x);
        sums += vec2<f32>(weighted * x, weighted * level(steps, x));
    }
    return sums;
}

fn search() {
    let widest = make_steps(widest_scale(), 0.0);
    begin(widest);
    for (var sign = 0u; sign < select(1u, 2u, EITHER_SIGN); sign++) {
        var steps = widest;
        if sign == 1u {
            steps = make_steps(-widest_scale(), 0.0);
        }
        for (var round = 0u; round < ITERATIONS; round++) {
            let sums = level_sums(steps);
            if !(sums.y > 0.0) {
                break;
            }
            let next = make_steps(sums.x / sums.y, 0.0);
            offer(next);
            if next.word == steps.word {
                break;
            }
            steps = next;
        }
    }
}
