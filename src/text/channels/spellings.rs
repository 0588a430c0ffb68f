//! The marks of Gemma 4's answers.

/// The effect of a mark.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Mark {
    ChannelOpen,
    ChannelClose,
    CallOpen,
    CallClose,
    /// Begins or ends a string in a call.
    Quote,
    /// Ends every open part, because a turn or a tool's response begins or ends.
    Border,
    /// Has no meaning in an answer.
    Silent,
}

/// Opens a turn of the conversation.
pub(super) const TURN: &str = "<|turn>";

/// Around the strings of a call.
pub(super) const QUOTE: &str = "<|\"|>";

/// All marks. None is a prefix of another.
pub(super) const SPELLINGS: [(&str, Mark); 12] = [
    ("<|channel>", Mark::ChannelOpen),
    ("<channel|>", Mark::ChannelClose),
    ("<|tool_call>", Mark::CallOpen),
    ("<tool_call|>", Mark::CallClose),
    (QUOTE, Mark::Quote),
    (TURN, Mark::Border),
    ("<turn|>", Mark::Border),
    ("<|tool_response>", Mark::Border),
    ("<tool_response|>", Mark::Border),
    ("<|think|>", Mark::Silent),
    ("<|tool>", Mark::Silent),
    ("<tool|>", Mark::Silent),
];
