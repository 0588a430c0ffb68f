//! Answers by a grammar, from a small random model with the tokenizer of the embedded one.

use std::num::NonZeroUsize;

use gemma4_wgpu::Error;
use gemma4_wgpu::checkpoint::Checkpoint;
use gemma4_wgpu::generate::{
    FinishReason, HostChoice, Scheduler, SchedulerOptions, SequenceRequest, TokenEvent, Tokens,
};
use gemma4_wgpu::grammar::{AnswerRules, CompiledRules, Format, Grammars, ToolChoice};
use gemma4_wgpu::model::config::ModelConfig;
use gemma4_wgpu::model::source::TensorSource;
use gemma4_wgpu::model::weights::LoadOptions;
use gemma4_wgpu::sampling::{Adjustments, SamplingParams};
use gemma4_wgpu::text::{AnswerParts, Processor, Prompt, Tool};
use serde_json::{Value, json};

use crate::common::{self, random_model::RandomModel};

const SEEDS: u64 = 200;
const SLOTS: usize = 8;
const VOCAB: usize = 4096;

/// A model, its text and its grammars.
struct Fixture {
    processor: Processor,
    grammars: Grammars,
    scheduler: Scheduler,
}

/// An answer with its parts.
struct Answered {
    parts: AnswerParts,
    tokens: Vec<u32>,
    reason: FinishReason,
}

fn prompt() -> Prompt {
    Prompt { tokens: vec![2, 4, 300, 301, 5, 4], is_chat: true }
}

impl Fixture {
    fn new() -> Fixture {
        let assets = Checkpoint::demo().unwrap().text_assets().unwrap();
        let processor = Processor::new(&assets).unwrap();
        let eos = processor.eos_ids(&prompt()).to_vec();
        let grammars = Grammars::new(processor.tokenizer(), VOCAB, &eos).unwrap();
        let layers = RandomModel::small().config().layers.clone();
        let model = RandomModel::new(ModelConfig {
            max_position_embeddings: 4096,
            ..ModelConfig::gemma4(VOCAB, 36, layers)
        });
        let options =
            LoadOptions { context_length: 1024, max_sequences: SLOTS, ..LoadOptions::default() };
        let backend = common::cpu(&model, &options).unwrap();
        assert_eq!(backend.config().vocab_size, VOCAB);
        let limits = SchedulerOptions {
            max_queued: 1000,
            channel_capacity: 1024,
            ..SchedulerOptions::default()
        };
        let scheduler = Scheduler::new(backend, processor.suppressed_ids(), limits).unwrap();
        Fixture { processor, grammars, scheduler }
    }

    fn submit(
        &mut self,
        compiled: Option<&CompiledRules>,
        bias: &[(u32, f32)],
        seed: u64,
    ) -> Tokens {
        let eos_ids = self.processor.eos_ids(&prompt()).to_vec();
        let adjustments = Adjustments { logit_bias: bias.to_vec(), ..Adjustments::default() };
        let constraint = compiled.map(|compiled| compiled.constraint(&prompt().tokens));
        let sampling = SamplingParams {
            temperature: 1.0,
            top_k: 0,
            top_p: 1.0,
            seed: Some(seed),
            ..SamplingParams::default()
        };
        let request = SequenceRequest {
            prompt: prompt().tokens,
            sampling,
            choice: HostChoice { adjustments, constraint, logprobs: None },
            max_new_tokens: NonZeroUsize::new(900),
            eos_ids,
        };
        self.scheduler.submit(request).unwrap()
    }

    /// Answers of `count` seeds.
    fn answers(&mut self, rules: &AnswerRules, bias: &[(u32, f32)], count: u64) -> Vec<Answered> {
        let eos_ids = self.processor.eos_ids(&prompt());
        let compiled = self.grammars.compile(rules, eos_ids).unwrap();
        let mut all: Vec<Tokens> =
            (0..count).map(|seed| self.submit(compiled.as_ref(), bias, seed)).collect();
        while !self.scheduler.is_idle() {
            pollster::block_on(self.scheduler.step()).unwrap();
        }
        all.iter_mut().map(|tokens| self.answered(tokens)).collect()
    }

