/* workers.h - a few threads for what takes long and belongs to nobody: reading,
 * rendering and tokenizing large requests. First come, first served; but one of
 * the threads takes none that is large, so that small ones never wait for those. */
#ifndef WORKERS_H
#define WORKERS_H
#include "../base/base.h"

typedef struct Workers Workers;

Workers *workers_new(int threads, ds4_err *err);
/* Waits for what is running; what still waits is run, too. NULL is fine. */
void workers_free(Workers *w);
/* fn(arg) on one of the threads; bytes: how much it has to read. False: no memory. */
bool workers_run(Workers *w, void (*fn)(void *arg), void *arg, size_t bytes);

#endif
