//! Emulates cooperative matrices in plain WGSL, for kernels that no adapter here supports.
//!
//! Only the types and functions of matrices change in a kernel's text.
//! As in Metal, each of 32 neighbouring invocations has some elements of a block: a part of a row.
//! Of a block of 8 × 8, invocation `i` has row i / 4, columns 2 · (i % 4) and the next.
//! Of a block of 16 × 16, it has row i / 2 and eight columns from 8 · (i % 2) on.
//! Invocations exchange the elements of a product through workgroup memory.
//! Loading them all in each invocation would be code that takes a software driver minutes to
//! compile.

use gemma4_wgpu::gpu::{Coop, Grid, KernelSource, KernelTarget, Variant, kernels::Kernel};

/// Types named after the matrices' roles, and the product.
const MATRICES: &str = "
struct EmulatedA {
    part: PART,
}

struct EmulatedB {
    part: PART,
}

struct EmulatedC {
    part: PART,
}

const LANES_OF_ROW: u32 = u32(SIZE) / RESULTSu; // invocations that share a row
var<private> emulated_lane: u32;
var<private> emulated_local: u32;
// SIZE, which the compiler must not know. Else it unrolls loops.
var<private> emulated_size: u32;
var<workgroup> emulated_a: array<f32, GROUPu * RESULTSu>;
var<workgroup> emulated_b: array<PART, GROUPu>;

fn emulated_shuffle_xor(own: f32, mask: u32) -> f32 {
    emulated_a[emulated_local] = own;
    workgroupBarrier();
    let other = emulated_a[emulated_local ^ mask];
    workgroupBarrier();
    return other;
}

fn emulated_multiply_add(a: EmulatedA, b: EmulatedB, c: EmulatedC) -> EmulatedC {
    let own = emulated_local * RESULTSu;
PUT_A
    emulated_b[emulated_local] = b.part;
    workgroupBarrier();
    let first = emulated_local - emulated_lane;
    let row = (first + emulated_lane / LANES_OF_ROW * LANES_OF_ROW) * RESULTSu;
    let column = first + emulated_lane % LANES_OF_ROW;
    var sum = c.part;
    for (var k = 0u; k < emulated_size; k++) {
        sum += emulated_a[row + k] * emulated_b[column + k * LANES_OF_ROW];
    }
    workgroupBarrier();
    return EmulatedC(sum);
}
";

/// A kernel for matrices of 8 × 8, without such matrices.
pub struct Emulated<K>(pub K);

/// A kernel for matrices of 16 × 16, without such matrices.
pub struct Emulated16<K>(pub K);

/// The target that an emulation imitates.
fn target_with(target: &KernelTarget, coop: Coop) -> KernelTarget {
    let variant = Variant { coop: Some(coop), ..target.variant };
    KernelTarget { variant, ..*target }
}

impl<K> Emulated<K> {
    /// The target that the emulation imitates.
    pub fn target(target: &KernelTarget) -> KernelTarget {
        target_with(target, Coop::Eight)
    }
}

impl<K> Emulated16<K> {
    /// The target that the emulation imitates.
    pub fn target(target: &KernelTarget) -> KernelTarget {
        target_with(target, Coop::Sixteen)
    }
}

impl<K: Kernel> Kernel for Emulated<K> {
    fn source(&self, target: &KernelTarget) -> KernelSource {
        emulate(&self.0.source(&Self::target(target)), &EIGHT)
    }

    fn grid(&self, target: &KernelTarget) -> Grid {
        self.0.grid(&Self::target(target))
    }
}

impl<K: Kernel> Kernel for Emulated16<K> {
    fn source(&self, target: &KernelTarget) -> KernelSource {
        emulate(&self.0.source(&Self::target(target)), &SIXTEEN)
    }

    fn grid(&self, target: &KernelTarget) -> Grid {
        self.0.grid(&Self::target(target))
    }
}

/// A size of matrices.
struct Matrices {
    size: usize,
    /// The type of an invocation's results.
    part: &'static str,
}

const EIGHT: Matrices = Matrices { size: 8, part: "vec2<f32>" };
const SIXTEEN: Matrices = Matrices { size: 16, part: "mat2x4<f32>" };

impl Matrices {
    /// Results of an invocation.
    fn results(&self) -> usize {
        self.size * self.size / 32
    }

    /// The row of an invocation's results and their first column, as `i` and `j`.
    fn place(&self) -> String {
        let (each, sharers) = (self.results(), self.size / self.results());
        format!(
            "    let i = emulated_lane / {sharers}u;
    let j = {each}u * (emulated_lane % {sharers}u);
"
        )
    }

    /// An invocation's results from its elements in order.
    fn part_of(&self, element: impl Fn(usize) -> String) -> String {
        let elements: Vec<String> = (0..self.results()).map(element).collect();
        format!("{}({})", self.part, elements.join(", "))
    }

