// What this processor can do at best: compiled for it when a benchmark starts, and sharing no code with the
// package. Work is repeated inside one parallel region, so that neither calls nor forks count.
#include <omp.h>
#include <stddef.h>
#include <stdint.h>

enum { BYTES = 64, LANES = BYTES / sizeof(float), BLOCK = 64, CHAINS = 12 };
typedef uint64_t words __attribute__((vector_size(BYTES)));
typedef float floats __attribute__((vector_size(BYTES)));
typedef int32_t integers __attribute__((vector_size(BYTES)));

// Nothing that produced `value` may be dropped, merged or moved.
#define KEEP(value) __asm__ volatile("" ::"m"(value) : "memory")

typedef struct {
  size_t begin, end;
} Share;

// This thread's part of `count` things.
static Share share(size_t count) {
  const size_t thread = (size_t)omp_get_thread_num(), team = (size_t)omp_get_num_threads();
  return (Share){count * thread / team, count * (thread + 1) / team};
}

void read_bytes(const char* data, size_t bytes, int threads, int repeats) {
  const words* source = (const words*)data;
#pragma omp parallel num_threads(threads)
  {
    const Share part = share(bytes / BYTES);
    for (int repeat = 0; repeat < repeats; ++repeat) {
      words sum[4] = {};
      size_t i = part.begin;
      for (; i + 4 <= part.end; i += 4)
        for (int chain = 0; chain < 4; ++chain) sum[chain] += source[i + chain];
      for (; i < part.end; ++i) sum[0] += source[i];
      KEEP(sum);
    }
  }
}

void write_bytes(char* data, size_t bytes, int threads, int repeats) {
  words* target = (words*)data;
#pragma omp parallel num_threads(threads)
  {
    const Share part = share(bytes / BYTES);
    for (int repeat = 0; repeat < repeats; ++repeat) {
      const words value = {(uint64_t)repeat};
      for (size_t i = part.begin; i < part.end; ++i) target[i] = value;
      KEEP(*data);
    }
  }
}

// exp(x) for x in [-87, 88] as float32 can say it: 2^n, n the nearest integer, times a polynomial.
static inline floats exponential(floats x) {
  const floats shifted = x * 1.44269504f + 12582912.f;  // 1.5 * 2^23: the low bits hold n
  const floats f = x * 1.44269504f - (shifted - 12582912.f);
  floats p = 1.32645911e-3f * f + 9.67161916e-3f;
  p = p * f + 5.55073507e-2f;
  p = p * f + 2.40222409e-1f;
  p = p * f + 6.93147004e-1f;
  p = p * f + 1.f;
  return (floats)((integers)p + ((integers)shifted << 23));
}

// `count` exponentials, summed, of a block that stays in the first-level cache.
void exponentials(size_t count, int threads, int repeats) {
#pragma omp parallel num_threads(threads)
  {
    const Share part = share((count + LANES - 1) / LANES);
    floats block[BLOCK];
    for (int i = 0; i < BLOCK * LANES; ++i) ((float*)block)[i] = -20.f * (float)i / (BLOCK * LANES);
    for (int repeat = 0; repeat < repeats; ++repeat) {
      floats sum[4] = {};
      for (size_t begin = part.begin; begin < part.end; begin += BLOCK) {
        KEEP(block);
        const size_t length = part.end - begin < BLOCK ? part.end - begin : BLOCK;
        size_t i = 0;
        for (; i + 4 <= length; i += 4)
          for (int chain = 0; chain < 4; ++chain) sum[chain] += exponential(block[i + chain]);
        for (; i < length; ++i) sum[0] += exponential(block[i]);
      }
      KEEP(sum);
    }
  }
}

void exponentials_of(const float* x, float* result, size_t count) {
  for (size_t i = 0; i < count / LANES; ++i) ((floats*)result)[i] = exponential(((const floats*)x)[i]);
}

// `count` fused multiply-adds in chains that hide each other's latency.
void multiply_adds(size_t count, int threads, int repeats) {
#pragma omp parallel num_threads(threads)
  {
    const Share part = share((count + CHAINS * LANES - 1) / (CHAINS * LANES));
    floats factor = {}, sum[CHAINS] = {};
    factor += 0.5f;
    for (int repeat = 0; repeat < repeats; ++repeat) {
      KEEP(factor);
      for (size_t i = part.begin; i < part.end; ++i)
        for (int chain = 0; chain < CHAINS; ++chain) sum[chain] = sum[chain] * factor + factor;
    }
    KEEP(sum);
  }
}
