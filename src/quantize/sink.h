/* sink.h - where a GGUF is written: a file, or memory. In order, from the start. */
#ifndef SINK_H
#define SINK_H
#include "../base/file.h"

typedef struct {
    File *file; /* or */
    Bytes *mem;
    uint64_t at; /* bytes written */
} Sink;

bool sink_write(Sink *s, const void *p, size_t n, ds4_err *err);
bool sink_pad(Sink *s, uint64_t to, ds4_err *err); /* zeros up to this place */

/* Fails when the folder of path has no room for so many bytes more. */
bool sink_room(const char *path, uint64_t bytes, ds4_err *err);

#endif
