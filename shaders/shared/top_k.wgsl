//! needs: constants ID_DIGITS, MOST, NO_ID, WORKGROUP

// The best of many candidates, chosen by one workgroup.
// A radix select finds the k-th best, digit by digit. Then all that are at least as good are kept.
//
// A candidate is (key, id). The better one has the larger key, or of equal keys the lower id.
// The kernel defines `fn candidate(row: u32, i: u32) -> vec2<u32>`.
// It also defines these constants:
//   WORKGROUP: the number of digits, one for each invocation
//   MOST: the largest number of kept candidates
//   ID_DIGITS and NO_ID: ids are less than NO_ID = 256^ID_DIGITS - 1

var<workgroup> digits: array<atomic<u32>, WORKGROUP>;
var<workgroup> sums: array<u32, WORKGROUP>;
var<workgroup> found: vec3<u32>;
var<workgroup> kept_count: atomic<u32>;
var<workgroup> kept: array<vec2<u32>, MOST>;

// Maps logits to u32 in their order: NaN, then +inf, then all others. -0 is the same as 0.
// No logit has the key 0.
fn sort_key(bits: u32) -> u32 {
    if (bits & 0x7fffffffu) > 0x7f800000u {
        return 0xffffffffu;
    }
    let sound = select(bits, 0u, bits == 0x80000000u);
    return select(sound | 0x80000000u, ~sound, (sound >> 31u) == 1u);
}

const INFINITE_KEY: u32 = 0xff800000u;
const MINUS_INFINITE_KEY: u32 = 0x007fffffu;

fn logit_of(key: u32) -> f32 {
    return bitcast<f32>(select(~key, key & 0x7fffffffu, (key >> 31u) == 1u));
}

// Finds the digit of the `wanted`-th best candidate counted in `digits`.
// Also returns the number of candidates with larger digits.
// The last result says whether all candidates with this digit are wanted.
// If there are fewer than `wanted`, the results are 0, none and all.
fn find_digit(wanted: u32, local: u32) -> vec3<u32> {
    let own = atomicLoad(&digits[local]);
    var sum = own;
    sums[local] = sum;
    if local == 0u {
        found = vec3<u32>(0u, 0u, 1u);
    }
    workgroupBarrier();
    for (var step = 1u; step < WORKGROUP; step <<= 1u) {
        if local + step < WORKGROUP {
            sum += sums[local + step];
        }
        workgroupBarrier();
        sums[local] = sum;
        workgroupBarrier();
    }
    let above = sum - own;
    if sum >= wanted && above < wanted {
        found = vec3<u32>(local, above, select(0u, 1u, sum == wanted));
    }
    return workgroupUniformLoad(&found);
}

// The key and NO_ID - id of the k-th best candidate of first..end, which are more than k.
// It may leave out last digits that do not change the choice.
fn find_last(row: u32, first: u32, end: u32, k: u32, local: u32) -> vec2<u32> {
    var last = vec2<u32>();
    var wanted = k;  // the number of wanted candidates that begin with the known digits
    for (var turn = 0u; turn < 4u + ID_DIGITS; turn++) {
        let of_id = turn >= 4u;
        let shift = 8u * select(3u - turn, 3u + ID_DIGITS - turn, of_id);
        let known = ~((256u << shift) - 1u);
        atomicStore(&digits[local], 0u);
        workgroupBarrier();
        // Neighbours often have the same digit. The loop counts a run of equal digits at once.
        var run_of = 0u;
        var run = 0u;
        for (var i = first + local; i < end; i += WORKGROUP) {
            let one = candidate(row, i);
            let differs = vec2<u32>(one.x, NO_ID - one.y) ^ last;
            let masked = select(differs.x & known, differs.x | (differs.y & known), of_id);
            if masked == 0u {
                let digit = (select(one.x, NO_ID - one.y, of_id) >> shift) & 255u;
                if digit != run_of {
                    atomicAdd(&digits[run_of], run);
                    run_of = digit;
                    run = 0u;
                }
                run++;
            }
        }
        atomicAdd(&digits[run_of], run);
        workgroupBarrier();
        let digit = find_digit(wanted, local);
        last |= select(vec2<u32>(digit.x << shift, 0u), vec2<u32>(0u, digit.x << shift), of_id);
        wanted -= digit.y;
        if digit.z == 1u {
            break;
        }
    }
    return last;
}

// Leaves the `k` best of the row's candidates first..end in `kept`, in any order.
// If there are fewer, the rest is (0, NO_ID).
fn store_best(row: u32, first: u32, end: u32, k: u32, local: u32) {
    var last = vec2<u32>();
    if end - first > k {
        last = find_last(row, first, end, k, local);
    }
    if local < MOST {
        kept[local] = vec2<u32>(0u, NO_ID);
    }
    if local == 0u {
        atomicStore(&kept_count, 0u);
    }
    workgroupBarrier();
    for (var i = first + local; i < end; i += WORKGROUP) {
        let one = candidate(row, i);
        if one.x > last.x || (one.x == last.x && one.x > 0u && NO_ID - one.y >= last.y) {
            kept[atomicAdd(&kept_count, 1u)] = one;
        }
    }
    workgroupBarrier();
}
