//! Rotary parameters of config.json.

use crate::error::{Error, Result, quoted};
use crate::json::Fields;
use crate::model::config::Rope;
use crate::model::config::hf_class::{Class, LayerType};

/// Rotary parameters of one kind of layer, before the head dimension is known.
#[derive(Debug, Clone, Copy)]
pub(super) struct RopeParameters {
    theta: f32,
    factor: f32,
    /// Share of the head's pairs that rotate.
    rotated: f64,
}

impl RopeParameters {
    pub(super) fn resolve(self, head_dim: usize) -> Rope {
        let rotated_pairs = (self.rotated * head_dim as f64 / 2.0).floor() as usize;
        Rope { theta: self.theta, rotated_pairs, scale: self.factor }
    }

    /// Reads `{rope_type, rope_theta, factor, partial_rotary_factor}`.
    pub(super) fn read(
        fields: Fields,
        layer_type: LayerType,
        default_theta: Option<f64>,
    ) -> Result<Self> {
        let missing =
            |key| Error::Config(format!("rope_parameters of {} lack {key}", layer_type.name()));
        let theta =
            fields.number("rope_theta")?.or(default_theta).ok_or_else(|| missing("rope_theta"))?;
        let partial = fields.number("partial_rotary_factor")?.unwrap_or(1.0);
        if !(0.0..=1.0).contains(&partial) {
            return Err(Error::Config(format!(
                "partial_rotary_factor = {partial} is not between 0 and 1"
            )));
        }
        let rope_type = match fields.text("rope_type")? {
            Some(rope_type) => rope_type,
            None => fields.text("type")?.unwrap_or("default"),
        };
        let (factor, rotated) = match rope_type {
            // transformers ignores partial_rotary_factor here.
            "default" => (1.0, 1.0),
            "linear" if partial == 1.0 => {
                (fields.number("factor")?.ok_or_else(|| missing("factor"))?, 1.0)
            }
            "linear" => {
                return Err(Error::Unsupported("linear RoPE with a partial_rotary_factor".into()));
            }
            "proportional" => (fields.number("factor")?.unwrap_or(1.0), partial),
            other => return Err(Error::Unsupported(format!("rope_type {}", quoted(other)))),
        };
        Ok(RopeParameters { theta: theta as f32, factor: factor as f32, rotated })
    }
}

/// Rotary parameters by kind of layer.
pub(super) struct Ropes {
    sliding: RopeParameters,
    full: RopeParameters,
}

impl Ropes {
    pub(super) fn of(&self, layer_type: LayerType) -> RopeParameters {
        match layer_type {
            LayerType::Sliding => self.sliding,
            LayerType::Full => self.full,
        }
    }

    pub(super) fn read(text: Fields, class: Class, types: &[LayerType]) -> Result<Self> {
        let by_type = text.object("rope_parameters")?;
        let parameters = |layer_type: LayerType| match by_type {
            Some(by_type) => by_type.object(layer_type.name()),
            None => Ok(None),
        };
        if by_type.is_some()
            && parameters(LayerType::Sliding)?.is_none()
            && parameters(LayerType::Full)?.is_none()
        {
            return Err(Error::Config("rope_parameters are not given by layer type".into()));
        }
        let read = |layer_type| match (parameters(layer_type)?, class) {
            (given, Class::Gemma3) => gemma3_rope(text, given, layer_type),
            (Some(given), _) => RopeParameters::read(given, layer_type, None),
            (None, _) if by_type.is_some() && types.contains(&layer_type) => {
                Err(Error::Config(format!("rope_parameters lack {}", layer_type.name())))
            }
            (None, _) => Ok(match layer_type {
                LayerType::Sliding => RopeParameters { theta: 1e4, factor: 1.0, rotated: 1.0 },
                LayerType::Full => RopeParameters { theta: 1e6, factor: 1.0, rotated: 0.25 },
            }),
        };
        Ok(Ropes { sliding: read(LayerType::Sliding)?, full: read(LayerType::Full)? })
    }
}

/// Gemma 3 has an older form too: `rope_theta`, `rope_local_base_freq` and `rope_scaling`. The
/// scaling is for full layers only.
fn gemma3_rope(
    text: Fields,
    given: Option<Fields>,
    layer_type: LayerType,
) -> Result<RopeParameters> {
    let (theta_key, default_theta) = match layer_type {
        LayerType::Sliding => ("rope_local_base_freq", 1e4),
        LayerType::Full => ("rope_theta", 1e6),
    };
    let theta = text.number(theta_key)?.unwrap_or(default_theta);
    let scaling = match layer_type {
        LayerType::Sliding => None,
        LayerType::Full => text.object("rope_scaling")?,
    };
    match (scaling, given) {
        (Some(_), Some(_)) => {
            Err(Error::Config("both rope_scaling and rope_parameters are given".into()))
        }
        (Some(fields), None) | (None, Some(fields)) => {
            RopeParameters::read(fields, layer_type, Some(theta))
        }
        (None, None) => Ok(RopeParameters { theta: theta as f32, factor: 1.0, rotated: 1.0 }),
    }
}