    fn answered(&self, events: &mut Tokens) -> Answered {
        let prompt = prompt();
        let mut parser = self.processor.parser(&prompt);
        let (mut parts, mut tokens) = (AnswerParts::default(), Vec::new());
        loop {
            match events.try_next().expect("the answer ends") {
                TokenEvent::Token { id, .. } => {
                    tokens.push(id);
                    parser.push(id).into_iter().for_each(|event| parts.add(event));
                }
                TokenEvent::Finished { reason, .. } => {
                    parser.finish().into_iter().for_each(|event| parts.add(event));
                    return Answered { parts, tokens, reason };
                }
                TokenEvent::Failed(error) => panic!("{error}"),
            }
        }
    }
}

/// A schema whose strings and arrays are bounded.
fn schema() -> Value {
    json!({
        "type": "object",
        "properties": {
            "name": {"type": "string", "maxLength": 12},
            "kind": {"enum": ["red", "green", "a \"b\""]},
            "tags": {"type": "array", "items": {"type": "string", "maxLength": 3}, "maxItems": 3},
            "size": {"type": "integer", "minimum": -5, "maximum": 120},
            "next": {"anyOf": [{"type": "null"}, {"type": "boolean"}]},
        },
        "required": ["name", "kind", "tags", "size"],
        "additionalProperties": false,
    })
}

fn assert_fits(value: &Value) {
    let fields = value.as_object().unwrap_or_else(|| panic!("{value}"));
    assert!(fields["name"].as_str().unwrap().chars().count() <= 12, "{value}");
    assert!(["red", "green", "a \"b\""].contains(&fields["kind"].as_str().unwrap()), "{value}");
    let tags = fields["tags"].as_array().unwrap();
    assert!(tags.len() <= 3, "{value}");
    assert!(tags.iter().all(|tag| tag.as_str().unwrap().chars().count() <= 3), "{value}");
    // llguidance lets a whole number be −0.
    let size = fields["size"].as_f64().unwrap();
    assert!((-5.0..=120.0).contains(&size) && size.fract() == 0.0, "{value}");
    assert!(fields.get("next").is_none_or(|next| next.is_null() || next.is_boolean()), "{value}");
    assert!(fields.keys().all(|key| schema()["properties"].get(key).is_some()), "{value}");
}

#[track_caller]
fn assert_content(parts: &AnswerParts) {
    match serde_json::from_str(&parts.content) {
        Ok(value) => assert_fits(&value),
        Err(error) => panic!("{error}: {parts:?}"),
    }
}

fn by_schema() -> AnswerRules {
    AnswerRules { format: Some(Format::JsonSchema(schema())), ..AnswerRules::default() }
}

#[test]
fn answers_of_a_schema_always_parse() {
    let mut fixture = Fixture::new();
    let answers = fixture.answers(&by_schema(), &[], SEEDS);
    for Answered { parts, reason, .. } in &answers {
        assert_eq!(*reason, FinishReason::Stop);
        assert_fits(&serde_json::from_str(&parts.content).unwrap());
        assert!(parts.reasoning.is_none() && parts.tool_calls.is_empty());
    }
    let distinct: std::collections::HashSet<&str> =
        answers.iter().map(|answer| answer.parts.content.as_str()).collect();
    assert!(distinct.len() > 150, "a random model says many things");
}

#[test]
fn thoughts_come_before_the_schema() {
    let mut fixture = Fixture::new();
    let id = |spelling| fixture.processor.tokenizer().id_of(spelling).unwrap();
    let bias = [(id("<|channel>"), 6.0), (id("<channel|>"), 6.0)];
    let rules = AnswerRules { thinking: true, ..by_schema() };
    let answers = fixture.answers(&rules, &bias, SEEDS);
    for Answered { parts, reason, .. } in &answers {
        if *reason == FinishReason::Stop {
            assert_content(parts);
        }
    }
    let ended = answers.iter().filter(|answer| answer.reason == FinishReason::Stop);
    let thought = ended.clone().filter(|answer| answer.tokens[0] == bias[0].0).count();
    assert!(thought > 100, "{thought} answers began with thoughts");
    assert!(ended.count() > thought, "thoughts are no duty");
    // Without permission there are none.
    for Answered { parts, .. } in fixture.answers(&by_schema(), &bias, 20) {
        assert_fits(&serde_json::from_str(&parts.content).unwrap());
    }
}

