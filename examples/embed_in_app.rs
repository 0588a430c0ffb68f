//! A model on its own thread in an application, which sends prompts to it and gets answers.
#![allow(clippy::print_stdout)]

use std::{num::NonZeroUsize, sync::mpsc, thread};

use gemma4_wgpu::{ChatOptions, Message, Model, ModelOptions, Result};

/// A prompt, and a channel for its answer.
type Job = (String, mpsc::Sender<Result<String>>);

/// Answers prompts until all senders are gone.
fn serve(jobs: mpsc::Receiver<Job>) -> Result<()> {
    let options = ModelOptions { context_length: Some(1024), ..ModelOptions::default() };
    let mut model = Model::open_with("demo", &options)?;
    let options = ChatOptions { max_new_tokens: NonZeroUsize::new(32), ..ChatOptions::default() };
    for (prompt, reply) in jobs {
        let answer = model.chat(&[Message::user(prompt)], &options);
        // The sender of the prompt may be gone.
        let _ = reply.send(answer.and_then(|answer| answer.text()));
    }
    Ok(())
}

fn main() -> Result<()> {
    let (jobs, waiting) = mpsc::channel();
    let model = thread::spawn(|| serve(waiting));
    for prompt in ["Tell me of a cat.", "Tell me of a dog."] {
        let (reply, answered) = mpsc::channel();
        if jobs.send((prompt.into(), reply)).is_ok()
            && let Ok(answer) = answered.recv()
        {
            println!("{prompt}\n{}\n", answer?);
        }
    }
    drop(jobs);
    model.join().expect("the model's thread panicked")
}
