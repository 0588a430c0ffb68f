//! The choice of an adapter by its facts.

use std::path::PathBuf;

use crate::error::{Error, Result};
use crate::gpu::device::adapter::{AdapterFacts, enumerate};
use crate::gpu::device::kernel_options::KernelOptions;

const NO_ADAPTER: &str = match cfg!(target_arch = "wasm32") {
    true => "no adapter: the browser's WebGPU has no graphics card to offer",
    false => "no adapter: install a Vulkan driver, or use --backend cpu",
};

/// Which device to open, and how.
#[derive(Debug, Clone, Default)]
pub struct DeviceOptions {
    /// The adapter, see [`select`]; the most capable one if `None`.
    pub adapter: Option<String>,
    pub kernels: KernelOptions,
    /// The smallest and the largest subgroup size in a browser that opens devices with subgroups.
    /// wgpu cannot ask the browser for them (web/js/device.ts).
    pub browser_subgroups: Option<[u32; 2]>,
    /// Directory that keeps compiled pipelines, so that the next start need not compile them again.
    /// `None` keeps none. Only Vulkan supports it in wgpu.
    pub pipeline_cache: Option<PathBuf>,
}

/// The index of the adapter that `wanted` names, or of the most capable one.
///
/// A number is an adapter's place, never a part of its name. Other text is a PCI bus id, a name or
/// a part of a name. The bus id `0000:3b:00.0` may lack its domain and function. Case does not
/// matter. A device that several APIs or drivers offer counts once, as the first of them.
///
/// Errors: no adapters ([`Error::NoAdapter`]), none that matches, or several; the message lists
/// them.
pub fn select(adapters: &[AdapterFacts], wanted: Option<&str>) -> Result<usize> {
    let all: Vec<usize> = (0..adapters.len()).collect();
    let Some(best) = most_capable(adapters, &all) else {
        return Err(Error::NoAdapter(NO_ADAPTER.into()));
    };
    let Some(wanted) = wanted.map(str::trim) else { return Ok(best) };
    if !wanted.is_empty() && wanted.bytes().all(|byte| byte.is_ascii_digit()) {
        let place = wanted.parse().ok().filter(|&place| place < adapters.len());
        let listed = list(adapters, &all);
        return place.ok_or_else(|| {
            Error::Device(format!(
                "no adapter has the number {wanted}, and a number is no part of a name; \
                 there are {listed}"
            ))
        });
    }
    let meant = meant(adapters, wanted);
    let Some(best) = most_capable(adapters, &meant) else {
        return Err(Error::Device(format!(
            "no adapter matches {wanted:?}; there are {}",
            list(adapters, &all)
        )));
    };
    match meant
        .iter()
        .all(|&other| other == best || is_one_device(&adapters[best], &adapters[other]))
    {
        true => Ok(best),
        false => Err(Error::Device(format!(
            "adapter {wanted:?} may be any of {}: name one by its number or its PCI bus id",
            list(adapters, &meant)
        ))),
    }
}

/// The adapter that `wanted` names, or the most capable one. Errors: see [`select`].
pub(in crate::gpu) async fn find(
    instance: &wgpu::Instance,
    wanted: Option<&str>,
) -> Result<(AdapterFacts, wgpu::Adapter)> {
    let mut found = enumerate(instance).await;
    let facts: Vec<AdapterFacts> = found.iter().map(|(facts, _)| facts.clone()).collect();
    Ok(found.swap_remove(select(&facts, wanted)?))
}

/// Places of the adapters that match a text that is not a number.
fn meant(adapters: &[AdapterFacts], wanted: &str) -> Vec<usize> {
    let by = |fits: &dyn Fn(&AdapterFacts) -> bool| -> Vec<usize> {
        (0..adapters.len()).filter(|&place| fits(&adapters[place])).collect()
    };
    let lower = wanted.to_lowercase();
    if let Some(address) = PciAddress::parse(&lower) {
        return by(&|facts| address_of(facts).is_some_and(|own| address.names(&own)));
    }
    let whole = by(&|facts| facts.name.to_lowercase() == lower);
    match whole.is_empty() && !lower.is_empty() {
        true => by(&|facts| facts.name.to_lowercase().contains(&lower)),
        false => whole,
    }
}

/// The first adapter of the most capable kind among these places.
fn most_capable(adapters: &[AdapterFacts], places: &[usize]) -> Option<usize> {
    let rank = |facts: &AdapterFacts| match facts.device_type.as_str() {
        _ if facts.is_software() => 4,
        "discrete GPU" => 0,
        "integrated GPU" => 1,
        "virtual GPU" => 2,
        _ => 3,
    };
    places.iter().copied().min_by_key(|&place| rank(&adapters[place]))
}