fn tools() -> Vec<Tool> {
    let weather = json!({
        "type": "object",
        "properties": {
            "unit": {"type": "string", "enum": ["C", "F"]},
            "place": {"type": "string", "maxLength": 9},
            "days": {"type": "array", "items": {"type": "integer"}, "minItems": 1, "maxItems": 2},
            "exact": {"type": ["boolean", "null"]},
            "odd key:": {"$ref": "#/$defs/part"},
        },
        "required": ["place", "days"],
        "$defs": {"part": {"type": "object", "properties": {
            "a": {"type": "number"}, "b": {"anyOf": [{"const": 1.5}, {"const": "x"}]},
        }}},
    });
    let nothing = json!({"type": "object", "properties": {}, "additionalProperties": false});
    let tool =
        |name: &str, parameters| Tool { name: name.into(), description: String::new(), parameters };
    vec![tool("weather", weather), tool("time-now", nothing)]
}

fn assert_called(parts: &AnswerParts) {
    assert!(parts.broken_calls.is_empty(), "{:?}", parts.broken_calls);
    for call in &parts.tool_calls {
        if call.name == "time-now" {
            assert!(call.arguments.is_empty());
            continue;
        }
        assert_eq!(call.name, "weather");
        let arguments = &call.arguments;
        assert!(arguments["place"].as_str().unwrap().chars().count() <= 9, "{call:?}");
        let days = arguments["days"].as_array().unwrap();
        assert!((1..=2).contains(&days.len()) && days.iter().all(Value::is_i64), "{call:?}");
        let unit = arguments.get("unit").and_then(Value::as_str);
        assert!(unit.is_none_or(|unit| ["C", "F"].contains(&unit)), "{call:?}");
        if let Some(part) = arguments.get("odd key:") {
            assert!(part.get("b").is_none_or(|b| *b == json!(1.5) || *b == "x"), "{call:?}");
            assert!(part.get("a").is_none_or(Value::is_number), "{call:?}");
        }
    }
}

#[test]
fn required_calls_are_never_malformed() {
    let mut fixture = Fixture::new();
    let rules =
        AnswerRules { tools: tools(), tool_choice: ToolChoice::Required, ..AnswerRules::default() };
    let answers = fixture.answers(&rules, &[], SEEDS);
    for Answered { parts, reason, .. } in &answers {
        assert_eq!(*reason, FinishReason::Stop);
        assert!(!parts.tool_calls.is_empty() && parts.content.is_empty(), "{parts:?}");
        assert_called(parts);
    }
    let calls = |least| answers.iter().filter(|it| it.parts.tool_calls.len() >= least).count();
    assert!(calls(2) > 20, "several calls are possible");
    let single = AnswerRules { single_call: true, ..rules.clone() };
    for Answered { parts, .. } in fixture.answers(&single, &[], 40) {
        assert_eq!(parts.tool_calls.len(), 1);
    }
    let named = AnswerRules { tool_choice: ToolChoice::Named("time-now".into()), ..rules };
    for Answered { parts, .. } in fixture.answers(&named, &[], 40) {
        assert!(parts.tool_calls.iter().all(|call| call.name == "time-now"));
        assert!(!parts.tool_calls.is_empty());
    }
}

#[test]
fn an_opened_call_is_never_malformed() {
    let mut fixture = Fixture::new();
    let open = fixture.processor.tokenizer().id_of("<|tool_call>").unwrap();
    let eos = fixture.processor.eos_ids(&prompt()).to_vec();
    let mut bias = vec![(open, 6.0)];
    bias.extend(eos.iter().map(|&id| (id, 4.0)));
    let rules = AnswerRules { tools: tools(), ..AnswerRules::default() };
    let answers = fixture.answers(&rules, &bias, 80);
    let ended: Vec<_> = answers.iter().filter(|it| it.reason == FinishReason::Stop).collect();
    ended.iter().for_each(|answer| assert_called(&answer.parts));
    let count = |has: fn(&AnswerParts) -> bool| ended.iter().filter(|it| has(&it.parts)).count();
    assert!(count(|parts| !parts.tool_calls.is_empty()) > 15);
    assert!(count(|parts| !parts.content.is_empty()) > 15, "text is possible too");
    assert!(count(|parts| parts.tool_calls.len() > 1) > 0, "several calls are possible");
    let single = AnswerRules { single_call: true, ..rules.clone() };
    for Answered { parts, .. } in fixture.answers(&single, &bias, 80) {
        assert!(parts.tool_calls.len() < 2, "{parts:?}");
    }
    let never = AnswerRules { tool_choice: ToolChoice::None, ..rules };
    for answer in fixture.answers(&never, &bias, 20) {
        assert!(!answer.tokens.contains(&open));
    }
}

