// Stacks to switch between, known to the sanitizer that the library is built for: CDKD_ASAN or CDKD_TSAN.
#pragma once
#include <sys/mman.h>

#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <new>
#if !defined(__x86_64__)
#include <ucontext.h>
#endif
#if defined(CDKD_ASAN)
#include <sanitizer/asan_interface.h>
#include <sanitizer/common_interface_defs.h>
#elif defined(CDKD_TSAN)
#include <sanitizer/tsan_interface.h>
#endif

namespace cdkd::emulation {

constexpr size_t kStack = 256 * 1024;

struct Fiber {
#if defined(__x86_64__)
  void* stack_pointer;
#else
  ucontext_t context;
#endif
  unsigned char* stack;
  size_t stack_size;
  void* fake_stack;  // AddressSanitizer's
  void* thread;      // ThreadSanitizer's
};

#if defined(__x86_64__)
// Push what a call must keep, store the stack pointer, continue on the other stack.
extern "C" void cdkd_emulation_switch(void** from, void* to);
asm(R"(
.text
.type cdkd_emulation_switch, @function
cdkd_emulation_switch:
  pushq %rbp
  pushq %rbx
  pushq %r12
  pushq %r13
  pushq %r14
  pushq %r15
  movq %rsp, (%rdi)
  movq %rsi, %rsp
  popq %r15
  popq %r14
  popq %r13
  popq %r12
  popq %rbx
  popq %rbp
  ret
.size cdkd_emulation_switch, .-cdkd_emulation_switch
)");
#endif

// Let a fiber begin `entry`, which never returns, when it is next switched to.
inline void prepare_fiber(Fiber& fiber, void (*entry)()) {
  if (!fiber.stack) {
    void* memory = mmap(nullptr, kStack, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (memory == MAP_FAILED) throw std::bad_alloc();
    fiber.stack = static_cast<unsigned char*>(memory);
    fiber.stack_size = kStack;
#if defined(CDKD_TSAN)
    fiber.thread = __tsan_create_fiber(0);
#endif
  }
#if defined(CDKD_ASAN)
  __asan_unpoison_memory_region(fiber.stack, kStack);
#endif
#if defined(__x86_64__)
  // the entry as return address of a frame with six registers; calls find the stack 16-byte aligned, plus 8
  void** top = reinterpret_cast<void**>(fiber.stack + kStack) - 2;
  *top = reinterpret_cast<void*>(entry);
  top[1] = nullptr;
  fiber.stack_pointer = top - 6;
#else
  getcontext(&fiber.context);
  fiber.context.uc_stack.ss_sp = fiber.stack;
  fiber.context.uc_stack.ss_size = kStack;
  fiber.context.uc_link = nullptr;
  makecontext(&fiber.context, entry, 0);
#endif
}

// Call once on the thread's own stack, before switching away from it.
inline void begin_fibers(Fiber& own) {
#if defined(CDKD_TSAN)
  own.thread = __tsan_get_current_fiber();
#else
  (void)own;
#endif
}

// Call first in every fiber; `own` learns the stack of the thread that it comes from.
inline void entered_fiber(Fiber& own) {
#if defined(CDKD_ASAN)
  const void* stack;
  size_t size;
  __sanitizer_finish_switch_fiber(nullptr, &stack, &size);
  if (!own.stack) {
    own.stack = static_cast<unsigned char*>(const_cast<void*>(stack));
    own.stack_size = size;
  }
#else
  (void)own;
#endif
}

inline void switch_fiber(Fiber& from, Fiber& to, bool from_is_done) {
#if defined(CDKD_ASAN)
  __sanitizer_start_switch_fiber(from_is_done ? nullptr : &from.fake_stack, to.stack, to.stack_size);
#elif defined(CDKD_TSAN)
  __tsan_switch_to_fiber(to.thread, __tsan_switch_to_fiber_no_sync);
#endif
  (void)from_is_done;
#if defined(__x86_64__)
  cdkd_emulation_switch(&from.stack_pointer, to.stack_pointer);
#else
  swapcontext(&from.context, &to.context);
#endif
#if defined(CDKD_ASAN)
  __sanitizer_finish_switch_fiber(from.fake_stack, nullptr, nullptr);
#endif
}

// Order memory between fibers, for ThreadSanitizer.
inline void release(void* tag) {
#if defined(CDKD_TSAN)
  __tsan_release(tag);
#else
  (void)tag;
#endif
}

inline void acquire(void* tag) {
#if defined(CDKD_TSAN)
  __tsan_acquire(tag);
#else
  (void)tag;
#endif
}

// Dynamic shared memory holds NaNs at first, and ends exactly where it ends for AddressSanitizer.
inline unsigned char* allocate_shared(size_t bytes) {
  if (bytes == 0) return nullptr;
  const size_t rounded = (bytes + 127) / 128 * 128;
  unsigned char* memory = static_cast<unsigned char*>(std::aligned_alloc(128, rounded));
  if (!memory) throw std::bad_alloc();
  std::memset(memory, 0xff, bytes);
#if defined(CDKD_ASAN)
  __asan_poison_memory_region(memory + bytes, rounded - bytes);
#endif
  return memory;
}

inline void free_shared(unsigned char* memory, size_t bytes) {
#if defined(CDKD_ASAN)
  if (memory) __asan_unpoison_memory_region(memory, (bytes + 127) / 128 * 128);
#else
  (void)bytes;
#endif
  std::free(memory);
}

}  // namespace cdkd::emulation
