// Models that tests make: folders in Hugging Face's form, and a GGUF file that is longer than 4 GB.

import { mkdir, open, readFile, writeFile } from "node:fs/promises";
import path from "node:path";

const SPECIAL = ["<pad>", "<eos>", "<bos>", "<unk>", "<|turn>", "<turn|>"];
const LETTERS = [..."abcdefghijklmnopqrstuvwxyz"];

/** A tokenizer.json of 32 tokens: special ones, with or without those of turns, and letters. */
export function lettersTokenizer(turns = true) {
  const names = turns ? SPECIAL : SPECIAL.map((name) => name.replace("turn", "other"));
  const added = names.map((content, id) => ({
    id,
    content,
    special: true,
    single_word: false,
    lstrip: false,
    rstrip: false,
    normalized: false,
  }));
  const vocab = Object.fromEntries([...names, ...LETTERS].map((token, id) => [token, id]));
  const pieces = {
    type: "ByteLevel",
    add_prefix_space: false,
    trim_offsets: true,
    use_regex: true,
  };
  return JSON.stringify({
    version: "1.0",
    added_tokens: added,
    pre_tokenizer: pieces,
    decoder: pieces,
    model: { type: "BPE", unk_token: "<unk>", vocab, merges: [] },
  });
}

/** The sizes of a Gemma 4 of full layers with heads of 64 dims. */
export function config({ layers, hidden, intermediate, heads, vocab }) {
  const rope = { rope_type: "default", rope_theta: 10000.0 };
  return {
    model_type: "gemma4_text",
    vocab_size: vocab,
    hidden_size: hidden,
    intermediate_size: intermediate,
    num_hidden_layers: layers,
    num_attention_heads: heads,
    num_key_value_heads: 1,
    head_dim: 64,
    global_head_dim: 64,
    layer_types: Array(layers).fill("full_attention"),
    rope_parameters: { full_attention: rope, sliding_attention: rope },
    hidden_size_per_layer_input: 0,
    max_position_embeddings: 128,
    tie_word_embeddings: true,
    bos_token_id: 2,
    eos_token_id: 1,
  };
}

/** Names and shapes of the matrices of a [`config`], and of its vectors. */
export function shapes(config) {
  const { vocab_size, hidden_size, intermediate_size, num_attention_heads, head_dim } = config;
  const matrices = { "model.embed_tokens.weight": [vocab_size, hidden_size] };
  const vectors = { "model.norm.weight": [hidden_size] };
  for (let layer = 0; layer < config.num_hidden_layers; layer++) {
    const add = (to, name, ...shape) => (to[`model.layers.${layer}.${name}`] = shape);
    add(matrices, "self_attn.q_proj.weight", num_attention_heads * head_dim, hidden_size);
    add(matrices, "self_attn.k_proj.weight", head_dim, hidden_size);
    add(matrices, "self_attn.v_proj.weight", head_dim, hidden_size);
    add(matrices, "self_attn.o_proj.weight", hidden_size, num_attention_heads * head_dim);
    add(matrices, "mlp.gate_proj.weight", intermediate_size, hidden_size);
    add(matrices, "mlp.up_proj.weight", intermediate_size, hidden_size);
    add(matrices, "mlp.down_proj.weight", hidden_size, intermediate_size);
    for (const norm of ["q_norm", "k_norm"]) add(vectors, `self_attn.${norm}.weight`, head_dim);
    for (const norm of ["input", "post_attention", "pre_feedforward", "post_feedforward"]) {
      add(vectors, `${norm}_layernorm.weight`, hidden_size);
    }
    add(vectors, "layer_scalar", 1);
  }
  return { matrices, vectors };
}

const count = (shape) => shape.reduce((product, size) => product * size, 1);

