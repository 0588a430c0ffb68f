// A barrier for all workgroups of a dispatch, which must run at the same time: no specification promises that, so waiting ends
// after a while, and the fault is kept for the host to see.

struct Sync {
    arrived: atomic<u32>, // zeroed before each step
    fault: atomic<u32>,
}

// What others wrote before they arrived, all see after grid_wait: storage barriers order memory for the whole device (naga's
// SPIR-V; nothing else runs this), and what is exchanged is coherent.
fn grid_arrive(local: u32) {
    storageBarrier();
    if local == 0u {
        atomicAdd(&sync.arrived, 1u);
    }
}

// Waits for the step's first `barriers` barriers. (To learn from one's own arrival how many there were would take
// another way to memory and back.)
fn grid_wait(barriers: u32, local: u32) {
    if local == 0u {
        var spins = 0u;
        while atomicLoad(&sync.arrived) < barriers * WORKGROUPS {
            spins++;
            // Seldom, for this waits for memory too.
            if spins % 64u == 0u && atomicLoad(&sync.fault) != 0u {
                break;
            }
            if spins > MOST_SPINS {
                atomicStore(&sync.fault, 1u);
                break;
            }
        }
    }
    storageBarrier();
}
