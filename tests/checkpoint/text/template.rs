//! Chat templates: the built-in ones, and the checkpoint's own.

use std::slice;

use super::fixtures::{assets, small_vocabulary};
use gemma4_wgpu::{
    Result,
    text::{
        ChatTemplate, Message, Part, RenderOptions, Role, TextAssets, Tokenizer, Vocabulary,
        stop_ids,
    },
};

/// Assets whose turn tokens (ids 4 and 5) are `turn`.
pub fn assets_with(turn: [&str; 2], chat_template: Option<&str>) -> TextAssets {
    let mut vocabulary = small_vocabulary("gemma4");
    vocabulary.tokens[4..6].clone_from_slice(&turn.map(String::from));
    TextAssets {
        chat_template: chat_template.map(String::from),
        ..assets(Vocabulary::Gguf(vocabulary))
    }
}

pub const GEMMA3: [&str; 2] = ["<start_of_turn>", "<end_of_turn>"];
pub const GEMMA4: [&str; 2] = ["<|turn>", "<turn|>"];

pub fn template(assets: &TextAssets) -> Result<ChatTemplate> {
    ChatTemplate::new(assets, &Tokenizer::new(assets)?)
}

pub fn conversation(messages: &[(Role, &str)]) -> Vec<Message> {
    messages.iter().map(|&(role, content)| Message::new(role, content)).collect()
}

/// Renders a custom template for one user message.
fn render(source: &str, user: &str) -> Result<String> {
    template(&assets_with(GEMMA4, Some(source)))?
        .render(&conversation(&[(Role::User, user)]), &RenderOptions::default())
}

fn error(source: &str) -> String {
    render(source, "hi").unwrap_err().to_string()
}

const THREE_TURNS: [(Role, &str); 4] = [
    (Role::System, " Be brief. "),
    (Role::User, "Hello\n"),
    (Role::Assistant, "Hi!"),
    (Role::User, "Bye?"),
];

#[test]
fn gemma3_built_in() {
    let template = template(&assets_with(GEMMA3, None)).unwrap();
    let prompt = template.render(&conversation(&THREE_TURNS), &RenderOptions::default()).unwrap();
    let expected = "<bos><start_of_turn>user\nBe brief.\n\nHello<end_of_turn>\n\
                    <start_of_turn>model\nHi!<end_of_turn>\n\
                    <start_of_turn>user\nBye?<end_of_turn>\n\
                    <start_of_turn>model\n";
    assert_eq!(prompt, expected);
    let closed = RenderOptions {
        add_generation_prompt: false,
        enable_thinking: true,
        ..RenderOptions::default()
    };
    let prompt = template.render(&conversation(&[(Role::User, "a")]), &closed).unwrap();
    assert_eq!(prompt, "<bos><start_of_turn>user\na<end_of_turn>\n");
}

#[test]
fn gemma3_turns_alternate() {
    let template = template(&assets_with(GEMMA3, None)).unwrap();
    let fails = |messages: &[(Role, &str)]| {
        template.render(&conversation(messages), &RenderOptions::default()).unwrap_err().to_string()
    };
    let message = fails(&[(Role::User, "a"), (Role::User, "b")]);
    assert!(
        message.starts_with("chat template: user and assistant messages must alternate"),
        "{message}"
    );
    assert!(fails(&[(Role::User, "a"), (Role::System, "b")]).contains("alternate"));
    assert!(fails(&[(Role::System, "a")]).contains("no user message"));
    assert!(fails(&[]).contains("no user message"));
}

