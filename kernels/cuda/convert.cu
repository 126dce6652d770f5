/* out = in converted, any stored type to f32, f16 or bf16.
 *
 *   bytes: the file's in (0.33 a value in Q2_K … 4 in F32) and 2 or 4 out, each once, in 16-byte
 *   accesses; about 10 integer operations a value. The roof is memory: [5120, 5120] in Q5_K to
 *   bf16 is 18.0 + 52.4 MB.
 *
 * Blocks of 18 to 210 bytes start on no boundary, but tiles of 2048 values do: a tile is brought to
 * shared memory as it lies in the file, then each thread makes eight neighbours of it. All types
 * have one form, value = step · q - low, in which step and low hold for sixteen neighbours or more;
 * layouts are those of kernels/quant_blocks.h. */
#include "kernels/cuda/convert.cuh"

enum { TILE = 2048, EACH = TILE / BLOCK };

static __device__ float half_at(const uint8_t *at)
{
    return half_of((uint16_t)(at[0] | at[1] << 8));
}

struct terms {
    float step, low;
};

/* Each type: VALUES of a block, BYTES of it; terms of the value j; q of the value j. */
struct q4_0 {
    enum { VALUES = 32, BYTES = 18 };
    static __device__ terms at(const uint8_t *b, int)
    {
        return {half_at(b), 0};
    }
    static __device__ float q(const uint8_t *b, int j)
    {
        return (float)((b[2 + j % 16] >> j / 16 * 4 & 15) - 8);
    }
};

struct q4_1 {
    enum { VALUES = 32, BYTES = 20 };
    static __device__ terms at(const uint8_t *b, int)
    {
        return {half_at(b), -half_at(b + 2)};
    }
    static __device__ float q(const uint8_t *b, int j)
    {
        return (float)(b[4 + j % 16] >> j / 16 * 4 & 15);
    }
};

/* A nibble with its fifth bit from 32 bits. */
static __device__ int five(const uint8_t *high, const uint8_t *nibbles, int j)
{
    return (nibbles[j % 16] >> j / 16 * 4 & 15) | (high[j / 8] >> j % 8 & 1) << 4;
}

struct q5_0 {
    enum { VALUES = 32, BYTES = 22 };
    static __device__ terms at(const uint8_t *b, int)
    {
        return {half_at(b), 0};
    }
    static __device__ float q(const uint8_t *b, int j)
    {
        return (float)(five(b + 2, b + 6, j) - 16);
    }
};

struct q5_1 {
    enum { VALUES = 32, BYTES = 24 };
    static __device__ terms at(const uint8_t *b, int)
    {
        return {half_at(b), -half_at(b + 2)};
    }
    static __device__ float q(const uint8_t *b, int j)
    {
        return (float)five(b + 4, b + 8, j);
    }
};

struct q8_0 {
    enum { VALUES = 32, BYTES = 34 };
    static __device__ terms at(const uint8_t *b, int)
    {
        return {half_at(b), 0};
    }
    static __device__ float q(const uint8_t *b, int j)
    {
        return (float)(int8_t)b[2 + j];
    }
};

/* Two bits of value j, in Q2_K and Q3_K: 32 bytes a half block, four values a byte. */
static __device__ int two_bits(const uint8_t *bits, int j)
{
    return bits[j / 128 * 32 + j % 32] >> j % 128 / 32 * 2 & 3;
}

struct q2_k {
    enum { VALUES = 256, BYTES = 84 };
    static __device__ terms at(const uint8_t *b, int j)
    {
        const int scale = b[j / 16];
        return {half_at(b + 80) * (float)(scale & 15), half_at(b + 82) * (float)(scale >> 4)};
    }
    static __device__ float q(const uint8_t *b, int j)
    {
        return (float)two_bits(b + 16, j);
    }
};

struct q3_k {
    enum { VALUES = 256, BYTES = 110 };
    static __device__ terms at(const uint8_t *b, int j)
    {
        const uint8_t *packed = b + 96;
        const int group = j / 16;
        const int low = group < 8 ? packed[group] & 15 : packed[group - 8] >> 4;
        const int high = packed[8 + group % 4] >> group / 4 * 2 & 3;
        return {half_at(b + 108) * (float)((low | high << 4) - 32), 0};
    }
    static __device__ float q(const uint8_t *b, int j)
    {
        return (float)(two_bits(b + 32, j) + (b[j % 32] >> j / 32 & 1) * 4 - 4);
    }
};

