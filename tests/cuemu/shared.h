/* Shared memory of a block: the dynamic part, and the static arrays of its kernel. Kernels declare
 * those __shared__, which is `static` here; they are found in the program's symbol table, as local
 * variables of the kernel. (A section of their own would not do: compilers ignore the attribute in
 * templates.) All of it is 0xff (NaN) when a block begins; static arrays of device functions that
 * were not inlined away are recognised but not filled. */
#pragma once

#include <cstddef>
#include <vector>

namespace cuemu
{

struct memory_range {
    unsigned char *data;
    size_t bytes;
};

struct kernel_symbol {
    const char *name;                        /* readable; "?" when the program was stripped */
    std::vector<memory_range> static_arrays; /* of __shared__ */
    size_t static_bytes;
};
/* Looked up once a kernel; lives for ever. */
const kernel_symbol &kernel_find(const void *kernel);

struct shared_buffer {
    const kernel_symbol *kernel;
    void *data; /* ends at a guard page; with address sanitizers it is a heap block */
    size_t bytes;
    void *map;
    size_t map_bytes;
};

shared_buffer shared_create(const kernel_symbol *kernel, size_t bytes);
void shared_destroy(shared_buffer &buffer);
void shared_poison(const shared_buffer &buffer);
bool shared_contains(const shared_buffer &buffer, const void *at, size_t bytes);

} // namespace cuemu