#[test]
fn gemma4_built_in() {
    let template = template(&assets_with(GEMMA4, None)).unwrap();
    let render = |messages: &[(Role, &str)], enable_thinking| {
        let options = RenderOptions { enable_thinking, ..Default::default() };
        template.render(&conversation(messages), &options).unwrap()
    };
    let turns = "<|turn>user\nHello<turn|>\n<|turn>model\nHi!<turn|>\n\
                 <|turn>user\nBye?<turn|>\n<|turn>model\n";
    let quiet =
        format!("<bos><|turn>system\nBe brief.<turn|>\n{turns}<|channel>thought\n<channel|>");
    assert_eq!(render(&THREE_TURNS, false), quiet);
    assert_eq!(
        render(&THREE_TURNS, true),
        format!("<bos><|turn>system\n<|think|>\nBe brief.<turn|>\n{turns}")
    );
    let alone = [(Role::User, "a")];
    assert_eq!(
        render(&alone, true),
        "<bos><|turn>system\n<|think|>\n<turn|>\n<|turn>user\na<turn|>\n<|turn>model\n"
    );

    let with_thoughts = [
        (Role::User, "a"),
        (Role::Assistant, "<|channel>thought\nhm<channel|>b<|channel>x<channel|>"),
        (Role::User, "c"),
    ];
    assert!(render(&with_thoughts, false).contains("<|turn>model\nb<turn|>\n"));
}

#[test]
fn rendered_prompts_have_one_bos() {
    let assets = assets_with(GEMMA4, None);
    let tokenizer = Tokenizer::new(&assets).unwrap();
    let template = ChatTemplate::new(&assets, &tokenizer).unwrap();
    let prompt =
        template.render(&conversation(&[(Role::User, "the")]), &RenderOptions::default()).unwrap();
    let ids = tokenizer.encode_prompt(&prompt, true).unwrap();
    assert_eq!(ids[..2], [2, 4]);
    assert_eq!(ids.iter().filter(|&&id| id == 2).count(), 1);
}

#[test]
fn without_turn_tokens_there_is_no_template() {
    let message = template(&assets_with(["<a>", "<b>"], None)).err().unwrap().to_string();
    assert!(message.starts_with("chat template: the checkpoint brings none"), "{message}");
    assert!(message.contains("--raw-prompt"), "{message}");
    // The right spelling is enough, because converters type turn tokens as text.
    let mut assets = assets_with(GEMMA4, None);
    if let Some(Vocabulary::Gguf(vocabulary)) = &mut assets.vocabulary {
        vocabulary.token_types[4..6].fill(1);
    }
    assert!(template(&assets).is_ok());
}

/// The idioms of published templates.
/// Python's string and dict methods, namespaces, macros, slices, loop controls, and blocks on lines
/// of their own.
const PYTHONIC: &str = r#"{%- macro shout(text) -%}
    {{ text.strip().upper() }}
{%- endmacro -%}
{{ bos_token }}
{% set ns = namespace(count=0, found=false) %}
{% for message in messages %}
    {% if message['role'] not in ['user', 'system', 'assistant'] %}
        {{ raise_exception('unknown role') }}
    {% endif %}
    {% set ns.count = ns.count + 1 %}
    {% for key, value in message.items() %}
        {% if key == 'role' %}{% continue %}{% endif %}
{{ key }}={{ shout(value) }};
        {% break %}
    {% endfor %}
{% endfor %}
{{ messages[0].get('name', 'anonymous') }}|{{ messages[-1]['content'].split(' ')[0] }}|{{
    ns.count }}
{%- if tools is none and documents is none and not enable_thinking|default(false) -%}
    |plain{% endif %}
|{{ messages[1:] | length }}|{{ 'a-b'.replace('-', '+') }}|{{ 'xyz'.startswith('x') }}|{{
    eos_token }}
{%- if add_generation_prompt %}|{{ [1, {'k': "<é>"}] | tojson }}|{{
    strftime_now('%Y') | int > 2000 }}{% endif %}"#;

#[test]
fn checkpoint_template_may_use_python_methods() {
    let expected =
        "<bos>\ncontent=HI YOU;\nanonymous|hi|1|plain|0|a+b|True|<eos>|[1, {\"k\": \"<é>\"}]|True";
    assert_eq!(render(PYTHONIC, "hi you ").unwrap(), expected);
}

