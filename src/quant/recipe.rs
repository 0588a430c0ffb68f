//! Recipes: ordered rules on tensor names choose the format of each tensor.

use std::{collections::BTreeSet, fmt};

use regex::Regex;
use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::quant::methods::{Method, Spec};

/// Ordered rules. The first rule that fits a matrix decides.
#[derive(Debug, Clone)]
pub struct Recipe {
    name: String,
    rules: Vec<Rule>,
}

#[derive(Debug, Clone)]
struct Rule {
    pattern: Regex,
    text: RuleText,
}

/// A rule as a file writes it.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RuleText {
    /// Regular expression that is searched for in the tensor's name, such as
    /// `layers.3.mlp.down_proj.weight`.
    pub pattern: String,
    /// Layers that the rule is for. Without it the rule is for all tensors.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub layers: Option<Layers>,
    /// 4 or 8, or 16 to leave the matrix as it is.
    pub bits: u8,
    /// Columns that share a scale.
    #[serde(default)]
    pub group_size: GroupSize,
    #[serde(default = "yes")]
    pub symmetric: bool,
    #[serde(default = "min_max")]
    pub method: Method,
}

fn yes() -> bool {
    true
}

fn min_max() -> Method {
    Method::MinMax
}

/// `layers = [0, 1, 5]`, or `layers = "edge"`: the first and the last quarter.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Layers {
    Numbers(BTreeSet<usize>),
    Named(NamedLayers),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum NamedLayers {
    Edge,
}

/// `group_size = 64`, or `group_size = "row"`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum GroupSize {
    Columns(usize),
    Named(NamedGroup),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum NamedGroup {
    Row,
}

impl Default for GroupSize {
    fn default() -> Self {
        GroupSize::Columns(32)
    }
}

/// A recipe's file.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RecipeText {
    #[serde(rename = "rule")]
    pub rules: Vec<RuleText>,
}

impl Recipe {
    /// Names of the built-in recipes.
    pub const NAMES: [&str; 5] = ["default", "int8", "sensitive", "hqq", "mse_clip"];

    /// A built-in recipe; `None` if there is none of this name.
    ///
    /// `default` and `int8` are what loading makes of full-precision weights.
    pub fn named(name: &str) -> Option<Recipe> {
        let embedding = RuleText::new(
            "^(embed_tokens(_per_layer)?|per_layer_model_projection|lm_head)\\.",
            8,
            Method::MinMax,
        );
        let edge = RuleText {
            layers: Some(Layers::Named(NamedLayers::Edge)),
            ..RuleText::new("(v_proj|mlp\\.down_proj)\\.", 8, Method::MinMax)
        };
        let int4 = |method| RuleText::new("", 4, method);
        let rules = match name {
            "default" => vec![embedding, int4(Method::MinMax)],
            "int8" => vec![RuleText::new("", 8, Method::MinMax)],
            "sensitive" => vec![embedding, edge, int4(Method::Hqq)],
            "hqq" => vec![embedding, int4(Method::Hqq)],
            "mse_clip" => vec![embedding, int4(Method::MseClip)],
            _ => return None,
        };
        Recipe::new(name, rules).ok()
    }

    /// Errors: an invalid regular expression; a width or group size that no format has.
    pub fn new(name: &str, rules: Vec<RuleText>) -> Result<Recipe> {
        let rules = rules.into_iter().enumerate().map(|(index, text)| {
            let fault = |reason: String| {
                Error::Input(format!("recipe {name}, rule {}: {reason}", index + 1))
            };
            let pattern = Regex::new(&text.pattern).map_err(|error| {
                let error = error.to_string();
                fault(format!(
                    "pattern {:?}: {}",
                    text.pattern,
                    error.lines().last().unwrap_or_default().trim()
                ))
            })?;
            match text.bits {
                4 | 8 | 16 => {}
                bits => {
                    return Err(fault(format!(
                        "bits = {bits} (4, 8, or 16 to leave a matrix as it is)"
                    )));
                }
            }
            match text.group_size {
                GroupSize::Columns(size)
                    if size != 16 && (size == 0 || !size.is_multiple_of(32)) =>
                {
                    Err(fault(format!("group_size = {size} (16, a multiple of 32, or \"row\")")))
                }
                _ => Ok(Rule { pattern, text }),
            }
        });
        Ok(Recipe { name: name.to_owned(), rules: rules.collect::<Result<_>>()? })
    }

