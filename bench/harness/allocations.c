// Counts what the whole process allocates: preloaded, these functions stand before those of the C library.
#include <errno.h>
#include <malloc.h>
#include <stdatomic.h>
#include <stddef.h>

void* __libc_malloc(size_t);
void* __libc_calloc(size_t, size_t);
void* __libc_realloc(void*, size_t);
void* __libc_memalign(size_t, size_t);
void __libc_free(void*);

static atomic_long now, peak;

static void* counted(void* pointer) {
  if (!pointer) return pointer;
  const long bytes = (long)malloc_usable_size(pointer);
  const long total = atomic_fetch_add(&now, bytes) + bytes;
  long highest = atomic_load(&peak);
  while (total > highest && !atomic_compare_exchange_weak(&peak, &highest, total)) {
  }
  return pointer;
}

static void forget(void* pointer) {
  if (pointer) atomic_fetch_sub(&now, (long)malloc_usable_size(pointer));
}

long allocated_now(void) { return atomic_load(&now); }
long allocated_peak(void) { return atomic_load(&peak); }
void forget_peak(void) { atomic_store(&peak, atomic_load(&now)); }

void* malloc(size_t size) { return counted(__libc_malloc(size)); }
void* calloc(size_t count, size_t size) { return counted(__libc_calloc(count, size)); }
void* memalign(size_t alignment, size_t size) { return counted(__libc_memalign(alignment, size)); }
void* aligned_alloc(size_t alignment, size_t size) { return counted(__libc_memalign(alignment, size)); }

int posix_memalign(void** result, size_t alignment, size_t size) {
  void* pointer = counted(__libc_memalign(alignment, size));
  if (!pointer) return ENOMEM;
  *result = pointer;
  return 0;
}

void* realloc(void* pointer, size_t size) {
  const long before = pointer ? (long)malloc_usable_size(pointer) : 0;
  void* moved = __libc_realloc(pointer, size);
  if (moved || !size) atomic_fetch_sub(&now, before);
  return counted(moved);
}

void free(void* pointer) {
  forget(pointer);
  __libc_free(pointer);
}
