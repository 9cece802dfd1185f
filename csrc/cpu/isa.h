// Runs a kernel compiled for the widest vectors of this processor. target_clones cannot do this: the steps of
// a pass and the shape of a register tile depend on the width, so the width is a template argument and each
// width is one instantiation.
#pragma once

#include <cstdlib>
#include <cstring>

#include "common/portable.h"

#if defined(__x86_64__) && defined(__GNUC__)
#define CDKD_HAS_ISA 1
#define CDKD_TARGET(name) __attribute__((target(name)))
#else
#define CDKD_HAS_ISA 0
#define CDKD_TARGET(name)
#endif

namespace cdkd::cpu {

enum class Isa { baseline, avx2, avx512 };

// The instruction set in use; CDKD_ISA=baseline|avx2 lowers it, so that every version can be tested on one
// machine.
inline Isa detect_isa() {
  Isa best = Isa::baseline;
#if CDKD_HAS_ISA
  __builtin_cpu_init();
  const bool avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
  const bool avx512 = avx2 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
                      __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl");
  best = avx512 ? Isa::avx512 : avx2 ? Isa::avx2 : Isa::baseline;
  if (const char* wanted = std::getenv("CDKD_ISA")) {
    if (std::strcmp(wanted, "baseline") == 0) best = Isa::baseline;
    if (std::strcmp(wanted, "avx2") == 0 && best == Isa::avx512) best = Isa::avx2;
  }
#endif
  return best;
}

inline Isa isa() {
  static const Isa found = detect_isa();
  return found;
}

template <class Body, class... Args>
void run_baseline(const Args&... args) {
  Body::template run<16>(args...);
}

template <class Body, class... Args>
CDKD_TARGET("arch=x86-64-v3")
void run_avx2(const Args&... args) {
  Body::template run<32>(args...);
}

template <class Body, class... Args>
CDKD_TARGET("arch=x86-64-v4")
void run_avx512(const Args&... args) {
  Body::template run<64>(args...);
}

// Body::run<bytes per vector>(args...) must be CDKD_INLINE, and so must all it calls in a hot loop: a plain
// function or a lambda would be compiled for the baseline.
template <class Body, class... Args>
void run(const Args&... args) {
  switch (isa()) {
#if CDKD_HAS_ISA
    case Isa::avx512:
      return run_avx512<Body>(args...);
    case Isa::avx2:
      return run_avx2<Body>(args...);
#endif
    default:
      return run_baseline<Body>(args...);
  }
}

}  // namespace cdkd::cpu
