// The functions of native/device.cuh on a CPU.
//
// Collective operations of a warp are written down from the tables of the PTX manual, element by element: they
// know nothing of how the kernels load their registers, so that a mistake there shows.

#pragma once

#include <cmath>
#include <cstring>

#include "native/host/block.h"

#define GOCOR_DEVICE inline
#define GOCOR_KERNEL(...) extern "C" void
#define GOCOR_LARGE_KERNEL(...) extern "C" void
#define GOCOR_SHARED(type, name, count) \
    type* const name = static_cast<type*>(::gocor::host::self().block->shared(#name, sizeof(type) * (count)))
#define GOCOR_UNROLL
#define GOCOR_NO_UNROLL
#define GOCOR_UNROLL_BY(count)

namespace gocor {

inline int thread_index() { return host::self().thread; }

inline Index3 block_index() {
    const host::Block& block = *host::self().block;
    return {block.x, block.y, block.z};
}

inline unsigned opaque(int value) { return static_cast<unsigned>(value); }

inline void sync_block() { host::self().block->barrier.wait(); }

inline void sync_warp() { host::self().warp().barrier.wait(); }

inline float to_float(half_t value) {
    _Float16 number;
    std::memcpy(&number, &value, sizeof number);
    return static_cast<float>(number);
}

inline half_t to_half(float value) {
    const auto number = static_cast<_Float16>(value);
    half_t result;
    std::memcpy(&result, &number, sizeof number);
    return result;
}

inline unsigned bits_of(float value) {
    unsigned result;
    std::memcpy(&result, &value, sizeof result);
    return result;
}

inline float float_of(unsigned bits) {
    float result;
    std::memcpy(&result, &bits, sizeof result);
    return result;
}

// cvt.rna: ties away from zero.
inline unsigned to_tf32(float value) { return (bits_of(value) + 0x1000U) & 0xffffe000U; }

inline float magnitude(float value) { return std::fabs(value); }

template <class T>
T load_aligned(const void* address) {
    host::check(host::is_multiple(address, sizeof(T)), "a load that is not aligned");
    return *static_cast<const T*>(address);
}

template <class T>
void store_aligned(void* address, const T& value) {
    host::check(host::is_multiple(address, sizeof(T)), "a store that is not aligned");
    *static_cast<T*>(address) = value;
}

inline Float2 load2(const float* address) { return load_aligned<Float2>(address); }
inline Float4 load4(const float* address) { return load_aligned<Float4>(address); }
inline void store4(float* address, const Float4& value) { store_aligned(address, value); }
inline Bytes16 load16(const void* address) { return load_aligned<Bytes16>(address); }
inline void store16(void* address, const Bytes16& value) { store_aligned(address, value); }

struct alignas(4) HalfPair {
    half_t at[2];
};

inline void store_pair(half_t* address, half_t first, half_t second) {
    store_aligned(address, HalfPair{{first, second}});
}

inline bool is_aligned(const void* address, int bytes) {
    return host::is_multiple(address, static_cast<std::size_t>(bytes));
}

template <int BYTES, class T>
void copy_async(T* shared, int index, const T* global, bool inside) {
    host::self().start_copy(shared + index, inside ? global : nullptr, BYTES);
}

inline void commit_copies() { host::self().commit_copies(); }

template <int PENDING>
void wait_copies() {
    host::self().wait_copies(PENDING);
}

namespace host {

inline half_t half_of(unsigned pair, int which) {
    return {static_cast<unsigned short>(which == 0 ? pair : pair >> 16U)};
}

inline unsigned pair_of(half_t low, half_t high) {
    return static_cast<unsigned>(low.bits) | static_cast<unsigned>(high.bits) << 16U;
}

// ldmatrix: element (row, column) of each 8x8 matrix goes to lane 4 row + column / 2, half column % 2; with
// .trans, of the transposed matrix.
template <int COUNT, bool TRANSPOSED>
void load_matrices(unsigned (&to)[COUNT], const half_t* row) {
    const int lane = self().thread % WARP;
    check(lane >= 8 * COUNT || is_multiple(row, 16), "a row of a matrix that is not aligned");
    const Shown* all = self().show({{}, {}, row});
    for (int matrix = 0; matrix < COUNT; ++matrix) {
        half_t pair[2];
        for (int k = 0; k < 2; ++k) {
            const int i = lane / 4, j = lane % 4 * 2 + k;
            const auto* stored = static_cast<const half_t*>(all[8 * matrix + (TRANSPOSED ? j : i)].row);
            pair[k] = stored[TRANSPOSED ? i : j];
        }
        to[matrix] = pair_of(pair[0], pair[1]);
    }
}

// Where an element of a matrix of mma.m16n8k16 is: its lane, register, and half of that or index of a float.
inline float element_of_a(const Shown* all, int row, int k) {
    return all[row % 8 * 4 + k % 8 / 2].a[(row / 8 + k / 8 * 2) * 2 + k % 2];
}

inline float element_of_b(const Shown* all, int k, int column) {
    return all[column * 4 + k % 8 / 2].b[k / 8 * 2 + k % 2];
}

}  // namespace host

inline float sum_of_four(float value) {
    for (int distance = 1; distance <= 2; distance *= 2) {
        const host::Shown* all = host::self().show({{value}, {}, nullptr});
        value += all[(host::self().thread % host::WARP) ^ distance].a[0];
    }
    return value;
}

template <int COUNT>
void load_matrices(unsigned (&to)[COUNT], const half_t* row) {
    host::load_matrices<COUNT, false>(to, row);
}

template <int COUNT>
void load_matrices_transposed(unsigned (&to)[COUNT], const half_t* row) {
    host::load_matrices<COUNT, true>(to, row);
}

inline void multiply_add(float (&sum)[4], const unsigned (&a)[4], const unsigned (&b)[2]) {
    host::Shown shown = {};
    for (int i = 0; i < 8; ++i) shown.a[i] = to_float(host::half_of(a[i / 2], i % 2));
    for (int i = 0; i < 4; ++i) shown.b[i] = to_float(host::half_of(b[i / 2], i % 2));
    const host::Shown* all = host::self().show(shown);
    const int lane = host::self().thread % host::WARP;
    for (int i = 0; i < 4; ++i) {
        const int row = lane / 4 + i / 2 * 8, column = lane % 4 * 2 + i % 2;
        for (int k = 0; k < 16; ++k) {
            sum[i] += host::element_of_a(all, row, k) * host::element_of_b(all, k, column);
        }
    }
}

// mma.m16n8k8 from the tables of the PTX manual. What is no number of 11 bits is a mistake.
inline void multiply_add_tf32(float (&sum)[4], const unsigned (&a)[4], const unsigned (&b)[2]) {
    for (const unsigned bits : {a[0], a[1], a[2], a[3], b[0], b[1]}) {
        host::check((bits & 0x1fffU) == 0, "an operand that is no tf32");
    }
    const host::Shown* all = host::self().show(
        {{float_of(a[0]), float_of(a[1]), float_of(a[2]), float_of(a[3])}, {float_of(b[0]), float_of(b[1])}, nullptr});
    const int lane = host::self().thread % host::WARP;
    for (int i = 0; i < 4; ++i) {
        const int row = lane / 4 + i / 2 * 8, column = lane % 4 * 2 + i % 2;
        for (int k = 0; k < 8; ++k) {
            sum[i] += all[row % 8 * 4 + k % 4].a[row / 8 + k / 4 * 2] * all[column * 4 + k % 4].b[k / 4];
        }
    }
}

}  // namespace gocor
