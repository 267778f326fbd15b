/* kv_pages.h - the KV store over HTTP: what is in it, and putting things there. */
#ifndef KV_PAGES_H
#define KV_PAGES_H
#include "routes.h"

void get_kv(const Visit *v);
void delete_kv(const Visit *v);
/* ?api=chat|completions|messages|responses and a body of that API: its prompt is read, and
 * kept, and nothing answered. */
void post_prefetch(const Visit *v);

#endif