/// The features of Gemma 4's template for tools, with other data.
/// Macros call each other before their definition and have default arguments.
/// There are Python's constants and tests of types.
const TOOLS: &str = r#"{%- macro object(value) -%}
    {%- set ns = namespace(more=False) -%}
    {%- for key, item in value | dictsort -%}
        {%- if ns.more %},{% endif -%}
        {%- set ns.more = True -%}
        {{ key }}:{{- argument(item, quoted=False) -}}
    {%- endfor -%}
{%- endmacro -%}
{%- macro argument(value, quoted=True) -%}
    {%- if value is string -%}
        {{- '"' + value + '"' if quoted else value -}}
    {%- elif value is boolean -%}
        {{- 'yes' if value else 'no' -}}
    {%- elif value is mapping -%}
        {{- '{' -}}{{- object(value) -}}{{- '}' -}}
    {%- elif value is sequence -%}
        {{- value | map('upper') | list | join('/') -}}
    {%- else -%}
        {{- value -}}
    {%- endif -%}
{%- endmacro -%}
{%- set data = {'b': ['x', 'y'], 'a': True, 'c': {'type': 'z'}, 'n': 1} -%}
{{- argument('s') }} {{ argument(data) }} {{ data['none'] is none }} {{ None is none }} {{
    'a' in data -}}"#;

#[test]
fn checkpoint_template_may_use_macros_and_type_tests() {
    assert_eq!(render(TOOLS, "hi").unwrap(), "\"s\" {a:yes,b:X/Y,c:{type:z},n:1} False True True");
}

#[test]
fn checkpoint_template_goes_before_the_built_in() {
    assert_eq!(render("{{ messages[0].content }}", "<b>&'\"").unwrap(), "<b>&'\"");
}

#[test]
fn template_failures_are_one_line() {
    let message = error("line one\n{{ raise_exception('roles must\nalternate') }}");
    assert_eq!(message, "chat template: roles must alternate (template line 2)");
    let message = error("{% for x in %}");
    assert!(
        message.starts_with("chat template: syntax error: ")
            && message.ends_with("(template line 1)"),
        "{message}"
    );
    assert!(error("{{ nothing.at.all }}").contains("undefined"));
    assert!(error("{{ no_such_function() }}").contains("no_such_function"));
    assert!(error("{{ messages | no_such_filter }}").contains("no_such_filter"));
    assert!(error("{{ strftime_now('%Q') }}").contains("%Q"));
}

#[test]
fn endless_templates_are_stopped() {
    let loops = "{% for a in range(9999) %}{% for b in range(9999) %}\
                 {% for c in range(9999) %}{% endfor %}{% endfor %}{% endfor %}";
    assert!(
        error(loops).starts_with("chat template: the template does not come to an end"),
        "{}",
        error(loops)
    );
    let recursion = "{% macro again() %}{{ again() }}{% endmacro %}{{ again() }}";
    assert!(error(recursion).starts_with("chat template: "), "{}", error(recursion));
    // Values that grow with each step, and endless brackets and operators.
    let doubled = "{% set ns = namespace(x=['y']) %}{% for i in range(60) %}\
                   {% set ns.x = [ns.x, ns.x] %}{% endfor %}{{ ns.x ~ '' }}";
    let nested = "{% set ns = namespace(x=[]) %}{% for i in range(900) %}\
                  {% set ns.x = [ns.x] %}{% endfor %}{{ ns.x | tojson }}";
    assert!(error(doubled).contains("too long"), "{}", error(doubled));
    assert!(error(nested).contains("nested too deeply"), "{}", error(nested));
    for part in ["(", "1 % ", "x[", "'a' ~ (", "-"] {
        assert!(error(&format!("{{{{ {} }}}}", part.repeat(50_000))).lines().count() == 1);
    }
}

