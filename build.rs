//! Builds what the feature mlx needs; nothing without it.

#[cfg(feature = "mlx")]
#[path = "build/locate.rs"]
mod locate;
#[cfg(feature = "mlx")]
#[path = "build/mlx.rs"]
mod mlx;

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-changed=build");
    #[cfg(feature = "mlx")]
    if let Err(reason) = mlx::build() {
        // One line each, as cargo wants them.
        reason.lines().for_each(|line| println!("cargo::error={line}"));
    }
}