    /// What the matrix `name` of a model with `layers` layers becomes. `None` if it stays as it is.
    ///
    /// Errors: no rule fits.
    pub fn spec(&self, name: &str, layers: usize) -> Result<Option<Spec>> {
        let rule = self.rules.iter().find(|rule| rule.fits(name, layers)).ok_or_else(|| {
            Error::tensor(
                name,
                format!("no rule of recipe {self} fits; end it with one of pattern \"\""),
            )
        })?;
        let RuleText { bits, group_size, symmetric, method, .. } = rule.text;
        let group = match group_size {
            GroupSize::Columns(columns) => Some(columns),
            GroupSize::Named(NamedGroup::Row) => None,
        };
        Ok((bits != 16).then_some(Spec { bits, group, symmetric, method }))
    }

    /// Whether a rule has this method.
    pub fn has(&self, method: Method) -> bool {
        self.rules.iter().any(|rule| rule.text.bits != 16 && rule.text.method == method)
    }

    /// The rules as JSON, which a checkpoint records.
    pub fn to_json(&self) -> String {
        let rules: Vec<&RuleText> = self.rules.iter().map(|rule| &rule.text).collect();
        serde_json::to_string(&rules).unwrap_or_default()
    }
}

impl fmt::Display for Recipe {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)
    }
}

impl RuleText {
    fn new(pattern: &str, bits: u8, method: Method) -> RuleText {
        let pattern = pattern.to_owned();
        RuleText {
            pattern,
            layers: None,
            bits,
            group_size: GroupSize::default(),
            symmetric: true,
            method,
        }
    }
}

impl Rule {
    fn fits(&self, name: &str, layers: usize) -> bool {
        let layer = || name.strip_prefix("layers.")?.split('.').next()?.parse::<usize>().ok();
        let in_layers = match &self.text.layers {
            None => true,
            Some(Layers::Numbers(numbers)) => layer().is_some_and(|layer| numbers.contains(&layer)),
            Some(Layers::Named(NamedLayers::Edge)) => {
                let edge = layers.div_ceil(4);
                layer().is_some_and(|layer| layer < edge || layer + edge >= layers)
            }
        };
        in_layers && self.pattern.is_match(name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bits(recipe: &Recipe, name: &str) -> (u8, Method) {
        let spec = recipe.spec(name, 60).unwrap().unwrap();
        (spec.bits, spec.method)
    }

    #[test]
    fn the_sensitive_recipe_spares_the_edge() {
        let recipe = Recipe::named("sensitive").unwrap();
        assert_eq!(bits(&recipe, "embed_tokens.weight"), (8, Method::MinMax));
        for (layer, edge) in
            [(0, true), (14, true), (15, false), (44, false), (45, true), (59, true)]
        {
            let wanted = if edge { (8, Method::MinMax) } else { (4, Method::Hqq) };
            assert_eq!(
                bits(&recipe, &format!("layers.{layer}.mlp.down_proj.weight")),
                wanted,
                "{layer}"
            );
            assert_eq!(
                bits(&recipe, &format!("layers.{layer}.self_attn.q_proj.weight")),
                (4, Method::Hqq)
            );
        }
    }

    #[test]
    fn every_name_has_a_recipe() {
        for name in Recipe::NAMES {
            let recipe = Recipe::named(name).unwrap();
            assert!(recipe.spec("layers.7.mlp.up_proj.weight", 60).unwrap().is_some(), "{name}");
        }
        assert!(Recipe::named("best").is_none());
    }
}
