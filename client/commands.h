/* The commands of longtake. Each returns a process exit code and prints its own errors. */
#pragma once

/*   name, function, one line of help; in the order --help shows them */
#define CLIENT_COMMAND_LIST(X)                                                                     \
    X("render", client_render, "render a job on this machine, on its own workers")                 \
    X("plan", client_plan, "show what a job will do, and run nothing")                             \
    X("coordinator", client_coordinator, "run a farm's centre: workers and clients connect to it") \
    X("submit", client_submit, "give a job to a farm")                                             \
    X("watch", client_watch, "follow a job to its end")                                            \
    X("jobs", client_jobs, "list the jobs of a farm")                                              \
    X("show", client_show, "show one job")                                                         \
    X("cancel", client_cancel, "end a job")                                                        \
    X("get", client_get, "fetch the take of a job")                                                \
    X("workers", client_workers, "list the workers of a farm")                                     \
    X("keygen", client_keygen, "make a key pair for a farm on a network")

#define CLIENT_COMMAND_PROTOTYPE(name, function, summary) int function(int argc, char **argv);
CLIENT_COMMAND_LIST(CLIENT_COMMAND_PROTOTYPE)
#undef CLIENT_COMMAND_PROTOTYPE
