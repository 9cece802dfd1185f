// Runs the threads of a CUDA block on one CPU thread: one fiber for each, switched at barriers and warp
// collectives only. Blocks run one after the other.
#pragma once
#include <cstddef>
#include <cstdint>
#include <functional>

namespace cdkd::emulation {

constexpr unsigned kWarp = 32;
constexpr unsigned kMaxThreads = 1024;
constexpr size_t kMaxShared = 48 * 1024;  // of a block that does not ask for more

struct Index {
  unsigned x, y, z;
};

struct Extent {
  unsigned x, y, z;

  constexpr Extent(unsigned x = 1, unsigned y = 1, unsigned z = 1) : x(x), y(y), z(z) {}
};

// What a thread knows of itself.
struct Thread {
  Index index;
  unsigned linear;
  unsigned lane;
  unsigned warp;
};

// What all threads of the running block share.
struct Block {
  Index index;
  Extent size;
  Extent grid;
  unsigned char* dynamic_shared;
};

// Bytes that moved between the kernels and global memory, by the width of the access: index i counts those of
// accesses of 2^i bytes.
struct Traffic {
  uint64_t read[5];
  uint64_t written[5];
};

// One kernel launch, as `cdkd info --launch-plan` prints it.
struct Launch {
  char name[64];
  uint32_t grid[3];
  uint32_t block[3];
  uint64_t shared_bytes;
  uint64_t blocks_run;  // fewer than the grid's if sampled; the traffic is then scaled up
  Traffic traffic;
};

extern Thread* current_thread;
extern Block current_block;

// Count an access to global memory.
void count_read(size_t bytes);
void count_write(size_t bytes);

// How the next launches run. `schedule`: 0 threads and blocks in order, 1 reversed, else random with this
// seed. `max_blocks`: run only so many blocks of each launch, evenly spaced (0: all): the results are then
// meaningless.
void configure(uint64_t schedule, uint64_t max_blocks);

// Forget the launches made so far, or copy the first `capacity` of them out; returns how many there are.
void clear_launches();
size_t copy_launches(Launch* launches, size_t capacity);

// Run `body` once per thread, or return false where a device would refuse the launch. Throws
// std::runtime_error for what it would hang on or leave undefined: divergent barriers and collectives,
// shuffles from absent lanes.
bool launch(const char* name, Extent grid, Extent block, size_t shared_bytes,
            const std::function<void()>& body);

// What the launch was that was refused last.
const char* last_refusal();

// End the launch with an error, from inside a kernel.
[[noreturn]] void fail(const char* message);

// Number of threads, conjunction and disjunction of a block's predicates.
struct Votes {
  unsigned count;
  bool all;
  bool any;
};
Votes barrier(int line, bool predicate);

// What the lanes of a warp deposited, by lane.
struct Deposit {
  uint64_t word[2];
};
// Meet all lanes of `mask`, each leaving a deposit. No memory order, unlike warp_barrier.
const Deposit* collective(uint32_t mask, const char* what, int line, uint64_t first, uint64_t second = 0);
void warp_barrier(uint32_t mask, int line);

}  // namespace cdkd::emulation
