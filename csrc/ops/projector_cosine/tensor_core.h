// What projector_cosine asks of tensor cores and of copies that run beside them, in PTX; on the CPU the lanes
// meet instead.
#pragma once
#include <cstdint>
#include <type_traits>

#include "cuda/memory.h"

namespace cdkd::cuda::projector {

#if !defined(__CUDACC__)
// A copy takes effect when it is waited for, as late as the device may do it.
struct PendingCopy {
  void* to;
  Vector<uint32_t> value;
};
constexpr int kPending = 64;
inline PendingCopy pending_copies[emulation::kMaxThreads][kPending];
inline int pending_count[emulation::kMaxThreads];
inline int pending_group[emulation::kMaxThreads][kPending];  // group i ends before this copy
inline int pending_groups[emulation::kMaxThreads];
#endif

// Copy 16 bytes to shared memory, or clear them there; complete after wait_copies().
template <class T>
CDKD_DEVICE void copy_vector(T* shared, const T* global, bool exists) {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 800
  const uint32_t to = static_cast<uint32_t>(__cvta_generic_to_shared(shared));
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(to), "l"(global), "r"(exists ? 16 : 0)
               : "memory");
#elif defined(__CUDACC__)
  uint4 value = {0, 0, 0, 0};
  if (exists) value = *reinterpret_cast<const uint4*>(global);
  *reinterpret_cast<uint4*>(shared) = value;
#else
  const unsigned thread = emulation::current_thread->linear;
  if (pending_count[thread] == kPending) emulation::fail("too many copies under way");
  PendingCopy& copy = pending_copies[thread][pending_count[thread]++];
  copy.to = shared;
  copy.value = {};
  if (exists) copy.value = load(reinterpret_cast<const Vector<uint32_t>*>(global));
#endif
}

// End a group of copies.
CDKD_DEVICE void commit_copies() {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 800
  asm volatile("cp.async.commit_group;" ::: "memory");
#elif !defined(__CUDACC__)
  const unsigned thread = emulation::current_thread->linear;
  if (pending_groups[thread] == kPending) emulation::fail("too many groups of copies under way");
  pending_group[thread][pending_groups[thread]++] = pending_count[thread];
#endif
}

// Wait for this thread's copies but for the last `groups` groups.
template <int groups>
CDKD_DEVICE void wait_copies() {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 800
  asm volatile("cp.async.wait_group %0;" ::"n"(groups) : "memory");
#elif !defined(__CUDACC__)
  const unsigned thread = emulation::current_thread->linear;
  const int done = pending_groups[thread] - groups;
  if (done <= 0) return;
  const int copies = pending_group[thread][done - 1];
  for (int i = 0; i < copies; ++i)
    *static_cast<Vector<uint32_t>*>(pending_copies[thread][i].to) = pending_copies[thread][i].value;
  for (int i = copies; i < pending_count[thread]; ++i)
    pending_copies[thread][i - copies] = pending_copies[thread][i];
  for (int i = done; i < pending_groups[thread]; ++i)
    pending_group[thread][i - done] = pending_group[thread][i] - copies;
  pending_count[thread] -= copies;
  pending_groups[thread] -= done;
#endif
}

// Four 8 x 8 matrices of 16-bit numbers, whose rows of 16 bytes begin where the lanes say: lane 8·i + j at
// row j of matrix i. Register i gets columns 2·(lane % 4) and the next of row lane / 4 of matrix i; if
// transposed, rows 2·(lane % 4) and the next of column lane / 4.
template <bool transposed, class In>
CDKD_DEVICE void load_matrices(const In* row, uint32_t (&registers)[4]) {
  static_assert(sizeof(In) == 2, "16-bit numbers");
#if defined(__CUDACC__)
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
#else
  if (reinterpret_cast<uintptr_t>(row) % 16 != 0) emulation::fail("ldmatrix: a row is not 16-byte aligned");
  const emulation::Deposit* rows =
      emulation::collective(kAllLanes, "ldmatrix", __LINE__, reinterpret_cast<uint64_t>(row));
  const unsigned lane = emulation::current_thread->lane;
  for (unsigned i = 0; i < 4; ++i) {
    In pair[2];
    for (unsigned j = 0; j < 2; ++j) {
      const unsigned r = transposed ? lane % 4 * 2 + j : lane / 4,
                     c = transposed ? lane / 4 : lane % 4 * 2 + j;
      pair[j] = reinterpret_cast<const In*>(rows[8 * i + r].word[0])[c];
    }
    __builtin_memcpy(&registers[i], pair, 4);
  }
#endif
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
#elif defined(__CUDACC__)
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
#else
  const auto pack = [](uint32_t low, uint32_t high) { return uint64_t{high} << 32 | low; };
  const emulation::Deposit* table =
      emulation::collective(kAllLanes, "mma a", __LINE__, pack(a[0], a[1]), pack(a[2], a[3]));
  const unsigned lane = emulation::current_thread->lane, g = lane / 4, q = lane % 4;
  const auto number = [](uint64_t word, unsigned i) {
    return widen(In{static_cast<uint16_t>(word >> 16 * i)});
  };
  float rows[2][16];
  for (unsigned k = 0; k < 16; ++k)
    for (unsigned r = 0; r < 2; ++r) rows[r][k] = number(table[g * 4 + k % 8 / 2].word[k / 8], 2 * r + k % 2);
  float* const sums[2][2] = {{&d0, &d1}, {&d2, &d3}};
  table = emulation::collective(kAllLanes, "mma b", __LINE__, pack(b0, b1));
  for (unsigned c = 0; c < 2; ++c)
    for (unsigned k = 0; k < 16; ++k) {
      const float b = number(table[(q * 2 + c) * 4 + k % 8 / 2].word[0], 2 * (k / 8) + k % 2);
      for (unsigned r = 0; r < 2; ++r) *sums[r][c] += rows[r][k] * b;
    }
#endif
}

}  // namespace cdkd::cuda::projector
