//! The kernel options: the choices of a [`KernelTarget`](crate::gpu::KernelTarget) that can be
//! switched, in one table. Parsing, help, docs and the search of `--autotune` are derived from it.

use std::{fmt, str::FromStr};

use crate::error::{Error, Result};
use crate::gpu::device::adapter::{AdapterFacts, Coop};

const VENDOR_NVIDIA: u32 = 0x10de;

/// An option of `--kernels`.
pub struct KernelOption {
    pub name: &'static str,
    /// The effect of switching it on.
    pub help: &'static str,
    rule: Rule,
    field: fn(&mut KernelOptions) -> &mut Option<bool>,
}

type Decide<T> = fn(&Given<'_>) -> T;

/// The rule that decides an option.
struct Rule {
    /// When it is on unless the user sets it, in words and by the facts. `None`: a measurement
    /// decides when the device is opened.
    default: (&'static str, Decide<Option<bool>>),
    /// The features that it needs.
    needs: Option<(&'static str, Decide<bool>)>,
    /// Its place in the search of `--autotune`. `None` if the search does not try it.
    search: Option<u8>,
    /// An earlier name, which is now an error.
    formerly: Option<&'static str>,
}

/// The facts on which a [`Rule`] may depend.
struct Given<'a> {
    facts: &'a AdapterFacts,
    /// The options that the user set.
    asked: &'a KernelOptions,
    /// The decided options, which come earlier in the table.
    chosen: &'a KernelOptions,
}

impl Given<'_> {
    fn coop(&self) -> Option<Coop> {
        let has_types = self.chosen.subgroups == Some(true) && self.chosen.f16 == Some(true);
        self.facts.coop_kernels().filter(|_| has_types)
    }

    /// Whether 16 × 16 matrices are used, which only large cards have.
    fn is_large(&self) -> bool {
        self.chosen.coop == Some(true) && self.coop() == Some(Coop::Sixteen)
    }

    /// The size of all subgroups.
    fn subgroup_size(&self) -> Option<u32> {
        self.facts.subgroup_size().filter(|_| self.chosen.subgroups == Some(true))
    }

    fn is_discrete(&self) -> bool {
        self.facts.device_type == "discrete GPU"
    }
}

macro_rules! kernel_options {
    ($($(#[doc = $help:literal])+ $name:ident: $rule:expr,)+) => {
        /// Values of the [`KERNEL_OPTIONS`]; `None` leaves the choice to the adapter's facts.
        #[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
        pub struct KernelOptions {
            $($(#[doc = $help])+ pub $name: Option<bool>,)+
        }

        /// All options, in the order in which they are decided.
        pub const KERNEL_OPTIONS: &[KernelOption] = &[$(KernelOption {
            name: stringify!($name),
            help: concat!($($help),+),
            rule: $rule,
            field: |options| &mut options.$name,
        }),+];

        impl KernelOptions {
            /// No option is set.
            pub const UNSET: KernelOptions = KernelOptions { $($name: None),+ };
            /// Every option is off: the plainest kernels.
            pub const OFF: KernelOptions = KernelOptions { $($name: Some(false)),+ };
        }
    };
}

kernel_options! {
    /// Subgroup operations in place of workgroup memory
    subgroups: Rule {
        default: ("on", |_| Some(true)),
        needs: Some(("subgroup operations", |given| given.facts.subgroups)),
        search: Some(1),
        formerly: None,
    },
    /// Tiles of matrix products with int weights in f16 instead of f32
    f16: Rule {
        // Software drivers convert every f16 in several instructions.
        default: ("on except in software", |given| Some(!given.facts.is_software())),
        needs: Some(("16-bit floats", |given| given.facts.shader_f16)),
        search: Some(3),
        formerly: None,
    },
    /// Activations in int8 for matrix-vector products of int weights
    dp4a: Rule {
        // With this driver it is one instruction, elsewhere several.
        default: ("on with NVIDIA's Vulkan driver", |given| {
            Some(given.facts.vendor == VENDOR_NVIDIA && given.facts.api == "vulkan")
        }),
        needs: None,
        search: Some(4),
        formerly: None,
    },
    /// Cooperative matrices for products and attention of many tokens
    coop: Rule {
        default: ("on", |_| Some(true)),
        needs: Some((
            "cooperative matrices with subgroups and f16",
            |given| given.coop().is_some(),
        )),
        search: Some(2),
        formerly: None,
    },
    /// Cooperative matrices for products of 9 to 64 tokens, which read weights once
    coop_batch: Rule {
        default: ("on", |_| Some(true)),
        needs: Some(("cooperative matrices of 16 x 16", |given| given.is_large())),
        search: Some(9),
        formerly: None,
    },
    /// With dp4a, int8 products of 3 to 8 tokens in place of coop_batch's
    int8_batch: Rule {
        default: ("on", |_| Some(true)),
        needs: None,
        search: Some(10),
        formerly: None,
    },
    /// Workgroups of 1024 where one workgroup has a whole row
    large_workgroups: Rule {
        // On a large device with few rows, the time is the latency of each row's workgroup.
        default: ("on for discrete cards", |given| Some(given.is_discrete())),
        needs: Some(("workgroups of 1024 with 32 KiB", |given| {
            given.facts.max_workgroup_invocations >= 1024
                && given.facts.max_workgroup_bytes >= 32 << 10
        })),
        search: Some(5),
        formerly: Some("wide"),
    },
    /// A row of activations in each invocation for matrix products of many tokens
    row_per_invocation: Rule {
        // A subgroup is a processor's vector register. With four lanes, tiles in workgroup memory
        // are as fast.
        default: ("on in software with subgroups of 8 or more", |given| {
            Some(given.facts.is_software() && given.subgroup_size() >= Some(8))
        }),
        needs: Some(("subgroups of one size, 4 or more", |given| {
            given.subgroup_size().is_some_and(|size| size >= 4 && size.is_power_of_two())
        })),
        search: Some(6),
        formerly: Some("lanes"),
    },
    /// Weights read into the cache while kernels run that leave the memory idle
    prefetch: Rule {
        default: ("measured for cards with matrices of 16 x 16", |given| {
            (!given.is_large()).then_some(false)
        }),
        needs: None,
        search: Some(7),
        formerly: None,
    },
    /// One dispatch between two layers' attention when one token is generated
    persistent: Rule {
        // It is only known to be faster there.
        default: ("on for NVIDIA's cards with dp4a and matrices of 16 x 16", |given| {
            let is_card = given.facts.vendor == VENDOR_NVIDIA && given.is_discrete();
            Some(is_card && given.is_large() && given.chosen.dp4a == Some(true))
        }),
        needs: Some(("coherent buffers", |given| given.facts.coherent)),
        search: Some(8),
        formerly: Some("chain"),
    },
    /// Weights laid out by the host in mapped memory of the device
    inplace: Rule {
        // If the user asks for another way to load weights, it is off.
        default: ("on where memory is shared with the host", |given| {
            Some(given.facts.unified_memory && given.asked.repack.is_none())
        }),
        needs: Some(("storage buffers that can be mapped", |given| given.facts.mappable_storage)),
        search: None,
        formerly: None,
    },
    /// Weights sent as the file has them, and laid out on the device
    repack: Rule {
        // In browsers files pass through memory anyway.
        default: ("on without inplace, except in browsers", |given| {
            Some(given.chosen.inplace == Some(false) && !cfg!(target_arch = "wasm32"))
        }),
        needs: None,
        search: None,
        formerly: None,
    },
    /// Bounds checks and loop bounding in shaders
    checks: Rule {
        default: ("off", |_| Some(false)),
        needs: None,
        search: None,
        formerly: None,
    },
}

impl KernelOption {
    /// The option of this name. The error lists all names.
    fn named(name: &str) -> Result<&'static KernelOption, String> {
        if let Some(option) = KERNEL_OPTIONS.iter().find(|option| option.name == name) {
            return Ok(option);
        }
        Err(match KERNEL_OPTIONS.iter().find(|option| option.rule.formerly == Some(name)) {
            Some(option) => format!("{name} is now called {}", option.name),
            None => format!("no kernel option {name}; there are {}", KernelOptions::names()),
        })
    }

    /// Options that `--autotune` tries, in its order.
    pub fn search_order() -> Vec<&'static KernelOption> {
        let mut order: Vec<_> =
            KERNEL_OPTIONS.iter().filter(|option| option.rule.search.is_some()).collect();
        order.sort_by_key(|option| option.rule.search);
        order
    }

    /// The option's value in `options`.
    pub fn get(&self, options: &KernelOptions) -> Option<bool> {
        let mut copy = *options;
        *(self.field)(&mut copy)
    }

    pub fn set(&self, options: &mut KernelOptions, value: Option<bool>) {
        *(self.field)(options) = value;
    }

    /// Errors if the user asked for it and the adapter lacks what it needs.
    fn decide(&self, given: &Given<'_>) -> Result<Option<bool>> {
        let lacks = self.rule.needs.filter(|(_, has)| !has(given)).map(|(what, _)| what);
        match (self.get(given.asked), lacks) {
            (Some(true), Some(what)) => {
                // What the user switched off may be the reason.
                let is_off = |option: &&KernelOption| option.get(given.asked) == Some(false);
                let off = KERNEL_OPTIONS.iter().filter(is_off);
                let off: String = off.map(|option| format!(" with {}=off", option.name)).collect();
                let reason = format!("{}{off} has no {what}", given.facts);
                Err(Error::Device(format!("{reason}: leave out {}=on", self.name)))
            }
            (None, Some(_)) => Ok(Some(false)),
            (None, None) => Ok(self.rule.default.1(given)),
            (asked, _) => Ok(asked),
        }
    }
}

impl KernelOptions {
    /// Decides all options, from the user's choices or an adapter's facts. Options that a
    /// measurement decides remain `None`.
    ///
    /// Errors: an option is asked for that the adapter cannot follow; two that exclude each other.
    pub fn resolve(&self, facts: &AdapterFacts) -> Result<KernelOptions> {
        if self.repack == Some(true) && self.inplace == Some(true) {
            return Err(Error::Input("repack=on and inplace=on exclude each other".into()));
        }
        let mut chosen = KernelOptions::UNSET;
        for option in KERNEL_OPTIONS {
            let value = option.decide(&Given { facts, asked: self, chosen: &chosen })?;
            option.set(&mut chosen, value);
        }
        Ok(chosen)
    }

    fn names() -> String {
        KERNEL_OPTIONS.iter().map(|option| option.name).collect::<Vec<_>>().join(", ")
    }

    /// A line of help on `--kernels`.
    pub fn usage() -> String {
        format!(
            "Kernel options to switch, as NAME=on or NAME=off with commas between: {}. \
             `devices --help` explains them",
            Self::names()
        )
    }

    /// The effect of each option, in a paragraph each.
    pub fn help() -> String {
        let mut text = String::from("Kernel options (--kernels NAME=on|off,…):\n");
        for KernelOption { name, help, rule, .. } in KERNEL_OPTIONS {
            text += &format!("  {name:<20}{}\n", help.trim());
            text += &format!("{:22}default: {}\n", "", rule.default.0);
            if let Some((what, _)) = rule.needs {
                text += &format!("{:22}needs: {what}\n", "");
            }
        }
        text
    }

    /// The rows of docs/kernel-options.md.
    #[cfg(test)]
    fn markdown() -> String {
        let row = |KernelOption { name, help, rule, .. }: &KernelOption| {
            let needs = rule.needs.map_or("", |(what, _)| what);
            let search = rule.search.map_or(String::new(), |place| place.to_string());
            format!("| `{name}` | {} | {} | {needs} | {search} |\n", help.trim(), rule.default.0)
        };
        KERNEL_OPTIONS.iter().map(row).collect()
    }
}

/// The text that [`KernelOptions`]'s `FromStr` reads: the options that are set, or nothing.
impl fmt::Display for KernelOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let set = KERNEL_OPTIONS.iter().filter_map(|option| Some((option.name, option.get(self)?)));
        let parts: Vec<_> =
            set.map(|(name, on)| format!("{name}={}", if on { "on" } else { "off" })).collect();
        f.write_str(&parts.join(","))
    }
}

impl FromStr for KernelOptions {
    type Err = String;

    /// `f16=off,checks=on`: any of the [`KERNEL_OPTIONS`], in any order.
    fn from_str(text: &str) -> Result<Self, String> {
        let mut options = KernelOptions::UNSET;
        for part in text.split(',').filter(|part| !part.is_empty()) {
            let (name, value) =
                part.split_once('=').ok_or_else(|| format!("{part}: want NAME=on or NAME=off"))?;
            let option = KernelOption::named(name)?;
            let value = match value {
                "on" => true,
                "off" => false,
                _ => return Err(format!("{part}: want {name}=on or {name}=off")),
            };
            option.set(&mut options, Some(value));
        }
        Ok(options)
    }
}

#[cfg(test)]
mod tests;
