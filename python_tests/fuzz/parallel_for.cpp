// Takes the place of torch's parallel_for: own threads, which ThreadSanitizer sees start and end, and so many
// of them that small calls are shared too. torch's OpenMP pool hides from it what its barriers order.
#include <cstdint>
#include <thread>
#include <vector>

extern "C" __attribute__((visibility("default"))) int32_t torch_parallel_for(
    int64_t begin, int64_t end, int64_t, void (*callback)(int64_t, int64_t, void*), void* context) {
  const int64_t threads = end - begin < 3 ? end - begin : 3;
  std::vector<std::thread> others;
  for (int64_t i = 1; i < threads; ++i)
    others.emplace_back(callback, begin + (end - begin) * i / threads,
                        begin + (end - begin) * (i + 1) / threads, context);
  if (threads > 0) callback(begin, begin + (end - begin) / threads, context);
  for (std::thread& other : others) other.join();
  return 0;
}
