// All that differs between CUDA and the host twin of the kernels, each thing wrapped in one small function.
//
// Kernels use nothing else of CUDA, and no header of it either, so that NVRTC needs no include folder and g++
// can compile the same source with native/host/twin.h, where the threads of a block are real ones.

#pragma once

namespace gocor {

struct half_t {  // IEEE binary16; arithmetic is always done in float
    unsigned short bits;
};

struct alignas(16) Float4 {
    float at[4];
};

struct alignas(8) Float2 {
    float at[2];
};

struct alignas(16) Bytes16 {
    unsigned at[4];
};

struct Index3 {
    int x, y, z;
};

}  // namespace gocor

#ifndef __CUDACC__
#include "native/host/twin.h"
#else

#define GOCOR_DEVICE __device__ __forceinline__
// Four blocks an SM: up to 128 registers for 128 threads.
#define GOCOR_KERNEL(...) extern "C" __global__ void __launch_bounds__(__VA_ARGS__, 4)
// As many registers as a thread can have.
#define GOCOR_LARGE_KERNEL(...) extern "C" __global__ void __launch_bounds__(__VA_ARGS__, 1)
// An array in the shared memory of the block, aligned to 16 bytes.
#define GOCOR_SHARED(type, name, count) __shared__ alignas(16) type name[count]
#define GOCOR_UNROLL _Pragma("unroll")
#define GOCOR_NO_UNROLL _Pragma("unroll 1")
#define GOCOR_UNROLL_BY(count) GOCOR_PRAGMA(unroll count)  // a constant expression
#define GOCOR_PRAGMA(text) _Pragma(#text)

namespace gocor {

GOCOR_DEVICE int thread_index() { return static_cast<int>(threadIdx.x); }

GOCOR_DEVICE Index3 block_index() {
    return {static_cast<int>(blockIdx.x), static_cast<int>(blockIdx.y), static_cast<int>(blockIdx.z)};
}

// The same number, which the compiler does not know. What is made from it in a loop is not worked out before the
// loop, where it would hold registers.
GOCOR_DEVICE unsigned opaque(int value) {
    asm volatile("" : "+r"(value));
    return static_cast<unsigned>(value);
}

// All threads of the block have come here, and see what each other wrote to shared memory before.
GOCOR_DEVICE void sync_block() { __syncthreads(); }

// All lanes of the warp go on together, as collective operations need it; after branches that they did not all take.
GOCOR_DEVICE void sync_warp() { asm volatile("bar.warp.sync -1;" ::: "memory"); }

GOCOR_DEVICE float to_float(half_t value) {
    float result;
    asm("cvt.f32.f16 %0, %1;" : "=f"(result) : "h"(value.bits));
    return result;
}

GOCOR_DEVICE half_t to_half(float value) {  // to the nearest, ties to even
    half_t result;
    asm("cvt.rn.f16.f32 %0, %1;" : "=h"(result.bits) : "f"(value));
    return result;
}

GOCOR_DEVICE unsigned bits_of(float value) {
    unsigned result;
    asm("mov.b32 %0, %1;" : "=r"(result) : "f"(value));
    return result;
}

GOCOR_DEVICE float float_of(unsigned bits) {
    float result;
    asm("mov.b32 %0, %1;" : "=f"(result) : "r"(bits));
    return result;
}

// The nearest number of 11 bits, as a register of multiply_add_tf32. Volatile, so that it is not done before a
// loop, where the results would hold registers.
GOCOR_DEVICE unsigned to_tf32(float value) {
    unsigned result;
    asm volatile("cvt.rna.tf32.f32 %0, %1;" : "=r"(result) : "f"(value));
    return result;
}

GOCOR_DEVICE float magnitude(float value) {
    float result;
    asm("abs.f32 %0, %1;" : "=f"(result) : "f"(value));
    return result;
}

// The sum over lanes 4 i .. 4 i + 3 of a warp, with the whole warp.
GOCOR_DEVICE float sum_of_four(float value) {
    GOCOR_UNROLL
    for (int distance = 1; distance <= 2; distance *= 2) {
        float other;
        asm volatile("shfl.sync.bfly.b32 %0, %1, %2, 31, -1;" : "=f"(other) : "f"(value), "r"(distance));
        value += other;
    }
    return value;
}

GOCOR_DEVICE Float2 load2(const float* address) { return *reinterpret_cast<const Float2*>(address); }

GOCOR_DEVICE Float4 load4(const float* address) { return *reinterpret_cast<const Float4*>(address); }

GOCOR_DEVICE void store4(float* address, const Float4& value) { *reinterpret_cast<Float4*>(address) = value; }

GOCOR_DEVICE Bytes16 load16(const void* address) { return *static_cast<const Bytes16*>(address); }

GOCOR_DEVICE void store16(void* address, const Bytes16& value) { *static_cast<Bytes16*>(address) = value; }

GOCOR_DEVICE void store_pair(half_t* address, half_t first, half_t second) {  // a multiple of 4 bytes
    *reinterpret_cast<unsigned*>(address) = first.bits | static_cast<unsigned>(second.bits) << 16U;
}

GOCOR_DEVICE bool is_aligned(const void* address, int bytes) {
    return (reinterpret_cast<unsigned long long>(address) & static_cast<unsigned long long>(bytes - 1)) == 0;
}

GOCOR_DEVICE unsigned shared_address(const void* address) {
    unsigned long long wide;
    asm("cvta.to.shared.u64 %0, %1;" : "=l"(wide) : "l"(address));
    return static_cast<unsigned>(wide);
}

// Copies BYTES = 4, 8 or 16 bytes to shared[index] and on in the background, or zeros unless `inside`, when nothing
// is read. Both addresses are multiples of BYTES. 16 bytes pass by L1: they are wanted in shared memory only.
template <int BYTES, class T>
GOCOR_DEVICE void copy_async(T* shared, int index, const T* global, bool inside) {
    const unsigned target = shared_address(shared) + static_cast<unsigned>(index) * sizeof(T);  // 32 bits suffice
    const int size = inside ? BYTES : 0;
    if constexpr (BYTES == 16) {
        asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(target), "l"(global), "r"(size));
    } else {
        asm volatile("cp.async.ca.shared.global [%0], [%1], %2, %3;" ::"r"(target), "l"(global), "n"(BYTES),
                     "r"(size));
    }
}

