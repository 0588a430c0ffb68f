//! `gemma4-wgpu devices`, and the choice of a device.

use super::*;

#[test]
fn devices_lists_the_same_adapters_both_ways() {
    let list: Value = serde_json::from_str(&stdout(&mut program(&["devices", "--json"]))).unwrap();
    let text = stdout(&mut program(&["devices"]));
    // If MLX is built in, its device comes after the adapters and has no number.
    let adapters: Vec<&Value> =
        list.as_array().unwrap().iter().filter(|entry| entry["index"].is_u64()).collect();
    assert!(
        !adapters.is_empty(),
        "the tests need an adapter: install a Vulkan driver such as lavapipe"
    );
    for adapter in adapters {
        assert!(text.contains(&format!(
            "{}: {}",
            adapter["index"],
            adapter["name"].as_str().unwrap()
        )));
        assert!(adapter["subgroup_min_size"].is_u64() && adapter["shader_f16"].is_boolean());
        let kernels = adapter["kernels"].as_str().unwrap();
        assert!(kernels.parse::<gemma4_wgpu::gpu::KernelOptions>().is_ok(), "{kernels}");
        assert!(kernels.contains("checks=off") && text.contains(kernels), "{text}");
        let bus = &adapter["pci_bus_id"];
        assert!(bus.is_null() || bus.as_str().unwrap().contains(':'), "{bus}");
        assert!(text.contains(&format!(
            "pci bus id                   {}",
            bus.as_str().unwrap_or("unknown")
        )));
    }
}

/// Without options a GPU runs if there is one.
/// A software adapter is used only if an option requests it.
#[test]
fn a_software_driver_is_taken_only_if_it_is_asked_for() {
    let list: Value = serde_json::from_str(&stdout(&mut program(&["devices", "--json"]))).unwrap();
    let adapters: Vec<&Value> =
        list.as_array().unwrap().iter().filter(|entry| entry["index"].is_u64()).collect();
    assert!(
        !adapters.is_empty(),
        "the tests need an adapter: install a Vulkan driver such as lavapipe"
    );
    let is_software = adapters.iter().all(|adapter| adapter["device_type"] == "CPU");
    let model = TinyModel::new().write();
    let run = |args: &[&str]| {
        let args = [&["--json", "-n", "1", "--raw-prompt", "--prompt", "hi"], args].concat();
        let output = on_model("run", model.path(), &args).output().unwrap();
        let stderr = String::from_utf8(output.stderr).unwrap();
        assert!(output.status.success(), "{stderr}");
        let answer: Value = serde_json::from_slice(&output.stdout).unwrap();
        (answer["backend"].as_str().unwrap().to_owned(), stderr)
    };
    let (backend, told) = run(&["--backend", "auto"]);
    match (is_software, backend.as_str()) {
        (true, "cpu") => {
            let name = adapters[0]["name"].as_str().unwrap();
            assert!(
                told.starts_with("warning: no adapter but ") && told.lines().count() == 1,
                "{told}"
            );
            assert!(
                adapters.len() > 1 || told.contains(&format!("{name}, a software driver")),
                "{told}"
            );
        }
        // On a Mac with MLX it is MLX.
        (false, "wgpu" | "mlx") => assert_eq!(told, ""),
        _ => panic!("{backend} where software is all there is: {is_software}; {told}"),
    }
    let place = adapters[0]["index"].to_string();
    for asked in [&["--backend", "wgpu"][..], &["--adapter", &place], &["--kernels", "checks=on"]] {
        let (backend, told) = run(asked);
        assert_eq!(backend, "wgpu");
        let notes = told.starts_with("note: ") && told.contains("which first compiles each kernel");
        assert!(
            if is_software { notes && told.lines().count() == 1 } else { told.is_empty() },
            "{told}"
        );
    }
    assert_eq!(run(&["--backend", "wgpu", "--quiet"]).1, "");
}
