//! The repository's own text: allowed uses of modules, no circles, and no long lines or files.

mod circles;
mod paths;
mod rooms;
mod sizes;
