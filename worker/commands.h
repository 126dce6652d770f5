/* The commands of longtake-worker. Each returns a process exit code and prints its own errors. */
#pragma once

/*   name, function, one line of help; in the order --help shows them */
#define WORKER_COMMAND_LIST(X)                                                                     \
    X("run", worker_run, "connect to a coordinator and compute its tasks")                         \
    X("inspect", worker_inspect, "tell what a model file is, and what is wrong with it")           \
    X("memory", worker_memory, "add up what a model takes, and choose what is streamed")           \
    X("synth", worker_synth, "write a model file with real shapes and random weights")             \
    X("eval", worker_eval, "run one component once, on tensors from a file")                       \
    X("selftest", worker_selftest, "hold this machine's kernels and copies to the reference")      \
    X("bench-load", worker_bench_load, "time loading a model file beside a plain read of it")

#define WORKER_COMMAND_PROTOTYPE(name, function, summary) int function(int argc, char **argv);
WORKER_COMMAND_LIST(WORKER_COMMAND_PROTOTYPE)
#undef WORKER_COMMAND_PROTOTYPE
