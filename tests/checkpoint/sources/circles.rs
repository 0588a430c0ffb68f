//! No file uses itself through others.

use std::collections::{BTreeMap, BTreeSet};

use super::paths::{Module, Sources};

/// For each module the modules that it uses, with the line of the first use.
type Graph = BTreeMap<Module, BTreeMap<Module, usize>>;

/// Removes modules outside circles, which use none of the others or are used by none.
fn circular(mut graph: Graph) -> Graph {
    loop {
        let used: BTreeSet<Module> = graph.values().flat_map(|uses| uses.keys().cloned()).collect();
        let before: usize = graph.values().map(|uses| 1 + uses.len()).sum();
        graph.retain(|module, uses| !uses.is_empty() && used.contains(module));
        let left: BTreeSet<Module> = graph.keys().cloned().collect();
        graph.values_mut().for_each(|uses| uses.retain(|used, _| left.contains(used)));
        if before == graph.values().map(|uses| 1 + uses.len()).sum::<usize>() {
            return graph;
        }
    }
}

#[test]
fn no_file_is_in_a_circle() {
    let sources = Sources::read();
    let mut graph = Graph::new();
    for (module, uses) in sources.uses() {
        let of_module = graph.entry(module.clone()).or_default();
        for used in uses {
            of_module.entry(used.defined_in).or_insert(used.line);
        }
    }
    let mut faults = Vec::new();
    for (module, uses) in circular(graph) {
        let file = sources.file(&module);
        faults.extend(
            uses.iter().map(|(used, line)| format!("{file}:{line}: uses {}", sources.file(used))),
        );
    }
    assert!(faults.is_empty(), "in or between circles:\n{}", faults.join("\n"));
}

#[test]
fn circles_are_found() {
    let module = |name: &str| vec![name.to_owned()];
    let graph = |edges: &[(&str, &str)]| {
        let mut graph = Graph::new();
        for (from, to) in edges {
            graph.entry(module(to)).or_default();
            graph.entry(module(from)).or_default().insert(module(to), 1);
        }
        graph
    };
    assert!(circular(graph(&[("a", "b"), ("b", "c"), ("a", "c")])).is_empty());
    let found = circular(graph(&[("a", "b"), ("b", "c"), ("c", "b"), ("c", "d")]));
    assert_eq!(found.into_keys().collect::<Vec<_>>(), [module("b"), module("c")]);
}
