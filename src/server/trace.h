/* trace.h - all that comes and goes, written into a folder for a person to look
 * at: one file a request, which only its owner may read. */
#ifndef TRACE_H
#define TRACE_H
#include "job.h"

typedef struct Trace Trace;
typedef struct TraceFile TraceFile;

/* The folder is made if it is not there, with mode 0700. */
Trace *trace_open(const char *folder, ds4_err *err);
void trace_close(Trace *t); /* NULL is fine */

/* REQUEST-ID.txt, with the request in it. NULL where t is, or on failure. */
TraceFile *trace_begin(Trace *t, const char *request_id, const char *what, Str body);
void trace_prompt(TraceFile *f, const Job *j, const ds4_vocab *v);
void trace_bytes(TraceFile *f, Str bytes); /* of the reply */
void trace_end(TraceFile *f, const char *how);

#endif
