use std::process::ExitCode;

fn main() -> ExitCode {
    silence_device_select();
    gemma4_wgpu::cli::main()
}

/// Mesa's device-select layer looks for a desktop session. Without one it prints its own error
/// several times.
fn silence_device_select() {
    if cfg!(target_os = "linux") && std::env::var_os("XDG_RUNTIME_DIR").is_none() {
        // SAFETY: no other thread runs yet that could read the environment.
        unsafe { std::env::set_var("NODEVICE_SELECT", "1") };
    }
}
