// The end of a chained kernel between two layers.

fn conclude(down: ptr<function, down_Held>, ready: ptr<function, Ready>, before: Columns, first: u32, local: u32) {
    var qkv = qkv_Held();
    down_product(down, ready, &qkv, first, local);
    let after = feedforward_norm(before, *ready, local);
    if first == 0u {
        keep_stream(after, local);
    }
    qkv_product(&qkv, first, local);
}
