// Compiled without sanitizers, whose runtimes are told of the fibers instead: they then see the kernels'
// memory accesses and nothing of the scheduler's.
#include "emulation/scheduler.h"

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <iterator>
#include <stdexcept>
#include <string>
#include <vector>

#include "emulation/fiber.h"

namespace cdkd::emulation {

Thread* current_thread = nullptr;
Block current_block{};

namespace {

enum class State { kReady, kWaiting, kDone };

struct EmulatedThread : Thread {
  Fiber fiber;
  State state;
  bool at_barrier;
  const char* waits_for;
  int line;
};

// A meeting of the lanes of one mask. Two sets of deposits, so that a fast lane can begin the next meeting.
struct Meeting {
  uint32_t mask;
  uint32_t arrived;
  unsigned generation;
  const char* what;
  int line;
  Deposit deposits[2][kWarp];
};

constexpr unsigned kMasks = 8;  // different lane masks in use by one warp

struct Warp {
  unsigned masks;
  Meeting meetings[kMasks];
  char tag;  // whose address stands for the warp's memory order
};

EmulatedThread threads[kMaxThreads];
Warp warps[kMaxThreads / kWarp];
Fiber scheduler;
uint64_t ready[kMaxThreads / 64];  // a bit for each thread
unsigned thread_count;
unsigned alive;

unsigned barrier_arrived;
unsigned barrier_generation;
int barrier_line;
Votes barrier_votes[2];
// whose addresses stand for memory orders; two barriers, for a fast thread reaches the next one first
char barrier_tags[2], start_tag, end_tag;

uint64_t schedule_seed;
uint64_t random_state;
uint64_t block_limit;
const char* kernel_name;
const std::function<void()>* kernel_body;
std::string error;
std::string refusal;
Traffic traffic;
std::vector<Launch> launches;

EmulatedThread& self() { return *static_cast<EmulatedThread*>(current_thread); }

uint64_t next_random() {
  random_state ^= random_state << 13;
  random_state ^= random_state >> 7;
  random_state ^= random_state << 17;
  return random_state;
}

void make_ready(EmulatedThread& thread) {
  thread.state = State::kReady;
  ready[thread.linear / 64] |= uint64_t{1} << thread.linear % 64;
}

void clear_ready() { std::fill(std::begin(ready), std::end(ready), 0); }

// The next thread to run; null if none can.
EmulatedThread* take_ready() {
  constexpr unsigned kWords = kMaxThreads / 64;
  const unsigned start = schedule_seed > 1 ? static_cast<unsigned>(next_random() % thread_count) : 0;
  for (unsigned i = 0; i <= kWords; ++i) {  // the first word once more for the bits below the start
    const unsigned w = schedule_seed == 1 ? (2 * kWords - 1 - i) % kWords : (start / 64 + i) % kWords;
    const uint64_t bits = i == 0 && schedule_seed > 1 ? ready[w] & ~uint64_t{0} << start % 64 : ready[w];
    if (!bits) continue;
    const unsigned bit = schedule_seed == 1 ? 63 - __builtin_clzll(bits) : __builtin_ctzll(bits);
    ready[w] &= ~(uint64_t{1} << bit);
    return &threads[w * 64 + bit];
  }
  return nullptr;
}

// Leave the running thread for the next one, or for launch() if none can run.
void switch_away() {
  EmulatedThread* const from = static_cast<EmulatedThread*>(current_thread);
  EmulatedThread* const to = take_ready();
  if (to == from) return;
  current_thread = to;
  switch_fiber(from ? from->fiber : scheduler, to ? to->fiber : scheduler,
               from && from->state == State::kDone);
}

void wait_here(const char* what, int line) {
  self().state = State::kWaiting;
  self().waits_for = what;
  self().line = line;
  switch_away();
}

void fail_at(const std::string& message) {
  const Index& block = current_block.index;
  const Index& thread = self().index;
  char where[160];
  std::snprintf(where, sizeof(where), "%s: block (%u, %u, %u) thread (%u, %u, %u): ", kernel_name, block.x,
                block.y, block.z, thread.x, thread.y, thread.z);
  if (error.empty()) error = where + message;
  self().state = State::kWaiting;
  clear_ready();
  switch_away();
  std::abort();
}

void open_barrier() {
  barrier_arrived = 0;
  barrier_line = 0;
  barrier_votes[++barrier_generation % 2] = {0, true, false};
  for (unsigned i = 0; i < thread_count; ++i) {
    if (!threads[i].at_barrier) continue;
    threads[i].at_barrier = false;
    make_ready(threads[i]);
  }
}

void thread_main() {
  entered_fiber(scheduler);
  acquire(&start_tag);
  (*kernel_body)();
  release(&end_tag);
  self().state = State::kDone;
  if (--alive > 0 && barrier_arrived == alive) open_barrier();
  switch_away();
  std::abort();
}

void start_block() {
  for (Warp& warp : warps) warp.masks = 0;
  alive = thread_count;
  clear_ready();
  barrier_arrived = 0;
  barrier_generation = 0;
  barrier_line = 0;
  barrier_votes[0] = {0, true, false};
  const Extent size = current_block.size;
  for (unsigned i = 0; i < thread_count; ++i) {
    EmulatedThread& thread = threads[i];
    thread.index = {i % size.x, i / size.x % size.y, i / size.x / size.y};
    thread.linear = i;
    thread.lane = i % kWarp;
    thread.warp = i / kWarp;
    thread.at_barrier = false;
    prepare_fiber(thread.fiber, &thread_main);
    make_ready(thread);
  }
}

std::string deadlock() {
  std::string text = std::string(kernel_name) + ": deadlock, " + std::to_string(alive) + " threads wait:";
  unsigned shown = 0;
  for (unsigned i = 0; i < thread_count && shown < 4; ++i) {
    if (threads[i].state != State::kWaiting) continue;
    text += " thread " + std::to_string(i) + " at " + threads[i].waits_for + " in line " +
            std::to_string(threads[i].line) + ";";
    ++shown;
  }
  return text;
}

void run_block(size_t shared_bytes) {
  current_block.dynamic_shared = allocate_shared(shared_bytes);
  start_block();
  release(&start_tag);
  switch_away();
  acquire(&end_tag);
  if (error.empty() && alive > 0) error = deadlock();
  free_shared(current_block.dynamic_shared, shared_bytes);
}

// The i-th block to run of `count`, a permutation: in order, reversed, or shuffled by an odd stride.
uint64_t nth_block(uint64_t i, uint64_t count) {
  if (schedule_seed == 0) return i;
  if (schedule_seed == 1) return count - 1 - i;
  uint64_t stride = schedule_seed % count | 1;
  const auto divisor = [](uint64_t a, uint64_t b) {
    while (b) std::swap(a %= b, b);
    return a;
  };
  while (divisor(stride, count) != 1) stride += 2;
  return (i * stride + schedule_seed) % count;
}

bool is_refused(const char* name, Extent grid, Extent block, size_t shared_bytes) {
  const uint64_t count = uint64_t{block.x} * block.y * block.z;
  const bool grid_fits =
      grid.x > 0 && grid.y > 0 && grid.z > 0 && grid.x <= 0x7fffffffu && grid.y <= 65535 && grid.z <= 65535;
  if (grid_fits && count > 0 && count <= kMaxThreads && block.z <= 64 && shared_bytes <= kMaxShared)
    return false;
  refusal = std::string(name) + ": a device refuses this launch: grid (" + std::to_string(grid.x) + ", " +
            std::to_string(grid.y) + ", " + std::to_string(grid.z) + "), " + std::to_string(count) +
            " threads, " + std::to_string(shared_bytes) + " bytes of shared memory";
  return true;
}

void record_launch(Extent grid, Extent block, size_t shared_bytes, uint64_t count, uint64_t run) {
  Launch record{};
  std::snprintf(record.name, sizeof(record.name), "%s", kernel_name);
  const uint32_t grid_size[] = {grid.x, grid.y, grid.z};
  const uint32_t block_size[] = {block.x, block.y, block.z};
  std::copy_n(grid_size, 3, record.grid);
  std::copy_n(block_size, 3, record.block);
  record.shared_bytes = shared_bytes;
  record.blocks_run = run;
  for (int i = 0; i < 5; ++i) {
    record.traffic.read[i] = traffic.read[i] * count / run;
    record.traffic.written[i] = traffic.written[i] * count / run;
  }
  launches.push_back(record);
}

int width_index(size_t bytes) { return bytes >= 16 ? 4 : __builtin_ctz(static_cast<unsigned>(bytes)); }

}  // namespace

void count_read(size_t bytes) { traffic.read[width_index(bytes)] += bytes; }
void count_write(size_t bytes) { traffic.written[width_index(bytes)] += bytes; }

void configure(uint64_t schedule, uint64_t max_blocks) {
  schedule_seed = schedule;
  random_state = schedule * 0x9E3779B97F4A7C15u + 1;
  block_limit = max_blocks;
}

void clear_launches() { launches.clear(); }

size_t copy_launches(Launch* copies, size_t capacity) {
  std::copy_n(launches.begin(), std::min(capacity, launches.size()), copies);
  return launches.size();
}

const char* last_refusal() { return refusal.c_str(); }

bool launch(const char* name, Extent grid, Extent block, size_t shared_bytes,
            const std::function<void()>& body) {
  if (is_refused(name, grid, block, shared_bytes)) return false;
  kernel_name = name;
  kernel_body = &body;
  error.clear();
  traffic = {};
  thread_count = block.x * block.y * block.z;
  current_block.size = block;
  current_block.grid = grid;
  begin_fibers(scheduler);
  const uint64_t count = uint64_t{grid.x} * grid.y * grid.z;
  const uint64_t run = block_limit ? std::min(block_limit, count) : count;
  for (uint64_t i = 0; i < run && error.empty(); ++i) {
    const uint64_t b = nth_block(i, run) * count / run;
    current_block.index = {static_cast<unsigned>(b % grid.x), static_cast<unsigned>(b / grid.x % grid.y),
                           static_cast<unsigned>(b / grid.x / grid.y)};
    run_block(shared_bytes);
  }
  if (!error.empty()) throw std::runtime_error(error);
  record_launch(grid, block, shared_bytes, count, run);
  return true;
}

void fail(const char* message) {
  fail_at(message);
  std::abort();
}

Votes barrier(int line, bool predicate) {
  if (barrier_arrived > 0 && barrier_line != line)
    fail_at("divergent __syncthreads, lines " + std::to_string(barrier_line) + " and " +
            std::to_string(line));
  barrier_line = line;
  const unsigned generation = barrier_generation;
  Votes& votes = barrier_votes[generation % 2];
  votes.count += predicate;
  votes.all = votes.all && predicate;
  votes.any = votes.any || predicate;
  release(&barrier_tags[generation % 2]);
  self().at_barrier = true;
  self().waits_for = "__syncthreads";
  self().line = line;
  self().state = State::kWaiting;
  if (++barrier_arrived == alive) open_barrier();
  switch_away();
  acquire(&barrier_tags[generation % 2]);
  return barrier_votes[generation % 2];
}

const Deposit* collective(uint32_t mask, const char* what, int line, uint64_t first, uint64_t second) {
  EmulatedThread& thread = self();
  Warp& warp = warps[thread.warp];
  const unsigned first_lane = thread.warp * kWarp;
  const unsigned lanes = std::min(kWarp, thread_count - first_lane);
  if (lanes < kWarp) mask &= (1u << lanes) - 1;
  if (!(mask >> thread.lane & 1)) fail_at(std::string(what) + ": the calling lane is not in the mask");
  unsigned m = 0;
  while (m < warp.masks && warp.meetings[m].mask != mask) ++m;
  if (m == kMasks) fail_at("too many different lane masks in one warp");
  Meeting& meeting = warp.meetings[m];
  if (m == warp.masks) {
    ++warp.masks;
    meeting.mask = mask;
    meeting.arrived = 0;
    meeting.generation = 0;
  }
  if (meeting.arrived && (meeting.line != line || std::strcmp(meeting.what, what) != 0))
    fail_at(std::string("lanes of one warp meet at different collectives: ") + meeting.what + " in line " +
            std::to_string(meeting.line) + ", " + what + " in line " + std::to_string(line));
  meeting.what = what;
  meeting.line = line;
  Deposit* deposits = meeting.deposits[meeting.generation % 2];
  deposits[thread.lane] = {{first, second}};
  meeting.arrived |= 1u << thread.lane;
  if (meeting.arrived != mask) {
    wait_here(what, line);
    return deposits;
  }
  ++meeting.generation;
  meeting.arrived = 0;
  for (unsigned lane = 0; lane < lanes; ++lane)
    if (mask >> lane & 1 && lane != thread.lane) make_ready(threads[first_lane + lane]);
  if (schedule_seed > 1) {  // not always the last lane first
    make_ready(thread);
    switch_away();
  }
  return deposits;
}

void warp_barrier(uint32_t mask, int line) {
  char* tag = &warps[self().warp].tag;
  release(tag);
  collective(mask, "__syncwarp", line, 0);
  acquire(tag);
}

}  // namespace cdkd::emulation
