// How launchers choose their grids.
#pragma once
#include <cstdint>

#include "cuda/language.h"

namespace cdkd::cuda {

// Shared memory that a block may use on every device without asking.
constexpr int64_t kSharedLimit = 48 * 1024;

// Blocks for `tasks` of `per_block` each: more tasks than that are taken in turns.
inline unsigned grid_for(int64_t tasks, int64_t per_block = 1, int64_t most = 4096) {
  const int64_t blocks = (tasks + per_block - 1) / per_block;
  return static_cast<unsigned>(blocks < most ? blocks : most);
}

// Threads for a row of `length`: each takes about eight elements, in whole warps, within limits.
inline unsigned threads_for(int64_t length) {
  const int64_t threads = (length / 8 + kWarp - 1) / kWarp * kWarp;
  return static_cast<unsigned>(threads < kWarp ? kWarp : threads > 256 ? 256 : threads);
}

}  // namespace cdkd::cuda
