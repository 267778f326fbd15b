/* random_schema.h - JSON schemas by chance, of the keywords that grammars know. */
#ifndef RANDOM_SCHEMA_H
#define RANDOM_SCHEMA_H
#include "../src/base/bytes.h"
#include "../src/base/rng.h"

static inline uint64_t chance(uint64_t *rng, uint64_t n) { return rng_next(rng) % n; }

static inline void random_schema(Bytes *b, uint64_t *rng, int depth);

static inline void random_string(Bytes *b, uint64_t *rng)
{
    static const char *const patterns[] = { "^[a-z]{2,5}$", "ab|cd", "^\\\\d+-\\\\d+$",
                                            "^[^\\\\n]*$",  "é$",    "^wf_[a-z0-9-]{6,}$" };
    bytes_str(b, "{\"type\":\"string\"");
    if (chance(rng, 3) == 0)
        bytes_printf(b, ",\"pattern\":\"%s\"", patterns[chance(rng, COUNT(patterns))]);
    else if (chance(rng, 2) == 0)
        bytes_printf(b, ",\"minLength\":%d,\"maxLength\":%d", (int)chance(rng, 4),
                     4 + (int)chance(rng, 30));
    bytes_str(b, "}");
}

static inline void random_number(Bytes *b, uint64_t *rng)
{
    int lo = (int)chance(rng, 300) - 150, hi = lo + 8 + (int)chance(rng, 2000);
    bool whole = chance(rng, 2);
    bytes_printf(b, "{\"type\":\"%s\"", whole ? "integer" : "number");
    if (whole && chance(rng, 4) == 0)
        bytes_printf(b, ",\"multipleOf\":%d", 1 + (int)chance(rng, 3));
    if (chance(rng, 2))
        bytes_printf(b, ",\"%s\":%d", chance(rng, 2) ? "minimum" : "exclusiveMinimum", lo);
    if (chance(rng, 2))
        bytes_printf(b, ",\"%s\":%d", chance(rng, 2) ? "maximum" : "exclusiveMaximum", hi);
    bytes_str(b, "}");
}

static inline void random_array(Bytes *b, uint64_t *rng, int depth)
{
    bytes_str(b, "{\"type\":\"array\"");
    if (chance(rng, 3)) {
        bytes_str(b, ",\"items\":");
        random_schema(b, rng, depth - 1);
    }
    if (chance(rng, 4) == 0) {
        bytes_str(b, ",\"prefixItems\":[");
        random_schema(b, rng, depth - 1);
        bytes_str(b, "]");
    }
    if (chance(rng, 2))
        bytes_printf(b, ",\"minItems\":%d,\"maxItems\":%d", (int)chance(rng, 3),
                     2 + (int)chance(rng, 3));
    bytes_str(b, "}");
}

static inline void random_object(Bytes *b, uint64_t *rng, int depth)
{
    static const char *const names[] = { "a", "ab", "name", "path", "q\\\"", "é" };
    int n = (int)chance(rng, 5);
    bytes_str(b, "{\"type\":\"object\",\"properties\":{");
    for (int i = 0; i < n; i++) {
        bytes_printf(b, "%s\"%s\":", i ? "," : "", names[i]);
        random_schema(b, rng, depth - 1);
    }
    bytes_str(b, "},\"required\":[");
    for (int i = 0, k = 0; i < n; i++) {
        if (chance(rng, 2))
            bytes_printf(b, "%s\"%s\"", k++ ? "," : "", names[i]);
    }
    bytes_str(b, "]");
    if (chance(rng, 2)) {
        bytes_str(b, ",\"additionalProperties\":");
        if (chance(rng, 2))
            bytes_str(b, "false");
        else
            random_schema(b, rng, depth - 1);
    }
    bytes_str(b, "}");
}

static inline void random_schema(Bytes *b, uint64_t *rng, int depth)
{
    switch (chance(rng, depth > 0 ? 10 : 6)) {
    case 0: bytes_str(b, "{\"type\":\"boolean\"}"); break;
    case 1: bytes_str(b, "{\"enum\":[\"x\",\"y z\",3,null,[1,\"a, b\"],{\"k\":1.5}]}"); break;
    case 2: bytes_str(b, "{\"type\":[\"null\",\"integer\"]}"); break;
    case 3: random_number(b, rng); break;
    case 4:
    case 5: random_string(b, rng); break;
    case 6: random_array(b, rng, depth); break;
    case 7:
        bytes_str(b, "{\"anyOf\":[");
        random_schema(b, rng, depth - 1);
        bytes_str(b, ",");
        random_schema(b, rng, depth - 1);
        bytes_str(b, "]}");
        break;
    default: random_object(b, rng, depth);
    }
}

/* A schema that may lead back to itself, or that is joined of two. */
static inline void random_root(Bytes *b, uint64_t *rng, int depth)
{
    switch (chance(rng, 8)) {
    case 0:
        bytes_str(b, "{\"$defs\":{\"n\":{\"type\":\"object\",\"properties\":{\"a\":");
        random_schema(b, rng, depth - 1);
        bytes_str(b, ",\"next\":{\"anyOf\":[{\"$ref\":\"#/$defs/n\"},{\"type\":\"null\"}]}},"
                     "\"required\":[\"a\"],\"additionalProperties\":false}},"
                     "\"type\":\"array\",\"maxItems\":2,\"items\":{\"$ref\":\"#/$defs/n\"}}");
        break;
    case 1:
        bytes_str(b, "{\"allOf\":[{\"type\":\"object\",\"properties\":{\"a\":");
        random_schema(b, rng, depth - 1);
        bytes_str(b,
                  ",\"p\":{\"type\":[\"string\",\"integer\",\"null\"]}}},{\"properties\":{"
                  "\"ab\":{\"const\":\"x\"},\"p\":{\"type\":[\"integer\",\"null\"],\"minimum\":3}},"
                  "\"required\":[\"p\"],\"maxProperties\":4}]}");
        break;
    default: random_schema(b, rng, depth);
    }
}

#endif
