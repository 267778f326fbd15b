/* failing_memory.h - memory that is refused once, at the Nth request, for tests that go through all
 * N and look at what comes of it.
 *
 * A test includes this, then the .c files whose requests shall fail: they take the place of those
 * in the libraries. Buffers and arenas are among them always. */
#ifndef FAILING_MEMORY_H
#define FAILING_MEMORY_H
#include <stdbool.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

static long memory_asked;   /* requests since it was made 0 */
static long memory_refused; /* which of them; 0: none */

static inline bool memory_is_refused(void) { return ++memory_asked == memory_refused; }

static inline void *failing_malloc(size_t n) { return memory_is_refused() ? NULL : malloc(n); }

static inline void *failing_calloc(size_t count, size_t size)
{
    return memory_is_refused() ? NULL : calloc(count, size);
}

static inline void *failing_realloc(void *p, size_t n)
{
    return memory_is_refused() ? NULL : realloc(p, n);
}

/* From now on the Nth request is refused, or with 0 none. */
static inline void memory_refuse(long nth)
{
    memory_asked = 0;
    memory_refused = nth;
}

/* Ends it. Was one refused? */
static inline bool memory_was_refused(void)
{
    const bool refused = memory_refused && memory_asked >= memory_refused;
    memory_refuse(0);
    return refused;
}

#define malloc(n)        failing_malloc(n)
#define calloc(count, n) failing_calloc(count, n)
#define realloc(p, n)    failing_realloc(p, n)

#include "../src/base/arena.c"
#include "../src/base/bytes.c"

#endif
