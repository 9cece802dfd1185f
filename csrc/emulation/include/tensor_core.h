// Tensor cores, and copies that run beside them: the lanes of a warp meet, and copies wait as long as the
// device may let them. csrc/cuda/include explains the functions.
#pragma once
#include <cstdint>
#include <type_traits>

#include "cuda/memory.h"

namespace cdkd::cuda {

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

// Copy 16 bytes to shared memory, or clear them there; complete after wait_copies().
template <class T>
CDKD_DEVICE void copy_vector(T* shared, const T* global, bool exists) {
  const unsigned thread = emulation::current_thread->linear;
  if (pending_count[thread] == kPending) emulation::fail("too many copies under way");
  PendingCopy& copy = pending_copies[thread][pending_count[thread]++];
  copy.to = shared;
  copy.value = {};
  if (exists) copy.value = load(reinterpret_cast<const Vector<uint32_t>*>(global));
}

// End a group of copies.
CDKD_DEVICE void commit_copies() {
  const unsigned thread = emulation::current_thread->linear;
  if (pending_groups[thread] == kPending) emulation::fail("too many groups of copies under way");
  pending_group[thread][pending_groups[thread]++] = pending_count[thread];
}

// Wait for this thread's copies but for the last `groups` groups.
template <int groups>
CDKD_DEVICE void wait_copies() {
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
}

// Four 8 x 8 matrices of 16-bit numbers, whose rows of 16 bytes begin where the lanes say: lane 8·i + j at
// row j of matrix i. Register i gets columns 2·(lane % 4) and the next of row lane / 4 of matrix i; if
// transposed, rows 2·(lane % 4) and the next of column lane / 4.
template <bool transposed, class In>
CDKD_DEVICE void load_matrices(const In* row, uint32_t (&registers)[4]) {
  static_assert(sizeof(In) == 2, "16-bit numbers");
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
}

// d += a · b of the warp, 16 x 8 x 16, in the layout of mma.m16n8k16: with g = lane / 4 and q = lane % 4, a
// holds (g, 2q), (g + 8, 2q), (g, 2q + 8), (g + 8, 2q + 8) and the column after each, b (2q, g) and (2q + 8,
// g) and the row after each, d (g, 2q), (g, 2q + 1), (g + 8, 2q), (g + 8, 2q + 1).
template <class In>
CDKD_DEVICE void multiply_matrices(float& d0, float& d1, float& d2, float& d3, const uint32_t (&a)[4],
                                   uint32_t b0, uint32_t b1) {
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
}

}  // namespace cdkd::cuda
