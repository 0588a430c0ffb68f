// For sdpa_decode of a layer that attends to another layer's keys and values, which are in the cache: q as the product
// left it, normed and turned here.

@group(0) @binding(1) var<storage, read> k_cache: array<CacheEight>;   // [slots, N_KV, CAPACITY, D / 8]
@group(0) @binding(2) var<storage, read> v_cache: array<CacheEight>;   // [slots, N_KV, CAPACITY, D / 8]
@group(0) @binding(6) var<storage, read> head_norms: array<vec4<f32>>; // q_norm [D / 4]
@group(0) @binding(7) var<storage, read> turns: array<vec4<u32>>;      // [D / 8]: 2^32 · turns per position

// An item is four dims of a head's first half and the four that turn with them.
const ITEMS: u32 = HEADS * OCTETS;
var<workgroup> factors: array<f32, HEADS>;

fn prepare(row: u32, position: u32, first_head: u32, kv_head: u32, cache: u32, newest: bool, local: u32) {
    let source = (row * QKV_STRIDE + first_head * D) / 4u;
    for (var item = local; item < ITEMS; item += WORKGROUP) {
        let at = source + (item / OCTETS) * FOURS + item % OCTETS;
        pool[item] = dot(qkv[at], qkv[at]) + dot(qkv[at + OCTETS], qkv[at + OCTETS]);
    }
    workgroupBarrier();
    for (var head = local; head < HEADS; head += WORKGROUP) {
        var sum = 0.0;
        for (var i = 0u; i < OCTETS; i++) {
            sum += pool[head * OCTETS + i];
        }
        factors[head] = inverseSqrt(sum / f32(D) + EPS) * SCALE;
    }
    workgroupBarrier();
    for (var item = local; item < ITEMS; item += WORKGROUP) {
        let head = item / OCTETS;
        let four = item % OCTETS;
        let at = source + head * FOURS + four;
        let first = qkv[at] * factors[head] * head_norms[four];
        let second = qkv[at + OCTETS] * factors[head] * head_norms[OCTETS + four];
        // The product wraps at whole turns, so that the angle is exact at any position.
        let turn = turns[four] * position;
        let x = cos_sin(turn.x);
        let y = cos_sin(turn.y);
        let z = cos_sin(turn.z);
        let w = cos_sin(turn.w);
        let c = vec4<f32>(x.x, y.x, z.x, w.x);
        let s = vec4<f32>(x.y, y.y, z.y, w.y);
        heads[four_place(head, four)] = first * c - second * s;
        heads[four_place(head, OCTETS + four)] = second * c + first * s;
    }
    workgroupBarrier();
}
