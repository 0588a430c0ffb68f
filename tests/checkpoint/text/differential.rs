//! Templates rendered by transformers and by this program.
//! tests/fixtures/text/templates/generate.py wrote the expected texts.

use gemma4_wgpu::text::{Message, RenderOptions, Role};
use serde::Deserialize;

use super::template::{GEMMA3, GEMMA4, assets_with, conversation, template};

#[derive(Deserialize)]
struct Reference {
    snippets: Vec<Snippet>,
    conversations: Vec<Conversation>,
}

/// `expected` is missing where transformers fails.
#[derive(Deserialize)]
struct Snippet {
    template: String,
    expected: Option<String>,
}

#[derive(Deserialize)]
struct Conversation {
    template: String,
    messages: Vec<Message>,
    closed: bool,
    expected: Option<String>,
}

fn reference() -> Reference {
    serde_json::from_str(include_str!("../../fixtures/text/templates/expected.json")).unwrap()
}

/// Renders for the two messages that every snippet uses.
fn render(source: &str) -> Result<String, String> {
    let template = template(&assets_with(GEMMA4, Some(source)));
    let messages = conversation(&[(Role::System, "S"), (Role::User, "U")]);
    let rendered =
        template.and_then(|template| template.render(&messages, &RenderOptions::default()));
    rendered.map_err(|error| error.to_string())
}

#[test]
fn snippets_render_as_transformers_renders_them() {
    let snippets = reference().snippets;
    assert!(snippets.len() > 250);
    let mut wrong = Vec::new();
    for snippet in &snippets {
        let rendered = render(&snippet.template);
        match (&snippet.expected, &rendered) {
            (Some(expected), Ok(text)) if expected == text => {}
            (None, Err(message)) if !message.contains('\n') => {}
            (expected, rendered) => {
                wrong.push(format!("{:?}\n  {rendered:?}, not {expected:?}", snippet.template));
            }
        }
    }
    assert!(wrong.is_empty(), "{} of {}:\n{}", wrong.len(), snippets.len(), wrong.join("\n"));
}

#[test]
fn built_in_templates_render_as_transformers_renders_them() {
    for case in reference().conversations {
        let turns = if case.template == "gemma3.jinja" { GEMMA3 } else { GEMMA4 };
        let options = RenderOptions {
            add_generation_prompt: !case.closed,
            enable_thinking: case.closed,
            ..RenderOptions::default()
        };
        let rendered =
            template(&assets_with(turns, None)).unwrap().render(&case.messages, &options);
        assert_eq!(rendered.ok(), case.expected, "{}: {:?}", case.template, case.messages);
    }
}

/// A feature that this program lacks causes an error of one line that names it.
#[test]
fn unsupported_features_are_named() {
    let cases = [
        ("{{ 'abc'.encode() }}", "encode"),
        ("{{ 'abc'.translate({97: 'x'}) }}", "translate"),
        ("{{ 'abc' | wordwrap(2) }}", "wordwrap"),
        ("{{ {'a': 1} | xmlattr }}", "xmlattr"),
        ("{{ 'a b' | urlencode }}", "urlencode"),
        ("{{ [1, 2] | pprint }}", "pprint"),
        ("{{ [1, 2] | random }}", "random"),
        ("{{ lipsum() }}", "lipsum"),
        ("{% macro f() %}{{ varargs }}{% endmacro %}{{ f(1) }}", "varargs"),
        ("{% macro f() %}\n{{ kwargs }}{% endmacro %}{{ f(a=1) }}", "kwargs"),
        ("{{ [1].append(2) }}", "list.append"),
        ("{{ {'a': 1}.pop('a') }}", "dict.pop"),
        ("{{ 1 | tojson(skipkeys=true) }}", "skipkeys"),
        ("{{ 'a'.split(by='b') }}", "by"),
        ("{{ '%y' % 1 }}", "%y"),
        ("{{ '{:q}'.format(1) }}", "q"),
        ("{{ strftime_now('%Q') }}", "%Q"),
        ("a\n{% generation %}b", "{% generation %} is not closed"),
        ("{% generation x %}b{% endgeneration %}", "{% generation %} takes no arguments"),
    ];
    for (source, name) in cases {
        let message = render(source).unwrap_err();
        assert!(message.contains(name) && !message.contains('\n'), "{source}: {message}");
    }
}
