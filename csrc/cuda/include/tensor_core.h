// Tensor cores, and copies that run beside them, in PTX. csrc/emulation/include has a header of the same name
// for g++.
#pragma once
#include <cstdint>
#include <type_traits>

#include "cuda/memory.h"

namespace cdkd::cuda {

// Copy 16 bytes to shared memory, or clear them there; complete after wait_copies().
template <class T>
CDKD_DEVICE void copy_vector(T* shared, const T* global, bool exists) {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 800
  const uint32_t to = static_cast<uint32_t>(__cvta_generic_to_shared(shared));
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(to), "l"(global), "r"(exists ? 16 : 0)
               : "memory");
#else
  uint4 value = {0, 0, 0, 0};
  if (exists) value = *reinterpret_cast<const uint4*>(global);
  *reinterpret_cast<uint4*>(shared) = value;
#endif
}

// End a group of copies.
CDKD_DEVICE void commit_copies() {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 800
  asm volatile("cp.async.commit_group;" ::: "memory");
#endif
}

// Wait for this thread's copies but for the last `groups` groups.
template <int groups>
CDKD_DEVICE void wait_copies() {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 800
  asm volatile("cp.async.wait_group %0;" ::"n"(groups) : "memory");
#endif
}

// Four 8 x 8 matrices of 16-bit numbers, whose rows of 16 bytes begin where the lanes say: lane 8·i + j at
// row j of matrix i. Register i gets columns 2·(lane % 4) and the next of row lane / 4 of matrix i; if
// transposed, rows 2·(lane % 4) and the next of column lane / 4.
template <bool transposed, class In>
CDKD_DEVICE void load_matrices(const In* row, uint32_t (&registers)[4]) {
  static_assert(sizeof(In) == 2, "16-bit numbers");
  const uint32_t from = static_cast<uint32_t>(__cvta_generic_to_shared(row));
  if constexpr (transposed)
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(registers[0]), "=r"(registers[1]), "=r"(registers[2]), "=r"(registers[3])
                 : "r"(from)
                 : "memory");
  else
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(registers[0]), "=r"(registers[1]), "=r"(registers[2]), "=r"(registers[3])
                 : "r"(from)
                 : "memory");
}

// d += a · b of the warp, 16 x 8 x 16, in the layout of mma.m16n8k16: with g = lane / 4 and q = lane % 4, a
// holds (g, 2q), (g + 8, 2q), (g, 2q + 8), (g + 8, 2q + 8) and the column after each, b (2q, g) and (2q + 8,
// g) and the row after each, d (g, 2q), (g, 2q + 1), (g + 8, 2q), (g + 8, 2q + 1).
template <class In>
CDKD_DEVICE void multiply_matrices(float& d0, float& d1, float& d2, float& d3, const uint32_t (&a)[4],
                                   uint32_t b0, uint32_t b1) {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 800
  if constexpr (std::is_same_v<In, Float16>)
    asm volatile(
        "mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, "
        "{%0, %1, "
        "%2, %3};"
        : "+f"(d0), "+f"(d1), "+f"(d2), "+f"(d3)
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
  else
    asm volatile(
        "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, "
        "{%0, "
        "%1, %2, %3};"
        : "+f"(d0), "+f"(d1), "+f"(d2), "+f"(d3)
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
#else
  if constexpr (std::is_same_v<In, Float16>) {  // two halves of the depth; there is no bfloat16
    asm volatile(
        "mma.sync.aligned.m16n8k8.row.col.f32.f16.f16.f32 {%0, %1, %2, %3}, {%4, %5}, {%6}, {%0, %1, %2, %3};"
        : "+f"(d0), "+f"(d1), "+f"(d2), "+f"(d3)
        : "r"(a[0]), "r"(a[1]), "r"(b0));
    asm volatile(
        "mma.sync.aligned.m16n8k8.row.col.f32.f16.f16.f32 {%0, %1, %2, %3}, {%4, %5}, {%6}, {%0, %1, %2, %3};"
        : "+f"(d0), "+f"(d1), "+f"(d2), "+f"(d3)
        : "r"(a[2]), "r"(a[3]), "r"(b1));
  }
#endif
}

}  // namespace cdkd::cuda
