//! The source of a kernel: WGSL text and the buffers that it binds.

use crate::error::{Error, Result};

/// How a kernel uses a buffer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Access {
    Read,
    ReadWrite,
    Uniform,
}

/// A buffer of a kernel, as its WGSL declares it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Binding {
    pub name: &'static str,
    pub access: Access,
    /// The WGSL file and line of the declaration.
    pub file: &'static str,
    pub line: usize,
}

/// A kernel's complete WGSL, entry point `main`, and its bindings in group 0: binding n is entry n.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct KernelSource {
    pub name: &'static str,
    /// The WGSL file of the kernel itself.
    pub file: &'static str,
    pub wgsl: String,
    pub bindings: Vec<Binding>,
}

impl KernelSource {
    /// Sorts buffers that are given by name into the order of the bindings.
    ///
    /// Errors: a name that the kernel lacks, a binding that is left out or given twice.
    pub fn in_order<T: Copy>(&self, buffers: &[(&str, T)]) -> Result<Vec<T>> {
        let is_known = |name: &str| self.bindings.iter().any(|binding| binding.name == name);
        if let Some((name, _)) = buffers.iter().find(|(name, _)| !is_known(name)) {
            return Err(Error::Device(format!("{} has no binding {name}", self.file)));
        }
        let buffer = |binding: &Binding| {
            let mut named = buffers.iter().filter(|(name, _)| *name == binding.name);
            match (named.next(), named.next()) {
                (Some((_, buffer)), None) => Ok(*buffer),
                (first, _) => {
                    let fault = if first.is_some() { "bound twice" } else { "left out" };
                    let Binding { name, file, line, .. } = binding;
                    Err(Error::Device(format!("{file}:{line}: binding {name} is {fault}")))
                }
            }
        };
        self.bindings.iter().map(buffer).collect()
    }
}

/// What distinguishes a kernel from others of its name, and the work that it does.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Cost {
    pub detail: String,
    /// Bytes of weights that it reads.
    pub weight_bytes: u64,
    /// Multiplications by weights for one row of activations.
    pub multiplications_per_row: u64,
}

#[cfg(test)]
mod tests {
    use super::*;

    const FILE: &str = "shaders/linear/copy.wgsl";

    fn source() -> KernelSource {
        let binding = |(line, name)| Binding { name, access: Access::Read, file: FILE, line };
        KernelSource {
            name: "copy",
            file: FILE,
            wgsl: String::new(),
            bindings: [(4, "x"), (5, "y")].map(binding).into(),
        }
    }

    #[test]
    fn buffers_come_in_the_order_of_the_bindings() {
        assert_eq!(source().in_order(&[("y", 2), ("x", 1)]).unwrap(), [1, 2]);
    }

    #[test]
    fn bindings_that_do_not_fit_are_told_by_file_and_line() {
        for (buffers, expected) in [
            (vec![("x", 1), ("y", 2), ("z", 3)], "shaders/linear/copy.wgsl has no binding z"),
            (vec![("x", 1)], "shaders/linear/copy.wgsl:5: binding y is left out"),
            (
                vec![("x", 1), ("y", 2), ("x", 3)],
                "shaders/linear/copy.wgsl:4: binding x is bound twice",
            ),
        ] {
            let error = source().in_order(&buffers).unwrap_err().to_string();
            assert_eq!(error, format!("device: {expected}"));
        }
    }
}
