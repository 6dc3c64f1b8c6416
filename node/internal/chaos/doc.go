// Command chaos runs real daemons under stress: killed, stopped for a while,
// cut off from each other, on lines that come and go, on full disks, with wrong
// clocks, and without those that began the run. Afterwards it checks what the
// protocol promises: one head, one history, no work lost beyond what a fault
// costs by itself, and an adapter that has learned. "scripts/chaos.sh" and
// "scripts/soak.sh" run it.
//
// Each daemon is a process in a network namespace of its own, with a link whose
// speed is limited by token buckets (tc tbf). The program expects to be alone in
// namespaces for mounts, processes and the network; the scripts see to that, and
// when it ends nothing of it is left.
package main
