//! Which backend runs a model.

/// What computes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum BackendKind {
    /// MLX on a Mac's GPU if it is built in, else the GPU, or the CPU with a logged warning where
    /// there is none but a software driver.
    #[default]
    Auto,
    Wgpu,
    Cpu,
    Mlx,
}
