// What changes from step to step.
struct Step {
    rows: u32,    // tokens in the step
    outputs: u32, // positions whose logits are wanted
}

// One token of the step.
struct Row {
    token: u32,    // TAKE_SAMPLED: the last token that was chosen for this sequence
    position: u32, // in its sequence
    slot: u32,     // of its sequence in the KV cache
    unused: u32,
}

const TAKE_SAMPLED: u32 = 0xffffffffu;
