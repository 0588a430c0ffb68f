// A barrier for all workgroups of a dispatch, which must run at the same time: no specification promises that, so waiting ends
// after a while, and the fault is kept for the host to see.

struct Sync {
    arrived: atomic<u32>, // zeroed before each step
    fault: atomic<u32>,
    seen: atomic<u32>,    // the most arrivals that who gave up had seen
}

// What others wrote before they arrived, all see after grid_wait: storage barriers order memory for the whole device (naga's
// SPIR-V; nothing else runs this), and what is exchanged is coherent.
fn grid_arrive(local: u32) {
    storageBarrier();
    if local == 0u {
        atomicAdd(&sync.arrived, 1u);
    }
}

// Waits for the step's first `barriers` barriers. The arrivals are told by that and not by one's own: who asks for these
// waits for memory once more.
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
                atomicMax(&sync.seen, atomicLoad(&sync.arrived));
                atomicStore(&sync.fault, 1u);
                break;
            }
        }
    }
    storageBarrier();
}