/// Whether two adapters are the same device, offered by different APIs or drivers.
fn is_one_device(a: &AdapterFacts, b: &AdapterFacts) -> bool {
    match (address_of(a), address_of(b)) {
        // DirectX reports the address of the first card for all cards of one model.
        (Some(own), Some(other)) => own == other && (&a.api, &a.driver) != (&b.api, &b.driver),
        _ => a.api != b.api && a.name == b.name,
    }
}

/// The list of adapters for a message.
fn list(adapters: &[AdapterFacts], places: &[usize]) -> String {
    let describe = |&place: &usize| {
        let AdapterFacts { name, api, pci_bus_id, .. } = &adapters[place];
        let address = pci_bus_id.as_ref().map_or(String::new(), |id| format!(", PCI {id}"));
        format!("{place}: {name} ({api}{address})")
    };
    places.iter().map(describe).collect::<Vec<_>>().join(", ")
}

/// `domain:bus:device.function` in hexadecimal digits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct PciAddress {
    domain: Option<u32>,
    bus: u32,
    device: u32,
    function: Option<u32>,
}

impl PciAddress {
    /// Domain and function may be left out. A domain has four digits, or eight as nvidia-smi prints
    /// it.
    fn parse(text: &str) -> Option<Self> {
        let number = |digits: &str, most: usize| {
            let is_number = (1..=most).contains(&digits.len())
                && digits.bytes().all(|byte| byte.is_ascii_hexdigit());
            is_number.then(|| u32::from_str_radix(digits, 16).ok()).flatten()
        };
        let (text, function) = match text.split_once('.') {
            Some((text, function)) => (text, Some(number(function, 1)?)),
            None => (text, None),
        };
        let (bus, device) = text.rsplit_once(':')?;
        let (domain, bus) = match bus.split_once(':') {
            Some((domain, bus)) => (Some(number(domain, 8)?), bus),
            None => (None, bus),
        };
        Some(PciAddress { domain, bus: number(bus, 2)?, device: number(device, 2)?, function })
    }

    /// Whether this address, which may lack parts, matches `other`.
    fn names(&self, other: &PciAddress) -> bool {
        let agrees = |own: Option<u32>, other: Option<u32>| own.is_none() || own == other;
        (self.bus, self.device) == (other.bus, other.device)
            && agrees(self.domain, other.domain)
            && agrees(self.function, other.function)
    }
}