    /// The place of a result among an invocation's results.
    fn member(&self, index: usize) -> String {
        match self.results() {
            2 => format!("[{index}]"),
            _ => format!("[{}][{}]", index / 4, index % 4),
        }
    }
}

fn emulate(source: &KernelSource, matrices: &Matrices) -> KernelSource {
    let text = source.wgsl.replace("enable wgpu_cooperative_matrix;\n", "");
    let size = matrices.size;
    let text = number_invocations(&text, size);
    let mut functions = Vec::new();
    let text = replace_accesses(&text, matrices, &mut functions);
    let text = text.replace("subgroupShuffleXor(", "emulated_shuffle_xor(");
    let text = text.replace("subgroupBarrier(", "workgroupBarrier(");
    let mut text = text.replace("coopMultiplyAdd(", "emulated_multiply_add(");
    for (role, scalar) in [("A", "f16"), ("B", "f16"), ("C", "f32")] {
        let name = format!("coop_mat{size}x{size}<{scalar}, {role}>");
        text = text.replace(&name, &format!("Emulated{role}"));
    }
    assert!(
        !text.contains("coopLoad") && !text.contains("coopStore") && !text.contains("coop_mat"),
        "{text}"
    );
    functions.sort();
    functions.dedup();
    let put_a = |at| format!("    emulated_a[own + {at}u] = a.part{};\n", matrices.member(at));
    let types = MATRICES
        .replace("PUT_A", &(0..matrices.results()).map(put_a).collect::<String>())
        .replace("PART", matrices.part)
        .replace("SIZE", &size.to_string())
        .replace("RESULTS", &matrices.results().to_string())
        .replace("GROUP", &workgroup_size(&text).to_string());
    KernelSource { wgsl: text + &types + &functions.concat(), ..source.clone() }
}

/// Invocations of a workgroup: a number, or a constant of the text.
fn workgroup_size(text: &str) -> usize {
    let (_, rest) = text.split_once("@workgroup_size(").expect("an entry point");
    let size = rest.split(')').next().expect("a size");
    let declared = text.split_once(&format!("const {size}: u32 = "));
    let value = declared.map_or(size, |(_, rest)| rest.split("u;").next().expect("a value"));
    value.parse().expect("a number")
}

/// Numbers invocations in subgroups of 32, whatever the adapter's subgroups are.
fn number_invocations(text: &str, size: usize) -> String {
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
    emulated_size = u32(SIZE) + (local >> 16u);
";
    let numbers = numbers.replace("SIZE", &size.to_string());
    format!("{functions}fn main({}", text.replacen(body, &format!("{body}{numbers}"), 1))
}

/// Replaces loads and stores by calls of functions, which it adds to `functions`.
fn replace_accesses(text: &str, matrices: &Matrices, functions: &mut Vec<String>) -> String {
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
        let is_vec4 = text.contains(&format!(" {array}: array<vec4<"));
        // The element of row i and column j.
        let element = |i: &str, j: &str| {
            let (outer, inner) = if row_major { (i, j) } else { (j, i) };
            match is_vec4 {
                true => format!("{array}[at + {outer} * stride + {inner} / 4u][{inner} % 4u]"),
                false => format!("{array}[at + {outer} * stride + {inner}]"),
            }
        };
        match head.split_once(">>(").map(|(ty, _)| ty.trim_end().chars().last().expect("a role")) {
            Some(role) => {
                result.push_str(&format!("load_{role}_{array}_{order}({index}, "));
                functions.push(load(role, array, order, matrices, element));
            }
            None => {
                let value = head.split_once('(').expect("arguments").1;
                result.push_str(&format!("store_{array}_{order}({value}{index}, "));
                functions.push(store(array, order, matrices, element));
            }
        }
        rest = tail;
    }
    result + rest
}

fn load(
    role: char,
    array: &str,
    order: &str,
    matrices: &Matrices,
    element: impl Fn(&str, &str) -> String,
) -> String {
    let part = |i: &str, scalar: &str| {
        matrices.part_of(|at| format!("{scalar}({})", element(i, &format!("(j + {at}u)"))))
    };
    let (place, value) = (matrices.place(), part("i", if role == 'C' { "" } else { "f32" }));
    format!(
        "
fn load_{role}_{array}_{order}(at: u32, stride: u32) -> Emulated{role} {{
{place}    return Emulated{role}({value});
}}
"
    )
}

fn store(
    array: &str,
    order: &str,
    matrices: &Matrices,
    element: impl Fn(&str, &str) -> String,
) -> String {
    let assign = |at| {
        let (to, from) = (element("i", &format!("(j + {at}u)")), matrices.member(at));
        format!("    {to} = stored.part{from};\n")
    };
    let (place, all) = (matrices.place(), (0..matrices.results()).map(assign).collect::<String>());
    format!(
        "
fn store_{array}_{order}(stored: EmulatedC, at: u32, stride: u32) {{
{place}{all}}}
"
    )
}
