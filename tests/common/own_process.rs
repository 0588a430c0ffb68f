//! Tests of counters that belong to the whole process.

use std::{env, process::Command};

/// Set in the process that runs a single test.
const ALONE: &str = "GEMMA4_WGPU_TEST_ALONE";

/// Runs `test` in a process in which no other test runs. `name` is the test's full name.
pub fn in_own_process(name: &str, test: impl FnOnce()) {
    if env::var_os(ALONE).is_some() {
        return test();
    }
    let program = env::current_exe().unwrap();
    let mut command = Command::new(program);
    let output = command.args(["--exact", name, "--nocapture"]).env(ALONE, "1").output().unwrap();
    let [stdout, stderr] =
        [&output.stdout, &output.stderr].map(|bytes| String::from_utf8_lossy(bytes));
    let passed = output.status.success() && stdout.contains("1 passed");
    assert!(passed, "{name} in its own process: {}\n{stdout}{stderr}", output.status);
}
