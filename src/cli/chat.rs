//! The interactive chat of `gemma4-wgpu run`.

use std::io::{self, Write};

use rustyline::{DefaultEditor, error::ReadlineError};

use crate::cli::report::Output;
use crate::cli::session::{Answered, Session};
use crate::cli::{Exit, one_line};
use crate::error::Error;
use crate::text::{Message, Role};

const HELP: &str = "/clear forgets the conversation, /exit or Ctrl-D leaves, \
                    Ctrl-C stops an answer, // begins a prompt with a slash";

/// Reads prompts and streams answers until the user leaves. `opening` holds the system message, if
/// there is one.
pub fn run(
    session: &mut Session,
    opening: Vec<Message>,
    output: &Output,
    quiet: bool,
) -> Result<(), Exit> {
    let mut editor = DefaultEditor::new().map_err(terminal_error)?;
    if !quiet {
        eprintln!("{} · {HELP}", session.model.info().device);
    }
    let mut conversation = opening.clone();
    let mut interrupted = false;
    loop {
        let line = match editor.readline("> ") {
            Ok(line) => line,
            Err(ReadlineError::Interrupted) if interrupted => return Err(Exit::Interrupted),
            Err(ReadlineError::Interrupted) => {
                interrupted = true;
                eprintln!("Ctrl-C again leaves");
                continue;
            }
            Err(ReadlineError::Eof) => return Ok(()),
            Err(error) => return Err(terminal_error(error)),
        };
        interrupted = false;
        match line.trim() {
            "" => continue,
            "/exit" => return Ok(()),
            "/help" => eprintln!("{HELP}"),
            "/clear" => {
                conversation.clone_from(&opening);
                session.model.clear();
            }
            typed => {
                // After a failure the arrow keys lack this line, which does no harm.
                let _ = editor.add_history_entry(typed);
                match prompt_of(typed) {
                    Some(prompt) => {
                        interrupted = exchange(session, &mut conversation, prompt, output)?
                    }
                    None => eprintln!("{typed}: no such command; {HELP}"),
                }
            }
        }
    }
}

/// The prompt of a line that is not a command. One slash begins a command, two begin a prompt with
/// a slash.
fn prompt_of(typed: &str) -> Option<&str> {
    match typed.strip_prefix('/') {
        Some(rest) => rest.starts_with('/').then_some(rest),
        None => Some(typed),
    }
}

/// One exchange: a prompt and its answer. Returns true if Ctrl-C ended it. A prompt that cannot be
/// used is reported and forgotten.
fn exchange(
    session: &mut Session,
    conversation: &mut Vec<Message>,
    prompt: &str,
    output: &Output,
) -> Result<bool, Exit> {
    conversation.push(Message::user(prompt));
    match answer(session, conversation) {
        Ok(answer) => {
            output.after(&answer, session);
            let interrupted = answer.interrupted();
            conversation.push(answer.parts.into());
            Ok(interrupted)
        }
        Err(Exit::Failed(error @ (Error::Input(_) | Error::Template(_) | Error::Tokenizer(_)))) => {
            conversation.pop();
            eprintln!("error: {}", one_line(&error));
            Ok(false)
        }
        Err(exit) => Err(exit),
    }
}

fn answer(session: &mut Session, conversation: &[Message]) -> Result<Answered, Exit> {
    let prompt = session.prompt(conversation)?;
    let room = session.model.info().context_length;
    if prompt.tokens.len() > room
        && conversation.iter().any(|message| message.role == Role::Assistant)
    {
        let count = prompt.tokens.len();
        let full = format!("the conversation has {count} tokens, but the context holds {room}");
        let reason = format!("{full}; /clear empties it");
        return Err(Error::Input(reason).into());
    }
    let mut stdout = io::stdout().lock();
    let answer = session.answer(&prompt, &mut stdout)?;
    writeln!(stdout).map_err(Exit::from_stdout)?;
    Ok(answer)
}

fn terminal_error(error: ReadlineError) -> Exit {
    Error::Io { path: "terminal".into(), source: io::Error::other(error) }.into()
}
