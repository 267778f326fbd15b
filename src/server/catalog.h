/* catalog.h - what the server says of its model to clients that ask, each in the
 * form that it reads. Pure: ServerInfo in, JSON out. */
#ifndef CATALOG_H
#define CATALOG_H
#include "dialect.h"

/* GET /v1/models: one list for OpenAI's clients and Anthropic's. */
void catalog_models(Bytes *out, const ServerInfo *s);
/* GET /v1/models/{id}: the object under the name that was asked for. False: 404.
 * The same names as in a request are known: all, unless the server is strict. */
bool catalog_model(Bytes *out, const ServerInfo *s, Str id);
/* GET /v1/codex/models: Codex's catalogue. */
void catalog_codex(Bytes *out, const ServerInfo *s);

/* GET /props, in llama.cpp's form. */
typedef struct {
    int slots;
    const char *model_path; /* only its last part is told */
    const char *build;
} CatalogProps;
void catalog_props(Bytes *out, const ServerInfo *s, const CatalogProps *p);

/* GET /api/version and /api/tags: enough for those who look for ollama. */
void catalog_version(Bytes *out);
void catalog_tags(Bytes *out, const ServerInfo *s);

#endif