fn address_of(facts: &AdapterFacts) -> Option<PciAddress> {
    PciAddress::parse(facts.pci_bus_id.as_deref()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn adapter(name: &str, api: &str, device_type: &str, pci_bus_id: &str) -> AdapterFacts {
        AdapterFacts {
            name: name.into(),
            api: api.into(),
            device_type: device_type.into(),
            driver: format!("{api} driver"),
            pci_bus_id: Some(pci_bus_id.to_owned()).filter(|id| !id.is_empty()),
            ..AdapterFacts::example_card()
        }
    }

    fn card(name: &str, api: &str, pci_bus_id: &str) -> AdapterFacts {
        adapter(name, api, "discrete GPU", pci_bus_id)
    }

    fn lavapipe() -> AdapterFacts {
        adapter("llvmpipe (LLVM 15.0.6, 256 bits)", "vulkan", "CPU", "")
    }

    fn two_cards() -> Vec<AdapterFacts> {
        vec![
            lavapipe(),
            card("NVIDIA H200", "vulkan", "0000:3b:00.0"),
            card("NVIDIA H200", "vulkan", "0001:5e:00.0"),
        ]
    }

    fn fault(adapters: &[AdapterFacts], wanted: &str) -> String {
        select(adapters, Some(wanted)).unwrap_err().to_string()
    }

    #[test]
    fn a_number_is_a_place_and_nothing_else() {
        let cards = two_cards();
        for place in 0..3 {
            assert_eq!(select(&cards, Some(&place.to_string())).unwrap(), place);
        }
        // Also parts of both names, and of the software driver's name.
        for number in ["3", "200", "15", "18446744073709551616"] {
            let message = fault(&cards, number);
            assert!(message.contains(&format!("no adapter has the number {number}")), "{message}");
            assert!(
                message.contains("1: NVIDIA H200 (vulkan, PCI 0000:3b:00.0), 2: NVIDIA H200"),
                "{message}"
            );
        }
    }

    #[test]
    fn a_name_that_fits_several_is_an_error_that_lists_them() {
        let cards = two_cards();
        for name in ["NVIDIA H200", "nvidia h200", "H20"] {
            let message = fault(&cards, name);
            let listed = "1: NVIDIA H200 (vulkan, PCI 0000:3b:00.0), \
                          2: NVIDIA H200 (vulkan, PCI 0001:5e:00.0)";
            assert!(message.contains(listed) && message.contains("PCI bus id"), "{message}");
            assert!(!message.contains("llvmpipe"), "{message}");
        }
        assert_eq!(select(&cards, Some("LLVM")).unwrap(), 0);
        let unknown = [card("Twin", "metal", ""), card("Twin", "metal", "")];
        assert!(fault(&unknown, "twin").contains("0: Twin (metal), 1: Twin (metal)"));
    }

    #[test]
    fn what_matches_none_lists_what_there_is() {
        let cards = two_cards();
        for name in ["Voodoo2", "", "4f:00.0", "0001:3b:00.0", "3b:00.1"] {
            let message = fault(&cards, name);
            assert!(
                message.contains(&format!("no adapter matches {name:?}; there are 0: llvmpipe")),
                "{message}"
            );
        }
        for wanted in [None, Some("0"), Some("H200")] {
            assert!(
                select(&[], wanted).unwrap_err().to_string().starts_with("device: no adapter: ")
            );
        }
    }

    #[test]
    fn cards_are_told_apart_by_their_bus() {
        let mut cards = two_cards();
        for id in ["0000:3b:00.0", "0000:3B:00.0", "3b:00.0", "3b:00", "00000000:3B:00.0"] {
            assert_eq!(select(&cards, Some(id)).unwrap(), 1, "{id}");
        }
        assert_eq!(select(&cards, Some("5e:00.0")).unwrap(), 2);
        // Two domains have such a bus.
        cards[2].pci_bus_id = Some("0001:3b:00.0".into());
        assert!(fault(&cards, "3b:00.0").contains("may be any of 1: "));
        assert_eq!(select(&cards, Some("0001:3b:00.0")).unwrap(), 2);
    }

    #[test]
    fn a_whole_name_comes_before_a_part() {
        let cards = [
            card("Arc A770 LE", "vulkan", "0000:03:00.0"),
            card("Arc A770", "vulkan", "0000:04:00.0"),
        ];
        assert_eq!(select(&cards, Some("arc a770")).unwrap(), 1);
        assert!(fault(&cards, "a770").contains("may be any of"));
    }

    #[test]
    fn one_card_by_several_apis_is_one() {
        let name = "NVIDIA GeForce RTX 4090";
        let one = [card(name, "dx12", "0000:01:00.0"), card(name, "vulkan", "0000:01:00.0")];
        for wanted in ["rtx 4090", name, "01:00.0"] {
            assert_eq!(select(&one, Some(wanted)).unwrap(), 0, "{wanted}");
        }
        assert_eq!(select(&one, Some("1")).unwrap(), 1);
        // Two drivers of one API give it different names.
        let radeon = ["AMD Radeon RX 7900 XTX (RADV NAVI31)", "AMD Radeon RX 7900 XTX"];
        let [mut radv, amdvlk] = radeon.map(|name| card(name, "vulkan", "0000:03:00.0"));
        radv.driver = "radv".into();
        assert_eq!(select(&[radv, amdvlk], Some("rx 7900")).unwrap(), 0);
        // DirectX does not distinguish equal cards, so the choice is an error.
        let twins = [card(name, "dx12", "0000:01:00.0"), card(name, "dx12", "0000:01:00.0")];
        assert!(fault(&twins, "4090 ").contains("no adapter has the number 4090"));
        assert!(fault(&twins, "RTX").contains("may be any of 0: "));
        // Without addresses the name and the API decide.
        let unknown = [card("Intel Arc", "vulkan", ""), card("Intel Arc", "dx12", "")];
        assert_eq!(select(&unknown, Some("arc")).unwrap(), 0);
    }

    #[test]
    fn the_most_capable_is_taken_unasked() {
        let integrated = adapter("Iris", "vulkan", "integrated GPU", "0000:00:02.0");
        let warp = adapter("Microsoft Basic Render Driver", "dx12", "discrete GPU", "");
        let chosen = |adapters: &[AdapterFacts]| select(adapters, None).unwrap();
        assert_eq!(chosen(&two_cards()), 1);
        assert_eq!(chosen(&[lavapipe(), integrated.clone()]), 1);
        assert_eq!(chosen(&[integrated.clone(), card("H200", "vulkan", "")]), 1);
        assert_eq!(chosen(&[warp.clone(), integrated]), 1);
        assert_eq!(chosen(&[lavapipe(), warp]), 0);
    }
}
