//! Continues a text: `cargo run --example generate -- [MODEL] [PROMPT]`.
#![allow(clippy::print_stdout)]

use std::{env, io::Write, num::NonZeroUsize};

use gemma4_wgpu::{ChatOptions, Model, Result, text::AnswerEvent};

fn main() -> Result<()> {
    let mut args = env::args().skip(1);
    // A path, `hf:OWNER/NAME` of the Hugging Face cache, or the model that is part of the library.
    let name = args.next().unwrap_or("demo".into());
    let prompt = args.next().unwrap_or("The little dog ran".into());
    let mut model = Model::open(name)?;
    eprintln!("running on {}", model.info().device);

    let options = ChatOptions { max_new_tokens: NonZeroUsize::new(48), ..ChatOptions::default() };
    print!("{prompt}");
    let mut answer = model.generate(&prompt, &options)?;
    for event in &mut answer {
        if let AnswerEvent::Content(text) = event? {
            print!("{text}");
            let _ = std::io::stdout().flush();
        }
    }
    println!();

    let (_, generation) = answer.into_parts();
    if let Some(rate) = generation.stats.decode_rate() {
        eprintln!("{} tokens, {rate:.1} tokens/s", generation.tokens.len());
    }
    Ok(())
}