/// With a format and tools, an answer is of the format, or calls.
#[test]
fn a_call_may_take_the_place_of_a_schema() {
    let mut fixture = Fixture::new();
    let rules = AnswerRules { tools: tools(), single_call: true, ..by_schema() };
    let (mut called, mut answered) = (0, 0);
    for Answered { parts, reason, .. } in fixture.answers(&rules, &[], 60) {
        assert_eq!(reason, FinishReason::Stop);
        assert_called(&parts);
        match parts.tool_calls.is_empty() {
            true => {
                assert_content(&parts);
                answered += 1;
            }
            false => called += 1,
        }
    }
    assert!(called > 5 && answered > 5, "{called} called, {answered} answered");
}

#[test]
fn grammars_of_both_languages_limit_answers() {
    let mut fixture = Fixture::new();
    let gbnf = "root ::= \"x\" digit{2,3} (\"-\" | word)?\ndigit ::= [0-9]\nword ::= [a-c]";
    let lark = "start: \"x\" /[0-9]{2,3}/ (\"-\" | /[a-c]/)?";
    let form = regex::Regex::new("^x[0-9]{2,3}[-a-c]?$").unwrap();
    for (text, format) in [(gbnf, Format::Gbnf(gbnf.into())), (lark, Format::Lark(lark.into()))] {
        assert_eq!(Format::grammar(text.into()), format);
        let rules = AnswerRules { format: Some(format), ..AnswerRules::default() };
        for Answered { parts, reason, .. } in fixture.answers(&rules, &[], 40) {
            assert_eq!(reason, FinishReason::Stop);
            assert!(form.is_match(&parts.content), "{:?}", parts.content);
        }
    }
}

#[test]
fn any_json_object_is_one() {
    let mut fixture = Fixture::new();
    let rules = AnswerRules { format: Some(Format::JsonObject), ..AnswerRules::default() };
    let quote = fixture.processor.tokenizer().id_of("\"").unwrap();
    let brace = fixture.processor.tokenizer().id_of("}").unwrap();
    let mut ended = 0;
    for answer in fixture.answers(&rules, &[(quote, 6.0), (brace, 6.0)], 60) {
        if answer.reason == FinishReason::Stop {
            let value: Value = serde_json::from_str(&answer.parts.content).unwrap();
            assert!(value.is_object());
            ended += 1;
        }
    }
    assert!(ended > 20, "{ended} objects ended");
}

#[test]
fn what_does_not_compile_has_a_reason() {
    let fixture = Fixture::new();
    let error = |rules: AnswerRules| match fixture.grammars.compile(&rules, &[1]) {
        Err(Error::Input(reason)) => reason,
        Err(other) => panic!("{other}"),
        Ok(_) => panic!("{rules:?}"),
    };
    let format = |format| AnswerRules { format: Some(format), ..AnswerRules::default() };
    let schemas = [
        (json!({"type": "strong"}), "strong"),
        (json!({"type": "string", "pattern": "(?=a)"}), "look-around"),
        (json!({"type": "array", "uniqueItems": true}), "uniqueItems"),
        (json!({"$ref": "https://example.com/schema"}), "https://example.com/schema"),
        (json!([1]), "must be an object"),
    ];
    for (schema, reason) in schemas {
        let found = error(format(Format::JsonSchema(schema)));
        assert!(found.contains(reason) && !found.contains('\n'), "{found}");
    }
    let found = error(format(Format::Lark("start: nothing".into())));
    assert!(found.contains("nothing"), "{found}");
    let found = error(format(Format::Gbnf("root ::= nothing".into())));
    assert!(found.contains("the rule nothing is missing"), "{found}");
    let named = ToolChoice::Named("x".into());
    let rules = AnswerRules { tools: tools(), tool_choice: named, ..AnswerRules::default() };
    assert_eq!(error(rules), "tool_choice: no tool is named \"x\"");
    let rules = AnswerRules { tool_choice: ToolChoice::Required, ..AnswerRules::default() };
    assert!(error(rules).contains("required of no tools"));
    let tool = Tool { name: "a b".into(), description: String::new(), parameters: json!({}) };
    let rules = AnswerRules { tools: vec![tool], ..AnswerRules::default() };
    assert!(error(rules).contains("\"a b\""));
}
