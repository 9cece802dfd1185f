// The exports that no room has: the structs that all share, and the scheduler's settings.
#include "emulation/exports.h"

#include "common/rows.h"

namespace cdkd {

CDKD_EXPORT_FIELDS(Rows, data, length, format)
CDKD_EXPORT_FIELDS(MutableRows, data, length, format)

}  // namespace cdkd

namespace cdkd::emulation {

CDKD_EXPORT_FIELDS(Traffic, read, written)
CDKD_EXPORT_FIELDS(Launch, name, grid, block, shared_bytes, blocks_run, traffic)

CDKD_EXPORT void cdkd_configure(uint64_t schedule, uint64_t max_blocks) { configure(schedule, max_blocks); }
CDKD_EXPORT void cdkd_clear_launches() { clear_launches(); }
CDKD_EXPORT size_t cdkd_copy_launches(Launch* launches, size_t capacity) {
  return copy_launches(launches, capacity);
}

}  // namespace cdkd::emulation
