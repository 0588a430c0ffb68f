//! Emulates cooperative matrices of 8 × 8 in plain WGSL, for kernels that no adapter here supports.
//!
//! Only the types and functions of matrices change in a kernel's text.
//! As in Metal, each of 32 neighbouring invocations has two results of a block.
//! Invocation `i` has row i / 4, columns 2 · (i % 4) and the next.
//! It loads all operands of these results, so invocations exchange nothing.

use gemma4_wgpu::gpu::{Coop, Grid, KernelSource, KernelTarget, Variant, kernels::Kernel};

/// Types named after the matrices' roles, and the product.
/// `row` is a row of the left factor. Columns are those of the right factor.
const MATRICES: &str = "
struct EmulatedA {
    row: array<f32, 8>,
}

struct EmulatedB {
    columns: array<vec2<f32>, 8>,
}

struct EmulatedC {
    pair: vec2<f32>,
}

var<private> emulated_lane: u32;
var<private> emulated_local: u32;
var<workgroup> emulated_shuffled: array<f32, 256>;

fn emulated_shuffle_xor(own: f32, mask: u32) -> f32 {
    emulated_shuffled[emulated_local] = own;
    workgroupBarrier();
    let other = emulated_shuffled[emulated_local ^ mask];
    workgroupBarrier();
    return other;
}

fn emulated_multiply_add(a: EmulatedA, b: EmulatedB, c: EmulatedC) -> EmulatedC {
    var sum = c.pair;
    for (var k = 0u; k < 8u; k++) {
        sum += a.row[k] * b.columns[k];
    }
    return EmulatedC(sum);
}
";

/// A kernel for matrices of 8 × 8, without such matrices.
pub struct Emulated<K>(pub K);

impl<K> Emulated<K> {
    /// The target that the emulation imitates.
    pub fn target(target: &KernelTarget) -> KernelTarget {
        let variant = Variant { coop: Some(Coop::Eight), ..target.variant };
        KernelTarget { variant, ..*target }
    }
}

impl<K: Kernel> Kernel for Emulated<K> {
    fn source(&self, target: &KernelTarget) -> KernelSource {
        emulate(&self.0.source(&Self::target(target)))
    }

    fn grid(&self, target: &KernelTarget) -> Grid {
        self.0.grid(&Self::target(target))
    }
}

fn emulate(source: &KernelSource) -> KernelSource {
    let text = source.wgsl.replace("enable wgpu_cooperative_matrix;\n", "");
    let text = number_invocations(&text);
    let mut functions = Vec::new();
    let text = replace_accesses(&text, &mut functions);
    let text = text.replace("subgroupShuffleXor(", "emulated_shuffle_xor(");
    let mut text = text.replace("coopMultiplyAdd(", "emulated_multiply_add(");
    for (role, scalar) in [("A", "f16"), ("B", "f16"), ("C", "f32")] {
        text = text.replace(&format!("coop_mat8x8<{scalar}, {role}>"), &format!("Emulated{role}"));
    }
    assert!(
        !text.contains("coopLoad") && !text.contains("coopStore") && !text.contains("coop_mat"),
        "{text}"
    );
    functions.sort();
    functions.dedup();
    KernelSource { wgsl: text + MATRICES + &functions.concat(), ..source.clone() }
}

/// Numbers invocations in subgroups of 32, whatever the adapter's subgroups are.
fn number_invocations(text: &str) -> String {
    let body = "\n) {\n";
    let (functions, entry) = text.split_once("fn main(").expect("an entry point");
    assert!(entry.contains(body), "an entry point whose parameters have lines of their own");
    let text = entry;
    let text = text.replace("    @builtin(subgroup_id) subgroup: u32,\n", "");
    let text = text.replace("    @builtin(subgroup_invocation_id) lane: u32,\n", "");
    let numbers = "    let subgroup = local / 32u;
    let lane = local % 32u;
    emulated_lane = lane;
    emulated_local = local;
";
    format!("{functions}fn main({}", text.replacen(body, &format!("{body}{numbers}"), 1))
}

/// Replaces loads and stores by calls of functions, which it adds to `functions`.
fn replace_accesses(text: &str, functions: &mut Vec<String>) -> String {
    let mut result = String::new();
    let mut rest = text;
    while let Some(at) = rest.find("coopLoad").into_iter().chain(rest.find("coopStore")).min() {
        let (before, call) = rest.split_at(at);
        result.push_str(before);
        // coopLoadT<coop_mat8x8<f16, A>>(&tile[at], PITCH) or coopStoreT(value, &tile[at], PITCH)
        let (head, tail) = call.split_once('&').expect("an address");
        let (array, tail) = tail.split_once('[').expect("an element");
        let (index, tail) = tail.split_once("], ").expect("a stride");
        let row_major = head.contains("LoadT") || head.contains("StoreT");
        let order = if row_major { "rows" } else { "columns" };
        // The element of row i and column j.
        let element = |i: &str, j: &str| match row_major {
            true => format!("{array}[at + {i} * stride + {j}]"),
            false => format!("{array}[at + {j} * stride + {i}]"),
        };
        match head.split_once(">>(").map(|(ty, _)| ty.trim_end().chars().last().expect("a role")) {
            Some(role) => {
                result.push_str(&format!("load_{role}_{array}_{order}({index}, "));
                functions.push(load(role, array, order, element));
            }
            None => {
                let value = head.split_once('(').expect("arguments").1;
                result.push_str(&format!("store_{array}_{order}({value}{index}, "));
                functions.push(store(array, order, element));
            }
        }
        rest = tail;
    }
    result + rest
}

fn load(role: char, array: &str, order: &str, element: impl Fn(&str, &str) -> String) -> String {
    let (field, count, value) = match role {
        'A' => ("row[k]", 8, format!("f32({})", element("i", "k"))),
        'B' => (
            "columns[k]",
            8,
            format!("vec2<f32>(f32({}), f32({}))", element("k", "j"), element("k", "(j + 1u)")),
        ),
        _ => ("pair", 1, format!("vec2<f32>({}, {})", element("i", "j"), element("i", "(j + 1u)"))),
    };
    format!(
        "
fn load_{role}_{array}_{order}(at: u32, stride: u32) -> Emulated{role} {{
    let i = emulated_lane / 4u;
    let j = 2u * (emulated_lane % 4u);
    var loaded: Emulated{role};
    for (var k = 0u; k < {count}u; k++) {{
        loaded.{field} = {value};
    }}
    return loaded;
}}
"
    )
}

fn store(array: &str, order: &str, element: impl Fn(&str, &str) -> String) -> String {
    let (first, second) = (element("i", "j"), element("i", "(j + 1u)"));
    format!(
        "
fn store_{array}_{order}(stored: EmulatedC, at: u32, stride: u32) {{
    let i = emulated_lane / 4u;
    let j = 2u * (emulated_lane % 4u);
    {first} = stored.pair.x;
    {second} = stored.pair.y;
}}
"
    )
}
