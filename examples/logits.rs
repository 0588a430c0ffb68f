//! What token a model expects next, and how well it predicts a text:
//! `cargo run --example logits -- [MODEL] [TEXT]`.
#![allow(clippy::print_stdout)]

use std::env;

use gemma4_wgpu::{Model, Result};

fn main() -> Result<()> {
    let mut args = env::args().skip(1);
    let name = args.next().unwrap_or("demo".into());
    let text = args.next().unwrap_or("Once upon a time, there was a little".into());
    let mut model = Model::open(name)?;

    let tokens = model.tokenize(&text)?;
    let logits = model.logits(&tokens)?;
    // The last row, of shape [vocab], predicts the token after the text.
    let last = &logits[(tokens.len() - 1) * model.config().vocab_size..];
    let mut ids: Vec<usize> = (0..last.len()).collect();
    ids.sort_by(|&a, &b| last[b].total_cmp(&last[a]));
    for &id in &ids[..5] {
        let spelling = model.processor()?.tokenizer().token(id as u32).unwrap_or_default();
        println!("{:8.3}  {spelling:?}", last[id]);
    }
    println!("perplexity {:.3}", model.perplexity(&text)?);
    Ok(())
}
