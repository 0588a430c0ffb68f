//! Formats that no importer knows, or broken files, are named in the error.

use super::*;

#[test]
fn unknown_schemes_are_named() {
    let method = |method: &'static str| {
        move |config: &mut Value| config["quantization_config"] = json!({ "quant_method": method })
    };
    assert_names(
        &spoiled("compressed_tensors", method("bitsandbytes"), same),
        &["unsupported", "bitsandbytes"],
    );
    assert_names(
        &spoiled("compressed_tensors", method("torchao"), same),
        &["unsupported", "torchao", "metadata"],
    );
    let ct = |change: fn(&mut Value)| {
        spoiled("compressed_tensors", |c| change(&mut c["quantization_config"]), same)
    };
    assert_names(
        &ct(|q| q["format"] = "float-quantized".into()),
        &["unsupported", "float-quantized"],
    );
    assert_names(
        &ct(|q| q["kv_cache_scheme"] = json!({"num_bits": 8})),
        &["unsupported", "kv_cache_scheme"],
    );
    fn weights(q: &mut Value, key: &str, value: Value) {
        q["config_groups"]["group_0"]["weights"][key] = value;
    }
    assert_names(&ct(|q| weights(q, "num_bits", 3.into())), &["unsupported", "3 bits"]);
    assert_names(&ct(|q| weights(q, "type", "float".into())), &["unsupported", "float"]);
    assert_names(
        &ct(|q| q["config_groups"]["group_0"]["input_activations"] = json!({"num_bits": 8})),
        &["unsupported", "activations"],
    );
    let mlx = |change: fn(&mut Value)| spoiled("mlx", |c| change(&mut c["quantization"]), same);
    assert_names(&mlx(|q| q["mode"] = "mxfp4".into()), &["mxfp4", "only affine"]);
    let mode = |q: &mut Value| {
        q["language_model.model.layers.0.self_attn.q_proj"]["mode"] = "nvfp4".into()
    };
    assert_names(&mlx(mode), &["layers.0.self_attn.q_proj.weight", "nvfp4"]);
    for bits in [2, 3, 5, 6] {
        let change = |c: &mut Value| {
            c["quantization"]["language_model.model.layers.0.self_attn.q_proj"]["bits"] =
                bits.into()
        };
        assert_names(
            &spoiled("mlx", change, same),
            &["self_attn.q_proj.weight", &format!("{bits} bits"), "4 and 8"],
        );
    }
    assert_names(&mlx(|q| q["bits"] = 6.into()), &["6 bits", "4 and 8"]);
    assert_names(&mlx(|q| q["bits"] = json!("four")), &["bits is not"]);
}

#[test]
fn groups_that_do_not_fit_are_named() {
    let group =
        |group: u32| move |config: &mut Value| config["quantization"]["group_size"] = group.into();
    assert_names(&spoiled("mlx", group(48), same), &["tensor", "groups of 48"]);
    assert_names(&spoiled("mlx", group(0), same), &["tensor", "groups of 0"]);
    let scale = "model.language_model.layers.0.mlp.down_proj.weight_scale";
    let error =
        spoiled("compressed_tensors", same, |header| header[scale]["shape"] = json!([128, 2]));
    assert_names(&error, &["layers.0.mlp.down_proj.weight", "[128, 2]"]);
    let torchao =
        |change: fn(&mut Value)| spoiled("torchao", same, |header| describe(header, change));
    assert_names(
        &torchao(|data| data["_data"]["block_size"] = json!([1, 48])),
        &["q_proj", "groups of 48"],
    );
    assert_names(
        &torchao(|data| data["_data"]["block_size"] = json!([1, 0])),
        &["q_proj", "groups of 0"],
    );
    assert_names(
        &torchao(|data| data["_data"]["block_size"] = json!([32, 32])),
        &["q_proj", "[32,32]"],
    );
    assert_names(
        &torchao(|data| data["_data"]["block_size"] = json!([1, 64])),
        &["q_proj", "shape"],
    );
}

/// Changes torchao's metadata about q_proj.
fn describe(header: &mut Value, change: impl Fn(&mut Value)) {
    let text = &mut header["__metadata__"]["layers.0.self_attn.q_proj.weight"];
    let mut value: Value = serde_json::from_str(text.as_str().unwrap()).unwrap();
    change(&mut value);
    *text = value.to_string().into();
}

