/* record.h - bytes of a journal and what they mean; no I/O.
 *
 *     offset  bytes
 *          0      4   "DS4R"
 *          4      4   version of the records' form, the owner's
 *          8      4   kind: 1 put, 2 drop
 *         12      4   n, bytes of the record
 *         16      8   key
 *         24      8   XXH3-64 of the n bytes
 *         32      8   XXH3-64 of the 32 bytes before
 *         40      n   the record
 *
 * One after the other, little endian. Where something else lies the next header
 * is looked for, byte by byte. */
#ifndef STORE_RECORD_H
#define STORE_RECORD_H
#include "../base/bytes.h"

enum { RECORD_HEAD = 40, RECORD_MOST = 64 << 20 };
typedef enum { RECORD_PUT = 1, RECORD_DROP = 2 } RecordKind;

typedef struct {
    RecordKind kind;
    uint32_t version;
    uint64_t key;
    size_t at; /* of its header */
    Str body;
} Record;

void record_write(Bytes *out, RecordKind kind, uint32_t version, uint64_t key, Str body);

typedef struct {
    size_t end;     /* after the last good record */
    size_t damaged; /* places where something else lay, a torn end not among them */
} RecordScan;
/* All good records of p, in their order. */
RecordScan record_scan(const char *p, size_t n, void (*seen)(void *user, const Record *r),
                       void *user);

#endif
