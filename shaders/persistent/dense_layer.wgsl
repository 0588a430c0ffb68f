//! needs: layer_norms, columns, ending

// The end of a dense layer: the norms after the MLP.

alias down_Next = End;

fn down_prepare_next(
    before: ptr<function, Columns>,
    ready: ptr<function, Ready>,
    next: ptr<function, End>,
    group: u32,
    local: u32,
) {
    *ready = feedforward_ready(local);
    prepare_end(next, group, local);
}

fn finish_layer(
    before: Columns,
    ready: Ready,
    next: ptr<function, End>,
    group: u32,
    local: u32,
) {
    let after = add_rms_norm(FEEDFORWARD_BRANCH, layer.x, before, ready, local);
    end(after, ready, next, group, local);
}