/// Chains that the parser follows recursively cause an error, not a crash.
#[test]
fn long_chains_are_refused() {
    for link in ["+1", " and 1", ".a", "|abs", " if 1 else 1", "[0]", "()", " is defined"] {
        let message = error(&format!("{{{{ 1{} }}}}", link.repeat(20_000)));
        assert_eq!(
            message,
            "chat template: syntax error: an expression is too long (template line 1)"
        );
    }
    let branches = "{% if a %}".to_owned() + &"{% elif a %}".repeat(10_000) + "{% endif %}";
    assert!(error(&branches).contains("too many elif"), "{}", error(&branches));
    // Long lists are not chains, and real templates have them.
    let list = format!("{{{{ [{}] | length }}}}", "1, ".repeat(500));
    assert_eq!(render(&list, "hi").unwrap(), "500");
}

#[test]
fn messages_read_like_the_usual_json() {
    let text = r#"[{"role": "system", "content": "a"}, {"role": "model", "content": "b"},
                   {"role": "user", "content": "c"}]"#;
    let messages: Vec<Message> = serde_json::from_str(text).unwrap();
    let expected = conversation(&[(Role::System, "a"), (Role::Assistant, "b"), (Role::User, "c")]);
    assert_eq!(messages, expected);
    assert_eq!(
        serde_json::to_string(&messages[1]).unwrap(),
        r#"{"role":"assistant","content":"b"}"#
    );
    assert!(serde_json::from_str::<Message>(r#"{"role": "robot", "content": ""}"#).is_err());
}

#[test]
fn content_may_be_a_list_of_parts() {
    let part = |text: &str| serde_json::json!({"type": "text", "text": text});
    let json = serde_json::json!({"role": "user", "content": [part("a "), part("b")]});
    let message: Message = serde_json::from_value(json).unwrap();
    assert_eq!(message.parts, ["a ", "b"].map(|text| Part::Text(text.into())));
    assert_eq!(message.content(), "a b");
    let template = template(&assets_with(GEMMA4, None)).unwrap();
    let rendered =
        |message: &Message| template.render(slice::from_ref(message), &RenderOptions::default());
    assert_eq!(rendered(&message).unwrap(), rendered(&Message::user("a b")).unwrap());
    for content in [r#"[{"type": "image", "url": "x"}]"#, "1"] {
        let text = format!(r#"{{"role": "user", "content": {content}}}"#);
        let error = serde_json::from_str::<Message>(&text).unwrap_err().to_string();
        assert!(error.contains("neither a text nor a list of text parts"), "{error}");
    }
}

/// A control token that a template writes after an answer ends the answer.
#[test]
fn the_turns_end_is_a_stop_token() {
    let ids = |turn, source: Option<&str>| {
        let assets = assets_with(turn, source);
        let tokenizer = Tokenizer::new(&assets).unwrap();
        let template = ChatTemplate::new(&assets, &tokenizer).unwrap();
        stop_ids(&assets, &tokenizer, Some(&template))
    };
    assert_eq!(ids(GEMMA3, None), [1, 5]);
    assert_eq!(ids(GEMMA4, None), [1, 5]);
    let each = |end: &str| {
        format!(
            "{{% for m in messages %}}<|turn>{{{{ m.role }}}}\n\
             {{{{ m.content }}}}{end}{{% endfor %}}"
        )
    };
    assert_eq!(ids(GEMMA4, Some(&each(" \n<turn|>"))), [1, 5]);
    assert_eq!(ids(GEMMA4, Some(&each("<eos>"))), [1]);
    assert_eq!(ids(GEMMA4, Some(&each("<bos>"))), [1]);
    assert_eq!(ids(GEMMA4, Some(&each("the end<turn|>"))), [1]);
    assert_eq!(ids(GEMMA4, Some(&each(""))), [1]);
    assert_eq!(ids(GEMMA4, Some("{{ raise_exception('no') }}")), [1]);
    let assets = assets_with(GEMMA4, None);
    assert_eq!(stop_ids(&assets, &Tokenizer::new(&assets).unwrap(), None), [1]);
}