/* The eight 6-bit (scale, min) pairs of Q4_K and Q5_K, times d and dmin. */
static __device__ terms k_terms(const uint8_t *b, int group)
{
    const uint8_t *packed = b + 4;
    int scale, min;
    if (group < 4) {
        scale = packed[group] & 63;
        min = packed[group + 4] & 63;
    } else {
        scale = (packed[group + 4] & 15) | packed[group - 4] >> 6 << 4;
        min = packed[group + 4] >> 4 | packed[group] >> 6 << 4;
    }
    return {half_at(b) * (float)scale, half_at(b + 2) * (float)min};
}

/* The nibble of value j: 32 bytes hold the low halves of one group and the high of the next. */
static __device__ int nibble(const uint8_t *nibbles, int j)
{
    return nibbles[j / 64 * 32 + j % 32] >> j / 32 % 2 * 4 & 15;
}

struct q4_k {
    enum { VALUES = 256, BYTES = 144 };
    static __device__ terms at(const uint8_t *b, int j)
    {
        return k_terms(b, j / 32);
    }
    static __device__ float q(const uint8_t *b, int j)
    {
        return (float)nibble(b + 16, j);
    }
};

struct q5_k {
    enum { VALUES = 256, BYTES = 176 };
    static __device__ terms at(const uint8_t *b, int j)
    {
        return k_terms(b, j / 32);
    }
    static __device__ float q(const uint8_t *b, int j)
    {
        return (float)(nibble(b + 48, j) | (b[16 + j % 32] >> j / 32 & 1) << 4);
    }
};

struct q6_k {
    enum { VALUES = 256, BYTES = 210 };
    static __device__ terms at(const uint8_t *b, int j)
    {
        return {half_at(b + 208) * (float)(int8_t)b[192 + j / 16], 0};
    }
    static __device__ float q(const uint8_t *b, int j)
    {
        const int side = j / 128, quarter = j % 128 / 32;
        const int low = b[side * 64 + quarter % 2 * 32 + j % 32] >> quarter / 2 * 4 & 15;
        const int high = b[128 + side * 32 + j % 32] >> quarter * 2 & 3;
        return (float)(low + high * 16 - 32);
    }
};

template <int type, int bytes> struct plain {
    enum { VALUES = 1, BYTES = bytes };
    static __device__ terms at(const uint8_t *, int)
    {
        return {1, 0};
    }
    static __device__ float q(const uint8_t *b, int)
    {
        return value_at((enum lt_type)type, b, 0);
    }
};

/* `bytes` of a tile, whole 16 where the file lies on such a boundary. */
static __device__ void bring(uint8_t *tile, const uint8_t *from, int bytes)
{
    const int whole = (uintptr_t)from % 16 == 0 ? bytes / 16 : 0;
#pragma unroll 1 /* one round for most types: registers are dearer */
    for (int i = (int)threadIdx.x; i < whole; i += BLOCK)
        ((uint4 *)tile)[i] = load_stream_16(from + 16 * (size_t)i);
#pragma unroll 1
    for (int i = whole * 16 + (int)threadIdx.x; i < bytes; i += BLOCK)
        tile[i] = from[i];
}

static __device__ uint32_t half_pair(float low, float high)
{
    return to_half(low) | (uint32_t)to_half(high) << 16;
}

static __device__ __forceinline__ void put_eight(enum lt_type type, void *out, int64_t i,
                                                 const float (&v)[EACH])
{
    if (type == LT_TYPE_F32) {
        float4 *to = (float4 *)((float *)out + i);
        to[0] = make_float4(v[0], v[1], v[2], v[3]);
        to[1] = make_float4(v[4], v[5], v[6], v[7]);
    } else if (type == LT_TYPE_BF16) {
        *(uint4 *)((uint16_t *)out + i) = make_uint4(pack_bf16(v[0], v[1]), pack_bf16(v[2], v[3]),
                                                     pack_bf16(v[4], v[5]), pack_bf16(v[6], v[7]));
    } else {
        *(uint4 *)((uint16_t *)out + i) = make_uint4(half_pair(v[0], v[1]), half_pair(v[2], v[3]),
                                                     half_pair(v[4], v[5]), half_pair(v[6], v[7]));
    }
}