#[test]
fn torchao_that_is_unknown_or_broken_is_named() {
    let torchao =
        |change: fn(&mut Value)| spoiled("torchao", same, |header| describe(header, change));
    assert_names(
        &torchao(|data| data["_type"] = "Float8Tensor".into()),
        &["unsupported", "Float8Tensor", "q_proj"],
    );
    assert_names(
        &torchao(|data| data["_type"] = Value::Null),
        &["unsupported", "without a type", "q_proj"],
    );
    let metadata = |key: &'static str, value: &'static str| {
        spoiled("torchao", same, |header| header["__metadata__"][key] = value.into())
    };
    assert_names(&metadata("tensor_names", "[1, 2"), &["model.safetensors", "bad JSON"]);
    assert_names(&metadata("layers.0.self_attn.q_proj.weight", "{"), &["torchao", "bad JSON"]);
    let intx = |change: fn(&mut Value)| {
        spoiled("torchao", same, |header| {
            let text = &mut header["__metadata__"]["layers.0.self_attn.v_proj.weight"];
            let mut value: Value = serde_json::from_str(text.as_str().unwrap()).unwrap();
            change(&mut value);
            *text = value.to_string().into();
        })
    };
    assert_names(
        &intx(|data| data["_data"]["target_dtype"]["_data"] = "int16".into()),
        &["v_proj", "int16"],
    );
    assert_names(
        &intx(|data| data["_data"]["activation_quantization"] = "int8_asym_per_token".into()),
        &["v_proj", "activations"],
    );
    let error = spoiled("torchao", same, |header| {
        rename(
            header,
            "layers.0.self_attn.q_proj._weight_scale",
            "layers.0.self_attn.q_proj._weight_scales",
        );
    });
    assert_names(&error, &["q_proj", "_weight_scale is missing"]);
}

#[test]
fn parts_that_are_missing_or_of_another_type_are_named() {
    let module = "language_model.model.layers.0.mlp.gate_proj";
    let error = spoiled("mlx", same, |h| {
        rename(h, &format!("{module}.biases"), &format!("{module}.offsets"))
    });
    assert_names(&error, &["gate_proj.weight", "biases is missing"]);
    let error = spoiled("mlx", same, |h| h[format!("{module}.scales")]["dtype"] = "I16".into());
    assert_names(&error, &["gate_proj.weight", "scales", "I16"]);
    let module = "model.language_model.layers.0.mlp.gate_proj";
    let error = spoiled("compressed_tensors", same, |h| {
        rename(h, &format!("{module}.weight_shape"), &format!("{module}.weight_g_idx"));
    });
    assert_names(&error, &["gate_proj.weight", "weight_g_idx"]);
    let error = spoiled("compressed_tensors_asymmetric", same, |h| {
        h[format!("{module}.weight_zero_point")]["shape"] = json!([1, 32]);
    });
    assert_names(&error, &["gate_proj.weight", "weight_zero_point", "[1, 32]"]);
    // Larger than the file.
    let packed = format!("{module}.weight_packed");
    let error = spoiled("compressed_tensors", same, |h| {
        h[&packed]["data_offsets"] = json!([0, 1u64 << 40])
    });
    assert_names(&error, &["gate_proj", "past the end"]);
}

#[test]
fn scales_that_are_not_finite_are_named_when_read() {
    let dir = copy("compressed_tensors", same, same);
    let path = dir.path().join("model.safetensors");
    let mut bytes = fs::read(&path).unwrap();
    let (header, parsed) = SafeTensors::read_metadata(&bytes).unwrap();
    let name = "model.language_model.layers.0.mlp.gate_proj.weight_scale";
    let (start, _) = parsed.info(name).unwrap().data_offsets;
    let at = 8 + header + start;
    bytes[at..at + 2].copy_from_slice(&0x7fc0u16.to_le_bytes());
    fs::write(&path, bytes).unwrap();
    let checkpoint = Checkpoint::open(dir.path()).unwrap();
    let name = "layers.0.mlp.gate_proj.weight";
    let error = wait(checkpoint.read(name, 0..1)).unwrap_err().to_string();
    assert_names(&error, &[name, "row 0", "the scale is NaN"]);
    assert!(wait(checkpoint.read(name, 1..2)).is_ok());
    let format = PackFormat::INT4;
    assert_eq!(checkpoint.info(name).unwrap().dtype, Dtype::Packed(format));
}
