/* The commands of longtake. Each returns a process exit code and prints its own errors. */
#pragma once

/*   name, function, one line of help; in the order --help shows them */
#define CLIENT_COMMAND_LIST(X)                                                                     \
    X("render", client_render, "render a job on this machine, on its own workers")                 \
    X("plan", client_plan, "show what a job will do, and run nothing")                             \
    X("keygen", client_keygen, "make a key pair for a farm on a network")

#define CLIENT_COMMAND_PROTOTYPE(name, function, summary) int function(int argc, char **argv);
CLIENT_COMMAND_LIST(CLIENT_COMMAND_PROTOTYPE)
#undef CLIENT_COMMAND_PROTOTYPE