/* The last values of a count that is no multiple of eight: of plain types only. */
template <typename T>
static __device__ void put_tail(enum lt_type type, void *out, int64_t i, const uint8_t *from,
                                int count)
{
    for (int j = 0; j < count; j++, from += T::BYTES)
        if (type == LT_TYPE_F16)
            ((uint16_t *)out)[i + j] = to_half(T::q(from, 0));
        else
            put_value(type, out, i + j, T::q(from, 0));
}

/* One tile a block. */
template <typename T>
static __global__ void __launch_bounds__(BLOCK)
    convert_tiles(const uint8_t *in, enum lt_type type, void *out, int64_t count)
{
    __shared__ __align__(16) uint8_t tile[TILE / T::VALUES * T::BYTES];
    const int64_t first = (int64_t)blockIdx.x * TILE;
    const int values = count - first < TILE ? (int)(count - first) : TILE;
    bring(tile, in + first / T::VALUES * T::BYTES, values / T::VALUES * T::BYTES);
    __syncthreads();
    const int start = (int)threadIdx.x * EACH, have = values - start < EACH ? values - start : EACH;
    if (have <= 0)
        return;
    /* Whole blocks of 32 or 256: eight neighbours are of one. */
    const uint8_t *block = tile + start / T::VALUES * T::BYTES;
    if (T::VALUES == 1 && have < EACH) {
        put_tail<T>(type, out, first + start, block, have);
        return;
    }
    const terms t = T::at(block, start % T::VALUES);
    float v[EACH];
#pragma unroll
    for (int i = 0; i < EACH; i++)
        v[i] = T::VALUES == 1 ? T::q(block + i * T::BYTES, 0)
                              : t.step * T::q(block, start % T::VALUES + i) - t.low;
    put_eight(type, out, first + start, v);
}

typedef void convert_kernel(const uint8_t *in, enum lt_type type, void *out, int64_t count);

/* NULL for integer types. */
static convert_kernel *convert_pick(enum lt_type type)
{
    switch (type) {
    case LT_TYPE_F32:
        return convert_tiles<plain<LT_TYPE_F32, 4>>;
    case LT_TYPE_F16:
        return convert_tiles<plain<LT_TYPE_F16, 2>>;
    case LT_TYPE_BF16:
        return convert_tiles<plain<LT_TYPE_BF16, 2>>;
    case LT_TYPE_F8_E4M3:
        return convert_tiles<plain<LT_TYPE_F8_E4M3, 1>>;
    case LT_TYPE_F8_E5M2:
        return convert_tiles<plain<LT_TYPE_F8_E5M2, 1>>;
    case LT_TYPE_Q4_0:
        return convert_tiles<q4_0>;
    case LT_TYPE_Q4_1:
        return convert_tiles<q4_1>;
    case LT_TYPE_Q5_0:
        return convert_tiles<q5_0>;
    case LT_TYPE_Q5_1:
        return convert_tiles<q5_1>;
    case LT_TYPE_Q8_0:
        return convert_tiles<q8_0>;
    case LT_TYPE_Q2_K:
        return convert_tiles<q2_k>;
    case LT_TYPE_Q3_K:
        return convert_tiles<q3_k>;
    case LT_TYPE_Q4_K:
        return convert_tiles<q4_k>;
    case LT_TYPE_Q5_K:
        return convert_tiles<q5_k>;
    case LT_TYPE_Q6_K:
        return convert_tiles<q6_k>;
    default:
        return NULL;
    }
}

lt_status convert_values(const struct lt_exec_cuda *cuda, const char *op, enum lt_type in_type,
                         const void *in, enum lt_type out_type, void *out, int64_t count,
                         struct lt_error *error)
{
    convert_kernel *kernel = convert_pick(in_type);
    if (!kernel)
        return lt_fail(error, LT_UNSUPPORTED, "op %s: no values of type %s on CUDA", op,
                       lt_type_info(in_type)->name);
    if (count == 0)
        return LT_OK;
    TRY_CUDA(error, op,
             launch(kernel, dim3((unsigned)parts_of(count, TILE)), dim3(BLOCK), 0, cuda->stream,
                    (const uint8_t *)in, out_type, out, count));
    return LT_OK;
}

lt_status cuda_convert(struct lt_exec *exec, const struct lt_convert_args *args,
                       struct lt_error *error)
{
    const struct lt_exec_cuda *cuda = lt_exec_cuda_of(exec);
    LT_TRY(convert_values(cuda, "convert", args->in.type, args->in.data, args->out.type,
                          args->out.data, lt_view_count(&args->in), error));
    return op_end(cuda, "convert", cudaSuccess, error);
}
