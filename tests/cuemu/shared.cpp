#include "cuemu/shared.h"

#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <cxxabi.h>
#include <elf.h>
#include <link.h>
#include <map>
#include <string>
#include <sys/mman.h>
#include <unistd.h>

namespace cuemu
{

/* -- the program's symbols --------------------------------------------------------------------- */

struct symbol {
    std::string name;
    uintptr_t at;
    size_t bytes;
};

static struct symbol_table {
    std::vector<symbol> functions, locals; /* locals: static variables of functions */
} &table = *new symbol_table;              /* never destroyed */

static std::vector<char> read_at(FILE *file, size_t offset, size_t bytes)
{
    std::vector<char> data(bytes);
    if (fseek(file, static_cast<long>(offset), SEEK_SET) != 0 ||
        fread(data.data(), 1, bytes, file) != bytes) {
        fprintf(stderr, "cuemu: cannot read the program's symbols\n");
        abort();
    }
    return data;
}

static uintptr_t load_address()
{
    uintptr_t base = 0;
    dl_iterate_phdr(
        [](dl_phdr_info *info, size_t, void *out) {
            *static_cast<uintptr_t *>(out) = info->dlpi_addr;
            return 1; /* the first is the program */
        },
        &base);
    return base;
}

static void take_symbol(const ElfW(Sym) & s, const char *name, uintptr_t base)
{
    const int type = ELF64_ST_TYPE(s.st_info);
    if (type == STT_FUNC && s.st_value)
        table.functions.push_back({name, base + s.st_value, s.st_size});
    else if (type == STT_OBJECT && strncmp(name, "_ZZ", 3) == 0)
        table.locals.push_back({name, base + s.st_value, s.st_size});
}

/* The symbol table is not loaded with the program, so it is read from its file. */
static void read_symbols()
{
    FILE *file = fopen("/proc/self/exe", "rb");
    if (!file) {
        perror("cuemu: /proc/self/exe");
        abort();
    }
    const uintptr_t base = load_address();
    ElfW(Ehdr) header;
    memcpy(&header, read_at(file, 0, sizeof header).data(), sizeof header);
    const std::vector<char> held =
        read_at(file, header.e_shoff, size_t{header.e_shnum} * sizeof(ElfW(Shdr)));
    const ElfW(Shdr) *sections = reinterpret_cast<const ElfW(Shdr) *>(held.data());
    for (unsigned i = 0; i < header.e_shnum; i++) {
        if (sections[i].sh_type != SHT_SYMTAB)
            continue;
        const ElfW(Shdr) &text = sections[sections[i].sh_link];
        const std::vector<char> names = read_at(file, text.sh_offset, text.sh_size);
        const std::vector<char> symbols = read_at(file, sections[i].sh_offset, sections[i].sh_size);
        const ElfW(Sym) *s = reinterpret_cast<const ElfW(Sym) *>(symbols.data());
        for (size_t j = 0; j < symbols.size() / sizeof *s; j++)
            take_symbol(s[j], &names[s[j].st_name], base);
    }
    fclose(file);
}

static std::string readable(const std::string &name)
{
    char *plain = abi::__cxa_demangle(name.c_str(), nullptr, nullptr, nullptr);
    const std::string text = plain ? plain : name;
    free(plain);
    return text;
}

static kernel_symbol *look_up(const void *kernel)
{
    kernel_symbol *found = new kernel_symbol{"?", {}, 0};
    if (table.functions.empty())
        read_symbols();
    for (const symbol &f : table.functions) {
        if (f.at != reinterpret_cast<uintptr_t>(kernel))
            continue;
        found->name = strdup(readable(f.name).c_str());
        /* _Z1kPf and its _ZZ1kPfE4tile, also within lambdas: _ZZZ1kPfENKUlvE_clEvE4tile */
        const std::string inner = f.name.compare(0, 2, "_Z") == 0 ? f.name.substr(2) + "E" : "";
        for (const symbol &l : table.locals) {
            const size_t start = l.name.find_first_not_of('Z', 1);
            if (inner.empty() || l.name.compare(start, inner.size(), inner) != 0)
                continue;
            found->static_arrays.push_back({reinterpret_cast<unsigned char *>(l.at), l.bytes});
            found->static_bytes += l.bytes;
        }
        break;
    }
    return found;
}

const kernel_symbol &kernel_find(const void *kernel)
{
    static auto &known = *new std::map<const void *, kernel_symbol *>;
    kernel_symbol *&k = known[kernel];
    if (!k)
        k = look_up(kernel);
    return *k;
}

/* -- the memory -------------------------------------------------------------------------------- */

/* Volatile, and thus no memset: the sanitizers shall not see it. */
static void fill(unsigned char *data, size_t bytes)
{
    size_t i = 0;
    for (; i < bytes && reinterpret_cast<uintptr_t>(data + i) % 8 != 0; i++)
        static_cast<volatile unsigned char *>(data)[i] = 0xff;
    for (; i + 8 <= bytes; i += 8)
        *reinterpret_cast<volatile uint64_t *>(data + i) = ~uint64_t{0};
    for (; i < bytes; i++)
        static_cast<volatile unsigned char *>(data)[i] = 0xff;
}

static bool contains(const void *data, size_t size, const void *at, size_t bytes)
{
    const uintptr_t begin = reinterpret_cast<uintptr_t>(data), a = reinterpret_cast<uintptr_t>(at);
    return a >= begin && a - begin <= size && size - (a - begin) >= bytes;
}

bool shared_contains(const shared_buffer &buffer, const void *at, size_t bytes)
{
    if (contains(buffer.data, buffer.bytes, at, bytes))
        return true;
    for (const symbol &l : table.locals)
        if (contains(reinterpret_cast<void *>(l.at), l.bytes, at, bytes))
            return true;
    return false;
}

shared_buffer shared_create(const kernel_symbol *kernel, size_t bytes)
{
    shared_buffer buffer = {kernel, nullptr, bytes, nullptr, 0};
    if (bytes == 0)
        return buffer;
#ifdef CUEMU_ASAN
    if (posix_memalign(&buffer.data, 128, bytes) != 0)
        abort();
#else
    const size_t held = (bytes + 15) & ~size_t{15};
    const size_t page = static_cast<size_t>(sysconf(_SC_PAGESIZE));
    buffer.map_bytes = (held + page - 1) / page * page + page;
    buffer.map =
        mmap(nullptr, buffer.map_bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (buffer.map == MAP_FAILED)
        abort();
    char *guard = static_cast<char *>(buffer.map) + buffer.map_bytes - page;
    mprotect(guard, page, PROT_NONE);
    buffer.data = guard - held;
#endif
    return buffer;
}

void shared_destroy(shared_buffer &buffer)
{
#ifdef CUEMU_ASAN
    free(buffer.data);
#else
    if (buffer.map)
        munmap(buffer.map, buffer.map_bytes);
#endif
    buffer = {};
}

void shared_poison(const shared_buffer &buffer)
{
    fill(static_cast<unsigned char *>(buffer.data), buffer.bytes);
    for (const memory_range &r : buffer.kernel->static_arrays)
        fill(r.data, r.bytes);
}

} // namespace cuemu
