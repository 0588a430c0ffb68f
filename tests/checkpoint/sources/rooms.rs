//! Which folder or file of `src` may use which.

use super::paths::{Sources, file_of};

/// A room and the rooms that it may use, which all come before it in this list.
/// A room is a file, or a folder without those of its parts that are rooms.
const ROOMS: [(&str, &[&str]); 26] = [
    ("error", &[]),
    ("json", &["error"]),
    ("memory", &["error"]),
    ("sampling", &["error"]),
    ("quant", &["error"]),
    ("text", &["error"]),
    ("model", &["error", "json", "quant"]),
    ("checkpoint", &["error", "json", "quant", "text", "model"]),
    ("hub", &["error", "checkpoint"]),
    ("convert", &["error", "json", "quant", "text", "model", "checkpoint"]),
    ("backend", &["error", "sampling", "model"]),
    ("cpu", &["error", "memory", "sampling", "quant", "model", "backend"]),
    ("gpu::device", &["error", "backend"]),
    ("gpu::kernels", &["sampling", "quant", "model", "gpu::device"]),
    ("gpu::weights", &["error", "quant", "model", "gpu::device", "gpu::kernels"]),
    (
        "gpu::model",
        &["error", "sampling", "model", "backend", "gpu::device", "gpu::kernels", "gpu::weights"],
    ),
    ("gpu::backend", &["error", "model", "backend", "gpu::device", "gpu::weights", "gpu::model"]),
    (
        "gpu",
        &[
            "error",
            "memory",
            "model",
            "gpu::device",
            "gpu::kernels",
            "gpu::weights",
            "gpu::model",
            "gpu::backend",
        ],
    ),
    ("mlx", &["error", "sampling", "quant", "model", "backend"]),
    ("quantize", &["error", "quant", "model", "checkpoint", "gpu::device"]),
    ("generate", &["error", "sampling", "backend"]),
    ("grammar", &["error", "text", "generate"]),
    ("api", ALL_BELOW),
    ("tune", ALL_BELOW),
    ("server", ALL_BELOW),
    ("cli", ALL_BELOW),
];

/// For rooms near the end, which may use all rooms before them in the list.
const ALL_BELOW: &[&str] = &["*"];

/// The room of a module, as a place in the list. The longest name that fits counts.
fn room_of(module: &[String]) -> Option<usize> {
    let path = module.join("::");
    let fits = |room: &str| path == room || path.starts_with(&format!("{room}::"));
    let fitting = (0..ROOMS.len()).filter(|&index| fits(ROOMS[index].0));
    fitting.max_by_key(|&index| ROOMS[index].0.len())
}

#[test]
fn rooms_use_those_above_them_in_the_list() {
    for (place, (room, may_use)) in ROOMS.iter().enumerate() {
        for used in may_use.iter().filter(|used| **used != "*") {
            let above = ROOMS[..place].iter().any(|(name, _)| name == used);
            assert!(above, "{room} may use {used}, which is not above it");
        }
    }
}

#[test]
fn imports_go_the_way_that_the_list_allows() {
    let sources = Sources::read();
    let mut faults = Vec::new();
    for (module, uses) in sources.uses() {
        // The library's root only declares the rooms. The program's root only calls the command
        // line.
        let Some(room) = room_of(module) else {
            assert!(module.is_empty(), "{} is in no room of the list", file_of(module));
            continue;
        };
        for used in uses {
            let Some(other) = room_of(&used.defined_in) else { continue };
            let (name, may_use) = ROOMS[room];
            let allowed = may_use.contains(&ROOMS[other].0) || may_use == ALL_BELOW && other < room;
            if other != room && !allowed {
                let (file, line) = (sources.file(module), used.line);
                faults.push(format!("{file}:{line}: {name} may not use {}", used.path));
            }
        }
    }
    assert!(faults.is_empty(), "\n{}", faults.join("\n"));
}
