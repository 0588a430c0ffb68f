//! The kinds of backends.

/// The backend that computes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum BackendKind {
    /// MLX on a Mac's GPU if it is built in, else the GPU. If there is only a software driver or no
    /// adapter, the CPU with a logged warning.
    #[default]
    Auto,
    Wgpu,
    Cpu,
    Mlx,
}
