//! Overrides of the kernel variant that adapter facts would choose.

use std::{fmt, str::FromStr};

/// Overrides of what adapter facts would choose; `None` leaves the choice to them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct KernelOptions {
    pub subgroups: Option<bool>,
    pub f16: Option<bool>,
    pub dp4a: Option<bool>,
    /// Matrix products and attention of many tokens on cooperative matrices.
    pub coop: Option<bool>,
    /// Workgroups of 1024 where one workgroup has a whole row.
    pub wide: Option<bool>,
    /// Matrix products of many tokens with a row of activations in each invocation.
    pub lanes: Option<bool>,
    /// Weights brought into the last-level cache ahead of generation's products.
    pub prefetch: Option<bool>,
    /// What lies between two layers' attention in one dispatch, when one token is generated.
    pub chain: Option<bool>,
    /// Weights sent as they lie in the file and laid out on the device.
    pub repack: Option<bool>,
    /// Weights laid out by the host in the device's memory.
    pub inplace: Option<bool>,
    /// Bounds checks and loop bounding in shaders; off unless asked for.
    pub checks: Option<bool>,
}

impl KernelOptions {
    /// Names of the options, as [`FromStr`] takes them.
    pub const NAMES: [&str; 11] = [
        "subgroups",
        "f16",
        "dp4a",
        "coop",
        "wide",
        "lanes",
        "prefetch",
        "chain",
        "repack",
        "inplace",
        "checks",
    ];

    /// The option of a name; `None` where there is no such option.
    pub fn get(&self, name: &str) -> Option<Option<bool>> {
        let mut copy = *self;
        copy.field(name).map(|field| *field)
    }

    /// The option of a name, to be set; `None` where there is no such option.
    pub fn field(&mut self, name: &str) -> Option<&mut Option<bool>> {
        Some(match name {
            "subgroups" => &mut self.subgroups,
            "f16" => &mut self.f16,
            "dp4a" => &mut self.dp4a,
            "coop" => &mut self.coop,
            "wide" => &mut self.wide,
            "lanes" => &mut self.lanes,
            "prefetch" => &mut self.prefetch,
            "chain" => &mut self.chain,
            "repack" => &mut self.repack,
            "inplace" => &mut self.inplace,
            "checks" => &mut self.checks,
            _ => return None,
        })
    }
}

/// What [`KernelOptions`]'s `FromStr` reads: the options that are set, or nothing.
impl fmt::Display for KernelOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let set = Self::NAMES.iter().filter_map(|name| Some((name, self.get(name)??)));
        let parts: Vec<_> =
            set.map(|(name, on)| format!("{name}={}", if on { "on" } else { "off" })).collect();
        f.write_str(&parts.join(","))
    }
}

impl FromStr for KernelOptions {
    type Err = String;

    /// `subgroups=off,f16=off,dp4a=on,coop=off,wide=off,lanes=off,prefetch=off,chain=on,repack=off,inplace=off,checks=on`,
    /// in any order, any part of it.
    fn from_str(text: &str) -> Result<Self, String> {
        let mut options = KernelOptions::default();
        for part in text.split(',').filter(|part| !part.is_empty()) {
            let (name, value) =
                part.split_once('=').ok_or_else(|| format!("{part}: want NAME=on or NAME=off"))?;
            let value = match value {
                "on" => true,
                "off" => false,
                _ => return Err(format!("{part}: want {name}=on or {name}=off")),
            };
            let unknown = || format!("{name}: no such kernel option ({})", Self::NAMES.join(", "));
            *options.field(name).ok_or_else(unknown)? = Some(value);
        }
        Ok(options)
    }
}