/** Writes a model of random weights; gives the directory. */
export async function writeRandom(directory, config) {
  const { matrices, vectors } = shapes(config);
  const random = generator(7);
  const data = [];
  for (const [name, shape] of Object.entries(matrices)) {
    // Small embeddings, lest a tied head see nothing but the token before.
    const spread = (name.includes("embed") ? 0.1 : 2) / Math.sqrt(shape[1]);
    data.push([
      name,
      shape,
      Float32Array.from({ length: count(shape) }, () => spread * (random() - random())),
    ]);
  }
  for (const [name, shape] of Object.entries(vectors))
    data.push([name, shape, new Float32Array(count(shape)).fill(1)]);
  const header = {};
  let end = 0;
  for (const [name, shape, { byteLength }] of data) {
    header[name] = { dtype: "F32", shape, data_offsets: [end, (end += byteLength)] };
  }
  const bytes = data.map(([, , values]) => Buffer.from(values.buffer));
  await writeFolder(directory, config);
  await writeFile(
    path.join(directory, "model.safetensors"),
    Buffer.concat([head(header), ...bytes]),
  );
  return directory;
}

/** All files of a model but its weights. */
export async function writeFolder(directory, config) {
  await mkdir(directory, { recursive: true });
  await writeFile(path.join(directory, "config.json"), JSON.stringify(config));
  await writeFile(path.join(directory, "tokenizer.json"), lettersTokenizer());
}

/** The beginning of a safetensors file. */
export function head(header) {
  const text = Buffer.from(JSON.stringify(header));
  const length = Buffer.alloc(8);
  length.writeBigUInt64LE(BigInt(text.length));
  return Buffer.concat([length, text]);
}

/** Numbers from 0 to 1, the same ones each time (Marsaglia's xorshift). */
function generator(seed) {
  let state = seed;
  return () => {
    state ^= state << 13;
    state ^= state >>> 17;
    state ^= state << 5;
    return (state >>> 0) / 2 ** 32;
  };
}

/** Bytes of a GGUF metadata value by its type's number; strings are 8 and arrays 9. */
const WIDTHS = { 0: 1, 1: 1, 2: 2, 3: 2, 4: 4, 5: 4, 6: 4, 7: 1, 10: 8, 11: 8, 12: 8 };

/**
 * The layout of a GGUF file (its bytes) with every second tensor `gap` bytes later. `size` is the
 * whole file's. `pieces` are the known bytes, as `[offset, bytes]`; the caller invents the rest.
 */
export function stretched(bytes, gap) {
  const header = Buffer.from(bytes);
  let at = 8;
  const number = () => Number(header.readBigUInt64LE((at += 8) - 8));
  const word = () => header.readUInt32LE((at += 4) - 4);
  const text = () =>
    header.toString("utf8", (at += 8), (at += Number(header.readBigUInt64LE(at - 8))));
  const skip = (kind) => {
    if (kind === 8) text();
    else if (kind === 9) for (let [inner, left] = [word(), number()]; left > 0; left--) skip(inner);
    else at += WIDTHS[kind];
  };
  const [tensors, pairs] = [number(), number()];
  for (let pair = 0; pair < pairs; pair++) {
    text();
    skip(word());
  }
  const moved = [];
  for (let tensor = 0; tensor < tensors; tensor++) {
    const name = text();
    const dimensions = word();
    at += 8 * dimensions + 4;
    const offset = number();
    if (tensor % 2 === 1) {
      header.writeBigUInt64LE(BigInt(offset + gap), at - 8);
      moved.push(name);
    }
  }
  const start = Math.ceil(at / 32) * 32;
  return {
    size: bytes.length + gap,
    moved,
    pieces: [
      [0, header],
      [start + gap, bytes.subarray(start)],
    ],
  };
}

/** Writes such a file as a sparse file. */
export async function writeSparse(file, { size, pieces }) {
  const handle = await open(file, "w");
  try {
    await handle.truncate(size);
    for (const [offset, bytes] of pieces) await handle.write(bytes, 0, bytes.length, offset);
  } finally {
    await handle.close();
  }
}

/** The other tests' GGUF file with a gap of 5 GiB: its offsets need more than 32 bits. */
export async function longGguf(file) {
  return stretched(await readFile(file), 5 * 2 ** 30);
}
