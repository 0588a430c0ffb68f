// For sdpa_decode: q, k and v as the product left them. Every workgroup norms and turns its q, its k and its v; that
// which has the newest key puts k and v into the cache, from which it alone reads them. (Where several have the same KV
// head, they write the same.) Steps with two tokens of one sequence cannot be run this way.

@group(0) @binding(1) var<storage, read_write> k_cache: array<CacheEight>; // [slots, N_KV, CAPACITY, D / 8]
@group(0) @binding(2) var<storage, read_write> v_cache: array<CacheEight>; // [slots, N_KV, CAPACITY, D / 8]
@group(0) @binding(6) var<storage, read> head_norms: array<vec4<f32>>;     // q_norm [D / 4], k_norm [D / 4]
@group(0) @binding(7) var<storage, read> turns: array<vec4<u32>>;          // [D / 8]: 2^32 · turns per position

// An item is four dims of a head's first half and the four that turn with them.
const ITEMS: u32 = HEAD_ROWS * OCTETS;
const EIGHTS: u32 = (OCTETS + 7u) / 8u;
var<workgroup> squares: array<f32, HEAD_ROWS * EIGHTS>;

fn turned(values: Octet, normed: f32, weights_at: u32, four: u32, position: u32) -> Octet {
    let first = values.lo * normed * head_norms[weights_at + four];
    let second = values.hi * normed * head_norms[weights_at + OCTETS + four];
    // The product wraps at whole turns, so that the angle is exact at any position.
    let turn = turns[four] * position;
    let x = cos_sin(turn.x);
    let y = cos_sin(turn.y);
    let z = cos_sin(turn.z);
    let w = cos_sin(turn.w);
    let c = vec4<f32>(x.x, y.x, z.x, w.x);
    let s = vec4<f32>(x.y, y.y, z.y, w.y);
    return Octet(first * c - second * s, second * c + first * s);
}

fn prepare(row: u32, position: u32, first_head: u32, kv_head: u32, cache: u32, newest: bool, local: u32) {
    var items = array<Octet, ITEMS_EACH>();
    for (var j = 0u; j < ITEMS_EACH; j++) { // unrolled
        let item = local + j * WORKGROUP;
        if item < ITEMS {
            let head = item / OCTETS;
            let of_kv = select(V_SOURCE, K_SOURCE, head == HEADS) + kv_head * D;
            let source = (row * QKV_STRIDE + select(of_kv, (first_head + head) * D, head < HEADS)) / 4u;
            items[j] = Octet(qkv[source + item % OCTETS], qkv[source + OCTETS + item % OCTETS]);
            pool[item] = dot(items[j].lo, items[j].lo) + dot(items[j].hi, items[j].hi);
        }
    }
    workgroupBarrier();
    for (var i = local; i < HEAD_ROWS * EIGHTS; i += WORKGROUP) {
        let first = (i % EIGHTS) * 8u;
        var sum = 0.0;
        for (var four = first; four < min(first + 8u, OCTETS); four++) {
            sum += pool[(i / EIGHTS) * OCTETS + four];
        }
        squares[i] = sum;
    }
    workgroupBarrier();
    for (var j = 0u; j < ITEMS_EACH; j++) { // unrolled
        let item = local + j * WORKGROUP;
        if item < ITEMS {
            let head = item / OCTETS;
            let four = item % OCTETS;
            var sum = 0.0;
            for (var i = 0u; i < EIGHTS; i++) {
                sum += squares[head * EIGHTS + i];
            }
            let normed = inverseSqrt(sum / f32(D) + EPS);
            var values = items[j];
            if head < HEADS {
                values = turned(values, normed * SCALE, 0u, four, position);
            } else if head == HEADS {
                values = turned(values, normed, FOURS, four, position);
            } else if V_NORM {
                values = Octet(values.lo * normed, values.hi * normed);
            }
            heads[four_place(head, four)] = values.lo;
            heads[four_place(head, OCTETS + four)] = values.hi;
        }
    }
    workgroupBarrier();
    if newest {
        let place = (cache + position % CAPACITY) * OCTETS;
        for (var octet = local; octet < OCTETS; octet += WORKGROUP) {
            let k = HEADS * FOURS + octet;
            k_cache[place + octet] = pack_eight(Octet(heads[k], heads[k + OCTETS]));
            let v = k + FOURS;
            v_cache[place + octet] = pack_eight(Octet(heads[v], heads[v + OCTETS]));
        }
        storageBarrier();
    }
}
