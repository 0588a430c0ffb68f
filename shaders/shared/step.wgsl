// The values that change from step to step.
struct Step {
    rows: u32,    // tokens in the step
    outputs: u32, // positions whose logits are needed
}

// One token of the step.
struct Row {
    token: u32,    // TAKE_SAMPLED stands for the last token chosen for this sequence
    position: u32, // in its sequence
    slot: u32,     // of its sequence in the KV cache
    unused: u32,
}

const TAKE_SAMPLED: u32 = 0xffffffffu;
