//! The repository's own text: which room may use which, no circles, no long lines or files.

mod circles;
mod paths;
mod rooms;
mod sizes;
