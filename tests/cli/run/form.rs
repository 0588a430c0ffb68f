//! The form and the end of an answer.

use super::*;

const GREEDY: [&str; 3] = ["--temperature", "0", "--quiet"];

fn file(folder: &TempDir, text: &str) -> String {
    let path = folder.path().join("form");
    std::fs::write(&path, text).unwrap();
    path.display().to_string()
}

#[test]
fn answers_are_json_of_a_schema_or_by_a_grammar() {
    let (model, folder) = (TinyModel::new().write(), TempDir::new().unwrap());
    let schema = file(
        &folder,
        r#"{"type": "object", "properties": {"a": {"type": "string", "maxLength": 5},
            "b": {"enum": [1, 2]}}, "required": ["a", "b"], "additionalProperties": false}"#,
    );
    for seed in ["1", "2", "3"] {
        let args = ["--seed", seed, "--json-schema", &schema, "hi"];
        let answer: Value = serde_json::from_str(&stdout(&mut run(&model, &args))).unwrap();
        assert!(answer["a"].as_str().unwrap().chars().count() <= 5);
        assert!([1, 2].contains(&answer["b"].as_i64().unwrap()));
    }
    let gbnf = file(&folder, "root ::= \"yes\" | \"no\"");
    let answer = stdout(&mut run(&model, &["--grammar", &gbnf, "hi"]));
    assert!(["yes\n", "no\n"].contains(&answer.as_str()), "{answer:?}");
}

#[test]
fn forms_that_cannot_be_used_are_refused_before_the_model_is_loaded() {
    let (model, folder) = (TinyModel::new().write(), TempDir::new().unwrap());
    let cases = [
        ("--json-schema", "{", "--json-schema"),
        ("--json-schema", r#"{"type": "strong"}"#, "strong"),
        ("--grammar", "root ::= x", "the rule x is missing"),
    ];
    for (option, text, reason) in cases {
        let path = file(&folder, text);
        let error = error_line(&mut run(&model, &[option, &path, "hi"]));
        assert!(error.contains(reason), "{error}");
    }
    let error = error_line(&mut run(&model, &["--grammar", "/no/such/file", "hi"]));
    assert!(error.contains("/no/such/file"), "{error}");
}

fn args<'a>(more: &[&'a str]) -> Vec<&'a str> {
    [&GREEDY[..], &["-n", "30"], more, &["hi"]].concat()
}

#[test]
fn a_stop_text_ends_the_answer() {
    let model = TinyModel::new().write();
    let whole = stdout(&mut run(&model, &args(&[])));
    let whole = whole.trim_end_matches('\n');
    let middle = whole.char_indices().nth(whole.chars().count() / 2).unwrap().0;
    let stop: String = whole[middle..].chars().take(2).collect();
    let before = &whole[..whole.find(&stop).unwrap()];
    assert_eq!(stdout(&mut run(&model, &args(&["--stop", &stop]))), format!("{before}\n"));
    let report = json(&mut run(&model, &args(&["--json", "--stop", &stop])));
    assert_eq!(report["finish_reason"], "stop");
}

#[test]
fn a_penalty_forbids_repetitions() {
    let model = TinyModel::new().write();
    let args = ["--json", "--temperature", "0", "-n", "20", "--presence-penalty", "1000", "hi"];
    let report = json(&mut run(&model, &args));
    let tokens = report["tokens"].as_array().unwrap();
    let distinct: std::collections::HashSet<u64> =
        tokens.iter().map(|token| token.as_u64().unwrap()).collect();
    assert_eq!(distinct.len(), tokens.len());
    let error = error_line(&mut run(&model, &["--frequency-penalty", "inf", "hi"]));
    assert!(error.contains("--frequency-penalty inf: must be a finite number"), "{error}");
}
