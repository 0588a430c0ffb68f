// A barrier for all workgroups of a dispatch, which must run at the same time: no specification promises that, so waiting ends
// after a while, and the fault is kept for the host to see.

struct Sync {
    arrived: atomic<u32>, // zeroed before each step
    fault: atomic<u32>,
    sink: atomic<u32>,
}

// What others wrote before it, all see after it: storage barriers order memory for the whole device (naga's SPIR-V; nothing
// else runs this), and what is exchanged is coherent.
fn grid_barrier(local: u32) {
    storageBarrier();
    if local == 0u {
        let ticket = atomicAdd(&sync.arrived, 1u);
        let target_count = (ticket / WORKGROUPS + 1u) * WORKGROUPS;
        var spins = 0u;
        while atomicLoad(&sync.arrived) < target_count {
            spins++;
            if spins > MOST_SPINS || atomicLoad(&sync.fault) != 0u {
                atomicStore(&sync.fault, 1u);
                break;
            }
        }
    }
    storageBarrier();
}
