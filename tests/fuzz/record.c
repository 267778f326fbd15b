/* record.c - any bytes as the record of a kept answer. What is taken for one says,
 * written again, the same bytes. */
#include "../../src/server/recall_record.h"
#include <assert.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    RecalledRecord r;
    Bytes again = { 0 };
    if (!recall_record_read(&r, (Str){ (const char *)data, size }))
        return 0;
    recall_record_write(&again, r.words, &r.kept, r.names, r.n_names);
    assert(!again.failed && again.n == size && memcmp(again.p, data, size) == 0);
    bytes_release(&again);
    recall_record_release(&r);
    return 0;
}
