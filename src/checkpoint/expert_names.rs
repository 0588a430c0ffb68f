//! Names of the parts of expert matrices in Hugging Face files.

use crate::model::tensors::{EXPERTS_DOWN, EXPERTS_GATE_UP, TensorSpec, layer_and_rest};

/// The module of MLX that holds each matrix of all experts.
pub(super) const STACKED: &str = "switch_glu";
pub(super) const GATE: &str = "gate_proj";
pub(super) const UP: &str = "up_proj";
pub(super) const DOWN: &str = "down_proj";

/// A tensor with a part of a layer's expert matrices.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Part<'a> {
    pub layer: usize,
    /// `None` for a tensor of all experts.
    pub expert: Option<usize>,
    pub matrix: &'a str,
}

impl<'a> Part<'a> {
    /// Reads `layers.3.experts.switch_glu.up_proj.weight` or `layers.3.experts.7.up_proj.weight`.
    pub fn of(name: &'a str) -> Option<Self> {
        let (layer, rest) = layer_and_rest(name, "layers.")?;
        let (owner, rest) = rest.strip_prefix("experts.")?.split_once('.')?;
        let matrix = rest.strip_suffix(".weight").filter(|name| [GATE, UP, DOWN].contains(name))?;
        let expert = match owner {
            STACKED => None,
            number => Some(number.parse().ok().filter(|n: &usize| n.to_string() == number)?),
        };
        Some(Part { layer, expert, matrix })
    }

    /// The matrix of all experts that the part belongs to.
    pub fn whole(&self) -> &'static TensorSpec {
        if self.matrix == DOWN { &EXPERTS_DOWN } else { &EXPERTS_GATE_UP }
    }
}

/// Whether a name within the text model is a part of expert matrices.
pub(super) fn is_part(name: &str) -> bool {
    Part::of(name).is_some()
}

/// The name of the matrix that a tensor becomes, within the text model.
pub(super) fn whole_name(name: &str) -> String {
    Part::of(name).map_or_else(|| name.into(), |part| part.whole().in_layer(part.layer))
}

/// The name in a layer of a tensor of all experts' gates or ups.
pub(super) fn stacked_name(layer: usize, is_up: bool) -> String {
    format!("layers.{layer}.experts.{STACKED}.{}.weight", if is_up { UP } else { GATE })
}

/// A shape of two dimensions for a part that has a dimension of experts before them.
pub(super) fn flatten(name: &str, shape: &mut Vec<usize>) {
    if let (true, &[experts, rows, cols]) = (is_part(name), shape.as_slice())
        && let Some(rows) = experts.checked_mul(rows)
    {
        *shape = vec![rows, cols];
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_have_names_of_mlx_or_of_single_experts() {
        let part = |expert, matrix| Some(Part { layer: 3, expert, matrix });
        assert_eq!(Part::of("layers.3.experts.switch_glu.up_proj.weight"), part(None, UP));
        assert_eq!(Part::of("layers.3.experts.17.down_proj.weight"), part(Some(17), DOWN));
        for name in [
            "layers.3.experts.gate_up_proj",
            "layers.3.experts.07.up_proj.weight",
            "layers.3.experts.switch_glu.up_proj.scales",
            "layers.3.mlp.up_proj.weight",
        ] {
            assert_eq!(Part::of(name), None, "{name}");
        }
        assert_eq!(
            whole_name("layers.3.experts.1.up_proj.weight"),
            "layers.3.experts.gate_up_proj"
        );
        assert!(is_part(&stacked_name(3, true)) && is_part(&stacked_name(0, false)));
    }
}