// Makes one batch of this thread's copies so far.
GOCOR_DEVICE void commit_copies() { asm volatile("cp.async.commit_group;" ::: "memory"); }

// Waits for this thread's batches except the PENDING latest ones; other threads see them after sync_block.
template <int PENDING>
GOCOR_DEVICE void wait_copies() {
    asm volatile("cp.async.wait_group %0;" ::"n"(PENDING) : "memory");
}

// Loads COUNT = 2 or 4 matrices of 8x8 halves from shared memory, a register each, with the whole warp. Lane i
// gives the address (multiple of 16 bytes) of row i % 8 of matrix i / 8; it gets elements 2 (i % 4) and the
// next of row i / 4, the first in the lower half of the register.
template <int COUNT>
GOCOR_DEVICE void load_matrices(unsigned (&to)[COUNT], const half_t* row) {
    const unsigned from = shared_address(row);
    if constexpr (COUNT == 4) {
        asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
                     : "=r"(to[0]), "=r"(to[1]), "=r"(to[2]), "=r"(to[3])
                     : "r"(from)
                     : "memory");
    } else {
        asm volatile("ldmatrix.sync.aligned.m8n8.x2.shared.b16 {%0, %1}, [%2];"
                     : "=r"(to[0]), "=r"(to[1])
                     : "r"(from)
                     : "memory");
    }
}

// The same, each matrix transposed: lane i gets elements i / 4 of rows 2 (i % 4) and the next.
template <int COUNT>
GOCOR_DEVICE void load_matrices_transposed(unsigned (&to)[COUNT], const half_t* row) {
    const unsigned from = shared_address(row);
    if constexpr (COUNT == 4) {
        asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
                     : "=r"(to[0]), "=r"(to[1]), "=r"(to[2]), "=r"(to[3])
                     : "r"(from)
                     : "memory");
    } else {
        asm volatile("ldmatrix.sync.aligned.m8n8.x2.trans.shared.b16 {%0, %1}, [%2];"
                     : "=r"(to[0]), "=r"(to[1])
                     : "r"(from)
                     : "memory");
    }
}

// sum (16x8) += a (16x16) b (16x8) with the whole warp, in float: mma.m16n8k16. Which elements a lane holds
// (group = lane / 4, pair = 2 (lane % 4); two halves a register, the lower one first):
//   a[0], a[1]: row group, row group + 8, columns pair and pair + 1;  a[2], a[3]: the same, columns + 8
//   b[0], b[1]: rows pair and pair + 1, the same + 8; column group
//   sum[0..1], sum[2..3]: row group, row group + 8; columns pair and pair + 1
GOCOR_DEVICE void multiply_add(float (&sum)[4], const unsigned (&a)[4], const unsigned (&b)[2]) {
    asm volatile(
        "mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, "
        "{%0, %1, %2, %3};"
        : "+f"(sum[0]), "+f"(sum[1]), "+f"(sum[2]), "+f"(sum[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}

// sum (16x8) += a (16x8) b (8x8) of numbers of 11 bits, with the whole warp: mma.m16n8k8. Sums as above;
//   a[0], a[1]: row group, row group + 8, column lane % 4;  a[2], a[3]: the same, column + 4
//   b[0], b[1]: rows lane % 4, lane % 4 + 4; column group
GOCOR_DEVICE void multiply_add_tf32(float (&sum)[4], const unsigned (&a)[4], const unsigned (&b)[2]) {
    asm volatile(
        "mma.sync.aligned.m16n8k8.row.col.f32.tf32.tf32.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, "
        "{%0, %1, %2, %3};"
        : "+f"(sum[0]), "+f"(sum[1]), "+f"(sum[2]), "+f"(sum[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}

}  // namespace gocor

#endif

namespace gocor {

// Two halves as a register of a matrix, `low` first in memory.
GOCOR_DEVICE unsigned pack(half_t low, half_t high) {
    return static_cast<unsigned>(low.bits) | static_cast<unsigned>(high.bits) << 16U;
}

// The least power of two that is no smaller than a number; 1 for 0.
GOCOR_DEVICE float power_of_two_from(float value) {
    return value > 0 ? float_of((bits_of(value) + 0x007fffffU) & 0x7f800000U) : 1;
}

GOCOR_DEVICE constexpr int ceil_div(int dividend, int divisor) { return (dividend + divisor - 1) / divisor; }

}  // namespace gocor
