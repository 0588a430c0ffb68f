use super::*;

fn only(option: &KernelOption, value: bool) -> KernelOptions {
    let mut options = KernelOptions::UNSET;
    option.set(&mut options, Some(value));
    options
}

/// An adapter without any feature that an option needs.
fn bare() -> AdapterFacts {
    AdapterFacts {
        subgroups: false,
        shader_f16: false,
        mappable_storage: false,
        cooperative_matrices: Vec::new(),
        max_workgroup_invocations: 256,
        coherent: false,
        ..AdapterFacts::example_card()
    }
}

#[test]
fn every_option_is_read_written_and_explained() {
    let help = KernelOptions::help();
    for option in KERNEL_OPTIONS {
        for (value, text) in [(true, "on"), (false, "off")] {
            let text = format!("{}={text}", option.name);
            assert_eq!(text.parse(), Ok(only(option, value)));
            assert_eq!(only(option, value).to_string(), text);
        }
        assert_eq!(option.get(&KernelOptions::UNSET), None);
        assert!(KernelOptions::usage().contains(option.name));
        assert!(help.contains(option.help.trim()) && help.contains(option.rule.default.0));
        let bad = format!("{}=yes", option.name).parse::<KernelOptions>().unwrap_err();
        assert!(bad.contains(&format!("want {}=on", option.name)), "{bad}");
    }
    assert!(help.lines().all(|line| line.chars().count() <= 100), "{help}");
}

#[test]
fn every_option_follows_the_user_or_says_what_it_lacks() {
    for option in KERNEL_OPTIONS {
        for facts in [AdapterFacts::example_card(), bare()] {
            let off = only(option, false).resolve(&facts).unwrap();
            assert_eq!(option.get(&off), Some(false), "{}", option.name);
            let on = only(option, true).resolve(&facts);
            match option.rule.needs {
                Some((what, _)) if facts == bare() => {
                    let message = on.unwrap_err().to_string();
                    let expected = format!("has no {what}: leave out {}=on", option.name);
                    assert!(message.ends_with(&expected), "{message}");
                    let default = KernelOptions::UNSET.resolve(&facts).unwrap();
                    assert_eq!(option.get(&default), Some(false), "{}", option.name);
                }
                _ => assert_eq!(option.get(&on.unwrap()), Some(true), "{}", option.name),
            }
        }
    }
}

#[test]
fn unknown_and_former_names_are_refused() {
    let refused = |text: &str| text.parse::<KernelOptions>().unwrap_err();
    let message = refused("f16=on,speed=on");
    assert!(message.starts_with("no kernel option speed; there are subgroups, f16, "));
    assert!(KERNEL_OPTIONS.iter().all(|option| message.contains(option.name)), "{message}");
    for option in KERNEL_OPTIONS {
        let Some(former) = option.rule.formerly else { continue };
        let expected = format!("{former} is now called {}", option.name);
        assert_eq!(refused(&format!("{former}=on")), expected);
    }
    assert_eq!(refused("f16"), "f16: want NAME=on or NAME=off");
}

#[test]
fn a_refusal_names_what_was_switched_off() {
    let options: KernelOptions = "subgroups=off,row_per_invocation=on".parse().unwrap();
    let message = options.resolve(&AdapterFacts::example_card()).unwrap_err().to_string();
    assert!(message.contains(" with subgroups=off has no subgroups of one size"), "{message}");
}

#[test]
fn the_search_has_no_two_options_in_one_place() {
    let places: Vec<_> =
        KernelOption::search_order().iter().map(|option| option.rule.search).collect();
    assert!(places.windows(2).all(|pair| pair[0] < pair[1]), "{places:?}");
}

#[test]
fn ways_to_load_exclude_each_other() {
    let facts = AdapterFacts { unified_memory: true, ..AdapterFacts::example_card() };
    let chosen = |text: &str| {
        let options = text.parse::<KernelOptions>().unwrap().resolve(&facts);
        options.map(|options| (options.inplace == Some(true), options.repack == Some(true)))
    };
    assert_eq!(chosen("").unwrap(), (true, false));
    assert_eq!(chosen("repack=on").unwrap(), (false, true));
    assert_eq!(chosen("repack=off").unwrap(), (false, false));
    assert_eq!(chosen("inplace=off").unwrap(), (false, true));
    assert!(chosen("repack=on,inplace=on").unwrap_err().to_string().contains("exclude"));
}

#[test]
fn docs_list_every_option() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/kernel-options.md");
    let (text, rows) = (std::fs::read_to_string(path).unwrap(), KernelOptions::markdown());
    assert!(text.contains(&rows), "docs/kernel-options.md must contain:\n{rows}");
}
