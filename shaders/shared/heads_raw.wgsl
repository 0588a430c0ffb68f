//! needs: cache, norm_heads, octet, turned; constants CAPACITY, D, HEADS, K_SOURCE,
//! QKV_STRIDE, SCALE, V_NORM, V_SOURCE, WORKGROUP
// For sdpa_decode: q, k and v as the product left them. Every workgroup norms and turns its q, its
// k and its v; that which has the newest key puts k and v into the cache, from which it alone reads
// them. (Where several have the same KV head, they write the same.) Steps with two tokens of one
// sequence cannot be run this way.

@group(0) @binding(1) var<storage, read_write> k_cache: array<CacheEight>; // [slots, N_KV, CAPACITY, D / 8]
@group(0) @binding(2) var<storage, read_write> v_cache: array<CacheEight>; // [slots, N_KV, CAPACITY, D / 8]
@group(0) @binding(6) var<storage, read> head_norms: array<vec4<f32>>;     // q_norm [D / 4], k_norm [D / 4]
@group(0) @binding(7) var<storage, read> turns: array<vec4<u32>>;          // [D / 8]: 2^32 · turns per position

// Where an item of a head of the row is in qkv: four dims of the head's first half; the four that
// turn with them follow half a head later.
fn item_source(row: u32, first_head: u32, kv_head: u32, head: u32, four: u32) -> u32 {
    let of_kv = select(V_SOURCE, K_SOURCE, head == HEADS) + kv_head * D;
    return (row * QKV_STRIDE + select(of_kv, (first_head + head) * D, head < HEADS)) / 4u + four;
}

// An item as attention takes it: `normed` is the factor of its head's norm.
fn keep_item(item: Octet, normed: f32, head: u32, four: u32, position: u32) {
    var values = item;
    if head < HEADS {
        values = turned(item, normed * SCALE, 0u, four, position);
    } else if head == HEADS {
        values = turned(item, normed, FOURS, four, position);
    } else if V_NORM {
        values = Octet(item.lo * normed, item.hi * normed);
    }
    heads[four_place(head, four)] = values.lo;
    heads[four_place(head, OCTETS + four)] = values.hi;
}

fn prepare(row: u32, position: u32, first_head: u32, kv_head: u32, cache: u32, newest: bool, local: u32) {
    norm_and_turn(row, position, first_head, kv_head, local);
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
