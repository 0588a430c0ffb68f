//! A conversation over standard input: `cargo run --example chat -- [MODEL]`.
#![allow(clippy::print_stdout)]

use std::{env, io, io::Write, num::NonZeroUsize};

use gemma4_wgpu::{ChatOptions, Message, Model, Result, text::AnswerEvent};

fn main() -> Result<()> {
    let mut model = Model::open(env::args().nth(1).unwrap_or("demo".into()))?;
    let options = ChatOptions { max_new_tokens: NonZeroUsize::new(200), ..ChatOptions::default() };
    let mut messages = vec![Message::system("You tell short stories.")];
    for line in io::stdin().lines().map_while(Result::ok) {
        messages.push(Message::user(line));
        // The KV cache keeps the conversation: only the new message runs.
        let mut answer = model.chat(&messages, &options)?;
        for event in &mut answer {
            match event? {
                AnswerEvent::Content(text) => print!("{text}"),
                AnswerEvent::Thought(text) => eprint!("{text}"),
                AnswerEvent::ToolCall(call) => println!("[{} {:?}]", call.name, call.arguments),
                _ => {}
            }
            let _ = io::stdout().flush();
        }
        println!();
        messages.push(answer.message()?);
    }
    Ok(())
}
